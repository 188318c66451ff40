"""Tell damage of a file from a system that is short of something."""
import contextlib
import errno
import os

from machinery.errors import InputError
from machinery.files import Damaged
from machinery.tf1 import tf

# Errors that say nothing about the file: the system's words, and types.
WORDS = [os.strerror(getattr(errno, name)) for name in (
    'EMFILE', 'ENFILE', 'ENOMEM', 'EIO', 'EACCES', 'EPERM', 'EINTR', 'EAGAIN',
    'ESTALE', 'ETIMEDOUT', 'ENOTCONN', 'ENOSPC', 'EDQUOT') if hasattr(errno, name)]
SHORT = (MemoryError, tf.errors.ResourceExhaustedError, tf.errors.UnavailableError,
         tf.errors.PermissionDeniedError, tf.errors.DeadlineExceededError,
         tf.errors.AbortedError, tf.errors.CancelledError)


@contextlib.contextmanager
def damage_told(path, expected='made by finetune.py'):
    """Turn any exception into an InputError; a damaged file raises nearly any.

    It is Damaged, unless the system was short of something, or refused to read.
    """
    try:
        yield
    except InputError as error:
        raise type(error)('%s: %s' % (path, error)) from error
    except Exception as error:
        reason = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
        if is_shortage(error):
            raise InputError('%s: cannot be read now: %s' % (path, reason)) from error
        raise Damaged('%s: damaged, or not %s: %s'
                      % (path, expected, reason)) from error


def is_shortage(error):
    """Tell whether an error may have another cause than a file's content."""
    # TensorFlow's types depend on its version; the system's words are in its messages.
    if isinstance(error, SHORT) or any(words in str(error) for words in WORDS):
        return True
    try:  # and not all of its messages have them
        with contextlib.ExitStack() as files:
            for _ in range(8):
                files.enter_context(open(os.devnull))
    except OSError:
        return True
    return False
