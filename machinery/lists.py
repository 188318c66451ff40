"""Lists of pictures and of classes: find and read them."""
import glob
import os
import re
from array import array
from collections import namedtuple

import numpy as np

from machinery.columns import LABEL_WORDS, is_integer
from machinery.errors import InputError, input_errors
from machinery.files import read_text
from machinery.find import find_photos, is_list
from machinery.label_text import (NONE, SEPARATOR, int_of, is_ambiguous,
                                  split_classes)
from machinery.lookup import Lookup
from machinery.tables import Table
from machinery.text import plain_name, some_of

GIVEN = 'the given paths'  # shown in messages instead of a list's name
# names: class names, sorted; largest: the largest class number, -1 without numbers
Labels = namedtuple('Labels', 'names largest')


def lookup_of(list_path, pictures_path):
    """Return a Lookup for the pictures of a list; pictures_path as in read_list."""
    return Lookup(os.path.dirname(list_path) if pictures_path is None else
                  pictures_path)


def read_list(list_path, kind, check_files=True, pictures_path=None):
    """Return the paths, labels and int32 line numbers (from 1) of a list file.

    Table explains the lines, Lookup the paths. kind.array makes the array of labels.

    Args:
        list_path: the text file, or a pair of lists (paths, labels).
        kind: the kind of labels, from machinery.labels.
        check_files: whether a missing picture is a fault.
        pictures_path: the folder of relative paths; None: the list's folder, or the
            current folder for a pair.

    Raises:
        InputError: the list has faults; up to 20 are shown with their line numbers.
    """
    if isinstance(list_path, (tuple, list)):
        name, lookup = GIVEN, Lookup(pictures_path or '')
        samples = pair_up(list_path, kind)
    else:
        name, lookup = list_path, lookup_of(list_path, pictures_path)
        table = Table(list_path, lookup.find, labels=kind.name)
        if not table.is_labelled:
            raise InputError('%s: no column has labels' % list_path)
        samples = list(table.samples())
        if kind.name == 'numbers' and table.names:
            samples = order_numbers(list_path, samples, table.names, kind.names)
    texts = {text for _, _, text, fault in samples if not fault}
    label_of = kind.read(texts)
    paths, labels, line_numbers = [], [], array('i')
    earlier, faults = {}, []  # a fault: (line number, message, missing path)
    for line_number, path, text, fault in samples:
        if fault:
            faults.append((line_number, fault, None))
            continue
        label, found = label_of[text], lookup.find(path)
        paths.append(found or lookup.join(path))
        labels.append(label)
        line_numbers.append(line_number)
        before = earlier.setdefault(os.path.normpath(paths[-1]), text)
        if isinstance(label, str):
            faults.append((line_number, label, None))
        elif label_of[before] != label and not isinstance(label_of[before], str):
            faults.append((line_number, 'label %s, but label %s in an earlier line: %s'
                           % (show_text(text), show_text(before), paths[-1]), None))
        if check_files and not found:
            faults.append((line_number, None, path))
    if faults or not paths:
        # Explaining a missing path is slow, so explain only the faults we show.
        told = some_of(faults, lambda fault: 'line %d: %s' % (
            fault[0], fault[1] or lookup.explain(fault[2])))
        raise InputError('\n  '.join([name + ':'] + (told or ['no samples in it'])
                                     + kind.hint(texts)))
    return paths, kind.array(labels), np.array(line_numbers, np.int32)


def order_numbers(list_path, samples, columns, names):
    """Return a Table's samples with their numbers in the order of names.

    columns: the names in its header. Raises an InputError if a name is missing there.
    """
    general = ['number', 'number 1', *LABEL_WORDS]  # names without a meaning
    if columns == names or {columns[0].lower(), names[0].lower()} & set(general):
        return samples
    missing = [name for name in names if name not in columns]
    if missing:
        raise InputError('%s: no column is called %s, as in training; there are %s'
                         % (list_path, missing[0], ', '.join(columns)))
    places = [columns.index(name) for name in names]
    return [(line_number, path, text and tuple(text[place] for place in places), fault)
            for line_number, path, text, fault in samples]


def pair_up(pair, kind):
    """Return samples like a Table's from a pair (paths, labels)."""
    if len(pair) != 2 or any(part is None for part in pair) or (
            len(pair[0]) != len(pair[1])):
        raise InputError('expected a list file, or (paths, labels) of the same length')
    paths, labels = pair[0], list(map(as_text, from_array(pair[1], kind)))
    return [(number, os.fspath(path), label,
             'expected one class, found %.100r' % (label,)
             if kind.name == 'class' and isinstance(label, tuple) else None)
            for number, (path, label) in enumerate(zip(paths, labels), 1)]


def from_array(labels, kind):
    """Return labels; turn an array (n, width) of 0 and 1 into lists of class numbers.

    Raises an InputError if the array has another width or other numbers.
    """
    shape = labels.shape if isinstance(labels, np.ndarray) else ()
    if len(shape) < 2 or kind.name == 'numbers' or labels.dtype.kind not in 'biuf':
        return labels
    if kind.name == 'class' and shape[1:] == (1,):
        return labels[:, 0]
    if shape[1:] != (kind.width,) or not np.isin(labels, [0, 1]).all():
        raise InputError('labels, an array of shape %s, must have a 0 or 1 for each of '
                         '%d classes' % (shape, kind.width))
    chosen = [np.flatnonzero(row).tolist() for row in labels]
    return [row[0] if kind.name == 'class' and len(row) == 1 else row for row in chosen]


def as_text(label):
    """Return a label like a Table's: text, or a tuple of text."""
    if isinstance(label, (tuple, list, np.ndarray)):
        return tuple(plain_name(str(part)) for part in label)
    return plain_name(str(label))


def show_text(label):
    """Return a label from as_text or a Table as a single text for messages."""
    return label if isinstance(label, str) else ', '.join(label) or NONE


def labels_in(list_path, pictures_path, labels='class'):
    """Return the Labels of a list, without its faults, which read_list reports.

    Raises an InputError if a cell may name a single class or several.
    """
    table = Table(list_path, lookup_of(list_path, pictures_path).find, labels=labels)
    texts = {text for _, _, text, _ in table.samples()} - {None}
    if labels == 'classes':
        if texts and all(isinstance(text, str) for text in texts):
            check_several(list_path, texts)
        texts = {word for text in texts for word in split_classes(text, [])}
    texts.update(table.names)
    numbers = {text for text in texts if is_integer(text)}
    return Labels(sorted(texts - numbers), max(map(int_of, numbers), default=-1))


def check_several(list_path, texts):
    """Raise an InputError if cells with spaces may name a single class or several.

    If no cell has a separator, only a file of names can tell "polar bear", one class,
    from "haze river", two. Python's printed lists, which pandas writes, also fail.
    """
    printed = sorted(filter(re.compile(r"\[('.*'|\".*\")?\]").fullmatch, texts))
    if printed:
        raise InputError("%s: the label %.100r is a list of Python's: write cat, dog, "
                         'or - for none' % (list_path, printed[0]))
    doubtful = sorted(filter(is_ambiguous, texts))
    if doubtful and not any(SEPARATOR.search(text) for text in texts):
        raise InputError(
            '%s: the label %r may be one class or several: put commas between classes, '
            'or give a classes_file' % (list_path, doubtful[0]))


def share_of(list_path, count, shard, is_even):
    """Return the numbers of the samples in a worker's share of a list.

    For shard = (rank, size), these are rank, rank + size, ... With is_even, all shares
    have the same length: a short share borrows a sample. Raises an InputError if a
    share would be empty.
    """
    rank, size = shard
    if not count:
        raise InputError('%s: no picture is left' % list_path)
    if count < size:
        raise InputError('%s: %d pictures are too few for %d workers'
                         % (list_path, count, size))
    end = -(-count // size) * size if is_even else count
    return np.arange(rank, end, size, dtype=np.int32) % count


@input_errors()
def read_class_names(path, num_classes=None):
    """Read a file with one class name per line; without a path, names are numbers."""
    if path is None:
        return [str(label) for label in range(num_classes)]
    lines = read_text(path).rstrip().split('\n')
    line_of = {}
    for line_number, name in enumerate(map(plain_name, lines), 1):
        if not name:
            raise InputError('%s, line %d: no name' % (path, line_number))
        if line_of.setdefault(name, line_number) != line_number:
            raise InputError('%s, line %d: %s is already in line %d'
                             % (path, line_number, name, line_of[name]))
    if num_classes and len(line_of) != num_classes:
        raise InputError('%s: expected names of num_classes = %d classes, found %d'
                         % (path, num_classes, len(line_of)))
    return list(line_of)


@input_errors()
def find_pictures(source, pictures_path=None, labels='class'):
    """Return the paths in source: a picture, folder, pattern or list without labels."""
    if os.path.isdir(source):
        paths = find_photos(source)
    elif is_list(source):
        lookup = lookup_of(source, pictures_path)
        table = Table(source, lookup.find, None, labels)
        samples = list(table.samples())
        faults = ['line %d: %s' % (line_number, fault)
                  for line_number, _, _, fault in samples if fault]
        if faults:
            raise InputError('\n  '.join([source + ':'] + some_of(faults)))
        paths = [lookup.find(path) or lookup.join(path) for _, path, _, _ in samples]
    else:
        paths = [source] if os.path.isfile(source) else sorted(
            glob.glob(source, recursive=True))
    if not paths:
        raise InputError('%s: does not exist, or no pictures there' % source)
    return paths


def has_labels(path, pictures_path=None, labels='class'):
    """Tell whether path is a list whose lines have labels."""
    if not is_list(path):
        return False
    find = lookup_of(path, pictures_path).find
    return Table(path, find, None, labels).is_labelled
