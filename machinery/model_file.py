"""model.json beside checkpoints: what predict.py needs to use them, how they were made.

An .npy file has one of its own name instead: my.json beside my.npy.
"""
import json
import os
import zlib

import numpy as np

from machinery import ROOT
from machinery.batches import check_uint8, has_files
from machinery.settings import InputError, input_errors
from machinery.tf1 import tf

# Settings that may change on resume; any other change is a warning.
NOT_COMPARED = ['test_file', 'classes_file', 'on_bad_image', 'num_epochs',
                'skip_layers', 'weights_path', 'cache_features', 'cache_limit',
                'cache_dir', 'display_step', 'filewriter_path', 'checkpoint_path',
                'peer_timeout', 'resume',
                'export_path', 'best_by']  # of earlier versions
TEST_PICTURE = os.path.join(ROOT, 'images', 'cat.jpg')


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
    """Return the content of the model.json of these weights, {} if there is none."""
    path = model_path(weights_path)
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        try:
            return dict(json.load(file))
        except (ValueError, TypeError) as error:
            raise InputError('%s: damaged (%s); remove it, or let finetune.py '
                             '--resume=True write it again' % (path, error))


def copy_model(source, target):
    """Copy the model.json of a weight file to another weight file."""
    if read_model(source):
        write_model(model_path(target), read_model(source))


def describe(facts, session, model, pictures, load_image, data, val_data, class_names,
             optimizer):
    """Add to the facts for model.json what is known once the graph is built.

    Args:
        facts: dict, with the settings in it.
        model, pictures: the AlexNet, and the placeholder that is fed with pictures.
        data, val_data: generators of the training and validation pictures.
    """
    facts['settings']['training pictures'] = (
        len(data.paths) if has_files(data) else data.data_size)
    facts['lists'] = {
        name: digest_of(one) for name, one in [('train_file', data),
                                               ('val_file', val_data)]
        if has_files(one)}
    facts['settings']['optimizer'] = dict(
        {name.lstrip('_'): value for name, value in vars(optimizer).items()
         if type(value) in (int, float)}, kind=type(optimizer).__name__)
    preprocessing = None
    if has_files(data):
        preprocessing = {
            'size': list(data.scale_size), 'margin': data.margin,
            'test': summarize(session, model, pictures, load_image, data.scale_size,
                              data.margin)}
    facts.update(
        network='AlexNet', num_classes=len(class_names), class_names=class_names,
        train_layers=facts['settings']['train_layers'], preprocessing=preprocessing,
        versions={'tensorflow': tf.__version__, 'numpy': np.__version__})


def digest_of(data):
    """Return a number that tells if a list is still the same: names, sizes, labels."""
    digest = 0
    for path, label in zip(data.paths, data.labels.tolist()):
        size = os.path.getsize(path) if os.path.exists(path) else -1
        digest = zlib.crc32(b'%s %d %d\n' % (
            os.fsencode(os.path.basename(path)), size, label), digest)
    return digest


def summarize(session, model, pictures, load_image, size, margin):
    """Return the network's input for a test picture, as the means of 8 x 8 parts.

    Means, because other versions decode a picture a little differently.
    """
    image = check_uint8(load_image(TEST_PICTURE, tuple(size), margin=margin))
    [found] = session.run(model.X, {pictures: image[None]})
    height, width = found.shape[0] // 8, found.shape[1] // 8
    parts = found[:8 * height, :8 * width].reshape(8, height, 8, width, -1)
    return [float('%.6g' % value) for value in parts.mean((1, 3)).ravel()]


def check_summary(weights_path, expected, found):
    """Raise an InputError if pictures are not prepared as they were in training.

    Args:
        expected, found: of summarize, in training and now.
    """
    if expected and not (len(found) == len(expected) and np.allclose(
            found, expected, 0, 0.001 * np.abs(expected).max())):
        raise InputError(
            '%s was trained with pictures that were prepared in another way: undo the '
            'changes to load_image and normalize in datagenerator.py, or train again'
            % weights_path)


def find_preprocessing(weights_path, size, mean):
    """Return how the pictures of a network are prepared: (size, margin, test).

    Args:
        size, mean: as load_image takes them now; the defaults.

    Raises:
        InputError: training subtracted another mean.
    """
    found = read_model(weights_path).get('preprocessing', {})
    if found is None:
        print('Warning: this was trained on batches of your own, but pictures are now '
              'prepared as load_image does by default')
    found = found or {}
    if list(found.get('minus_mean', mean)) != list(mean):  # of earlier versions
        raise InputError('%s was trained with the mean %s: set IMAGENET_MEAN in '
                         'datagenerator.py to it' % (weights_path, found['minus_mean']))
    return found.get('size', size), found.get('margin', 0), found.get('test')


def compare_with_earlier(checkpoint, facts):
    """Warn of all that has changed since the run being resumed.

    Args:
        facts: as describe gives them.

    Raises:
        InputError: other layers were trained, or pictures were prepared in another way.
    """
    try:
        earlier = read_model(checkpoint)
        before, now = [dict(one['settings'], class_names=one['class_names'],
                            train_layers=sorted(one['train_layers']))
                       for one in (earlier, facts)]
    except (InputError, KeyError) as error:
        print('Warning: model.json of the run being resumed is missing or damaged, so '
              'changes since then go unnoticed: %s' % error)
        return
    if before['train_layers'] != now['train_layers']:
        raise InputError('%s: train_layers was %s, now it is %s; a run cannot go on '
                         'like that' % (checkpoint, before['train_layers'],
                                        now['train_layers']))
    then, today = [one['preprocessing'] or {} for one in (earlier, facts)]
    if then.get('test') and then['margin'] == today.get('margin'):
        check_summary(checkpoint, then['test'], today['test'])
    for name, digest in earlier.get('lists', {}).items():
        if facts['lists'].get(name, digest) != digest:
            print('Warning: the pictures or labels of %s have changed since the run '
                  'being resumed' % facts['settings'][name])
    for name in now:
        if name not in NOT_COMPARED and before.get(name, now[name]) != now[name]:
            print('Warning: %s was %.200r in the run being resumed, now it is %.200r'
                  % (name, before[name], now[name]))


def read_score_name(checkpoint):
    """Return the name of the score that chose the best checkpoint, None if unknown."""
    try:
        model = read_model(checkpoint)
        return model.get('best_by', model.get('settings', {}).get('best_by'))
    except InputError:
        return None
