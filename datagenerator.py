"""Pictures in, batches out.

    python datagenerator.py photos   write train.txt, val.txt, test.txt and classes.txt
"""
import sys

import numpy as np
from tqdm import tqdm

from machinery import folders
from machinery.batches import Batch, part_faults, refuse_to_ignore
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.lists import GIVEN, read_list, share_of
from machinery.pictures import apply_augment, decode_image, load_ahead
from machinery.proportions import cut, resize_image
from machinery.rules import check_value
from machinery.tf1 import tf

IMAGENET_MEAN = [104, 117, 124]  # blue, green, red
IMAGE_SIZE = (227, 227)  # width, height
CROP_MARGIN = 29  # the paper and Caffe cut 227 x 227 from 256 x 256
REDUCING_GAP = 2.  # large photographs are decoded several times faster, and smoothed


def load_image(path, size=IMAGE_SIZE, mean=None, margin=0, corner=None,
               reducing_gap=REDUCING_GAP, resize='squash'):
    """Read a picture file of any format as a uint8 image, blue first.

    16 bits are reduced to 8, transparency becomes white, only an animation's first
    frame is read, and EXIF orientation is applied; docs/data.md has the details.

    Args:
        path: the file; or its pixels, a uint8 array (height, width, 3), blue first.
        size: (width, height) in pixels.
        mean: if given, the result is normalize(image, mean).
        margin, corner: resize to size + margin pixels, then crop to size at (left,
            top) = corner; None: at the centre.
        reducing_gap: decode a JPEG at 1/2, 1/4 or 1/8 of its size if both sides (to
            pad: one) stay at least this many times size + margin; None: in full.
        resize: 'squash', 'crop' to the middle, or 'pad' with the mean's grey; bilinear.

    Raises:
        InputError: not a whole picture of a kind that is read, or resize is unknown.
    """
    whole = size[0] + margin, size[1] + margin
    image = decode_image(path, whole, reducing_gap, resize)
    image = resize_image(image, whole, resize, IMAGENET_MEAN)
    image = cut(image, whole, size, corner)
    return image if mean is None else normalize(image, mean)


def normalize(images, mean=IMAGENET_MEAN):
    """Turn uint8 BGR images into what the network takes: float32, minus the mean.

    images is an array or a tensor (..., 3). Training, prediction, the export and the
    notebook all call this, so change it here to have RGB, or values from 0 to 1.
    """
    images = tf.cast(images, tf.float32) if tf.is_tensor(images) else np.float32(images)
    return images - np.float32(mean)


class ImageDataGenerator:
    """Batches of pictures and labels from a list file, decoded ahead in threads.

    An epoch yields every sample once, in an order and with changes to the pictures
    that depend on (seed, epoch, sample) alone, so a resumed run repeats them.
    Methods that you override may run in a thread, one batch ahead of the loop.

    Args:
        class_list: text file, or pair of lists (paths, labels): see read_list.
        horizontal_flip: mirror each picture left-right with probability 0.5.
        shuffle: new order in every epoch; None: True with a mode, else False.
        mean: next_batch and data subtract it; for batches, normalize does.
        scale_size: size of load_image; margin, reducing_gap, resize: as there.
        nb_classes, num_classes: number of classes; labels count from 0.
        kind, pictures_path: see read_list; kind = None: OneClass(range(num_classes)).
        seed: integer in 0..2**32 - 1.
        shard: (rank, size): this worker's samples are rank, rank + size, ... With
            shuffle, all shares have the same length: a short one borrows a sample.
        random_crop: crop at a random place within the margin, not at its centre.
        augment: function (image, rng) that changes a float32 image, BGR, 0..255; its
            result is rounded and clipped. Draw from rng, a RandomState, alone.
        check_files: a picture that does not exist is an error now, not when it is used.
        leave_out_bad: skip bad pictures with a warning; a batch of them is an error.
        mode, batch_size, buffer_size, images (paths), labels, image_format: as in the
            tutorial's later versions; but the whole list is shuffled, not a buffer.

    Attributes:
        paths, labels, line_numbers: of all samples of the list.
        samples, data_size: the numbers of this worker's samples, and how many they are.
        preprocessing: the arguments of load_image that are the same for all pictures.

    Raises:
        InputError: an argument is wrong, or the list has faults; names them.
    """

    def __init__(self, class_list=None, horizontal_flip=False, shuffle=None,
                 mean=IMAGENET_MEAN, scale_size=IMAGE_SIZE, nb_classes=2, seed=0,
                 shard=(0, 1), margin=0, random_crop=False, augment=None,
                 check_files=True, leave_out_bad=False, mode=None, batch_size=None,
                 num_classes=None, buffer_size=None, reducing_gap=REDUCING_GAP,
                 kind=None, pictures_path=None, images=None, labels=None,
                 image_format=None, resize='squash'):
        check_value('horizontal_flip', horizontal_flip)
        check_value('resize', resize)
        has_datasets = mode is not None or images is not None
        check_value('batch_size', batch_size if has_datasets else 1)
        if mode not in (None, 'training', 'inference'):
            raise InputError("mode is %r, must be 'training' or 'inference'" % (mode,))
        self.kind = kind or OneClass(range(num_classes or nb_classes))
        self.shuffle = has_datasets if shuffle is None else shuffle
        self.preprocessing = {'size': tuple(scale_size), 'margin': margin,
                              'reducing_gap': reducing_gap, 'resize': resize}
        self.horizontal_flip, self.random_crop = horizontal_flip, random_crop
        self.augment, self.leave_out_bad = augment, leave_out_bad
        self.seed, self.shard = seed, shard
        self.mean, self.batch_size = mean, batch_size
        self.class_list = class_list if isinstance(class_list, str) else GIVEN
        self.paths, self.labels, self.line_numbers = read_list(
            class_list or (images, labels), self.kind, check_files, pictures_path)
        self.drop([])
        self.epoch, self.pointer, self._ahead = 0, 0, {}

    def plan(self, epoch):
        """Return (order, mirrored, is_random) of an epoch.

        order has this worker's samples; the others are bool arrays for all samples of
        the list. A random picture is changed as in no other epoch, so its features must
        not be stored.
        """
        rng = np.random.RandomState([self.seed, epoch])
        shuffled = rng.permutation(len(self.samples))
        order = self.samples[shuffled] if self.shuffle else self.samples
        mirrored = (rng.rand(len(self.paths)) < 0.5) & self.horizontal_flip
        is_random = np.full(len(self.paths), bool(self.random_crop or self.augment))
        return order, mirrored, is_random

    def batches(self, batch_size, epoch=0, start=0):
        """Return a generator of the Batches of an epoch; it decodes one batch ahead.

        start is the end of an earlier Batch. Raises an InputError if this was changed
        for next_batch; and later, with list, line and path, if a picture is unreadable.
        """
        refuse_to_ignore(self, ImageDataGenerator, 'next_batch', 'reset_pointer')
        if not np.array_equal(self.mean, IMAGENET_MEAN):
            raise InputError('mean = %s is for next_batch alone: change IMAGENET_MEAN '
                             'in datagenerator.py instead' % (self.mean,))
        return self._batches(batch_size, epoch, start)

    def batches_of(self, samples, batch_size, epoch):
        """Like batches, but of these samples; a batch of skipped pictures is empty."""
        refuse_to_ignore(self, ImageDataGenerator, 'batches')
        return self._batches(batch_size, epoch, samples=samples)

    def _batches(self, batch_size, epoch, end=0, samples=None):
        if not batch_size or batch_size < 1:
            raise InputError('batch_size is %r, must be 1 or more' % batch_size)
        order, mirrored, _ = self.plan(epoch)
        order = order[end:] if samples is None else samples
        for chosen, results in load_ahead(
                lambda sample: self.load(sample, epoch, mirrored[sample]), order,
                batch_size, path_of=self.paths.__getitem__):
            read, images, faults = part_faults(chosen, results)
            for fault in faults.values():
                if not self.leave_out_bad or not len(read) and samples is None:
                    raise fault
                tqdm.write('Warning: skipped %s' % fault, file=sys.stderr)
            end += len(chosen)
            yield Batch(images, self.one_hot(read), read, end)

    def load(self, sample, epoch=0, is_mirrored=False):
        """Return a sample's uint8 image in an epoch, or raise an InputError."""
        if self.random_crop or self.augment:  # making a RandomState is slow
            rng = np.random.RandomState([self.seed, epoch, sample])
        margin = self.preprocessing['margin']
        corner = rng.randint(0, margin + 1, 2) if self.random_crop else None
        try:
            image = load_image(self.paths[sample], corner=corner, **self.preprocessing)
        except InputError as error:
            raise InputError('%s, line %d: %s' % (
                self.class_list, self.line_numbers[sample], error)) from error
        if self.augment:
            image = apply_augment(self.augment, image, rng)
        return image[:, ::-1] if is_mirrored else image

    def one_hot(self, samples):
        """Return what y is fed with for these samples, float32 (n, n_classes)."""
        return self.kind.targets(self.labels[samples])

    def drop(self, samples):
        """Leave out these samples, given by their numbers, from now on."""
        samples, everything = np.asarray(samples), np.arange(len(self.paths))
        if samples.dtype == bool or not np.isin(samples, everything).all():
            raise InputError('drop takes numbers of samples, from 0 to %d'
                             % everything[-1])
        kept = np.setdiff1d(everything, samples)
        self.samples = share_of(self.class_list, len(kept), self.shard, self.shuffle)
        self.paths = [self.paths[sample] for sample in kept]
        self.labels, self.line_numbers = self.labels[kept], self.line_numbers[kept]

    data_size = property(lambda self: len(self.samples))
    n_classes = property(lambda self: self.kind.width)

    # The rest is for the tutorial's scripts: the same batches, as float32 minus mean.
    images = property(lambda self: self.paths)
    scale_size = property(lambda self: self.preprocessing['size'])

    def reset_pointer(self, epoch=None):
        """Go to the start of an epoch, by default the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.pointer = 0

    def next_batch(self, batch_size):
        """Return (images, labels) of the next samples; IndexError at the end."""
        if self.pointer >= self.data_size:
            raise IndexError('epoch %d of %s is over: call reset_pointer()'
                             % (self.epoch, self.class_list))
        place = batch_size, self.epoch, self.pointer
        batches = self._ahead.get(place) or self._batches(*place)
        # After a picture that cannot be read, the next call goes on behind this batch.
        self.pointer += batch_size
        batch = next(batches)
        self._ahead = {(batch_size, self.epoch, self.pointer): batches}
        return normalize(batch.images, self.mean), batch.labels

    @property
    def data(self):
        """A tf.data.Dataset of the batches of an epoch, the next one at each start."""
        def batches():
            self.reset_pointer()
            for batch in self._batches(self.batch_size, self.epoch):
                yield normalize(batch.images, self.mean), batch.labels

        return tf.data.Dataset.from_generator(batches, (tf.float32, tf.float32), (
            [None, *self.scale_size[::-1], 3], [None, self.n_classes]))


if __name__ == '__main__':
    folders.main()
