"""Several workers on 127.0.0.1, each a process of its own."""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import distributed
from alexnet import AlexNet, LAYERS, tf
from cluster import tf_configs
from datagenerator import FeatureCache, ImageDataGenerator
from distributed import LOST_A_PEER, Workers, read_tf_config
from test_finetune import OFFLINE, ROOT, finetune
from test_reliability import tensors
from test_weights import same

# 24 samples of 121 in a step; 5 epochs of 6 steps, the last one of a single sample
JOB = ['--weights_path=None', "--train_layers=['fc8']", '--val_file=images/test.txt',
       '--num_epochs=5', '--learning_rate=0.01', '--horizontal_flip=False',
       '--peer_timeout=15']
# finetune.py, which tells a digest of the network where the workers part
TELLING = '''
import hashlib, runpy, sys
import distributed
from alexnet import tf
finish = distributed.Workers.finish
def finish_and_tell(self):
    session = sys._getframe(1).f_globals.get('session')
    if session:
        digest = hashlib.sha1()
        for variable in tf.global_variables():
            digest.update(session.run(variable).tobytes())
        sys.stderr.write('digest ' + digest.hexdigest())
    finish(self)
distributed.Workers.finish = finish_and_tell
sys.argv[0] = 'finetune.py'
runpy.run_path('finetune.py', run_name='__main__')
'''


def start(folder, size, *arguments):
    """Start workers; in arguments, RANK stands for the number of each.

    Only the chief should write, to folder/new/checkpoints and folder/log.
    """
    processes = []
    for rank, config in enumerate(tf_configs(size)):
        out = os.path.join(str(folder), 'worker%d' % rank if rank else '')
        processes.append(subprocess.Popen(
            [sys.executable, '-c', TELLING, '--filewriter_path=%s/log' % out,
             '--checkpoint_path=%s/new/checkpoints' % out,
             '--batch_size=%d' % (24 // size)] + JOB +
            [argument.replace('RANK', str(rank)) for argument in arguments],
            cwd=ROOT, env=dict(OFFLINE, TF_CONFIG=config, PYTHONUNBUFFERED='1',
                               PYTHONPATH=ROOT),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True))
    return processes


def finish(processes):
    """Return the statuses, the outputs and the error outputs."""
    texts = [process.communicate() for process in processes]
    return ([process.returncode for process in processes],
            [out for out, _ in texts], [error for _, error in texts])


def train(folder, size, *arguments):
    """Let workers finish the job; return the final variables and the chief's output."""
    statuses, outputs, errors = finish(start(folder, size, *arguments))
    assert statuses == [0] * size, (outputs, errors)
    assert re.match('digest [0-9a-f]{40}$', errors[0]), errors[0]
    assert errors == errors[:1] * size
    assert outputs[1:] == [''] * (size - 1)
    assert not any(os.path.exists(str(folder / ('worker%d' % rank)))
                   for rank in range(1, size))
    return final(folder), outputs[0]


def final(folder):
    return tensors('%s/new/checkpoints/model_epoch5.ckpt' % folder)


def wait_for(process, text):
    """Read a process's output to the line that has this text; return that line."""
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope='module', autouse=True)
def train_list(module_path):
    path = module_path / 'train.txt'
    with open(os.path.join(ROOT, 'images', 'train.txt')) as file:
        path.write_text(''.join(os.path.join(ROOT, 'images', line)
                                for line in file.readlines()[7:128]))
    JOB.append('--train_file=%s' % path)


@pytest.fixture(scope='module')
def single():
    with tempfile.TemporaryDirectory() as folder:
        status, output = finetune(folder, '--batch_size=24', *JOB)
        assert status == 0, output
        return final(folder), output


@pytest.fixture(scope='module')
def two():
    with tempfile.TemporaryDirectory() as folder:
        return train(Path(folder), 2, '--export_path=%s/served' % folder)


def assert_close(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        [a], [b] = found[name], expected[name]
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.abs(b).max()),
                                   err_msg=name)


def test_two_workers_equal_one_process(single, two):
    assert single[0]['global_step'] == [30]
    assert_close(two[0], single[0])
    epochs = [[line for line in output.splitlines() if ': validation' in line]
              for _, output in (single, two)]
    assert len(epochs[0]) == 5
    assert [line.split(';')[0] for line in epochs[0]] == [
        line.split(';')[0] for line in epochs[1]]


def test_three_workers_with_unequal_parts_equal_one_process(tmp_path, single):
    assert_close(train(tmp_path, 3)[0], single[0])


def test_lost_workers_are_named_and_resume_goes_on_exactly(tmp_path, two, single):
    """kill -9 of the chief and of a worker; one that is frozen; then to the end."""
    def lose(rank, number, epoch):
        processes = start(tmp_path, 2, '--resume=True')
        wait_for(processes[0], 'Epoch %d/5: validation' % epoch)
        processes[rank].send_signal(number)
        lost = time.time()
        survivor = processes[1 - rank]
        _, error = survivor.communicate()
        assert time.time() - lost < 15
        assert survivor.returncode == LOST_A_PEER
        assert 'lost %s 0 (127.0.0.1:' % ('worker' if rank else 'chief') in error
        assert '--resume=True' in error
        processes[rank].kill()
        processes[rank].communicate()

    lose(0, signal.SIGKILL, 1)
    lose(1, signal.SIGKILL, 2)
    lose(1, signal.SIGSTOP, 3)
    found, output = train(tmp_path, 2, '--resume=True')
    assert 'Going on from' in output
    assert same(found, two[0])


def test_stop_of_any_worker_stops_all_and_another_number_goes_on(tmp_path, single):
    """SIGTERM to a worker of two; one process does the rest."""
    processes = start(tmp_path, 2, '--display_step=1')
    wait_for(processes[0], 'Epoch 2/5, step 8')
    processes[1].send_signal(signal.SIGTERM)
    statuses, outputs, errors = finish(processes)
    assert statuses == [128 + signal.SIGTERM] * 2, (outputs, errors)
    assert 'Stopped in epoch 2, before step' in outputs[0]
    status, output = finetune(str(tmp_path), '--batch_size=24', '--resume=True', *JOB)
    assert status == 0, output
    assert 'Warning' not in output
    assert_close(final(tmp_path), single[0])


def test_settings_that_differ_are_named(tmp_path):
    statuses, _, errors = finish(start(tmp_path, 2, '--seed=RANK'))
    assert statuses == [1, 1]
    for rank, error in enumerate(errors):
        assert re.search(r'seed differs between chief 0 \(127.0.0.1:\d+\) and worker '
                         r'0 \(127.0.0.1:\d+\); here it is %d' % rank, error)


@pytest.fixture
def pair(monkeypatch):
    """Function that calls a function with each of two workers; returns the results."""
    monkeypatch.setattr(sys, 'stdout', sys.stdout)  # worker 1 replaces it
    pool = ThreadPoolExecutor(2)
    both = list(pool.map(Workers, tf_configs(2)))

    def call(function):
        def within_own_graph(workers):
            with tf.Graph().as_default(), workers.session() as session:
                return function(workers, session)
        return list(pool.map(within_own_graph, both))
    yield call
    list(pool.map(Workers.finish, both))


@pytest.mark.parametrize('counts', [(3, 5), (0, 4)])
def test_mean_is_over_all_samples(pair, counts):
    samples = [np.arange(2. * count).reshape(count, 2) + 7 * count for count in counts]

    def mean(workers, session):
        mine = tf.constant(samples[workers.rank], tf.float32)
        one, two = workers.mean([tf.reduce_mean(mine, 0), tf.reduce_mean(mine)],
                                tf.cast(tf.shape(mine)[0], tf.float32))
        assert one.shape.as_list() == [2] and two.shape.as_list() == []
        return session.run([one, two])
    everything = np.concatenate(samples)
    for one, two in pair(mean):
        np.testing.assert_allclose(one, everything.mean(0), rtol=1e-6)
        np.testing.assert_allclose(two, everything.mean(), rtol=1e-6)


def test_gather_and_broadcast_keep_every_bit(pair):
    values = np.array([-0., np.nan, 1e-45, 1 / 3., 2. ** 1000, 0.])

    def gather(workers, session):
        mine = values.copy()
        mine[workers.rank::2] = 0
        return workers.gather(mine)

    def broadcast(workers, session):
        variables = [tf.get_variable('a', initializer=values * (workers.rank + 1)),
                     tf.get_variable('b', initializer=np.int64(2 ** 40 + workers.rank))]
        session.run(tf.global_variables_initializer())
        workers.broadcast(session)
        return session.run(variables)
    assert [found.tobytes() for found in pair(gather)] == [values.tobytes()] * 2
    for a, b in pair(broadcast):
        assert a.tobytes() == values.tobytes() and b == 2 ** 40
    assert pair(lambda workers, session: [
        workers.any(workers.rank == 1), workers.any(False)]) == [[True, False]] * 2


def test_worker_that_never_comes_is_named():
    config = tf_configs(2)[0]
    [address] = json.loads(config)['cluster']['worker']
    with pytest.raises(SystemExit, match='No answer within 1 s from worker 0 .%s'
                       % address):
        Workers(config, peer_timeout=1)


def test_peer_that_is_back_at_once_is_lost_all_the_same(monkeypatch, capsys):
    states = iter(['alive', 'gone', 'alive', 'alive', 'alive', 'alive'])
    monkeypatch.setattr(distributed, 'probe', lambda address: next(states))
    monkeypatch.setattr(distributed.os, '_exit', sys.exit)
    workers = Workers()
    monkeypatch.setattr(workers._finished, 'wait', lambda seconds: False)
    with pytest.raises(SystemExit) as status:
        workers._watch(('worker', 1, 'host:2222'))
    assert status.value.code == LOST_A_PEER
    assert 'lost worker 1 (host:2222), which is gone' in capsys.readouterr().err


def test_network_error_leaves_the_watch_its_time_but_once(monkeypatch, capsys):
    workers, slept = Workers(peer_timeout=100), []
    workers.size = 2
    monkeypatch.setattr(distributed.time, 'sleep', slept.append)
    with pytest.raises(RuntimeError, match='worker 0 .*: Socket closed$'):
        with workers.patience(), workers.patience():
            raise tf.errors.UnavailableError(
                None, None, 'Graph execution error:\n\nmany\nlines\nSocket closed\n'
                'The error could be from a previous operation. Restart your program to '
                'reset.\n\t [[{{node mean}}]] [Op:mean]')
    assert slept == [80] and 'Socket closed\n' in capsys.readouterr().err


def test_parts_make_up_the_batches_of_one_process():
    def generator(shard):
        return ImageDataGenerator(
            os.path.join(ROOT, 'images', 'train.txt'), nb_classes=3, shuffle=True,
            horizontal_flip=True, scale_size=(8, 8), shard=shard)
    whole, parts = generator((0, 1)), [generator((rank, 3)) for rank in range(3)]
    own = [set() for _ in parts]
    for epoch in range(3):
        for one in [whole] + parts:
            one.reset_pointer(epoch)
        for start in range(0, 135, 50):
            images, labels = whole.next_batch(50)
            rows = []
            for part, samples in zip(parts, own):
                found, found_labels = part.next_batch(50)
                assert (found == images[part.rows]).all()
                assert (found_labels == labels[part.rows]).all()
                rows += list(part.rows)
                samples |= set(whole.order[start + part.rows])
            assert sorted(rows) == list(range(len(images)))
    assert sorted(len(samples) for samples in own) == [45, 45, 45]  # in every epoch


@pytest.mark.parametrize('is_cached', [True, False])
def test_worker_without_a_part_in_a_batch_gets_a_label_of_zeros(is_cached):
    batches = ImageDataGenerator(os.path.join(ROOT, 'images', 'train.txt'),
                                 nb_classes=3, scale_size=(8, 8), shard=(1, 2))
    if is_cached:
        batches = FeatureCache(batches, lambda images: images * 2, 10 ** 6)
    for sample in range(6):
        features, labels = batches.next_batch(1)
        assert features.shape == (1, 8, 8, 3) and labels.sum() == sample % 2
        assert list(batches.rows) == [0] * (sample % 2)


def test_worker_without_a_part_changes_no_gradient(pair):
    rng = np.random.RandomState(0)
    images, labels = rng.rand(2, 227, 227, 3) * 100, np.eye(3)[:2]

    def gradients(workers, session):
        tf.set_random_seed(0)
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        y = tf.placeholder(tf.float32, [None, 3])
        model = AlexNet(x, 1., 3, LAYERS, None)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
            labels=y, logits=model.fc8))
        alone = tf.gradients(loss, tf.trainable_variables())
        mean = workers.mean(alone, tf.reduce_sum(y))
        session.run(tf.global_variables_initializer())
        if workers.rank == 1:
            return session.run(mean, {x: images[:1] * 0, y: labels[:1] * 0})
        return session.run([alone, mean], {x: images, y: labels})
    (alone, first), second = pair(gradients)
    for expected, one, other in zip(alone, first, second):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(one, expected, rtol=1e-6)
        assert (one == other).all()


def test_tasks_are_read_with_the_chief_first():
    text = ('{"cluster": {"worker": ["b:1", "c:2"], "chief": ["a:3"]}, '
            '"task": {"type": "worker", "index": %s}}')
    tasks = [('chief', 0, 'a:3'), ('worker', 0, 'b:1'), ('worker', 1, 'c:2')]
    assert read_tf_config(text % 1) == (tasks, 2)
    assert read_tf_config(text % '"0"') == (tasks, 1)
    for alone in ['{}', '{"cluster": {}}', '{"task": {"type": "worker", "index": 0}}']:
        assert len(read_tf_config(alone)[0]) == 1


@pytest.mark.parametrize('text, complaint', [
    ('{"cluster"', 'not JSON: '),
    ('[]', 'not a JSON object'),
    ('{"cluster": ["a:1"]}', '"cluster" is not an object'),
    ('{"cluster": {"ps": ["a:1"]}}', "there is no use for a job 'ps'"),
    ('{"cluster": {"worker": "a:1"}}', "'worker' is not a list"),
    ('{"cluster": {"worker": ["a:1", "b"]}}', "worker 1: 'b' is not host:port"),
    ('{"cluster": {"worker": [":1"]}}', "worker 0: ':1' is not host:port"),
    ('{"cluster": {"worker": ["a:70000"]}}', "worker 0: 'a:70000' is not host:port"),
    ('{"cluster": {"worker": [7]}}', 'worker 0: 7 is not host:port'),
    ('{"cluster": {"worker": ["a:\u00b2"]}}', "worker 0: 'a:\u00b2' is not host:port"),
    ('{"cluster": {"worker": ["http://a:1"]}}', "worker 0: 'http://a:1' is"),
    ('{"cluster": {"worker": ["a:1", "a:1"]}}', 'an address occurs twice'),
    ('{"cluster": {"chief": ["a:1", "b:1"]}}', 'there is more than one chief'),
    ('{"cluster": {"worker": ["a:1"]}}', '"task" is not an object'),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
     '"task" is none of the cluster\'s'),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
     '"task" is none of the cluster\'s')])
def test_malformed_tf_config_is_a_clear_error(text, complaint):
    with pytest.raises(ValueError) as error:
        read_tf_config(text)
    assert str(error.value).startswith('TF_CONFIG: ' + complaint)
    assert 'expected, for example, {"cluster"' in str(error.value)
