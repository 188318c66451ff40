"""Pictures in, batches out.

    python datagenerator.py photos   write train.txt, val.txt, test.txt and classes.txt
"""
import copy
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from machinery import folders
from machinery.lists import read_list
from machinery.pictures import decode_image, wait_for
from machinery.settings import InputError, check_value
from machinery.tf1 import tf

IMAGENET_MEAN = [104, 117, 124]  # blue, green, red
IMAGE_SIZE = (227, 227)  # width, height
CROP_MARGIN = 29  # the paper and Caffe cut 227 x 227 from 256 x 256


def load_image(path, size=IMAGE_SIZE, mean=IMAGENET_MEAN, margin=0, change=None):
    """Read a picture as AlexNet takes it, whatever its file format.

    Grey pictures get three equal channels, 16-bit ones are cut to 8, transparent ones
    get a white ground, of an animation the first frame counts, and a camera's EXIF
    orientation is obeyed. Resized bilinearly, without regard to the aspect ratio.

    Args:
        size: (width, height) in pixels.
        mean: what is subtracted from blue, green and red.
        margin: the picture is resized to so many pixels more, and its middle is kept.
        change: function that gets the image with its margin, before the mean is
            subtracted, and returns one of the right size, instead.

    Returns:
        float32 array (height, width, 3), BGR, 0..255 minus the mean.

    Raises:
        InputError: it is no file, or no whole picture that OpenCV can decode; names it.
    """
    width, height = size
    image = decode_image(path)
    image = cv2.resize(image, (width + margin, height + margin)).astype(np.float32)
    image = change(image) if change else crop(image, size, margin // 2, margin // 2)
    return image - np.float32(mean)


def crop(image, size, left, top):
    """Return the part of an image that is size (width, height) large."""
    return image[top:top + size[1], left:left + size[0]]


class ImageDataGenerator:
    """Batches of pictures and labels from a list file, decoded ahead in threads.

    An epoch gives every sample once; its order and what becomes of each picture are a
    function of (seed, epoch, sample) alone.

    Args:
        class_list: text file with a line "path label" for each picture: see read_list.
        horizontal_flip: mirror each picture left-right with probability 0.5.
        shuffle: new order in every epoch, otherwise the order of the list; None: True
            with a mode, else False.
        mean, scale_size, margin: as load_image takes them, scale_size as its size.
        nb_classes, num_classes: number of classes; labels count from 0.
        seed: integer in 0..2**32 - 1.
        shard: (rank, size): of several workers, this one gets the samples i with
            i % size == rank. With shuffle, all get as many: a short share is filled
            with a sample of another one.
        random_crop: cut the margin off at random.
        augment: function (image, rng) that changes a float32 image, BGR, 0..255, for
            training. All that it draws must come from rng, a RandomState.
        check_files: a picture that does not exist is an error now, not only when used.
        leave_out_bad: a batch goes without the pictures that cannot be read, with a
            warning; that it has no other one is an error.
        mode, batch_size, buffer_size: of the tutorial's second version. 'training' and
            'inference' give the same pictures; data has batches of this size; the
            whole list is shuffled, not a buffer.

    Attributes:
        paths, labels, line_numbers: of all samples of the list; images is paths.
        n_classes: number of classes.
        samples, order: int arrays, this worker's samples: of the list, in this epoch.
        data_size: how many those are: the length of an epoch.
        variants: int array: what this epoch makes of each sample of the list: 0 plain,
            1 mirrored, -1 changed in a way that no other epoch will repeat.
        pointer: how many samples of the epoch are done.
        left_out: the set of those that could not be read in this epoch.
        seconds_waited: time that calls have spent waiting for pictures, in total.

    Raises:
        InputError: the list cannot be read, has faults, which it names (see read_list),
            or has fewer samples than there are workers; or there is no such mode.
    """

    def __init__(self, class_list, horizontal_flip=False, shuffle=None,
                 mean=IMAGENET_MEAN, scale_size=IMAGE_SIZE, nb_classes=2, seed=0,
                 shard=(0, 1), margin=0, random_crop=False, augment=None,
                 check_files=True, leave_out_bad=False, mode=None, batch_size=None,
                 num_classes=None, buffer_size=None):
        check_value('horizontal_flip', horizontal_flip)
        check_value('mode', mode)
        if mode:
            check_value('batch_size', batch_size)
        self.class_list = class_list
        self.horizontal_flip = horizontal_flip
        self.shuffle = bool(mode) if shuffle is None else shuffle
        self.mean = mean
        self.scale_size = tuple(scale_size)
        self.margin = margin
        self.random_crop = random_crop
        self.augment = augment
        self.n_classes = num_classes or nb_classes
        self.batch_size = batch_size
        self.leave_out_bad, self.may_be_empty = leave_out_bad, False
        self.seed = seed
        self.shard = shard
        self.paths, self.labels, self.line_numbers = read_list(
            class_list, self.n_classes, check_files)
        self.seconds_waited = 0.
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._ahead = None, None, []
        self._deal()

    def reset_pointer(self, epoch=None, pointer=0):
        """Go to a sample of an epoch, by default to the first of the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.pointer = pointer
        self.left_out = set()
        for decoding in self._ahead[-1]:
            decoding.cancel()
        self._ahead = None, None, []
        rng = np.random.RandomState([self.seed, self.epoch])
        shuffled = rng.permutation(self.data_size)
        self.order = self.samples[shuffled] if self.shuffle else self.samples
        mirrored = rng.rand(len(self.paths)) < 0.5
        self.variants = np.int8(mirrored & self.horizontal_flip)

    def next_batch(self, batch_size):
        """Return the next samples of the epoch, and start to decode those after them.

        Returns:
            images: float32 array (n, height, width, 3), as load_image gives them;
                n is batch_size, or what is left of the epoch or could be read.
            labels: float32 array (n, n_classes), one-hot.

        Raises:
            IndexError: the epoch is over.
            InputError: batch_size is below 1, or a picture cannot be read; names list,
                line and path.
        """
        samples = self.take(batch_size)
        ahead_for, images, decoding = self._ahead
        if ahead_for != batch_size:
            images, decoding = self._start_to_decode(samples)
        following = self.order[self.pointer:self.pointer + batch_size]
        self._ahead = (batch_size,) + self._start_to_decode(following)
        start = time.time()
        faults = wait_for(decoding, [self.paths[sample] for sample in samples])
        self.seconds_waited += time.time() - start
        if any(faults):
            if not self.leave_out_bad or all(faults) and not self.may_be_empty:
                raise next(filter(None, faults))
            for sample, fault in zip(samples, faults):
                if fault:
                    tqdm.write('Warning: left out: %s' % fault, file=sys.stderr)
                    self.left_out.add(sample)
            is_read = [not fault for fault in faults]
            images, samples = images[is_read], samples[is_read]
        return images, self.one_hot(samples)

    def take(self, batch_size):
        """Return the numbers of the next samples; the pointer moves behind them."""
        if not batch_size or batch_size < 1:
            raise InputError('batch_size is %r, must be 1 or more' % batch_size)
        if self.pointer >= self.data_size:
            raise IndexError('epoch %d of %s is over: call reset_pointer()'
                             % (self.epoch, self.class_list))
        samples = self.order[self.pointer:self.pointer + batch_size]
        self.pointer += len(samples)
        return samples

    def select(self, samples, may_be_empty=False):
        """Return a generator of these samples as in this epoch, in this order.

        Args:
            may_be_empty: that all pictures of a batch are left out is no error.
        """
        selected = copy.copy(self)
        selected.order, selected.data_size = np.asarray(samples), len(samples)
        selected.pointer, selected._ahead = 0, (None, None, [])
        selected.may_be_empty = may_be_empty
        return selected

    @property
    def data(self):
        """A tf.data.Dataset of the batches of an epoch, the next one at each start."""
        def batches():
            self.reset_pointer()
            epoch = self.select(self.order)  # several iterators may run at once
            while epoch.pointer < epoch.data_size:
                yield epoch.next_batch(self.batch_size)

        width, height = self.scale_size
        return tf.data.Dataset.from_generator(batches, (tf.float32, tf.float32), (
            [None, height, width, 3], [None, self.n_classes]))

    @property
    def images(self):
        """The paths, by the tutorial's name."""
        return self.paths

    def pictures(self, samples):
        """Return these samples as uint8 arrays, None where one cannot be read here."""
        def load(sample):
            try:
                return np.uint8(load_image(self.paths[sample], self.scale_size, 0))
            except InputError:  # on another machine, perhaps
                return None
        return self._pool.map(load, samples)

    def one_hot(self, samples):
        """Return the labels of these samples as a float32 array (n, n_classes)."""
        labels = np.zeros((len(samples), self.n_classes), np.float32)
        labels[np.arange(len(samples)), self.labels[samples]] = 1
        return labels

    def _deal(self):
        rank, size = self.shard
        count = len(self.paths)
        if count < size:
            raise InputError('%s: %d pictures are too few for %d workers'
                             % (self.class_list, count, size))
        end = -(-count // size) * size if self.shuffle else count
        self.samples = np.arange(rank, end, size, dtype=np.int32) % count
        self.data_size = len(self.samples)
        self.reset_pointer(0)

    def _start_to_decode(self, samples):
        width, height = self.scale_size
        images = np.empty((len(samples), height, width, 3), np.float32)
        return images, [self._pool.submit(self._load, sample, image)
                        for sample, image in zip(samples, images)]

    def _load(self, sample, image):
        """Write a sample's image; return None, or the InputError that it cannot."""
        rng = LazyRandom(self.seed, self.epoch, sample)
        try:
            image[:] = load_image(self.paths[sample], self.scale_size, self.mean,
                                  self.margin,
                                  lambda image: self._change(image, sample, rng))
        except InputError as error:
            return InputError('%s, line %d: %s' % (
                self.class_list, self.line_numbers[sample], error))
        if rng.is_used:
            self.variants[sample] = -1
        return None

    def _change(self, image, sample, rng):
        left, top = 2 * [self.margin // 2]
        if self.random_crop:
            left, top = rng.randint(0, self.margin + 1, 2)
        image = crop(image, self.scale_size, left, top)
        if self.augment:
            image = self.augment(image, rng)
        return image[:, ::-1] if self.variants[sample] == 1 else image

    def drop(self, samples):
        """Leave out these samples from now on, and start the epoch anew."""
        kept = np.setdiff1d(np.arange(len(self.paths)), samples)
        if not len(kept):
            raise InputError('%s: no picture is left' % self.class_list)
        self.paths = [self.paths[sample] for sample in kept]
        self.labels = self.labels[kept]
        self.line_numbers = self.line_numbers[kept]
        self._deal()


class LazyRandom:
    """The numpy RandomState of some seeds; making one takes as long as mirroring.

    Attributes:
        is_used: whether anything has been asked of it.
    """

    def __init__(self, *seeds):
        self._seeds, self.is_used = seeds, False

    def __getattr__(self, name):
        if not self.is_used:
            self.is_used = True
            self._rng = np.random.RandomState(self._seeds)
        return getattr(self._rng, name)


def load_batches(paths, batch_size, *preprocessing):
    """Yield (paths, images) of batches, decoding one batch ahead.

    An image is what load_image gives, or the InputError that it raised.

    Args:
        preprocessing: size, mean and margin, as load_image takes them.
    """
    def load(path):
        try:
            return load_image(path, *preprocessing)
        except InputError as error:
            return error

    batches = [paths[start:start + batch_size]
               for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead = pool.map(load, batches[0] if batches else [])
        for batch, following in zip(batches, batches[1:] + [[]]):
            images, ahead = ahead, pool.map(load, following)
            yield batch, list(images)


if __name__ == '__main__':
    folders.main()
