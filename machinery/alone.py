"""One run at a time fetches a file: a lock of the system, which any end releases."""
import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows has none of these
    fcntl = None


@contextlib.contextmanager
def alone(path):
    """Wait until no other run fetches path; then keep others waiting."""
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
    """Return the locked file beside path, None if the system has no such locks."""
    with contextlib.suppress(OSError):
        while fcntl:
            file = open(path + '.lock', 'a')
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print('Waiting for another run that fetches %s' % path, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The run that held it has removed it, and others may hold a newer one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
                    return file
            file.close()
