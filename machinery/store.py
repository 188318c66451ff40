"""Rows of features that have been computed."""
import tempfile

import numpy as np
from tqdm import tqdm


class Store:
    """Rows of features, in memory up to a limit, and beyond it in a temporary file.

    The file has no name, so it vanishes with the process. If neither has room, a row is
    just not stored.

    Args:
        count: number of samples, each of which may be stored plain and mirrored.
        limit: bytes of memory.
        folder: folder for the file; None: the system's temporary folder.

    Attributes:
        shape: of a row, () before the first one.
    """

    def __init__(self, count, limit, folder=None):
        self.shape = ()
        self._row_of = np.full((2, count), -1, np.int32)
        self._stored, self._limit, self._folder = 0, int(limit), folder
        self._memory, self._file, self._is_full = None, None, False

    def find(self, samples, mirrored):
        """Return the rows of samples, -1 if there is none."""
        return self._row_of[mirrored.astype(int), samples]

    def read(self, rows):
        """Return a float32 array of these rows."""
        in_memory = rows < len(self._memory)
        if in_memory.all():
            return self._memory[rows]
        features = np.empty((len(rows),) + self.shape, np.float32)
        features[in_memory] = self._memory[rows[in_memory]]
        for place in np.flatnonzero(~in_memory):
            self._file.seek((rows[place] - len(self._memory)) * features[0].nbytes)
            self._file.readinto(features[place])
        return features

    def add(self, samples, mirrored, features):
        """Store the features of samples, as far as there is room."""
        if not self.shape:
            self.shape = features.shape[1:]
            limit = self._limit // (4 * int(np.prod(self.shape)))
            self._memory = np.empty((min(limit, self._row_of.size),) + self.shape,
                                    np.float32)
        for sample, is_mirrored, feature in zip(samples, mirrored, features):
            row = self._stored
            if row < len(self._memory):
                self._memory[row] = feature
            elif not self._write(row - len(self._memory), feature):
                return
            self._row_of[int(is_mirrored), sample] = row
            self._stored += 1

    def _write(self, row, feature):
        """Write a row to the file; return False once that has failed."""
        if self._is_full:
            return False
        # Not a memory map: its pages count as resident memory, and a full disk kills
        # the process that writes to them.
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
            self._file.seek(row * feature.nbytes)
            if self._file.write(feature) == feature.nbytes:
                return True
            reason = 'no space left'
        except OSError as error:
            reason = error
        self._is_full = True
        tqdm.write('%d features are stored; there is no room for more (%s), so the '
                   'others are computed again in each epoch' % (self._stored, reason))
        return False
