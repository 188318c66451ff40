"""Standard output and error that nobody may be reading any more."""
import io
import os
import re
import sys

from machinery.text import escaped

BROKEN = set()  # numbers of the streams whose reader has gone
# Names of classes and files may have codes that a terminal obeys. It shall obey only
# those of tqdm: return, and up by a line, for one bar below another.
CONTROL = re.compile('(?!\x1b\\[A)[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]')


class Stream(io.TextIOWrapper):
    """A text stream that drops what cannot be written: no message is worth a run."""

    def write(self, text):
        """Write text with its control characters escaped, if somebody reads it."""
        return self._try(super().write, CONTROL.sub(escaped, text))

    def flush(self):
        """Write what is buffered, if somebody reads it."""
        self._try(super().flush)

    def _try(self, action, *arguments):
        try:
            return action(*arguments)
        except BrokenPipeError:  # of "| head"; not of a disk that is full
            BROKEN.add(self.name)
        except OSError:
            pass
        return len(*arguments) if arguments else None


def protect_streams():
    """Replace standard output and error by Streams, in a notebook by nothing."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the shell; another file would get its number
            os.open(os.devnull, os.O_RDWR)
    for number, name in [(1, 'stdout'), (2, 'stderr')]:
        stream = getattr(sys, name)
        if stream is None or type(stream) is io.TextIOWrapper:
            if stream:
                stream.flush()
            setattr(sys, name, Stream(
                open(number, 'wb', closefd=False), stream and stream.encoding,
                'backslashreplace', line_buffering=True))  # for tee, too
        elif hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
