"""Passes: the frozen layers always get the same number of images.

TensorFlow rounds differently for other batch sizes, so that features could not be used
again by a run that has another one. On some processors it also rounds differently at
another place in a batch, so a resumed epoch puts each picture where it would have been.
"""
import contextlib
import itertools
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from machinery.batches import check_uint8

# One thread computes features at a time, also if the loop evaluates within an epoch:
# they share a store.
BUSY = threading.Lock()


def compute(forward, images, size, place=0):
    """Run forward on uint8 images, and on zeros before (place) and behind them."""
    whole = np.zeros((size,) + images.shape[1:], np.uint8)
    whole[place:place + len(images)] = check_uint8(images)
    return forward(whole)[place:place + len(images)]


def compute_batches(forward, batches, size, start=0):
    """Yield Batches with features as images; a pass may span several of them.

    start: how many images of the epoch are left out.
    """
    waiting, rows, place = deque(), [], start % size

    def take_images():
        for batch in batches:
            waiting.append(batch)
            yield from batch.images

    images = take_images()
    while True:
        part = np.array(list(itertools.islice(images, size - place)))
        if not len(part):
            return
        for row in compute(forward, part, size, place):
            rows.append(row)
            if len(rows) == len(waiting[0].images):
                yield waiting.popleft()._replace(images=np.array(rows))
                rows = []
        place = 0


def one_ahead(batches):
    """Yield a generator's items; a thread computes the next one in advance.

    When it is closed, it waits for that item.
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
