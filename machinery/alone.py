"""File locks: one run fetches a file, one uses a folder. Any exit releases them."""
import contextlib
import os
import socket

from machinery.errors import InputError, input_errors

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

HELD = {}  # {real path of a folder: the open file that locks it}, of this process


@contextlib.contextmanager
def alone(path):
    """Wait until no other run is fetching path; then keep others waiting."""
    file = lock(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path + '.lock')
        if file:
            file.close()


def lock(path):
    """Open and lock the file path.lock; return None if this system cannot lock it."""
    with contextlib.suppress(OSError):
        while fcntl:
            file = open(path + '.lock', 'a')
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print('Waiting for another run to fetch %s' % path, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The last owner removed this file; others may have locked a new file since.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
                    return file
            file.close()


@input_errors()
def hold(folder):
    """Keep other processes out of a run's folder until this one releases it or ends."""
    path = os.path.realpath(folder)
    if path in HELD:
        return
    file = open(os.path.join(path, '.lock'), 'a+')
    try:
        if fcntl is None:
            raise OSError('this system has no such locks')
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)  # the other process writes its name just after locking
        raise InputError('%s is in use by another run, %s; wait for it, or start a new '
                         'run with resume = False'
                         % (folder, file.read() or 'just started'))
    except OSError as error:
        print('Warning: %s cannot be locked (%s); make sure that only one run uses it'
              % (folder, error))
    file.truncate(0)
    file.write('process %d on %s' % (os.getpid(), socket.gethostname()))
    file.flush()
    HELD[path] = file


def release(folder):
    """Let other processes use a folder again."""
    HELD.pop(os.path.realpath(folder)).close()
