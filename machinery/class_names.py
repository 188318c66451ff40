"""Names of the classes: of a run, of a network, and of classes.txt next to a list."""
import os

from machinery import ROOT
from machinery.batches import has_files
from machinery.lists import read_class_names
from machinery.model_file import read_model
from machinery.settings import InputError
from machinery.weights import num_classes_of


def choose_class_names(classes_file, data, num_classes, resumed):
    """Return the names of the classes for a run.

    'DEFAULT' means those of the run being resumed, or classes.txt next to the training
    list, or numbers.

    Args:
        data: generator of the training pictures.
        resumed: the checkpoint that is resumed, or None.

    Raises:
        InputError: as read_class_names.
    """
    if classes_file != 'DEFAULT':
        return read_class_names(classes_file, num_classes)
    try:
        found = resumed and read_model(resumed).get('class_names')
    except InputError:  # reported later, when the file is written again
        found = None
    beside = has_files(data) and names_beside(data.class_list)
    if not found and beside and os.path.exists(beside):
        found = read_class_names(beside)
        if len(found) != num_classes:
            print('Warning: %s names %d classes, but num_classes is %d; so they go by '
                  'their numbers' % (beside, len(found), num_classes))
    return found if found and len(found) == num_classes else (
        read_class_names(None, num_classes))


def names_beside(list_path):
    """Return the path of classes.txt next to a list."""
    return os.path.join(os.path.dirname(list_path), 'classes.txt')


def warn_of_other_names(list_path, class_names):
    """Warn if classes.txt next to a list names other classes than the network's."""
    beside = names_beside(list_path)
    if os.path.exists(beside) and class_names != read_class_names(None,
                                                                  len(class_names)):
        found = read_class_names(beside)
        if found != class_names:
            print('Warning: by %s, the classes are %.200s; those of the network are '
                  '%.200s. Is it the right one?' % (beside, ', '.join(found),
                                                    ', '.join(class_names)))


def find_class_names(weights_path, layer):
    """Return the names from model.json beside the weights, ImageNet's, or numbers.

    Args:
        layer: name of the last layer, which tells how many they are.
    """
    num_classes = num_classes_of(weights_path, layer)
    class_names = read_model(weights_path).get('class_names', [])
    if len(class_names) == num_classes:
        return class_names
    if num_classes == 1000:
        imagenet_file = os.path.join(ROOT, 'images', 'imagenet_classes.txt')
        return [line.split(' ', 1)[1] for line in read_class_names(imagenet_file, 1000)]
    return read_class_names(None, num_classes)
