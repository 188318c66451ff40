"""Check pictures before a run: find unreadable, nearly black and duplicate pictures."""
import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import PIL
from tqdm import tqdm

from machinery.batches import has_files, has_list
from machinery.cores import count_cores
from machinery.errors import InputError, open_plain
from machinery.files import write_whole
from machinery.pictures import examine_all, number_from
from machinery.text import number_of, some_of

DARK, BAD = 1, 2


def read_memory(path):
    """Read {state: content} of the good pictures; {} without a valid file."""
    with contextlib.suppress(OSError, ValueError, EOFError), open_plain(path) as file:
        rows = np.load(file, allow_pickle=False)
        if rows.dtype == np.int64 and rows.ndim == 2 and rows.shape[1] == 2:
            return dict(rows.tolist())
    return {}


def write_memory(path, known):
    """Write {state: content}. If that fails, the next run checks all pictures again."""
    with contextlib.suppress(OSError), write_whole(path) as file:
        np.save(file, np.array(list(known.items()), np.int64))


def state_of(path):
    """Return a number that changes with the file or its decoder; 0 without a file."""
    with contextlib.suppress(OSError):
        file = os.stat(path)
        return number_from(repr([path, file.st_size, file.st_mtime_ns,
                                 cv2.__version__, PIL.__version__]).encode())
    return 0


def find_bad_pictures(data, workers):
    """Decode the pictures of a generator; each worker decodes its share.

    A hidden file beside the list remembers the good pictures. They are decoded again
    only after their path, size, modification time or a decoder has changed.

    Returns:
        Verdicts, an int array: BAD (cannot be decoded), DARK (16 bits, but nothing in
        the brightest 3/4) or 0 for each sample. Contents, an int array: equal for equal
        files. And {sample: message} for the bad pictures of this share.
    """
    folder, name = os.path.split(data.class_list)
    memory = os.path.join(folder, '.%s.checked' % name) if has_list(data) else None
    known, faults = read_memory(memory) if memory else {}, {}
    found = np.zeros((3, len(data.paths)), np.int64)
    verdicts, contents, states = found
    for sample in data.samples:
        states[sample] = state_of(data.paths[sample])
        contents[sample] = known.get(states[sample], 0)
    samples = [sample for sample in data.samples.tolist() if not contents[sample]]
    with ThreadPoolExecutor(count_cores()) as pool, tqdm(
            total=len(samples), unit=' pictures',
            desc='Checking ' + name,
            disable=None if workers.is_chief and samples else True) as bar:
        for start in range(0, len(samples), 1000):  # limits the memory in use
            chunk = samples[start:start + 1000]
            results = examine_all([data.paths[sample] for sample in chunk], pool)
            for sample, (fault, dark, content) in zip(chunk, results):
                verdicts[sample] = BAD if fault else DARK if dark else 0
                contents[sample] = content
                if fault:
                    faults[sample] = fault
            bar.update(len(chunk))
    verdicts, contents, states = workers.collect(found, np.int64).max(0)
    # Bad pictures are checked again: somebody may have repaired them.
    fresh = {state: content for verdict, content, state in zip(
        verdicts.tolist(), contents.tolist(), states.tolist()) if state and not verdict}
    if memory and not fresh.keys() <= known.keys():
        # Folds share a list, so keep the entries of its other pictures.
        old = known if len(known) < 20 * len(verdicts) else {}
        write_memory(memory, {**old, **fresh})
    return verdicts, contents, faults


def check_augment(data):
    """Raise an InputError if augment uses random numbers from outside its rng."""
    for sample in data.samples[:3] if data.augment else []:
        try:
            first, second = data.load(sample), data.load(sample)
        except InputError:  # a bad picture, reported later
            continue
        if (first != second).any():
            raise InputError(
                'augment gives a different result each time for %s: draw all random '
                'numbers from its rng, or a resumed run will not repeat them'
                % data.paths[sample])


def check_pictures(generators, on_bad_image, workers):
    """Decode every picture of these generators; refuse or drop ('skip') bad pictures.

    Prints which pictures it dropped, and warnings about the lists. Skips generators
    that are None, and does not check your own batches.

    Raises:
        InputError: names all bad pictures, unless they are dropped; or the workers'
            lists differ, or several workers use your own batches.
    """
    generators = [data for data in generators if data]
    if not all(map(has_files, generators)):
        print('With your own batches there is no picture check, no stored features, '
              'no worst mistakes and no projector.')
        if workers.size > 1:
            raise InputError('Your own batches work on one machine only')
        generators = [data for data in generators if has_files(data)]
    workers.check_equal({
        'the list of labels': [data.labels.tolist() for data in generators],
        'the list of picture names': [
            [os.path.basename(path) for path in data.paths] for data in generators]})
    faults, warnings, contents_of = [], [], []
    for data in generators:
        check_augment(data)
        verdicts, contents, fault_of = find_bad_pictures(data, workers)
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
            contents = np.delete(contents, bad)
        contents_of.append(contents)
    if faults:
        report = '\n  '.join(['Cannot read %s:' % number_of(faults)] + some_of(faults))
        if on_bad_image == 'stop':
            raise InputError(
                report + "\nRemove these lines, or choose on_bad_image = 'skip'")
        print(report + '\nContinuing without them.')
    for warning in warnings + list_warnings(generators, contents_of):
        print('Warning: ' + warning)


def list_warnings(generators, contents_of):
    """Return a list of warnings about equal pictures and missing classes.

    contents_of: for each generator, the contents that find_bad_pictures returned.
    """
    warnings, files = [], list(zip(generators, contents_of))
    for (other, there), (data, here) in itertools.combinations(files, 2):
        shared = np.flatnonzero(np.isin(here, there[there > 0]))
        if len(shared):
            twin = np.flatnonzero(there == here[shared[0]])[0]
            warnings.append(
                '%s also in %s (equal content), so its accuracy is too optimistic; the '
                'first is %s' % (subject(shared, data), other.class_list,
                                 name_both(data, shared[0], other, twin)))
    for data, contents in files:
        first_of, pairs = {}, []
        for sample, content in enumerate(contents.tolist()):
            first = first_of.setdefault(content, sample) if content else sample
            if first != sample and np.any(data.labels[first] != data.labels[sample]):
                pairs.append((sample, first))
        if pairs:
            sample, first = pairs[0]
            warnings.append(
                '%s also listed with another label (equal content); the first is %s'
                % (subject(pairs, data), name_both(data, sample, data, first)))
        counts = data.kind.count(data.labels)  # None for numbers
        empty = [] if counts is None else np.flatnonzero(counts == 0)
        if len(empty):
            warnings.append('%s has no sample of class%s %s%s' % (
                data.class_list, 'es' if len(empty) > 1 else '',
                ', '.join(data.kind.names[label] for label in empty[:20]),
                ' (labels count from 0)' if empty[0] == 0 else ''))
    return warnings


def subject(pictures, data):
    """Return '3 pictures of LIST are', for example."""
    return '%s of %s %s' % (number_of(pictures), data.class_list,
                            'are' if len(pictures) > 1 else 'is')


def name_both(data, sample, other, twin):
    """Return text with the path and line of a picture and of its twin."""
    return '%s (line %d), equal to %s (%s, line %d)' % (
        data.paths[sample], data.line_numbers[sample], other.paths[twin],
        other.class_list, other.line_numbers[twin])
