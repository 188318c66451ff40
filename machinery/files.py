"""Write files that are whole, and survive a power failure."""
import contextlib
import errno
import os

# Errors that say that a folder has no fsync: Windows refuses to open it, CIFS and some
# FUSE file systems to sync it. A full disk (ENOSPC) and a fault (EIO) always count.
NO_SYNC = [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES,
           errno.EPERM, errno.EISDIR]


def sync(path):
    """fsync a file, or a folder if its file system can; raises an OSError."""
    is_folder = os.path.isdir(path)
    try:  # Windows wants a file open for writing; nobody opens a folder like that
        number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if not is_folder or error.errno not in NO_SYNC:
            raise


@contextlib.contextmanager
def write_whole(path, mode='wb'):
    """Open a file to write; it appears under its name whole, or not at all."""
    part = '%s.%d.part' % (path, os.getpid())
    try:
        with open(part, mode) as file:
            yield file
        sync(part)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise
    sync(os.path.dirname(os.path.abspath(path)))
