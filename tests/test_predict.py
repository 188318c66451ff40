import csv
import json
import os
import shutil
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest

from alexnet import AlexNet, tf
from datagenerator import load_image, read_list
from golden import HERE
from predict import (draw_confusions, draw_mistakes, find_class_names, preprocess,
                     resize, write_projector)
from test_finetune import ROOT, files, finetune

TEST = os.path.join(ROOT, 'images', 'test.txt')


def predict(folder, *arguments):
    process = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'predict.py')] + list(arguments),
        cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    return process.returncode, process.stdout


def rows(folder):
    with open(str(folder / 'predictions.csv'), newline='', encoding='utf-8',
              errors='surrogateescape') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def trained(module_path):
    """A folder of checkpoints, trained on the sample with names and a test list."""
    (module_path / 'classes.txt').write_text('brick\nlawn, grass\ngravel\n')
    status, output = finetune(
        str(module_path), '--weights_path=None', '--num_epochs=2', '--batch_size=32',
        '--test_file=images/test.txt',
        '--classes_file=%s' % (module_path / 'classes.txt'),
        '--export_path=%s' % (module_path / 'served' / '1'))
    assert status == 0, output
    return str(module_path / 'new' / 'checkpoints'), output


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
        assert '%-11s %9.4f %9.4f %9.4f %9d' % (
            name, precision, recall, f1, 9) in output
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
    shutil.copy(str(tmp_path / 'x1.jpg'), os.fsencode(str(tmp_path / 'x\udce9.jpg')))
    status, output = predict(tmp_path, 'single.jpg', 'photos', 'x*.jpg', '--top_k=1',
                             '--batch_size=2', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert '1 pictures cannot be read:\n  photos/bad.png: not a picture' in output
    assert [row['path'] for row in rows(tmp_path)] == [
        'single.jpg', 'photos/1.jpg', 'photos/deep/2.JPG', 'x1.jpg', 'x2.jpg',
        'x\udce9.jpg']
    assert 'Accuracy' not in output and 'class_2' not in rows(tmp_path)[0]


def test_activations_of_a_layer_are_written(tmp_path, trained, expected):
    paths, _, _, fc7 = expected
    status, output = predict(tmp_path, TEST, '--layer=fc7', '--features_file=fc7',
                             '--checkpoint=' + trained[0] + '/model_best.ckpt')
    assert status == 0, output
    with np.load(str(tmp_path / 'fc7')) as found:
        assert list(found['paths']) == paths
        np.testing.assert_allclose(found['features'], fc7, atol=1e-4)


def test_weight_file_of_imagenet_gives_its_names(tmp_path, golden_file):
    names = os.path.join(ROOT, 'images')
    status, output = predict(tmp_path, names + '/cat.jpg',
                             '--checkpoint=' + golden_file)
    assert status == 0, output
    with open(names + '/imagenet_classes.txt') as file:
        lines = file.read().splitlines()
    [row] = rows(tmp_path)
    assert lines[int(row['class_1'])].split(' ', 1)[1] == row['name_1']


def test_exported_model_classifies_the_bytes_of_pictures(tmp_path, trained, expected):
    paths, _, probabilities, _ = expected
    (tmp_path / 'results').mkdir()
    np.save(str(tmp_path / 'pictures.npy'),
            np.array([open(path, 'rb').read() for path in paths]))
    export = os.path.join(trained[0], '..', '..', 'served', '1')
    subprocess.check_call(
        [sys.executable, '-m', 'tensorflow.python.tools.saved_model_cli', 'run',
         '--dir', export, '--tag_set', 'serve', '--signature_def', 'serving_default',
         '--inputs', 'pictures=pictures.npy', '--outdir', 'results'],
        cwd=str(tmp_path))
    found, class_ids, names = [np.load(str(tmp_path / 'results' / (output + '.npy')),
                                       allow_pickle=True)
                               for output in ['probabilities', 'class_ids', 'names']]
    assert (class_ids == probabilities.argsort(1)[:, ::-1]).all()
    np.testing.assert_allclose(found, np.sort(probabilities)[:, ::-1], atol=1e-3)
    assert (names == np.array([b'brick', b'lawn, grass', b'gravel'])[class_ids]).all()


@pytest.mark.parametrize('ending', ['png', 'gif', 'jpg'])
def test_exported_model_sees_a_picture_as_load_image_does(tmp_path, ending):
    image = cv2.resize(cv2.imread(os.path.join(ROOT, 'images', 'cat.jpg')), (300, 200))
    path = str(tmp_path / ('cat.' + ending))
    with open(path, 'wb') as file:
        file.write(cv2.imencode('.' + ending, image)[1].tobytes())
    with tf.Session() as session, open(path, 'rb') as file:
        found = session.run(preprocess(tf.constant(file.read())))
    np.testing.assert_array_equal(found, load_image(path))


@pytest.mark.parametrize('height, width', [
    (1, 5), (100, 130), (227, 227), (333, 500), (454, 454), (1201, 900)])
def test_resize_is_that_of_opencv(height, width):
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
    with tf.Session() as session:
        found = session.run(resize(image, 227))
    np.testing.assert_array_equal(found, cv2.resize(image, (227, 227)))


def test_checkpoint_is_exported_afterwards(tmp_path, trained):
    status, output = predict(tmp_path, '--export_path=served', '--checkpoint=' +
                             trained[0])
    assert status == 0, output
    assert files(tmp_path / 'served') and not (tmp_path / 'predictions.csv').exists()
    status, output = predict(tmp_path, '--export_path=served', '--checkpoint=' +
                             trained[0])
    assert status == 1
    assert "export_path is 'served', must be a folder that does not exist" in output


def test_lists_are_classified_and_their_missing_files_reported(tmp_path, trained):
    for name in ['a b.jpg', 'c.jpg']:
        shutil.copy(os.path.join(ROOT, 'images', 'cat.jpg'), str(tmp_path / name))
    (tmp_path / 'list.txt').write_text('# mine\nc.jpg\ngone.jpg\n\na b.jpg\n')
    status, output = predict(tmp_path, 'list.txt', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert [row['path'] for row in rows(tmp_path)] == ['c.jpg', 'a b.jpg']
    assert '1 pictures cannot be read' in output and 'gone.jpg' in output
    assert 'Accuracy' not in output
    (tmp_path / 'list.txt').write_text('c.jpg 1\ngone.jpg 0\n')
    status, output = predict(tmp_path, 'list.txt', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert '1 pictures cannot be read' in output and 'gone.jpg' in output
    assert 'of 1 pictures' in output


def test_names_of_another_network_are_not_used(tmp_path, golden_file):
    shutil.copy(golden_file, str(tmp_path / 'golden.npy'))
    (tmp_path / 'model.json').write_text('{"class_names": ["a", "b"]}')
    with open(os.path.join(ROOT, 'images', 'imagenet_classes.txt')) as file:
        assert find_class_names(str(tmp_path / 'golden.npy'))[0] == (
            file.readline().strip().split(' ', 1)[1])


def test_worst_mistakes_are_drawn_in_the_order_of_their_losses(tmp_path):
    paths = []
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        paths.append(str(tmp_path / ('%d.png' % number)))
        cv2.imwrite(paths[-1], np.full((50, 50, 3), colour, np.uint8))
    picture = draw_mistakes(paths, np.array([0, 0, 1]), np.array([1, 0, 0]),
                            np.float32([1, 9, 2]), ['no', 'yes'])
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), 1).astype(int)
    blue, green, red = [
        np.argwhere(pixels[:, :, channel] - pixels.sum(2) / 3 > 100)[:, 1]
        for channel in range(3)]
    assert len(green) == 0  # the right one
    assert 0 < red.max() < blue.min()
    assert draw_mistakes(paths, np.zeros(3), np.zeros(3), np.ones(3), ['no']) is None


def test_confusion_matrix_has_true_classes_in_rows():
    picture = draw_confusions(np.array([0, 0]), np.array([1, 1]), ['a', 'b'])
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), 1).astype(int)
    is_dark_blue = (pixels[:, :, 0] > 80) & (pixels[:, :, 2] < 50)
    row, column = np.argwhere(is_dark_blue).mean(0) / is_dark_blue.shape
    assert row < 0.5 and column > 0.5
    assert draw_confusions([0], [0], ['x'] * 1001) is None
    assert draw_confusions([0], [0], ['$5_$10', 'b']).startswith(b'\x89PNG')


def test_long_names_leave_room_for_the_confusion_matrix():
    def size(names):
        picture = draw_confusions([0], [0], names)
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), 1)
        return (pixels.min(2) < 200).any(0).sum()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert size(['x' * 500, '\u732b']) > 0.5 * size(['a', 'b'])


def test_projector_page_takes_an_even_selection(tmp_path):
    class Batches:
        data_size = 1200

        def reset_pointer(self):
            self.pointer = 0

        def next_batch(self, batch_size):
            start, self.pointer = self.pointer, self.pointer + batch_size
            self.rows = np.arange(min(batch_size, 1200 - start))
            return start + self.rows[:, None], None

    path = os.path.join(ROOT, 'images', 'cat.jpg')
    write_projector(str(tmp_path), Batches(), 128, [path] * 1200,
                    ['class%d' % sample for sample in range(1200)])
    assert list(np.loadtxt(str(tmp_path / 'features.tsv'))) == list(range(0, 1200, 3))
    names = (tmp_path / 'pictures.tsv').read_text().splitlines()
    assert names[399] == 'class1194\t' + path


@pytest.mark.parametrize('arguments, complaint', [
    (['none*.jpg'], 'none*.jpg: does not exist, or no pictures there'),
    ([TEST, 'x.jpg'], 'test.txt: a list with labels goes alone'),
    (['--checkpoint=.'], '.: no checkpoints there'),
    (['--checkpoint=none.ckpt'], 'none.ckpt: no such checkpoint'),
    (['--layer=fc9'], "layer is 'fc9', must be None or one of"),
    (['--top=3'], "'--top=3' is not an option")])
def test_wrong_settings_are_errors(tmp_path, trained, arguments, complaint):
    status, output = predict(tmp_path, '--checkpoint=' + trained[0], *arguments)
    assert status == 1 and complaint in output
    assert not (tmp_path / 'predictions.csv').exists()
