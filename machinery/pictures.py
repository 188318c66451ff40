"""Decode picture files, and find unreadable ones before training starts."""
import contextlib
import hashlib
import json
import os
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import cv2
import numpy as np
from tqdm import tqdm

from machinery import PIXEL_LIMIT
from machinery.batches import has_files
from machinery.lists import list_warnings
from machinery.settings import InputError, input_errors, open_plain

JPEG_MARK = b'\xff\xd8'
SLOW = 30  # seconds for a picture
DARK, BAD = 1, 2
cv2.utils.logging.setLogLevel(0)  # its messages name no file; ours do


@input_errors()
def read_file(path):
    """Return the bytes of a file, or raise an InputError that names it."""
    with open_plain(path) as file:
        data = np.frombuffer(file.read(), np.uint8)
    if not data.size:
        raise InputError('%s: empty file' % path)
    return data


def decode(data, flags, path):
    """Return a picture's bytes as OpenCV decodes them with these flags."""
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise InputError('%s: OpenCV cannot decode it: %s' % (path, error))
    if image is None:
        raise InputError('%s: not a picture, or damaged, or of a kind that OpenCV '
                         'cannot decode' % path)
    return image


def decode_image(path):
    """Return a picture as uint8 BGR, transparent parts on white; raise as load_image.

    (One with an EXIF orientation, which OpenCV does not obey in its alpha channel,
    counts as opaque.)
    """
    data = read_file(path)
    image = decode(data, cv2.IMREAD_COLOR, path)
    if may_be_transparent(data.tobytes()):
        whole = decode(data, cv2.IMREAD_UNCHANGED, path)
        if whole.shape == image.shape[:2] + (4,) and whole.dtype.kind == 'u':
            limit = np.iinfo(whole.dtype).max
            for row in range(0, len(image), 256):  # all at once, it would take 2 GB
                alpha = whole[row:row + 256, :, 3:] / np.float32(limit)
                image[row:row + 256] = (image[row:row + 256] * alpha +
                                        255 * (1 - alpha) + 0.5)
    return image


def may_be_transparent(data):
    """Tell from a file's first bytes whether it is worth while to look for alpha."""
    if data.startswith(b'\x89PNG'):
        header = data.partition(b'IDAT')[0]
        return b'eXIf' not in data and (header[25] in (4, 6) or b'tRNS' in header)
    return (data[8:12] == b'WEBP' and data[12:16] != b'VP8 ' or
            data[4:12] == b'ftypavif' or data[:4] in (b'GIF8', b'II*\0', b'MM\0*'))


def examine(path):
    """Return why a picture cannot be decoded, or None, and whether it is nearly black.

    A JPEG is decoded at an eighth of its size, which is faster.
    """
    try:
        data = read_file(path)
        if data[:2].tobytes() == JPEG_MARK:
            height, width, _ = decode(data, cv2.IMREAD_REDUCED_COLOR_8, path).shape
            if 70 * height * width < PIXEL_LIMIT:  # OpenCV has only looked at these
                return None, False
        image = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, path)
        return None, image.dtype == np.uint16 and image.max() < 2 ** 14
    except InputError as error:
        return str(error), False


@contextlib.contextmanager
def messages(found):
    """Append to a list what libraries write to standard error meanwhile."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        found += file.read().decode(errors='replace').splitlines()


def result_of(future, path):
    """Return the result of a future, or the InputError that it raised.

    Names the file if it takes longer than 30 s.
    """
    try:
        future.exception(SLOW)
    except TimeoutError:
        tqdm.write('Waiting for %s: nothing for %s s' % (path, SLOW), file=sys.stderr)
    try:
        return future.result()
    except InputError as error:
        return error


def load_ahead(load, items, batch_size, path_of=str):
    """Yield (items, results) of each batch, and load the next one meanwhile.

    Args:
        load: function of an item; runs in threads, until the generator is closed.
        path_of: function from an item to the path of its file.

    Yields:
        some of the items; for each of them what load returned, or the InputError that
        it raised.
    """
    pool, ahead = ThreadPoolExecutor(os.cpu_count()), []
    try:
        for first in range(-batch_size, len(items), batch_size):
            batch, loading = items[max(0, first):first + batch_size], ahead
            following = items[first + batch_size:first + 2 * batch_size]
            ahead = [pool.submit(load, item) for item in following]
            if len(batch):
                yield batch, [result_of(future, path_of(item))
                              for future, item in zip(loading, batch)]
    finally:
        for future in ahead:
            future.cancel()
        pool.shutdown()


def examine_all(paths, pool):
    """Return what examine gives for each path; damage inside a JPEG is a fault, too.

    libjpeg reports such damage only on standard error, and without a file name.
    """
    complaints = []
    with messages(complaints):
        futures = [pool.submit(examine, path) for path in paths]
        results = [result_of(*pair) for pair in zip(futures, paths)]
    if not any('JPEG' in line for line in complaints):
        return results
    for position, (path, (fault, is_dark)) in enumerate(zip(paths, results)):
        complaints = []
        if not fault:
            with messages(complaints):
                examine(path)
        complaints = [line for line in complaints if 'JPEG' in line]
        if complaints:
            results[position] = '%s: %s' % (path, complaints[0]), is_dark
    return results


def find_bad_pictures(data, workers):
    """Decode a generator's pictures, each worker those of its share.

    Results are kept in a hidden file beside the list until a path, size or
    modification time changes; bad and dark pictures are decoded each time.

    Returns:
        int array, of all samples: BAD: cannot be decoded; DARK: of 16 bits, but with
        nothing in the brightest 3/4; or 0. And {sample: error message} of those of this
        share that are BAD.
    """
    folder, name = os.path.split(data.class_list)
    samples = data.samples.tolist()
    memory = os.path.join(folder, '.%s.checked' % name)
    state = hashlib.sha1()
    for path in [data.paths[sample] for sample in samples]:
        file = os.stat(path) if os.path.exists(path) else None
        state.update(b'%s %d %d\n' % (path.encode(), file.st_size, file.st_mtime_ns)
                     if file else b'%s gone' % path.encode())
    states = workers.collect(list(state.digest()), np.int32)
    state = bytes(states.ravel().tolist()).hex()
    remembered = read_memory(memory)
    if remembered.get('state') == state:
        # Their permissions, say, may have been mended since.
        samples = sorted(set(samples) & set(remembered['again']))

    bad, dark = {}, []
    bar = tqdm(total=len(samples), unit=' pictures', desc='Checking ' + name,
               disable=None if workers.is_chief and samples else True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(samples), 1000):  # a million would fill the memory
            part = samples[start:start + 1000]
            results = examine_all([data.paths[sample] for sample in part], pool)
            for sample, (fault, is_dark) in zip(part, results):
                if fault:
                    bad[sample] = fault
                elif is_dark:
                    dark.append(sample)
            bar.update(len(part))
    bar.close()
    verdicts = np.zeros(len(data.paths), np.int32)
    verdicts[dark], verdicts[list(bad)] = DARK, BAD
    verdicts = workers.collect(verdicts, np.int32).max(0)
    again = np.flatnonzero(verdicts).tolist()
    if remembered != {'state': state, 'again': again}:
        with contextlib.suppress(OSError):  # without it, they are decoded once more
            part = '%s.%s.%d' % (memory, socket.gethostname(), os.getpid())
            with open(part, 'w') as file:
                json.dump({'state': state, 'again': again}, file)
            os.replace(part, memory)
    return verdicts, bad


def read_memory(path):
    """Return what a .checked file holds, or {} if that is of no use."""
    try:
        with open(path) as file:
            memory = json.load(file)
        return memory if set(memory) == {'state', 'again'} else {}
    except (OSError, ValueError, TypeError):
        return {}


def check_pictures(generators, on_bad_image, workers):
    """Decode every picture of these generators; refuse or drop those that are bad.

    Prints which pictures it dropped, and warnings about the lists. Leaves out batches
    that have no files.

    Args:
        on_bad_image: 'stop' raises an error, 'skip' drops the bad pictures.

    Raises:
        InputError: workers have different lists; or there are bad pictures and
            on_bad_image is 'stop'; names them all; or workers have batches without
            files, which cannot be shared out.
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
        verdicts, fault_of = find_bad_pictures(data, workers)
        dark, bad = [np.flatnonzero(verdicts == verdict) for verdict in (DARK, BAD)]
        if len(dark):
            warnings.append(
                '%d picture%s of %s will be nearly black: of 16 bits a channel, only '
                'the darkest quarter is in use; if it is 10 or 12 bits, scale them up; '
                'the first is %s' % (len(dark), 's'[:len(dark) > 1], data.class_list,
                                     data.paths[dark[0]]))
        faults += ['%s, line %d: %s' % (
            data.class_list, data.line_numbers[sample],
            fault_of.get(sample, data.paths[sample] + ': bad, as another worker found')
            ) for sample in bad]
        if len(bad) and on_bad_image == 'skip':
            data.drop(bad)
    report = 'Cannot read %d picture%s:\n  %s' % (
        len(faults), 's' if len(faults) > 1 else '', '\n  '.join(faults))
    if faults and on_bad_image == 'stop':
        raise InputError(
            report + "\nRemove these lines, or choose on_bad_image = 'skip'")
    if faults:
        print(report + '\nGoing on without.')
    for warning in warnings + list_warnings(generators):
        print('Warning: ' + warning)
