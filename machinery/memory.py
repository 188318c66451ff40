"""Memory that threads share."""
import contextlib
import threading


class MemoryBudget:
    """So many bytes that threads may fill at once; a larger need waits to be alone."""

    def __init__(self, size):
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def use(self, size):
        """Wait until so many bytes are free, and take them for a with statement."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
