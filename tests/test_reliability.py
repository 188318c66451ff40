"""What finetune.py promises when it is stopped, killed or fed with bad things."""
import concurrent.futures
import errno
import glob
import json
import os
import random
import re
import resource
import shutil
import signal
import threading
import time

import cv2
import numpy as np
import pytest

import datagenerator
from helpers import (ROOT, Program, all_checkpoints_kept, checkpoint_of, events, files,
                     finetune, make_narrow, outputs_in, run_program, same,
                     summaries, tensors)
from machinery import checkpoint_files, features
from machinery.checkpoint_files import (copy_checkpoint, find_weights,
                                        list_checkpoints, put_aside_if_damaged)
from machinery.errors import InputError
from machinery.run import Run
from machinery.summaries import EventFile
from machinery.tf1 import session_config, tf

JOB = ['--train_file=images/test.txt', '--val_file=images/test.txt', '--num_epochs=3',
       '--batch_size=8', "--train_layers=['fc8']", '--learning_rate=0.01',
       '--display_step=3']  # 4 steps in an epoch


@pytest.fixture(scope='module', autouse=True)
def start_of_the_job(narrow_network, narrow_file, features_path):
    JOB.extend(['--weights_path=' + narrow_file, '--features_path=' + features_path])


def run(folder, *arguments, **kwargs):
    status, output = finetune(folder, *(JOB + list(arguments)), **kwargs)
    assert status == 0, output
    return output


def final(folder):
    return tensors(checkpoint_of(folder, 3))


@pytest.fixture(scope='module')
def uninterrupted(module_path):
    folder = str(module_path)
    with all_checkpoints_kept() as keep:
        run(folder, *keep, draws=True)
    return folder


def test_interrupted_run_resumes_exactly(tmp_path, monkeypatch):
    """Stop by SIGINT in the first epoch and by SIGTERM in the second, then finish.

    With optimised graphs, as users have them.
    """
    monkeypatch.setattr('machinery.workers.session_config', session_config)
    reference, folder = str(tmp_path / 'a'), str(tmp_path / 'b')
    run(reference, '--batch_size=2')
    for number, epoch, wanted in [(signal.SIGINT, 1, 'step 3:'),
                                  (signal.SIGTERM, 2, 'step 18:')]:
        status, output = finetune(
            folder, *JOB, *outputs_in(folder), '--batch_size=2', '--resume=True',
            react=lambda text: os.kill(os.getpid(), number) if wanted in text else None)
        assert status == 128 + number, output
        assert re.search('Stopped in epoch %d, after step [0-9]+; saved %s/new/'
                         'checkpoints/1/model_epoch%d_step' % (epoch, folder, epoch),
                         output), output
        assert 'To go on from there, add --resume=1 to the command' in output
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    output = run(folder, '--batch_size=2', '--resume=True')
    assert 'Resuming from %s/new/checkpoints/1/model_epoch2_step' % folder in output
    assert same(final(folder), final(reference))
    assert len(events(folder, '.')) == 2  # version and settings: not one per start
    output = run(folder, '--batch_size=2', '--resume=True')
    assert 'All 3 epochs are done' in output and 'Next: ' not in output
    epochs = [step for step, tag, _ in event_steps(folder) if tag == 'accuracy']
    assert epochs == [14, 28, 42]


def test_signal_in_the_last_validation_ends_the_run_before_the_test(tmp_path):
    arguments = JOB + ['--num_epochs=1', '--test_file=images/test.txt']
    status, output = finetune(
        str(tmp_path), *arguments, react=lambda text: os.kill(
            os.getpid(), signal.SIGTERM) if 'Epoch 1/1: validation' in text else None)
    assert status == 143 and 'Stopped in epoch 1, after step 4; saved' in output
    assert 'Test:' not in output
    status, output = finetune(str(tmp_path), *arguments, '--resume=True')
    assert status == 0 and 'Test: ' in output


def test_signal_in_the_test_saves_no_best_weights_as_the_newest(tmp_path, monkeypatch):
    """The best epoch is the first: the others learn nothing that is right."""
    restore_best = Run.restore_best

    def restore_and_stop(self, session):
        restore_best(self, session)
        os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(Run, 'restore_best', restore_and_stop)
    status, output = finetune(str(tmp_path), *JOB, '--test_file=images/test.txt',
                              '--learning_rate=1e-30')
    assert status == 143 and 'Stopped in epoch 3' in output and 'Test:' not in output
    assert [os.path.basename(path) for path in list_checkpoints(
        os.path.dirname(checkpoint_of(tmp_path, 3)))] == [
            'model_epoch%d.ckpt' % epoch for epoch in (2, 3)]


def event_steps(folder):
    """Return the validation run's values as TensorBoard shows them: no step twice."""
    found = []
    for path in sorted(glob.glob(folder + '/log/1/validation/events*'),
                       key=os.path.getmtime):
        for event in tf.train.summary_iterator(path):
            if event.session_log.status == tf.SessionLog.START:
                found = [value for value in found if value[0] < event.step]
            found += [(event.step, value.tag, value.simple_value)
                      for value in event.summary.value]
    return found


def kill_often(job, seed, count, alone):
    """Start and resume a run, and kill it at random moments.

    alone: a lock, because multiprocessing is not made for several threads.
    """
    moments = random.Random(seed)
    for attempt in range(count):
        with alone:
            program = Program('finetune.py', *job, '--num_epochs=999',
                              setup=make_narrow, draws=True)
        if attempt % 4 == 0:
            time.sleep(moments.uniform(0, 1))
        else:
            for line in program.stdout:
                if line.startswith(('fc8', 'Resuming')):
                    break
            time.sleep(moments.uniform(0, 1.5))
        with alone:
            program.process.kill()
            assert program.wait()[0] == -signal.SIGKILL


def test_killed_at_any_moment_it_resumes_exactly(tmp_path):
    """kill -9 at 20 random moments: in the start, between steps, while saving.

    Of two runs at once, which takes half the time.
    """
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        (tmp_path / 'list.txt').write_text(''.join(
            os.path.join(ROOT, 'images', line) for line in file.readlines()[::3]))
    job = JOB + ['--resume=True', '--batch_size=4',
                 '--train_file=%s' % (tmp_path / 'list.txt'),
                 '--val_file=%s' % (tmp_path / 'list.txt')]
    killed, whole = [tmp_path / 'killed0', tmp_path / 'killed1'], tmp_path / 'whole'
    alone = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda seed: kill_often(
            job + outputs_in(killed[seed]), seed, 10, alone), range(2)))
    # The epoch to resume in; on a slow machine all kills may come before the first one.
    last = max([2] + [int(tensors(path)['progress'][0][2]) for folder in killed
                      for path in list_checkpoints(
                          os.path.dirname(checkpoint_of(folder, 1)))])
    found = []
    for folder in killed + [whole]:
        status, output = finetune(folder, *job, *outputs_in(folder),
                                  '--num_epochs=%d' % last)
        assert status == 0, output
        assert not glob.glob(os.path.dirname(checkpoint_of(folder, 1)) + '/*tempst*')
        found.append([tensors(checkpoint_of(folder, name)) for name in (last, 'best')])
    assert all(same(one, expected) for run in found[:2]
               for one, expected in zip(run, found[2]))


def test_finished_run_is_left_as_it_is(tmp_path, uninterrupted):
    folder = str(tmp_path)
    shutil.copytree(uninterrupted + '/new', folder + '/new', copy_function=os.link)
    before = final(folder)
    output = run(folder, '--resume=True')
    assert 'Epoch' not in output and 'in the run being resumed' not in output
    for _ in range(2):  # the warnings stay true, since nothing was trained with these
        output = run(folder, '--resume=True', '--seed=1', '--classes_file=None')
        assert 'Warning: seed was 0 in the run being resumed, now it is 1' in output
        assert "Warning: class_names was ['brick', 'grass', 'gravel'] in the" in output
    assert same(final(folder), before)
    assert [name for name in files(tmp_path) if name.endswith('.index')] == [
        'model_epoch3.ckpt.index', 'model_best.ckpt.index']  # all that it needs


def best_epoch(folder):
    return 1 + int(np.argmax([value for _, tag, value in event_steps(folder)
                              if tag == 'accuracy']))


def test_best_checkpoint_is_that_of_the_best_epoch(uninterrupted):
    best = best_epoch(uninterrupted)
    assert same(tensors(checkpoint_of(uninterrupted, 'best')),
                tensors(checkpoint_of(uninterrupted, best)))


def test_finished_run_may_be_stopped_when_it_starts_again(uninterrupted):
    status, output = finetune(
        uninterrupted, *JOB, '--resume=True',
        '--checkpoint_path=%s/new/../new/checkpoints/' % uninterrupted,
        react=lambda text: os.kill(os.getpid(), signal.SIGTERM)
        if 'Resuming' in text else None)
    assert status == 128 + signal.SIGTERM, output
    assert 'Stopped in epoch 3, after step 12; saved ' in output


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    """Two start at once; then a third. One that makes no step leaves nothing."""
    job = JOB + ['--num_epochs=1']
    programs = [Program('finetune.py', *job, *outputs_in(tmp_path), setup=make_narrow)
                for _ in range(2)]
    results = [program.wait() for program in programs]
    assert [status for status, _ in results] == [0, 0], results
    first, second = tensors(checkpoint_of(tmp_path, 1)), tmp_path / 'new/checkpoints/1'
    assert same(first, tensors(str(second / 'model_epoch1.ckpt')))
    output = run(str(tmp_path), '--num_epochs=1', '--learning_rate=0.02')
    assert 'Disk: the checkpoints of all runs in %s/new/checkpoints take 0.0 GB' % (
        tmp_path) in output
    status, output = finetune(str(tmp_path), *job, '--num_classes=4',
                              '--skip_layers=[]')
    assert status == 2 and 'narrow.npy does not fit' in output
    for name in ('log', 'new/checkpoints'):
        assert sorted(os.listdir(str(tmp_path / name))) == ['1', '2', '3']
    assert same(first, tensors(str(second / 'model_epoch1.ckpt')))


@pytest.mark.parametrize('arguments, complaint', [
    (['--num_classes=4'], 'fc8/weights: expected shape [64, 4], found [64, 3]'),
    (["--train_layers=['fc7']"], "train_layers was ['fc8'], now it is ['fc7']"),
])
def test_checkpoint_of_another_configuration_is_refused(uninterrupted, arguments,
                                                        complaint):
    status, output = finetune(uninterrupted, *(JOB + arguments + ['--resume=True']))
    assert status == 2 and complaint in output


def test_other_preparation_of_pictures_is_refused(uninterrupted, monkeypatch):
    normalize = datagenerator.normalize
    monkeypatch.setattr(datagenerator, 'normalize',
                        lambda images, *mean: normalize(images, *mean)[..., ::-1])
    status, output = finetune(uninterrupted, *JOB, '--resume=True', '--num_epochs=4')
    assert status == 2 and 'model_epoch3.ckpt was trained on pictures that' in output


def test_another_batch_size_goes_on_with_a_warning(tmp_path, uninterrupted):
    """4 steps of 8 in the first epoch; then 3 of 9 in each of the two others."""
    path = checkpoint_of(uninterrupted, 1)
    output = run(str(tmp_path), '--resume=' + path, '--batch_size=9')
    assert 'Warning: batch_size was 8 in the run being resumed, now it is 9' in output
    assert final(str(tmp_path))['global_step'] == [4 + 3 + 3]


def test_longer_list_goes_on_with_whole_epochs_and_a_warning(tmp_path, uninterrupted):
    """27 pictures in the first epoch; then all 54 of another list in each."""
    path = checkpoint_of(uninterrupted, 1)
    output = run(str(tmp_path), '--resume=' + path, '--train_file=images/val.txt')
    assert 'Warning: training pictures was 27 in the run being resumed, now' in output
    assert final(str(tmp_path))['global_step'] == [4 + 7 + 7]


def test_resume_takes_a_path(tmp_path, uninterrupted):
    path = checkpoint_of(uninterrupted, 2)
    run(str(tmp_path), '--resume=' + path)
    assert same(final(str(tmp_path)), final(uninterrupted))
    assert same(tensors(checkpoint_of(tmp_path, 'best')),
                tensors(checkpoint_of(uninterrupted, 'best')))
    status, output = finetune(str(tmp_path / 'x'), *(JOB + ['--resume=none.ckpt']))
    assert status == 2 and 'none.ckpt: no such checkpoint' in output


def test_checkpoints_of_odd_names_are_found(tmp_path, uninterrupted):
    """Or the name is refused at the start: TensorFlow takes it for a pattern."""
    for name in ('run [lr=0.003]', 'a*b', 'a?b', 'a\\b'):
        status, output = finetune(str(tmp_path / name), *JOB)
        assert status == 2 and 'checkpoint_path' in output
        assert 'without [ ] * ? or ' in output and not (tmp_path / name).exists()
    folder = tmp_path / 'run {lr=0.003} ümlaut' / 'new' / 'checkpoints' / '1'
    shutil.copytree(uninterrupted + '/new/checkpoints/1', str(folder))
    before = tensors(str(folder / 'model_epoch3.ckpt'))
    for resume in (folder, folder / 'model_epoch3.ckpt.data-00000-of-00001'):
        output = run(str(tmp_path / 'run {lr=0.003} ümlaut'), '--resume=%s' % resume)
        assert 'Resuming from %s\n' % (folder / 'model_epoch3.ckpt') in output
    assert same(tensors(str(folder / 'model_epoch3.ckpt')), before)
    best = find_weights(str(folder))
    assert best == find_weights(best + '.meta') == str(folder / 'model_best.ckpt')
    shutil.copytree(str(folder), str(tmp_path / '[a]'))
    for script, arguments in [
            ('predict.py', ['--checkpoint=%s' % (tmp_path / '[a]')]),
            ('alexnet.py', [str(tmp_path / '[a]' / 'model_best.ckpt.index')])]:
        status, output = run_program(script, *arguments)
        assert status == 2 and 'in the path of a checkpoint' in output


def test_folder_of_one_run_is_not_taken_for_that_of_all(uninterrupted):
    folder = os.path.dirname(checkpoint_of(uninterrupted, 1))
    status, output = finetune(uninterrupted, *JOB, '--resume=True',
                              '--checkpoint_path=' + folder)
    assert status == 2
    assert '%s is the folder of one run: give --resume=%s' % (folder, folder) in output


def test_resume_does_not_go_on_with_the_sample_instead(tmp_path):
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        (tmp_path / 'mine.txt').write_text(''.join(
            os.path.join(ROOT, 'images', line) for line in file))
    mine = ['--train_file=%s' % (tmp_path / 'mine.txt')]
    run(str(tmp_path), *mine, '--num_epochs=1')
    status, output = finetune(str(tmp_path), *JOB, '--resume=True')
    assert status == 2, output
    assert ('was trained on %s, but train_file is the sample\'s: repeat the command of '
            'that run' % (tmp_path / 'mine.txt')) in output
    assert 'Resuming' in run(str(tmp_path), *mine, '--num_epochs=2', '--resume=True')


def test_older_checkpoint_that_is_in_use_does_not_end_the_run(tmp_path, monkeypatch):
    for epoch in (1, 2):
        (tmp_path / ('model_epoch%d.ckpt.index' % epoch)).write_text('')

    def refuse(path):
        raise PermissionError(13, 'used by another process', path)
    monkeypatch.setattr(checkpoint_files, 'remove_checkpoint', refuse)
    checkpoint_files.remove_older(str(tmp_path), 1)
    monkeypatch.undo()
    checkpoint_files.remove_older(str(tmp_path), 1)
    assert os.listdir(str(tmp_path)) == ['model_epoch2.ckpt.index']


def test_resume_where_there_is_nothing_starts_and_says_so(tmp_path):
    output = run(str(tmp_path), '--resume=True', '--num_epochs=1')
    assert 'new/checkpoints holds no checkpoint to resume from: a new run' in output


def test_class_names_are_kept_without_their_file(tmp_path, uninterrupted):
    folder = shutil.copytree(uninterrupted + '/new/checkpoints/1', str(tmp_path / 'a'))
    shutil.copy(os.path.join(ROOT, 'images', 'classes.txt'), str(tmp_path))
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        (tmp_path / 'test.txt').write_text(''.join(
            os.path.join(ROOT, 'images', line) for line in file))
    (tmp_path / 'classes.txt').write_text('x\ny\n')
    status, output = finetune(str(tmp_path), *JOB, '--num_epochs=1', '--num_classes=3',
                              '--train_file=%s' % (tmp_path / 'test.txt'))
    assert 'classes.txt names 2 classes, but num_classes is 3, so' in output
    (tmp_path / 'classes.txt').unlink()
    output = run(str(tmp_path / 'x'), '--resume=%s/model_epoch3.ckpt' % folder,
                 '--train_file=%s' % (tmp_path / 'test.txt'), '--num_epochs=4')
    assert 'class_names was' not in output
    with open(str(tmp_path / 'x' / 'new' / 'checkpoints' / '1' / 'model.json')) as file:
        assert json.load(file)['class_names'] == ['brick', 'grass', 'gravel']


def test_number_of_classes_is_found_and_kept(tmp_path, uninterrupted):
    """classes.txt names three; the list to resume with has one label and no names."""
    bricks = os.path.join(ROOT, 'images', 'textures', 'brick', 'test_01.jpg')
    (tmp_path / 'bricks.txt').write_text(bricks + ' 0\n')
    output = run(str(tmp_path), '--train_file=%s' % (tmp_path / 'bricks.txt'),
                 '--resume=' + checkpoint_of(uninterrupted, 3), '--num_epochs=4')
    assert 'num_classes' not in output and 'Epoch 4/4' in output
    for folder in (uninterrupted, str(tmp_path)):
        with open(folder + '/new/checkpoints/1/model.json') as file:
            assert json.load(file)['settings']['num_classes'] == 3


def test_weights_that_are_not_finite_are_refused(tmp_path, uninterrupted):
    path = str(tmp_path / 'model_epoch3.ckpt')
    good = checkpoint_of(uninterrupted, 3)
    with tf.Session() as session:
        saver = tf.train.import_meta_graph(good + '.meta')
        saver.restore(session, good)
        [weights] = tf.trainable_variables('fc7/weights')
        session.run(tf.assign(weights[0, :7], 7 * [np.nan]))
        saver.save(session, path)
    fault = 'fc7/weights: 7 numbers are not finite'
    status, output = run_program('predict.py', '--checkpoint=' + path)
    assert status == 2 and path in output and fault in output
    status, output = run_program('predict.py', '--checkpoint=' + path,
                                 '--export_path=%s' % (tmp_path / 'served'))
    assert status == 2 and fault in output and not (tmp_path / 'served').exists()
    status, output = finetune(str(tmp_path / 'a'), *JOB, '--weights_path=' + path)
    assert status == 2 and fault in output
    status, output = finetune(str(tmp_path / 'b'), *JOB, '--resume=' + path)
    assert status == 2 and '%s holds numbers that are not finite' % path in output


def test_two_runs_do_not_share_a_folder(tmp_path):
    """If one resumes the other. A new one starts all the same."""
    program = Program('finetune.py', *outputs_in(tmp_path), *JOB, '--num_epochs=999',
                      setup=make_narrow)
    for line in program.stdout:
        if 'Epoch 2/999' in line:
            break
    program.send_signal(signal.SIGSTOP)  # it holds its lock, and no epoch ends
    newest = list_checkpoints(os.path.dirname(checkpoint_of(tmp_path, 1)))[-1]
    for resume in ('True', '1', newest):
        status, output = finetune(str(tmp_path), *JOB, '--resume=' + resume)
        assert status == 2
        assert 'in use by another run, process %d on ' % program.process.pid in output
    program.send_signal(signal.SIGKILL)
    program.wait()
    run(str(tmp_path), '--resume=True', '--num_epochs=2')


def test_every_kind_of_damage_is_seen(tmp_path, uninterrupted):
    path = str(tmp_path / 'model.ckpt')
    data, index = path + '.data-00000-of-00001', path + '.index'

    def halve(name):
        os.truncate(name, os.path.getsize(name) // 2)

    def zero(name):
        size = os.path.getsize(name)
        os.truncate(name, 0)
        os.truncate(name, size)

    def flip(name):
        with open(name, 'r+b') as file:
            file.seek(os.path.getsize(name) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    for damage, name in [(halve, data), (zero, data), (flip, data), (halve, index),
                         (zero, index), (flip, index), (os.remove, data)]:
        for source in glob.glob(checkpoint_of(uninterrupted, 1) + '.*'):
            shutil.copy(source, str(tmp_path / os.path.basename(source).replace(
                'model_epoch1', 'model')))
        assert put_aside_if_damaged(path)
        damage(name)
        assert not put_aside_if_damaged(path), (damage, name)
        assert not glob.glob(path + '*') and os.path.exists(
            str(tmp_path / 'damaged_model.ckpt.meta'))


def test_resume_takes_the_newest_checkpoint_that_is_whole(tmp_path, uninterrupted):
    folder = tmp_path / 'new' / 'checkpoints' / '1'
    shutil.copytree(uninterrupted + '/new/checkpoints/1', str(folder))
    path = folder / 'model_epoch3.ckpt.data-00000-of-00001'
    os.truncate(str(path), 3 * 10 ** 6)
    (folder / 'model_epoch1.ckpt.index').write_bytes(b'')
    best = folder / 'model_best.ckpt.index'
    best.write_bytes(bytes(100))
    (folder / 'model.json').write_text('')
    with all_checkpoints_kept() as keep:
        output = run(str(tmp_path), '--resume=True', *keep)
    for name in ('model_epoch3.ckpt', 'model_best.ckpt'):
        assert 'Renamed to %s/damaged_%s\n' % (folder, name) in output
    assert 'Resuming from %s/model_epoch2.ckpt\n' % folder in output
    scores = [tensors(str(folder / ('model_epoch%d.ckpt' % epoch)))['progress'][0][4]
              for epoch in (2, 3)]
    assert same(tensors(str(folder / 'model_best.ckpt')), tensors(
        str(folder / ('model_epoch%d.ckpt' % (2 + np.argmax(scores))))))
    assert 'model.json: damaged' in output
    assert 'damaged_model_epoch3.ckpt.index' in os.listdir(str(folder))
    assert same(final(str(tmp_path)), final(uninterrupted)) or best_epoch(
        uninterrupted) == 1
    with open(str(folder / 'model.json')) as file:
        assert json.load(file)['num_classes'] == 3


def test_damaged_model_file_is_named(tmp_path, uninterrupted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(uninterrupted + '/new/checkpoints/1', str(tmp_path / 'a'))
    for text in ('', '[]', '{"settings'):
        with open(folder + '/model.json', 'w') as file:
            file.write(text)
        status, output = run_program('predict.py', '--checkpoint=' + folder)
        assert status == 2 and '%s/model.json: damaged' % folder in output or (
            text == '[]')


def test_log_that_cannot_be_written_is_one_warning(tmp_path, uninterrupted,
                                                   monkeypatch):
    add = EventFile.add

    def full(self, step=0, **content):
        if step > 5:
            raise OSError(errno.ENOSPC, 'No space left on device')
        add(self, step, **content)
    monkeypatch.setattr(EventFile, 'add', full)
    output = run(str(tmp_path))
    assert output.count('/log/1 cannot be written (') == 1 and 'No space left' in output
    assert same(final(str(tmp_path)), final(uninterrupted))


def test_other_lists_are_noticed_when_resuming(tmp_path, uninterrupted):
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        lines = [os.path.join(ROOT, 'images', line) for line in file]
    other = lines[:20] + [lines[20].replace(' 2', ' 0')] + lines[21:]
    for number, text in enumerate([lines, other, lines[:-1]]):
        (tmp_path / 'test.txt').write_text(''.join(text))
        output = run(str(tmp_path / str(number)), '--num_epochs=4',
                     '--resume=' + checkpoint_of(uninterrupted, 3),
                     '--train_file=%s' % (tmp_path / 'test.txt'))
        assert (number > 0) == ('Warning: the pictures or labels of %s/test.txt have '
                                'changed since' % tmp_path in output)


def test_curves_of_two_runs_are_not_mixed(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted + '/new', str(tmp_path / 'new'),
                    copy_function=os.link)
    (tmp_path / 'log' / '1').mkdir(parents=True)
    status, output = finetune(str(tmp_path), *JOB, '--resume=True', '--num_epochs=4')
    assert status == 2 and 'log/1 holds the curves of another run: filewriter' in output
    assert os.listdir(str(tmp_path / 'log' / '1')) == []


def test_a_run_from_a_checkpoint_can_be_killed_at_once(tmp_path, uninterrupted):
    """It goes on from where it started, not from an earlier best checkpoint."""
    path = checkpoint_of(uninterrupted, 2)
    program = Program('finetune.py', *outputs_in(tmp_path), *JOB, '--resume=' + path,
                      setup=make_narrow)
    for line in program.stdout:
        if line.startswith('fc8'):
            break
    program.process.kill()
    program.wait()
    output = run(str(tmp_path), '--resume=True')
    assert re.search('Resuming from .*/1/model_epoch[23]', output), output
    assert same(final(str(tmp_path)), final(uninterrupted))
    status, output = finetune(
        str(tmp_path / 'stopped'), *JOB, '--resume=' + path,
        react=lambda text: os.kill(os.getpid(), signal.SIGTERM)
        if 'Resuming' in text else None)
    assert status == 143 and output.endswith('Stopped before the first step\n')
    assert not files(tmp_path / 'stopped' / 'new')


def test_a_run_without_a_step_removes_only_what_it_wrote(tmp_path, uninterrupted,
                                                         monkeypatch):
    def fail(self, batches, epoch=None):
        with open(os.path.join(self.folder.path, 'mine.txt'), 'w') as file:
            file.write('a note')
        raise InputError('no step')
    monkeypatch.setattr(Run, 'guard', fail)
    status, output = finetune(str(tmp_path), *JOB)
    assert status == 2 and output.endswith('no step\n')
    assert files(tmp_path / 'new') == ['mine.txt'] and not files(tmp_path / 'log')
    monkeypatch.undo()
    status, output = finetune(str(tmp_path / 'x'), *JOB, '--num_epochs=2',
                              '--resume=' + checkpoint_of(uninterrupted, 2))
    assert status == 2 and 'All 2 epochs are done' in output
    assert not files(tmp_path / 'x')


def test_resume_destroys_no_checkpoint(tmp_path, uninterrupted):
    """An older checkpoint is the start of a new run; the earlier one stays as it is."""
    folder = shutil.copytree(uninterrupted + '/new/checkpoints/1',
                             str(tmp_path / 'new' / 'checkpoints' / '1'))
    before = sorted(os.listdir(folder))
    output = run(str(tmp_path), '--resume=%s/model_epoch2.ckpt' % folder)
    assert 'Resuming from %s/model_epoch2.ckpt\n' % folder in output
    assert same(final(str(tmp_path)), final(uninterrupted))
    assert sorted(os.listdir(folder)) == before
    assert sorted(os.listdir(str(tmp_path / 'new' / 'checkpoints'))) == ['1', '2']
    copy_checkpoint(folder + '/model_best.ckpt', folder + '/model_best.ckpt')
    assert same(tensors(folder + '/model_best.ckpt'), tensors(
        folder + '/model_epoch%d.ckpt' % best_epoch(uninterrupted)))


def test_infinite_loss_stops_the_run_and_poisons_nothing(tmp_path):
    status, output = finetune(str(tmp_path), *(JOB + [
        '--learning_rate=1e38', '--display_step=1']))
    assert status == 1
    assert 'is no longer finite in epoch 1' in output
    assert 'with learning_rate 1e+38' in output
    assert 'The last good checkpoint: none yet' in output
    assert 'Traceback' not in output
    assert 'model_' not in ''.join(files(tmp_path))
    assert all(np.isfinite(value) for _, _, value in summaries(str(tmp_path), 'train')
               if value is not None)


def limit_files():
    make_narrow()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 10 ** 6, 3 * 10 ** 6))


def test_full_disk_is_a_clear_error_and_leaves_earlier_checkpoints(tmp_path,
                                                                   uninterrupted):
    """A limit on the size of files stands for the full disk."""
    folder = str(tmp_path)
    os.makedirs(folder + '/new/checkpoints/1')
    earlier = checkpoint_of(folder, 1)
    copy_checkpoint(checkpoint_of(uninterrupted, 1), earlier)
    program = Program(
        'finetune.py', *outputs_in(folder), *JOB, '--resume=True', setup=limit_files)
    status, output = program.wait()
    assert status == 1, output
    assert 'The checkpoint of step 8 could not be saved' in output
    assert 'The last checkpoint: %s.' % earlier in output
    assert 'Traceback' not in output
    assert list_checkpoints(folder + '/new/checkpoints/1') == [earlier]
    assert same(tensors(earlier), tensors(checkpoint_of(uninterrupted, 1)))
    assert not glob.glob(folder + '/new/checkpoints/1/model_epoch2*')


def test_checkpoint_that_lacks_only_its_graph_is_kept(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(tf.train.Saver, 'export_meta_graph', full)
    status, output = finetune(str(tmp_path), *JOB)
    path = str(tmp_path / 'new' / 'checkpoints' / '1' / 'model_epoch1.ckpt')
    assert status == 1 and 'No space left on device' in output
    assert 'The last checkpoint: %s.' % path in output
    monkeypatch.undo()
    assert 'Resuming from %s\n' % path in run(str(tmp_path), '--resume=True')


def test_network_that_explodes_in_the_last_step_is_not_saved(tmp_path):
    status, output = finetune(str(tmp_path), *(JOB + [
        '--learning_rate=1e38', '--batch_size=27', '--display_step=9']))
    assert status == 1 and 'is no longer finite in epoch 1, step 1' in output
    assert 'model_' not in ''.join(files(tmp_path))


def test_best_checkpoint_alone_can_go_on(tmp_path, uninterrupted):
    folder = tmp_path / 'new' / 'checkpoints' / '1'
    folder.mkdir(parents=True)
    best = str(folder / 'model_best.ckpt')
    copy_checkpoint(checkpoint_of(uninterrupted, 'best'), best)
    assert 'Resuming from %s' % best in run(str(tmp_path), '--resume=True',
                                            '--num_epochs=4')
    assert tensors(str(folder / 'model_epoch4.ckpt'))['global_step'] == [16]


def test_damaged_checkpoint_is_a_clear_error(tmp_path):
    """And never a new start, nor one from an earlier run; neither when put aside."""
    folder = tmp_path / 'new' / 'checkpoints' / '3'
    for number in ('1', '3'):
        (folder.parent / number).mkdir(parents=True)
        (folder.parent / number / 'model_epoch1.ckpt.index').write_bytes(b'')
    (folder.parent / '4').mkdir()
    for warning in ('Warning: %s/model_epoch1.ckpt: damaged, or' % folder, ''):
        status, output = finetune(str(tmp_path), '--resume=True', *JOB)
        assert status == 2 and output.startswith(warning)
        assert output.endswith('%s: none of the checkpoints can be read\n' % folder)
    for number, complaint in [(2, 'resume is 2, but %s has no such run with a '
                                  'checkpoint; it has 1, 3\n' % folder.parent),
                              (0, "'0' is not True, False, the number of a run from")]:
        status, output = finetune(str(tmp_path), '--resume=%d' % number, *JOB)
        assert status == 2 and complaint in output


def test_unwritable_folder_is_an_error_at_once(tmp_path):
    for name in ('new', 'served'):
        (tmp_path / name).write_text('a file, not a folder')
    for name, (status, output) in [
            ('new', finetune(str(tmp_path), *JOB)),
            ('served', run_program('predict.py',
                                   '--export_path=%s/served/1' % tmp_path))]:
        assert status == 2 and output.count('\n') == 1
        assert "'%s/" % (tmp_path / name) in output and 'can be made' in output


@pytest.fixture
def lists(tmp_path):
    """Lists of 24 pictures, of which one is damaged and one is cut off."""
    names = []
    for number in range(24):
        value = np.random.RandomState(number).randint(0, 256, (90, 120, 3))
        names.append('%d.jpg' % number)
        cv2.imwrite(str(tmp_path / names[-1]), value.astype(np.uint8))
    (tmp_path / '5.jpg').write_bytes(b'no picture')
    whole = (tmp_path / '21.jpg').read_bytes()
    (tmp_path / '21.jpg').write_bytes(whole[:-200])
    for name, part in [('train', names[:16]), ('val', names[12:])]:
        (tmp_path / (name + '.txt')).write_text(
            ''.join('%s %d\n' % (path, i % 2) for i, path in enumerate(part)))
    return ['--train_file=%s' % (tmp_path / 'train.txt'),
            '--val_file=%s' % (tmp_path / 'val.txt'), '--num_epochs=1',
            '--num_classes=3']


def test_all_bad_pictures_are_told_before_the_first_step(tmp_path, lists):
    status, output = finetune(str(tmp_path / 'out'), *(JOB + lists))
    assert status == 2
    assert 'Cannot read 2 pictures:' in output
    assert 'train.txt, line 6: %s: not a picture' % (tmp_path / '5.jpg') in output
    assert 'val.txt, line 10: %s: not a picture' % (tmp_path / '21.jpg') in output
    assert "on_bad_image = 'skip'" in output and 'Epoch' not in output
    assert not (tmp_path / 'out').exists()


def test_bad_pictures_are_skipped_on_demand_and_warnings_are_given(tmp_path, lists):
    with open(str(tmp_path / 'train.txt'), 'a') as file:
        file.write('gone.jpg 0\n')
    output = run(str(tmp_path / 'out'), '--on_bad_image=skip', *lists)
    assert 'Cannot read 3 pictures:' in output
    assert 'train.txt, line 17: %s: No such file' % (tmp_path / 'gone.jpg') in output
    assert '4 pictures of %s are also in' % (tmp_path / 'val.txt') in output
    assert 'train.txt has no sample of class 2\n' in output
    assert '(always predicting the most common class: 0.5' in output
    for name in ('train', 'val'):
        assert (tmp_path / ('.%s.txt.checked' % name)).exists()


@pytest.fixture
def vanishing(tmp_path):
    """A list of copies of 27 pictures; give a function that removes some at a word."""
    names, lines = [], []
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        for number, line in enumerate(file):
            path, label = line.split()
            names.append('%d.jpg' % number)
            lines.append('%s %s\n' % (names[-1], label))
            shutil.copy(os.path.join(ROOT, 'images', path), str(tmp_path / names[-1]))
    (tmp_path / 'list.txt').write_text(''.join(lines))

    def remove(numbers, word):
        def react(text):
            if word in text:
                for number in numbers:
                    os.replace(str(tmp_path / names[number]),
                               str(tmp_path / ('gone_' + names[number])))
        return react
    return remove


@pytest.mark.parametrize('name, word, saved', [
    ('train', 'Epoch 2/3, step 6', 'model_epoch2_step8.ckpt'),  # one pass was ahead
    ('val', 'Epoch 1/3, step 3', 'model_epoch1_step4.ckpt')])
def test_picture_that_vanishes_loses_nothing(tmp_path, uninterrupted, vanishing, name,
                                             word, saved, monkeypatch):
    monkeypatch.setattr(features, 'find_pass_size', lambda: 36)
    arguments = JOB + ['--%s_file=%s' % (name, tmp_path / 'list.txt'), '--resume=True',
                       '--cache_features=False']
    status, output = finetune(tmp_path / 'out', *arguments,
                              react=vanishing(range(0, 27, 2), word))
    assert status == 2 and 'jpg: No such file or directory' in output, output
    assert 'list.txt, line ' in output and 'Traceback' not in output
    assert 'saved %s/out/new/checkpoints/1/%s.' % (tmp_path, saved) in output
    for path in glob.glob(str(tmp_path / 'gone_*')):
        os.replace(path, path.replace('gone_', ''))
    output = run(tmp_path / 'out', *arguments)
    assert 'Resuming from' in output
    for name in (3, 'best'):
        assert same(*[tensors(checkpoint_of(folder, name))
                      for folder in (uninterrupted, tmp_path / 'out')])


def test_pictures_that_vanish_are_left_out_on_demand(tmp_path, vanishing, monkeypatch):
    monkeypatch.setattr(features, 'find_pass_size', lambda: 4)
    arguments = JOB + ['--train_file=%s' % (tmp_path / 'list.txt'), '--batch_size=4',
                       '--on_bad_image=skip', '--cache_features=False']
    status, output = finetune(
        tmp_path / 'a', *arguments, '--test_file=%s' % (tmp_path / 'list.txt'),
        react=vanishing([1, 2, 3, 4], 'Epoch 1/3, step 3'))
    assert 'Warning: skipped %s, line ' % (tmp_path / 'list.txt') in output
    # The test needs them all, but by then everything is done and told.
    assert status == 2 and (
        'list.txt, line 2: %s: No such file or directory\n' % (tmp_path / '1.jpg')
        in output.split('Predict: ')[1])
    assert final(tmp_path / 'a')['global_step'] == [21]
    status, output = finetune(tmp_path / 'b', *arguments, react=vanishing(
        [0] + list(range(5, 27)), 'Epoch 1/3, step 3'))
    assert status == 2 and 'Stopped in epoch 1' in output and 'Traceback' not in output


def test_constant_predictions_are_pointed_out(tmp_path):
    folder = os.path.join(ROOT, 'images', 'textures', 'brick')
    bricks = ['%s/test_%02d.jpg' % (folder, number) for number in range(1, 10)]
    (tmp_path / 'bricks.txt').write_text(''.join(path + ' 0\n' for path in bricks))
    output = run(str(tmp_path), '--train_file=%s' % (tmp_path / 'bricks.txt'),
                 '--num_classes=3', '--num_epochs=1', '--learning_rate=1')
    assert 'Warning: all predictions are class 0\n' in output
