"""Write lists of the pictures in a folder, split at random."""
import hashlib
import itertools
import os
import pathlib
import re
from collections import Counter, namedtuple

import numpy as np

from machinery.download import DEFAULT_WEIGHTS
from machinery.errors import InputError, act_as_script, input_errors
from machinery.find import find_files, is_heic
from machinery.lists import read_class_names
from machinery.parts import find_classes
from machinery.pictures import read_file
from machinery.rules import integer
from machinery.settings import Parser, parse
from machinery.splits import assign, find_groups, pattern
from machinery.text import number_of, quote

LISTS = ['train', 'val', 'test']
Found = namedtuple('Found', [
    'classes',      # {part: {class name, or None without labels: [paths]}}
    'is_split',     # into parts; otherwise all is 'train'
    'class_names',  # in the order of the labels
    'left_out',     # paths of pictures without a class, outside train and test
    'others'])      # paths of the files that are not pictures


def find_pictures(folder, classes_file=None):
    """Return a Found for a folder; classes_file gives the order of the labels."""
    pictures, others = find_files(folder)
    for path in pictures + others:
        if os.path.islink(path) and not os.path.exists(path):
            raise InputError('%s: is a broken link to %s' % (path, os.readlink(path)))
    if not pictures:
        raise InputError('%s: no pictures there' % folder)
    given = read_class_names(classes_file) if classes_file else []
    classes, is_split, left_out = find_classes(folder, pictures, given)
    names = sorted(set().union(*classes.values()) - {None})
    if all(re.fullmatch('[0-9]+', name) for name in names):
        names.sort(key=int)
    unknown = [name for name in names if name not in given]
    if given and unknown:
        raise InputError('%s: no class %s' % (classes_file, ', '.join(unknown)))
    class_names = given or names
    if len(class_names) < 2:
        raise InputError('%s: all pictures are of one class, %s; at least 2 classes '
                         'are needed' % (folder, *names))
    return Found(classes, is_split, class_names, left_out, others)


def read_contents(paths):
    """Return {path: digest of its content}."""
    return {path: hashlib.sha1(read_file(path)[0]).digest() for path in paths}


def split_pictures(found, unit_of, shares, seed):
    """Return {list name: [(path, label or None)]}; shares: {list name: relative size}.

    unit_of: {path: its content or group}. Pictures of one unit stay in one list.
    """
    lists = {part: [(path, label) for label, name in [*enumerate(found.class_names),
                                                      (None, None)]
                    for path in classes.get(name, [])]
             for part, classes in found.classes.items()}
    # Missing parts are taken from the training pictures; others stay as they are.
    new = [name for name in LISTS
           if name == 'train' or name not in lists and shares[name]]
    train = lists['train']
    units_of = {}
    for path, label in train:
        units_of.setdefault(label, set()).add(unit_of[path])
    share_of = assign(units_of, [shares[name] for name in new], seed)
    lists.update({name: [] for name in new})
    for path, label in train:
        lists[new[share_of[unit_of[path]]]].append((path, label))
    # Two pictures per class leave test empty: drop it. main refuses an empty val.
    return {name: lists[name] for name in LISTS if lists.get(name) or name == 'val'}


def path_from(folder, path):
    """Return the path of a picture relative to a folder, which may be a link."""
    try:
        path = os.path.relpath(os.path.abspath(path), os.path.realpath(folder))
    except ValueError:  # another drive on Windows
        return os.path.abspath(path)
    return os.path.join('.', path)  # a # at the start would make it a comment


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
        lines[name] = [path_from(args.out, path) +
                       ('' if label is None else ' %d' % label)
                       for path, label in pairs]
    lines['classes'] = class_names
    os.makedirs(args.out, exist_ok=True)
    for path in taken:
        os.remove(path)  # not every list is written each time
    for name in lines:
        with open(paths[name], 'w', encoding='utf-8') as file:
            file.writelines(line + '\n' for line in lines[name])
    return {name: paths[name] for name in lines}


def report(folder, found, lists, written):
    """Print the size of each list, warnings, and the command to train."""
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
    report_ignored(pathlib.Path(folder), found)
    if found.is_split:
        made = ['; %s.txt was taken from its part for training' % name
                for name in lists if name not in found.classes]
        print('%s is already split; the split was kept%s%s' % (
            folder, ''.join(made), '' if labelled == list(lists) else
            '; test.txt has no labels: it is for predict.py'))
    print('Wrote %s' % ', '.join(written.values()))
    options = ' '.join('--%s_file %s' % (name, quote(written[name]))
                       for name in labelled + ['classes'])
    with_weights = '--learning_rate 0.001 --batch_size 128'
    has_weights = os.path.exists(DEFAULT_WEIGHTS)
    print('Next: python finetune.py %s %s' % (
        options, with_weights if has_weights else '--weights_path None'))
    if not has_weights:
        print('For the pretrained weights, run python alexnet.py first, and replace '
              '--weights_path None with %s' % with_weights)


def report_ignored(folder, found):
    """Print the files that are in no list, and the folders without pictures."""
    left_out = Counter(map(os.path.dirname, found.left_out))
    for place, count in sorted(left_out.items()):
        print('Left out: %s without a class in %s' % (number_of(range(count)), place))
    endings = Counter(os.path.splitext(path)[1].lower() for path in found.others)
    if endings:
        print('Ignored: ' + ', '.join('%d %s' % (count, ending or 'without an ending')
                                      for ending, count in sorted(endings.items())))
    if any(map(is_heic, found.others)):
        print('OpenCV does not read HEIC: convert these to JPEG first, for example '
              'with "mogrify -format jpg *.heic" of ImageMagick.')
    pictures = itertools.chain(found.left_out, *[
        paths for classes in found.classes.values() for paths in classes.values()])
    used = {place for path in set(map(os.path.dirname, pictures))
            for place in [pathlib.Path(path), *pathlib.Path(path).parents]
            if place == folder or folder in place.parents}
    empty = [str(path.relative_to(folder)) for place in used for path in place.iterdir()
             if path not in used and path.name[0] != '.' and path.is_dir()]
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
    parser.add_argument('--group', metavar='REGEX', type=pattern, help='keep '
                        'pictures together if this part of their paths is equal, for '
                        r"example a patient's number: 'patient(\d+)'")
    parser.add_argument('--classes', help='file of class names in label order')
    parser.add_argument('--out', default='.', help='folder for the lists; default: .')
    parser.add_argument('--force', action='store_true', help='overwrite lists')
    args = parser.parse_args()
    shares = args.split
    if not (min(shares) >= 0 and min(shares[:2]) > 0 and sum(shares) < np.inf):
        parser.error('--split: the shares must be 0 or more, those of training and '
                     'validation above 0')
    found = find_pictures(args.folder, args.classes)
    train = itertools.chain(*found.classes['train'].values())
    unit_of = read_contents(train) if args.group is None else find_groups(
        args.folder, train, args.group)
    lists = split_pictures(found, unit_of, dict(zip(LISTS, shares)), args.seed)
    if not lists['val']:
        raise InputError('%s: too few %s for a val.txt' % (
            args.folder, 'groups' if args.group else 'pictures'))
    written = write_lists(lists, found.class_names, args)
    if shares[2] and 'test' not in lists:
        print('Warning: too few pictures for a test.txt')
    report(args.folder, found, lists, written)
