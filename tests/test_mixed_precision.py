"""mixed_precision: the frozen layers in bfloat16, and all else in float32."""
import json
import os
import re

import numpy as np
import pytest

import alexnet
from alexnet import AlexNet
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import ROOT, checkpoint_of, finetune, narrow_fc, run_program, same, tensors
from machinery import feature_key, features, frozen, passes, tf1
from machinery.errors import InputError
from machinery.frozen import FrozenLayers, copy_session
from machinery.tf1 import session_config, tf

IS_OLD = tf.__version__.startswith('1.')
needs_bfloat16 = pytest.mark.skipif(IS_OLD, reason='TensorFlow 1.15 has no such option')
VAL = os.path.join(ROOT, 'images', 'val.txt')


def distances(found, expected):
    """Return how much each row differs, as part of its norm."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


class Network:
    """The narrow network in a graph and a session of its own."""

    def __init__(self, weights_path, trained, change=lambda x: x):
        self.pictures = tf.placeholder(tf.uint8, [None, 227, 227, 3])
        self.keep_prob = tf.placeholder(tf.float32, [])
        self.model = AlexNet(change(normalize(self.pictures)), self.keep_prob, 3, [],
                             weights_path, trained, dropout_seed=[0, tf.Variable(1)])
        self.layer = self.model.bottleneck
        self.session = tf.Session(config=session_config())
        self.session.run(tf.global_variables_initializer())
        self.model.load_initial_weights(self.session)
        self.dropout = {self.model.dropout6: self.model.fc6,
                        self.model.dropout7: self.model.fc7}

    def frozen(self, mixed_precision=True):
        return FrozenLayers(self.session, self.layer, self.pictures,
                            {self.keep_prob: 1.}, self.dropout, mixed_precision)

    def key(self, mixed_precision):
        with pytest.MonkeyPatch.context() as patch, self.frozen(
                mixed_precision) as forward:
            keys = []
            patch.setattr(frozen, 'Store', lambda shape, folder, key, limit:
                          keys.append(key))
            forward.open_store(None, 0, load_image)
        return keys[0]


@pytest.fixture
def network(narrow_file, monkeypatch):
    """Return a function that makes a Network."""
    made = []
    monkeypatch.setattr(alexnet, 'fc', narrow_fc)

    def make(trained=('fc8', 'fc7'), *args):
        made.append(Network(narrow_file, list(trained), *args))
        return made[-1]
    yield make
    for one in made:
        one.session.close()


@pytest.fixture(scope='module')
def images():
    return next(ImageDataGenerator(VAL, nb_classes=3).batches(8)).images


@needs_bfloat16
@pytest.mark.parametrize('trained', [['fc8', 'fc7'], ['fc8']])
def test_features_differ_by_the_rounding_of_bfloat16(network, images, trained):
    one = network(trained)
    with one.frozen(False) as plain, one.frozen() as mixed:
        expected, found = plain(images), mixed(images)
        assert found.dtype == expected.dtype == np.float32
        differences = distances(found, expected)
        assert differences.min() > 1e-4 and differences.max() < 5e-2
        # Stored rows are compared with those of passes of another size or order.
        other = np.concatenate([mixed(images[[number]]) for number in range(8)])
        assert distances(other, found).max() < mixed.rounding < 0.01
        assert distances(mixed(images[::-1])[::-1], found).max() < mixed.rounding
        assert plain.rounding == 1e-5 < mixed.rounding
    with pytest.raises(RuntimeError, match='closed'):
        mixed(images)
    assert (plain(images) == expected).all()


@needs_bfloat16
def test_the_copy_is_exact_in_float32_whatever_is_in_front_of_the_network(network,
                                                                          images):
    contrast = tf.Variable(1., name='contrast')

    def change(x):
        return tf.cond(tf.reduce_mean(x) > -1000,
                       lambda: x * contrast, lambda: x)
    one = network(['fc8'], change)
    tf1.assign(one.session, contrast, 0.5)
    feed = {one.pictures: images, one.keep_prob: 1.}
    expected = one.session.run(one.layer, feed)
    with copy_session(one.session, [one.layer, *feed], one.dropout,
                      session_config()) as copy:
        found = copy.run(one.layer.name, {
            tensor.name: value for tensor, value in feed.items()})
        names = {operation.name for operation in copy.graph.get_operations()}
    assert (found == expected).all()
    assert not [name for name in names if 'dropout' in name or 'fc8' in name]
    tf1.assign(one.session, contrast, 1.)
    assert (one.session.run(one.layer, feed) != expected).any()


@needs_bfloat16
def test_what_cannot_be_copied_is_named(network):
    def change(x):
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer([0], [1.]), 0., name='my_table')
        return x + table.lookup(tf.zeros([], tf.int32))
    with pytest.raises(InputError, match=r'my_table \(HashTableV2\) cannot be copied'):
        network(['fc8'], change).frozen()


@needs_bfloat16
def test_rows_of_the_two_are_never_mixed(network):
    one = network()
    keys = [one.key(False), one.key(True)]
    assert keys == [one.key(False), one.key(True)] and len(set(keys)) == 2


def test_where_it_has_no_effect_it_says_so(network, images, monkeypatch, capsys):
    one = network()
    if not IS_OLD:
        monkeypatch.setattr(tf1, 'list_gpus', lambda: ['a GPU'])
    with one.frozen() as mixed, one.frozen(False) as plain:
        assert (mixed(images) == plain(images)).all()
        assert mixed.rounding == plain.rounding
    assert capsys.readouterr().out == 'mixed_precision has no effect %s\n' % (
        'in TensorFlow ' + tf.__version__ if IS_OLD else 'on a GPU')
    assert one.key(True) == one.key(False)
    monkeypatch.undo()
    capsys.readouterr()
    one.layer = one.pictures  # all layers are trained
    with one.frozen() as mixed:
        assert (mixed(images) == images).all()
        assert mixed.open_store(None, 0, load_image) is None
    assert capsys.readouterr().out == (
        'mixed_precision has no effect here: no layer is frozen\n')


@needs_bfloat16
@pytest.mark.parametrize('flags, is_slow', [
    ('avx512f avx512_vnni', True), ('avx512f avx512_bf16', False),
    ('avx512f amx_bf16 amx_tile', False)])
def test_a_processor_that_gets_slower_is_told(network, monkeypatch, capsys, flags,
                                              is_slow):
    monkeypatch.setattr(frozen, 'find_processor', lambda: ['flags\t: ' + flags])
    with network().frozen():
        told = capsys.readouterr().out
    assert told == is_slow * ('Warning: mixed_precision is slower on this processor, '
                              'which has neither AMX nor AVX512-BF16\n')


def test_number_of_cores_does_not_change_the_key(network, monkeypatch):
    one = network()
    before = one.key(False)
    monkeypatch.setattr(tf1, 'count_cores', lambda: 7)
    assert session_config().intra_op_parallelism_threads == 7
    assert one.key(False) == before


@pytest.fixture(scope='module')
def job(module_path, narrow_file):
    """Arguments for lists of 12 pictures; passes have 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet, 'fc', narrow_fc)
        for room in features, feature_key:
            patch.setattr(room, 'find_pass_size', lambda: 8)
        for name in 'train', 'val':
            with open(os.path.join(ROOT, 'images', name + '.txt')) as file:
                lines = file.readlines()
            (module_path / (name + '.txt')).write_text(''.join(
                os.path.join(ROOT, 'images', line)
                for line in lines[::len(lines) // 12][:12]))
        yield ['--train_file=%s' % (module_path / 'train.txt'),
               '--val_file=%s' % (module_path / 'val.txt'), '--num_classes=3',
               '--weights_path=' + narrow_file, '--num_epochs=1', '--batch_size=4',
               '--horizontal_flip=False']


@pytest.fixture(scope='module')
def trained(module_path, job):
    """The folder of a run with mixed precision, and its output."""
    status, output = finetune(module_path, '--mixed_precision=True', *job)
    assert status == 0, output
    return str(module_path), output


def predict(folder, *arguments):
    with open('%s/val.txt' % folder) as file:
        lines = file.readlines()
    with open('%s/thrice.txt' % folder, 'w') as file:
        file.writelines(3 * lines)  # for up to 32, it does not look for features
    status, output = run_program(
        'predict.py', '%s/thrice.txt' % folder, '--features_path=%s/features' % folder,
        '--predictions_path=%s/predictions' % folder,
        '--checkpoint=%s/new/checkpoints' % folder, *arguments)
    assert status == 0, output
    return output


def test_predictions_follow_training_and_find_its_features(trained, monkeypatch):
    folder, told = trained
    with open(os.path.dirname(checkpoint_of(folder, 1)) + '/model.json') as file:
        settings = json.load(file)['settings']
    assert settings['mixed_precision'] is not IS_OLD
    assert ('mixed_precision has no effect in TensorFlow 1.15' in told) == IS_OLD
    counts = []

    def counting(forward, images, size):
        counts.append(len(images))
        return passes.compute(forward, images, size)
    monkeypatch.setattr(features, 'compute', counting)
    found = []
    for arguments in [], ['--mixed_precision=False']:
        del counts[:]
        # Eight rows are compared with new ones at the start, and one in the epoch.
        found.append((predict(folder, *arguments), counts[:]))
    (followed, few), (other, all_of_them) = found
    accuracy = re.findall('validation .*?accuracy ([0-9.]+)', told)[0]
    assert few == [8, 1] and 'Accuracy: %s of 36' % accuracy in followed
    assert all_of_them == ([8, 1] if IS_OLD else 4 * [8] + [4])
    if not IS_OLD:  # to six digits
        assert followed != other


def test_the_export_is_float32_and_says_so(trained, tmp_path):
    folder = str(tmp_path / 'served')
    output = predict(trained[0], '--export_path=' + folder)
    assert ('It computes in float32' in output) is not IS_OLD
    assert 'Warning: the export' not in output  # it was compared
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, ['serve'], folder)
        types = {tensor.dtype for operation in session.graph.get_operations()
                 for tensor in operation.outputs}
    assert tf.float32 in types and tf.bfloat16 not in types


def test_a_resumed_run_warns_of_another_value(trained, job):
    resume = ['--resume=' + checkpoint_of(trained[0], 1)] + job + ['--num_epochs=2']
    output = finetune(trained[0], *resume)[1]
    assert ('mixed_precision was True in the run being resumed, now it is False'
            in output) is not IS_OLD


@needs_bfloat16
def test_training_is_float32(tmp_path, job, monkeypatch):
    """Given the same features, it ends in the same weights; nothing is cached."""
    rows, forward = {}, FrozenLayers.__call__

    def recording(self, images):
        found = forward(self, images)
        rows.update(zip(map(bytes, images), found))
        return found

    ends = []
    for name, mixed, call in [('mixed', True, recording), ('plain', False, forward),
                              ('same', False, lambda self, images: np.array(
                                  [rows[bytes(image)] for image in images]))]:
        monkeypatch.setattr(FrozenLayers, '__call__', call)
        status, output = finetune(tmp_path / name, '--cache_features=False',
                                  '--mixed_precision=%s' % mixed, *job)
        assert status == 0, output
        ends.append(tensors(checkpoint_of(tmp_path / name, 1)))
    assert same(ends[0], ends[2]) and not same(ends[0], ends[1])
