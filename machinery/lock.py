"""One run a folder: locks of the operating system, which any death releases."""
import os
import socket
import time

from machinery.settings import InputError, input_errors

try:
    import fcntl
except ImportError:  # Windows has none of these
    fcntl = None

HELD = {}  # {real path: open file} of this process


@input_errors()
def lock(folder):
    """Keep other runs out of a folder until unlock, or until the process ends.

    Raises:
        InputError: another process has it; names that and its host.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(os.path.realpath(folder), '.lock')
    if path in HELD:
        return
    file = open(path, 'a+')
    try:
        if fcntl is None:
            raise OSError('this system has no such locks')
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        for _ in range(20):
            file.seek(0)
            holder = file.read()
            if holder:  # which it writes a moment after it has locked the folder
                break
            time.sleep(0.1)
        raise InputError('%s is in use by another run, %s; wait for it, or choose '
                         'another folder' % (folder, holder or 'just started'))
    except OSError as error:
        print('Warning: %s cannot be locked (%s); see to it that a single run uses it'
              % (folder, error))
    file.truncate(0)
    file.write('process %d on %s' % (os.getpid(), socket.gethostname()))
    file.flush()
    HELD[path] = file


def unlock(folder):
    """Let other runs use a folder again."""
    file = HELD.pop(os.path.join(os.path.realpath(folder), '.lock'), None)
    if file:  # unless it was also the other folder
        file.close()
