"""Standard output and error, even if their reader has gone."""
import io
import os
import re
import sys

from machinery.text import escaped

BROKEN = set()  # numbers of the streams whose reader has gone
# Names of classes and files may have control codes for terminals. Only tqdm's codes
# get through: return, and up by a line, which it needs for a bar below another.
CONTROL = re.compile('(?!\x1b\\[A)[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]')


class Stream(io.TextIOWrapper):
    """A text stream; it drops text it cannot write: no message is worth a run."""

    def write(self, text):
        """Write text with its control characters escaped, if somebody reads it."""
        return self._try(super().write, CONTROL.sub(escaped, text))

    def flush(self):
        """Write buffered text, if somebody reads it."""
        self._try(super().flush)

    def close(self):
        """Close the stream; from 3.13 on, Python would tell of text that is lost."""
        self._try(super().close)

    def _try(self, action, *arguments):
        try:
            return action(*arguments)
        except BrokenPipeError:  # from "| head", unlike a full disk
            BROKEN.add(self.name)
        except OSError:
            pass
        return len(*arguments) if arguments else None


def protect_streams():
    """Replace standard output and error with Streams, except in a notebook."""
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
                'backslashreplace', line_buffering=True))  # even for tee
        elif hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
