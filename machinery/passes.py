"""Passes: the frozen layers always get the same number of images.

TensorFlow rounds differently for other batch sizes, so a run with another batch_size
could not use the features again.
"""
import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from machinery.batches import check_uint8

# Only one thread computes features at a time, because all share a store. There are two
# threads if the loop evaluates within an epoch.
BUSY = threading.Lock()


def compute(forward, images, size):
    """Run forward on at most size uint8 images, filled up with zeros to size."""
    padding = np.zeros((size - len(images),) + images.shape[1:], np.uint8)
    return forward(np.concatenate([check_uint8(images), padding]))[:len(images)]


def compute_batches(forward, batches, size):
    """Yield Batches with features as images; a pass may span several of them."""
    batches, ahead = itertools.tee(batches)
    images = (image for batch in ahead for image in batch.images)
    passes = iter(lambda: list(itertools.islice(images, size)), [])
    rows = (row for part in passes for row in compute(forward, np.array(part), size))
    for batch in batches:
        features = list(itertools.islice(rows, len(batch.images)))
        yield batch._replace(images=np.array(features))


def one_ahead(batches):
    """Yield a generator's items; a thread computes the next one in advance.

    Closing it waits for that item.
    """
    def take():
        with BUSY:
            return next(batches, None)

    with contextlib.closing(batches), ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(take)
        while True:
            batch = ahead.result()
            if batch is None:
                return
            ahead = thread.submit(take)
            yield batch
