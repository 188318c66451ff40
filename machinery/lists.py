"""Lists of pictures and of classes: find, read, warn."""
import codecs
import glob
import io
import itertools
import os
import re
from array import array

import cv2
import numpy as np
from tqdm import tqdm

from machinery.settings import InputError, input_errors, open_plain

MAX_FAULTS = 20
UTF16_MARKS = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
HIDDEN = ['thumbs.db', 'desktop.ini']  # what Windows leaves in folders
HEIC_ENDINGS = '.heic', '.heif'
PICTURE_ENDINGS = tuple('.jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp '
                        '.pbm .pgm .ppm .pnm .jp2 .avif'.split())


def read_lines(path):
    """Yield (line number, line) of a text file, without blank lines and comments.

    UTF-8, with or without byte order mark, or UTF-16 with one.

    Raises:
        InputError: it is no such file; names the line.
    """
    with open_plain(path) as file:
        start = file.read(2)
        file.seek(0)
        lines = (io.TextIOWrapper(file, 'utf-16') if start in UTF16_MARKS else
                 (line.decode('utf-8-sig') for line in file))
        line_number = 0
        try:
            for line_number, line in enumerate(lines, 1):
                if '\0' in line:
                    raise InputError('%s, line %d: this is no text file'
                                     % (path, line_number))
                line = line.strip()
                if line and not line.startswith('#'):
                    yield line_number, line
        except UnicodeDecodeError as error:
            raise InputError('%s, line %d: this is no text in UTF-8 (%s): save it as '
                             'UTF-8' % (path, line_number + 1, error))


@input_errors()
def read_list(list_path, num_classes, check_files=True):
    """Read a list file of pictures and labels.

    A line is "path label", split at its last white space, or "path,label"; the label is
    an integer in 0..num_classes - 1; a relative path is relative to the list's folder.
    Blank lines and lines that start with # are skipped, and so is a CSV file's header.
    Of a path that does not exist, quotes and commas at its ends are left out, and
    backslashes may be slashes.

    Args:
        check_files: a picture that does not exist is a fault.

    Returns:
        paths (list of str), labels (int32 array), line numbers from 1 (int32 array).

    Raises:
        InputError: the list cannot be read, is empty, or has faults; shows up to 20.
    """
    paths, faults, label_of = [], [], {}
    labels, line_numbers = array('q'), array('q')  # a list of a million fills 40 MB
    folder = os.path.dirname(list_path)
    for line_number, line in read_lines(list_path):
        try:
            path, label = split_line(line)
        except InputError as fault:
            is_header = re.fullmatch('[a-z_ "]+[,;][a-z_ "]+', line, re.I)
            if paths or faults or not is_header:
                faults.append('line %d: %s' % (line_number, fault))
            continue
        path = find_file(folder, path)
        paths.append(path)
        labels.append(label)
        line_numbers.append(line_number)
        same_path = os.path.normpath(path)
        if (0 <= label < num_classes and
                label_of.setdefault(same_path, label) != label):
            faults.append('line %d: label %d, but label %d in an earlier line: %s'
                          % (line_number, label, label_of[same_path], path))
        if check_files and not os.path.isfile(path):
            faults.append('line %d: no such file: %.500s' % (line_number, path))
    if not paths and len(faults) > 3:
        raise InputError('%s: no line is "path label" with an integer for a label; the '
                         'first fault: %s' % (list_path, faults[0]))
    if not paths and not faults:
        faults.append('no samples in it')
    labels, line_numbers = np.array(labels, np.int64), np.array(line_numbers, np.int32)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    shown = faults[:MAX_FAULTS]
    if len(faults) > MAX_FAULTS:
        shown.append('and %d more' % (len(faults) - MAX_FAULTS))
    if len(wrong):
        low, high = labels.min(), labels.max()
        from_1 = (low, high) == (1, num_classes)
        if low >= 0 and not from_1:
            shown.insert(0, 'the labels run %d..%d, more than %d classes: set '
                         'num_classes = %d, or choose a network that has so many'
                         % (low, high, num_classes, high + 1))
        shown += ['line %d: label %d is not in 0..%d' % (
            line_numbers[sample], labels[sample], num_classes - 1)
            for sample in wrong[:3]]
        if len(wrong) > 3:
            shown.append('and %d more such labels' % (len(wrong) - 3))
        if from_1:
            shown.append('the labels run 1..%d, but labels start at 0' % num_classes)
    if shown:
        raise InputError('%s:\n  %s' % (list_path, '\n  '.join(shown)))
    return paths, np.int32(labels), line_numbers


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


def is_integer(text):
    """Tell whether this text is an integer of at most 18 digits."""
    return bool(re.fullmatch('[+-]?[0-9]{1,18}', text))


def find_file(folder, path):
    """Return the path that a list in a folder means: as it is, if that exists."""
    whole = os.path.join(folder, path)
    if re.search(r'["\'\\,;]', path) and not os.path.exists(whole):
        plain = os.path.join(folder, path.strip('"\',;').replace('\\', '/'))
        if os.path.exists(plain):
            return plain
    return whole


@input_errors()
def read_class_names(path, num_classes=None):
    """Read a file with the name of a class in each line, in the order of the labels.

    Without a path, return the labels as names.

    Raises:
        InputError: the file cannot be read, is not UTF-8, has a blank line, a name
            twice, or not num_classes lines.
    """
    if path is None:
        return [str(label) for label in range(num_classes)]
    with open_plain(path) as file:
        try:
            lines = file.read().decode('utf-8-sig').rstrip().split('\n')
        except UnicodeDecodeError as error:
            raise InputError('%s: this is no text in UTF-8 (%s)' % (path, error))
    class_names = [line.strip() for line in lines]
    line_of = {}
    for line_number, name in enumerate(class_names, 1):
        if not name:
            raise InputError('%s, line %d: no name' % (path, line_number))
        if line_of.setdefault(name, line_number) != line_number:
            raise InputError('%s, line %d: %s is in line %d, too'
                             % (path, line_number, name, line_of[name]))
    if num_classes and len(class_names) != num_classes:
        raise InputError('%s: expected names of num_classes = %d classes, found %d'
                         % (path, num_classes, len(class_names)))
    return class_names


def list_warnings(generators):
    """Return warnings about the samples of ImageDataGenerators, as a list of text."""
    warnings = []
    files = [file_numbers(data) for data in generators]
    for first, second in itertools.combinations(range(len(files)), 2):
        shared = np.flatnonzero(np.isin(files[second], files[first]))
        if len(shared):
            data, other = generators[second], generators[first]
            there = np.flatnonzero(files[first] == files[second][shared[0]])[-1]
            warnings.append(
                '%d %s also in %s, so its accuracy is too optimistic; the first is %s '
                '(lines %d and %d)' % (
                    len(shared), ('picture of %s is' if len(shared) == 1 else
                                  'pictures of %s are') % data.class_list,
                    other.class_list, data.paths[shared[0]],
                    other.line_numbers[there], data.line_numbers[shared[0]]))
    for data in generators:
        empty = np.flatnonzero(np.bincount(data.labels, minlength=data.n_classes) == 0)
        if len(empty):
            warnings.append('%s has no sample of class%s %s' % (
                data.class_list, 'es' if len(empty) > 1 else '',
                ', '.join(map(str, empty[:20]))))
    return warnings


def file_numbers(data):
    """Return what the system knows each picture by, whatever links lead to it."""
    numbers = np.empty(len(data.paths), np.int64)
    for sample, path in enumerate(tqdm(data.paths, 'Comparing lists', leave=False,
                                       delay=2, disable=None)):
        try:
            file = os.stat(path)
            numbers[sample] = hash((file.st_dev, file.st_ino))
        except OSError:  # it is on another machine, perhaps
            numbers[sample] = hash(path)
    return numbers


@input_errors()
def find_pictures(source):
    """Return the paths of a picture, or those in a folder, a pattern or a list.

    A list is any other text file. It has a path in each line; a relative one is
    relative to the list's folder.

    Raises:
        InputError: there are none, or it cannot be read, or links lead in circles.
    """
    if os.path.isdir(source):
        paths = sorted(path for path in walk(source) if is_picture(path))
    elif is_list(source):
        paths = [find_file(os.path.dirname(source), line)
                 for _, line in read_lines(source)]
    elif os.path.isfile(source):
        paths = [source]
    else:
        paths = sorted(glob.glob(source, recursive=True))
    if not paths:
        raise InputError('%s: does not exist, or no pictures there' % source)
    return paths


def walk(folder):
    """Yield the files below a folder, also through links; nothing that is hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.name.lower() not in HIDDEN:
                yield from walk(entry.path) if entry.is_dir() else [entry.path]


@input_errors()
def has_labels(path):
    """Tell whether this is a list with labels, and not one of pictures alone."""
    if not is_list(path):
        return False
    lines = itertools.islice(read_lines(path), 2)  # the first may be a header
    for _, line in lines:
        try:
            split_line(line)
            return not os.path.isfile(find_file(os.path.dirname(path), line))
        except InputError:
            continue
    return False


def is_list(path):
    """Tell whether this is a file, but no picture, not even one in HEIC."""
    return (os.path.isfile(path) and not is_picture(path)
            and not path.lower().endswith(HEIC_ENDINGS))


def is_picture(path):
    """Tell whether the name or the first bytes of a file are a picture's."""
    return path.lower().endswith(PICTURE_ENDINGS) or (
        os.path.isfile(path) and cv2.haveImageReader(path))
