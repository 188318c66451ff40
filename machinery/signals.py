"""Ctrl-C, SIGTERM and | head, which must not stop a run in the middle of a step."""
import contextlib
import os
import signal

from machinery.streams import BROKEN

SIGPIPE = 13  # which Windows does not name


class StopSignals:
    """Within it, SIGINT and SIGTERM are only received; a second ends the process."""

    def __enter__(self):
        self.received = []
        # A shell lets what it starts in the background ignore Ctrl-C.
        self._earlier = {number: signal.signal(number, self._receive)
                         for number in (signal.SIGINT, signal.SIGTERM)
                         if signal.getsignal(number) is not signal.SIG_IGN}
        return self

    def __exit__(self, *error):
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def is_stopped(self):
        """Whether a signal has come, or the output's reader has gone."""
        return bool(self.received or BROKEN)

    @property
    def status(self):
        """Exit status of a process that such a signal ended, here or on a peer."""
        otherwise = SIGPIPE if BROKEN else signal.SIGTERM
        return 128 + (self.received or [otherwise])[0]

    def _receive(self, number, frame):
        self.received.append(number)
        signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # nobody may be reading it
            # Not print, which may be at work right now.
            os.write(2, b'\nStopping after this step. Press Ctrl-C again to quit at '
                        b'once\n')
