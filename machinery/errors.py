"""Report mistakes of the user: one message, no traceback."""
import contextlib
import logging
import os
import sys
import time
import warnings

import cv2
import tqdm

from machinery.streams import protect_streams
from machinery.text import printable


class InputError(ValueError):
    """A mistake of the user: scripts print only its message and exit with status 2."""


@contextlib.contextmanager
def input_errors():
    """Turn every OSError into an InputError; also works as a decorator."""
    try:
        yield
    except OSError as error:
        raise InputError('%s: %s' % (error.filename, error.strerror)
                         if error.filename else str(error)) from error


@input_errors()
def open_plain(path):
    """Open a regular file to read its bytes; a pipe or device might block forever."""
    if '\0' in path or os.path.exists(path) and not os.path.isfile(path):
        raise InputError('%r: is not a regular file' % path)
    return open(path, 'rb')


@contextlib.contextmanager
def stderr_to(number):
    """Redirect standard error, including C libraries, to a file descriptor."""
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(number, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def tell(kind, error, traceback):
    """After an InputError or Ctrl-C, print only the message and end the script."""
    if issubclass(kind, InputError):
        message, status = '\n'.join(map(printable, str(error).split('\n'))), 2
    elif issubclass(kind, KeyboardInterrupt):
        message, status = 'Interrupted', 130
    else:
        sys.stderr = sys.__stderr__  # ours would escape Python 3.13's colours
        return sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    print(message, file=sys.stderr)
    sys.exit(status)


def tell_in_notebook(shell, kind, error, traceback, tb_offset=None):
    """Print only the message below a notebook's cell, and keep the kernel running."""
    with contextlib.suppress(SystemExit):
        tell(kind, error, traceback)


def find_shell():
    """Return IPython's shell in a notebook, else None."""
    return sys.modules['IPython'].get_ipython() if 'IPython' in sys.modules else None


def act_as_script():
    """Make mistakes end this script with one message, and keep libraries quiet."""
    sys.excepthook = tell
    protect_streams()
    # Bars must not show a negative speed when the system's clock is set back.
    tqdm.std.time = tqdm._monitor.time = time.monotonic
    shell = find_shell()
    if shell:
        shell.set_custom_exc((InputError, KeyboardInterrupt), tell_in_notebook)
    cv2.utils.logging.setLogLevel(0)  # its messages name no file; ours do
    warnings.filterwarnings('ignore', module='PIL')  # nor do these
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
