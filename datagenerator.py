"""Pictures in, batches out: image lists, decoding, and the cache of frozen features.

    python datagenerator.py photos   write train.txt, val.txt, test.txt and classes.txt
"""
import argparse
import ast
import glob
import hashlib
import itertools
import json
import math
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

IMAGENET_MEAN = [104, 117, 124]  # blue, green, red
MAX_FAULTS = 20
PICTURE_ENDINGS = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.gif',
                   '.tif', '.tiff', '.webp', '.pbm', '.pgm', '.ppm', '.pnm', '.jp2',
                   '.avif')


def load_image(path, size=(227, 227), mean=IMAGENET_MEAN):
    """Read a picture as AlexNet takes it, whatever its file format.

    Grey pictures get three equal channels, 16-bit ones are cut to 8, an alpha channel
    is dropped, of an animation the first frame counts, and a camera's rotation mark
    (EXIF) is obeyed. Resized bilinearly, without regard to the aspect ratio.

    Args:
        path: the file.
        size: (width, height) in pixels.
        mean: what is subtracted from blue, green and red.

    Returns:
        float32 array (height, width, 3), BGR, 0..255 minus the mean.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no whole picture that OpenCV can decode.
        Both name the path.
    """
    image = decode_image(path, cv2.IMREAD_COLOR)
    return cv2.resize(image, size).astype(np.float32) - np.float32(mean)


def decode_image(path, flags):
    """Return a picture as OpenCV decodes it with these flags; raise as load_image."""
    with open(path, 'rb') as file:
        data = np.frombuffer(file.read(), np.uint8)
    if not data.size:
        raise ValueError('%s: empty file' % path)
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ValueError('%s: OpenCV cannot decode it: %s' % (path, error))
    if image is None:
        raise ValueError('%s: not a picture, or damaged, or of a kind that OpenCV '
                         'cannot decode' % path)
    return image


class ImageDataGenerator:
    """Batches of pictures and labels from a list file, decoded ahead in threads.

    An epoch gives every sample once; its order and its mirrorings are a function of
    (seed, epoch) alone. Where a worker has no part in a batch, it gets a black picture
    with a label of zeros, since TensorFlow computes nothing sensible of no pictures.

    Args:
        class_list: text file with a line "path label" for each picture: see read_list.
        horizontal_flip: mirror each picture left-right with probability 0.5.
        shuffle: new order in every epoch, otherwise the order of the list.
        mean: what is subtracted from blue, green and red.
        scale_size: (width, height) of the images in pixels.
        nb_classes: number of classes; labels are 0..nb_classes - 1.
        seed: integer in 0..2**32 - 1.
        shard: (rank, size): of several workers, this one gets the samples whose number
            leaves the remainder rank when divided by size.

    Attributes:
        data_size: number of samples of all workers.
        rows: places of the last batch's samples in the batch of all workers.
        seconds_waited: time that calls have spent waiting for pictures, in total.

    Raises:
        OSError: the list cannot be read.
        ValueError: the list has faults; names them, see read_list.
    """

    def __init__(self, class_list, horizontal_flip=False, shuffle=False,
                 mean=IMAGENET_MEAN, scale_size=(227, 227), nb_classes=2, seed=0,
                 shard=(0, 1)):
        self.class_list = class_list
        self.horizontal_flip = horizontal_flip
        self.shuffle = shuffle
        self.mean = mean
        self.scale_size = tuple(scale_size)
        self.nb_classes = nb_classes
        self.seed = seed
        self.shard = shard
        self.paths, self.labels, self.line_numbers = read_list(class_list, nb_classes)
        self.data_size = len(self.paths)
        self.seconds_waited = 0.
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._ahead = None, None, []
        self.reset_pointer(0)

    def reset_pointer(self, epoch=None, pointer=0):
        """Go to a sample of an epoch, by default to the first of the next one."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.pointer = pointer
        for decoding in self._ahead[-1]:
            decoding.cancel()
        self._ahead = None, None, []
        rng = np.random.RandomState([self.seed, self.epoch])
        order = rng.permutation(self.data_size)
        self.order = (order if self.shuffle else np.sort(order)).astype(np.int32)
        mirrored = rng.rand(self.data_size) < 0.5
        self.mirrored = mirrored & self.horizontal_flip

    def next_batch(self, batch_size):
        """Return the next samples of the epoch, and start to decode those after them.

        Args:
            batch_size: number of samples of all workers together.

        Returns:
            images: float32 array (n, height, width, 3), as load_image gives them;
                n is batch_size, or what is left of the epoch, or this shard's part.
            labels: float32 array (n, nb_classes), one-hot.

        Raises:
            ValueError: batch_size is below 1.
            IndexError: the epoch is over.
            OSError, ValueError: a picture cannot be read; names list, line and path.
        """
        samples, images = self.decode_next(batch_size)
        if not len(samples):
            images = np.zeros((1,) + images.shape[1:], np.float32)
        return images, self.one_hot(samples)

    def decode_next(self, batch_size, missing=lambda samples: samples):
        """Return the numbers of the next samples, and the images of the missing ones.

        Args:
            missing: function that picks from sample numbers those to be decoded.
        """
        if batch_size < 1:
            raise ValueError('batch_size is %r, must be 1 or more' % batch_size)
        if self.pointer >= self.data_size:
            raise IndexError('epoch %d of %s is over: call reset_pointer()'
                             % (self.epoch, self.class_list))
        self.rows, samples = self._part(batch_size)
        ahead_for, images, decoding = self._ahead
        if ahead_for != batch_size:
            images, decoding = self._decode(missing(samples))
        self.pointer = min(self.pointer + batch_size, self.data_size)
        _, following = self._part(batch_size)
        self._ahead = (batch_size,) + self._decode(missing(following))
        start = time.time()
        for image in decoding:
            image.result()
        self.seconds_waited += time.time() - start
        return samples, images

    def images(self, samples):
        """Return the images of these samples, mirrored as in this epoch."""
        images, decoding = self._decode(samples)
        for image in decoding:
            image.result()
        return images

    def one_hot(self, samples):
        """Return the labels of these samples as a float32 array (n, nb_classes).

        For no samples it is one row of zeros.
        """
        labels = np.zeros((max(1, len(samples)), self.nb_classes), np.float32)
        labels[np.arange(len(samples)), self.labels[samples]] = 1
        return labels

    def _part(self, batch_size):
        """Return the rows and the samples of the next batch that are this shard's."""
        rank, size = self.shard
        samples = self.order[self.pointer:self.pointer + batch_size]
        rows = np.flatnonzero(samples % size == rank)
        return rows, samples[rows]

    def _decode(self, samples):
        width, height = self.scale_size
        images = np.empty((len(samples), height, width, 3), np.float32)
        return images, [self._pool.submit(self._load, sample, image)
                        for sample, image in zip(samples, images)]

    def _load(self, sample, image):
        try:
            loaded = load_image(self.paths[sample], self.scale_size, self.mean)
        except (OSError, ValueError) as error:
            raise type(error)('%s, line %d: %s' % (
                self.class_list, self.line_numbers[sample], error))
        image[:] = loaded[:, ::-1] if self.mirrored[sample] else loaded

    def find_bad_images(self):
        """Decode this shard's pictures, at an eighth of the size where that is faster.

        Which are good is remembered in a dot file beside the list, until one of its
        paths, or the size or time of a picture changes.

        Returns:
            {sample number: error message} of those that cannot be decoded.
        """
        folder, name = os.path.split(self.class_list)
        rank, size = self.shard
        samples = list(range(rank, self.data_size, size))
        memory = os.path.join(folder, '.%s%s.checked' % (
            name, '.%d-of-%d' % (rank + 1, size) if size > 1 else ''))
        state = hashlib.sha1()
        for path in self.paths[rank::size]:
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
        for start in range(0, len(samples), 1000):
            part = samples[start:start + 1000]
            faults = self._pool.map(find_fault, [self.paths[i] for i in part])
            for sample, fault in zip(part, faults):
                bar.update()
                if fault:
                    bad[sample] = fault
        bar.close()
        if samples and os.access(folder or '.', os.W_OK):
            with open(memory + '.part', 'w') as file:
                json.dump({'state': state, 'bad': list(bad)}, file)
            os.replace(memory + '.part', memory)
        return bad

    def drop(self, samples):
        """Leave out these samples from now on, and start the epoch anew."""
        kept = np.setdiff1d(np.arange(self.data_size), samples)
        if not len(kept):
            raise ValueError('%s: no picture is left' % self.class_list)
        self.paths = [self.paths[sample] for sample in kept]
        self.labels = self.labels[kept]
        self.line_numbers = self.line_numbers[kept]
        self.data_size = len(kept)
        self.reset_pointer(self.epoch)


def find_fault(path):
    """Return why a picture cannot be decoded, or None."""
    try:
        decode_image(path, cv2.IMREAD_REDUCED_COLOR_8)
    except (OSError, ValueError) as error:
        return str(error)


def check_images(generators, on_bad_image, gather=lambda array: array):
    """Make sure that every picture of these generators can be decoded.

    Args:
        on_bad_image: 'stop' raises an error, 'skip' drops and lists the bad pictures.
        gather: that of Workers, where there are several.

    Raises:
        ValueError: there are bad pictures and on_bad_image is 'stop'; names them all.
    """
    faults = []
    for generator in generators:
        fault_of = generator.find_bad_images()
        is_bad = np.zeros(generator.data_size, np.int32)
        is_bad[list(fault_of)] = 1
        bad = np.flatnonzero(gather(is_bad))
        faults += ['%s, line %d: %s' % (
            generator.class_list, generator.line_numbers[sample],
            fault_of.get(sample) or find_fault(generator.paths[sample]) or
            '%s: another worker cannot read it' % generator.paths[sample])
            for sample in bad]
        if len(bad) and on_bad_image == 'skip':
            generator.drop(bad)
    report = '%d pictures cannot be read:\n  %s' % (len(faults), '\n  '.join(faults))
    if faults and on_bad_image == 'stop':
        raise ValueError(
            report + "\nRemove these lines, or choose on_bad_image = 'skip'")
    if faults:
        print('Skipped: ' + report)


def list_warnings(generators):
    """Return warnings about the samples of generators, as a list of text."""
    warnings = []
    resolved = [(generator, [os.path.realpath(path) for path in generator.paths])
                for generator in generators]
    for (one, one_paths), (other, other_paths) in itertools.combinations(resolved, 2):
        line_of = dict(zip(one_paths, one.line_numbers))
        shared = [(path, line_of[real_path], line) for path, real_path, line
                  in zip(other.paths, other_paths, other.line_numbers)
                  if real_path in line_of]
        if shared:
            warnings.append(
                '%d pictures of %s are also in %s, so its accuracy is too optimistic; '
                'the first is %s (lines %d and %d)'
                % ((len(shared), other.class_list, one.class_list) + shared[0]))
    for generator in generators:
        counts = np.bincount(generator.labels, minlength=generator.nb_classes)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            warnings.append('%s has no sample of the classes %s' % (
                generator.class_list, ', '.join(map(str, empty[:20]))))
    return warnings


class FeatureCache:
    """Give the features of an ImageDataGenerator's images, computing each only once.

    The features of a sample, mirrored or not, are kept in memory up to a limit and
    beyond it in a nameless temporary file, which vanishes with the process. What fits
    in neither is computed anew each time.

    Args:
        generator: the ImageDataGenerator; this object takes its place.
        forward: function from images (n, height, width, 3) to features (n, ...). It
            always gets as many, padded with zeros, since TensorFlow computes batches of
            different sizes in different ways, with different rounding.
        memory: limit in bytes.
        folder: where the file is put; None: the system's temporary folder.
        enabled: False computes all features anew each time.
    """

    def __init__(self, generator, forward, memory, folder=None, enabled=True):
        self.generator = generator
        self.data_size = generator.data_size
        self.reset_pointer = generator.reset_pointer
        self._forward = forward
        self._memory_limit = memory if enabled else 0
        self._folder = folder
        self._full = not enabled
        self._row_of = np.full((2, generator.data_size), -1, np.int32)
        self._stored = 0
        self._memory = self._file = None

    def next_batch(self, batch_size):
        """Return (features, labels) of the next samples of the epoch.

        Computes what has not been stored, in one pass, and decodes nothing else.
        """
        samples, images = self.generator.decode_next(batch_size, self._missing)
        rows, computed = self._rows(samples), ()
        if len(images) or self._memory is None:
            computed = self._compute(images, min(batch_size, self.data_size))
            self._prepare(computed[0])
        if not len(samples):
            return (np.zeros((1,) + self._memory.shape[1:], np.float32),
                    self.generator.one_hot(samples))
        computed = iter(computed)
        features = np.stack([next(computed) if row < 0 else self._load(row)
                             for row in rows])
        for sample, row, feature in zip(samples, rows, features):
            if row < 0:
                self._store(sample, feature)
        return features, self.generator.one_hot(samples)

    def _compute(self, images, batch_size):
        """Return the features of images, in passes of one size, whatever is missing.

        Of several workers, whose parts of a batch differ, it is a little more than what
        is due to each, so that one pass is nearly always enough.
        """
        _, workers = self.generator.shard
        size = batch_size
        if workers > 1:
            size = min(size, math.ceil(size / workers + 2 * math.sqrt(size / workers)))
        passes = []
        for start in range(0, max(1, len(images)), size):
            part = images[start:start + size]
            if len(part) < size:
                padding = np.zeros((size - len(part),) + part.shape[1:], np.float32)
                part = np.concatenate([part, padding])
            passes.append(self._forward(part))
        return passes[0] if len(passes) == 1 else np.concatenate(passes)

    @property
    def rows(self):
        """Places of the last batch's samples in the batch of all workers."""
        return self.generator.rows

    def _rows(self, samples):
        return self._row_of[self.generator.mirrored[samples].astype(int), samples]

    def _missing(self, samples):
        return samples[self._rows(samples) < 0]

    def _load(self, row):
        if row < len(self._memory):
            return self._memory[row]
        feature = np.empty(self._memory.shape[1:], np.float32)
        self._file.seek((row - len(self._memory)) * feature.nbytes)
        self._file.readinto(feature)
        return feature

    def _prepare(self, feature):
        if self._memory is None:
            row_limit = min(self._memory_limit // feature.nbytes, self._row_of.size)
            self._memory = np.empty((row_limit,) + feature.shape, np.float32)

    def _store(self, sample, feature):
        row = self._stored
        if row < len(self._memory):
            self._memory[row] = feature
        elif not self._write(row - len(self._memory), feature):
            return
        self._row_of[int(self.generator.mirrored[sample]), sample] = row
        self._stored += 1

    def _write(self, row, feature):
        """Write a row to the file; return False, and stop to try, once that fails."""
        if self._full:
            return False
        # A plain file instead of a memory map: mapped pages count as resident memory,
        # and a full disk kills the process that writes to them.
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
            self._file.seek(row * feature.nbytes)
            if self._file.write(feature) == feature.nbytes:
                return True
            reason = 'no space left'
        except OSError as error:
            reason = error
        self._full = True
        print('%d features are stored; there is no room for more (%s), so the others '
              'are computed anew in each epoch' % (self._stored, reason))
        return False


def load_batches(paths, batch_size):
    """Yield (paths, images) of batches, decoding one batch ahead.

    An image is what load_image gives, or the error that it raised.
    """
    def load(path):
        try:
            return load_image(path)
        except (OSError, ValueError) as error:
            return error

    batches = [paths[start:start + batch_size]
               for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead = pool.map(load, batches[0] if batches else [])
        for batch, following in zip(batches, batches[1:] + [[]]):
            images, ahead = ahead, pool.map(load, following)
            yield batch, list(images)


def find_pictures(place):
    """Return the paths of a picture, or those in a folder, a pattern or a .txt list.

    A list has a path in each line; a relative one is relative to the list's folder.

    Raises:
        OSError: there are none, or the list cannot be read.
    """
    if place.endswith('.txt'):
        with open(place, encoding='utf-8-sig', errors='surrogateescape') as file:
            found = [os.path.join(os.path.dirname(place), line.strip())
                     for line in file if line.strip() and not line.startswith('#')]
    elif os.path.isdir(place):
        found = sorted(path for path in walk(place)
                       if is_picture(os.path.basename(path)))
    else:
        found = [place] if os.path.isfile(place) else sorted(
            glob.glob(place, recursive=True))
    if not found:
        raise FileNotFoundError('%s: does not exist, or no pictures there' % place)
    return found


def walk(folder):
    """Yield the files below a folder, also through links; nothing that is hidden.

    Raises:
        OSError: a folder cannot be read, or links lead in circles.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                yield from walk(entry.path)
            else:
                yield entry.path


def has_labels(list_path):
    """Tell whether this is a .txt list whose lines do not end with a picture's name."""
    return (list_path.endswith('.txt') and
            not is_picture(os.path.basename(find_pictures(list_path)[0])))


def is_picture(name):
    """Tell whether a file name looks like a picture's."""
    return name.lower().endswith(PICTURE_ENDINGS)


def read_class_names(path, nb_classes):
    """Read a file with the name of a class in each line, in the order of the labels.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has not nb_classes lines, or one is blank, or it is not UTF-8.
    """
    with open(path, 'rb') as file:
        names = file.read().decode('utf-8-sig').rstrip().split('\n')
    names = [name.strip() for name in names]
    if '' in names:
        raise ValueError('%s, line %d: no name' % (path, names.index('') + 1))
    if len(names) != nb_classes:
        raise ValueError('%s: names %d classes, but num_classes is %d'
                         % (path, len(names), nb_classes))
    return names


def read_list(list_path, nb_classes, check_files=True):
    """Read a list file of pictures and labels.

    A line is "path label", split at its last white space; the label is an integer in
    0..nb_classes - 1, and a relative path is relative to the list's folder. Blank lines
    and lines that start with # are skipped. UTF-8, with or without byte order mark.

    Args:
        check_files: a file that does not exist is a fault.

    Returns:
        paths (list of str), labels (int32 array), line numbers from 1 (int32 array).

    Raises:
        OSError: the list cannot be read.
        ValueError: the list is empty or has faulty lines; shows up to 20 of them.
    """
    paths, labels, line_numbers, faults = [], [], [], []
    label_of = {}
    with open(list_path, 'rb') as file:
        for line_number, line in enumerate(file, 1):
            try:
                line = line.decode('utf-8-sig').strip()
                if not line or line.startswith('#'):
                    continue
                path, label = split_line(line)
            except ValueError as fault:
                faults.append('line %d: %s' % (line_number, fault))
                continue
            path = os.path.join(os.path.dirname(list_path), path)
            paths.append(path)
            labels.append(label)
            line_numbers.append(line_number)
            if not 0 <= label < nb_classes:
                faults.append('line %d: label %d is not in 0..%d'
                              % (line_number, label, nb_classes - 1))
            elif label_of.setdefault(os.path.normpath(path), label) != label:
                faults.append('line %d: label %d, but label %d in an earlier line: %s'
                              % (line_number, label,
                                 label_of[os.path.normpath(path)], path))
            if '\0' in path or check_files and not os.path.isfile(path):
                faults.append('line %d: no such file: %.500s' % (line_number, path))
    if not paths and not faults:
        faults.append('no samples in it')
    if faults:
        shown = faults[:MAX_FAULTS]
        if len(faults) > MAX_FAULTS:
            shown.append('and %d more' % (len(faults) - MAX_FAULTS))
        if labels and min(labels) == 1 and max(labels) == nb_classes:
            shown.insert(0, 'the labels run 1..%d, but labels start at 0' % nb_classes)
        raise ValueError('%s:\n  %s' % (list_path, '\n  '.join(shown)))
    return paths, np.array(labels, np.int32), np.array(line_numbers, np.int32)


def split_line(line):
    """Return (path, label) of a line "path label", or raise a ValueError."""
    *path, label = line.rsplit(None, 1)
    if not path:
        raise ValueError('no label behind %.500r' % line)
    if not re.match('[+-]?[0-9]{1,18}$', label):
        raise ValueError('label %.100r is not an integer' % label)
    return path[0], int(label)


def read_command_line(variables, arguments):
    """Return the settings of a script that arguments like --num_epochs=3 change.

    Values are Python literals of the default's type; text needs no quotes. An integer
    may stand for a float. What is None or 'DEFAULT' by default may become text or None,
    the former a list, too; what is False by default may become text.

    Args:
        variables: the script's globals(); its settings are the lower-case names in it
            that hold plain values.
        arguments: list of str; with --help or -h in it, the settings are printed.

    Raises:
        SystemExit: after --help.
        ValueError: an unknown name or a value of another type; lists the names.
    """
    settings = {name: value for name, value in variables.items()
                if name.islower() and not name.startswith('_')
                and type(value) in (str, int, float, bool, list, type(None))}
    if '--help' in arguments or '-h' in arguments:
        print(variables['__doc__'])
        print('\n'.join('--%s=%s' % setting for setting in settings.items()))
        sys.exit()
    changed = {}
    for argument in arguments:
        name, equals, text = argument.lstrip('-').partition('=')
        if not argument.startswith('--') or not equals or name not in settings:
            raise ValueError(
                '%.200r is not an option; options are --name=value, or for a list '
                '--name="[\'a\',\'b\']", with a name from: %s'
                % (argument, ', '.join(settings)))
        default = settings[name]
        allowed = {float: [float, int], type(None): [str, list, type(None)]}.get(
            type(default), [type(default)])
        if default == 'DEFAULT':
            allowed = [str, type(None)]
        if default is False:
            allowed = [bool, str]
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            value = text
        if type(value) not in allowed and str in allowed:
            value = text
        if type(value) not in allowed:
            raise ValueError('--%s=%.200s: expected %s, like the default %r; the '
                             'options are %s' % (name, text, type(default).__name__,
                                                 default, ', '.join(settings)))
        changed[name] = value
    return changed


def check_settings(variables, checks):
    """Raise a ValueError that names the first setting which does not fit.

    Args:
        variables: the script's globals().
        checks: list of (name, whether it fits, what is allowed, as text).
    """
    for name, fits, allowed in checks:
        if not fits:
            raise ValueError('%s is %r, must be %s' % (name, variables[name], allowed))


def find_classes(folder):
    """Return {class name: [paths]} of the pictures below a folder.

    A class is a subfolder; of a picture that lies in the folder itself, the class is
    what stands before the first point of its name, as in cat.0.jpg.

    Raises:
        OSError: a folder cannot be read.
        ValueError: a picture has no class, or a name that cannot stand in a list, or
            there are fewer than two classes.
    """
    classes = {}
    for path in find_pictures(folder):
        inside = os.path.relpath(path, folder).split(os.sep)
        if len(inside) == 1 and inside[0].count('.') < 2:
            raise ValueError('%s: lies in no subfolder that tells its class, and is '
                             'not named like cat.0.jpg either' % path)
        class_name = inside[0] if len(inside) > 1 else inside[0].split('.')[0]
        if ('\n' in path or path.encode(errors='ignore').decode() != path
                or not class_name.strip()):
            raise ValueError('%r: is not UTF-8, has several lines, or has a class '
                             'without a name, so it cannot stand in a list' % path)
        classes.setdefault(class_name, []).append(path)
    if len(classes) < 2:
        raise ValueError('%s: pictures of %d classes found, at least 2 are needed'
                         % (folder, len(classes)))
    return classes


def split_classes(classes, shares, seed=0):
    """Distribute the pictures of each class at random among as many lists as shares.

    Pictures of equal content, of whatever class, come into the same list.

    Args:
        classes: {class name: [paths]}.
        shares: relative sizes of the lists.

    Returns:
        a list of (path, label) for each share; labels count the sorted class names.
    """
    rng = np.random.RandomState(seed)
    lists, list_of = [[] for _ in shares], {}
    for label, name in enumerate(sorted(classes)):
        groups = {}
        for path in classes[name]:
            with open(path, 'rb') as file:
                content = hashlib.sha1(file.read()).digest()
            groups.setdefault(content, []).append((path, label))
        fresh = [content for content in groups if content not in list_of]
        rng.shuffle(fresh)
        ends = np.round(np.cumsum(shares) / sum(shares) * len(fresh))
        for position, content in enumerate(fresh):
            list_of[content] = int(np.searchsorted(ends, position, side='right'))
        for content, samples in groups.items():
            lists[list_of[content]] += samples
    return lists


def main():
    """Write lists of the pictures in a folder, as the command line says."""
    parser = argparse.ArgumentParser(
        description='Write train.txt, val.txt and test.txt of the pictures in a folder '
        'that has a subfolder for each class, or names like cat.0.jpg; and '
        'classes.txt, whose lines are the names of the classes.')
    parser.add_argument('folder')
    parser.add_argument('--split', nargs=3, type=float, default=[70, 15, 15],
                        metavar=('TRAIN', 'VAL', 'TEST'), help='default: 70 15 15')
    parser.add_argument('--seed', type=int, default=0, help='of the random split')
    parser.add_argument('--out', default='.', help='folder of the lists; default: '
                        'the current one')
    parser.add_argument('--force', action='store_true', help='overwrite lists')
    args = parser.parse_args()
    names = ['train', 'val', 'test']
    outs = [os.path.join(args.out, name + '.txt') for name in names + ['classes']]
    if not all(0 <= share < math.inf for share in args.split) or not args.split[0]:
        sys.exit('--split: the shares must be 0 or more, and that of training not 0')
    try:
        classes = find_classes(args.folder)
        class_names = sorted(classes)
        existing = [path for path in outs if os.path.exists(path)]
        if existing and not args.force:
            sys.exit('%s would be overwritten; --force does so' % ', '.join(existing))
        lists = split_classes(classes, args.split, args.seed)
        os.makedirs(args.out, exist_ok=True)
        for path, samples in zip(outs, lists):
            with open(path, 'w', encoding='utf-8') as file:
                for picture, label in samples:
                    # ./ since a line that starts with # is a comment
                    picture = os.path.relpath(picture, args.out)
                    file.write('./%s %d\n' % (picture, label))
        with open(outs[-1], 'w', encoding='utf-8') as file:
            file.writelines(name + '\n' for name in class_names)
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    print('%-20s %7s %7s %7s %7s' % tuple(['class', 'label'] + names))
    counts = np.array([np.bincount([label for _, label in samples],
                                   minlength=len(class_names)) for samples in lists])
    for label, name in enumerate(class_names):
        print('%-20s %7d %7d %7d %7d' % ((name, label) + tuple(counts[:, label])))
    for name, share, found in zip(names, args.split, counts):
        missing = np.array(class_names)[found == 0]
        if share and len(missing):
            print('Warning: %s.txt has no picture of %s' % (name, ', '.join(missing)))


if __name__ == '__main__':
    main()
