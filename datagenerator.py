"""Pictures in, batches out.

    python datagenerator.py photos   write train.txt, val.txt, test.txt and classes.txt
"""
import copy
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from machinery import lists
from machinery.settings import InputError, check_value, input_errors
from machinery.tf1 import tf

IMAGENET_MEAN = [104, 117, 124]  # blue, green, red
IMAGE_SIZE = (227, 227)  # width, height


def load_image(path, size=IMAGE_SIZE, mean=IMAGENET_MEAN):
    """Read a picture as AlexNet takes it, whatever its file format.

    Grey pictures get three equal channels, 16-bit ones are cut to 8, an alpha channel
    is dropped, of an animation the first frame counts, and a camera's EXIF orientation
    is obeyed. Resized bilinearly, without regard to the aspect ratio.

    Args:
        size: (width, height) in pixels.
        mean: what is subtracted from blue, green and red.

    Returns:
        float32 array (height, width, 3), BGR, 0..255 minus the mean.

    Raises:
        InputError: it is no file, or no whole picture that OpenCV can decode; names it.
    """
    image = decode_image(path, cv2.IMREAD_COLOR)
    return cv2.resize(image, tuple(size)).astype(np.float32) - np.float32(mean)


@input_errors()
def decode_image(path, flags):
    """Return a picture as OpenCV decodes it with these flags; raise as load_image."""
    if '\0' in path:
        raise InputError('%r: no such file' % path)
    with open(path, 'rb') as file:
        data = np.frombuffer(file.read(), np.uint8)
    if not data.size:
        raise InputError('%s: empty file' % path)
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise InputError('%s: OpenCV cannot decode it: %s' % (path, error))
    if image is None:
        raise InputError('%s: not a picture, or damaged, or of a kind that OpenCV '
                         'cannot decode' % path)
    return image


class ImageDataGenerator:
    """Batches of pictures and labels from a list file, decoded ahead in threads.

    An epoch gives every sample once; its order and what becomes of each picture are a
    function of (seed, epoch) alone.

    Args:
        class_list: text file with a line "path label" for each picture: see read_list.
        horizontal_flip: mirror each picture left-right with probability 0.5.
        shuffle: new order in every epoch, otherwise the order of the list; None: True
            with a mode, else False.
        mean, scale_size: as load_image takes them.
        nb_classes, num_classes: number of classes; labels count from 0.
        seed: integer in 0..2**32 - 1.
        shard: (rank, size): of several workers, this one gets the samples i with
            i % size == rank. With shuffle, all get as many: a short share is filled
            with a sample of another one.
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
        seconds_waited: time that calls have spent waiting for pictures, in total.

    Raises:
        InputError: the list cannot be read, has faults, which it names (see read_list),
            or has fewer samples than there are workers; or there is no such mode.
    """

    def __init__(self, class_list, horizontal_flip=False, shuffle=None,
                 mean=IMAGENET_MEAN, scale_size=IMAGE_SIZE, nb_classes=2, seed=0,
                 shard=(0, 1), mode=None, batch_size=None, num_classes=None,
                 buffer_size=None):
        check_value('horizontal_flip', horizontal_flip)
        check_value('mode', mode)
        if mode:
            check_value('batch_size', batch_size)
        self.class_list = class_list
        self.horizontal_flip = horizontal_flip
        self.shuffle = bool(mode) if shuffle is None else shuffle
        self.mean = mean
        self.scale_size = tuple(scale_size)
        self.n_classes = num_classes or nb_classes
        self.batch_size = batch_size
        self.seed = seed
        self.shard = shard
        self.paths, self.labels, self.line_numbers = lists.read_list(
            class_list, self.n_classes)
        self.seconds_waited = 0.
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._ahead = None, None, []
        self._deal()

    def reset_pointer(self, epoch=None, pointer=0):
        """Go to a sample of an epoch, by default to the first of the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.pointer = pointer
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
                n is batch_size, or what is left of the epoch.
            labels: float32 array (n, n_classes), one-hot.

        Raises:
            IndexError: the epoch is over.
            InputError: batch_size is below 1, or a picture cannot be read; names list,
                line and path.
        """
        samples, images = self.decode_next(batch_size)
        return images, self.one_hot(samples)

    @property
    def data(self):
        """A tf.data.Dataset of the batches of an epoch, the next one at each start."""
        def batches():
            self.reset_pointer()
            epoch = copy.copy(self)  # several iterators may run at once
            while epoch.pointer < epoch.data_size:
                yield epoch.next_batch(self.batch_size)

        width, height = self.scale_size
        return tf.data.Dataset.from_generator(batches, (tf.float32, tf.float32), (
            [None, height, width, 3], [None, self.n_classes]))

    @property
    def images(self):
        """The paths, by the tutorial's name."""
        return self.paths

    def decode_next(self, batch_size, missing=lambda samples: samples):
        """Return the numbers of the next samples, and images of what missing picks."""
        if not batch_size or batch_size < 1:
            raise InputError('batch_size is %r, must be 1 or more' % batch_size)
        if self.pointer >= self.data_size:
            raise IndexError('epoch %d of %s is over: call reset_pointer()'
                             % (self.epoch, self.class_list))
        samples = self.order[self.pointer:self.pointer + batch_size]
        self.pointer += len(samples)
        ahead_for, images, decoding = self._ahead
        if ahead_for != batch_size:
            images, decoding = self._start_to_decode(missing(samples))
        following = self.order[self.pointer:self.pointer + batch_size]
        self._ahead = (batch_size,) + self._start_to_decode(missing(following))
        start = time.time()
        for image in decoding:
            image.result()
        self.seconds_waited += time.time() - start
        return samples, images

    def decode(self, samples):
        """Return the images of these samples as in this epoch."""
        images, decoding = self._start_to_decode(samples)
        for image in decoding:
            image.result()
        return images

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
        try:
            loaded = load_image(self.paths[sample], self.scale_size, self.mean)
        except InputError as error:
            raise InputError('%s, line %d: %s' % (
                self.class_list, self.line_numbers[sample], error))
        image[:] = loaded[:, ::-1] if self.variants[sample] else loaded

    def find_bad_pictures(self):
        """Decode this worker's pictures, at an eighth of the size where that is faster.

        Results are kept in a hidden file beside the list until a path, size or
        modification time changes; bad pictures are decoded each time.

        Returns:
            {sample: error message} of those that cannot be decoded.
        """
        folder, name = os.path.split(self.class_list)
        rank, size = self.shard
        samples = self.samples.tolist()
        part = '.%d-of-%d' % (rank + 1, size) if size > 1 else ''
        memory = os.path.join(folder, '.%s%s.checked' % (name, part))
        state = hashlib.sha1()
        for path in [self.paths[sample] for sample in samples]:
            file = os.stat(path)
            state.update(b'%s %d %d\n' % (path.encode(), file.st_size,
                                          file.st_mtime_ns))
        state = state.hexdigest()
        if os.path.exists(memory):
            with open(memory) as file:
                remembered = file.read()
            if remembered.startswith('{"state": "%s", "bad": [' % state):
                # Their permissions, say, may have been mended since.
                samples = json.loads(remembered)['bad']

        bad = {}
        bar = tqdm(total=len(samples), unit=' pictures', desc='Checking ' + name,
                   disable=True if rank or not samples else None)
        for start in range(0, len(samples), 1000):  # a million would fill the memory
            part = samples[start:start + 1000]
            faults = self._pool.map(find_fault, [self.paths[i] for i in part])
            bad.update(pair for pair in zip(part, faults) if pair[1])
            bar.update(len(part))
        bar.close()
        if samples and os.access(folder or '.', os.W_OK):
            with open(memory + '.part', 'w') as file:
                json.dump({'state': state, 'bad': list(bad)}, file)
            os.replace(memory + '.part', memory)
        return bad

    def drop(self, samples):
        """Leave out these samples from now on, and start the epoch anew."""
        kept = np.setdiff1d(np.arange(len(self.paths)), samples)
        if not len(kept):
            raise InputError('%s: no picture is left' % self.class_list)
        self.paths = [self.paths[sample] for sample in kept]
        self.labels = self.labels[kept]
        self.line_numbers = self.line_numbers[kept]
        self._deal()


def find_fault(path):
    """Return why a picture cannot be decoded, or None."""
    try:
        decode_image(path, cv2.IMREAD_REDUCED_COLOR_8)
    except InputError as error:
        return str(error)


def examine_pictures(generators, on_bad_image, workers):
    """Decode every picture of these generators; refuse or drop those that are bad.

    Prints which pictures it dropped, and warnings about the lists.

    Args:
        on_bad_image: 'stop' raises an error, 'skip' drops the bad pictures.

    Raises:
        InputError: workers have different lists; or there are bad pictures and
            on_bad_image is 'stop'; names them all.
    """
    workers.check_equal({
        'the list of labels': [data.labels.tolist() for data in generators],
        'the list of picture names': [
            [os.path.basename(path) for path in data.paths] for data in generators]})
    faults = []
    for data in generators:
        fault_of = data.find_bad_pictures()
        is_bad = np.zeros((workers.size, len(data.paths)), np.int32)
        is_bad[workers.rank, list(fault_of)] = 1
        bad = np.flatnonzero(workers.merge(is_bad).any(0))
        faults += ['%s, line %d: %s' % (
            data.class_list, data.line_numbers[sample],
            fault_of.get(sample) or find_fault(data.paths[sample]) or
            '%s: another worker cannot read it' % data.paths[sample]) for sample in bad]
        if len(bad) and on_bad_image == 'skip':
            data.drop(bad)
    report = 'Cannot read %d picture%s:\n  %s' % (
        len(faults), 's' if len(faults) > 1 else '', '\n  '.join(faults))
    if faults and on_bad_image == 'stop':
        raise InputError(
            report + "\nRemove these lines, or choose on_bad_image = 'skip'")
    if faults:
        print(report + '\nGoing on without.')
    for warning in lists.list_warnings(generators):
        print('Warning: ' + warning)


def load_batches(paths, batch_size):
    """Yield (paths, images) of batches, decoding one batch ahead.

    An image is what load_image gives, or the InputError that it raised.
    """
    def load(path):
        try:
            return load_image(path)
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
    lists.main()
