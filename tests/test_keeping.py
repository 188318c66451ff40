"""Nothing of the user's is deleted, and no file is believed by its name."""
import errno
import glob
import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest

from datagenerator import load_image
from helpers import (ROOT, all_checkpoints_kept, checkpoint_of, files, finetune,
                     run_program, same, tensors)
from machinery import class_names, export, model_file
from machinery.checkpoint_files import (copy_checkpoint, find_weights,
                                        list_checkpoints, put_aside_if_damaged)
from machinery.class_names import find_class_names
from machinery.cluster import expand
from machinery.errors import InputError
from machinery.numbered import NewFiles, list_runs
from machinery.rules import check_value
from machinery.run import Run
from machinery.signals import StopSignals
from machinery.store import Store
from machinery.labels import OneClass
from machinery.saver import Saver
from machinery.tf1 import tf

IMAGES = os.path.join(ROOT, 'images')
CAT = os.path.join(IMAGES, 'cat.jpg')
JOB = ['--train_file=images/test.txt', '--val_file=images/test.txt', '--num_epochs=3',
       '--batch_size=8', "--train_layers=['fc8']", '--learning_rate=0.01',
       '--display_step=3']


@pytest.fixture(scope='module', autouse=True)
def start_of_the_job(narrow_network, narrow_file, features_path):
    JOB.extend(['--weights_path=' + narrow_file, '--features_path=' + features_path])


def run(folder, *arguments):
    status, output = finetune(str(folder), *(JOB + list(arguments)))
    assert status == 0, output
    return output


@pytest.fixture(scope='module')
def original(module_path):
    """The folder of a run of three epochs, whose checkpoints are all there."""
    with all_checkpoints_kept() as keep:
        run(module_path, *keep)
    return str(module_path / 'new' / 'checkpoints' / '1')


@pytest.fixture
def folder(tmp_path, original):
    """A copy of it, of which the tests may change what they like."""
    shutil.copytree(original, str(tmp_path / 'new' / 'checkpoints' / '1'))
    return tmp_path / 'new' / 'checkpoints' / '1'


def remove(folder, *names):
    for name in names:
        for path in glob.glob('%s/%s*' % (folder, name)):
            os.remove(path)


def set_progress(path, **changes):
    """Change what a checkpoint knows of itself; see Progress."""
    path, names = str(path), ['best_score', 'best_epoch', 'epoch', 'done', 'score']
    with tf.Graph().as_default(), tf.Session() as session:
        saver = tf.train.import_meta_graph(path + '.meta')
        saver.restore(session, path)
        [variable] = [variable for variable in tf.global_variables()
                      if variable.op.name == 'progress']
        values = session.run(variable)
        for name, value in changes.items():
            values[names.index(name)] = value
        session.run(tf.assign(variable, values))
        saver.save(session, path)


def scores(folder, *epochs):
    """Let the epochs have these scores, and the last checkpoints know the best one."""
    best = max(epochs)
    for number, score in enumerate(epochs, 1):
        known = max(epochs[:number])
        set_progress(folder / ('model_epoch%d.ckpt' % number), score=score,
                     best_score=known, best_epoch=1. + epochs.index(known))
    copy_checkpoint(str(folder / ('model_epoch%d.ckpt' % (1 + epochs.index(best)))),
                    str(folder / 'model_best.ckpt'))


def test_only_names_that_we_write_are_removed(tmp_path, folder):
    mine = ['model_epoch3.ckpt.tar.gz', 'model_v1.ckpt.zip', 'model_best.ckpt.bak',
            'model_v1.ckpt.meta', 'model_epoch2.ckpt.index.old', 'model.json.bak',
            'model_epoch1.ckpt.txt', 'model_epoch9.ckpt.data']
    ours = ['model_epoch4.ckpt.index.tempstate123', 'model_epoch9.ckpt.meta',
            'model_epoch4.ckpt.data-00000-of-00001.tempstate4',
            'model_epoch4.ckpt.meta.tmp' + '0f' * 16]
    for name in mine + ours:
        (folder / name).write_text('a note')
    for _ in range(2):
        run(tmp_path, '--resume=True', '--num_epochs=5')
        assert set(mine) <= set(os.listdir(str(folder)))
        assert not set(ours) & set(os.listdir(str(folder)))
    assert [os.path.basename(path) for path in list_checkpoints(str(folder))] == [
        'model_epoch5.ckpt']


def test_a_word_in_the_path_removes_no_checkpoint(tmp_path, folder):
    place = tmp_path / 'a.tempstate1' / 'new' / 'checkpoints'
    shutil.copytree(str(folder.parent), str(place))
    run(tmp_path / 'a.tempstate1', '--resume=True', '--num_epochs=4', '--keep=9')
    assert (place / '1' / 'model_epoch4.ckpt.index').exists()
    assert 'Resuming' in run(tmp_path / 'a.tempstate1', '--resume=True')


@pytest.mark.parametrize('is_refused', [False, True])
def test_export_removes_only_its_own_files(tmp_path, folder, monkeypatch, is_refused):
    monkeypatch.chdir(tmp_path)
    os.makedirs('a/x.part/rest')
    if is_refused:
        preprocess = export.preprocess
        monkeypatch.setattr(export, 'preprocess', lambda *data, **how: preprocess(
            *data, **how)[:, :, ::-1])
    for path in ('a/x', 'b/c/x'):
        status, output = run_program('predict.py', '--export_path=' + path,
                                     '--checkpoint=%s' % folder)
        assert status == 2 * is_refused, output
        assert os.path.exists(path + '/saved_model.pb') == (not is_refused)
    assert os.path.isdir('a/x.part/rest') and os.path.exists('b') == (not is_refused)
    assert sorted(os.listdir('a')) == ['x', 'x.part'][is_refused:]
    if not is_refused:  # others may read it, as any new folder
        os.mkdir('plain')
        assert os.stat('a/x').st_mode == os.stat('plain').st_mode


def test_two_exports_to_one_place_are_one_message(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preprocess = export.preprocess

    def preprocess_after_another(*data, **how):
        os.makedirs('served/1/mine', exist_ok=True)
        return preprocess(*data, **how)
    monkeypatch.setattr(export, 'preprocess', preprocess_after_another)
    status, output = run_program('predict.py', '--export_path=served/1',
                                 '--checkpoint=%s' % folder)
    assert status == 2 and output.splitlines()[-1].endswith(
        'served/1 has been made by another program meanwhile; nothing in it was '
        'changed')
    assert os.listdir('served') == ['1'] and os.listdir('served/1') == ['mine']


def test_conversion_replaces_no_file_beside_it(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir('b')
    for name in ('b/model.json', 'out.json'):
        with open(name, 'w') as file:
            file.write('{"class_names": ["mine"]}')
    for out, complaint in [
            ('b/start.weights', 'b/start.weights: the name of the file to write must'),
            ('out.npy', 'out.json already exists; remove it'),
            ('b', 'b: the name of the file to write must end in .npy')]:
        status, output = run_program('alexnet.py', folder, out)
        assert status == 2 and output.startswith(complaint), output
    assert sorted(os.listdir('.')) == ['b', 'new', 'out.json']
    for name in ('b/model.json', 'out.json'):
        with open(name) as file:
            assert file.read() == '{"class_names": ["mine"]}'


class Spare:
    """Leave this process so many file descriptors to open."""

    def __init__(self, spare):
        self.spare = spare

    def __enter__(self):
        self.limits, self.held = resource.getrlimit(resource.RLIMIT_NOFILE), []
        highest = max(map(int, os.listdir('/proc/self/fd')))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 30, self.limits[1]))
        try:
            while True:
                self.held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(self.spare):
                os.close(self.held.pop())

    def __exit__(self, *error):
        for number in self.held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


@pytest.mark.parametrize('spare', range(4))
def test_no_file_descriptor_is_no_damage(folder, spare):
    before, path = sorted(files(folder)), str(folder / 'model_epoch1.ckpt')
    assert put_aside_if_damaged(path)
    with Spare(spare):
        try:
            assert put_aside_if_damaged(path) and spare
        except InputError as error:
            assert 'Too many open files' in str(error)
    assert put_aside_if_damaged(path) and sorted(files(folder)) == before


def test_message_that_hides_its_cause_is_no_damage(folder, monkeypatch):
    def fail(path):
        raise tf.errors.DataLossError(None, None, 'Unable to open table file')
    path = str(folder / 'model_epoch1.ckpt')
    monkeypatch.setattr(tf.train, 'load_checkpoint', fail)
    with Spare(4), pytest.raises(InputError, match='Too many open files.: D'):
        put_aside_if_damaged(path)
    assert os.path.exists(path + '.index')


@pytest.mark.parametrize('error', [
    MemoryError(), OSError(errno.EIO, os.strerror(errno.EIO)),
    tf.errors.ResourceExhaustedError(None, None, 'x'),
    tf.errors.OpError(None, None, 'Unable to open table file x: x; Input/output error',
                      2)])
@pytest.mark.parametrize('resume', ['True', 'path'])
def test_no_memory_or_a_failing_disk_is_no_damage(tmp_path, folder, monkeypatch, error,
                                                  resume):
    before = sorted(files(folder))

    def fail(path):
        raise error
    monkeypatch.setattr(tf.train, 'load_checkpoint', fail)
    resume = str(folder / 'model_epoch3.ckpt') if resume == 'path' else resume
    status, output = finetune(tmp_path, *JOB, '--resume=' + resume, '--num_epochs=4')
    assert status == 2 and 'cannot be read now' in output and type(
        error).__name__ in output
    monkeypatch.undo()
    assert [name for name in sorted(files(folder)) if name != '.lock'] == [
        name for name in before if name != '.lock']


def test_damage_is_put_aside_without_replacing_what_was(tmp_path, folder):
    for word in ('damaged', 'damaged2'):
        os.truncate(str(folder / 'model_epoch3.ckpt.data-00000-of-00001'), 100)
        with all_checkpoints_kept() as keep:
            output = run(tmp_path, '--resume=True', *keep)
        assert 'Renamed to %s/%s_model_epoch3.ckpt\n' % (folder, word) in output
    for word in ('damaged', 'damaged2'):
        assert (folder / (word + '_model_epoch3.ckpt.index')).exists()


def test_only_damaged_checkpoints_never_mean_a_new_start(tmp_path, folder):
    for path in glob.glob('%s/*.index' % folder):
        os.truncate(path, 10)
    for _ in range(2):
        status, output = finetune(tmp_path, *JOB, '--resume=True')
        assert status == 2 and 'none of the checkpoints can be read' in output
    assert os.listdir(str(folder.parent)) == ['1']


def test_best_of_a_later_epoch_is_not_used(tmp_path, folder):
    """It goes on from epoch 2. The best then, epoch 1, is gone: 2 is the best left."""
    scores(folder, 0.8, 0.7, 0.9)
    later = tensors(str(folder / 'model_best.ckpt'))
    remove(folder, 'model_epoch3', 'model_epoch1')
    assert find_weights(str(folder)) == str(folder / 'model_epoch2.ckpt')
    output = run(tmp_path, '--resume=True', '--num_epochs=2',
                 '--test_file=images/test.txt')
    assert 'best checkpoint is gone; %s/model_epoch2.ckpt is the' % folder in output
    assert 'Best:       %s/model_best.ckpt, of epoch 2, validation accuracy 0.7000' % (
        folder) in output
    best = tensors(str(folder / 'model_best.ckpt'))
    assert same(best, tensors(str(folder / 'model_epoch2.ckpt')))
    assert not same(best, later)


def test_best_that_cannot_be_told_is_put_aside(tmp_path, folder):
    """A run stopped in epoch 3 has lost its best one; model_best is of a later one."""
    scores(folder, 0.8, 0.7, 0.9)
    later = tensors(str(folder / 'model_best.ckpt'))
    stopped = folder / 'model_epoch3_step9.ckpt'
    copy_checkpoint(str(folder / 'model_epoch2.ckpt'), str(stopped))
    set_progress(stopped, epoch=3, done=8, score=-np.inf)
    remove(folder, 'model_epoch1', 'model_epoch2', 'model_epoch3.ckpt')
    output = run(tmp_path, '--resume=True', '--num_epochs=2',
                 '--test_file=images/test.txt')
    assert 'the best checkpoint is gone; no other has a score' in output
    assert 'Best: ' not in output and 'Test: ' in output and 'inf' not in output
    assert find_weights(str(folder)) == str(stopped)
    assert same(later, tensors(str(folder / 'earlier_model_best.ckpt')))


def test_older_checkpoint_does_not_take_the_future_for_its_best(tmp_path, folder):
    scores(folder, 0.8, 0.7, 0.9)
    copy_checkpoint(str(folder / 'model_epoch2.ckpt'), str(folder / 'mine.ckpt'))
    remove(folder, 'model_epoch1')
    output = run(tmp_path / 'x', '--resume=%s/mine.ckpt' % folder)
    assert 'is gone; %s/m' % folder in output
    assert 'model_epoch3.ckpt is the best that is left' not in output


def test_other_validation_list_starts_the_best_score_again(tmp_path, folder,
                                                              monkeypatch):
    """Also if it was killed before its next checkpoint, or stopped before a score."""
    scores(folder, 0.1, 2., 0.1)  # no list gives as much as 2
    with open(os.path.join(IMAGES, 'test.txt')) as file:
        lines = [os.path.join(IMAGES, line) for line in file]
    (tmp_path / 'val.txt').write_text(''.join(lines[:-1]))
    other = '--val_file=%s' % (tmp_path / 'val.txt')
    told = 'Warning: the best score starts again, since the validation list is another'
    output = run(tmp_path, '--resume=True', other)
    assert told not in output and 'of epoch 2, validation accuracy 2.0000' in output
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Run, 'guard', lambda *arguments: 1 / 0)
        finetune(tmp_path, *JOB, '--resume=True', '--num_epochs=4', other)
    assert (folder / 'earlier_model_best.ckpt.index').exists()
    assert find_weights(str(folder)) == str(folder / 'model_epoch3.ckpt')
    status, output = finetune(
        tmp_path, *JOB, '--resume=True', '--num_epochs=4', other, react=lambda text:
        os.kill(os.getpid(), signal.SIGTERM) if 'Epoch 4/4, step' in text else None)
    assert status == 143
    assert 'since it already did so after this checkpoint; weights' in output
    assert 'step' in find_weights(str(folder))
    output = run(tmp_path, '--resume=True', '--num_epochs=4', other)
    assert 'Best:       %s/model_best.ckpt, of epoch 4' % folder in output
    assert same(tensors(str(folder / 'model_best.ckpt')),
                tensors(str(folder / 'model_epoch4.ckpt')))
    assert 'starts again' not in run(tmp_path, '--resume=True', '--num_epochs=5', other)
    assert not (folder / 'earlier2_model_best.ckpt.index').exists()


def test_scores_are_not_compared_across_preparations(tmp_path, folder):
    scores(folder, 0.1, 0.2, 2.)
    checkpoint = str(folder / 'model_epoch3.ckpt')
    for resume, where in [(checkpoint, tmp_path / 'x'), ('True', tmp_path)]:
        output = run(where, '--resume=' + resume, '--num_epochs=4',
                     '--random_crop=True')
        assert 'Warning: random_crop was False in the run being resumed, now' in output
        assert ('the best score starts again, since pictures are prepared in another '
                'way; weights and epochs are kept') in output
        assert 'model_best.ckpt, of epoch 4' in output
        with open(os.path.dirname(checkpoint_of(where, 4)) + '/model.json') as file:
            assert json.load(file)['preprocessing']['margin'] == 29


def test_resumed_run_says_which_class_names_it_keeps(tmp_path, folder):
    with open(os.path.join(IMAGES, 'test.txt')) as file:
        (tmp_path / 'test.txt').write_text(''.join(
            os.path.join(IMAGES, line) for line in file))
    (tmp_path / 'classes.txt').write_text('gravel\ngrass\nbrick\n')
    mine = ['--train_file=%s' % (tmp_path / 'test.txt'), '--resume=True',
            '--num_epochs=4']
    output = run(tmp_path, *mine)
    assert ('Warning: %s/classes.txt names the classes gravel, grass, brick; the run '
            'being resumed keeps its names, brick, grass, gravel.' % tmp_path) in output
    output = run(tmp_path, *mine, '--classes_file=%s' % (tmp_path / 'classes.txt'))
    assert 'The outputs of the network keep their order; only their names' in output


def test_missing_model_file_is_told(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ('{}', None):
        (folder / 'model.json').unlink()
        if content:
            (folder / 'model.json').write_text(content)
        status, output = run_program('predict.py', CAT, '--checkpoint=%s' % folder)
        assert status == 0, output
        assert ('Warning: %s/model.json is missing or empty. Classes are shown by '
                'number, and we assume that pictures are prepared without random_crop, '
                'and JPEGs' % folder) in output
    (folder / 'model.json').write_text('{"class_names": ["a", "b", "c"]}')
    status, output = run_program('predict.py', CAT, '--checkpoint=%s' % folder)
    assert status == 0
    assert 'model.json does not say how pictures were prepared: we assume' in output


def test_only_weight_files_get_the_names_of_imagenet(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(class_names, 'num_classes_of', lambda path, layer: 1000)
    own, other, default = [str(tmp_path / name) for name in (
        'model.ckpt', 'x.npy', 'bvlc_alexnet.npy')]
    (tmp_path / 'model.ckpt.index').write_text('')
    assert find_class_names(own, 'fc8')[:2] == ['0', '1']
    assert 'Classes are shown by number' in capsys.readouterr().out
    assert find_class_names(other, 'fc8')[0] == 'tench, Tinca tinca'
    assert 'the names of ImageNet' in capsys.readouterr().out
    assert find_class_names(default, 'fc8')[0] == 'tench, Tinca tinca'
    assert not capsys.readouterr().out


def test_pipes_do_not_hang(tmp_path, folder):
    (folder / 'model.json').unlink()
    os.mkfifo(str(folder / 'model.json'))
    with pytest.raises(InputError, match='model.json.*is not a regular file'):
        model_file.read_model(str(folder / 'model_best.ckpt'))
    store = Store((4,), str(tmp_path / 'features'), '0' * 64)
    for ending in ('rows', 'index'):
        os.mkfifo(str(tmp_path / 'features' / ('0' * 64) / ('a-1-0123abcd.' + ending)))
    assert not store.has(store.register([CAT], 'how') + np.arange(1)).any()


def test_a_run_whose_best_is_its_start_keeps_its_checkpoints(tmp_path, folder):
    """The best checkpoint has the step of the start, but there were others."""
    out = str(tmp_path / 'again')
    shutil.copytree(str(folder.parent), out + '/new/checkpoints')
    output = run(out, '--resume=%s/new/checkpoints/1/model_best.ckpt' % out,
                 '--num_epochs=4', '--learning_rate=1e-12',
                 '--test_file=images/test.txt')
    assert 'of the best checkpoint' in output
    kept = os.listdir(out + '/new/checkpoints/2')
    assert {'model.json', 'model_best.ckpt.index', 'model_epoch4.ckpt.index'} <= set(
        kept), (kept, output)


def test_a_best_checkpoint_of_a_later_epoch_is_kept(tmp_path, folder):
    """The newest is damaged, and model_best its only copy that is whole."""
    out = str(tmp_path / 'again')
    shutil.copytree(str(folder.parent), out + '/new/checkpoints')
    place = out + '/new/checkpoints/1/'
    best = tensors(place + 'model_best.ckpt')
    epoch = int(best['progress'][0][1])
    for number in range(epoch, 9):
        for path in glob.glob(place + 'model_epoch%d.ckpt.*' % number):
            os.remove(path)
    if not list_checkpoints(place):
        pytest.skip('the first epoch was the best')
    run(out, '--resume=True', '--num_epochs=%d' % epoch, '--learning_rate=1e-12')
    assert same(tensors(place + 'earlier_model_best.ckpt'), best)


def test_writers_of_one_file_do_not_remove_each_others(tmp_path):
    """In containers, all processes may have the number 1."""
    path = str(tmp_path / 'shared.csv')
    with pytest.raises(InputError, match='shared.csv: File exists'):
        with NewFiles(str(tmp_path)).new(path, '') as slower:
            slower.write(b'second')
            with NewFiles(str(tmp_path)).new(path, '') as faster:
                faster.write(b'first')
    assert os.listdir(str(tmp_path)) == ['shared.csv']
    assert (tmp_path / 'shared.csv').read_bytes() == b'first'


def test_folders_with_long_numbers_are_no_runs(tmp_path):
    for name in ['20240131120000', '7', '08']:
        (tmp_path / name).mkdir()
    assert list_runs(str(tmp_path)) == [7]


@pytest.mark.parametrize('path', ['x' * 300, 'a\0b', '/proc/x'])
def test_paths_that_cannot_be_made_are_refused_at_once(path):
    with pytest.raises(InputError, match='predictions_path is'):
        check_value('predictions_path', path)


def test_a_pipe_in_the_validation_list_does_not_stop_the_export(tmp_path):
    os.mkfifo(str(tmp_path / 'a.jpg'))
    (tmp_path / 'val.txt').write_text('a.jpg 0\n%s 1\n' % CAT)
    with open(str(tmp_path / 'w.json'), 'w') as file:
        json.dump({'val_list': str(tmp_path / 'val.txt')}, file)
    found = export.pictures_to_compare(str(tmp_path / 'w.npy'), OneClass('01'),
                                       load_image)
    assert {path for path, _, _ in found} == {CAT}


def test_ctrl_c_that_the_shell_lets_us_ignore_is_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_list_of_millions_of_hosts_is_refused():
    with pytest.raises(InputError, match='more than 10000 hosts'):
        expand('n[0-999999][0-999999]')


def test_checkpoints_have_own_values_while_variables_have_others(tmp_path):
    """As a run that is stopped while it scores moving averages."""
    first, second = [tf.get_variable(name, initializer=[1., 2.]) for name in 'ab']
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        saver = Saver()
        with saver.other_values(session, {first: [5., 6.]}):
            saver.save(session, str(tmp_path / 'own'))
            saver.save(session, str(tmp_path / 'given'), {second: [7., 8.]})
            assert session.run([first, second])[0].tolist() == [5, 6]
        assert session.run(first).tolist() == [1, 2]
    assert tensors(str(tmp_path / 'own'))['a'][0].tolist() == [1, 2]
    assert tensors(str(tmp_path / 'given'))['b'][0].tolist() == [7, 8]
