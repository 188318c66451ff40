"""The variables at the top of a script: changed by the command line, and checked."""
import argparse
import ast
import contextlib
import difflib
import os
import re
import sys


class InputError(ValueError):
    """A mistake in what the user gave: settings, lists, pictures, weights, checkpoints.

    Scripts show its message alone and end with status 2.
    """


@contextlib.contextmanager
def input_errors():
    """Turn errors of the operating system about files into InputErrors that name them.

    Serves as a decorator, too.
    """
    try:
        yield
    except OSError as error:
        raise InputError('%s: %s' % (error.filename, error.strerror)
                         if error.filename else str(error)) from error


@input_errors()
def open_plain(path):
    """Open a file to read its bytes, or raise an InputError that names it.

    What is no plain file might never end, or never begin.
    """
    if '\0' in path or os.path.exists(path) and not os.path.isfile(path):
        raise InputError('%r: is no plain file' % path)
    return open(path, 'rb')


def printable(text):
    """Return text with its control characters spelt out, as names may have them."""
    return re.sub('[\0-\x1f\x7f-\x9f]', lambda match: repr(match.group())[1:-1], text)


def tell(kind, error, traceback):
    """Let InputErrors and Ctrl-C end a script with one message, not a traceback."""
    if not issubclass(kind, (InputError, KeyboardInterrupt)):
        return sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    is_interrupt = issubclass(kind, KeyboardInterrupt)
    print('Interrupted' if is_interrupt else
          '\n'.join(map(printable, str(error).split('\n'))), file=sys.stderr)
    sys.exit(130 if is_interrupt else 2)


sys.excepthook = tell  # now, since the import of TensorFlow takes seconds


def integer(low, high):
    """Return the rule for an integer in low..high: words, and a function that tests."""
    return ('an integer in %d..%d' % (low, high),
            lambda value: type(value) is int and low <= value <= high)


def one_of(*values):
    """Return the rule for one of these values."""
    return ' or '.join(map(repr, values)), lambda value: any(
        value is choice or type(value) is str and value == choice for choice in values)


def number(words, test):
    """Return the rule for an integer or a float that passes a test."""
    return 'a number ' + words, lambda value: (
        type(value) in (int, float) and test(value))


def or_none(rule):
    """Return a rule that allows None, too."""
    return 'None or ' + rule[0], lambda value: value is None or rule[1](value)


def is_names(value):
    """Tell whether this is a list of text."""
    return type(value) is list and all(type(name) is str for name in value)


def can_be_made(folder):
    """Tell whether a path is free, and its nearest parent is a folder to write to."""
    parent = os.path.dirname(os.path.abspath(folder))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    return (not os.path.lexists(folder) and os.path.isdir(parent) and
            os.access(parent, os.W_OK))


PATH = 'a path', lambda value: type(value) is str and value != ''
FOLDER = 'a folder to write to, or one that can be made', lambda value: (
    PATH[1](value) and (os.path.isdir(value) and os.access(value, os.W_OK)
                        or can_be_made(value)))
# TensorFlow does not find the checkpoints of such a path, or finds another's.
PATTERN = r'[][*?\\]'
CHECKPOINTS = FOLDER[0] + r', without [ ] * ? or \ in its path', lambda value: (
    FOLDER[1](value) and not re.search(PATTERN, value))
# What variables of these names may be, in whichever script they stand.
RULES = {
    'train_file': PATH, 'val_file': PATH, 'test_file': or_none(PATH),
    'classes_file': or_none(PATH), 'weights_path': or_none(PATH), 'checkpoint': PATH,
    'predictions_file': PATH, 'confusion_file': PATH, 'features_file': PATH,
    'pictures': ('a path or a list of paths',
                 lambda value: PATH[1](value) or is_names(value)),
    'filewriter_path': FOLDER, 'checkpoint_path': CHECKPOINTS,
    'export_path': or_none(('a folder that does not exist yet and can be made',
                            lambda value: PATH[1](value) and can_be_made(value))),
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
    try:
        values.insert(0, ast.literal_eval(text))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        pass
    for value in values:
        if rule[1](value):
            return value
    raise argparse.ArgumentTypeError('%.200r is not %s' % (text, rule[0]))


def rule_of(name, default):
    """Return the rule for a variable: that of its name, or one like its default."""
    if name in RULES or default is None:
        return RULES.get(name, ('anything', lambda value: True))
    types = (int, float) if type(default) is float else (type(default),)
    return ('%s, like %r' % (types[-1].__name__, default),
            lambda value: type(value) in types)


def check_value(name, value, default=None):
    """Raise an InputError that names a variable unless it may have this value."""
    words, test = rule_of(name, default)
    if not test(value):
        raise InputError('%s is %.200r, must be %s' % (name, value, words))


def read_settings(script, arguments, positional=None):
    """Change a script's variables as its command line says, check and return them.

    An option has the name of a variable; its value is a Python literal, and text needs
    no quotes. In front of text, ~ becomes the home folder.

    Args:
        script: the script's globals(). Its variables are the lower-case names in it
            that hold plain values; the comments behind them are shown by --help.
        arguments: list of str, without the name of the script.
        positional: the variable that takes the arguments without an option, as a list.

    Returns:
        {name: value} of all variables, in the order of the script.

    Raises:
        InputError: there is no such option, or a variable may not have such a value.
        SystemExit: after --help.
    """
    settings = {name: value for name, value in script.items()
                if name in RULES or name.islower() and name[0] != '_' and
                type(value) in (str, int, float, bool, list, type(None))}
    with open(script['__file__'], encoding='utf-8') as file:
        comments = dict(re.findall('^([a-z_0-9]+) = .*  # (.*)$', file.read(), re.M))

    parser = Parser(
        description=script['__doc__'], allow_abbrev=False, usage='%(prog)s ' + (
            positional + ' ... ' if positional else '') + '--name value ...',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in settings.items():
        text = '%s (%r)' % (comments.get(name, ''), default)
        parser.add_argument(
            '--' + name, metavar='', default=argparse.SUPPRESS,
            help=text.strip().replace('%', '%%'),
            type=lambda text, rule=rule_of(name, default): parse(text, rule))
    if positional:
        parser.add_argument('positional', nargs='*', help=argparse.SUPPRESS)
    namespace, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        name = unknown[0].split('=')[0]
        close = difflib.get_close_matches(name.lstrip('-'), settings, 1, 0.5)
        raise InputError('%.200s is not an option%s; --help shows the options' % (
            name, ', did you mean --%s?' % close[0] if close else ''))
    changed = vars(namespace)
    places = changed.pop('positional', None)
    settings.update(changed, **{positional: places} if places else {})
    for name in {'train_file', 'val_file', 'pictures'} & set(settings) - set(changed):
        value = settings[name]  # the sample is where the script is
        if type(value) is str and not os.path.exists(value):
            beside = os.path.join(os.path.dirname(script['__file__']), value)
            settings[name] = beside if os.path.isfile(beside) else value

    for name, value in settings.items():
        check_value(name, value, script[name])
    script.update(settings)
    return settings
