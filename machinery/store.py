"""Rows of features on disk, for this run and later runs.

In the folder of a key, each process appends to its own two files: raw float32 rows, and
an index with a RECORD for each row. It reads the files of all processes. We keep no
copy in memory, because the operating system caches files.
"""
import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import zlib

import numpy as np
from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KEY = '[0-9a-f]{64}(-[0-9]+)?'
OURS = r'.+-[0-9]+-[0-9a-f]{8}\.(rows|index)'  # host-process-random
# name: digest of the picture; its lowest bit is 1 if it is mirrored. checksum: of the
# name and the row.
RECORD = np.dtype([('name', '<u8', 2), ('checksum', '<u4')])
# row: number of the file << 32 | number in the file, or -1.
PLACE = np.dtype(RECORD.descr + [('row', '<i8'), ('is_tested', '?')])
FREE = 0.05  # share of the disk left to others


class Store:
    """Rows of features, found by picture and variant (plain or mirrored).

    Args:
        shape: of a row.
        folder, key: the files are in folder/key; if either is None, they have no name
            and vanish with the process.
        limit: GB; if folder holds more, unused keys are deleted.

    Attributes:
        shape: of a row.
    """

    def __init__(self, shape, folder=None, key=None, limit=np.inf):
        self.shape = tuple(shape)
        self._size = 4 * int(np.prod(self.shape))
        self._keys, self._number = folder and key and os.path.join(folder, key), 1
        self._is_full = False
        self._enter(self._keys)
        if self._folder:
            warn_of_folder(folder)
            delete_oldest(folder, limit * 1e9)

    def move_on(self):
        """Leave these rows to other runs; use the next folder of the key, as KEY-2."""
        self._number += 1
        self._enter('%s-%d' % (self._keys, self._number))

    def _enter(self, folder):
        self._table = np.zeros(0, PLACE)
        self._files, self._numbers, self._own = [], {}, None
        self._folder = folder
        if folder:
            try:
                self._lock = lock_key(folder)
            except OSError as error:
                self._folder = None
                print('Warning: features are not kept for the next run: %s' % error)

    def register(self, paths, how):
        """Look for the rows of pictures; return the place of the first picture.

        Sample n has the places first + 2 * n and, mirrored, first + 2 * n + 1. The repr
        of how says how pictures become images.
        """
        table = np.zeros((len(paths), 2), PLACE)
        table['name'] = names_of(paths, how)[:, None]
        table['name'][:, 1, 0] |= 1
        table['row'] = -1
        table = table.ravel()
        for path in self._list_files():
            with contextlib.suppress(OSError):  # unreadable rows are computed again
                self._find(path, table)
        self._table = np.concatenate([self._table, table])
        return len(self._table) - len(table)

    def _list_files(self):
        """Return the paths of all files of rows, the last written at the end."""
        if not self._folder:
            return []
        paths = [path for path in list_ours(self._folder) if path.endswith('.rows') and
                 os.path.isfile(path) and os.path.isfile(index_of(path))]
        return sorted(paths, key=os.path.getmtime)

    def _find(self, path, table):
        """Look for the names of a table in the index of one file."""
        records = np.fromfile(index_of(path), RECORD)  # ignores the cut-off end
        records = records[:os.path.getsize(path) // self._size]
        if not len(records):
            return
        order = np.argsort(records['name'][:, 0], kind='stable')
        last = np.searchsorted(records['name'][order, 0], table['name'][:, 0], 'right')
        rows = order[last - 1]
        found = (records['name'][rows] == table['name']).all(1)
        if not found.any():
            return
        if path not in self._numbers:
            self._files.append(open(path, 'rb', buffering=0))
            self._numbers[path] = len(self._files) - 1
        table['row'][found] = rows[found] | self._numbers[path] << 32
        table['checksum'][found] = records['checksum'][rows[found]]

    def has(self, places):
        """Tell for each place whether there is a row."""
        return self._table['row'][places] >= 0

    def read(self, places, rows):
        """Read into rows, a float32 array; tell for each place if there is a whole row.

        A place below 0 has no row. A damaged row is forgotten.
        """
        numbers = np.where(places < 0, -1, self._table['row'][places])
        is_whole = numbers >= 0
        for place in np.flatnonzero(is_whole):
            file, number = divmod(int(numbers[place]), 2 ** 32)
            is_whole[place] = self._size == read_at(
                self._files[file], number * self._size, rows[place])
        is_tested = self._table['is_tested'][places]
        for place in np.flatnonzero(is_whole & ~is_tested):
            entry = self._table[places[place]]
            is_whole[place] = entry['checksum'] == checksum(entry['name'], rows[place])
        self._table['is_tested'][places[is_whole]] = True
        if not is_whole.all():
            self._table['row'][places[(numbers >= 0) & ~is_whole]] = -1
        return is_whole

    def add(self, places, rows, names):
        """Store the rows of these places; after a failure, never store again.

        names: names_of the pictures now. Rows of changed pictures are not stored.
        """
        if self._is_full:
            return
        earlier = self._table['name'][places]
        earlier[:, 0] -= earlier[:, 0] % 2
        is_same = (earlier == names).all(1)
        try:
            usage = shutil.disk_usage(self._folder or tempfile.gettempdir())
            if usage.free < FREE * usage.total:
                raise OSError('less than %d %% of the disk is free' % (100 * FREE))
            for place, row in zip(places[is_same], rows[is_same]):
                self._write(self._table[place:place + 1],
                            np.ascontiguousarray(row, np.float32))
        except OSError as error:
            self._is_full = True
            tqdm.write('Warning: no more features are stored (%s), so the others are '
                       'computed again in each epoch' % error)

    def _write(self, entry, row):
        """Append a row and then its record, so every record has a row."""
        if self._own is None:
            self._create()
        rows, index, number = self._own
        record = np.zeros(1, RECORD)
        record['name'] = entry['name']
        record['checksum'] = checksum(record['name'], row)
        for file, data in (rows, row), (index, record):
            file.seek(0, os.SEEK_END)
            if file.write(data) != data.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        entry['checksum'], entry['is_tested'] = record['checksum'], False
        entry['row'] = number + (rows.tell() // self._size - 1)

    def _create(self):
        """Create the files of this process."""
        if self._folder:
            path = os.path.join(self._folder, '%s-%d-%s.rows' % (
                socket.gethostname(), os.getpid(), os.urandom(4).hex()))
            rows, index = [open(name, 'x+b', buffering=0)
                           for name in (path, index_of(path))]
            self._numbers[path] = len(self._files)
        else:
            rows, index = [tempfile.TemporaryFile(buffering=0) for _ in range(2)]
        self._own = rows, index, len(self._files) << 32
        self._files.append(rows)


def names_of(paths, how):
    """Return a 128-bit digest of each picture's path, size, time and how, (n, 2).

    The lowest bit is 0.
    """
    digests, how = [], repr(how)
    for path in paths:
        try:
            file = os.stat(path)
            state = file.st_size, file.st_mtime_ns
        except OSError:  # it is gone
            state = None
        name = repr((os.path.abspath(path), state, how)).encode()
        digests.append(hashlib.blake2b(name, digest_size=16).digest())
    names = np.frombuffer(b''.join(digests), '<u8').reshape(-1, 2).copy()
    names[:, 0] -= names[:, 0] % 2
    return names


def index_of(path):
    """Return the path of the index of a file of rows."""
    return path[:-len('rows')] + 'index'


def checksum(name, row):
    """Return a checksum of a row and its name."""
    return zlib.crc32(row, zlib.crc32(name))


def read_at(file, start, row):
    """Read a row at an offset of a file; return the number of bytes read."""
    try:
        if hasattr(os, 'preadv'):  # not on Windows
            return os.preadv(file.fileno(), [row], start)
        file.seek(start)
        return file.readinto(row)
    except OSError:  # a damaged disk; the row is computed again
        return 0


def lock_key(folder):
    """Make the folder of a key, note the time of use, and prevent its deletion.

    Returns the open file that holds the lock.
    """
    path = os.path.join(folder, '.lock')
    while True:
        os.makedirs(folder, exist_ok=True)
        try:
            file = open(path, 'a+')
            with contextlib.suppress(OSError, AttributeError):
                # Without locks, nobody can delete it either.
                fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(path)
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:  # it was being deleted
            pass


def delete_oldest(folder, limit):
    """Delete unused keys, the oldest first, down to a limit in bytes."""
    sizes, used = {}, {}
    for name in os.listdir(folder):
        if re.fullmatch(KEY, name):
            key = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # another process is deleting it
                files = list(map(os.stat, list_ours(key)))
                sizes[key] = sum(file.st_size for file in files)
                used[key] = max([file.st_mtime for file in files], default=0)
    for key in sorted(used, key=used.get):
        if sum(sizes.values()) > limit and delete(key):
            del sizes[key]


def list_ours(key):
    """Return the paths of our own files in a key."""
    return [os.path.join(key, name) for name in os.listdir(key)
            if name == '.lock' or re.fullmatch(OURS, name)]


def delete(key):
    """Delete the files of a key, and its folder if empty; return whether it worked."""
    try:
        with open(os.path.join(key, '.lock'), 'a+') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in sorted(list_ours(key), reverse=True):  # the lock at the end
                os.remove(path)
    except (OSError, AttributeError):  # it is in use, not ours, or there are no locks
        return False
    with contextlib.suppress(OSError):  # it holds files of others
        os.rmdir(key)
    return True


def warn_of_folder(folder):
    """Print a warning if a folder is in memory, or belongs to another user."""
    if hasattr(os, 'getuid') and os.stat(folder).st_uid != os.getuid():
        print('Warning: features_path = %s belongs to another user, who can change the '
              'features' % folder)
    if os.path.exists('/proc/mounts'):
        with open('/proc/mounts') as file:
            kinds = dict(line.split()[1:3] for line in file)
        path = os.path.realpath(folder)
        while path not in kinds and path != '/':
            path = os.path.dirname(path)
        if kinds.get(path) == 'tmpfs':
            print('Warning: features_path = %s is in memory (tmpfs), so the features '
                  'fill it, and are lost at a restart' % folder)
