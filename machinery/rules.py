"""The settings of the scripts: their allowed values, and who may vary them."""
import contextlib
import os
import re
import tempfile
from collections import namedtuple

from machinery.errors import InputError


# A rule is a pair: words for the allowed values of a variable, and a test of a value.
def integer(low, high):
    return ('an integer in %d..%d' % (low, high),
            lambda value: type(value) is int and low <= value <= high)


def one_of(*values):
    choices = [repr(value) for value in values]  # not ==, because True == 1
    return ' or '.join(choices), lambda value: repr(value) in choices


def number(words, test):
    return 'a number ' + words, lambda value: (
        type(value) in (int, float) and test(value))


def or_none(rule):
    return 'None or ' + rule[0], lambda value: value is None or rule[1](value)


def is_names(value):
    return type(value) is list and all(type(name) is str for name in value)


def is_writable(folder, name=''):
    """Tell whether a folder, which need not exist, can be made and hold this file.

    This is tried, because os.access ignores quotas, long names, /proc and servers.
    """
    folder, place = os.path.abspath(folder), None
    with contextlib.suppress(OSError, ValueError):  # ENAMETOOLONG, a null byte
        while not place:
            try:
                os.lstat(folder)
                place = folder
            except FileNotFoundError:
                folder = os.path.dirname(folder)
        with tempfile.NamedTemporaryFile(dir=place, prefix=name, suffix='.part'):
            return True
    return False


def is_new_file(path):
    """Tell whether a path does not exist yet, in a writable folder."""
    folder, name = os.path.split(path)
    return name and not os.path.lexists(path) and os.path.isdir(folder or '.') and (
        is_writable(folder, name))


PATH = 'a path', lambda value: type(value) is str and value != ''
PICTURES = 'a path or a list of paths', lambda value: PATH[1](value) or is_names(value)
EXISTING = 'a folder that exists', lambda value: PATH[1](value) and os.path.isdir(value)
FOLDER = 'a folder to write to, or one that can be made', lambda value: (
    PATH[1](value) and is_writable(value))
# In a path with these marks, TensorFlow finds no checkpoints, or those of another path.
# On Windows, backslashes are replaced with slashes first.
PATTERN, MARKS = ((r'[][*?]', '[ ] * ?') if os.sep == '\\' else
                  (r'[][*?\\]', '[ ] * ? or \\'))
CHECKPOINTS = FOLDER[0] + ', without %s in its path' % MARKS, lambda value: (
    FOLDER[1](value) and not re.search(PATTERN, value))
NEW_FOLDER = 'a folder that does not exist yet and can be made', lambda value: (
    FOLDER[1](value) and not os.path.lexists(value))
NEW_FILE = 'a file that does not exist yet, in a folder to write to', lambda value: (
    PATH[1](value) and is_new_file(value))
LAYERS = 'a list of at least one layer', lambda value: (
    is_names(value) and len(value) > 0)

Setting = namedtuple('Setting', 'rule may_change may_differ is_sample',
                     defaults=[False, False, False])
# The settings of all scripts. rule: for the value; may_change: a resumed run may have
# another value without a warning; may_differ: the workers of a run may have different
# values; is_sample: the default is one of the sample's lists in the script's folder,
# even if the script is started elsewhere.
SETTINGS = {
    'train_file': Setting(PATH, may_differ=True, is_sample=True),
    'val_file': Setting(PATH, may_differ=True, is_sample=True),
    'test_file': Setting(or_none(PATH), True, True),
    'labels': Setting(one_of('class', 'classes', 'numbers')),
    'classes_file': Setting(or_none(PATH), True, True),
    'pictures_path': Setting(or_none(EXISTING), True, True),
    'on_bad_image': Setting(one_of('stop', 'skip'), may_change=True),
    'num_classes': Setting(or_none(integer(2, 10 ** 6))),
    'horizontal_flip': Setting(one_of(True, False)),
    'resize': Setting(one_of('squash', 'crop', 'pad')),
    'random_crop': Setting(one_of(True, False)),
    'learning_rate': Setting(number('above 0', lambda value: 0 < value < float('inf'))),
    'find_rate': Setting(one_of(True, False), may_change=True),
    'num_epochs': Setting(integer(1, 10 ** 9), may_change=True),
    'batch_size': Setting(integer(1, 10 ** 5)),
    'dropout_rate': Setting(number('in [0, 1)', lambda value: 0 <= value < 1)),
    'train_layers': Setting(LAYERS),
    'skip_layers': Setting(or_none(('a list of layers', is_names)), may_change=True),
    'weights_path': Setting(or_none(PATH), True, True),
    'seed': Setting(integer(0, 2 ** 31)),
    'cache_features': Setting(one_of(True, False), may_change=True),
    'features_path': Setting(or_none(FOLDER), True, True),
    'features_limit': Setting(
        number('in [0, 1000000)', lambda value: 0 <= value < 10 ** 6), True, True),
    'display_step': Setting(integer(1, 10 ** 9), may_change=True),
    'filewriter_path': Setting(FOLDER, True, True),
    'checkpoint_path': Setting(CHECKPOINTS, True, True),
    'peer_timeout': Setting(
        number('of at least 10', lambda value: 10 <= value < 10 ** 9), True),
    'keep': Setting(integer(1, 10 ** 6), may_change=True),
    'resume': Setting((
        'True, False, the number of a run from 1, or the path of a checkpoint',
        lambda value: type(value) is bool or type(value) is int and value > 0 or
        PATH[1](value) and not value.isdigit()), True, True),
    'checkpoint': Setting(PATH), 'pictures': Setting(PICTURES, is_sample=True),
    'top_k': Setting(integer(1, 10 ** 6)),
    'unknown_below': Setting(number('in [0, 1)', lambda value: 0 <= value < 1)),
    'layer': Setting(or_none((
        'the name of a layer', lambda value: type(value) is str))),
    'export_path': Setting(or_none(NEW_FOLDER)),
    'heat_maps': Setting(or_none(FOLDER)), 'predictions_path': Setting(FOLDER),
    'predictions_file': Setting(or_none(NEW_FILE)),
    'confusion_file': Setting(or_none(NEW_FILE)),
    'features_file': Setting(or_none(NEW_FILE))}


def setting_of(name, default=None):
    """Return the Setting of a name; a user's own setting must be like its default."""
    if name in SETTINGS:
        return SETTINGS[name]
    if default is None:
        return Setting(('anything', lambda value: True))
    types = (int, float) if type(default) is float else (type(default),)
    return Setting(('%s, like %r' % (types[-1].__name__, default),
                    lambda value: type(value) in types))


def check_value(name, value, default=None):
    """Raise an InputError unless a variable may have this value."""
    words, test = setting_of(name, default).rule
    if not test(value):
        raise InputError('%s is %.200r, must be %s' % (name, value, words))
