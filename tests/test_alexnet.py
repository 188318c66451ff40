import os

import numpy as np
import pytest

from alexnet import AlexNet, LAYERS, conv, dropout, dropout_seeds, lrn
from datagenerator import load_image, normalize
from helpers import ROOT, golden, make_narrow, same
from machinery.errors import InputError
from machinery.summaries import add_summaries
from machinery.tf1 import session_config, tf
from machinery.weights import read_weights, save_weights


def build(num_classes=1000, skip_layer=(), weights_path=None, **kwargs):
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    return AlexNet(x, tf.placeholder(tf.float32, []), num_classes, list(skip_layer),
                   weights_path, **kwargs)


@pytest.fixture
def is_narrow(monkeypatch):
    make_narrow(monkeypatch.setattr)


def test_activations_are_those_of_caffe(golden_file):
    expected, _, images = golden()
    model = build(weights_path=golden_file)
    names = ['pool5', 'fc6', 'fc7', 'fc8']
    with tf.Session() as session:
        model.load_initial_weights(session)
        outputs = session.run(
            [getattr(model, name) for name in names + ['norm1', 'pool1', 'pool2']],
            {model.X: images, model.KEEP_PROB: 1.})
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
    grouped = conv(tf.constant(image), 3, 3, 6, 1, 1, 'grouped', groups=2)
    halves = [conv(tf.constant(half), 3, 3, 3, 1, 1, 'half%d' % i)
              for i, half in enumerate(np.split(image, 2, -1))]
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
        def run(share, number):
            return session.run(masks, {keep_prob: share, step: number})
        first, other = run(0.8, 1)
        assert set(np.unique(first)) == {0, np.float32(1 / np.float32(0.8))}
        assert abs((first > 0).mean() - 0.8) < 0.01
        assert (first == run(0.8, 1)[0]).all()
        assert (first != run(0.8, 2)[0]).any()
        assert (first != other).any()
        assert (run(1., 1)[0] == 1).all()
        assert (session.run(dropout(ones, 1.)) == 1).all()


def test_loading_adds_no_operation_and_leaves_skipped_layers(golden_file):
    model = build(num_classes=5, skip_layer=['fc8'], weights_path=golden_file)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        fresh = session.run(model.variables['fc8'])
        tf.get_default_graph().finalize()
        model.load_initial_weights(session)
        expected = read_weights(golden_file)
        assert same({name: session.run(model.variables[name]) for name in LAYERS},
                    dict(expected, fc8=fresh))


def with_statistics(weights_path):
    """Build the network, with variables of one's own and an optimizer's in it."""
    class Normalized(AlexNet):
        def create(self, *args):
            with tf.variable_scope('bn1'):
                own.append(tf.get_variable('moving_mean', [96], trainable=False))
            super().create(*args)
            with tf.variable_scope('conv1'):
                own.append(tf.get_variable('gamma', [96]))

    own = []
    tf.reset_default_graph()
    model = Normalized(tf.placeholder(tf.float32, [None, 227, 227, 3]), 1., 3, [],
                       weights_path)
    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    optimizer.apply_gradients([(tf.ones([96]), own[1])])
    return model, own


def test_all_variables_of_a_checkpoint_are_restored(tmp_path, narrow_file, is_narrow):
    """Batch normalisation's, for example; but not those of the optimizer."""
    path = str(tmp_path / 'model.ckpt')
    model, own = with_statistics(narrow_file)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(model.load_initial_weights(session)) == []
        expected = session.run(own)
        tf.train.Saver(tf.trainable_variables() + own[:1]).save(session, path)
    model, own = with_statistics(path)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert (session.run(own[0]) != expected[0]).any()
        model.load_initial_weights(session)
        assert all((a == b).all() for a, b in zip(session.run(own), expected))
        model.added.append(tf.get_variable('conv2/moving_mean', [256]))
        with pytest.raises(InputError, match='conv2/moving_mean: .* found nothing'):
            model.load_initial_weights(session)


def test_other_variables_than_those_of_a_weight_file_are_told(narrow_file, is_narrow,
                                                              capsys):
    model, _ = with_statistics(narrow_file)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        model.load_initial_weights(session)
    told = capsys.readouterr().out
    assert 'has no bn1/moving_mean, conv1/gamma; these keep' in told


def test_several_networks_live_in_one_graph(narrow_file, is_narrow):
    x = np.zeros((2, 227, 227, 3))
    with tf.variable_scope('a'):
        first = AlexNet(x, 1., 3, [], narrow_file)
    with tf.variable_scope('b'):
        second = AlexNet(x, 1., 3, [], narrow_file)
    with tf.variable_scope('a', reuse=True):
        third = AlexNet(x, 1., 3, [], narrow_file)
    with tf.variable_scope('b', reuse=tf.AUTO_REUSE):
        AlexNet(x, 1., 3, [], narrow_file)
    assert len(tf.global_variables()) == 32
    assert first.variables['fc8'][0].name == 'a/fc8/weights:0'
    with tf.Session() as session:
        for model in (first, second):
            model.load_initial_weights(session)
        found = session.run([model.fc8 for model in (first, second, third)])
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


def test_input_of_another_type_is_refused():
    with pytest.raises(InputError, match=r'x is uint8 .*, as from normalize'):
        AlexNet(tf.placeholder(tf.uint8, [None, 227, 227, 3]), 1., 3, [])


def test_summaries_train_nothing():
    variable = tf.get_variable('fc8/weights', [4])
    loss = tf.reduce_sum(variable ** 2)
    gradients = tf.gradients(loss, [variable])
    train_op = tf.train.GradientDescentOptimizer(0.1).apply_gradients(
        zip(gradients, [variable]))
    summaries = add_summaries({'cross_entropy': loss}, gradients, [variable])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(variable)
        tags = [{value.tag for value in tf.Summary.FromString(text).value}
                for text in session.run(summaries)]
        assert (session.run(variable) == before).all()
        session.run(train_op)
        assert (session.run(variable) != before).all()
    assert tags == [{'cross_entropy', 'gradient/fc8/weights'}, {'variable/fc8/weights'}]


def test_unknown_layer_is_an_error_that_lists_the_layers():
    with pytest.raises(InputError) as error:
        build(skip_layer=['fc8', 'fc9'])
    assert 'fc9' in str(error.value)
    assert all(name in str(error.value) for name in LAYERS)
    for names in ['fc8', ['fc8', 'fc8'], 8, {'fc8': 1}, [['fc8']], np.array(['fc8'])]:
        with pytest.raises(InputError, match='8.*: expected a list of different names'):
            AlexNet(None, None, 2, names)


@pytest.mark.parametrize('size', [226, None])
def test_input_that_is_too_small_is_an_error(size):
    x = tf.placeholder(tf.float32, [None, size, 400, 3])
    with pytest.raises(InputError, match='%s, 400, 3.*227, 227, 3' % (size or '')):
        AlexNet(x, 1., 2, [])


@pytest.mark.parametrize('height, width, window', [
    (227, 227, (3, 3, 2, 2)), (384, 384, (7, 7, 3, 3)), (300, 600, (7, 6, 2, 6))])
def test_larger_pictures_are_pooled_to_what_fc6_takes(height, width, window):
    model = AlexNet(tf.placeholder(tf.float32, [None, height, width, 3]), 1., 2, [])
    ksize, strides = [model.pool5.op.get_attr(name) for name in ('ksize', 'strides')]
    assert (*ksize[1:3], *strides[1:3]) == window
    assert model.pool5.shape.as_list()[1:] == [6, 6, 256]


def test_outputs_have_the_names_of_the_tutorial():
    build()
    for name in LAYERS:
        tf.get_default_graph().get_tensor_by_name('%s/%s:0' % (name, name))


def test_missing_weight_file_is_named_with_the_ways_out(tmp_path):
    model = build(weights_path=str(tmp_path / 'none.npy'))
    with pytest.raises(InputError, match='none.npy.*weights_path = None'):
        model.load_initial_weights(None)


def test_misfits_are_all_named_and_nothing_is_assigned(tmp_path):
    layers = {name: [np.zeros(variable.shape.as_list(), np.float32)
                     for variable in pair]
              for name, pair in build(num_classes=3).variables.items()}
    tf.reset_default_graph()
    del layers['conv4']
    layers['fc8'][0] = np.zeros((4096, 1000), np.float32)
    layers['fc9'] = layers['conv1']
    path = str(tmp_path / 'misfit.npy')
    save_weights(layers, path)
    model = build(num_classes=3, weights_path=path)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(model.variables['conv1'])
        with pytest.raises(InputError) as error:
            model.load_initial_weights(session)
        after = session.run(model.variables['conv1'])
    message = str(error.value)
    assert path in message
    assert 'conv4: missing' in message
    assert 'fc9: not a layer' in message
    assert 'fc8/weights: expected shape (4096, 3), found (4096, 1000)' in message
    assert all((old == new).all() for old, new in zip(before, after))


def sample_images():
    return normalize([load_image(os.path.join(ROOT, 'images', 'textures', name,
                                              'train_%02d.jpg' % number))
                      for name in ['brick', 'grass', 'gravel']
                      for number in range(1, 9)])


def test_data_initialisation_gives_mean_0_and_variance_1(is_narrow):
    model = build(num_classes=3)
    images = sample_images()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        model.initialize_from_data(session, {model.X: images})
        outputs = [getattr(model, name) for name in LAYERS]
        outputs = [output.op.inputs[0] if output.op.type == 'Relu' else output
                   for output in outputs]
        for values in session.run(outputs, {model.X: images, model.KEEP_PROB: 1.}):
            values = values.reshape(-1, values.shape[-1]).astype(np.float64)
            np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
            np.testing.assert_allclose(values.var(0), 1, atol=1e-3)


def test_data_initialisation_needs_images_that_differ(is_narrow):
    model = build(num_classes=3)
    images = np.repeat(sample_images()[:1], 2, axis=0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        with pytest.raises(InputError, match='fc6: a channel is constant'):
            model.initialize_from_data(session, {model.X: images})


@pytest.mark.parametrize('layer', ['conv2', 'conv3', 'fc6'])
def test_step_asks_for_nothing_but_the_bottleneck(layer):
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    layers = LAYERS[LAYERS.index(layer):]
    model = AlexNet(x, 0.5, 2, layers, None, layers)
    variables = [variable for name in layers for variable in model.variables[name]]
    optimizer = tf.train.GradientDescentOptimizer(0.1)
    train_op = optimizer.minimize(tf.reduce_mean(model.fc8 ** 2), var_list=variables)
    with tf.Session(config=session_config()) as session:
        session.run(tf.global_variables_initializer())
        before = session.run(variables[0])
        session.run(train_op, {
            model.bottleneck: np.ones([3] + model.bottleneck.shape.as_list()[1:])})
        assert (session.run(variables[0]) != before).any()


@pytest.mark.parametrize('layer, tensor', list(zip(LAYERS, [
    'X', 'pool1', 'pool2', 'conv3', 'conv4', 'flat5', 'fc6', 'fc7'])))
def test_bottleneck_is_what_enters_the_first_trained_layer(layer, tensor):
    model = AlexNet(tf.placeholder(tf.float32, [None, 227, 227, 3]), 1., 2, ['fc8'],
                    train_layers=['fc8', layer] if layer != 'fc8' else ['fc8'])
    assert model.bottleneck is getattr(model, tensor)
