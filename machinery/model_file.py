"""model.json beside checkpoints: what it takes to use them, and how they were made.

Beside an .npy file, it has the file's name instead, as my.json.
"""
import json
import os
import zipfile
import zlib

import numpy as np

from machinery.lists import read_class_names
from machinery.settings import InputError, input_errors
from machinery.weights import num_classes_of

# Settings that may differ in a run that is resumed; it is warned of all others.
NOT_COMPARED = ['test_file', 'classes_file', 'on_bad_image', 'num_epochs',
                'skip_layers', 'weights_path', 'cache_features', 'cache_limit',
                'cache_dir', 'display_step', 'filewriter_path', 'checkpoint_path',
                'export_path', 'peer_timeout', 'resume']


def model_path(weights_path):
    """Return the path of the model.json of a checkpoint or weight file."""
    start, ending = os.path.splitext(weights_path)
    return start + '.json' if ending == '.npy' else os.path.join(
        os.path.dirname(weights_path), 'model.json')


@input_errors()
def write_model(path, model):
    """Write a model.json, whole or not at all."""
    with open(path + '.part', 'w') as file:
        json.dump(model, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.part', path)


@input_errors()
def read_model(weights_path):
    """Return what the model.json of these weights holds; {} where there is none."""
    path = model_path(weights_path)
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        try:
            return dict(json.load(file))
        except (ValueError, TypeError) as error:
            raise InputError('%s: damaged (%s); remove it, or let finetune.py '
                             '--resume=True write it anew' % (path, error))


def copy_model(source, target):
    """Give the model.json of a weight file to another one, too."""
    if read_model(source):
        write_model(model_path(target), read_model(source))


def find_preprocessing(weights_path, default):
    """Return the size, mean and margin that the weights were trained with."""
    found = read_model(weights_path).get('preprocessing', {})
    if found is None:
        print('Warning: this was trained on batches of your own, but pictures are now '
              'prepared as load_image does by default')
    return (found['size'], found['minus_mean'], found.get('margin', 0)) if (
        found) else default


def choose_class_names(classes_file, train_file, num_classes, resumed):
    """Return the names of the classes for a run.

    By 'DEFAULT' they are those of the run being resumed, or of classes.txt beside the
    training list, or numbers.

    Args:
        resumed: the checkpoint that is resumed, or None.

    Raises:
        InputError: as read_class_names.
    """
    if classes_file != 'DEFAULT':
        return read_class_names(classes_file, num_classes)
    beside = os.path.join(os.path.dirname(train_file), 'classes.txt')
    try:
        found = resumed and read_model(resumed).get('class_names')
    except InputError:  # which is told later, and mended
        found = None
    if not found and os.path.exists(beside):
        found = read_class_names(beside)
        if len(found) != num_classes:
            print('Warning: %s names %d classes, but num_classes is %d; so they go by '
                  'their numbers' % (beside, len(found), num_classes))
    return found if found and len(found) == num_classes else (
        read_class_names(None, num_classes))


def warn_of_other_names(list_path, class_names):
    """Warn if classes.txt beside a list names other classes than the network's."""
    beside = os.path.join(os.path.dirname(list_path), 'classes.txt')
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
        imagenet_file = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(
            __file__))), 'images', 'imagenet_classes.txt')
        return [line.split(' ', 1)[1] for line in read_class_names(imagenet_file, 1000)]
    return read_class_names(None, num_classes)


def warn_of_changes(checkpoint, model):
    """Compare the model.json of a run being resumed with what it would be now.

    Raises:
        InputError: other layers were trained, or best_by was another score.
    """
    try:
        before, now = [dict(one['settings'], class_names=one['class_names'],
                            train_layers=sorted(one['train_layers']))
                       for one in (read_model(checkpoint), model)]
    except (InputError, KeyError) as error:
        print('Warning: there is no telling what has changed since the run being '
              'resumed, whose model.json is missing or damaged: %s' % error)
        return
    for name in ('train_layers', 'best_by'):
        if before.get(name, now[name]) != now[name]:
            raise InputError('%s: %s was %s, now it is %s; a run cannot go on like that'
                             % (checkpoint, name, before[name], now[name]))
    for name in now:
        if name not in NOT_COMPARED and before.get(name, now[name]) != now[name]:
            print('Warning: %s was %.200r in the run being resumed, now it is %.200r'
                  % (name, before[name], now[name]))


def digests_of(data):
    """Return a number for each sample that tells whether a list is still the same.

    It comprises the picture's name and size, and the label.
    """
    return np.array([zlib.crc32(b'%s %d %d' % (
        os.fsencode(os.path.basename(path)), label,
        os.path.getsize(path) if os.path.exists(path) else -1))
        for path, label in zip(data.paths, data.labels.tolist())], np.uint32)


@input_errors()
def write_digests(folder, lists):
    """Write lists.npz, by which a resumed run tells whether its lists have changed.

    Args:
        lists: {name: ImageDataGenerator}.
    """
    path = os.path.join(folder, 'lists.npz')
    with open(path + '.part', 'wb') as file:
        np.savez(file, **{name: digests_of(data) for name, data in lists.items()})
    os.replace(path + '.part', path)


def warn_of_other_lists(checkpoint, lists):
    """Name the first line of each list that differs from the run being resumed."""
    path = os.path.join(os.path.dirname(checkpoint), 'lists.npz')
    if not os.path.exists(path):
        return
    try:
        with np.load(path) as file:
            earlier = {name: file[name] for name in lists}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print('Warning: %s is damaged: %s' % (path, error))
        return
    for name, data in lists.items():
        before, now = earlier[name], digests_of(data)
        count = min(len(before), len(now))
        changed = np.flatnonzero(before[:count] != now[:count])
        if len(changed) or len(before) != len(now):
            sample = changed[0] if len(changed) else min(count, len(now) - 1)
            print('Warning: %s is not as in the run being resumed: there were %d '
                  'pictures, now %d; the first that differs is in line %d' % (
                      data.class_list, len(before), len(now),
                      data.line_numbers[sample]))
