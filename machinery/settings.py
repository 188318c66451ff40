"""The variables at the top of a script: changed by the command line, and checked."""
import argparse
import ast
import contextlib
import difflib
import os
import re
import sys


class InputError(ValueError):
    """A mistake of the user: scripts show only its message and end with status 2."""


@contextlib.contextmanager
def input_errors():
    """Turn the system's errors about files into InputErrors; also a decorator."""
    try:
        yield
    except OSError as error:
        raise InputError('%s: %s' % (error.filename, error.strerror)
                         if error.filename else str(error)) from error


@input_errors()
def open_plain(path):
    """Open a file to read its bytes; a pipe or a device may block or never end."""
    if '\0' in path or os.path.exists(path) and not os.path.isfile(path):
        raise InputError('%r: is no plain file' % path)
    return open(path, 'rb')


def printable(text):
    """Return text with its control characters escaped: file names may have some."""
    return re.sub('[\0-\x1f\x7f-\x9f]', lambda match: repr(match.group())[1:-1], text)


def tell(kind, error, traceback):
    """End a script after an InputError or Ctrl-C with one message, no traceback."""
    if issubclass(kind, InputError):
        message, status = '\n'.join(map(printable, str(error).split('\n'))), 2
    elif issubclass(kind, KeyboardInterrupt):
        message, status = 'Interrupted', 130
    else:
        return sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    print(message, file=sys.stderr)
    sys.exit(status)


sys.excepthook = tell  # now, since the import of TensorFlow takes seconds


# A rule is a pair: words for the values that a variable may have, and a test for them.
def integer(low, high):
    return ('an integer in %d..%d' % (low, high),
            lambda value: type(value) is int and low <= value <= high)


def one_of(*values):
    choices = [repr(value) for value in values]  # which tells True from 1
    return ' or '.join(choices), lambda value: repr(value) in choices


def number(words, test):
    return 'a number ' + words, lambda value: (
        type(value) in (int, float) and test(value))


def or_none(rule):
    return 'None or ' + rule[0], lambda value: value is None or rule[1](value)


def is_names(value):
    return type(value) is list and all(type(name) is str for name in value)


def is_writable(folder):
    """Tell whether a folder can be written to, or else be made."""
    folder = os.path.abspath(folder)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK)


PATH = 'a path', lambda value: type(value) is str and value != ''
FOLDER = 'a folder to write to, or one that can be made', lambda value: (
    PATH[1](value) and is_writable(value))
# TensorFlow does not find the checkpoints of such a path, or finds another's.
PATTERN = r'[][*?\\]'
CHECKPOINTS = FOLDER[0] + r', without [ ] * ? or \ in its path', lambda value: (
    FOLDER[1](value) and not re.search(PATTERN, value))
# The rule for a variable of this name, in every script.
RULES = {
    'train_file': PATH, 'val_file': PATH, 'test_file': or_none(PATH),
    'classes_file': or_none(PATH), 'weights_path': or_none(PATH), 'checkpoint': PATH,
    'predictions_file': PATH, 'confusion_file': PATH, 'features_file': PATH,
    'pictures': ('a path or a list of paths',
                 lambda value: PATH[1](value) or is_names(value)),
    'filewriter_path': FOLDER, 'checkpoint_path': CHECKPOINTS,
    'export_path': or_none(('a folder that does not exist yet and can be made',
                            lambda value: FOLDER[1](value) and
                            not os.path.lexists(value))),
    'cache_dir': or_none(('a folder', lambda value: PATH[1](value) and
                          os.path.isdir(value))),
    'resume': ('True, False or the path of a checkpoint',
               lambda value: type(value) is bool or PATH[1](value)),
    'on_bad_image': one_of('stop', 'skip'),
    'mode': one_of(None, 'training', 'inference'),
    'horizontal_flip': one_of(True, False), 'random_crop': one_of(True, False),
    'cache_features': one_of(True, False),
    'num_classes': integer(2, 10 ** 6), 'num_epochs': integer(1, 10 ** 9),
    'batch_size': integer(1, 10 ** 5), 'display_step': integer(1, 10 ** 9),
    'top_k': integer(1, 10 ** 6), 'seed': integer(0, 2 ** 31),
    'learning_rate': number('above 0', lambda value: 0 < value < float('inf')),
    'dropout_rate': number('in [0, 1)', lambda value: 0 <= value < 1),
    'cache_limit': number('in [0, 1000000)', lambda value: 0 <= value < 10 ** 6),
    'peer_timeout': number('of at least 10', lambda value: 10 <= value < 10 ** 9),
    'train_layers': ('a list of at least one layer',
                     lambda value: is_names(value) and len(value) > 0),
    'skip_layers': or_none(('a list of layers', is_names)),
    'layer': or_none(('the name of a layer', lambda value: type(value) is str))}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors."""

    def error(self, message):
        raise InputError(message)


def parse(text, rule):
    """Return the value that text stands for: a literal that fits the rule, or text."""
    values = [os.path.expanduser(text)]
    with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
        values.insert(0, ast.literal_eval(text))
    for value in values:
        if rule[1](value):
            return value
    raise argparse.ArgumentTypeError('%.200r is not %s' % (text, rule[0]))


def rule_of(name, default):
    """Return the rule for a variable: by its name, or else by its default's type."""
    if name in RULES or default is None:
        return RULES.get(name, ('anything', lambda value: True))
    types = (int, float) if type(default) is float else (type(default),)
    return ('%s, like %r' % (types[-1].__name__, default),
            lambda value: type(value) in types)


def check_value(name, value, default=None):
    """Raise an InputError if a variable must not have this value."""
    words, test = rule_of(name, default)
    if not test(value):
        raise InputError('%s is %.200r, must be %s' % (name, value, words))


def read_settings(script, arguments, positional=None):
    """Change a script's variables as its command line says, check and return them.

    An option has the name of a variable. Its value is a Python literal, or text without
    quotes; a ~ at the start of text becomes the home folder.

    Args:
        script: its globals(); the variables are those with lower-case names and plain
            values. --help shows the comments behind them.
        arguments: list of str, without the name of the script.
        positional: the variable that takes the arguments without an option, as a list.

    Raises:
        InputError: an option is unknown, or a variable must not have its value.
        SystemExit: after --help.
    """
    settings = {name: value for name, value in script.items()
                if name in RULES or name.islower() and name[0] != '_' and
                type(value) in (str, int, float, bool, list, type(None))}
    with open(script['__file__'], encoding='utf-8') as file:
        comments = dict(re.findall('^([a-z_0-9]+) = .*  # (.*)$', file.read(), re.M))

    places = positional + ' ... ' if positional else ''
    parser = Parser(description=script['__doc__'], allow_abbrev=False,
                    usage='%(prog)s ' + places + '--name value ...',
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in settings.items():
        text = '%s (%r)' % (comments.get(name, ''), default)
        parser.add_argument(
            '--' + name, metavar='', default=argparse.SUPPRESS,
            help=text.strip().replace('%', '%%'),
            type=lambda text, rule=rule_of(name, default): parse(text, rule))
    if positional:
        parser.add_argument('positional', nargs='*', default=argparse.SUPPRESS,
                            help=argparse.SUPPRESS)
    namespace, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        name = unknown[0].split('=')[0]
        close = difflib.get_close_matches(name.lstrip('-'), settings, 1, 0.5)
        raise InputError('%.200s is not an option%s; --help shows the options' % (
            name, ', did you mean --%s?' % close[0] if close else ''))
    changed = vars(namespace)
    if 'positional' in changed:
        changed[positional] = changed.pop('positional')
    settings.update(changed)
    # The lists of the sample are in the script's folder, wherever it is started from.
    for name in {'train_file', 'val_file', 'pictures'} & set(settings) - set(changed):
        beside = os.path.join(os.path.dirname(script['__file__']), str(settings[name]))
        if not os.path.exists(str(settings[name])) and os.path.isfile(beside):
            settings[name] = beside

    for name, value in settings.items():
        check_value(name, value, script[name])
    script.update(settings)
    return settings
