"""Features: the output of the frozen layers, computed once per picture."""
import copy

import numpy as np
from tqdm import tqdm

from machinery.batches import Batch, has_files, read_batches
from machinery.errors import InputError
from machinery.passes import compute, compute_batches, one_ahead
from machinery.store import Store, names_of
from machinery.tf1 import ROWS, find_pass_size, find_rounding

SAMPLE_SIZE = 200  # training pictures to score without dropout


def open_features(generators, forward, store):
    """Return the Features of generators, which share a store; None stays None.

    Switches to a new store if forward gives different features now.
    """
    while True:
        found = [data and Features(data, forward, store) for data in generators]
        if not any(features.is_outdated() for features in found if features):
            return found
        store.move_on()


class Features:
    """A generator's batches, with features in place of images.

    Args:
        data: an ImageDataGenerator, or your own batches (see machinery.batches).
        forward: function from uint8 images (n, height, width, 3) to features (n, ...),
            called in passes (see machinery.passes).
        store: a Store; without it, or with your own batches, features are not stored.

    Attributes:
        data, data_size: the generator, and the number of samples in its epoch.
        is_stored: whether features are stored.
    """

    def __init__(self, data, forward, store=None):
        self.data, self.data_size = data, data.data_size
        self.is_stored = bool(store) and has_files(data)
        self._forward, self._has_told = forward, False
        self._pass_size = find_pass_size()
        if not self.is_stored:
            # Few pictures need no full pass; with whole ROWS, resumed runs round alike.
            rows = 1 if getattr(data, 'is_read_once', False) else ROWS
            self._pass_size = min(self._pass_size, rows * -(-self.data_size // rows))
            return
        if sum('load' in vars(kind) for kind in [data, *type(data).__mro__]) > 1:
            store = Store(store.shape)  # your own load, whose code is in no key
        self._store = store
        self._how = sorted(data.preprocessing.items())
        self._first = store.register(data.paths, self._how)

    def select_unchanged(self):
        """Return Features of SAMPLE_SIZE pictures, the same in every run.

        They are not mirrored, cropped at random or augmented, and shared out among the
        workers. Returns None for your own batches, which cannot be selected.
        """
        if not has_files(self.data):
            return None
        subset, data = copy.copy(self), copy.copy(self.data)
        data.random_crop, data.augment = False, None
        _, _, is_random = data.plan(0)  # all False, except in a subclass
        # Not every n-th picture: a list may repeat a pattern.
        chosen = np.random.RandomState(0).permutation(len(data.paths))[:SAMPLE_SIZE]
        rank, size = data.shard
        return subset._keep(data, chosen[rank::size], np.zeros(len(data.paths), bool),
                            is_random)

    def select_first(self, count):
        """Return Features that repeat the first count samples of epoch 1 forever.

        Your own batches cannot be selected, so they are all used.
        """
        if not has_files(self.data):
            return self
        order, *changes = self.data.plan(1)
        return copy.copy(self)._keep(copy.copy(self.data), order[:count], *changes)

    def _keep(self, data, samples, mirrored, is_random):
        """Make these samples of data, a copy of the generator, every epoch."""
        data.plan = lambda epoch: (samples, mirrored, is_random)
        data.samples, self.data, self.data_size = samples, data, len(samples)
        return self

    def _places(self, samples, mirrored):
        return self._first + 2 * samples.astype(int) + mirrored

    def batches(self, batch_size, epoch=0, start=0):
        """Return a generator of an epoch's Batches, with features in place of images.

        Raises:
            InputError: like the generator's batches; or images are not uint8, or
                stored features are out of date. If every picture of a batch is
                skipped, the batch may be empty instead.
        """
        if self.is_stored:
            return one_ahead(self._stored_batches(batch_size, epoch, start))
        return compute_batches(
            self._forward, read_batches(self.data, batch_size, epoch, start),
            self._pass_size)

    def _stored_batches(self, batch_size, epoch, start):
        order, mirrored, is_random = self.data.plan(epoch)
        order = order[start:]
        if is_random[order].any() and not self._has_told:
            self._has_told = True
            tqdm.write('Pictures of %s are changed at random in each epoch, so their '
                       'features are not stored' % self.data.class_list)
        places = self._places(order, mirrored[order])
        places[is_random[order] | ~self._store.has(places)] = -1
        self._check(order[places >= 0], mirrored, epoch)
        # Computed ahead in passes of equal size, in the order of their use.
        missing = self._compute_missing(order[places < 0], mirrored, is_random, epoch)
        for first in range(0, len(order), batch_size):
            samples, stored = [array[first:first + batch_size]
                               for array in (order, places)]
            features = np.empty((len(samples),) + self._store.shape, np.float32)
            is_read = self._store.read(stored, features)
            end = start + first + len(samples)
            if not is_read.all():
                damaged = self._compute_missing(samples[(stored >= 0) & ~is_read],
                                                mirrored, is_random, epoch)
                for place in np.flatnonzero(~is_read):
                    row = next(missing if stored[place] < 0 else damaged)
                    if row is not None:
                        features[place], is_read[place] = row, True
                features, samples = features[is_read], samples[is_read]
            yield Batch(features, self.data.one_hot(samples), samples, end)

    def _compute_missing(self, samples, mirrored, is_random, epoch):
        """Yield the features of each sample in turn, None for a skipped picture."""
        wanted = iter(samples)
        for batch in self.data.batches_of(samples, self._pass_size, epoch):
            if not len(batch.samples):
                continue
            features = compute(self._forward, batch.images, self._pass_size)
            lasting = ~is_random[batch.samples]
            kept = batch.samples[lasting]
            self._store.add(
                self._places(kept, mirrored[kept]), features[lasting],
                names_of([self.data.paths[sample] for sample in kept], self._how))
            for sample, feature in zip(batch.samples, features):
                while next(wanted) != sample:
                    yield None
                yield feature
        for _ in wanted:
            yield None

    def _check(self, samples, mirrored, epoch):
        """Compute a stored sample again; raise an InputError if its features differ."""
        samples = samples[epoch % max(1, len(samples)):][:1]
        if self._have_changed(samples, mirrored[samples], epoch, 1, tolerance=0.01):
            raise InputError(
                'The features of %s differ from those of an earlier epoch. '
                'Something changes at random, in the graph or in augment: draw only '
                'from the rng of augment, or set cache_features = False'
                % self.data.paths[samples[0]])

    def is_outdated(self):
        """Tell if any of eight rows of earlier runs differs by more than rounding."""
        if not self.is_stored:
            return False
        samples, mirrored = np.tile(self.data.samples, 2), np.repeat(
            [False, True], len(self.data.samples))
        is_lasting = ~self.data.plan(0)[2][samples]
        known = np.flatnonzero(
            self._store.has(self._places(samples, mirrored)) & is_lasting)
        known = known[np.linspace(0, len(known) - 1, min(8, len(known))).astype(int)]
        return self._have_changed(samples[known], mirrored[known], 0, self._pass_size,
                                  find_rounding())

    def _have_changed(self, samples, mirrored, epoch, pass_size, tolerance):
        """Tell if features differ from stored rows by more than tolerance * norm."""
        stored = np.empty((len(samples),) + self._store.shape, np.float32)
        is_read, images = self._store.read(self._places(samples, mirrored), stored), []
        for place in np.flatnonzero(is_read):
            try:
                images.append(self.data.load(samples[place], epoch, mirrored[place]))
            except InputError:  # unreadable now, but we still have its features
                is_read[place] = False
        if not images:
            return False
        found = compute(self._forward, np.array(images), pass_size)
        norms = [np.linalg.norm(rows.reshape(len(images), -1), axis=1)
                 for rows in (found - stored[is_read], found)]
        return (norms[0] > tolerance * norms[1]).any()
