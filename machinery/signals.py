"""Ctrl-C, SIGTERM and | head, which must not stop a run in the middle of a step."""
import contextlib
import os
import signal

from machinery.streams import BROKEN

SIGPIPE = 13  # not defined by signal on Windows


class StopSignals:
    """Within it, SIGINT and SIGTERM are only noted; a second ends the process."""

    def __enter__(self):
        self.received = []
        # A shell makes its background jobs ignore Ctrl-C; do not change that.
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
        """Exit status of a process ended by the signal, here or on a peer."""
        otherwise = SIGPIPE if BROKEN else signal.SIGTERM
        return 128 + (self.received or [otherwise])[0]

    def _receive(self, number, frame):
        self.received.append(number)
        signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # nobody may be reading it
            # Not print, which the signal may have interrupted.
            os.write(2, b'\nStopping after this step. Press Ctrl-C again to quit at '
                        b'once\n')
