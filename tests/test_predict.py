import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from alexnet import AlexNet, tf
from datagenerator import load_image, read_list
from golden import HERE
from test_finetune import ROOT, finetune

TEST = os.path.join(ROOT, 'images', 'test.txt')


def predict(folder, *arguments):
    process = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'predict.py')] + list(arguments),
        cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    return process.returncode, process.stdout


def rows(folder):
    with open(str(folder / 'predictions.csv'), newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder of checkpoints, trained on the sample with names and a test list."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'classes.txt').write_text('brick\nlawn, grass\ngravel\n')
    status, output = finetune(
        str(folder), '--weights_path=None', '--num_epochs=2', '--batch_size=32',
        '--test_file=images/test.txt', '--classes_file=%s' % (folder / 'classes.txt'))
    assert status == 0, output
    return str(folder / 'new' / 'checkpoints'), output


@pytest.fixture(scope='module')
def expected(trained):
    """Probabilities and fc7 of the test list, computed here."""
    paths, labels, _ = read_list(TEST, 3)
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 3, [], None)
    with tf.Session() as session:
        tf.train.Saver().restore(session, trained[0] + '/model_best.ckpt')
        probabilities, fc7 = session.run([tf.nn.softmax(model.fc8), model.fc7],
                                         {x: [load_image(path) for path in paths]})
    return paths, labels, probabilities, fc7


def test_list_is_classified_and_scored(tmp_path, trained, expected):
    paths, labels, probabilities, _ = expected
    status, output = predict(tmp_path, TEST, '--checkpoint=' + trained[0])
    assert status == 0, output
    names = ['brick', 'lawn, grass', 'gravel']
    for row, path, probability in zip(rows(tmp_path), paths, probabilities):
        order = probability.argsort()[::-1]
        assert row['path'] == path
        for rank, label in enumerate(order, 1):
            assert int(row['class_%d' % rank]) == label
            assert row['name_%d' % rank] == names[label]
            assert abs(float(row['probability_%d' % rank]) - probability[label]) < 1e-5
    assert len(rows(tmp_path)) == 27
    predicted = probabilities.argmax(1)
    accuracy = sum(predicted == labels) / 27.
    assert 'Accuracy: %.4f of 27 pictures' % accuracy in output
    assert 'accuracy %.4f, of the best checkpoint' % accuracy in trained[1]
    for label, name in enumerate(names):
        both = sum((predicted == label) & (labels == label))
        precision = both / max(1, sum(predicted == label))
        recall = both / sum(labels == label)
        f1 = 2 * precision * recall / (precision + recall) if both else 0
        assert '%-11s %9.4f %9.4f %9.4f %9d' % (name, precision, recall, f1, 9) in output
    assert (tmp_path / 'confusion_matrix.png').read_bytes().startswith(b'\x89PNG')
    assert 'Top-5' not in output


def test_model_file_tells_what_one_needs(trained):
    with open(trained[0] + '/model.json') as file:
        model = json.load(file)
    assert model['class_names'] == ['brick', 'lawn, grass', 'gravel']
    assert model['num_classes'] == 3 and model['train_layers'] == ['fc8', 'fc7']
    assert model['preprocessing'] == {'size': [227, 227], 'channels': 'BGR',
                                      'minus_mean': [104, 117, 124]}


def test_files_folders_and_patterns_are_found_and_bad_ones_reported(tmp_path, trained):
    bricks = os.path.join(ROOT, 'images', 'textures', 'brick')
    (tmp_path / 'photos' / 'deep').mkdir(parents=True)
    for name in ['photos/1.jpg', 'photos/deep/2.JPG', 'single.jpg', 'x1.jpg', 'x2.jpg']:
        shutil.copy(os.path.join(bricks, 'test_01.jpg'), str(tmp_path / name))
    (tmp_path / 'photos' / 'bad.png').write_bytes(b'no picture')
    (tmp_path / 'photos' / 'notes.txt').write_text('no picture either')
    status, output = predict(tmp_path, 'single.jpg', 'photos', 'x*.jpg', '--top_k=1',
                             '--batch_size=2', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert '1 pictures cannot be read:\n  photos/bad.png: not a picture' in output
    assert [row['path'] for row in rows(tmp_path)] == [
        'single.jpg', 'photos/1.jpg', 'photos/deep/2.JPG', 'x1.jpg', 'x2.jpg']
    assert 'Accuracy' not in output and 'class_2' not in rows(tmp_path)[0]


def test_activations_of_a_layer_are_written(tmp_path, trained, expected):
    paths, _, _, fc7 = expected
    status, output = predict(tmp_path, TEST, '--layer=fc7', '--checkpoint=' +
                             trained[0] + '/model_best.ckpt')
    assert status == 0, output
    with np.load(str(tmp_path / 'features.npz')) as found:
        assert list(found['paths']) == paths
        np.testing.assert_allclose(found['features'], fc7, atol=1e-4)


def test_weight_file_of_imagenet_gives_its_names(tmp_path, golden_file):
    names = os.path.join(ROOT, 'images')
    status, output = predict(tmp_path, names + '/cat.jpg', '--checkpoint=' + golden_file)
    assert status == 0, output
    with open(names + '/imagenet_classes.txt') as file:
        lines = file.read().splitlines()
    [row] = rows(tmp_path)
    assert lines[int(row['class_1'])].split(' ', 1)[1] == row['name_1']


@pytest.mark.parametrize('arguments, complaint', [
    (['none*.jpg'], 'none*.jpg: no pictures there'),
    (['--checkpoint=.'], '.: no checkpoints there'),
    (['--checkpoint=none.ckpt'], 'none.ckpt: no such weight file'),
    (['--layer=fc9'], "layer is 'fc9', must be None or one of"),
    (['--top=3'], "'--top=3' is not an option")])
def test_wrong_settings_are_errors(tmp_path, trained, arguments, complaint):
    status, output = predict(tmp_path, '--checkpoint=' + trained[0], *arguments)
    assert status == 1 and complaint in output
    assert not (tmp_path / 'predictions.csv').exists()
