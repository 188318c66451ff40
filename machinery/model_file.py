"""model.json next to a checkpoint: how it was made, for predict.py and for resuming.

For an .npy file it has the file's own name: my.json next to my.npy.
"""
import contextlib
import json
import os
import zlib

import numpy as np

from machinery import ROOT
from machinery.batches import check_uint8, has_files, has_list
from machinery.errors import InputError, input_errors
from machinery.files import Damaged, read_json, write_whole
from machinery.rules import integer, is_names, or_none, setting_of
from machinery.settings import is_in_sample
from machinery.tf1 import tf

# predict.py assumes this if there is no model.json.
ASSUMED = 'without random_crop, and JPEGs are decoded at a smaller scale'
# Earlier versions decoded every JPEG in full, and squashed pictures.
OF_EARLIER = {'reducing_gap': None, 'resize': 'squash'}
TEST_PICTURE = os.path.join(ROOT, 'images', 'cat.jpg')


def model_path(weights_path):
    """Return the path of the model.json of a checkpoint or weight file."""
    start, ending = os.path.splitext(weights_path)
    return start + '.json' if ending == '.npy' else os.path.join(
        os.path.dirname(weights_path), 'model.json')


@input_errors()
def write_model(path, model):
    """Write a model.json, whole or not at all."""
    with write_whole(path, 'w') as file:
        json.dump(model, file, indent=2)


def read_model(weights_path):
    """Return the content of these weights' model.json, {} without the file.

    Raises Damaged if an entry fails its test in USED.
    """
    path = model_path(weights_path)
    try:
        model = read_json(path) or {}
        for name in USED.keys() & model.keys():
            if not USED[name](model[name]):
                raise Damaged('%s: damaged (%s is %.200r)' % (path, name, model[name]))
        for name in ('mean', 'deviation') if model.get('labels') == 'numbers' else ():
            if len(model.get(name, [])) != len(model.get('class_names', [])):
                raise Damaged('%s: damaged (%s must have a number for each of '
                              'class_names)' % (path, name))
    except Damaged as error:
        raise Damaged('%s; remove it, or let finetune.py --resume=True write it again'
                      % error) from error
    return model


def is_path(value):
    """Tell whether a value may be a path, even if it is not UTF-8."""
    try:
        return '\0' not in value.encode('utf-8', 'surrogateescape').decode('latin-1')
    except (AttributeError, UnicodeEncodeError):
        return False


def are_class_names(value):
    """Tell whether a value is a list of names in UTF-8."""
    return is_names(value) and all(
        name and name == name.encode('utf-8', 'ignore').decode() for name in value)


def are_numbers(value):
    """Tell whether a value is a list of numbers, none of them NaN."""
    return type(value) is list and all(
        type(number) in (int, float) and abs(number) < 1e30 for number in value)


def is_preprocessing(value):
    """Tell whether a value has load_image's arguments; a summary is optional."""
    value = value if type(value) is dict else {}
    size, gap = value.get('size'), value.get('reducing_gap')
    return (type(size) is list and list(map(type, size)) == [int, int] and
            0 < min(size) <= max(size) < 10 ** 4 and
            integer(0, 10 ** 4)[1](value.get('margin')) and
            (gap is None or are_numbers([gap]) and gap > 0) and
            setting_of('resize').rule[1](value.get('resize', 'squash')) and
            are_numbers(value.get('minus_mean', [])) and
            are_numbers(value.get('test') or []))


# The entries of model.json in use, each with a test of its value.
USED = {
    'settings': lambda value: type(value) is dict and all(
        is_path(value.get(name, '')) for name in ('train_file', 'filewriter_path')),
    'class_names': are_class_names, 'train_layers': is_names,
    'labels': setting_of('labels').rule[1],
    'mean': are_numbers, 'deviation': are_numbers,
    **dict.fromkeys(['best_by', 'val_list', 'pictures_path'],
                    or_none(('', is_path))[1]),
    'lists': lambda value: type(value) is dict and all(
        type(digest) is int for digest in value.values()),
    'preprocessing': or_none(('', is_preprocessing))[1]}


def describe(facts, session, model, pictures, load_image, data, val_data, kind,
             optimizer):
    """Add to the facts for model.json, which so far hold only the settings."""
    settings, preprocessing, count = facts['settings'], None, data.data_size
    if has_files(data):
        count = len(data.paths)  # of all workers
        preprocessing = dict(data.preprocessing, test=summarize(
            session, model, pictures, load_image, data.preprocessing))
    settings['num_classes'] = kind.width
    settings['training pictures'] = count
    settings['optimizer'] = dict(
        {name.lstrip('_'): value for name, value in vars(optimizer).items()
         if type(value) in (int, float)}, kind=type(optimizer).__name__)
    lists = {'train_file': data, 'val_file': val_data}
    pictures_path = settings.get('pictures_path')
    facts.update(
        val_list=os.path.abspath(val_data.class_list) if has_list(val_data) else None,
        pictures_path=pictures_path and os.path.abspath(pictures_path),
        lists={name: digest_of(listed) for name, listed in lists.items()
               if has_files(listed)},
        network='AlexNet', num_classes=kind.width, class_names=kind.names,
        train_layers=settings['train_layers'], preprocessing=preprocessing,
        versions={'tensorflow': tf.__version__, 'numpy': np.__version__},
        **kind.facts())


def digest_of(data):
    """Return a checksum of a list: its labels, and its pictures' names and sizes."""
    digest = 0
    for path, label in zip(data.paths, data.labels.tolist()):
        size = os.path.getsize(path) if os.path.exists(path) else -1
        digest = zlib.crc32(b'%s %d %s\n' % (
            os.fsencode(os.path.basename(path)), size, str(label).encode()), digest)
    return digest


def summarize(session, model, pictures, load_image, preprocessing):
    """Return the network's input for a test picture, as the means of 8 x 8 parts.

    Means hide the small differences between versions of a decoder. preprocessing:
    the arguments of load_image.
    """
    if not os.path.exists(TEST_PICTURE):
        print('Warning: without %s, we cannot check that pictures are prepared '
              'as in training' % TEST_PICTURE)
        return None
    image = check_uint8(load_image(TEST_PICTURE, **preprocessing))
    [found] = session.run(model.X, {pictures: image[None]})
    height, width = found.shape[0] // 8, found.shape[1] // 8
    parts = found[:8 * height, :8 * width].reshape(8, height, 8, width, -1)
    return [float('%.6g' % value) for value in parts.mean((1, 3)).ravel()]


def check_summary(weights_path, expected, found):
    """Raise an InputError if the summaries from training and from now differ."""
    if not expected or not found:
        return
    if len(found) != len(expected) or not np.allclose(
            found, expected, 0, 0.001 * np.abs(expected).max()):
        raise InputError(
            '%s was trained on pictures that were prepared in another way: undo the '
            'changes to load_image and normalize in datagenerator.py, or train again'
            % weights_path)


def read_preprocessing(weights_path):
    """Return the preprocessing in model.json; {}: unknown; None: your own batches."""
    found = read_model(weights_path).get('preprocessing', {})
    return dict(OF_EARLIER, **found) if found else found


def find_decoding(checkpoint, workers):
    """Return how the run being resumed decodes JPEGs, for ImageDataGenerator.

    Returns {} if unknown. Only the chief knows the checkpoint; it tells the others.
    """
    found = {}
    if checkpoint:
        with contextlib.suppress(Damaged):  # compare_with_earlier reports it
            found = read_preprocessing(checkpoint) or {}
    is_known, gap = workers.collect(
        ['reducing_gap' in found, found.get('reducing_gap') or 0], np.float64)[0]
    return {'reducing_gap': float(gap) or None} if is_known else {}


def find_preprocessing(weights_path, mean, **defaults):
    """Return how a network's pictures are prepared: (arguments of load_image, summary).

    defaults: the arguments for weights without a model.json; mean: normalize's. Raises
    an InputError if training used another size, or subtracted another mean.
    """
    found = read_preprocessing(weights_path)
    if found is None:
        print('Warning: this was trained on batches of your own, but pictures are now '
              'prepared as load_image does by default')
        found = {}
    elif not found and read_model(weights_path):
        print('Warning: %s does not say how pictures were prepared: we assume: %s'
              % (model_path(weights_path), ASSUMED))
    size = tuple(found.get('size', defaults['size']))
    if size != tuple(defaults['size']):
        raise InputError('%s was trained with pictures of %d x %d pixels: set '
                         'IMAGE_SIZE in datagenerator.py to that'
                         % (weights_path, *size))
    if list(found.get('minus_mean', mean)) != list(mean):  # of earlier versions
        raise InputError('%s was trained with the mean %s: set IMAGENET_MEAN in '
                         'datagenerator.py to it' % (weights_path, found['minus_mean']))
    preprocessing = {name: found.get(name, value) for name, value in defaults.items()}
    return dict(preprocessing, size=size), found.get('test')


def check_preprocessing(checkpoint, then, today):
    """Raise an InputError if a resumed run would prepare its pictures differently."""
    for name, of_earlier in OF_EARLIER.items():
        values = [found.get(name, of_earlier) for found in (then, today)]
        if then and today and values[0] != values[1]:
            raise InputError('%s: %s was %s, now it is %s; a run cannot go on with '
                             'pictures that are prepared in another way%s' % (
                                 checkpoint, name, *values,
                                 '; give --resize ' + values[0] if name == 'resize'
                                 else ''))
    if then.get('test') and then['margin'] == today.get('margin'):
        check_summary(checkpoint, then['test'], today['test'])
    elif then.get('test'):
        print('Warning: as random_crop has changed, we cannot check that pictures are '
              'prepared as before')


def compare_with_earlier(checkpoint, facts, log_path=None):
    """Warn of changes in a resumed run, or raise an InputError.

    Returns the name of the score that chose its best checkpoint, and the result of
    why_scores_differ.
    """
    try:
        earlier = read_model(checkpoint)
        before, now = [dict(run['settings'], class_names=run['class_names'],
                            train_layers=sorted(run['train_layers']))
                       for run in (earlier, facts)]
        paths = [run['filewriter_path'] for run in (before, now)]
        preparations = [run['preprocessing'] or {} for run in (earlier, facts)]
        trained_on = before['train_file']
    except (Damaged, KeyError) as error:
        print('Warning: model.json of the run being resumed is missing or damaged, so '
              'changes since then go unnoticed: %s' % error)
        return None, None
    if before['train_layers'] != now['train_layers']:
        raise InputError(
            '%s: train_layers was %s, now it is %s; a run cannot go on like that'
            % (checkpoint, before['train_layers'], now['train_layers']))
    if is_in_sample(now['train_file']) and not is_in_sample(trained_on):
        raise InputError('%s was trained on %s, but train_file is the sample\'s: '
                         'repeat the command of that run, with --resume'
                         % (checkpoint, trained_on))
    if log_path and os.path.exists(log_path) and (
            os.path.realpath(paths[0]) != os.path.realpath(paths[1])):
        raise InputError('%s holds the curves of another run: filewriter_path was %s, '
                         'now it is %s' % (log_path, *paths))
    check_preprocessing(checkpoint, *preparations)
    for name, digest in earlier.get('lists', {}).items():
        if facts['lists'].get(name, digest) != digest:
            print('Warning: the pictures or labels of %s have changed since the run '
                  'being resumed' % facts['settings'][name])
    for name, value in now.items():
        value = json.loads(json.dumps(value))  # a tuple becomes a list, as in the file
        if not setting_of(name).may_change and before.get(name, value) != value:
            print('Warning: %s was %.200r in the run being resumed, now it is %.200r'
                  % (name, before.get(name), value))
    if before['class_names'] != now['class_names']:
        print('The outputs of the network keep their order; only their names change')
    for name in set(before) - set(now):
        print('Warning: %s was %.200r in the run being resumed; there is no such '
              'setting now' % (name, before[name]))
    reason = why_scores_differ(checkpoint, earlier, facts)
    if reason:  # remember it in case the run ends before its next checkpoint
        facts['starts_again_after'] = os.path.basename(checkpoint)
    return earlier.get('best_by'), reason


def why_scores_differ(checkpoint, earlier, facts):
    """Return why scores before and after a checkpoint cannot be compared, or None."""
    margins = [run['preprocessing'] and run['preprocessing'].get('margin')
               for run in (earlier, facts)]
    if None not in margins and margins[0] != margins[1]:
        return 'pictures are prepared in another way'
    if 'lists' in earlier and (
            earlier['lists'].get('val_file') != facts['lists'].get('val_file')):
        return 'the validation list is another one'
    if earlier.get('starts_again_after') == os.path.basename(checkpoint):
        return 'it already did so after this checkpoint'
