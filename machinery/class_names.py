"""Find class names: for a run, for a network, and in classes.txt next to a list."""
import contextlib
import os

import numpy as np

from machinery import ROOT
from machinery.columns import is_integer, is_number
from machinery.errors import InputError
from machinery.files import Damaged
from machinery.label_text import SEPARATOR, are_plain
from machinery.lists import Labels, labels_in, read_class_names
from machinery.model_file import ASSUMED, model_path, read_model
from machinery.weights import num_classes_of


def choose_class_names(settings, run, layer):
    """Return a run's class names, or their numbers as text if there are no names.

    Uses these settings:
        classes_file: 'DEFAULT' means the names of the run being resumed, or those in
            classes.txt next to the training list. Without a file, class names in the
            training list are sorted and used.
        train_file, val_file, test_file: None for your own batches.
        num_classes: the number of names needed; None: see find_num_classes.
        labels: 'class' (at least 2 classes) or 'classes' (1 class is enough).
        pictures_path: see read_list.

    Args:
        run: the Run; layer: the name of the network's last layer.
    """
    train_file, num_classes = settings['train_file'], settings['num_classes']
    least = 2 if settings['labels'] == 'class' else 1
    path, names = find_names(settings, run)
    labels = Labels([], -1)
    if train_file and (not names or are_ambiguous(names)):
        labels = labels_in(train_file, settings['pictures_path'], settings['labels'])
        if labels.names or labels.largest >= 0:  # or else read_list reports faults
            check_other_lists(labels, settings)
    are_listed = not names and labels.names and labels.largest < 0
    if are_listed:
        names = labels.names
    if num_classes is None:
        num_classes = find_num_classes(names, train_file and labels.largest, run, layer,
                                       least)
    if are_listed:
        check_listed(names, num_classes, train_file, least)
    elif names and len(names) != num_classes:
        if settings['classes_file'] != 'DEFAULT':
            read_class_names(path, num_classes)  # raises an InputError
        print('Warning: %s names %d classes, but num_classes is %d, so classes are '
              'shown by number' % (path, len(names), num_classes))
        names = None
    return names or read_class_names(None, num_classes)


def find_names(settings, run):
    """Return the path of the class file, and the names to use; each may be None."""
    train_file, path = settings['train_file'], settings['classes_file']
    if path != 'DEFAULT':
        return path, path and read_class_names(path)
    names = None
    with contextlib.suppress(Damaged):  # reported when the file is written again
        names = run.latest and read_model(run.latest).get('class_names')
    path, beside = names_beside(train_file) if train_file else (None, None)
    if names and beside and beside != names:
        print('Warning: %s names the classes %.200s; the run being resumed keeps its '
              'names, %.200s. To change them, give --classes_file %s'
              % (path, ', '.join(beside), ', '.join(names), path))
    return path, names or beside


def are_ambiguous(names):
    """Tell whether some class names, but not all, look like numbers."""
    return len({bool(is_integer(name)) for name in names}) > 1


def check_other_lists(labels, settings):
    """Raise an InputError if some lists have class names and others have numbers.

    Only a classes_file could tell which name belongs to a number.
    """
    kind = 'names' if labels.names else 'numbers'
    for path in filter(None, [settings['val_file'], settings['test_file']]):
        other = labels_in(path, settings['pictures_path'], settings['labels'])
        other_kind = 'names' if other.names else 'numbers'
        if other_kind != kind and (other.names or other.largest >= 0):
            raise InputError(
                '%s has %s for classes, unlike %s: write names in both, or numbers in '
                'both and the names in a classes_file, in the order of the numbers' % (
                    settings['train_file'], kind, path))


def check_listed(names, num_classes, train_file, least=2):
    """Raise an InputError if a run cannot use the class names of its training list.

    Warns if a name looks like several classes.
    """
    if all(map(is_number, names)):
        raise InputError("%s: labels like %s are not classes: set labels = 'numbers', "
                         'or give a classes_file' % (train_file, names[0]))
    for name in names:
        parts = [part.strip() for part in SEPARATOR.split(name)]
        if set(parts) & set(names) - {name}:
            print("Warning: %r is a class of its own. For several classes per picture, "
                  "set labels = 'classes'" % name)
            break
    if len(names) < least:
        raise InputError('%s: all pictures are of one class, %s; at least 2 classes '
                         'are needed' % (train_file, *names))
    if len(set(map(str.casefold, names))) < len(names):
        raise InputError('%s: the names of some classes differ only in upper and lower '
                         'case: %.500s' % (train_file, ', '.join(names)))
    if len(names) != num_classes:
        raise InputError('%s has names of %d classes, but num_classes is %d: %.200s'
                         % (train_file, len(names), num_classes, ', '.join(names)))


def find_num_classes(names, largest, run, layer, least=2):
    """Count a checkpoint's classes or the names, or return the largest label + 1."""
    if run.is_resumed:  # only the chief knows the checkpoint
        found = num_classes_of(run.latest, layer) if run.workers.is_chief else 0
        return int(run.workers.collect(found, np.int64)[0])
    if not names and largest is None:
        raise InputError('num_classes is None, must be an integer if there is neither '
                         'a list of pictures nor a classes_file')
    found = len(names) if names else largest + 1
    # Generators report labels beyond these limits, with their lines.
    found = min(max(found, least), 10 ** 6)
    run.workers.check_equal({'num_classes': found})
    return found


def names_beside(list_path):
    """Return the path of classes.txt next to a list, and its names, None without it."""
    path = os.path.join(os.path.dirname(list_path), 'classes.txt')
    return path, read_class_names(path) if os.path.exists(path) else None


def warn_of_other_names(list_path, kind, pictures_path):
    """Warn if class numbers in a list may not mean the classes of the network."""
    class_names = kind.names
    if are_plain(class_names):
        return  # the network was trained without names
    path, found = names_beside(list_path)
    is_ambiguous = are_ambiguous(class_names)
    if (is_ambiguous or not found) and not labels_in(
            list_path, pictures_path, kind.name).names:
        if is_ambiguous:
            print('Warning: the labels in %s are read as numbers, but some classes '
                  'have numbers as names' % list_path)
        if not found:
            print('The numbers in %s mean: %.500s' % (list_path, ', '.join(
                '%d %s' % pair for pair in enumerate(class_names))))
    if found and found != class_names:
        print('Warning: %s names the classes %.200s; the network was trained for '
              '%.200s. Is it the right network?'
              % (path, ', '.join(found), ', '.join(class_names)))


def find_class_names(weights_path, layer):
    """Return the names in model.json next to weights, else ImageNet's, else numbers."""
    num_classes, model = num_classes_of(weights_path, layer), read_model(weights_path)
    class_names = model.get('class_names', [])
    if len(class_names) == num_classes:
        return class_names
    path, is_trained = model_path(weights_path), os.path.exists(weights_path + '.index')
    if num_classes == 1000 and not is_trained:  # your own network may have 1000
        if os.path.basename(weights_path) != 'bvlc_alexnet.npy':
            print('%s has 1000 classes, and no names in %s: they get the names of '
                  'ImageNet' % (weights_path, path))
        imagenet_file = os.path.join(ROOT, 'images', 'imagenet_classes.txt')
        return [line.split(' ', 1)[1] for line in read_class_names(imagenet_file, 1000)]
    if model:
        print('Warning: %s names %d classes, but the network has %d: they are shown by '
              'number' % (path, len(class_names), num_classes))
    else:
        print('Warning: %s is missing or empty. Classes are shown by number, and we '
              'assume that pictures are prepared %s' % (path, ASSUMED))
    return read_class_names(None, num_classes)
