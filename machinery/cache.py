"""What the frozen layers make of a picture, computed once."""
import os
import tempfile

import numpy as np
from tqdm import tqdm

from machinery.settings import InputError


def cache_bottlenecks(generators, session, model, x, limit, folder, enabled):
    """Return batches of what enters the trained layers, instead of pictures.

    Args:
        generators: ImageDataGenerators for training and validation, and perhaps one for
            testing, which is not stored, since it is used once.
        model, x: the AlexNet, and the placeholder for images, from which it may be
            separated by operations of your own.
        limit: GB of memory, shared out by the number of samples.
        folder, enabled: as FeatureCache takes them.
    """
    if model.bottleneck is x:  # nothing is frozen
        return generators

    def forward(images):
        return session.run(model.bottleneck, {x: images, model.KEEP_PROB: 1.})
    total = sum(data.data_size for data in generators[:2])
    return [FeatureCache(data, forward, int(limit * 1e9 * data.data_size / total),
                         folder, enabled and data in generators[:2] and len(data.paths))
            for data in generators]


class FeatureCache:
    """Give the features of an ImageDataGenerator's images, computing each only once.

    The features of each variant of a sample are kept in memory up to a limit, and
    beyond it in a nameless temporary file, which vanishes with the process. What fits
    in neither is computed anew each time, and so is what has no variant.

    Args:
        generator: the ImageDataGenerator; this object takes its place.
        forward: function from images (n, height, width, 3) to features (n, ...). In a
            pass it always gets as many images, since TensorFlow computes batches of
            different sizes in different ways, with different rounding. These are what
            the epoch still misses, in its order, and zeros behind its end.
        memory: limit in bytes.
        folder: where the file is put; None: the system's temporary folder.
        enabled: False computes the features of each batch anew.
    """

    def __init__(self, generator, forward, memory, folder=None, enabled=True):
        self._generator = generator
        self._forward = forward
        self._enabled = enabled
        self._memory_limit = memory
        self._folder = folder
        self._full = self._has_told = False
        self._row_of = np.full((2, len(generator.paths)), -1, np.int32)
        self._stored = 0
        self._memory = self._file = None
        self._missing = None  # a generator of what the rest of the epoch misses
        # Features that are not stored, until their batch comes; None: left out of it.
        self._waiting = {}
        self._find_missing()

    def __getattr__(self, name):
        """Give what this object does not have itself: the generator's."""
        return getattr(self._generator, name)

    def reset_pointer(self, epoch=None, pointer=0):
        """Go to a sample of an epoch, by default to the first of the next one."""
        self._generator.reset_pointer(epoch, pointer)
        self._find_missing()

    def _find_missing(self):
        if not self._enabled:
            return
        rest = self.order[self.pointer:]
        is_stored = self._rows(rest) >= 0
        self._missing = self._generator.select(rest[~is_stored], may_be_empty=True)
        self._waiting = {}
        if is_stored.any():
            self._check(rest[is_stored][self.epoch % is_stored.sum()])

    def next_batch(self, batch_size):
        """Return (features, labels) of the next samples of the epoch."""
        size = min(batch_size, self.data_size)
        if not self._enabled:
            images, labels = self._generator.next_batch(batch_size)
            return self._compute(images, size), labels
        samples = self.take(batch_size)
        features, given = [], []
        for sample in samples:
            if self._rows(sample) < 0 and sample not in self._waiting:
                self._compute_missing(size)
            row = self._rows(sample)
            feature = self._waiting.pop(sample) if row < 0 else self._load(row)
            if feature is not None:
                features.append(feature)
                given.append(sample)
        if not given:
            raise InputError('%s: none of the next %d pictures can be read any more'
                             % (self.class_list, len(samples)))
        return np.stack(features), self.one_hot(given)

    def _compute_missing(self, size):
        """Compute up to so many of the features that the epoch misses, in one pass."""
        samples = self._missing.order[self._missing.pointer:][:size]
        images, labels = self._missing.next_batch(size)
        self._waiting.update(dict.fromkeys(self.left_out.intersection(samples)))
        samples = np.array([one for one in samples if one not in self.left_out], int)
        self._generator.seconds_waited = self._missing.seconds_waited
        if (labels != self.one_hot(samples)).any():
            raise InputError('next_batch gives other labels than one_hot, which is '
                             'asked when features come from the cache: change one_hot, '
                             'or set cache_features = False')
        if not self._has_told and (self.variants[samples] < 0).any():
            self._has_told = True
            tqdm.write('Pictures of %s are changed at random in each epoch, so their '
                       'features are not cached' % self.class_list)
        for sample, feature in zip(samples, self._compute(images, size)):
            if self.variants[sample] < 0 or not self._store(sample, feature):
                self._waiting[sample] = feature

    def _compute(self, images, size):
        padding = np.zeros((size - len(images),) + images.shape[1:], np.float32)
        return self._forward(np.concatenate([images, padding]))[:len(images)]

    def _check(self, sample):
        """Raise an InputError if a sample's features are no longer those stored."""
        if not os.path.exists(self.paths[sample]):
            return  # its features are here all the same
        images, _ = self._generator.select([sample], may_be_empty=True).next_batch(1)
        stored = self._load(self._rows(sample))
        if len(images) and (np.linalg.norm(self._forward(images)[0] - stored) >
                            0.01 * np.linalg.norm(stored)):
            raise InputError(
                'The features of %s are not those of an earlier epoch. Something '
                'changes at random, in the graph or without drawing from the rng of '
                'augment: draw from that, or set cache_features = False'
                % self.paths[sample])

    def _rows(self, samples):
        """Return where the features of samples, as in this epoch, are stored, or -1."""
        variants = self.variants[samples]
        return np.where(variants < 0, -1, self._row_of[variants, samples])

    def _load(self, row):
        if row < len(self._memory):
            return self._memory[row]
        feature = np.empty(self._memory.shape[1:], np.float32)
        self._file.seek((row - len(self._memory)) * feature.nbytes)
        self._file.readinto(feature)
        return feature

    def _store(self, sample, feature):
        """Keep the features of a sample; return whether there was room."""
        if self._memory is None:
            row_limit = min(self._memory_limit // feature.nbytes, self._row_of.size)
            self._memory = np.empty((row_limit,) + feature.shape, np.float32)
        row = self._stored
        if row < len(self._memory):
            self._memory[row] = feature
        elif not self._write(row - len(self._memory), feature):
            return False
        self._row_of[self.variants[sample], sample] = row
        self._stored += 1
        return True

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
        tqdm.write('%d features are stored; there is no room for more (%s), so the '
                   'others are computed anew in each epoch' % (self._stored, reason))
        return False
