"""Find parts (train, val, test) and classes in the names of folders and pictures."""
import itertools
import os
import re

from machinery.errors import InputError

PART_OF = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val',
           'validation': 'val', 'dev': 'val', 'test': 'test', 'testing': 'test'}
WAY_OUT = 'if these are classes, name all classes in a file for --classes'


def part_in(name):
    """Return the part named by a word in a folder's name (seg_train2), or None."""
    words = re.sub('([a-z])([A-Z])', r'\1 \2', name).lower()  # trainingSet is two words
    parts = {PART_OF.get(word) for word in re.findall(r'[^\W\d_]+', words)} - {None}
    return parts.pop() if len(parts) == 1 else None


def class_in(path):
    """Return the class in a file name like cat.0.jpg, or None."""
    match = re.fullmatch(r'([^.]+)\.\d+(\.[^.]+)?', os.path.basename(path))
    return match.group(1) if match and match.group(1).strip() else None


def some(names):
    """Return the first three names as text; if there are more, also their number."""
    names = sorted(names)
    return ', '.join(names[:3]) + (', ... (%d)' % len(names) if len(names) > 3 else '')


def find_classes(folder, paths, class_names=()):
    """Return {part: {class name: [paths]}}, whether it is split, and paths left out.

    A class is a subfolder. Without subfolders, a file name like cat.0.jpg starts with
    the class. Test pictures may have no classes: then their class is None. Without
    parts, everything is 'train'. A name in class_names is always a class.
    """
    members = []
    for path in paths:
        parents = tuple(os.path.relpath(path, folder).split(os.sep)[:-1])
        if ('\n' in path or path.encode(errors='ignore').decode() != path
                or not all(map(str.strip, parents))):
            raise InputError('%r: cannot be written to a list: it is not UTF-8, has a '
                             'line break, or has a blank class name' % path)
        members.append((parents, path))
    class_names = set(class_names)
    names = set().union(*(parents for parents, _ in members))
    part_of = {name: part_in(name) for name in names if part_in(name)}
    groups, left_out = find_parts(folder, members, part_of, class_names)
    depth = count_wrappers(list(itertools.chain(*groups.values())), part_of)
    check_depth(folder, class_names, {
        parents[depth:] for (part, *_), members in groups.items() if part == 'train'
        for parents, _ in members})
    classes = {}
    for (part, *_), members in groups.items():
        nested = any(len(parents) > depth for parents, _ in members)
        for parents, path in members:
            name = (*parents[depth:], '')[0] if nested else class_in(path)
            classes.setdefault(part, {}).setdefault(name, []).append(path)
    for part, found in classes.items():
        # A single folder, and not a class in training: test/unknown/1.jpg
        if len(found) == 1 and not set(found) & {*classes['train'], *class_names}:
            classes[part] = {None: sum(found.values(), [])}
    if len(classes.get('test', ())) > 1:  # test1/1.jpg may lie next to Test/cat
        left_out += classes['test'].pop(None, [])
    check_classes(classes)
    return classes, ('train',) not in groups, left_out


def count_wrappers(members, part_of):
    """Return how many folders hold all pictures, not counting their class's folder."""
    shared = os.path.commonprefix([parents for parents, _ in members])
    inside = [path for parents, path in members if parents == shared]
    is_class = (shared and inside and shared[-1] not in part_of
                and not any(map(class_in, inside)))
    return len(shared) - bool(is_class)


def find_parts(folder, members, part_of, class_names):
    """Return {(part, its folders ...): members}, and paths left out.

    All parts are at the same level: the first in train/cat, the second in cat/train.
    The returned members lack this level and any folders around all pictures.
    """
    start = count_wrappers(members, part_of)
    wrappers = members[0][0][:start]
    members = [(parents[start:], path) for parents, path in members]
    levels = [{level for level, name in enumerate(parents) if name in part_of}
              for parents, _ in members]
    if class_names:
        is_class = [{level for level, name in enumerate(parents) if name in class_names}
                    for parents, _ in members]
        levels = [here - set.intersection(*is_class) for here in levels]
    # A level at which every picture is in a part, or else the first level with a part.
    level = [*sorted(set.intersection(*levels)), *sorted(set.union(*levels)), None][0]
    if level is None:
        parts = [name for name in wrappers if name in part_of]
        if parts and part_of[parts[-1]] != 'train':
            raise InputError('%s has only the part %s, no part train; to split it, '
                             'give its own path' % (folder, parts[-1]))
        return {('train',): members}, []
    groups, strays = {}, []
    for here, (parents, path) in zip(levels, members):
        if level in here:
            key = (part_of[parents[level]], *parents[:level + 1])
            groups.setdefault(key, []).append((parents, path))
        else:
            strays.append((parents, path))
    for (part, *_), inside in groups.items():
        shared = os.path.commonprefix([parents for parents, _ in inside])[level:]
        # More than 1 if a zip was unpacked twice: train/train/cat
        depth = len(list(itertools.takewhile(
            lambda name: part_of.get(name) == part, shared)))
        inside[:] = [(parents[:level] + parents[level + depth:], path)
                     for parents, path in inside]
    check_parts(folder, groups, strays)
    return groups, [path for _, path in strays]


def check_parts(folder, groups, strays):
    """Raise an InputError if train is missing, or a picture outside may have a class.

    Next to train and test, a folder without classes, such as seg_pred, may be left out.
    """
    parts = {part for part, *_ in groups}
    is_above = len({tuple(names[1:-1]) for names in groups}) == 1
    inner = {name for members in groups.values() for parents, _ in members
             for name in parents}
    faults = ['has no part train'] if 'train' not in parts else [
        '%s is in none of these parts: move it' % path for parents, path in strays
        if len(parts) < 2 or not is_above or len(set(parents)) > 1
        or inner & set(parents)]
    if faults:
        raise InputError('%s is split into %s, but %s; %s' % (
            folder, some({names[-1] for names in groups}), faults[0], WAY_OUT))


def check_classes(classes):
    """Raise an InputError if a picture has no class."""
    for part, found in classes.items():
        if '' in found:
            raise InputError('%s: is next to the class folders: move it into one of '
                             'them, or remove it' % found[''][0])
        if None in found and part != 'test':
            raise InputError('%s: is neither in a class folder nor named like cat.0.jpg'
                             % found[None][0])


def check_depth(folder, class_names, places):
    """Raise an InputError if classes may be parts, or one level deeper (a/airfield).

    They may be deeper if at least half of the class folders hold only folders, whose
    names differ by more than digits (unlike cat/2019 and dog/2020), or if a class
    folder holds a folder named like another (data/cat next to cat). With class_names
    they cannot be.
    """
    # Never train on test pictures. But train may well be a class, as in CIFAR-100.
    odd = {name for name in set().union(*places) - class_names
           if part_in(name) in ('val', 'test')}
    if odd:
        raise InputError('%s has %s inside of other parts or classes; %s' % (
            folder, some(odd), WAY_OUT))
    held = {}  # {class folder: names of the folders in it, '' for pictures}
    for name, *below in filter(None, places):
        held.setdefault(name, set()).add((below or [''])[0])
    deeper = {(name, sub) for name, subs in held.items() for sub in subs - {'', name}}
    upper = [name for name, subs in held.items() if '' not in subs]
    kinds = {re.sub('[0-9]', '', sub) for _, sub in deeper}
    twice = any(name in upper and sub in held for name, sub in deeper)
    if not class_names and (
            2 * len(upper) >= len(held) and len(kinds) > 1 or twice):
        raise InputError(
            '%s: are the classes the %d folders %s, or the %d in them, %s? If they are '
            'the upper ones, name all classes in a file for --classes; otherwise move '
            'the lower ones up' % (folder, len(held), some(held), len(deeper), some(
                '/'.join(pair) for pair in deeper)))
