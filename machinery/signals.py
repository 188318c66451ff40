"""Ctrl-C and SIGTERM, which must not stop a run in the middle of a step."""
import os
import signal


class StopSignals:
    """Within it, SIGINT and SIGTERM are only received; a second ends the process."""

    def __enter__(self):
        self.received = []
        self._earlier = {number: signal.signal(number, self._receive)
                         for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error):
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def status(self):
        """Exit status of a process that such a signal ended, here or on a peer."""
        return 128 + (self.received or [signal.SIGTERM])[0]

    def _receive(self, number, frame):
        self.received.append(number)
        # Not print, which may be at work right now.
        os.write(2, b'\nStopping after this step. Press Ctrl-C again to quit at once\n')
        signal.signal(number, signal.SIG_DFL)
