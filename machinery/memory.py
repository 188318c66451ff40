"""A limit on the memory of all threads together."""
import contextlib
import threading


class MemoryBudget:
    """Lets threads fill size bytes in all; a request for more takes all of them."""

    def __init__(self, size):
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def use(self, size):
        """Wait until size bytes are free, and hold them during a with block."""
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
