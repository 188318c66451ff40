"""Batches of your own, or of tf.data, in place of an ImageDataGenerator's."""
import time

import numpy as np

from machinery.settings import InputError
from machinery.tf1 import session_config, tf


class OwnBatches:
    """Let batches of your own take the place of an ImageDataGenerator in finetune.py.

    What needs the pictures' files is left out: their check, the worst mistakes, the
    projector, the cache. A run resumed in mid-epoch starts that epoch anew.

    Args:
        source: an object with
            data_size: how many samples an epoch has;
            reset_pointer(): start the next epoch;
            next_batch(batch_size): return float32 images (n, 227, 227, 3), as
                load_image gives them, and one-hot labels (n, number of classes).

    Attributes:
        data_size, pointer, seconds_waited: as of ImageDataGenerator.
        labels: int array: those of the epoch so far.
    """

    paths, mean = (), None

    def __init__(self, source):
        self._source, self.data_size = source, source.data_size
        self.pointer, self.seconds_waited, self._labels = 0, 0., []

    def reset_pointer(self, epoch=None, pointer=0):
        """Start the next epoch."""
        self._source.reset_pointer()
        self.pointer, self._labels = 0, []

    def next_batch(self, batch_size):
        """Return (images, labels) as the source gives them.

        Raises:
            InputError: they are not what they should be.
        """
        size = min(batch_size, self.data_size - self.pointer)
        start = time.time()
        images, labels = map(np.asarray, self._source.next_batch(size))
        self.seconds_waited += time.time() - start
        if not 0 < len(images) == len(labels) <= size or (
                images.shape[1:] != (227, 227, 3) or labels.ndim != 2):
            raise InputError(
                'After %d of %d samples, next_batch(%d) of %s gives images %s and '
                'labels %s; expected (n, 227, 227, 3) and (n, classes), n 1 to %d' % (
                    self.pointer, self.data_size, size, type(self._source).__name__,
                    images.shape, labels.shape, size))
        self.pointer += len(images)
        self._labels.append(labels.argmax(1))
        return images, labels

    @property
    def labels(self):
        return np.concatenate(self._labels)


class DatasetBatches:
    """What OwnBatches takes, from a tf.data.Dataset.

    Args:
        dataset: gives (images, labels) in batches, one epoch long.
        data_size: how many samples that are.
    """

    def __init__(self, dataset, data_size):
        self.data_size = data_size
        self._iterator = tf.data.make_initializable_iterator(dataset)
        self._batch = self._iterator.get_next()
        self._session = tf.Session(config=session_config())

    def reset_pointer(self):
        self._session.run(self._iterator.initializer)

    def next_batch(self, batch_size):
        try:
            return self._session.run(self._batch)
        except tf.errors.OutOfRangeError:
            raise InputError('The dataset has fewer than data_size = %d samples'
                             % self.data_size)
