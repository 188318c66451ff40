"""Several workers on 127.0.0.1, each a process of its own."""
import hashlib
import itertools
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
import datagenerator
from alexnet import AlexNet, fc
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import (ROOT, Program, checkpoint_of, files, finetune, make_narrow,
                     outputs_in, same, summaries, tensors, tf_configs)
from machinery import class_names, workers as workers_module
from machinery.batches import Batch
from machinery.cluster import find_tasks
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.lists import read_list
from machinery.run import Run
from machinery.tf1 import tf
from machinery.weights import read_weights, save_weights
from machinery.workers import LOST_A_PEER, Workers

# 12 samples of 61 in a step; 3 epochs of 6 steps, the last with a sample for each
JOB = ['--skip_layers=[]', "--train_layers=['fc8']", '--val_file=images/test.txt',
       '--num_epochs=3', '--learning_rate=0.01', '--horizontal_flip=False',
       '--dropout_rate=0', '--peer_timeout=15']


def tell_digest():
    """Let this process tell a digest of its network where the workers part."""
    finish = Workers.finish

    def finish_and_tell(self):
        session = tf.get_default_session()
        if session:
            digest = hashlib.sha1()
            for variable in tf.global_variables():
                digest.update(session.run(variable).tobytes())
            sys.stderr.write('digest %s\n' % digest.hexdigest())
        finish(self)
    Workers.finish = finish_and_tell


def make_narrow_and_tell():
    make_narrow()
    tell_digest()


def start(folder, size, *arguments, setup=make_narrow_and_tell):
    """Start workers; in arguments, RANK stands for the number of each.

    Only the chief should write to folder/new/checkpoints/1 and folder/log/1; each
    stores features.
    """
    return [Program(
        'finetune.py', *outputs_in(os.path.join(str(folder), 'worker%d' % rank
                                                if rank else '')),
        '--batch_size=%d' % (12 // size), *JOB,
        *[argument.replace('RANK', str(rank)) for argument in arguments],
        env={'TF_CONFIG': config}, setup=setup, draws=True)
        for rank, config in enumerate(tf_configs(size))]


def finish(programs):
    """Return the statuses and the outputs."""
    return zip(*[program.wait() for program in programs])


def train(folder, size, *arguments):
    """Let workers finish the job; return the final variables and the chief's output."""
    statuses, outputs = finish(start(folder, size, *arguments))
    assert statuses == (0,) * size, outputs
    for output in outputs[1:]:
        assert re.match('digest [0-9a-f]{40}\n$', output) and output in outputs[0]
        assert outputs[0].count('digest') == 1
    for rank in range(1, size):
        assert os.listdir(str(folder / ('worker%d' % rank))) == ['features']
    return final(folder), outputs[0]


def final(folder):
    return tensors(checkpoint_of(folder, 3))


def wait_for(program, text):
    """Read a program's output to the line that has this text."""
    output = ''
    for line in program.stdout:
        output += line
        if text in line:
            return
    raise AssertionError(output)


@pytest.fixture(scope='module', autouse=True)
def start_of_the_job(module_path, narrow_network, narrow_file):
    """Write the list that all runs train on."""
    path = module_path / 'train.txt'
    with open(os.path.join(ROOT, 'images', 'train.txt')) as file:
        path.write_text(''.join(os.path.join(ROOT, 'images', line)
                                for line in file.readlines()[:122:2]))
    JOB.extend(['--train_file=%s' % path, '--weights_path=' + narrow_file])


@pytest.fixture(scope='module')
def two(module_path):
    return train(module_path, 2)


def union_of(size):
    """Return a generator class that gives one process the batches of all workers."""
    class Union(ImageDataGenerator):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if self.shuffle:
                self.parts = [ImageDataGenerator(
                    *args, **dict(kwargs, seed=rank, shard=(rank, size)))
                    for rank in range(size)]
                self.samples = np.resize(self.samples, size * self.parts[0].data_size)

        def plan(self, epoch):
            order, mirrored, is_random = super().plan(epoch)
            if self.shuffle:
                orders = [part.plan(epoch)[0] for part in self.parts]
                share = 12 // size
                order = np.concatenate([
                    order[start:start + share]
                    for start in range(0, len(orders[0]), share) for order in orders])
            return order, mirrored, is_random
    return Union


@pytest.mark.parametrize('size', [2, 3])
def test_workers_equal_one_process_with_the_union_of_their_batches(
        request, tmp_path, module_path, monkeypatch, size):
    found, output = (request.getfixturevalue('two') if size == 2 else
                     train(tmp_path / 'workers', size))
    if size == 3:  # all write one file, of their own shares
        [name] = [name for name in files(module_path) if 'checked' in name]
        samples = read_list(str(module_path / 'train.txt'), OneClass(range(3)))[0]
        assert name == '.train.txt.checked'
        assert len(np.load(str(module_path / name))) == len(samples)
    monkeypatch.setattr(datagenerator, 'ImageDataGenerator', union_of(size))
    status, single_output = finetune(tmp_path, '--batch_size=12', *JOB)
    assert status == 0, single_output
    expected = final(tmp_path)
    assert expected['global_step'] == [18] and set(found) == set(expected)
    for name in expected:
        [a], [b] = found[name], expected[name]
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.abs(b).max()),
                                   err_msg=name)
    folders = [module_path if size == 2 else tmp_path / 'workers', tmp_path]
    curves = [[value for _, _, value in summaries(folder, 'train without dropout')]
              for folder in folders]
    assert len(curves[0]) == 3 * 2
    np.testing.assert_allclose(*curves, rtol=1e-4)
    epochs = [[line.split(';')[0] for line in text.splitlines()
               if ': validation' in line] for text in (output, single_output)]
    assert len(epochs[0]) == 3 and epochs[0] == epochs[1]


def fc_with_wide_fc7(x, num_in, num_out, name, **options):
    """alexnet.fc for a network whose fc7 has 4096 units, and fc6 64."""
    num_in, num_out = {'fc6': (9216, 64), 'fc7': (64, 4096)}.get(name, (4096, num_out))
    return fc(x, num_in, num_out, name, **options)


def make_fc7_wide():
    make_narrow()
    alexnet.fc = fc_with_wide_fc7


def test_workers_try_learning_rates_together(tmp_path):
    statuses, outputs = finish(start(tmp_path, 2, '--find_rate=True'))
    assert statuses == (0, 0), outputs
    assert 'try --learning_rate' in outputs[0]
    assert outputs[1].startswith('digest ') and outputs[1] in outputs[0]
    assert not files(tmp_path / 'new')
    assert os.listdir(str(tmp_path / 'worker1')) == ['features']


def test_workers_drop_different_units(tmp_path, narrow_file, monkeypatch):
    """Of fc8's inputs that are not 0, a half would learn in a step, not three quarters,
    if both workers had the same mask for the same picture."""
    make_narrow(monkeypatch.setattr)
    monkeypatch.setattr(alexnet, 'fc', fc_with_wide_fc7)
    weights, rng = read_weights(narrow_file), np.random.RandomState(0)
    weights['fc7'] = [rng.standard_normal((64, 4096)).astype('f4') / 8, np.zeros(4096)]
    weights['fc8'] = [rng.standard_normal((4096, 3)).astype('f4') / 64, np.zeros(3)]
    path = str(tmp_path / 'wide.npy')
    save_weights(weights, path)
    picture = os.path.join(ROOT, 'images', 'textures', 'brick', 'train_01.jpg')
    (tmp_path / 'list.txt').write_text(2 * (picture + ' 1\n'))
    statuses, outputs = finish(start(
        tmp_path, 2, '--dropout_rate=0.5', '--train_file=%s' % (tmp_path / 'list.txt'),
        '--num_epochs=1', '--num_classes=3', '--weights_path=' + path,
        setup=make_fc7_wide))
    assert statuses == (0, 0), outputs
    model = AlexNet(tf.placeholder(tf.float32, [None, 227, 227, 3]), 1., 3, [], path)
    with tf.Session() as session:
        model.load_initial_weights(session)
        is_alive = session.run(model.fc7, {
                model.X: [normalize(load_image(picture))]})[0] > 0
    before = weights['fc8'][0]
    [after] = tensors(checkpoint_of(tmp_path, 1))['fc8/weights']
    learned = (before != after).any(1)
    assert not learned[~is_alive].any() and is_alive.sum() > 500
    assert 0.7 < learned[is_alive].mean() < 0.8


def test_lost_workers_are_named_and_resume_is_exact(tmp_path, two):
    """kill -9 of the chief and of a worker; one that is frozen; then to the end."""
    def lose(rank, number, moment):
        programs = start(tmp_path, 2, '--resume=True', '--peer_timeout=10',
                         '--display_step=2')
        wait_for(programs[0], moment)
        programs[rank].send_signal(number)
        lost = time.time()
        status, output = programs[1 - rank].wait()
        assert time.time() - lost < 10
        assert status == LOST_A_PEER, output
        assert 'lost %s 0 (127.0.0.1:' % ('worker' if rank else 'chief') in output
        assert '--resume=True' in output
        if number == signal.SIGSTOP:
            programs[rank].send_signal(signal.SIGKILL)
        assert programs[rank].wait()[0] == -signal.SIGKILL

    lose(0, signal.SIGKILL, 'Epoch 1/3, step 2')
    lose(1, signal.SIGKILL, 'Epoch 1/3: validation')
    lose(1, signal.SIGSTOP, 'Epoch 2/3: validation')
    found, output = train(tmp_path, 2, '--resume=True')
    assert 'Resuming from' in output
    assert same(found, two[0])


def test_stop_of_any_worker_stops_all_and_another_number_goes_on(tmp_path, two):
    """SIGTERM to a worker of two; both resume; one process does another epoch."""
    programs = start(tmp_path, 2, '--display_step=1')
    wait_for(programs[0], 'Epoch 2/3, step 8')
    programs[1].send_signal(signal.SIGTERM)
    statuses, outputs = finish(programs)
    assert statuses == (128 + signal.SIGTERM,) * 2, outputs
    assert re.search('Stopped in epoch [23], after step', outputs[0]), outputs
    found, output = train(tmp_path, 2, '--resume=True')
    assert 'Warning' not in output.replace('Warning: all predictions are class', '')
    assert same(found, two[0])
    status, output = finetune(tmp_path, '--batch_size=12', *JOB, '--resume=True',
                              '--num_epochs=4')
    assert status == 0 and 'Warning: workers was 2 in the run being resumed' in output


def test_settings_that_differ_are_named(tmp_path):
    statuses, outputs = finish(start(tmp_path, 2, '--seed=RANK'))
    assert statuses == (2, 2)
    for rank, output in enumerate(outputs):
        assert re.search(r'seed differs between chief 0 \(127.0.0.1:\d+\) and worker '
                         r'0 \(127.0.0.1:\d+\); here it is %d\n$' % rank, output)


def tasks_of(monkeypatch, config):
    monkeypatch.setenv('TF_CONFIG', config)
    return find_tasks()


@pytest.fixture
def pair(monkeypatch):
    """Function that calls a function with each of two workers; returns the results."""
    monkeypatch.setattr(sys, 'stdout', sys.stdout)  # worker 1 replaces it
    pool = ThreadPoolExecutor(2)
    tasks = [tasks_of(monkeypatch, config) for config in tf_configs(2)]
    both = list(pool.map(lambda task: Workers(*task), tasks))

    def call(function):
        def within_own_graph(workers):
            with tf.Graph().as_default(), workers.session() as session:
                return function(workers, session)
        return list(pool.map(within_own_graph, both))
    yield call
    for workers in both:  # as finish does, but that waits for a second
        workers._finished.set()
        workers._server = None


def test_mean_is_the_same_for_all(pair):
    values = np.random.RandomState(0).rand(2, 1000, 7).astype(np.float32)

    def mean(workers, session):
        mine = tf.constant(values[workers.rank])
        one, two = workers.mean([mine, tf.reduce_sum(mine)])
        assert one.shape.as_list() == [1000, 7] and two.shape.as_list() == []
        return session.run([one, two])
    first, second = pair(mean)
    assert (first[0] == second[0]).all() and first[1] == second[1]
    np.testing.assert_allclose(first[0], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(first[1], values.sum() / 2, rtol=1e-6)


def test_merge_interleave_and_broadcast_keep_every_bit(pair):
    values = np.array([-0., np.nan, 1e-45, 1 / 3., 2. ** 1000])

    def merge(workers, session):
        mine = values.copy()
        mine[workers.rank::2] = 0
        return workers.merge(mine)

    def broadcast(workers, session):
        variables = [tf.get_variable('a', initializer=values * (workers.rank + 1)),
                     tf.get_variable('b', initializer=np.int64(2 ** 40 + workers.rank))]
        session.run(tf.global_variables_initializer())
        workers.broadcast(session)
        return session.run(variables)
    def gather(workers, session):
        unequal = workers.gather([
            {'a': values[:1] if workers.rank else values[[0, 4, 1]]}])['a']
        assert unequal.tobytes() == values[[0, 0, 4, 1]].tobytes()
        return workers.gather([{'a': part} for part in np.split(
            values[workers.rank::2], [1])])['a']

    for function in [merge, gather]:
        assert [found.tobytes() for found in pair(function)] == [values.tobytes()] * 2
    for a, b in pair(broadcast):
        assert a.tobytes() == values.tobytes() and b == 2 ** 40
    assert pair(lambda workers, session: [
        workers.any(workers.rank == 1), workers.any(False)]) == [[True, False]] * 2


def guarded(workers, epoch, count, fault=None, images='features'):
    """Guard so many batches of 3 samples; return the run, and what came through."""
    def batches():
        try:
            for end in range(3, 3 * count + 1, 3):
                yield Batch(images and '%s %d' % (images, end), 'labels', None, end)
            if fault:
                raise fault
        finally:
            closed.append(True)
    closed = []
    settings = {'num_epochs': 9, 'filewriter_path': '', 'val_file': '', 'test_file': ''}
    with tf.Graph().as_default():
        run = Run('none', 'none', False, 2, settings, workers)
    steps = itertools.count()  # which training would change
    run._signals = SimpleNamespace(is_stopped=False)
    run._session = SimpleNamespace(run=lambda _: [np.int64(next(steps))])
    run._step, run._first_step = lambda: 0, 0
    found = [(features, run.progress.done)
             for features, _ in run.guard(batches(), epoch)]
    assert closed == [True]
    return run, found


def test_number_of_classes_is_the_same_for_all(pair, monkeypatch):
    """They compare what they find; a resumed run has that of the chief's checkpoint."""
    monkeypatch.setattr(class_names, 'num_classes_of', lambda path, layer: 5)

    def find(workers, session):
        workers.finish = lambda: None  # not yet
        run = SimpleNamespace(latest=None, is_resumed=False, workers=workers)
        largest = 3 + workers.rank  # of the labels
        with pytest.raises(InputError) as error:
            class_names.find_num_classes(None, largest, run, 'fc8')
        assert re.match('num_classes differs between chief 0 .* and worker 0 .*; here '
                        'it is %d$' % (4 + workers.rank), str(error.value))
        run.is_resumed, run.latest = True, None if workers.rank else 'latest'
        del workers.finish
        return class_names.find_num_classes(None, largest, run, 'fc8')
    assert pair(find) == [5, 5]


def test_guard_ends_the_run_if_a_whole_batch_is_unreadable():
    with pytest.raises(InputError, match='None of the next pictures can be read'):
        guarded(Workers(), 1, 1, images='')


def test_guard_waits_for_the_worker_with_more_batches_to_evaluate(pair):
    def guard(workers, session):
        run, found = guarded(workers, None, 1 + workers.rank)
        assert run.seconds['waiting'] == 0 and run.epoch == 1
        return found
    assert pair(guard) == [[('features 3', 0)], [('features 3', 0), ('features 6', 0)]]


def test_guard_counts_training_batches_of_which_all_workers_have_as_many(pair):
    def guard(workers, session):
        run, found = guarded(workers, 2, 2)
        assert run.seconds['waiting'] > 0 and run.epoch == 2 and run.start_of(2) == 6
        with pytest.raises(InputError, match='different numbers of training batches'):
            guarded(workers, 2, 1 + workers.rank)
        return found
    assert pair(guard) == 2 * [[('features 3', 6), ('features 6', 12)]]


def test_fault_of_one_worker_ends_all_at_the_same_batch(pair):
    def guard(workers, session):
        with pytest.raises(InputError) as error:
            guarded(workers, 1, 1 + workers.rank,
                    None if workers.rank else InputError('a.jpg is gone'))
        return str(error.value)
    one, other = pair(guard)
    assert one == 'a.jpg is gone' and re.match(r'chief 0 \(.*\) cannot go on$', other)


def test_worker_that_never_comes_is_named(monkeypatch):
    tasks, rank = tasks_of(monkeypatch, tf_configs(2)[0])
    with pytest.raises(SystemExit, match='No answer within 1 s from worker 0 .%s'
                       % tasks[1][2]):
        Workers(tasks, rank, peer_timeout=1)


def test_peer_that_is_back_at_once_is_lost_all_the_same(monkeypatch, capfd):
    states = iter(['alive', 'gone', 'alive', 'alive', 'alive', 'alive'])
    monkeypatch.setattr(workers_module, 'probe', lambda address: next(states))
    monkeypatch.setattr(workers_module.os, '_exit', sys.exit)
    workers = Workers([('chief', 0, 'here:2222')])
    monkeypatch.setattr(workers._finished, 'wait', lambda seconds: False)
    with pytest.raises(SystemExit) as status:
        workers._watch(('worker', 1, 'host:2222'))
    assert status.value.code == LOST_A_PEER
    assert 'lost worker 1 (host:2222), which is gone' in capfd.readouterr().err


def test_network_error_leaves_the_watch_its_time_but_once(monkeypatch, capsys):
    workers, slept = Workers([('chief', 0, 'here:2222')], peer_timeout=100), []
    workers.size = 2
    monkeypatch.setattr(workers_module.time, 'sleep', slept.append)
    with pytest.raises(RuntimeError, match='chief 0 .*: Socket closed$'):
        with workers.session(), workers.session():
            raise tf.errors.UnavailableError(
                None, None, 'Graph execution error:\n\nmany\nlines\nSocket closed\n'
                'The error could be from a previous operation. Restart your program to '
                'reset.\n\t [[{{node mean}}]] [Op:mean]')
    assert slept == [80] and 'Socket closed\n' in capsys.readouterr().err


def test_tasks_are_found_with_the_chief_first(monkeypatch):
    text = ('{"cluster": {"worker": ["b:1", "c:2"], "chief": ["a:3"]}, '
            '"task": {"type": "worker", "index": %s}}')
    tasks = [('chief', 0, 'a:3'), ('worker', 0, 'b:1'), ('worker', 1, 'c:2')]
    assert tasks_of(monkeypatch, text % 1) == (tasks, 2)
    assert tasks_of(monkeypatch, text % '"0"') == (tasks, 1)
    for alone in ['', '{}', '{"cluster": {}}',
                  '{"task": {"type": "worker", "index": 0}}']:
        assert tasks_of(monkeypatch, alone) == ([None], 0)


@pytest.mark.parametrize('text, complaint', [
    ('{"cluster"', 'Expecting '),
    ('[]', ''),
    ('{"a":' * 99999, ''),
    ('{"cluster": ["a:1"]}', ''),
    ('{"cluster": {"ps": ["a:1"]}}', "unknown job 'ps': only chief"),
    ('{"cluster": {"worker": "a:1"}}', ''),
    ('{"cluster": {"worker": ["a:1", "b"]}}', "worker 1: 'b' is not host:port"),
    ('{"cluster": {"worker": [":1"]}}', "worker 0: ':1' is not host:port"),
    ('{"cluster": {"worker": ["a:70000"]}}', "worker 0: 'a:70000' is not host:port"),
    ('{"cluster": {"worker": [7]}}', ''),
    ('{"cluster": {"worker": ["a:\u00b2"]}}', "worker 0: 'a:\u00b2' is not host:port"),
    ('{"cluster": {"worker": ["http://a:1"]}}', "worker 0: 'http://a:1' is"),
    ('{"cluster": {"worker": ["a:1", "a:1"]}}', 'an address occurs twice'),
    ('{"cluster": {"chief": ["a:1", "b:1"]}}', 'there is more than one chief'),
    ('{"cluster": {"worker": ["a:1"]}}', '"task" is not in "cluster"'),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
     '"task" is not in "cluster"'),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}', ''),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e999}}',
     ''),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
     '"task" is not in "cluster"')])
def test_malformed_tf_config_is_a_clear_error(monkeypatch, text, complaint):
    with pytest.raises(InputError) as error:
        tasks_of(monkeypatch, text)
    assert str(error.value).startswith('TF_CONFIG: ' + complaint)
    assert 'expected, for example, {"cluster"' in str(error.value)


SLURM = {'SLURM_STEP_NUM_TASKS': '4', 'SLURM_STEP_NODELIST': 'n[2,10]',
         'SLURM_STEP_TASKS_PER_NODE': '2(x2)', 'SLURM_JOB_ID': '7',
         'SLURMD_NODENAME': 'n2', 'SLURM_LOCALID': '1'}


def slurm_tasks(monkeypatch, **changes):
    """Return find_tasks() in a step of Slurm, some of whose variables are changed."""
    monkeypatch.delenv('TF_CONFIG', raising=False)
    for name, value in dict(SLURM, **changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return find_tasks()


@pytest.mark.parametrize('nodes, on_each, own, expected', [
    ('n[2,10]', '2(x2)', 'n2', ['n2:12007', 'n2:12008', 'n10:12007', 'n10:12008']),
    ('node-[08-10]-x', '1,2,1', 'node-09-x', [
        'node-08-x:12007', 'node-09-x:12007', 'node-09-x:12008', 'node-10-x:12007']),
    ('r[0-1]n[1,3]', '1(x3),1', 'r0n1', ['r0n1:12007', 'r0n3:12007', 'r1n1:12007',
                                         'r1n3:12007']),
    ('a.b,c', '3,1', 'a.b', ['a.b:12007', 'a.b:12008', 'a.b:12009', 'c:12007'])])
def test_tasks_are_found_under_slurm(monkeypatch, nodes, on_each, own, expected):
    tasks, rank = slurm_tasks(
        monkeypatch, SLURM_STEP_NODELIST=nodes, SLURM_STEP_TASKS_PER_NODE=on_each,
        SLURMD_NODENAME=own, SLURM_LOCALID='0')
    assert tasks == [('worker', place, address)
                     for place, address in enumerate(expected)]
    assert tasks[rank][2] == own + ':12007'


def test_step_of_one_task_is_no_cluster(monkeypatch):
    for size in [None, '1']:
        assert slurm_tasks(monkeypatch, SLURM_STEP_NUM_TASKS=size) == ([None], 0)


@pytest.mark.parametrize('name, values', [
    ('SLURM_STEP_NUM_TASKS', ['', 'x', '-1', '3', '9' * 5000]),
    ('SLURM_STEP_NODELIST', [None, '', 'n[1-', 'n[3-1]', 'n1,,n2', 'n[a-b]', 'n[]',
                             'n[1-2]]', 'n[1-3]', 'a b', 'm[1-2]']),
    ('SLURM_STEP_TASKS_PER_NODE', [None, '', 'x', '2(y2)', '2,', '2', '2(x3)']),
    ('SLURM_JOB_ID', [None, '', 'x', '\u00b2']),
    ('SLURMD_NODENAME', [None, '', 'n3']), ('SLURM_LOCALID', [None, '', 'x', '-1', '2'])
])
def test_odd_variable_of_slurm_is_named(monkeypatch, name, values):
    for value in values:
        with pytest.raises(InputError) as error:
            slurm_tasks(monkeypatch, **{name: value})
        assert name in str(error.value) and (value or '')[:99] in str(error.value)
