"""What users get wrong ends in one message, with status 2 and without a traceback."""
import os
import re
import signal

import numpy as np
import pytest

from helpers import ROOT, Program, finetune, outputs_in, run_program
from machinery import settings

pytestmark = pytest.mark.usefixtures('narrow_network')
CAT, CUP = [os.path.join(ROOT, 'images', name) for name in ('cat.jpg', 'coffee.jpg')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with what is wrong in lists, files of classes, and weights."""
    folder = tmp_path_factory.mktemp('mistakes')
    texts = {
        'empty.txt': b'# nothing\n', 'label.txt': b'a.jpg cat\n',
        'none.txt': b'a.jpg\n', 'missing.txt': b'gone.jpg 0\n',
        'high.txt': b'%s 9\n' % CAT.encode(),
        'both.txt': b'%s 0\n%s 1\n' % (CAT.encode(), CAT.encode()),
        'one_based.txt': b'%s 1\n%s 3\n' % (CAT.encode(), CUP.encode()),
        'latin.txt': 'gr\xfcn.jpg 0\n'.encode('latin-1'), 'damaged.jpg': b'no picture',
        'damaged.txt': b'damaged.jpg 0\n', 'two.names': b'cat\ndog\n',
        'blank.names': b'cat\n\ndog\n', 'latin.names': b'\xfc\n\n\n',
        'page.npy': b'<!DOCTYPE html>', 'page.caffemodel': b'<!DOCTYPE html>',
        'broken.ckpt.index': b'', 'code.npy': None, 'array.npy': None, 'fc8.npy': None}
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_bytes(text)
    np.save(str(folder / 'array.npy'), np.zeros(3))
    np.save(str(folder / 'code.npy'), {'fc8': Evil()}, allow_pickle=True)
    np.save(str(folder / 'fc8.npy'), {'fc8': [np.zeros((4096, 5)), np.zeros(5)]},
            allow_pickle=True)
    return folder


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('mistake',)


def assert_one_message(status, output, message):
    assert status == 2 and message in output, output
    assert 'Traceback' not in output and not os.path.exists('mistake')


@pytest.mark.parametrize('line, words', [
    ("learning_rate = '0.01'", 'a number above 0'),
    ("num_classes = '5'", 'an integer in 2..1000000'),
    ('batch_size = None', 'an integer in 1..100000'),
    ('num_epochs = 2.0', 'an integer in 1..1000000000'),
    ("horizontal_flip = 'False'", 'True or False'),
    ('val_file = None', 'a path'), ('train_file = 5', 'a path'),
    ("train_layers = 'fc8'", 'a list of at least one layer'),
    ('train_layers = []', 'a list of at least one layer'),
    ('skip_layers = [8]', 'None or a list of layers'),
    ('seed = -1', 'an integer in 0..2147483648'),
    ('dropout_rate = 1', 'a number in [0'),
    ('resume = 0', 'True, False, the number of a run from 1, or the path of a'),
    ('display_step = 0', 'an integer in 1..1000000000'),
    ("features_path = '/dev/null'", 'None or a folder to write to, or one that can be'),
    ('features_limit = -1', 'a number in [0'),
    ("export_path = '/tmp'", 'None or a folder that does not exist yet'),
    ("checkpoint = ''", 'a path'), ('pictures = None', 'a path or a list of paths'),
    ('top_k = 0', 'an integer in 1..1000000'), ("layer = 'fc9'", 'None or one of')])
def test_a_wrong_value_at_the_top_of_a_script_is_named(tmp_path, line, words):
    name, value = line.split(' = ')
    for script in ('finetune.py', 'predict.py'):
        with open(os.path.join(ROOT, script)) as file:
            top, call, code = file.read().partition('read_settings(')
        top, count = re.subn(r'(?m)^%s = .*$' % name, line, top)
        if count:
            (tmp_path / script).write_text(top + call + code)
            status, output = run_program(str(tmp_path / script))
            assert_one_message(status, output, words)
            assert output.startswith('%s is %s, must be ' % (name, value))
            assert output.count('\n') == 1
            return
    raise AssertionError('no script has a variable %s' % name)


@pytest.mark.parametrize('argument, message', [
    ('--train_file=gone.txt', 'train_file = gone.txt: No such file or directory'),
    ('--test_file=gone.txt', 'test_file = gone.txt: No such file or directory'),
    ('--train_file=', "--train_file: '' is not a path"),
    ('--val_file=.', 'val_file = . is a folder; python datagenerator.py FOLDER'),
    ('--train_file=/dev/zero', "'/dev/zero': is not a regular file"),
    ('--classes_file=/dev/zero', "'/dev/zero': is not a regular file"),
    ('--weights_path=/dev/zero', '/dev/zero: no such checkpoint or weight file'),
    ('--train_file=empty.txt', 'empty.txt:\n  no samples in it'),
    ('--val_file=label.txt', "label.txt:\n  line 1: no class is called 'cat'; the "
     'classes are brick, grass, gravel'),
    ('--val_file=none.txt', "none.txt:\n  line 1: no label after 'a.jpg'"),
    ('--test_file=missing.txt', 'line 1: no such file: ./gone.jpg'),
    ('--test_file=high.txt', 'line 1: label 9 is not in 0..2'),
    ('--test_file=both.txt', 'line 2: label 1, but label 0 in an earlier line'),
    ('--test_file=one_based.txt', 'the labels run 1..3, but labels start at 0'),
    ('--test_file=latin.txt', 'latin.txt, line 1: not UTF-8 text'),
    ('--test_file=damaged.txt', 'damaged.txt, line 1: ./damaged.jpg: not a picture'),
    ('--classes_file=gone.names', 'classes_file = gone.names: No such file'),
    ('--classes_file=two.names', 'names of num_classes = 3 classes, found 2'),
    ('--classes_file=blank.names', 'blank.names, line 2: no name'),
    ('--classes_file=latin.names', 'latin.names, line 1: not UTF-8 text'),
    ("--train_layers=['fc8','fc8']", "train_layers = ['fc8', 'fc8']: expected a list"),
    ("--skip_layers=['fc9']", "skip_layer = ['fc9']: expected a list"),
    ('--weights_path=gone.npy', 'weights_path = gone.npy: no such checkpoint or'),
    ('--weights_path=page.npy', 'page.npy: damaged, or not a weight file'),
    ('--weights_path=page.caffemodel', 'page.caffemodel: damaged, or not a caffemodel'),
    ('--weights_path=array.npy', 'holds an array, not a dictionary of layers'),
    ('--weights_path=code.npy', 'code.npy: damaged, or not a weight file: Unpickl'),
    ('--weights_path=fc8.npy', 'fc8.npy does not fit the network:\n  conv1: missing'),
    ('--weights_path=broken.ckpt', 'broken.ckpt: damaged, or not made by finetune.py'),
    ('--resume=gone.ckpt', 'gone.ckpt: no such checkpoint'),
    ('--resume=broken.ckpt', 'broken.ckpt: damaged, or not made by finetune.py'),
    ('--batch_sise=8', '--batch_sise is not an option, did you mean --batch_size?')])
def test_finetune_names_what_is_wrong(tmp_path, folder, argument, message):
    name, _, value = argument.partition('=')
    if (folder / value).is_file() or (folder / (value + '.index')).is_file():
        argument = '%s=%s' % (name, folder / value)
        message = message.replace('./', '%s/' % folder)
    status, output = finetune(str(tmp_path), '--weights_path=None', '--num_classes=3',
                              '--val_file=images/val.txt', argument)
    assert_one_message(status, output, message)
    assert 'Epoch' not in output and not os.listdir(str(tmp_path))


@pytest.mark.parametrize('arguments, message', [
    (['gone.jpg'], 'gone.jpg: does not exist, or no pictures there'),
    (['damaged.jpg'], 'damaged.jpg: not a picture, or damaged'),
    (['empty.txt'], 'empty.txt: does not exist, or no pictures there'),
    (['both.txt', CAT], 'both.txt: a list with labels must be the only argument'),
    ([CAT, '--checkpoint=gone.ckpt'], 'gone.ckpt: no such checkpoint'),
    ([CAT, '--checkpoint=broken.ckpt'], 'broken.ckpt: damaged, or not made by'),
    ([CAT, '--checkpoint=page.npy'], 'page.npy: damaged, or not a weight file'),
    ([CAT, '--checkpoint=.'], '.: no checkpoints there'),
    ([CAT, '--top_k=many'], "--top_k: 'many' is not an integer")])
def test_predict_names_what_is_wrong(folder, monkeypatch, narrow_file, arguments,
                                     message):
    monkeypatch.chdir(folder)
    assert_one_message(*run_program('predict.py', '--checkpoint=' + narrow_file,
                                    *arguments), message)


@pytest.mark.parametrize('config, message', [
    ('here', 'TF_CONFIG: not a JSON object'), ('{', 'TF_CONFIG: '),
    ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}',
     "TF_CONFIG: worker 1: 'b' is not host:port"),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
     'TF_CONFIG: "task" is not in "cluster"')])
def test_a_wrong_cluster_is_named(tmp_path, monkeypatch, config, message):
    monkeypatch.setenv('TF_CONFIG', config)
    assert_one_message(*finetune(str(tmp_path)), message)


def test_processes_end_with_one_message(tmp_path):
    """As the interpreter itself ends them, and not only in the tests' process."""
    program = Program('finetune.py', '--num_epochs=0')
    assert program.wait() == (
        2, "argument --num_epochs: '0' is not an integer in 1..1000000000\n")
    program = Program('finetune.py', *outputs_in(tmp_path), setup=interrupt_soon)
    status, output = program.wait()
    assert status == 130 and output.splitlines()[-1] == 'Interrupted', output
    assert 'Traceback' not in output
    assert not os.listdir(str(tmp_path))


def interrupt_soon():
    """Press Ctrl-C as soon as the script has read its settings."""
    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    read_settings = settings.read_settings

    def read_and_interrupt(*arguments, **options):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        return read_settings(*arguments, **options)
    settings.read_settings = read_and_interrupt
