"""Lists of pictures and of classes: find and read them."""
import difflib
import glob
import os
from array import array
from collections import namedtuple

import numpy as np

from machinery.errors import InputError, input_errors
from machinery.files import read_text
from machinery.find import find_files, is_list
from machinery.lookup import Lookup
from machinery.tables import Table, is_integer
from machinery.text import plain_name, some_of

GIVEN = 'the given paths'  # in place of the name of a list
# names: sorted, of classes; largest: of the numbers that stand in their place, or -1
Labels = namedtuple('Labels', 'names largest')


def lookup_of(list_path, pictures_path):
    """Return a Lookup for the pictures of a list; pictures_path as in read_list."""
    return Lookup(os.path.dirname(list_path) if pictures_path is None else
                  pictures_path)


def read_list(list_path, num_classes, check_files=True, class_names=None,
              pictures_path=None):
    """Return the paths, int32 labels and int32 line numbers (from 1) of a list file.

    A line has a path and a label: see Table, and Lookup for what a path may lack.

    Args:
        list_path: the text file; or a pair of lists, (paths, labels).
        num_classes: labels are integers in 0..num_classes - 1.
        check_files: a missing picture is a fault.
        class_names: a list may have these in place of numbers.
        pictures_path: where relative paths start; None: the list's folder, and for a
            pair the current one.

    Raises:
        InputError: the list has faults; names up to 20 of them with their lines.
    """
    if isinstance(list_path, (tuple, list)):
        name, lookup = GIVEN, Lookup(pictures_path or '')
        samples = pair_up(list_path)
    else:
        name, lookup = list_path, lookup_of(list_path, pictures_path)
        table = Table(list_path, lookup.find)
        if not table.is_labelled:
            raise InputError('%s: no column has labels' % list_path)
        samples = list(table.samples())
    label_of = find_labels({text for _, _, text, _ in samples}, class_names)
    paths, labels, line_numbers = [], array('q'), array('i')
    earlier, faults = {}, []  # a fault has a line number, a message, and a missing path
    for line_number, path, text, fault in samples:
        label = label_of.get(text)
        if fault or isinstance(label, str):
            faults.append((line_number, fault or label, None))
            continue
        found = lookup.find(path)
        paths.append(found or lookup.join(path))
        labels.append(label)
        line_numbers.append(line_number)
        same_path = os.path.normpath(paths[-1])
        if not 0 <= label < num_classes:
            faults.append((line_number, 'label %d is not in 0..%d'
                           % (label, num_classes - 1), None))
        elif earlier.setdefault(same_path, label) != label:
            faults.append((line_number, 'label %d, but label %d in an earlier line: %s'
                           % (label, earlier[same_path], paths[-1]), None))
        if check_files and not found:
            faults.append((line_number, None, path))
    if faults or not paths:
        # To explain what is missing takes a while, so only what is shown is explained.
        told = some_of(faults, lambda fault: 'line %d: %s' % (
            fault[0], fault[1] or lookup.explain(fault[2])))
        raise InputError('\n  '.join([name + ':'] + (told or ['no samples in it'])
                                     + hint_at_range(labels, num_classes)))
    return paths, np.array(labels, np.int32), np.array(line_numbers, np.int32)


def pair_up(pair):
    """Return samples, like those of a Table, from a pair (paths, labels)."""
    if len(pair) != 2 or any(part is None for part in pair) or (
            len(pair[0]) != len(pair[1])):
        raise InputError('expected a list file, or (paths, labels) of the same length')
    return [(number, os.fspath(path), plain_name(str(label)), None)
            for number, (path, label) in enumerate(zip(*pair), 1)]


def hint_at_range(labels, num_classes):
    """Return a line about the range of the labels, if some are outside, else none."""
    low, high = min(labels, default=0), max(labels, default=0)
    if 0 <= low and high < num_classes:
        return []
    return ['the labels run %d..%d, but labels start at 0 and num_classes is %d'
            % (low, high, num_classes)]


def find_labels(texts, class_names):
    """Return {text: its label, or why it has none, as text} for the labels of a list.

    They are class names if one of them is, or if none is an integer; otherwise they
    are numbers.
    """
    known = {name: label for label, name in enumerate(class_names or [])}
    texts = texts - {None}
    words = {text for text in texts if not is_integer(text)}
    if not words & set(known) and (words != texts or all(map(is_integer, known))):
        return {text: 'label %.100r is not an integer' % text if text in words else
                int_of(text) for text in texts}
    label_of = {text: known.get(text) for text in texts}
    for text in texts - set(known):
        near = difflib.get_close_matches(text, known, 1, 0.4)
        label_of[text] = 'no class is called %.100r; the %s' % (
            text, 'nearest is %r' % near[0] if near else
            'classes are %.200s' % ', '.join(known))
    return label_of


def int_of(text):
    """Return the integer that text is; 1.0 is one."""
    return int(text.split('.')[0])


def labels_in(list_path, pictures_path):
    """Return the Labels in a list; faults are left out, since read_list names them."""
    table = Table(list_path, lookup_of(list_path, pictures_path).find)
    texts = {text for _, _, text, _ in table.samples()}.union(table.class_names)
    texts.discard(None)
    numbers = {text for text in texts if is_integer(text)}
    return Labels(sorted(texts - numbers), max(map(int_of, numbers), default=-1))


def share_of(list_path, count, shard, is_even):
    """Return the numbers of the samples in a worker's share of a list.

    shard is (rank, size): rank, rank + size, ... If is_even, all shares have the same
    length: a short one borrows a sample. Raises an InputError if one would be empty.
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
def find_pictures(source, pictures_path=None):
    """Return the paths of a picture, a folder, a pattern, or a list of paths alone."""
    if os.path.isdir(source):
        paths, _ = find_files(source)
    elif is_list(source):
        lookup = lookup_of(source, pictures_path)
        table = Table(source, lookup.find, is_labelled=None)
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


def has_labels(path, pictures_path=None):
    """Tell whether this is a list with labels, rather than one of pictures alone."""
    if not is_list(path):
        return False
    find = lookup_of(path, pictures_path).find
    return Table(path, find, is_labelled=None).is_labelled
