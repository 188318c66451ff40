"""A file lock, so that only one run fetches a file. Any exit releases the lock."""
import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


@contextlib.contextmanager
def alone(path):
    """Wait until no other run is fetching path; then keep others waiting."""
    file = lock(path)
    try:
        yield
    finally:
        if fcntl:
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
