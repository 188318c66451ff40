"""Write lists of the pictures in a folder, split at random."""
import hashlib
import os
import pathlib
import re
import shlex
from collections import Counter, namedtuple

import numpy as np

from machinery.errors import InputError, act_as_script, input_errors
from machinery.find import HEIC_ENDINGS, find_classes, find_files
from machinery.lists import read_class_names
from machinery.pictures import read_file
from machinery.rules import integer
from machinery.settings import Parser, parse

LISTS = ['train', 'val', 'test']
Found = namedtuple('Found', [
    'part_of',      # {folder that is a part: part}; empty if there is no split
    'classes',      # {part: {class name, or None without labels: [paths]}}
    'class_names',  # in the order of the labels
    'others'])      # paths of the files that are not pictures


def find_pictures(folder, classes_file=None):
    """Return a Found for a folder; classes_file gives the order of the labels."""
    pictures, others = find_files(folder)
    if not pictures:
        raise InputError('%s: no pictures there' % folder)
    part_of, classes = find_classes(folder, pictures)
    names = sorted(set().union(*classes.values()) - {None})
    if all(re.fullmatch('[0-9]+', name) for name in names):
        names.sort(key=int)
    class_names = read_class_names(classes_file) if classes_file else names
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise InputError('%s: no class %s' % (classes_file, ', '.join(unknown)))
    if len(class_names) < 2:
        raise InputError('%s: all pictures are of one class, %s; at least 2 classes '
                         'are needed' % (folder, *names))
    return Found(part_of, classes, class_names, others)


def split_pictures(found, shares, seed):
    """Return {list name: [(path, label or None)]}; shares are {list name: its size}."""
    # A missing part is taken from the training pictures; others stay as they are.
    new = [name for name in LISTS
           if name == 'train' or name not in found.classes and shares[name]]
    lists = dict(zip(new, split_classes(found.classes['train'], found.class_names,
                                        [shares[name] for name in new], seed)))
    for name in set(found.classes) - {'train'}:
        [lists[name]] = split_classes(found.classes[name], found.class_names, [1])
        lists[name] += [(path, None) for path in found.classes[name].get(None, [])]
    return {name: lists[name] for name in LISTS if name in lists}


@input_errors()
def split_classes(classes, class_names, shares, seed=0):
    """Split {class name: [paths]} at random; return [(path, label)] for each share."""
    rng = np.random.RandomState(seed)
    # Identical pictures always go to the same list, even if their classes differ.
    lists, list_of = [[] for _ in shares], {}
    for label, class_name in enumerate(class_names):
        groups = {}
        for path in classes.get(class_name, []):
            content = hashlib.sha1(read_file(path)[0]).digest()
            groups.setdefault(content, []).append((path, label))
        fresh = [content for content in groups if content not in list_of]
        rng.shuffle(fresh)
        ends = np.round(np.cumsum(shares) / sum(shares) * len(fresh))
        list_of.update(zip(fresh, np.searchsorted(ends, range(len(fresh)), 'right')))
        for content, pairs in groups.items():
            lists[list_of[content]] += pairs
    return lists


@input_errors()
def write_lists(lists, class_names, args):
    """Write the lists and classes.txt to the folder args.out; return {name: path}."""
    paths = {name: os.path.normpath(os.path.join(args.out, name + '.txt'))
             for name in LISTS + ['classes']}
    taken = [path for path in paths.values() if os.path.exists(path) and not (
        args.classes and os.path.samefile(path, args.classes))]
    if taken and not args.force:
        raise InputError('%s would be overwritten; use --force' % ', '.join(taken))
    lines = {}
    for name, pairs in lists.items():
        lines[name] = [  # paths start with ./, because # starts a comment
            os.path.join('.', os.path.relpath(path, args.out)) +
            ('' if label is None else ' %d' % label) for path, label in pairs]
    lines['classes'] = class_names
    os.makedirs(args.out, exist_ok=True)
    for path in taken:
        os.remove(path)  # one of the lists may not be made this time
    for name in lines:
        with open(paths[name], 'w', encoding='utf-8') as file:
            file.writelines(line + '\n' for line in lines[name])
    return {name: paths[name] for name in lines}


def report(folder, found, lists, written):
    """Print the size of each list, the files left out, and the command to train."""
    labelled = [name for name in lists if None not in found.classes.get(name, {})]
    counts = {name: np.bincount([label for _, label in lists[name]],
                                minlength=len(found.class_names)) for name in labelled}
    row = '%-20s' + (1 + len(counts)) * ' %7s'
    print(row % ('class', 'label', *counts))
    for label, class_name in enumerate(found.class_names):
        print(row % (class_name, label, *(count[label] for count in counts.values())))
    for name, count in counts.items():
        lacking = [found.class_names[label] for label in np.flatnonzero(count == 0)]
        if lacking:
            print('Warning: %s.txt has no picture of %s' % (name, ', '.join(lacking)))
    report_ignored(folder, found, lists)
    if found.part_of:
        made = ['; %s.txt was taken from its part for training' % name
                for name in lists if name not in found.classes]
        print('%s is split already, which was kept%s%s' % (
            folder, ''.join(made), '' if labelled == list(lists) else
            '; test.txt has no labels: it is for predict.py'))
    print('Wrote %s' % ', '.join(written.values()))
    options = ' '.join('--%s_file %s' % (name, shlex.quote(written[name]))
                       for name in labelled + ['classes'])
    print('python finetune.py %s --learning_rate 0.001 --batch_size 128' % options)


def report_ignored(folder, found, lists):
    """Print the files that are not pictures, and the folders without pictures."""
    endings = Counter(os.path.splitext(path)[1].lower() for path in found.others)
    if endings:
        print('Ignored: ' + ', '.join('%d %s' % (count, ending or 'without an ending')
                                      for ending, count in sorted(endings.items())))
    if set(HEIC_ENDINGS) & set(endings):
        print('OpenCV does not read HEIC: convert these to JPEG first, for example '
              'with "mogrify -format jpg *.heic" of ImageMagick.')
    # Every folder that has a picture in it, at any depth.
    used = {parent for pairs in lists.values() for path, _ in pairs
            for parent in pathlib.Path(path).parents}
    empty = [os.path.relpath(str(path), folder) for name in ['', *found.part_of]
             for path in pathlib.Path(folder, name).iterdir()
             if path.is_dir() and path.name[0] != '.' and path not in used]
    if empty:
        print('No pictures in: ' + ', '.join(sorted(empty)))


def main():
    """Write lists of the pictures in a folder, as the command line says."""
    act_as_script()
    parser = Parser(
        description='Write train.txt, val.txt, test.txt and classes.txt for a folder '
        'that has a subfolder for each class, or names like cat.0.jpg. If it is split '
        'into train, val or test, the split is kept, and a missing part is made.')
    parser.add_argument('folder')
    parser.add_argument('--split', nargs=3, type=float, default=[70, 15, 15],
                        metavar=('TRAIN', 'VAL', 'TEST'), help='default: 70 15 15')
    parser.add_argument('--seed', default=0, help='of the random split',
                        type=lambda text: parse(text, integer(0, 2 ** 32 - 1)))
    parser.add_argument('--classes', help='file of class names in label order')
    parser.add_argument('--out', default='.', help='folder for the lists; default: .')
    parser.add_argument('--force', action='store_true', help='overwrite lists')
    args = parser.parse_args()
    shares = args.split
    if not (min(shares) >= 0 and min(shares[:2]) > 0 and sum(shares) < np.inf):
        parser.error('--split: the shares must be 0 or more, those of training and '
                     'validation above 0')
    found = find_pictures(args.folder, args.classes)
    lists = split_pictures(found, dict(zip(LISTS, shares)), args.seed)
    written = write_lists(lists, found.class_names, args)
    report(args.folder, found, lists, written)
