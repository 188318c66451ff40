"""The variables at the top of a script: changed by the command line, and checked."""
import argparse
import ast
import contextlib
import difflib
import os
import re

from machinery import ROOT
from machinery.errors import InputError, act_as_script, find_shell
from machinery.rules import SETTINGS, check_value, setting_of


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors."""

    def error(self, message):
        raise InputError(message)

    def format_help(self):
        """Leave out the [] with which argparse marks a value that may be missing."""
        return re.sub(r'(?m)^(  --\w+) \[\]', r'\1   ', super().format_help())


def parse(text, rule):
    """Return text as a Python literal, a text or a list, whichever fits the rule."""
    values = [os.path.expanduser(text)]
    takes_names = rule[1](['fc8']) and not rule[1]([8])
    if takes_names and re.fullmatch(r'\w+(,\w+)*', text):
        values.append(text.split(','))
    with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
        values.insert(0, ast.literal_eval(text))
    for value in values:
        if rule[1](value):
            return value
    raise argparse.ArgumentTypeError('%.200r is not %s' % (text, rule[0]))


def find_settings(script):
    """Return {name: comment} of the variables at the top of a script.

    They are above read_settings, and have a literal as value or a name in SETTINGS.
    """
    if '__file__' in script:
        with open(script['__file__'], encoding='utf-8') as file:
            source = file.read()
    else:  # the last cell of a notebook
        source, shell = script['In'][-1], find_shell()
        if shell:  # %matplotlib, for example, is not Python
            source = shell.transform_cell(source)
    found, lines = {}, source.splitlines()
    for node in ast.parse(source).body:
        # Also as settings.read_settings, or under if __name__ == '__main__'.
        if re.search("(id|attr)='read_settings'", ast.dump(node)) and not isinstance(
                node, ast.FunctionDef):
            break
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        comment = re.search('  # (.*)$', lines[node.lineno - 1])
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and
                 isinstance(part.ctx, ast.Store)]
        for name in names:
            with contextlib.suppress(ValueError):
                if name not in SETTINGS:
                    ast.literal_eval(node.value)
                if name.islower() and name[0] != '_':
                    found[name] = comment.group(1) if comment else ''
    if not found:
        raise InputError('No settings, like num_epochs = 10, stand above read_settings')
    return found


def check_files(settings):
    """Raise an InputError for the first setting whose file does not exist."""
    for name in ('train_file', 'val_file', 'test_file', 'classes_file'):
        path = settings[name]
        if path and os.path.isdir(path):
            raise InputError('%s = %s is a folder; python datagenerator.py FOLDER '
                             'makes lists of its pictures' % (name, path))
        if path not in (None, 'DEFAULT') and not os.path.exists(path):
            raise InputError('%s = %s: No such file or directory' % (name, path))


def check_purpose(settings):
    """Raise an InputError if settings of predict.py exclude each other."""
    chosen = [name for name in ('layer', 'export_path', 'heat_maps') if settings[name]]
    if len(chosen) > 1:
        raise InputError('%s = %r: leave it out, or leave out %s'
                         % (chosen[1], settings[chosen[1]], chosen[0]))


def is_in_sample(list_path):
    """Tell whether a list belongs to the sample."""
    folder = os.path.dirname(os.path.realpath(list_path))
    return folder == os.path.realpath(os.path.join(ROOT, 'images'))


def read_settings(script, arguments, positional=None, has_lists=False):
    """Set a script's variables from its command line, check and return them.

    An option has the name of a variable. Its value is a Python literal, or text without
    quotes; a ~ at the start of text becomes the home folder. A switch alone,
    like --resume, means True.

    Args:
        script: its globals(); --help shows the comments behind the variables.
        arguments: list of str, without the name of the script. In a notebook, they
            belong to the kernel and are ignored.
        positional: the variable for all arguments without an option, as a list.
        has_lists: whether train_file and the other lists must exist.

    Raises:
        InputError: names an unknown option, a wrong value or a missing list.
        SystemExit: after --help.
    """
    act_as_script()
    comments = find_settings(script)
    settings = {name: script[name] for name in comments}

    places = positional + ' ... ' if positional else ''
    parser = Parser(description=script['__doc__'], allow_abbrev=False,
                    argument_default=argparse.SUPPRESS,
                    usage='%(prog)s ' + places + '--name value ...',
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in settings.items():
        text = '%s (%r)' % (comments[name], default)
        parser.add_argument(
            '--' + name, metavar='', help=text.strip().replace('%', '%%'),
            **(dict(nargs='?', const=True) if type(default) is bool else {}),
            type=lambda text, rule=setting_of(name, default).rule: parse(text, rule))
    parser.color = False  # a Stream escapes the colours of Python 3.14
    if positional:
        parser.add_argument('positional', nargs='*', help=argparse.SUPPRESS)
    namespace, unknown = parser.parse_known_intermixed_args(
        arguments if '__file__' in script else [])
    if unknown:
        name, hint = unknown[0].split('=')[0], ''
        close = difflib.get_close_matches(name.lstrip('-'), settings, 1, 0.5)
        if close:
            hint = ', did you mean --%s?' % close[0]
        elif re.fullmatch(r'(conv|fc)\d', name):
            hint = '; separate layers by commas, as in fc8,fc7'
        raise InputError('%.200s is not an option%s; --help shows the options' % (
            name, hint))
    changed = vars(namespace)
    if 'positional' in changed:
        changed[positional] = changed.pop('positional')
    settings.update(changed)
    for name in set(settings) - set(changed):
        beside = os.path.join(ROOT, str(settings[name]))
        if (setting_of(name).is_sample and os.path.isfile(beside) and
                not os.path.exists(str(settings[name]))):
            settings[name] = beside

    for name, value in settings.items():
        check_value(name, value, script[name])
    train_file, val_file = settings.get('train_file', ''), settings.get('val_file', '')
    if ('val_file' not in changed and is_in_sample(val_file) and
            os.path.exists(train_file) and not is_in_sample(train_file)):
        raise InputError('val_file is still the sample\'s, %s, but train_file is %s: '
                         'give a val_file of your own' % (val_file, train_file))
    if settings.get('find_rate') and settings.get('resume'):
        raise InputError('find_rate = True tries rates for a new run: leave out resume')
    if has_lists:
        check_files(settings)
    script.update(settings)
    return settings
