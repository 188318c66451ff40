"""Write files whole, safe from power failures; read small files safely."""
import codecs
import contextlib
import errno
import json
import os
import secrets

from machinery.errors import InputError, open_plain

# Errors of systems without fsync for folders: Windows cannot open a folder; CIFS and
# some FUSE file systems cannot sync it. A full disk (ENOSPC) or fault (EIO) is raised.
NO_SYNC = [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES,
           errno.EPERM, errno.EISDIR]


class Damaged(InputError):
    """The file's content proves that it is damaged, or not the expected kind."""


def sync(path):
    """fsync a file, or a folder if its file system allows it; raises OSError."""
    is_folder = os.path.isdir(path)
    try:  # Windows syncs only files open for writing; a folder cannot be
        number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if not is_folder or error.errno not in NO_SYNC:
            raise


@contextlib.contextmanager
def write_whole(path, mode='wb', may_replace=True):
    """Open a file to write; it appears under its name whole, or not at all.

    If may_replace is False, raises FileExistsError if path exists by then.
    """
    # Not the process id, which is 1 in every container.
    part = '%s.%s.part' % (path, secrets.token_hex(4))
    try:
        with open(part, mode) as file:
            yield file
        sync(part)
        if not may_replace and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise
    sync(os.path.dirname(os.path.abspath(path)))


def read_json(path):
    """Return the dict in a JSON file, None without a file.

    Raises Damaged if it holds anything else, an InputError if it cannot be read.
    """
    if not os.path.exists(path):
        return None
    with open_plain(path) as file:
        content = file.read()
    try:
        found = json.loads(content.decode())
        if type(found) is not dict:
            raise ValueError('it holds no {...}')
        return found
    except (ValueError, RecursionError) as error:
        raise Damaged('%s: damaged (%s)' % (path, error)) from error


def read_text(path):
    """Read text in UTF-8, or UTF-16 with a byte order mark; all lines end in \\n."""
    with open_plain(path) as file:
        data = file.read(1000)
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if is_utf16 or b'\0' not in data:  # do not read a whole video
            data += file.read()
    try:
        text = data.decode('utf-16' if is_utf16 else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise InputError('%s, line %d: not UTF-8 text (%s): save it as UTF-8'
                         % (path, 1 + data.count(b'\n', 0, error.start), error))
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    if '\0' in text:
        raise InputError('%s, line %d: this is not a text file'
                         % (path, 1 + text.count('\n', 0, text.index('\0'))))
    return text
