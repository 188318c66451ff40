"""Features: the output of the frozen layers, computed once per picture."""
import numpy as np
from tqdm import tqdm

from machinery.batches import Batch, check_uint8, checked_batches, has_files
from machinery.errors import InputError
from machinery.store import Store


class Features:
    """Batches of features in place of a generator's images.

    Args:
        data: an ImageDataGenerator, or batches of your own (see machinery.batches).
        forward: function from uint8 images (n, height, width, 3) to features (n, ...).
            Always gets the same number of images, because TensorFlow rounds
            differently for other batch sizes: the last ones may be zeros.
        limit, folder: GB of memory for a Store, and its folder; without a limit, or
            with batches of your own, features are computed in every epoch.

    Attributes:
        data, data_size: the generator, and the number of samples in its epoch.
        is_stored: whether features are stored.
    """

    def __init__(self, data, forward, limit=None, folder=None):
        self.data, self.data_size = data, data.data_size
        self.is_stored = limit is not None and has_files(data)
        self._forward, self._has_told = forward, False
        if self.is_stored:
            self._store = Store(len(data.paths), limit * 1e9, folder)

    def batches(self, batch_size, epoch=0, start=0):
        """Yield the Batches of an epoch, with features in place of images.

        Raises:
            InputError: as batches of the generator; or images are not uint8, or
                stored features are no longer right, or a batch has no picture left.
        """
        size = min(batch_size, self.data_size)
        if self.is_stored:
            yield from self._stored_batches(batch_size, epoch, start, size)
            return
        for batch in self.images(batch_size, epoch, start):
            yield batch._replace(images=self._compute(batch.images, size))

    def images(self, batch_size, epoch=0, start=0):
        """Return a generator of the Batches of an epoch, with images."""
        if has_files(self.data):
            return self.data.batches(batch_size, epoch, start)
        return checked_batches(self.data, batch_size, epoch, start)

    def _stored_batches(self, batch_size, epoch, start, size):
        order, mirrored, is_random = self.data.plan(epoch)
        order = order[start:]
        rows = self._store.find(order, mirrored[order])
        rows[is_random[order]] = -1
        if is_random[order].any() and not self._has_told:
            self._has_told = True
            tqdm.write('Pictures of %s are changed at random in each epoch, so their '
                       'features are not stored' % self.data.class_list)
        self._check(order, rows, mirrored, epoch)
        # Computed ahead in passes of one size, in the order in which they are needed.
        missing = self._compute_missing(order[rows < 0], mirrored, is_random, epoch,
                                        size)
        for first in range(0, len(order), batch_size):
            part = slice(first, first + batch_size)
            features, samples = self._gather(order[part], rows[part], missing)
            end = start + first + len(order[part])
            yield Batch(features, self.data.one_hot(samples), samples, end)

    def _gather(self, samples, rows, missing):
        """Return the features of samples: stored rows, or the next missing ones."""
        is_stored = rows >= 0
        if is_stored.all():
            return self._store.read(rows), samples
        computed = [next(missing) for _ in range((~is_stored).sum())]
        is_read = is_stored.copy()
        is_read[~is_stored] = [feature is not None for feature in computed]
        if not is_read.any():
            raise InputError('%s: none of the next %d pictures can be read any more'
                             % (self.data.class_list, len(samples)))
        computed = [feature for feature in computed if feature is not None]
        features = np.empty((len(samples),) + self._store.shape, np.float32)
        features[is_stored] = self._store.read(rows[is_stored])
        if computed:
            features[is_read & ~is_stored] = computed
        return features[is_read], samples[is_read]

    def _compute_missing(self, samples, mirrored, is_random, epoch, size):
        """Yield the features of each sample in turn, None for a skipped picture."""
        wanted = iter(samples)
        for batch in self.data.batches_of(samples, size, epoch):
            if not len(batch.samples):
                continue
            features = self._compute(batch.images, size)
            lasting = ~is_random[batch.samples]
            kept = batch.samples[lasting]
            self._store.add(kept, mirrored[kept], features[lasting])
            for sample, feature in zip(batch.samples, features):
                while next(wanted) != sample:
                    yield None
                yield feature
        for _ in wanted:
            yield None

    def _compute(self, images, size):
        check_uint8(images)
        missing = max(0, size - len(images))
        padding = np.zeros((missing,) + images.shape[1:], np.uint8)
        return self._forward(np.concatenate([images, padding]))[:len(images)]

    def _check(self, order, rows, mirrored, epoch):
        """Raise an InputError if the features of one stored sample have changed."""
        is_stored = rows >= 0
        if not is_stored.any():
            return
        place = np.flatnonzero(is_stored)[epoch % is_stored.sum()]
        sample = order[place]
        stored = self._store.read(rows[[place]])
        try:
            image = self.data.load(sample, epoch, mirrored[sample])
        except InputError:  # it cannot be read any more, but we have its features
            return
        found = self._compute(image[None], 1)
        if np.linalg.norm(found - stored) > 0.01 * np.linalg.norm(stored):
            raise InputError(
                'The features of %s are not those of an earlier epoch. Something '
                'changes at random, in the graph or without drawing from the rng of '
                'augment: draw from that, or set cache_features = False'
                % self.data.paths[sample])
