"""Heat maps: the paper's equations, a network that looks into one corner, the files."""
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from alexnet import LAYERS, AlexNet
from datagenerator import load_image, normalize
from helpers import ROOT, finetune, run_program
from machinery import heat_maps, summaries
from machinery.heat_maps import grad_cam, overlay
from machinery.labels import OneClass
from machinery.tf1 import tf
from machinery.weights import read_weights, save_weights
from predict import Classifier

pytestmark = pytest.mark.usefixtures('narrow_network')
CAT, COFFEE = [os.path.join(ROOT, 'images', name) for name in ('cat.jpg', 'coffee.jpg')]


def test_a_map_is_that_of_the_papers_equations(narrow_golden_file):
    """The gradient is computed by hand here, from the logit down to conv5."""
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 1000, [], narrow_golden_file)
    with tf.Session() as session:
        model.load_initial_weights(session)
        conv5, fc6, fc7, logits, [found, _], weights = session.run(
            [model.conv5, model.fc6, model.fc7, model.fc8,
             grad_cam(model, LAYERS, OneClass('ab')),
             model.variables], {x: normalize([load_image(CAT), load_image(COFFEE)])})
    gradient = weights['fc8'][0][:, logits[0].argmax()] * (fc7[0] > 0)
    gradient = (weights['fc7'][0] @ gradient) * (fc6[0] > 0)
    gradient = (weights['fc6'][0] @ gradient).reshape(6, 6, 256)
    # Each maximum of pool5 passes its gradient on to one place of conv5, so the sums
    # over all places are the same.
    importance = gradient.sum((0, 1)) / (13 * 13)
    expected = np.maximum((conv5[0] * importance).sum(2), 0)
    assert expected.max() > 0 and found.shape == (13, 13)
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-5)


def test_a_picture_without_evidence_has_a_map_of_zeros():
    channels = tf.ones([2, 3, 3, 1]) * tf.constant([1., -1.])[:, None, None, None]
    model = SimpleNamespace(conv=channels, logits=tf.reduce_sum(channels, [1, 2]))
    with tf.Session() as session:
        first, second = session.run(grad_cam(model, ['conv'], OneClass('ab')))
    assert abs(first - 1).max() < 1e-6 and (second == 0).all()


def test_colours_go_from_cold_blue_to_hot_red():
    heat = np.zeros((13, 13))
    heat[9:, 9:] = 1
    drawn = overlay(np.zeros((227, 200, 3), np.uint8), heat)
    assert drawn.shape == (227, 200, 3)
    assert drawn[0, 0].argmax() == 0 and drawn[-1, -1].argmax() == 2


@pytest.fixture(scope='module')
def corner(module_path, narrow_network, narrow_file):
    """A run on pictures of noise whose classes differ at the bottom right only.

    There are horizontal or vertical stripes. Returns its folder.
    """
    rng = np.random.RandomState(0)
    stripes = np.repeat([[0], [255]], 8, 0).repeat(64, 1)
    stripes = np.tile(stripes, (4, 1))
    for name, count in [('train', 32), ('val', 8)]:
        with open('%s/%s.txt' % (module_path, name), 'w') as file:
            for sample in range(count):
                image = rng.randint(100, 150, (227, 227, 3))
                image[-64:, -64:] = (stripes.T if sample % 2 else stripes)[:, :, None]
                path = '%s%d.png' % (name, sample)
                cv2.imwrite('%s/%s' % (module_path, path), np.uint8(image))
                file.write('%s %d\n' % (path, sample % 2))
    # fc6 starts from almost nothing, so that what it learns outweighs what was there.
    weights = read_weights(narrow_file)
    weights['fc6'] = [weights['fc6'][0] / 100, weights['fc6'][1]]
    save_weights(weights, '%s/weights.npy' % module_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, 'grad_cam', grad_cam)
        status, output = finetune(
            module_path, '--train_file=%s/train.txt' % module_path,
            '--val_file=%s/val.txt' % module_path, '--classes_file=None',
            '--weights_path=%s/weights.npy' % module_path, "--skip_layers=['fc8']",
            '--train_layers=fc6,fc7,fc8', '--num_epochs=5', '--batch_size=8',
            '--dropout_rate=0', '--horizontal_flip=False', draws=True)
    assert status == 0 and heat_maps.NO_MAP not in output, output
    return str(module_path)


def test_it_is_hot_where_the_classes_differ(corner):
    paths = ['%s/val%d.png' % (corner, sample) for sample in range(8)]
    with Classifier(corner + '/new/checkpoints', batch_size=3) as classify:
        maps = classify.heat_maps(paths)
        [ranked] = classify(paths[:1])
    assert ranked[0][1] > 0.5 and maps.shape == (8, 13, 13)
    assert maps.min() >= 0 and abs(maps.max() - 1) < 1e-6
    hottest = np.array([divmod(heat.argmax(), 13) for heat in maps])
    assert (hottest >= 8).all(1).sum() >= 6, hottest  # by chance, one of them is


def test_each_picture_gets_a_file_and_the_table_is_written(corner, tmp_path,
                                                           monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir('more')
    first, second = '$a_$猫\udcff.png', 'more/' + 251 * 'b' + '.png'
    image = cv2.imread(corner + '/val0.png')
    for path in (first, second):
        with open(path, 'wb') as file:
            file.write(cv2.imencode('.png', image)[1])
    with open('bad.png', 'w') as file:
        file.write('no picture')
    arguments = [first, 'bad.png', second, '--heat_maps=heat',
                 '--checkpoint=%s/new/checkpoints' % corner]
    status, output = run_program('predict.py', *arguments)
    assert status == 0 and 'Wrote 2 heat maps to heat/1\n' in output, output
    assert 'Cannot read 1 picture' in output and os.listdir('predictions/1')
    names = sorted(os.listdir('heat/1'))
    assert names == ['1_$a_$猫\udcff.jpg', '2_%s.jpg' % (50 * 'b')]
    with open('heat/1/' + names[1], 'rb') as file:
        drawn = cv2.imdecode(np.frombuffer(file.read(), np.uint8), 1).astype(int)
    left, right = drawn[6:233, 6:233], drawn[6:233, 246:473]
    assert drawn.shape[1] == 480 and (drawn[235:].min(2) < 100).sum() > 50  # the text
    assert abs(left[-64:, -64:] - image[-64:, -64:].astype(int)).mean() < 20
    assert right[:100, :100].mean((0, 1)).argmax() == 0  # cold
    assert right[163:, 163:, 2].mean() > right[:100, :100, 2].mean() + 30

    monkeypatch.setattr(heat_maps, 'grad_cam', lambda model, layers, kind: None)
    status, output = run_program('predict.py', *arguments)
    assert status == 0 and output.count(heat_maps.NO_MAP) == 1
    assert os.listdir('predictions/2') and os.listdir('heat') == ['1']


@pytest.mark.parametrize('arguments', [['--layer=fc7'], ['--export_path=new']])
def test_heat_maps_without_predictions_are_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = run_program('predict.py', CAT, '--heat_maps=heat', *arguments)
    assert status == 2 and "heat_maps = 'heat': leave it out, or leave out" in output
    assert os.listdir('.') == []


def test_a_network_without_rows_and_columns_has_no_map():
    model = SimpleNamespace(fc=tf.zeros([2, 5]), logits=tf.zeros([2, 5]))
    assert grad_cam(model, ['fc'], OneClass('ab')) is None
