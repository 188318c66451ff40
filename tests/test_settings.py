"""The variables at the top of a script, and its command line."""
import os
import re
import runpy
import subprocess
import sys

import pytest

from helpers import ROOT, run_program
from machinery.errors import InputError
from machinery.rules import SETTINGS
from machinery.settings import find_settings, read_settings

SCRIPT = '''"""Train something."""
train_file = 'a.txt'  # a list
num_epochs = 10  # 100 % of them
learning_rate = 0.1
horizontal_flip = True
train_layers = ['fc8']
skip_layers = None
weights_path = 'DEFAULT'
resume = False
my_momentum = 0.9  # of my own
sizes = [1, 2]
_hidden = 1
CONSTANT = 2
'''


@pytest.fixture
def make(tmp_path):
    """Return a function that returns the globals of a script, with more lines."""
    def make(lines=''):
        path = tmp_path / 'script.py'
        path.write_text(SCRIPT + lines)
        variables = {'__file__': str(path), 'os': os}
        exec(SCRIPT + lines, variables)
        return variables
    return make


@pytest.fixture
def script(make):
    return make()


@pytest.mark.parametrize('arguments, changed', [
    ('--num_epochs=3', {'num_epochs': 3}),
    ('--num_epochs 3', {'num_epochs': 3}),
    ('--learning_rate=1e-3 --num_epochs=2', {'learning_rate': 0.001, 'num_epochs': 2}),
    ('--learning_rate=1', {'learning_rate': 1}),
    ('--horizontal_flip=False', {'horizontal_flip': False}),
    ("--train_layers=['fc7','fc8']", {'train_layers': ['fc7', 'fc8']}),
    ('--train_layers=fc7,fc8', {'train_layers': ['fc7', 'fc8']}),
    ('--train_layers fc8', {'train_layers': ['fc8']}),
    ('--train_file=a,b', {'train_file': 'a,b'}), ('--sizes=[3,4]', {'sizes': [3, 4]}),
    ('--skip_layers=[]', {'skip_layers': []}),
    ('--skip_layers=None', {'skip_layers': None}),
    ('--train_file=b=1.txt', {'train_file': 'b=1.txt'}),
    ("--train_file='b.txt'", {'train_file': 'b.txt'}),
    ('--train_file=12', {'train_file': '12'}),
    ('--train_file=None', {'train_file': 'None'}),
    ('--weights_path=None', {'weights_path': None}),
    ('--weights_path=w.npy', {'weights_path': 'w.npy'}),
    ('--resume=True', {'resume': True}),
    ('--resume=model.ckpt', {'resume': 'model.ckpt'}),
    ('--resume', {'resume': True}), ('--resume 3', {'resume': 3}),
    ('--resume --num_epochs 3', {'resume': True, 'num_epochs': 3}),
    ('--my_momentum=1', {'my_momentum': 1}),
    ('--train_file=~/a.txt', {'train_file': os.path.expanduser('~/a.txt')})])
def test_options_change_the_variables(script, arguments, changed):
    settings = read_settings(script, arguments.split(' '))
    assert list(settings) == [
        'train_file', 'num_epochs', 'learning_rate', 'horizontal_flip', 'train_layers',
        'skip_layers', 'weights_path', 'resume', 'my_momentum', 'sizes']
    for name, value in settings.items():
        if name in changed:
            assert value == changed[name] and type(value) is type(changed[name])
        assert script[name] == value


@pytest.mark.parametrize('argument, complaint', [
    ('--epochs=3', '--epochs is not an option, did you mean --num_epochs?'),
    ('--zzz', '--zzz is not an option; --help shows the options'),
    ('num_epochs=3', 'num_epochs is not an option, did you mean --num_epochs?'),
    ('fc7', 'fc7 is not an option; separate layers by commas, as in fc8,fc7'),
    ('--num_epochs', '--num_epochs: expected one argument'),
    ('--num_epochs=', "--num_epochs: '' is not an integer"),
    ('--num_epochs=3.5', "--num_epochs: '3.5' is not an integer"),
    ('--num_epochs=0', "--num_epochs: '0' is not an integer"),
    ('--num_epochs=True', "--num_epochs: 'True' is not an integer"),
    ("--num_epochs=__import__('os').getpid()", 'is not an integer'),
    ('--horizontal_flip=1', "--horizontal_flip: '1' is not True or False"),
    ("--train_layers='fc8'", 'is not a list of at least one layer'),
    ('--train_layers=[]', 'is not a list of at least one layer'),
    ('--learning_rate=None', "--learning_rate: 'None' is not a number above 0"),
    ('--learning_rate=1e999', 'is not a number above 0'),
    ('--sizes=3,4', "--sizes: '3,4' is not list, like [1, 2]"),
    ('--my_momentum=high', "--my_momentum: 'high' is not float, like 0.9"),
    ('--os=1', '--os is not an option'), ('--_hidden=2', '--_hidden is not an option'),
    ('--CONSTANT=3', '--CONSTANT is not an option')])
def test_wrong_options_are_named(script, argument, complaint):
    with pytest.raises(InputError) as error:
        read_settings(script, [argument])
    assert complaint in str(error.value)


@pytest.mark.parametrize('name, value, words', [
    ('peer_timeout', 1, 'a number of at least 10'),
    ('on_bad_image', 'go', "'stop' or 'skip'"),
    ('filewriter_path', __file__, 'a folder to write to'),
    ('checkpoint_path', __file__ + '/new', 'a folder to write to')])
def test_variables_of_a_wrong_value_are_named(make, name, value, words):
    with pytest.raises(InputError) as error:
        read_settings(make('%s = %r\n' % (name, value)), [])
    assert str(error.value).startswith('%s is %r, must be %s' % (name, value, words))


def test_positional_arguments_fill_a_variable_among_options(make):
    script = make("pictures = 'default.txt'\n")
    assert read_settings(script, [], 'pictures')['pictures'] == 'default.txt'
    arguments = ['a.jpg', '--num_epochs', '2', 'b.jpg']
    settings = read_settings(script, arguments, 'pictures')
    assert settings['pictures'] == ['a.jpg', 'b.jpg'] and settings['num_epochs'] == 2


def test_help_shows_defaults_and_comments(script, capsys):
    with pytest.raises(SystemExit) as end:
        read_settings(script, ['--help'])
    assert end.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['Train', 'something.'] in lines
    assert '--num_epochs 100 % of them (10)'.split() in lines
    assert '--my_momentum of my own (0.9)'.split() in lines
    assert not any('CONSTANT' in line or '--os' in line for line in lines)


def test_settings_are_the_literals_above_read_settings(tmp_path):
    """Not all that globals() holds, as in the second run of a notebook's cell."""
    source = SCRIPT + """num_classes = 1 + 2
val_file, top_k = 'a', 1
doubled = 2 * num_epochs
settings = read_settings(globals(), [])
batch_size = 5
"""
    variables = {'read_settings': read_settings, 'In': ['', source], 'pictures': 7}
    for _ in range(2):
        exec(source, variables)
        assert list(variables['settings']) == [
            'train_file', 'num_epochs', 'learning_rate', 'horizontal_flip',
            'train_layers', 'skip_layers', 'weights_path', 'resume', 'my_momentum',
            'sizes', 'num_classes', 'val_file', 'top_k']


def test_validation_list_of_the_sample_with_ones_own_training_list(tmp_path,
                                                                   monkeypatch):
    """It is a mistake, unless one asks for it, or the training list is gone, too."""
    script = dict(__file__=os.path.join(ROOT, 'finetune.py'), __doc__='')
    with open(script['__file__']) as file:
        exec(file.read().split('settings = ')[0], script)
    own = str(tmp_path / 'images' / 'train.txt')
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'train.txt').write_text('')
    message = "val_file is still the sample's, .*images/val.txt, but train_file is "
    for folder, arguments in [(ROOT, ['--train_file=' + own]), (str(tmp_path), [])]:
        monkeypatch.chdir(folder)
        with pytest.raises(InputError, match=message):
            read_settings(dict(script), arguments)
        read_settings(dict(script), arguments + ['--val_file=images/val.txt'])
        read_settings(dict(script), ['--train_file=gone.txt'])
        read_settings(dict(script), ['--train_file=%s/images/test.txt' % ROOT])


@pytest.mark.parametrize('name', ['finetune.py', 'predict.py'])
def test_every_setting_has_a_comment_and_a_row_in_the_table(name):
    comments = find_settings({'__file__': os.path.join(ROOT, name)})
    assert all(comments.values()) and set(comments) <= set(SETTINGS)


def test_importing_changes_nothing():
    """Neither how exceptions end, nor what is printed, nor what is logged."""
    code = """
import logging, os, sys
import cv2
import tensorflow
before = (sys.excepthook, sys.displayhook, cv2.utils.logging.getLogLevel(),
          logging.getLogger('tensorflow').level, dict(os.environ))
import alexnet, datagenerator, machinery.export, machinery.features, machinery.run
import machinery.settings, machinery.summaries
del os.environ['TF_CPP_MIN_LOG_LEVEL']
os.environ['TF2_BEHAVIOR'] = before[-1].get('TF2_BEHAVIOR', '')  # eager mode is off
before[-1].setdefault('TF2_BEHAVIOR', '')
assert before == (sys.excepthook, sys.displayhook, cv2.utils.logging.getLogLevel(),
                  logging.getLogger('tensorflow').level, dict(os.environ))
"""
    environment = {name: value for name, value in os.environ.items()
                   if name != 'TF_CPP_MIN_LOG_LEVEL'}
    output = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                            env=environment, stdout=subprocess.PIPE)
    assert output.stdout == b''


@pytest.mark.parametrize('name', ['finetune.py', 'predict.py'])
def test_scripts_end_with_one_message(name):
    status, output = run_program(name, '--batch_sise=3')
    assert status == 2
    assert output == ('--batch_sise is not an option, did you mean --batch_size?; '
                      '--help shows the options\n')
    status, output = run_program(name, '--help')
    assert status == 0 and '--batch_size' in output and '(None)' in output
    assert '--resume [' not in output
    if name == 'finetune.py':
        assert "a run's weights: [] (None)" in ' '.join(output.split())


@pytest.mark.parametrize('name, option, told', [
    ('finetune.py', '--batch_sise=3', 'did you mean --batch_size?'),
    ('finetune.py', '--val_file=no.txt', 'val_file = no.txt: No such file'),
    ('predict.py', '--batch_sise=3', 'did you mean --batch_size?')])
def test_command_line_is_checked_before_tensorflow_is_loaded(tmp_path, name, option,
                                                             told):
    (tmp_path / 'tensorflow.py').write_text('raise SystemExit("TensorFlow is loaded")')
    result = subprocess.run([sys.executable, name, option], cwd=ROOT,
                            env=dict(os.environ, PYTHONPATH=str(tmp_path)),
                            stderr=subprocess.PIPE, universal_newlines=True)
    assert result.returncode == 2 and told in result.stderr, result.stderr
    assert 'Traceback' not in result.stderr


def test_backslashes_are_no_pattern_on_windows(monkeypatch):
    path = os.path.join(ROOT, 'machinery', 'rules.py')
    assert re.search(runpy.run_path(path)['PATTERN'], 'a\\b')
    monkeypatch.setattr(os, 'sep', '\\')
    rules = runpy.run_path(path)
    words, _ = rules['SETTINGS']['checkpoint_path'].rule
    assert not re.search(rules['PATTERN'], 'a\\b') and '\\' not in words
    assert words.endswith('without [ ] * ? in its path')


def test_script_that_a_link_leads_to_finds_the_sample(tmp_path):
    (tmp_path / 'mine.py').symlink_to(os.path.join(ROOT, 'finetune.py'))
    told = subprocess.run([sys.executable, 'mine.py', '--classes_file=missing'],
                          cwd=str(tmp_path), stderr=subprocess.PIPE).stderr.decode()
    assert told == 'classes_file = missing: No such file or directory\n'


@pytest.mark.parametrize('line', [
    'settings = read_settings(globals(), [])', 'settings.read_settings(globals(), [])',
    "if __name__ == '__main__':\n    read_settings(globals(), [])"])
def test_settings_end_where_read_settings_is_called(line):
    source = 'from machinery.settings import read_settings\n%s\nbatch_size = 5\n' % line
    found = find_settings({'In': ['num_epochs = 3  # passes\n' + source]})
    assert found == {'num_epochs': 'passes'}
