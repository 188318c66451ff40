"""Decode picture files, and find unreadable ones before training starts."""
import contextlib
import hashlib
import io
import json
import math
import os
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import cv2
import imagesize
import numpy as np
from tqdm import tqdm

from machinery.batches import has_files
from machinery.cores import count_cores
from machinery.errors import InputError, input_errors, open_plain, stderr_to
from machinery.lists import list_warnings
from machinery.text import number_of

SLOW = 30  # seconds for a picture
DARK, BAD = 1, 2
MAX_PIXELS = 10 ** 8  # few cameras have more, and more could fill the memory
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4,
           2: cv2.IMREAD_REDUCED_COLOR_2}


@input_errors()
def read_file(path):
    """Return the bytes of a picture file (a uint8 array), and its shorter side.

    The side is 0 if the header cannot be read. Raises an InputError if the file is
    empty or the picture is too large.
    """
    with open_plain(path) as file:
        data = file.read()
    if not data:
        raise InputError('%s: empty file' % path)
    # From the header, since decoding takes the memory even if the rest is damaged.
    width = height = 0
    with contextlib.suppress(Exception):  # any damage; OpenCV will say what is wrong
        width, height = imagesize.get(io.BytesIO(data))
    if width * height > MAX_PIXELS:
        raise InputError('%s: %d x %d pixels are more than %d million'
                         % (path, width, height, MAX_PIXELS // 10 ** 6))
    return np.frombuffer(data, np.uint8), min(width, height)


def is_jpeg(data):
    """Tell if the bytes of a file are those of a JPEG."""
    return data[:2].tobytes() == b'\xff\xd8'


def sides_to_reduce(size, reducing_gap):
    """Return {scale: shorter side from which a JPEG is decoded at 1 / scale}.

    The shorter side is compared with the longer one of the size, because some versions
    of imagesize apply the EXIF orientation and others do not.
    """
    return {scale: math.ceil(scale * reducing_gap * max(size)) for scale in REDUCED
            if reducing_gap}


def decode(data, flags, path):
    """Decode the bytes of a picture with these flags of OpenCV."""
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise InputError('%s: OpenCV cannot decode it: %s' % (path, error))
    if image is None:
        raise InputError('%s: not a picture, or damaged, or of a kind that OpenCV '
                         'cannot decode' % path)
    return image


def decode_image(path, size=None, reducing_gap=None):
    """Decode a picture to uint8 BGR, transparency to white; raise as load_image.

    With a reducing_gap, a JPEG may be smaller than in the file: see load_image.
    """
    data, side = read_file(path)
    for scale, least in sides_to_reduce(size, reducing_gap).items():
        if side >= least and is_jpeg(data):
            return decode(data, REDUCED[scale], path)
    return decode_bytes(data, path)


def decode_bytes(data, path):
    """Decode the bytes of a picture as decode_image does; path is for messages."""
    image = decode(data, cv2.IMREAD_COLOR, path)
    if not may_be_transparent(data.tobytes()):
        return image
    whole = decode(data, cv2.IMREAD_UNCHANGED, path)
    if whole.shape == image.shape[:2] + (4,) and whole.dtype.kind == 'u':
        limit = np.float32(np.iinfo(whole.dtype).max)
        for row, pixels in zip(image, whole):  # all at once would take 2 GB
            alpha = pixels[:, 3:] / limit
            row[:] = row * alpha + 255 * (1 - alpha) + 0.5
    return image


def may_be_transparent(data):
    """Tell from the file's header if it is worth decoding again to look for alpha."""
    if data.startswith(b'\x89PNG'):
        header = data.partition(b'IDAT')[0]
        # OpenCV turns an image by its EXIF orientation, but not its alpha channel.
        return b'eXIf' not in data and (header[25] in (4, 6) or b'tRNS' in header)
    return (data[8:12] == b'WEBP' and data[12:16] != b'VP8 ' or
            data[4:12] == b'ftypavif' or data[:4] in (b'GIF8', b'II*\0', b'MM\0*'))


def examine(path):
    """Return (why a picture cannot be decoded or None, whether it is nearly black)."""
    try:
        data, _ = read_file(path)
        if is_jpeg(data):  # all of it is read, and an eighth of its size is faster
            decode(data, REDUCED[8], path)
            return None, False
        # Decode it as training does, or training might fail at it. If it is dark in
        # 8 bits, look again: it may have 10 bits that are stored as 16.
        if decode_bytes(data, path).max() > 64:
            return None, False
        deep = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, path)
        return None, deep.dtype == np.uint16 and deep.max() < 2 ** 14
    except InputError as error:
        return str(error), False


def examine_all(paths, pool):
    """Return what examine gives for each path; damage inside a JPEG is a fault."""
    # libjpeg reports such damage only on standard error, and without a file name.
    with tempfile.TemporaryFile() as file:
        with stderr_to(file.fileno()):
            results = list(pool.map(examine, paths))
        file.seek(0)
        complaints = [line for line in file if b'JPEG' in line]
    if complaints and len(paths) > 1:  # look again, one by one, to see whose they are
        return [examine_all([path], pool)[0] for path in paths]
    if complaints and not results[0][0]:
        complaint = complaints[0].decode(errors='replace').strip()
        return [('%s: %s' % (paths[0], complaint), False)]
    return results


def result_of(future, path):
    """Return the result or InputError of a future; name a file that takes too long."""
    try:
        error = future.exception(SLOW)
    except TimeoutError:
        tqdm.write('Waiting for %s: nothing for %s s' % (path, SLOW), file=sys.stderr)
        error = future.exception()
    return error if isinstance(error, InputError) else future.result()


def load_ahead(load, items, batch_size, path_of=str):
    """Yield (items, results) of each batch, and load the next one meanwhile.

    load(item) runs in threads; its result may be the InputError that it raised.
    path_of(item) is the path of its file.
    """
    batches = [items[start:start + batch_size]
               for start in range(0, len(items), batch_size)]
    with ThreadPoolExecutor(count_cores()) as pool:
        ahead = [pool.submit(load, item) for item in items[:batch_size]]
        try:
            for batch, following in zip(batches, batches[1:] + [[]]):
                loading, ahead = ahead, [pool.submit(load, item) for item in following]
                yield batch, [result_of(future, path_of(item))
                              for future, item in zip(loading, batch)]
        finally:
            for future in ahead:
                future.cancel()


def find_bad_pictures(data, workers):
    """Decode the pictures of a generator; each worker decodes its share.

    A hidden file beside the list remembers which ones are good, until a path, size or
    modification time changes.

    Returns:
        int array of all samples: BAD: cannot be decoded; DARK: has 16 bits, but nothing
        in the brightest 3/4; or 0. And {sample: message} of the bad ones of this share.
    """
    folder, name = os.path.split(data.class_list)
    memory = os.path.join(folder, '.%s.checked' % name)
    samples, state = data.samples.tolist(), hashlib.sha1()
    for path in [data.paths[sample] for sample in samples]:
        file = os.stat(path) if os.path.exists(path) else None
        state.update(repr([path, file and (file.st_size, file.st_mtime_ns)]).encode())
    states = workers.collect(list(state.digest()), np.int32)
    state = states.astype(np.uint8).tobytes().hex()
    remembered = None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with open(memory) as file:
            remembered = json.load(file)
        if remembered['state'] == state:
            # Look at bad ones again: their permissions, say, may have been mended.
            samples = sorted(set(samples) & set(remembered['again']))

    verdicts, faults = np.zeros(len(data.paths), np.int32), {}
    with ThreadPoolExecutor(count_cores()) as pool, tqdm(
            total=len(samples), unit=' pictures', desc='Checking ' + name,
            disable=None if workers.is_chief and samples else True) as bar:
        for start in range(0, len(samples), 1000):  # a million would fill the memory
            chunk = samples[start:start + 1000]
            results = examine_all([data.paths[sample] for sample in chunk], pool)
            for sample, (fault, is_dark) in zip(chunk, results):
                if fault:
                    verdicts[sample], faults[sample] = BAD, fault
                elif is_dark:
                    verdicts[sample] = DARK
            bar.update(len(chunk))
    verdicts = workers.collect(verdicts, np.int32).max(0)
    again = np.flatnonzero(verdicts).tolist()
    if remembered == {'state': state, 'again': again}:
        return verdicts, faults
    with contextlib.suppress(OSError):  # without it, the next run decodes them all
        part = '%s.%s.%d' % (memory, socket.gethostname(), os.getpid())
        with open(part, 'w') as file:
            json.dump({'state': state, 'again': again}, file)
        os.replace(part, memory)  # so that nobody reads one that is half written
    return verdicts, faults


def apply_augment(augment, image, rng):
    """Return augment(image, rng) as uint8, rounded and clipped, or raise ValueError."""
    changed = np.asarray(augment(np.float32(image), rng))
    if changed.shape != image.shape or not np.isfinite(changed).all():
        raise ValueError('augment must return finite numbers of shape %s'
                         % (image.shape,))
    return np.uint8(np.clip(np.round(changed), 0, 255))


def check_augment(data):
    """Raise an InputError if augment draws from elsewhere than its rng."""
    for sample in data.samples[:3] if data.augment else []:
        try:
            first, second = data.load(sample), data.load(sample)
        except InputError:  # a bad picture, which will be reported
            continue
        if (first != second).any():
            raise InputError(
                'augment gives another result each time for %s: draw all random '
                'numbers from its rng, or a resumed run will not repeat them'
                % data.paths[sample])


def check_pictures(generators, on_bad_image, workers):
    """Decode every picture of these generators; refuse or drop ('skip') the bad ones.

    Prints which it dropped, and warnings about the lists. Ignores None among the
    generators, and does not check batches of your own.

    Raises:
        InputError: names all bad pictures, unless they are dropped; or several workers
            have different lists or batches of your own.
    """
    generators = [data for data in generators if data]
    if not all(map(has_files, generators)):
        print('With your own batches there is no picture check, no stored features, '
              'no worst mistakes and no projector.')
        if workers.size > 1:
            raise InputError('Batches of your own are for one machine')
        generators = [data for data in generators if has_files(data)]
    workers.check_equal({
        'the list of labels': [data.labels.tolist() for data in generators],
        'the list of picture names': [
            [os.path.basename(path) for path in data.paths] for data in generators]})
    faults, warnings = [], []
    for data in generators:
        check_augment(data)
        verdicts, fault_of = find_bad_pictures(data, workers)
        dark, bad = [np.flatnonzero(verdicts == verdict) for verdict in (DARK, BAD)]
        if len(dark):
            warnings.append(
                '%s of %s will be nearly black: only the darkest quarter of '
                '16 bits is in use. If they have 10 or 12 bits, scale them up. The '
                'first is %s' % (number_of(dark), data.class_list, data.paths[dark[0]]))
        for sample in bad:
            path, number = data.paths[sample], data.line_numbers[sample]
            fault = fault_of.get(sample, path + ': bad, as another worker found')
            faults.append('%s, line %d: %s' % (data.class_list, number, fault))
        if len(bad) and on_bad_image == 'skip':
            data.drop(bad)
    if faults:
        report = 'Cannot read %s:\n  %s' % (number_of(faults), '\n  '.join(faults))
        if on_bad_image == 'stop':
            raise InputError(
                report + "\nRemove these lines, or choose on_bad_image = 'skip'")
        print(report + '\nContinuing without them.')
    for warning in warnings + list_warnings(generators):
        print('Warning: ' + warning)
