import csv
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

import datagenerator
import predict as predict_module
from alexnet import AlexNet
from datagenerator import IMAGE_SIZE, load_image, normalize
from helpers import (NAMES, ROOT, Program, events, finetune, make_narrow,
                     run_program)
from machinery import features, passes
from machinery.class_names import find_class_names
from machinery.errors import InputError
from machinery.numbered import list_runs
from machinery.passes import compute
from machinery.pictures import decode_image
from machinery.tf1 import tf
from predict import Classifier

pytestmark = pytest.mark.usefixtures('narrow_network')
IMAGES = os.path.join(ROOT, 'images')
TEST = os.path.join(IMAGES, 'test.txt')
CAT = os.path.join(IMAGES, 'cat.jpg')


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def predict(*arguments):
    return run_program('predict.py', *arguments)


def rows():
    """Return the rows of the newest table."""
    path = 'predictions/%d/predictions.csv' % list_runs('predictions')[-1]
    with open(path, newline='', encoding='utf-8-sig',
              errors='surrogateescape') as file:
        return list(csv.DictReader(file))


def imagenet_names():
    with open(os.path.join(IMAGES, 'imagenet_classes.txt')) as file:
        return [line.split(' ', 1)[1] for line in file.read().splitlines()]


def test_list_is_classified(trained, expected):
    paths, labels, probabilities, _ = expected
    status, output = predict(TEST, '--checkpoint', trained[0])
    assert status == 0, output
    assert [row['path'] for row in rows()] == paths
    assert [(int(row['true_class']), row['true_name']) for row in rows()] == [
        (label, NAMES[label]) for label in labels]
    for row, probability in zip(rows(), probabilities):
        for rank, label in enumerate(probability.argsort()[::-1], 1):
            assert int(row['class_%d' % rank]) == label
            assert row['name_%d' % rank] == NAMES[label]
            assert abs(float(row['probability_%d' % rank]) - probability[label]) < 1e-5


def test_what_training_has_stored_is_not_computed_again(trained, monkeypatch):
    """But for eight pictures at the start, and one."""
    counts, told = [], []

    def counting(forward, images, size):
        counts.append(len(images))
        return compute(forward, images, size)
    for module in (features, passes):
        monkeypatch.setattr(module, 'compute', counting)
    for where, expected in [('None', 4 * [12] + [6]),
                            (os.path.join(trained[0], '../../../features'), [8, 1])]:
        del counts[:]
        status, output = predict(
            os.path.join(IMAGES, 'val.txt'), '--checkpoint=' + trained[0],
            '--features_path=%s' % where)
        assert status == 0 and counts == expected, output
        told.append([line for line in output.splitlines() if 'Wrote' not in line])
    assert told[0] == told[1]


def test_few_pictures_are_not_looked_for_in_the_store(trained, tmp_path):
    status, output = predict(TEST, '--checkpoint=' + trained[0],
                             '--features_path=%s' % (tmp_path / 'features'))
    assert status == 0 and not (tmp_path / 'features').exists(), output


def test_sample_is_found_from_any_folder(trained):
    status, output = predict('--checkpoint=' + trained[0])
    assert status == 0 and 'of 27 pictures' in output
    assert set(os.listdir('predictions/1')) == {'predictions.csv',
                                                'confusion_matrix.png'}


def test_list_with_labels_is_scored(trained, expected):
    _, labels, probabilities, _ = expected
    status, output = predict(TEST, '--checkpoint=' + trained[0], '--confusion_file=c')
    assert status == 0, output
    predicted = probabilities.argmax(1)
    accuracy = sum(predicted == labels) / 27.
    assert 'Accuracy: %.4f of 27 pictures' % accuracy in output
    assert 'accuracy %.4f, of the best checkpoint' % accuracy in trained[1]
    for label, name in enumerate(NAMES):
        both = sum((predicted == label) & (labels == label))
        precision = both / max(1, sum(predicted == label))
        recall = both / sum(labels == label)
        f1 = 2 * precision * recall / (precision + recall) if both else 0
        assert '%-11s %9.4f %9.4f %9.4f %9d' % (
            name, precision, recall, f1, 9) in output
    with open('c', 'rb') as file:
        drawing = file.read()
    assert drawing.startswith(b'\x89PNG')
    # finetune.py has shown the same.
    shown = {value.tag: value for event in events(trained[0] + '/../../..', 'test')
             for value in event.summary.value}
    assert set(shown) == {'cross_entropy', 'accuracy', 'confusion_matrix',
                          'worst_mistakes', 'worst_mistakes/paths'}
    assert shown['accuracy'].simple_value == pytest.approx(accuracy)
    assert shown['confusion_matrix'].image.encoded_image_string == drawing
    assert 'Top-5' not in output
    status, output = predict(CAT, '--checkpoint=' + trained[0])
    assert status == 0 and 'true_class' not in rows()[0]
    assert os.listdir('predictions/2') == ['predictions.csv']


def test_predictions_are_written_whatever_ails_matplotlib(trained):
    program = Program('predict.py', TEST, '--features_path=None',
                      '--predictions_file=%s/p.csv' % os.getcwd(),
                      '--confusion_file=%s/c.png' % os.getcwd(),
                      '--checkpoint=' + trained[0],
                      env={'MPLBACKEND': 'none'}, setup=make_narrow)
    status, output = program.wait()
    assert status == 0 and os.listdir('.') == ['p.csv'], output
    assert 'Warning: the confusion matrix cannot be drawn: ValueError: ' in output


def test_each_call_writes_all_to_a_new_folder_and_prints_some(trained):
    for number in (1, 2):
        status, output = predict(TEST, '--checkpoint=' + trained[0])
        path = 'predictions/%d/predictions.csv' % number
        assert status == 0 and 'Wrote %s\n' % path in output
        assert len(rows()) == 27 and output.count('test_') == 20
        assert '\n… and 7 more in the table\n' in output
        with open(path, 'rb') as file:  # which Excel takes for UTF-8
            assert file.read().startswith(b'\xef\xbb\xbfpath,')
    assert os.listdir('.') == ['predictions']


def test_list_of_other_classes_is_noticed(trained):
    for names, is_told in [(['brick', 'grass', 'gravel'], True), (NAMES, False)]:
        for name, text in [('list.txt', CAT + ' 1'), ('classes.txt', '\n'.join(names))]:
            with open(name, 'w') as file:
                file.write(text)
        status, output = predict('list.txt', '--checkpoint=' + trained[0])
        assert status == 0 and is_told == (
            'Warning: classes.txt names the classes brick, grass, gravel; ' in output)


def test_cells_are_no_formulas_and_text_is_printable(trained):
    shutil.copytree(trained[0], 'copy')
    model = read_model('copy')
    model['class_names'] = ['=1+1', '@x', '-z\x1b[31m']
    with open('copy/model.json', 'w') as file:
        json.dump(model, file)
    for name in ('+1.jpg', 'a\x1b[31m\n.jpg'):
        shutil.copy(CAT, name)
    status, output = predict('+1.jpg', 'a\x1b[31m\n.jpg', '--checkpoint=copy')
    assert status == 0 and '\x1b' not in output and 'a\\x1b[31m' in output
    assert rows()[0]['path'] == "'+1.jpg" and '\x1b' not in str(rows())
    assert {rows()[0]['name_%d' % rank] for rank in (1, 2, 3)} == {
        "'=1+1", "'@x", "'-z\\x1b[31m"}


def read_model(folder):
    with open(folder + '/model.json') as file:
        return json.load(file)


def test_model_file_tells_what_predict_needs(trained):
    model = read_model(trained[0])
    assert model['class_names'] == NAMES
    assert model['num_classes'] == 3 and model['train_layers'] == ['fc8', 'fc7']
    assert model['preprocessing']['size'] == [227, 227]
    assert model['preprocessing']['margin'] == 0 and model['best_by'] == 'accuracy'


def padded(path, size=IMAGE_SIZE, mean=None, margin=0, **others):
    """load_image that keeps the aspect ratio: the shorter side gets black bars."""
    image = decode_image(path)
    height, width, _ = image.shape
    square = np.zeros((max(height, width), max(height, width), 3), np.uint8)
    square[:height, :width] = image
    return cv2.resize(square, size)


OTHER_PREPARATIONS = {
    'rgb': ('normalize', lambda images: normalize(images)[..., ::-1]),
    'scaled': ('normalize', lambda images: tf.cast(images, tf.float32) / 255),
    'mean': ('normalize', lambda images: normalize(images, [103.939, 116.779, 123.68])),
    'padded': ('load_image', padded)}


@pytest.mark.parametrize('export', [False, True])
@pytest.mark.parametrize('kind', [None] + list(OTHER_PREPARATIONS))
def test_pictures_must_be_prepared_as_in_training(trained, monkeypatch, kind, export):
    if kind:
        monkeypatch.setattr(datagenerator, *OTHER_PREPARATIONS[kind])
    arguments = ['--export_path=served'] if export else [CAT]
    status, output = predict('--checkpoint=' + trained[0], *arguments)
    assert status == (2 if kind else 0), output
    assert ('prepared in another way' in output) == bool(kind)
    assert not kind or 'Traceback' not in output
    assert set(os.listdir('.')) == (set() if kind else {
        'served' if export else 'predictions'})


@pytest.mark.parametrize('mean, complaint', [
    ([104, 117, 124], None),
    ([103.9, 116.8, 123.7], 'was trained with the mean [103.9, 116.8, 123.7]: set '
                            'IMAGENET_MEAN')])
def test_model_file_of_an_earlier_version_tells_the_mean(trained, mean, complaint):
    model = read_model(trained[0])
    del model['preprocessing']['test']
    model['preprocessing']['minus_mean'] = mean
    shutil.copytree(trained[0], 'copy')
    with open('copy/model.json', 'w') as file:
        json.dump(model, file)
    status, output = predict(CAT, '--checkpoint=copy')
    assert status == (2 if complaint else 0), output
    assert (complaint or 'Wrote predictions/1/predictions.csv') in output
    assert ('copy/model_best.ckpt was trained' in output) == bool(complaint)


def test_files_folders_and_patterns_are_classified(trained):
    os.makedirs('photos/deep')
    for path in ['photos/1.jpg', 'photos/deep/2.JPG', 'single.jpg', 'x1.jpg', 'x2.jpg',
                 b'x\xe9.jpg']:
        shutil.copy(CAT.encode() if isinstance(path, bytes) else CAT, path)
    for path in ['photos/bad.png', 'photos/c.heic', 'photos/notes.txt', 'IMG.HEIC']:
        with open(path, 'w') as file:
            file.write('no picture')
    with open('gone.txt', 'w') as file:
        file.write('gone.jpg\n' * 30)
    status, output = predict(
        'single.jpg', 'photos', 'x*.jpg', 'IMG.HEIC', 'gone.txt', '--top_k=1',
        '--batch_size=2', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert 'Cannot read 33 pictures:\n  photos/bad.png: not a picture' in output
    for path in ('photos/c.heic', 'IMG.HEIC'):
        assert '\n  %s: not a picture' % path in output
    assert output.count('gone.jpg') == 17
    assert [row['path'] for row in rows()] == [
        'single.jpg', 'photos/1.jpg', 'photos/deep/2.JPG', 'x1.jpg', 'x2.jpg',
        'x\udce9.jpg']
    assert '\nx\\udce9.jpg: ' in output
    assert 'Accuracy' not in output and 'class_2' not in rows()[0]


@pytest.mark.parametrize('lines, scored', [
    ('# mine\nc.jpg\ngone.jpg\nlost.jpg\n\na b.jpg\n', False),
    ('gone.jpg 0\nc.jpg 1\nlost.jpg 0\n', True)])
def test_missing_pictures_of_a_list_are_named(trained, lines, scored):
    for path in ['a b.jpg', 'c.jpg']:
        shutil.copy(CAT, path)
    with open('list.txt', 'w') as file:
        file.write(lines)
    status, output = predict('list.txt', '--checkpoint=' + trained[0])
    assert status == 0, output
    assert 'Cannot read 2 pictures:\n  gone.jpg: ' in output
    assert [row['path'] for row in rows()] == ['c.jpg'] + ['a b.jpg'] * (not scored)
    accuracy = float(rows()[0]['class_1'] == '1')
    assert ('Accuracy: %.4f of 1 picture\n' % accuracy in output) == scored


def test_activations_of_a_layer_are_written(trained, expected):
    paths, labels, _, fc7 = expected
    status, output = predict(TEST, '--layer=fc7', '--features_file=fc7',
                             '--checkpoint=' + trained[0] + '/model_best.ckpt')
    assert status == 0, output
    with np.load('fc7') as found:
        assert list(found['paths']) == paths
        np.testing.assert_allclose(found['features'], fc7, atol=1e-4)
        assert list(found['labels']) == list(labels)


def test_pretrained_weights_name_the_classes_of_imagenet(narrow_golden_file):
    with open('list.txt', 'w') as file:
        file.write('%s 281\n' % CAT)
    status, output = predict('list.txt', '--checkpoint=' + narrow_golden_file,
                             '--top_k=1000')
    assert status == 0, output
    [row] = rows()
    ranked = [int(row['class_%d' % rank]) for rank in range(1, 1001)]
    assert [row['name_%d' % rank] for rank in range(1, 1001)] == [
        imagenet_names()[label] for label in ranked]
    assert 'Top-5 accuracy: %.4f' % (281 in ranked[:5]) in output


def test_names_of_another_network_are_not_used(narrow_golden_file):
    os.symlink(narrow_golden_file, 'golden.npy')
    for name in ('golden.json', 'model.json'):
        with open(name, 'w') as file:
            json.dump({'class_names': ['a', 'b']}, file)
        assert find_class_names('golden.npy', 'fc8') == imagenet_names()


def test_weights_that_are_converted_keep_their_names(trained, expected):
    status, output = run_program('alexnet.py', trained[0], 'my.npy')
    assert status == 0 and output.endswith('\nWrote my.npy\n')
    assert find_class_names('my.npy', 'fc8') == NAMES
    status, output = predict(TEST, '--checkpoint=my.npy')
    assert status == 0 and [row['name_1'] for row in rows()] == [
        NAMES[label] for label in expected[2].argmax(1)]


def test_lists_of_any_ending_are_taken(trained):
    for name, lines in [('a.lst', [CAT]), ('a.TXT', [CAT]), ('a', [CAT]),
                        ('a.csv', ['path,label', '"%s",1' % CAT])]:
        with open(name, 'w') as file:
            file.write('\n'.join(lines))
        status, output = predict(name, '--checkpoint=' + trained[0])
        assert status == 0 and [row['path'] for row in rows()] == [CAT], output
        assert ('Accuracy' in output) == (name == 'a.csv')


def test_pictures_are_cropped_as_in_training(tmp_path, narrow_file):
    status, output = finetune(
        tmp_path, '--random_crop=True', '--train_file=images/test.txt',
        '--val_file=images/test.txt', '--test_file=images/test.txt', '--num_epochs=2',
        '--weights_path=' + narrow_file)
    assert status == 0 and 'Epoch 2/2' in output, output
    assert output.count('features are not stored') == 1
    [told] = [line for line in output.splitlines() if line.startswith('Test: ')]
    folder = str(tmp_path / 'new' / 'checkpoints' / '1')
    status, output = predict('--checkpoint=' + folder, TEST)
    assert status == 0, output
    assert 'Accuracy: %s of 27' % told.split()[4].rstrip(',') in output
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 3, [], folder + '/model_best.ckpt')
    with tf.Session() as session:
        model.load_initial_weights(session)
        [expected] = session.run(tf.nn.softmax(model.fc8), {
            x: [normalize(load_image(rows()[0]['path'], margin=29))]})
    assert abs(float(rows()[0]['probability_1']) - expected.max()) < 1e-4


@pytest.mark.parametrize('arguments, complaint', [
    ([os.path.join(IMAGES, 'SOURCES.md')], 'No picture could be read'),
    ([CAT, '--predictions_path=taken'], "'taken' is not a folder to write to"),
    ([CAT, '--predictions_file=none/p'], "'none/p' is not None or a file that does"),
    ([CAT, '--predictions_file=taken'], "'taken' is not None or a file that does not"),
    ([TEST, '--confusion_file=taken'], "'taken' is not None or a file that does not"),
    ([CAT, '--layer=fc8', '--features_file=taken'], "'taken' is not None or a file"),
    ([CAT, '--predictions_path=/proc/new'], "'/proc/new' is not a folder to write to"),
    (['--export_path=/proc/new/1'], "'/proc/new/1' is not None or a folder that does"),
    ([CAT, '--predictions_file=' + 300 * 'a'], 'a is not None or a file that does not'),
    ([CAT, '--predictions_file=new/'], "'new/' is not None or a file that does")])
def test_mistakes_are_told_without_a_traceback(trained, arguments, complaint):
    with open('taken', 'w') as file:
        file.write('mine')
    status, output = predict('--checkpoint=' + trained[0], *arguments)
    assert status == 2 and complaint in output and 'Traceback' not in output
    assert ('Network' in output) == ('No picture' in complaint)  # or told at once
    assert os.listdir('.') == ['taken'] and open('taken').read() == 'mine'


@pytest.fixture(scope='module')
def classify(trained):
    with Classifier(trained[0]) as classify:
        yield classify


def test_classifier_has_the_probabilities_of_the_table(trained, classify, expected):
    paths, _, probabilities, _ = expected
    status, output = predict(TEST, '--checkpoint=' + trained[0], '--top_k=2')
    assert status == 0, output
    for number, ranked in [(2, classify(paths, 2)), (3, classify(paths))]:
        assert [len(row) for row in ranked] == 27 * [number]
        for row, found in zip(rows(), ranked):
            assert [name for name, _ in found[:2]] == [row['name_1'], row['name_2']]
            for rank, (_, probability) in enumerate(found[:2], 1):
                assert abs(probability - float(row['probability_%d' % rank])) < 1e-5
    assert dict(ranked[5]) == pytest.approx(dict(classify(paths[5:6])[0]), abs=1e-5)
    assert all(type(value) is float for row in ranked for _, value in row)
    assert [max(row) for row in probabilities] == pytest.approx(
        [row[0][1] for row in ranked], abs=1e-5)
    assert classify([]) == [] and classify.class_names == NAMES


def test_classifier_gives_the_activations_of_a_layer(classify, expected):
    paths, _, _, fc7 = expected
    np.testing.assert_allclose(classify.features(paths, 'fc7'), fc7, atol=1e-4)
    assert classify.features([CAT], 'conv5').shape == (1, 13, 13, 256)
    assert classify.features([], 'fc7').shape == (0, 64)
    for layer in ('fc9', None, ['fc7']):
        with pytest.raises(InputError, match='layer is .*, must be one of .*fc8'):
            classify.features([CAT], layer)


def test_classifiers_live_in_graphs_of_their_own(trained, classify, narrow_golden_file):
    """Next to each other, and within the graph and the session of a program."""
    expected = classify([CAT])
    with tf.Session() as session, tf.variable_scope('mine'), tf.device('/cpu:0'):
        doubled = tf.constant(3.) * 2
        before = tf.get_default_graph().as_graph_def()
        with Classifier(narrow_golden_file) as other, Classifier(trained[0]) as same:
            assert [len(ranked) for ranked in other([CAT, CAT])] == [1000, 1000]
            for _ in range(2):
                assert same([CAT]) == classify([CAT]) == expected
                assert other([CAT], 1)[0][0][0] in imagenet_names()
        assert tf.get_default_graph().as_graph_def() == before
        assert session is tf.get_default_session() and session.run(doubled) == 6
    with pytest.raises(RuntimeError, match='closed'):
        same([CAT])
    with ThreadPoolExecutor(4) as pool:
        for [ranked] in pool.map(classify, 8 * [[CAT]]):
            assert dict(ranked) == pytest.approx(dict(expected[0]), abs=1e-5)
    assert classify([CAT]) == expected


def test_an_array_is_seen_as_the_picture_that_it_was_read_from(classify, trained):
    """Large JPEGs are decoded at a smaller scale, so a PNG has the same pixels."""
    small = os.path.join(IMAGES, 'textures', 'brick', 'train_01.jpg')
    photo = cv2.resize(cv2.imread(CAT), (1400, 1100))
    cv2.imwrite('photo.png', photo)
    cv2.imwrite('mirrored.png', photo[:, ::-1])
    for path, array in [(small, cv2.imread(small)), ('photo.png', photo),
                        ('mirrored.png', photo[:, ::-1])]:
        np.testing.assert_array_equal(classify.load(array), load_image(path))
        from_path, from_array = classify([path, array])
        assert dict(from_array) == pytest.approx(dict(from_path), abs=1e-5)
    assert classify([photo])[0] != classify([photo[:, ::-1]])[0]
    # With the margin of training, too.
    shutil.copytree(trained[0], 'copy')
    model = read_model('copy')
    model['preprocessing'].update(margin=29, test=None)
    with open('copy/model.json', 'w') as file:
        json.dump(model, file)
    with Classifier('copy') as cropped:
        np.testing.assert_array_equal(cropped.load(photo),
                                      load_image('photo.png', margin=29))
        assert cropped([photo]) != classify([photo])


FRAME = np.zeros((8, 9, 3), np.uint8)


@pytest.mark.parametrize('pictures, complaint', [
    (CAT, r'give a list of pictures, as \[picture\], not a str'),
    (FRAME, r'give a list of pictures, as \[picture\], not a ndarray'),
    (FRAME[None], 'give a list of pictures'), (None, 'give a list of pictures'),
    ([CAT, None], r'pictures\[1\] is a NoneType, must be a path or an array'),
    ([FRAME, [CAT]], r'pictures\[1\] is a list, must be a path or an array'),
    ([CAT, FRAME / 255], r'pictures\[1\]: the array is float64 of shape \(8, 9, 3\), '
     r'must be uint8 \(0 to 255, blue first\) of shape \(height, width, 3\)'),
    ([FRAME[None]], r'pictures\[0\]: the array is uint8 of shape \(1, 8, 9, 3\), must'),
    ([FRAME, FRAME[..., 0]], r'pictures\[1\]: the array is uint8 of shape \(8, 9\), '),
    ([np.dstack([FRAME, FRAME[..., :1]])], r'shape \(8, 9, 4\), must be uint8'),
    ([FRAME[:0]], r'pictures\[0\]: the array is uint8 of shape \(0, 9, 3\), must be'),
    (100 * [CAT] + ['gone.jpg'], r'^pictures\[100\]: gone.jpg: No such file'),
    ([CAT, os.path.join(IMAGES, 'SOURCES.md'), 'gone.jpg'],
     r'^pictures\[1\]: .*/images/SOURCES.md: not a picture, or damaged')])
def test_what_a_classifier_cannot_take_is_named(classify, pictures, complaint):
    for call in (classify, lambda pictures: classify.features(pictures, 'fc8')):
        with pytest.raises(InputError, match=complaint):
            call(pictures)


@pytest.mark.parametrize('arguments, complaint', [
    ({'checkpoint': 'gone'}, 'gone: no such checkpoint'),
    ({'unknown_below': 1}, r'unknown_below is 1, must be a number in \[0, 1\)'),
    ({'batch_size': 0}, 'batch_size is 0, must be an integer in')])
def test_wrong_arguments_of_a_classifier_are_named(trained, classify, arguments,
                                                   complaint):
    with pytest.raises(InputError, match=complaint):
        Classifier(**dict({'checkpoint': trained[0]}, **arguments))
    with pytest.raises(InputError, match='top_k is 0, must be an integer in'):
        classify([CAT], top_k=0)


def test_classifier_prepares_pictures_as_in_training(trained, monkeypatch):
    monkeypatch.setattr(predict_module, 'load_image', padded)
    with pytest.raises(InputError, match='prepared in another way'):
        Classifier(trained[0])


def test_importing_predict_changes_nothing(trained):
    """Nor does a Classifier, but for TensorFlow's eager mode, as the README says."""
    code = """
import logging, os, sys
sys.argv[1:] = ['--nonsense']
import cv2
import tensorflow.compat.v1 as tf
mine = tf.Graph().as_default()
mine.__enter__()
tf.no_op('mine')
def state():
    return (sys.argv, sys.excepthook, sys.displayhook, sys.stdout, sys.stderr,
            cv2.utils.logging.getLogLevel(), logging.getLogger('tensorflow').level,
            tf.get_default_graph(), str(tf.get_default_graph().as_graph_def()),
            os.getcwd(), os.listdir('.'))
before = state()
from predict import Classifier
assert state() == before
import helpers  # and so pytest, which changes the hook in Python 3.7
helpers.make_narrow()
before = state()
with Classifier(%r) as classify:
    [[(name, probability)]] = classify([%r], 1)
assert state() == before
print(name)
""" % (trained[0], CAT)
    output = subprocess.run([sys.executable, '-c', code], check=True,
                            stdout=subprocess.PIPE).stdout.decode()
    assert output.strip() in NAMES and not os.listdir('.')


def test_improbable_pictures_are_named_unknown(trained, classify, expected):
    paths, labels, probabilities, _ = expected
    best = probabilities.max(1)
    limit = float(np.sort(best)[13:15].mean())  # halfway, so that 14 are below it
    option = '--unknown_below=%r' % limit
    status, output = predict(TEST, '--checkpoint=' + trained[0], option)
    assert status == 0, output
    told = output.splitlines()
    with Classifier(trained[0], unknown_below=limit) as careful:
        ranked = careful(paths)
    for row, found, plain, probability in zip(rows(), ranked, classify(paths), best):
        is_unknown = probability < limit
        assert (row['name_1'] == 'unknown') == (row['class_1'] == '-1') == is_unknown
        assert float(row['probability_1']) == pytest.approx(probability, abs=1e-5)
        assert found[0] == ('unknown' if is_unknown else plain[0][0], pytest.approx(
            plain[0][1]))
        assert [name for name, _ in found[1:]] == [row['name_2'], row['name_3']] == [
            name for name, _ in plain[1:]]
    assert sum(row['name_1'] == 'unknown' for row in rows()) == 14
    line = '%s: %s %.4f, ' % (paths[0], rows()[0]['name_1'], best[0])
    assert any(text.startswith(line) for text in told)
    # Scores are those of the best classes all the same.
    accuracy = (probabilities.argmax(1) == labels).mean()
    assert 'Accuracy: %.4f of 27 pictures' % accuracy in told


def test_thresholds_are_tabulated(trained, expected):
    _, labels, probabilities, _ = expected
    status, output = predict(TEST, '--checkpoint=' + trained[0])
    assert status == 0, output
    best, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    table = output.split('unknown_below      kept     right\n')[1].splitlines()[:8]
    assert [[float(cell) for cell in line.split()] for line in table] == [
        [limit, sum(best >= limit), sum(is_right & (best >= limit))]
        for limit in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    status, output = predict(CAT, '--checkpoint=' + trained[0])
    assert status == 0 and 'unknown_below' not in output
    for value in ('1', '-0.1', 'None'):
        status, output = predict(CAT, '--unknown_below=' + value)
        assert status == 2 and 'is not a number in [0, 1)' in output
