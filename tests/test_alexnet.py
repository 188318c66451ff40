import os
import pickle

import numpy as np
import pytest

from alexnet import (AlexNet, LAYERS, conv, dropout, dropout_seeds, lrn, read_weights,
                     tf)
from datagenerator import load_image
from golden import HERE, golden

IMAGES = os.path.join(os.path.dirname(HERE), 'images')


def build(num_classes=1000, skip_layer=(), weights_path=None, **kwargs):
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    return AlexNet(x, tf.placeholder(tf.float32, []), num_classes, list(skip_layer),
                   weights_path, **kwargs)


def save(path, layers):
    np.save(str(path), layers)
    return str(path)


def test_activations_are_those_of_caffe(golden_file):
    expected, _, images = golden()
    model = build(weights_path=golden_file)
    names = ['pool5', 'fc6', 'fc7', 'fc8']
    with tf.Session() as session:
        model.load_initial_weights(session)
        outputs = session.run(
            [getattr(model, name) for name in names + ['norm1', 'pool1', 'pool2']],
            {model.x: images, model.keep_prob: 1.})
    for name, output in zip(names, outputs):
        error = np.abs(output - expected[name]).max()
        assert error <= 2e-6 * np.abs(expected[name]).max(), name
    for name, output in zip(['norm1_mean', 'pool1_mean', 'pool2_mean'], outputs[4:]):
        error = np.abs(output.mean((1, 2)) - expected[name]).max()
        assert error <= 2e-6 * np.abs(expected[name]).max(), name


def test_variables_are_named_after_their_layers():
    build(num_classes=7)
    names = [variable.name for variable in tf.trainable_variables()]
    assert names == ['%s/%s:0' % (layer, kind) for layer in LAYERS
                     for kind in ['weights', 'biases']]


def test_grouped_convolution_is_two_convolutions_side_by_side():
    rng = np.random.RandomState(0)
    image = rng.standard_normal((2, 9, 9, 8)).astype(np.float32)
    filters = rng.standard_normal((3, 3, 4, 6)).astype(np.float32)
    biases = rng.standard_normal(6).astype(np.float32)
    grouped = conv(tf.constant(image), 3, 6, 1, 'grouped', groups=2)
    halves = [conv(tf.constant(image[..., 4 * i:4 * i + 4]), 3, 3, 1, 'half%d' % i)
              for i in range(2)]
    with tf.Session() as session:
        weights = tf.trainable_variables()
        for variable, value in zip(weights, [
                filters, biases, filters[..., :3], biases[:3], filters[..., 3:],
                biases[3:]]):
            variable.load(value, session)
        output, left, right = session.run([grouped] + halves)
    np.testing.assert_allclose(output, np.concatenate([left, right], -1), atol=1e-5)


def test_lrn_is_the_formula_of_the_paper():
    x = np.random.RandomState(0).standard_normal((1, 2, 3, 7)).astype(np.float32) * 50
    expected = np.empty_like(x)
    for channel in range(7):
        near = x[..., max(0, channel - 2):channel + 3]
        expected[..., channel] = x[..., channel] / (
            1 + 1e-4 / 5 * (near ** 2).sum(-1)) ** 0.75
    with tf.Session() as session:
        output = session.run(lrn(tf.constant(x), 2, 2e-5, 0.75, 'norm'))
    np.testing.assert_allclose(output, expected, rtol=1e-5)


def test_dropout_keeps_the_share_and_the_mean():
    keep_prob = tf.placeholder(tf.float32, [])
    step = tf.placeholder(tf.int64, [])
    ones = tf.ones([100, 1000])
    masks = [dropout(ones, keep_prob, seed=seed) for seed in dropout_seeds([5, step])]
    with tf.Session() as session:
        run = lambda share, number: session.run(
            masks, {keep_prob: share, step: number})
        first, other = run(0.8, 1)
        assert set(np.unique(first)) == {0, np.float32(1 / np.float32(0.8))}
        assert abs((first > 0).mean() - 0.8) < 0.01
        assert (first == run(0.8, 1)[0]).all()
        assert (first != run(0.8, 2)[0]).any()
        assert (first != other).any()
        assert (run(1., 1)[0] == 1).all()
        assert (session.run(dropout(ones, 1.)) == 1).all()


def test_part_of_a_batch_gets_its_part_of_the_dropout_mask():
    rows = tf.placeholder_with_default(np.zeros(0, np.int32), [None])
    x = tf.placeholder(tf.float32, [None, 50])
    output = dropout(x, 0.5, seed=dropout_seeds([5, 1])[0], rows=[rows, 20])
    with tf.Session() as session:
        whole = session.run(output, {x: np.ones((20, 50))})
        part = session.run(output, {x: np.ones((3, 50)), rows: [17, 2, 9]})
        first = session.run(output, {x: np.ones((3, 50))})
        assert len(session.run(output, {x: np.ones((30, 50))})) == 30
    assert len(np.unique(whole, axis=0)) == 20
    assert (part == whole[[17, 2, 9]]).all() and (first == whole[:3]).all()


def test_loading_adds_no_operation_and_leaves_skipped_layers(golden_file):
    model = build(num_classes=5, skip_layer=['fc8'], weights_path=golden_file)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        fresh = session.run(model.variables['fc8'])
        tf.get_default_graph().finalize()
        model.load_initial_weights(session)
        expected = read_weights(golden_file)
        for name in LAYERS[:-1]:
            for value, wanted in zip(session.run(model.variables[name]),
                                     expected[name]):
                assert (value == wanted).all()
        for value, wanted in zip(session.run(model.variables['fc8']), fresh):
            assert (value == wanted).all()


@pytest.mark.parametrize('writer', ['python2_numpy1', 'python3_numpy1',
                                    'python3_numpy2'])
def test_weights_of_every_writer_are_read(writer):
    layers = read_weights(os.path.join(HERE, 'data', writer + '.npy'))
    assert set(layers) == {'conv1', 'fc8'}
    assert (layers['conv1'][0] == np.arange(6).reshape(2, 3)).all()  # a list
    assert (layers['conv1'][1] == np.arange(3)).all()
    assert (layers['fc8'][0] == np.ones((2, 2))).all()  # a dict
    assert (layers['fc8'][1] == np.zeros(2)).all()


@pytest.mark.parametrize('kind', ['<f4', '>f4', '>f8', '<f2'])
def test_every_byte_order_and_width_is_read(tmp_path, kind):
    array = np.arange(600).reshape(20, 30).astype(kind)
    path = save(tmp_path / 'kind.npy', {'fc8': [array, np.asfortranarray(array)]})
    weights, biases = read_weights(path)['fc8']
    assert (weights == array).all() and (biases == array).all()


def test_unknown_layer_is_an_error_that_lists_the_layers():
    with pytest.raises(ValueError) as error:
        build(skip_layer=['fc8', 'fc9'])
    assert 'fc9' in str(error.value)
    assert all(name in str(error.value) for name in LAYERS)
    for names in ['fc8', ['fc8', 'fc8']]:
        with pytest.raises(ValueError, match="'fc8'"):
            AlexNet(None, None, 2, names)


def test_input_of_another_size_is_an_error():
    x = tf.placeholder(tf.float32, [None, 224, 224, 3])
    with pytest.raises(ValueError, match='224, 224, 3.*227, 227, 3'):
        AlexNet(x, 1., 2, [])


def test_missing_weight_file_is_named_with_the_ways_out(tmp_path):
    model = build(weights_path=str(tmp_path / 'none.npy'))
    with pytest.raises(FileNotFoundError, match='none.npy.*weights_path = None'):
        model.load_initial_weights(None)


def test_misfits_are_all_named_and_nothing_is_assigned(tmp_path):
    layers = {name: [np.zeros(variable.shape.as_list(), np.float32)
                     for variable in pair]
              for name, pair in build(num_classes=3).variables.items()}
    tf.reset_default_graph()
    del layers['conv4']
    layers['fc8'][0] = np.zeros((4096, 1000), np.float32)
    layers['fc9'] = layers['conv1']
    path = save(tmp_path / 'misfit.npy', layers)
    model = build(num_classes=3, weights_path=path)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(model.variables['conv1'])
        with pytest.raises(ValueError) as error:
            model.load_initial_weights(session)
        after = session.run(model.variables['conv1'])
    message = str(error.value)
    assert path in message
    assert 'conv4: missing' in message
    assert 'fc9: not a layer' in message
    assert 'fc8/weights: expected shape (4096, 3), found (4096, 1000)' in message
    assert all((old == new).all() for old, new in zip(before, after))


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('protocol', [0, 2, 3, 4])
def test_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path, protocol):
    target = str(tmp_path / 'owned')
    path = str(tmp_path / 'attack.npy')
    header = {'descr': '|O', 'fortran_order': False, 'shape': ()}
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump({'conv1': Attack(target)}, file, protocol)
    with pytest.raises(ValueError, match='attack.npy.*refused to load'):
        read_weights(path)
    assert not os.path.exists(target)


@pytest.mark.parametrize('name, content, complaint', [
    ('empty', b'', 'not a readable weight file'),
    ('text', b'<html>404</html>', 'not a readable weight file'),
])
def test_foreign_files_are_refused(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match='%s: %s' % (name, complaint)):
        read_weights(str(path))


def test_other_contents_are_refused(tmp_path):
    with pytest.raises(ValueError, match='array.npy.*not a dictionary'):
        read_weights(save(tmp_path / 'array.npy', np.zeros(3)))
    with pytest.raises(ValueError, match='list.npy.*not a dictionary'):
        read_weights(save(tmp_path / 'list.npy', np.array([{}], object)))
    with pytest.raises(ValueError, match='pair.npy: .*fc8: expected'):
        read_weights(save(tmp_path / 'pair.npy', {'fc8': [np.zeros(3)]}))
    with pytest.raises(ValueError, match='text.npy: .*fc8: expected'):
        read_weights(save(tmp_path / 'text.npy', {'fc8': ['a', 'b']}))
    with pytest.raises(ValueError, match='objects.npy: .*expected arrays of floats'):
        read_weights(save(tmp_path / 'objects.npy', {'fc8': [
            np.array([None], object), np.zeros(3)]}))
    whole = save(tmp_path / 'whole.npy', {'fc8': [np.zeros((99, 99)), np.zeros(99)]})
    cut = tmp_path / 'cut.npy'
    with open(whole, 'rb') as file:
        cut.write_bytes(file.read()[:-999])
    with pytest.raises(ValueError, match='cut.npy: not a readable weight file'):
        read_weights(str(cut))


def sample_images():
    return np.stack([load_image(os.path.join(IMAGES, 'textures', name,
                                             'train_%02d.jpg' % number))
                     for name in ['brick', 'grass', 'gravel']
                     for number in range(1, 9)])


def test_data_initialisation_gives_mean_0_and_variance_1():
    model = build(num_classes=3)
    images = sample_images()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        model.initialize_from_data(session, images)
        for name in LAYERS:
            output = tf.get_default_graph().get_tensor_by_name(name + '/BiasAdd:0')
            values = session.run(output, {model.x: images, model.keep_prob: 1.})
            values = values.reshape(-1, values.shape[-1]).astype(np.float64)
            np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
            np.testing.assert_allclose(values.var(0), 1, atol=1e-3)


def test_data_initialisation_needs_images_that_differ():
    model = build(num_classes=3)
    images = np.repeat(sample_images()[:1], 2, axis=0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        with pytest.raises(ValueError, match='fc6: .* all 2 images'):
            model.initialize_from_data(session, images)
