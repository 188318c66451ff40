"""Pictures that are only read, without a list and without labels."""
import numpy as np

from machinery.batches import Batch
from machinery.errors import InputError
from machinery.pictures import load_ahead


class PlainPictures:
    """Pictures without a list, as Features takes them in place of a generator.

    load(path) returns a uint8 image, preprocessing is what it gives to load_image, and
    faults is {sample: InputError} of the bad ones so far.
    """

    class_list = 'the pictures'

    def __init__(self, paths, load, preprocessing):
        self.paths, self.data_size = paths, len(paths)
        self.samples = np.arange(len(paths))
        self._load, self.preprocessing = load, preprocessing
        self.faults = {}

    def plan(self, epoch):
        """Return (order, mirrored, is_random): none is changed."""
        never = np.zeros(len(self.paths), bool)
        return self.samples, never, never

    def load(self, sample, epoch=0, is_mirrored=False):
        """Return a sample's image."""
        return self._load(self.paths[sample])

    def one_hot(self, samples):
        """Return no labels."""

    def batches(self, batch_size, epoch=0, start=0):
        """Yield Batches, without those that cannot be read."""
        for batch in self.batches_of(self.samples, batch_size, epoch):
            if len(batch.samples):
                yield batch

    def batches_of(self, samples, batch_size, epoch):
        """Yield Batches of these samples; they may be empty."""
        for chosen, results in load_ahead(self.load, samples, batch_size,
                                          self.paths.__getitem__):
            read, images = [], []
            for sample, result in zip(chosen, results):
                if isinstance(result, InputError):
                    self.faults[sample] = result
                else:
                    read.append(sample)
                    images.append(result)
            yield Batch(np.array(images), None, np.array(read, int), None)
