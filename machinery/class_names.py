"""Names of the classes: of a run, of a network, and of classes.txt next to a list."""
import os

from machinery import ROOT
from machinery.batches import has_files
from machinery.errors import InputError
from machinery.lists import read_class_names
from machinery.model_file import read_model
from machinery.weights import num_classes_of


def choose_class_names(classes_file, data, num_classes, resumed):
    """Return the names of the classes for a run, or raise as read_class_names.

    'DEFAULT' means those of the run being resumed, or classes.txt next to the training
    list, or numbers. data is the generator of the training pictures; resumed is the
    checkpoint that is resumed, or None.
    """
    if classes_file != 'DEFAULT':
        return read_class_names(classes_file, num_classes)
    try:
        found = resumed and read_model(resumed).get('class_names')
    except InputError:  # reported later, when the file is written again
        found = None
    if not found and has_files(data):
        path, found = names_beside(data.class_list)
        if found and len(found) != num_classes:
            print('Warning: %s names %d classes, but num_classes is %d, so classes are '
                  'shown by number' % (path, len(found), num_classes))
    if found and len(found) == num_classes:
        return found
    return read_class_names(None, num_classes)


def names_beside(list_path):
    """Return the path of classes.txt next to a list, and its names, None without it."""
    path = os.path.join(os.path.dirname(list_path), 'classes.txt')
    return path, read_class_names(path) if os.path.exists(path) else None


def warn_of_other_names(list_path, class_names):
    """Warn if classes.txt next to a list names other classes than the network's."""
    if class_names == read_class_names(None, len(class_names)):
        return  # the network was trained without names
    path, found = names_beside(list_path)
    if found and found != class_names:
        print('Warning: %s names the classes %.200s; the network was trained for '
              '%.200s. Is it the right network?'
              % (path, ', '.join(found), ', '.join(class_names)))


def find_class_names(weights_path, layer):
    """Return the names from model.json next to the weights, ImageNet's, or numbers.

    layer is the name of the last layer: its width is the number of classes.
    """
    num_classes = num_classes_of(weights_path, layer)
    class_names = read_model(weights_path).get('class_names', [])
    if len(class_names) == num_classes:
        return class_names
    if num_classes == 1000:
        imagenet_file = os.path.join(ROOT, 'images', 'imagenet_classes.txt')
        return [line.split(' ', 1)[1] for line in read_class_names(imagenet_file, 1000)]
    return read_class_names(None, num_classes)
