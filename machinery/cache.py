"""What the frozen layers make of a picture, computed once."""
import tempfile

import numpy as np


def cache_bottlenecks(generators, session, model, limit, folder, enabled):
    """Return batches of what enters the trained layers, instead of pictures.

    Args:
        generators: ImageDataGenerators for training and validation, and perhaps one for
            testing, which is not stored, since it is used once.
        model: the AlexNet.
        limit: GB of memory, shared out by the number of samples.
        folder, enabled: as FeatureCache takes them.
    """
    if model.bottleneck is model.X:  # nothing is frozen
        return generators

    def forward(images):
        return session.run(model.bottleneck, {model.X: images, model.KEEP_PROB: 1.})
    total = sum(data.data_size for data in generators[:2])
    return [FeatureCache(data, forward, int(limit * 1e9 * data.data_size / total),
                         folder, enabled and data in generators[:2])
            for data in generators]


class FeatureCache:
    """Give the features of an ImageDataGenerator's images, computing each only once.

    The features of each variant of a sample are kept in memory up to a limit, and
    beyond it in a nameless temporary file, which vanishes with the process. What fits
    in neither is computed anew each time, and so is what has no variant.

    Args:
        generator: the ImageDataGenerator; this object takes its place.
        forward: function from images (n, height, width, 3) to features (n, ...). It
            always gets as many, padded with zeros, since TensorFlow computes batches of
            different sizes in different ways, with different rounding.
        memory: limit in bytes.
        folder: where the file is put; None: the system's temporary folder.
        enabled: False computes all features anew each time.
    """

    def __init__(self, generator, forward, memory, folder=None, enabled=True):
        self._generator = generator
        self._forward = forward
        self._memory_limit = memory if enabled else 0
        self._folder = folder
        self._full = not enabled
        self._row_of = np.full((2, len(generator.paths)), -1, np.int32)
        self._stored = 0
        self._memory = self._file = None

    def __getattr__(self, name):
        """Give what this object does not have itself: the generator's."""
        return getattr(self._generator, name)

    def next_batch(self, batch_size):
        """Return (features, labels) of the next samples of the epoch.

        Computes what has not been stored, in one pass, and decodes nothing else.
        """
        samples, images = self.decode_next(batch_size, self._missing)
        computed = self._compute(images, min(batch_size, self.data_size))
        rows = self._rows(samples)
        features = np.stack([next(computed) if row < 0 else self._load(row)
                             for row in rows])
        for sample, row, feature in zip(samples, rows, features):
            if row < 0 and self.variants[sample] >= 0:
                self._store(sample, feature)
        return features, self.one_hot(samples)

    def _compute(self, images, size):
        """Return an iterator over the features of up to size images, in one pass."""
        if not len(images):
            return iter(())
        padding = np.zeros((size - len(images),) + images.shape[1:], np.float32)
        return iter(self._forward(np.concatenate([images, padding])))

    def _rows(self, samples):
        variants = self.variants[samples]
        return np.where(variants < 0, -1, self._row_of[variants, samples])

    def _missing(self, samples):
        return samples[self._rows(samples) < 0]

    def _load(self, row):
        if row < len(self._memory):
            return self._memory[row]
        feature = np.empty(self._memory.shape[1:], np.float32)
        self._file.seek((row - len(self._memory)) * feature.nbytes)
        self._file.readinto(feature)
        return feature

    def _store(self, sample, feature):
        if self._memory is None:
            row_limit = min(self._memory_limit // feature.nbytes, self._row_of.size)
            self._memory = np.empty((row_limit,) + feature.shape, np.float32)
        row = self._stored
        if row < len(self._memory):
            self._memory[row] = feature
        elif not self._write(row - len(self._memory), feature):
            return
        self._row_of[self.variants[sample], sample] = row
        self._stored += 1

    def _write(self, row, feature):
        """Write a row to the file; return False, and stop to try, once that fails."""
        if self._full:
            return False
        # A plain file instead of a memory map: mapped pages count as resident memory,
        # and a full disk kills the process that writes to them.
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
            self._file.seek(row * feature.nbytes)
            if self._file.write(feature) == feature.nbytes:
                return True
            reason = 'no space left'
        except OSError as error:
            reason = error
        self._full = True
        print('%d features are stored; there is no room for more (%s), so the others '
              'are computed anew in each epoch' % (self._stored, reason))
        return False
