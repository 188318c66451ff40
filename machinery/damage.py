"""Tell a damaged file from a system that has run out of resources."""
import contextlib
import errno
import os

from machinery.errors import InputError
from machinery.files import Damaged
from machinery.tf1 import tf

# Errors that say nothing about the file, by the system's words and by type.
WORDS = [os.strerror(getattr(errno, name)) for name in (
    'EMFILE', 'ENFILE', 'ENOMEM', 'EIO', 'EACCES', 'EPERM', 'EINTR', 'EAGAIN',
    'ESTALE', 'ETIMEDOUT', 'ENOTCONN', 'ENOSPC', 'EDQUOT') if hasattr(errno, name)]
SHORT = (MemoryError, tf.errors.ResourceExhaustedError, tf.errors.UnavailableError,
         tf.errors.PermissionDeniedError, tf.errors.DeadlineExceededError,
         tf.errors.AbortedError, tf.errors.CancelledError)


@contextlib.contextmanager
def damage_told(path, expected='made by finetune.py'):
    """Turn any exception into an InputError, since a damaged file may raise any type.

    It is Damaged, unless the system ran out of resources or refused to read.
    """
    try:
        yield
    except InputError as error:
        raise type(error)('%s: %s' % (path, error)) from error
    except Exception as error:
        reason = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
        shortage = find_shortage(error)
        if shortage:
            raise InputError('%s: cannot be read now (%s): %s'
                             % (path, shortage, reason)) from error
        raise Damaged('%s: damaged, or not %s: %s'
                      % (path, expected, reason)) from error


def find_shortage(error):
    """Return the cause of an error if it is the system and not the file, else None.

    TensorFlow's types depend on its version. Most of its messages have the system's
    words, but not all, so we also try to open some files.
    """
    if isinstance(error, SHORT):
        return type(error).__name__
    try:
        with contextlib.ExitStack() as files:
            for _ in range(8):
                files.enter_context(open(os.devnull))
    except OSError as shortage:
        return shortage.strerror
    return next((words for words in WORDS if words in str(error)), None)
