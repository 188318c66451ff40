"""Lists and folders of pictures: find, read, warn, split."""
import glob
import hashlib
import itertools
import os
import re
from array import array

import numpy as np

from machinery.settings import InputError, Parser, input_errors, integer, parse

MAX_FAULTS = 20
PICTURE_ENDINGS = tuple('.jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp '
                        '.pbm .pgm .ppm .pnm .jp2 .avif'.split())


@input_errors()
def read_list(list_path, num_classes, check_files=True):
    """Read a list file of pictures and labels.

    A line is "path label", split at its last white space; the label is an integer in
    0..num_classes - 1; a relative path is relative to the list's folder. Blank lines
    and lines that start with # are skipped. UTF-8, with or without byte order mark.

    Args:
        check_files: a picture that does not exist is a fault.

    Returns:
        paths (list of str), labels (int32 array), line numbers from 1 (int32 array).

    Raises:
        InputError: the list cannot be read, is empty, or has faults; shows up to 20.
    """
    paths, faults, label_of = [], [], {}
    labels, line_numbers = array('q'), array('q')  # a list of a million fills 40 MB
    with open(list_path, 'rb') as file:
        for line_number, line in enumerate(file, 1):
            try:
                line = line.decode('utf-8-sig').strip()
                if not line or line.startswith('#'):
                    continue
                path, label = split_line(line)
            except (InputError, UnicodeDecodeError) as fault:
                faults.append('line %d: %s' % (line_number, fault))
                continue
            path = os.path.join(os.path.dirname(list_path), path)
            paths.append(path)
            labels.append(label)
            line_numbers.append(line_number)
            if not 0 <= label < num_classes:
                faults.append('line %d: label %d is not in 0..%d'
                              % (line_number, label, num_classes - 1))
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
        if labels and min(labels) == 1 and max(labels) == num_classes:
            shown.append('the labels run 1..%d, but labels start at 0' % num_classes)
        raise InputError('%s:\n  %s' % (list_path, '\n  '.join(shown)))
    return paths, np.array(labels, np.int32), np.array(line_numbers, np.int32)


def split_line(line):
    """Return (path, label) of a line "path label", or raise an InputError."""
    *path, label = line.rsplit(None, 1)
    if not path:
        raise InputError('no label after %.500r' % line)
    if not re.match('[+-]?[0-9]{1,18}$', label):
        raise InputError('label %.100r is not an integer' % label)
    return path[0], int(label)


@input_errors()
def read_class_names(path, num_classes):
    """Read a file with the name of a class in each line, in the order of the labels.

    Without a path, return the labels as names.

    Raises:
        InputError: the file cannot be read, is not UTF-8, has a blank line, or does not
            have num_classes lines.
    """
    if path is None:
        return [str(label) for label in range(num_classes)]
    with open(path, 'rb') as file:
        try:
            lines = file.read().decode('utf-8-sig').rstrip().split('\n')
        except UnicodeDecodeError as error:
            raise InputError('%s: %s' % (path, error))
    class_names = [line.strip() for line in lines]
    if '' in class_names:
        raise InputError('%s, line %d: no name' % (path, class_names.index('') + 1))
    if len(class_names) != num_classes:
        raise InputError('%s: expected names of num_classes = %d classes, found %d'
                         % (path, num_classes, len(class_names)))
    return class_names


def list_warnings(generators):
    """Return warnings about the samples of ImageDataGenerators, as a list of text."""
    warnings = []
    resolved = [(data, [os.path.realpath(path) for path in data.paths])
                for data in generators]
    for (first, first_paths), (second, paths) in itertools.combinations(resolved, 2):
        line_of = dict(zip(first_paths, first.line_numbers))
        shared = [(second.paths[sample], line_of[path], second.line_numbers[sample])
                  for sample, path in enumerate(paths) if path in line_of]
        if shared:
            warnings.append(
                '%d %s also in %s, so its accuracy is too optimistic; the first is %s '
                '(lines %d and %d)' % ((len(shared), (
                    'picture of %s is' if len(shared) == 1 else 'pictures of %s are')
                    % second.class_list, first.class_list) + shared[0]))
    for data in generators:
        empty = np.flatnonzero(np.bincount(data.labels, minlength=data.n_classes) == 0)
        if len(empty):
            warnings.append('%s has no sample of class%s %s' % (
                data.class_list, 'es' if len(empty) > 1 else '',
                ', '.join(map(str, empty[:20]))))
    return warnings


@input_errors()
def find_pictures(source):
    """Return the paths of a picture, or those in a folder, a pattern or a .txt list.

    A list has a path in each line; a relative one is relative to the list's folder.

    Raises:
        InputError: there are none, or it cannot be read, or links lead in circles.
    """
    if source.endswith('.txt'):
        with open(source, encoding='utf-8-sig', errors='surrogateescape') as file:
            paths = [os.path.join(os.path.dirname(source), line.strip())
                     for line in file if line.strip() and not line.startswith('#')]
    elif os.path.isdir(source):
        paths = sorted(path for path in walk(source) if is_picture(path))
    else:
        paths = [source] if os.path.isfile(source) else sorted(
            glob.glob(source, recursive=True))
    if not paths:
        raise InputError('%s: does not exist, or no pictures there' % source)
    return paths


def walk(folder):
    """Yield the files below a folder, also through links; nothing that is hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.'):
                yield from walk(entry.path) if entry.is_dir() else [entry.path]


def has_labels(list_path):
    """Tell whether this is a .txt list whose lines do not end with a picture's name."""
    return list_path.endswith('.txt') and not is_picture(find_pictures(list_path)[0])


def is_picture(path):
    """Tell whether the name of a file looks like a picture's."""
    return path.lower().endswith(PICTURE_ENDINGS)


def find_classes(folder):
    """Return {class name: [paths]} of the pictures below a folder.

    A class is a subfolder; of a picture that lies in the folder itself, the class is
    what stands before the first point of its name, as in cat.0.jpg.

    Raises:
        InputError: a folder cannot be read, a picture has no class, or a name that
            cannot stand in a list, or there are fewer than two classes.
    """
    classes = {}
    for path in find_pictures(folder):
        inside = os.path.relpath(path, folder).split(os.sep)
        if len(inside) == 1 and inside[0].count('.') < 2:
            raise InputError('%s: is neither in a subfolder that tells its class nor '
                             'named like cat.0.jpg' % path)
        class_name = inside[0] if len(inside) > 1 else inside[0].split('.')[0]
        if ('\n' in path or path.encode(errors='ignore').decode() != path
                or not class_name.strip()):
            raise InputError('%r: cannot stand in a list, since it is not UTF-8, has '
                             'several lines, or has a class without a name' % path)
        classes.setdefault(class_name, []).append(path)
    if len(classes) < 2:
        raise InputError('%s: all pictures are of one class, %s; at least 2 classes '
                         'are needed' % (folder, class_name))
    return classes


@input_errors()
def split_classes(classes, shares, seed=0):
    """Distribute the pictures of each class at random among as many lists as shares.

    Identical pictures, of whatever class, always go to the same list.

    Args:
        classes: {class name: [paths]}.
        shares: relative sizes of the lists.

    Returns:
        a list of (path, label) for each share; labels count the sorted class names.

    Raises:
        InputError: a picture cannot be read.
    """
    rng = np.random.RandomState(seed)
    lists, list_of = [[] for _ in shares], {}
    for label, class_name in enumerate(sorted(classes)):
        groups = {}
        for path in classes[class_name]:
            with open(path, 'rb') as file:
                content = hashlib.sha1(file.read()).digest()
            groups.setdefault(content, []).append((path, label))
        fresh = [content for content in groups if content not in list_of]
        rng.shuffle(fresh)
        ends = np.round(np.cumsum(shares) / sum(shares) * len(fresh))
        for position, content in enumerate(fresh):
            list_of[content] = int(np.searchsorted(ends, position, side='right'))
        for content, pairs in groups.items():
            lists[list_of[content]] += pairs
    return lists


def main():
    """Write lists of the pictures in a folder, as the command line says."""
    parser = Parser(
        description='Write train.txt, val.txt and test.txt of the pictures in a folder '
        'that has a subfolder for each class, or names like cat.0.jpg; and '
        'classes.txt, whose lines are the names of the classes.')
    parser.add_argument('folder')
    parser.add_argument('--split', nargs=3, type=float, default=[70, 15, 15],
                        metavar=('TRAIN', 'VAL', 'TEST'), help='default: 70 15 15')
    parser.add_argument('--seed', default=0, help='of the random split',
                        type=lambda text: parse(text, integer(0, 2 ** 32 - 1)))
    parser.add_argument('--out', default='.', help='folder of the lists; default: '
                        'the current one')
    parser.add_argument('--force', action='store_true', help='overwrite lists')
    args = parser.parse_args()
    if not (min(args.split) >= 0 and args.split[0] > 0 and sum(args.split) < np.inf):
        parser.error('--split: the shares must be 0 or more, that of training above 0')
    classes = find_classes(args.folder)
    class_names = sorted(classes)
    names = ['train', 'val', 'test']
    outs = [os.path.join(args.out, name + '.txt') for name in names + ['classes']]
    taken = [path for path in outs if os.path.exists(path)]
    if taken and not args.force:
        raise InputError('%s would be overwritten; --force does so' % ', '.join(taken))
    lists = split_classes(classes, args.split, args.seed)
    with input_errors():
        os.makedirs(args.out, exist_ok=True)
        for list_path, pairs in zip(outs, lists):
            with open(list_path, 'w', encoding='utf-8') as file:
                # ./ since a line that starts with # is a comment
                file.writelines('./%s %d\n' % (os.path.relpath(path, args.out), label)
                                for path, label in pairs)
        with open(outs[-1], 'w', encoding='utf-8') as file:
            file.writelines(class_name + '\n' for class_name in class_names)

    counts = np.array([np.bincount([label for _, label in pairs],
                                   minlength=len(classes)) for pairs in lists])
    row = '%-20s' + 4 * ' %7s'
    print(row % ('class', 'label', *names))
    for label, class_name in enumerate(class_names):
        print(row % (class_name, label, *counts[:, label]))
    for name, share, count in zip(names, args.split, counts):
        missing = np.array(class_names)[count == 0]
        if share and len(missing):
            print('Warning: %s.txt has no picture of %s' % (name, ', '.join(missing)))
