"""Picture files: decode them, and find those that are bad before hours are spent."""
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from tqdm import tqdm

from machinery.lists import list_warnings
from machinery.settings import InputError, input_errors


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


def find_fault(path):
    """Return why a picture cannot be decoded, or None."""
    try:
        decode_image(path, cv2.IMREAD_REDUCED_COLOR_8)
    except InputError as error:
        return str(error)


def find_bad_pictures(data):
    """Decode a generator's pictures, at an eighth of the size where that is faster.

    Results are kept in a hidden file beside the list until a path, size or
    modification time changes; bad pictures are decoded each time.

    Returns:
        {sample: error message} of those that cannot be decoded.
    """
    folder, name = os.path.split(data.class_list)
    rank, size = data.shard
    samples = data.samples.tolist()
    part = '.%d-of-%d' % (rank + 1, size) if size > 1 else ''
    memory = os.path.join(folder, '.%s%s.checked' % (name, part))
    state = hashlib.sha1()
    for path in [data.paths[sample] for sample in samples]:
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
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(samples), 1000):  # a million would fill the memory
            part = samples[start:start + 1000]
            faults = pool.map(find_fault, [data.paths[sample] for sample in part])
            bad.update(pair for pair in zip(part, faults) if pair[1])
            bar.update(len(part))
    bar.close()
    if samples and os.access(folder or '.', os.W_OK):
        with open(memory + '.part', 'w') as file:
            json.dump({'state': state, 'bad': list(bad)}, file)
        os.replace(memory + '.part', memory)
    return bad


def examine_pictures(generators, on_bad_image, workers):
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
    if not all(data.paths for data in generators):
        print('Batches of your own: no check of pictures, no cache, no worst mistakes, '
              'no projector; a run resumed in mid-epoch starts that epoch anew.')
        if workers.size > 1:
            raise InputError('Batches of your own are for one machine')
        generators = [data for data in generators if data.paths]
    workers.check_equal({
        'the list of labels': [data.labels.tolist() for data in generators],
        'the list of picture names': [
            [os.path.basename(path) for path in data.paths] for data in generators]})
    faults = []
    for data in generators:
        fault_of = find_bad_pictures(data)
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
    for warning in list_warnings(generators):
        print('Warning: ' + warning)
