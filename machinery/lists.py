"""Lists of pictures and of classes: find, read, warn."""
import codecs
import contextlib
import glob
import io
import itertools
import os
import re
from array import array

import numpy as np

from machinery.errors import InputError, input_errors, open_plain
from machinery.find import find_files, is_list
from machinery.text import MAX_LINES

is_integer = re.compile('[+-]?[0-9]{1,18}').fullmatch
is_header = re.compile('[a-z_ "]+[,;][a-z_ "]+', re.I).fullmatch  # of a CSV file


def read_lines(path):
    """Yield (line number, line) of a text file, without blank lines and comments."""
    with input_errors(), open_plain(path) as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        file.seek(0)
        lines = (io.TextIOWrapper(file, 'utf-16') if is_utf16 else
                 (line.decode('utf-8-sig') for line in file))
        line_number = 0
        try:
            for line_number, line in enumerate(lines, 1):
                if '\0' in line:
                    raise InputError('%s, line %d: this is not a text file'
                                     % (path, line_number))
                line = line.strip()
                if line and not line.startswith('#'):
                    yield line_number, line
        except UnicodeDecodeError as error:
            raise InputError('%s, line %d: this is no text in UTF-8 (%s): save it as '
                             'UTF-8' % (path, line_number + 1, error))


def read_list(list_path, num_classes, check_files=True):
    """Return the paths, int32 labels and int32 line numbers (from 1) of a list file.

    A line is "path label", split at its last white space, or "path,label". The label is
    an integer in 0..num_classes - 1; a relative path starts at the list's folder. The
    header of a CSV file is skipped. With check_files, a missing picture is a fault.
    """
    paths, label_of, faults = [], {}, []
    labels, line_numbers = array('q'), array('i')  # a list of a million fills 40 MB
    for line_number, line in read_lines(list_path):
        try:
            path, label = split_line(line)
        except InputError as fault:
            if paths or faults or not is_header(line):
                faults.append('line %d: %s' % (line_number, fault))
            continue
        path = find_file(list_path, path)
        paths.append(path)
        labels.append(label)
        line_numbers.append(line_number)
        same_path = os.path.normpath(path)
        if not 0 <= label < num_classes:
            faults.append('line %d: label %d is not in 0..%d'
                          % (line_number, label, num_classes - 1))
        elif label_of.setdefault(same_path, label) != label:
            faults.append('line %d: label %d, but label %d in an earlier line: %s'
                          % (line_number, label, label_of[same_path], path))
        if check_files and not os.path.isfile(path):
            faults.append('line %d: no such file: %.500s' % (line_number, path))
    if not paths and not faults:
        faults.append('no samples in it')
    if faults:
        lines = [list_path + ':'] + faults[:MAX_LINES]
        if len(faults) > MAX_LINES:
            lines.append('and %d more' % (len(faults) - MAX_LINES))
        low, high = min(labels, default=0), max(labels, default=0)
        if low < 0 or high >= num_classes:
            lines.append('the labels run %d..%d, but labels start at 0 and num_classes '
                         'is %d' % (low, high, num_classes))
        raise InputError('\n  '.join(lines))
    return paths, np.array(labels, np.int32), np.array(line_numbers, np.int32)


def find_largest_label(list_path):
    """Return the largest label of a list, -1 if it has none."""
    largest = -1
    for _, line in read_lines(list_path):
        with contextlib.suppress(InputError):  # read_list names all faults
            largest = max(largest, split_line(line)[1])
    return largest


def split_line(line):
    """Return (path, label) of "path label" or "path,label", or raise an InputError."""
    *path, label = line.rsplit(None, 1)
    delimiter = ',' if ',' in line else ';'
    if not is_integer(label) and delimiter in line:
        *path, label = line.rsplit(delimiter, 1)
    if not path:
        raise InputError('no label after %.500r' % line)
    if not is_integer(label.strip()):
        raise InputError('label %.100r is not an integer' % label)
    return path[0].strip(), int(label)


def find_file(list_path, path):
    """Return a listed path; if missing, try it without quotes and with / for \\."""
    folder = os.path.dirname(list_path)
    whole = os.path.join(folder, path)
    plain = os.path.join(folder, path.strip('"\',;').replace('\\', '/'))
    if plain != whole and not os.path.exists(whole) and os.path.exists(plain):
        return plain
    return whole


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
    with open_plain(path) as file:
        try:
            lines = file.read().decode('utf-8-sig').rstrip().split('\n')
        except UnicodeDecodeError as error:
            raise InputError('%s: this is no text in UTF-8 (%s)' % (path, error))
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
def find_pictures(source):
    """Return the paths of a picture, a folder, a pattern, or a list of paths alone."""
    if os.path.isdir(source):
        paths, _ = find_files(source)
    elif is_list(source):
        paths = [find_file(source, line) for _, line in read_lines(source)]
    else:
        paths = [source] if os.path.isfile(source) else sorted(
            glob.glob(source, recursive=True))
    if not paths:
        raise InputError('%s: does not exist, or no pictures there' % source)
    return paths


def has_labels(path):
    """Tell whether this is a list with labels, rather than one of pictures alone."""
    lines = read_lines(path) if is_list(path) else []
    for _, line in itertools.islice(lines, 2):  # the first may be a header
        with contextlib.suppress(InputError):
            split_line(line)
            return not os.path.isfile(find_file(path, line))
    return False
