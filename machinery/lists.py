"""Lists of pictures and of classes: find and read them."""
import contextlib
import difflib
import glob
import os
import sys
from array import array

import numpy as np

from machinery.errors import InputError, input_errors
from machinery.find import find_files, is_list
from machinery.lookup import Lookup
from machinery.tables import Table, is_integer, read_text
from machinery.text import MAX_LINES

GIVEN = 'the given paths'  # in place of the name of a list


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
    if not isinstance(list_path, str):
        paths, labels = list_path
        return read_samples(GIVEN, list(map(os.fspath, paths)), list(map(str, labels)),
                            range(1, 1 + len(paths)), Lookup(pictures_path or ''),
                            num_classes, class_names, check_files)
    lookup = lookup_of(list_path, pictures_path)
    table = Table(list_path, lookup.find)
    if not table.is_labelled:
        raise InputError('%s: its columns %s have no label'
                         % (list_path, ', '.join(table.header)))
    listed, texts, line_numbers, faults = [], [], array('i'), []
    for line_number, line in table.lines:
        try:
            path, text = table.read(line)
        except InputError as fault:
            faults.append((line_number, str(fault)))
            continue
        listed.append(path)
        texts.append(sys.intern(text))  # a million labels, but few different ones
        line_numbers.append(line_number)
    return read_samples(list_path, listed, texts, line_numbers, lookup, num_classes,
                        class_names, check_files, faults)


def read_samples(name, listed, texts, numbers, lookup, num_classes, class_names,
                 check_files, faults=()):
    """Return the paths, labels and numbers of samples; raise as read_list.

    Args:
        name: of the list, for messages.
        listed, texts, numbers: the paths and the labels as they stand there, and the
            numbers of their lines.
        faults: [(line number, message)] of other lines.
    """
    if len(listed) != len(texts):
        raise InputError('%s: %d paths, but %d labels'
                         % (name, len(listed), len(texts)))
    label_of = find_labels(texts, class_names)
    paths, labels, earlier, faults = [], array('q'), {}, list(faults)
    for path, text, number in zip(listed, texts, numbers):
        found, label = lookup.find(path), label_of[text]
        paths.append(found or lookup.join(path))
        same_path = os.path.normpath(paths[-1])
        if isinstance(label, str):  # it says why there is none
            faults.append((number, label))
            continue
        labels.append(label)
        if not 0 <= label < num_classes:
            faults.append((number, 'label %d is not in 0..%d'
                           % (label, num_classes - 1)))
        elif earlier.setdefault(same_path, label) != label:
            faults.append((number, 'label %d, but label %d in an earlier line: %s'
                           % (label, earlier[same_path], paths[-1])))
        if check_files and not found:
            faults.append((number, lookup.explain(path)))
    if not paths and not faults:
        raise InputError('%s:\n  no samples in it' % name)
    if faults:
        raise InputError(report(name, faults, labels, num_classes))
    return paths, np.array(labels, np.int32), np.array(numbers, np.int32)


def report(name, faults, labels, num_classes):
    """Return a message about the faults of a list, [(line number, message)]."""
    faults = sorted(faults, key=lambda fault: fault[0])
    lines = [name + ':'] + ['line %d: %s' % fault for fault in faults[:MAX_LINES]]
    if len(faults) > MAX_LINES:
        lines.append('and %d more' % (len(faults) - MAX_LINES))
    low, high = min(labels, default=0), max(labels, default=0)
    if low < 0 or high >= num_classes:
        lines.append('the labels run %d..%d, but labels start at 0 and num_classes is '
                     '%d' % (low, high, num_classes))
    return '\n  '.join(lines)


def find_labels(texts, class_names):
    """Return {text: its label, or why it has none, as text}.

    Texts are names if they are no integers, but classes have names; or if one of them
    is the name of a class and no integer. Otherwise they are numbers.
    """
    known = {name: label for label, name in enumerate(class_names or [])}
    texts = set(texts)
    words = {text for text in texts if not is_integer(text)}
    if not words & set(known) and (words != texts or all(map(is_integer, known))):
        return {text: 'label %.100r is not an integer' % text if text in words else
                int(text.split('.')[0]) for text in texts}
    label_of = {text: known.get(text) for text in texts}
    for text in texts - set(known):
        near = difflib.get_close_matches(text, known, 1, 0.4)
        label_of[text] = 'no class is called %.100r; the %s' % (
            text, 'nearest is %r' % near[0] if near else
            'classes are %.200s' % ', '.join(known))
    return label_of


def find_classes_in(list_path, pictures_path):
    """Return the sorted names of the classes in a list, or None; and the largest label.

    The largest label is -1 if there is none.
    """
    table, texts = Table(list_path, lookup_of(list_path, pictures_path).find), set()
    for _, line in table.lines if table.is_labelled else []:
        with contextlib.suppress(InputError):  # read_list names all faults
            texts.add(table.read(line)[1])
    numbers = [int(text.split('.')[0]) for text in texts if is_integer(text)]
    if table.hot:
        texts = {table.header[column] for column in table.hot}
    return None if numbers else sorted(texts), max(numbers, default=-1)


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
    for line_number, name in enumerate(map(str.strip, lines), 1):
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
        table = Table(source, lookup.find, is_labelled=False)
        listed = [table.read(line)[0] for _, line in table.lines]
        paths = [lookup.find(path) or lookup.join(path) for path in listed]
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
    return Table(path, find, is_labelled=False).is_labelled
