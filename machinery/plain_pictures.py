"""Pictures without a list file and without labels."""
import os
import sys

import numpy as np
from tqdm import tqdm

from machinery.batches import Batch, part_faults
from machinery.errors import InputError
from machinery.pictures import examine, is_low, load_ahead
from machinery.text import number_of


def list_pictures(pictures):
    """Return a list of paths and arrays, with paths as text; InputError otherwise."""
    if not isinstance(pictures, (list, tuple)):
        raise InputError('give a list of pictures, as [picture], not a %s'
                         % type(pictures).__name__)
    for position, picture in enumerate(pictures):
        if not isinstance(picture, (str, bytes, os.PathLike, np.ndarray)):
            raise InputError('pictures[%d] is a %s, must be a path or an array'
                             % (position, type(picture).__name__))
    return [picture if isinstance(picture, np.ndarray) else os.fsdecode(picture)
            for picture in pictures]


class PlainPictures:
    """Pictures without a list; Features reads them like an ImageDataGenerator.

    load(path) returns a uint8 image, even if the path is an array of pixels;
    preprocessing has its arguments for load_image. With leave_out_bad, faults is
    {sample: InputError} of the bad pictures so far; else the first fault is raised.
    Warns of pictures that are nearly black.
    """

    class_list, is_read_once = 'the pictures', True

    def __init__(self, paths, load, preprocessing, leave_out_bad):
        self.paths, self.data_size = paths, len(paths)
        self.samples = np.arange(len(paths))
        self._load, self.preprocessing = load, preprocessing
        self.leave_out_bad, self.faults = leave_out_bad, {}
        self._dark = []

    def plan(self, epoch):
        """Return (order, mirrored, is_random): as listed, never mirrored or random."""
        never = np.zeros(len(self.paths), bool)
        return self.samples, never, never

    def load(self, sample, epoch=0, is_mirrored=False):
        """Return a sample's image."""
        image, path = self._load(self.paths[sample]), self.paths[sample]
        if is_low(image) and isinstance(path, str) and examine(path)[1]:
            self._dark.append(path)
        return image

    def one_hot(self, samples):
        """Return None, as there are no labels."""

    def batches(self, batch_size, epoch=0, start=0):
        """Yield Batches without unreadable pictures; a batch may be empty."""
        yield from self.batches_of(self.samples, batch_size, epoch)
        if self._dark:
            tqdm.write('Warning: nearly black, because only the darkest quarter of 16 '
                       'bits is in use: %s. The first is %s' % (
                           number_of(self._dark), min(self._dark)), file=sys.stderr)

    def batches_of(self, samples, batch_size, epoch):
        """Yield Batches of these samples; a batch may be empty."""
        for chosen, results in load_ahead(self.load, samples, batch_size,
                                          self.paths.__getitem__):
            read, images, faults = part_faults(chosen, results)
            for sample, fault in faults.items():
                if not self.leave_out_bad:
                    raise InputError('pictures[%d]: %s' % (sample, fault)) from fault
            self.faults.update(faults)
            yield Batch(images, None, read, None)
