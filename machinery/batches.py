"""Batches of images and labels, and how to bring your own.

Any object can replace an ImageDataGenerator in finetune.py if it has
    data_size: the number of samples in an epoch;
    batches(batch_size, epoch=0, start=0): yields (images, labels) of that epoch,
        beginning with sample number start. images: uint8 BGR (n, 227, 227, 3), as from
        load_image; labels: one-hot (n, number of classes);
    image_size: (width, height), if not (227, 227).
A resumed run asks for the rest of an epoch, so each epoch must keep its order.
"""
import contextlib
from collections import namedtuple

import numpy as np

from machinery.errors import InputError
from machinery.lists import GIVEN
from machinery.tf1 import session_config, tf

# images: uint8 (n, height, width, 3), or features; labels: float32 (n, n_classes);
# samples: their numbers in the list; end: the position in the epoch after the batch,
# counting skipped pictures.
Batch = namedtuple('Batch', 'images labels samples end')


def part_faults(samples, results):
    """Return the readable samples, their images, and {sample: InputError} of the rest.

    results: an image or an InputError for each sample.
    """
    is_fault = np.array([isinstance(result, InputError) for result in results], bool)
    faults = {sample: result for sample, result, is_one in zip(
        samples, results, is_fault) if is_one}
    images = [result for result in results if not isinstance(result, InputError)]
    return np.array(samples, int)[~is_fault], np.array(images), faults


def has_files(data):
    """Tell whether data reads picture files; your own batches do not."""
    return hasattr(data, 'plan')


def has_list(data):
    """Tell whether a generator reads its pictures from a list file."""
    return has_files(data) and data.class_list != GIVEN


def read_batches(data, batch_size, epoch=0, start=0):
    """Return a generator of an epoch's Batches; data may be your own object."""
    if has_files(data):
        return data.batches(batch_size, epoch, start)
    return checked_batches(data, batch_size, epoch, start)


def check_uint8(images):
    """Return images if they are uint8, or raise an InputError.

    TensorFlow silently converts other numbers: a fed -104 becomes 152.
    """
    if np.asarray(images).dtype != np.uint8:
        raise InputError(
            'The images are %s, must be uint8 (0 to 255, blue first). Later steps, '
            'like subtracting the mean, belong in normalize in datagenerator.py'
            % np.asarray(images).dtype)
    return images


def refuse_to_ignore(data, base, *names):
    """Raise an InputError if data overrides any of these methods of its class base."""
    for name in names:
        if getattr(type(data), name) is not getattr(base, name):
            raise InputError(
                '%s overrides %s, which is not called here: override plan, load or '
                'one_hot, or set cache_features = False' % (type(data).__name__, name))


def checked_batches(data, batch_size, epoch, start):
    """Yield your own batches as Batches, or raise an InputError if they are wrong."""
    end, name = start, type(data).__name__
    width, height = getattr(data, 'image_size', (227, 227))
    for images, labels in data.batches(batch_size, epoch, start):
        images, labels = np.asarray(images), np.asarray(labels)
        is_batch = images.shape[1:] == (height, width, 3) and labels.ndim == 2
        if not is_batch or not 0 < len(images) == len(labels):
            raise InputError(
                'After %d of %d samples, batches() of %s yields images %s and labels '
                '%s; expected (n, %d, %d, 3) and (n, number of classes)' % (
                    end, data.data_size, name, images.shape, labels.shape, height,
                    width))
        samples = np.arange(end, end + len(images))
        end += len(images)
        if end > data.data_size:
            raise InputError('batches() of %s yields more than data_size = %d samples'
                             % (name, data.data_size))
        yield Batch(check_uint8(images), labels, samples, end)
    if end < data.data_size:
        raise InputError('batches() of %s ends after %d of data_size = %d samples'
                         % (name, end, data.data_size))


class DatasetBatches:
    """Batches from a tf.data.Dataset.

    Args:
        dataset: yields one epoch of batches (uint8 images, one-hot labels). Its own
            batch size counts.
        data_size: the number of samples in it.
    """

    def __init__(self, dataset, data_size):
        self.data_size = data_size
        self._iterator = tf.data.make_initializable_iterator(dataset)
        self._batch = self._iterator.get_next()

    def batches(self, batch_size, epoch=0, start=0):
        """Yield the dataset's batches, without its first start samples."""
        # Not the default session: between two batches, that belongs to the loop.
        session = tf.Session(graph=self._batch[0].graph, config=session_config())
        with contextlib.closing(session), contextlib.suppress(
                tf.errors.OutOfRangeError):  # end of the dataset
            session.run(self._iterator.initializer)
            while True:
                images, labels = session.run(self._batch)
                if len(images) > start:
                    yield images[start:], labels[start:]
                start = max(0, start - len(images))
