"""Folders of pictures: find their classes, and split them into lists."""
import hashlib
import os
import re
import shlex
from collections import Counter

import numpy as np

from machinery.lists import HEIC_ENDINGS, is_picture, read_class_names, walk
from machinery.pictures import read_file
from machinery.settings import InputError, Parser, input_errors, integer, parse

LISTS = ['train', 'val', 'test']
# Folders of this name, in any case, are parts that somebody has split already.
PART_OF = {'train': 0, 'training': 0, 'val': 1, 'valid': 1, 'validation': 1, 'test': 2,
           'testing': 2, 'test1': 2}


def group(folder, paths):
    """Return {subfolder of folder, or '' for itself: [paths in it]}."""
    groups = {}
    for path in paths:
        *parents, _ = os.path.relpath(path, folder).split(os.sep)
        groups.setdefault(parents[0] if parents else '', []).append(path)
    return groups


def find_parts(folder, paths):
    """Return {part: {its folder: [paths]}} of a folder of pictures.

    Part 0 is for training, 1 for validation, 2 for test; a folder that is not split is
    for training.

    Raises:
        InputError: the folder is split, but not wholly, or without a part for training.
    """
    groups = group(folder, paths)
    names = [name for name in groups if name.lower() in PART_OF]
    found = {PART_OF[name.lower()] for name in names}
    has_classes = any(set(group(os.path.join(folder, name), groups[name])) != {''}
                      for name in names)
    if not names or len(names) < len(groups) and len(found) == 1 and not has_classes:
        return {0: {folder: paths}}
    others = [groups[name][0] for name in groups if name not in names]
    if others or 0 not in found:
        raise InputError('%s is split into %s, but %s' % (
            folder, ', '.join(sorted(names)), 'has no part train' if 0 not in found else
            '%s is in none of these parts' % others[0]))
    parts = {}
    for name in names:
        parts.setdefault(PART_OF[name.lower()], {})[
            os.path.join(folder, name)] = groups[name]
    return parts


def find_classes(folder, paths):
    """Return {class name: [paths]} of a folder's pictures.

    A class is a subfolder; where there are none, it is what stands before the number in
    a name like cat.0.jpg.

    Raises:
        InputError: a picture has no class, or a name that cannot stand in a list.
    """
    classes = group(folder, paths)
    if set(classes) == {''}:
        classes = {}
        for path in paths:
            match = re.fullmatch(r'([^.]+)\.\d+(\.[^.]+)?', os.path.basename(path))
            classes.setdefault(match.group(1) if match else '', []).append(path)
    if '' in classes:
        fault = ('is neither in a folder that tells its class nor named like cat.0.jpg'
                 if set(group(folder, paths)) == {''} else
                 'lies beside the folders of the classes: move it into one of them, or '
                 'remove it')
        raise InputError('%s: %s' % (classes[''][0], fault))
    for class_name, members in classes.items():
        for path in members:
            if ('\n' in path or path.encode(errors='ignore').decode() != path
                    or not class_name.strip()):
                raise InputError('%r: cannot stand in a list, since it is not UTF-8, '
                                 'has several lines, or has a class without a name'
                                 % path)
    return classes


def merge(found):
    """Return {class name: [paths]} of several such dicts."""
    classes = {}
    for one in found:
        for class_name, paths in one.items():
            classes.setdefault(class_name, []).extend(paths)
    return classes


def sort_names(names):
    """Sort names of classes, as numbers if all are."""
    return sorted(names, key=int if all(re.fullmatch('[0-9]+', name)
                                        for name in names) else None)


@input_errors()
def split_classes(classes, class_names, shares, seed=0):
    """Distribute the pictures of each class at random among as many lists as shares.

    Identical pictures, of whatever class, always go to the same list.

    Args:
        classes: {class name: [paths]}.
        class_names: in the order of the labels.
        shares: relative sizes of the lists.

    Returns:
        a list of (path, label) for each share.

    Raises:
        InputError: a picture cannot be read.
    """
    rng = np.random.RandomState(seed)
    lists, list_of = [[] for _ in shares], {}
    for label, class_name in enumerate(class_names):
        groups = {}
        for path in classes.get(class_name, []):
            content = hashlib.sha1(read_file(path)).digest()
            groups.setdefault(content, []).append((path, label))
        fresh = [content for content in groups if content not in list_of]
        rng.shuffle(fresh)
        ends = np.round(np.cumsum(shares) / sum(shares) * len(fresh))
        for position, content in enumerate(fresh):
            list_of[content] = int(np.searchsorted(ends, position, side='right'))
        for content, pairs in groups.items():
            lists[list_of[content]] += pairs
    return lists


def list_ignored(folder, others, parts):
    """Return what was left out, as a line of text for each kind, perhaps none."""
    endings = Counter(os.path.splitext(path)[1].lower() for path in others)
    lines = []
    if endings:
        lines.append('Ignored: ' + ', '.join(
            '%d %s' % (count, ending or 'without an ending')
            for ending, count in sorted(endings.items())))
    if set(HEIC_ENDINGS) & set(endings):
        lines.append('OpenCV does not read HEIC: convert these to JPEG first, for '
                     'example with "mogrify -format jpg *.heic" of ImageMagick.')
    empty = []
    for place in {folder}.union(*parts.values()):
        found = group(place, sum((sum(part.values(), []) for part in parts.values()),
                                 []))
        with os.scandir(place) as entries:
            empty += [entry.path for entry in entries if entry.is_dir() and
                      not entry.name.startswith('.') and entry.name not in found]
    if empty:
        lines.append('No pictures in: ' + ', '.join(
            os.path.relpath(path, folder) for path in sorted(empty)))
    return lines


def main():
    """Write lists of the pictures in a folder, as the command line says."""
    parser = Parser(
        description='Write train.txt, val.txt and test.txt of the pictures in a folder '
        'that has a subfolder for each class, or names like cat.0.jpg; and '
        'classes.txt, whose lines are the names of the classes. A folder that is split '
        'into train, val or test stays so; of these, a missing one is made.')
    parser.add_argument('folder')
    parser.add_argument('--split', nargs=3, type=float, default=[70, 15, 15],
                        metavar=('TRAIN', 'VAL', 'TEST'), help='default: 70 15 15')
    parser.add_argument('--seed', default=0, help='of the random split',
                        type=lambda text: parse(text, integer(0, 2 ** 32 - 1)))
    parser.add_argument('--classes', help='a file with the names of the classes, in '
                        'the order that their labels shall have')
    parser.add_argument('--out', default='.', help='folder of the lists; default: '
                        'the current one')
    parser.add_argument('--force', action='store_true', help='overwrite lists')
    args = parser.parse_args()
    shares = args.split
    if not (min(shares) >= 0 and min(shares[:2]) > 0 and sum(shares) < np.inf):
        parser.error('--split: the shares must be 0 or more, those of training and '
                     'validation above 0')
    files = {True: [], False: []}
    with input_errors():
        for path in sorted(walk(args.folder)):
            files[is_picture(path)].append(path)
    if not files[True]:
        raise InputError('%s: no pictures there' % args.folder)
    parts = find_parts(args.folder, files[True])
    unlabelled = [path for folder, paths in parts.get(2, {}).items() for path in paths
                  if set(group(folder, paths)) == {''} and not any(
                      re.match(r'[^.]+\.\d+\.', os.path.basename(path))
                      for path in paths)]
    classes = {part: merge(find_classes(*place) for place in places.items())
               for part, places in parts.items() if part < 2 or not unlabelled}
    found = sort_names(set().union(*classes.values()))
    class_names = read_class_names(args.classes) if args.classes else found
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise InputError('%s: no class %s' % (args.classes, ', '.join(unknown)))
    if len(class_names) < 2:
        raise InputError('%s: all pictures are of one class, %s; at least 2 classes '
                         'are needed' % (args.folder, *found))

    missing = [part for part in (1, 2) if part not in parts and shares[part]]
    lists = dict(zip([0] + missing, split_classes(
        classes[0], class_names, [shares[part] for part in [0] + missing], args.seed)))
    for part in set(classes) - {0}:
        lists[part], = split_classes(classes[part], class_names, [1])
    outs = {name: os.path.normpath(os.path.join(args.out, name + '.txt'))
            for name in LISTS + ['classes']}
    taken = [path for path in outs.values() if os.path.exists(path) and not (
        args.classes and os.path.samefile(path, args.classes))]
    if taken and not args.force:
        raise InputError('%s would be overwritten; --force does so' % ', '.join(taken))
    written = {LISTS[part]: ['%s %d' % (relative(path, args.out), label)
                             for path, label in pairs] for part, pairs in lists.items()}
    if unlabelled:
        written['test'] = [relative(path, args.out) for path in unlabelled]
    with input_errors():
        os.makedirs(args.out, exist_ok=True)
        for path in taken:
            os.remove(path)  # one of the lists may not be made this time
        for name, lines in dict(written, classes=class_names).items():
            with open(outs[name], 'w', encoding='utf-8') as file:
                file.writelines(line + '\n' for line in lines)

    counts = {part: np.bincount([label for _, label in pairs],
                                minlength=len(class_names))
              for part, pairs in sorted(lists.items())}
    row = '%-20s' + (1 + len(counts)) * ' %7s'
    print(row % ('class', 'label', *(LISTS[part] for part in counts)))
    for label, class_name in enumerate(class_names):
        print(row % (class_name, label, *(count[label] for count in counts.values())))
    for part, count in counts.items():
        lacking = [name for name, n in zip(class_names, count) if n == 0]
        if lacking:
            print('Warning: %s.txt has no picture of %s'
                  % (LISTS[part], ', '.join(lacking)))
    for line in list_ignored(args.folder, files[False], parts):
        print(line)
    if set(parts) != {0} or args.folder not in parts[0]:
        print('%s is split already, which was kept%s%s' % (
            args.folder, ''.join('; %s.txt was taken from its part for training'
                                 % LISTS[part] for part in missing),
            '; test.txt has no labels: it is for predict.py' if unlabelled else ''))
    print('Wrote %s' % ', '.join(outs[name] for name in [*written, 'classes']))
    options = ['--%s_file %s' % (name, shlex.quote(outs[name])) for name in written
               if name != 'test' or not unlabelled]
    job = '/tmp/' + re.sub(r'[^\w-]+', '_', os.path.basename(
        os.path.abspath(args.folder)))
    print('python finetune.py %s --classes_file %s --num_classes %d --learning_rate '
          '0.001 --batch_size 128 --checkpoint_path %s/checkpoints --filewriter_path '
          '%s/tensorboard' % (' '.join(options), shlex.quote(outs['classes']),
                              len(class_names), job, job))


def relative(path, folder):
    """Return a path for a list in a folder; with ./, since # starts a comment."""
    return os.path.join('.', os.path.relpath(path, folder))
