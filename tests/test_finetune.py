import os

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector import projector_config_pb2

import alexnet
from alexnet import AlexNet, LAYERS, fc
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import (ROOT, all_checkpoints_kept, checkpoint_of, events, files,
                     finetune, summaries)
from machinery.labels import OneClass
from machinery.lists import read_list
from machinery.tf1 import tf
from machinery.weights import read_weights


@pytest.fixture(scope='module')
def run(module_path, narrow_network, narrow_golden_file):
    """Three epochs of one step each on fc8, from the golden weights."""
    folder = str(module_path)
    with all_checkpoints_kept() as keep:
        status, output = finetune(
            folder, '--weights_path=' + narrow_golden_file, '--num_epochs=3',
            '--train_file=images/test.txt', "--train_layers=['fc8']", '--batch_size=27',
            '--learning_rate=1e-6', '--display_step=2', '--dropout_rate=0', *keep,
            draws=True)
    assert status == 0, output
    return folder, output


def checkpoint(folder, epoch):
    return tf.train.load_checkpoint(checkpoint_of(folder, epoch))


def test_a_step_changes_the_trained_layers_and_nothing_else(run, narrow_golden_file):
    folder, _ = run
    expected = read_weights(narrow_golden_file)
    for epoch in (1, 2, 3):
        reader = checkpoint(folder, epoch)
        assert reader.get_tensor('global_step') == epoch
        for layer in LAYERS[:-1]:
            for kind, value in zip(['weights', 'biases'], expected[layer]):
                found = reader.get_tensor('%s/%s' % (layer, kind))
                assert (found == value).all(), layer
    for name in ['fc8/weights', 'fc8/biases']:
        first, second = [checkpoint(folder, epoch).get_tensor(name) for epoch in (1, 2)]
        assert (first != second).any()


@pytest.mark.parametrize('curve, name', [('validation', 'val.txt'),
                                         ('train without dropout', 'test.txt')])
def test_a_curve_counts_every_sample_once(run, curve, name):
    """Pictures in batches of 27 and, as a reference, in one of our own making."""
    folder, _ = run
    paths, labels, _ = read_list(os.path.join(ROOT, 'images', name),
                                 OneClass(range(3)))
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 3, [], None)
    with tf.Session() as session:
        tf.train.Saver().restore(session, checkpoint_of(folder, 3))
        images = normalize([load_image(path) for path in paths])
        logits = session.run(model.fc8, {x: images})
    logits = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(paths)), labels]
    expected = {'accuracy': (logits.argmax(1) == labels).mean(),
                'cross_entropy': losses.mean()}
    found = {tag: value for step, tag, value in summaries(folder, curve)
             if step == 3}
    assert {tag for tag in found if found[tag] is not None} == set(expected)
    for tag in expected:
        np.testing.assert_allclose(found[tag], expected[tag], rtol=1e-4)


def test_event_files_hold_the_tags_and_the_graph(run):
    folder, _ = run
    found = {(step, tag) for step, tag, _ in summaries(folder, 'train')}
    per_epoch = {(epoch, tag) for epoch in (1, 2, 3)
                 for tag in ['images_per_second', 'learning_rate']}
    assert per_epoch < found
    once = {(0, 'batch'), (0, 'settings'), (0, 'layers')}
    assert found - per_epoch == once | {(2, tag) for tag in [
        'cross_entropy', 'accuracy', 'variable/fc8/weights', 'variable/fc8/biases',
        'gradient/fc8/weights', 'gradient/fc8/biases']}
    assert {step for step, _, _ in summaries(folder, 'validation')} == {1, 2, 3}
    assert any(event.graph_def for event in events(folder, 'train'))


def test_validation_pictures_are_in_the_event_file(run, narrow_golden_file):
    folder, _ = run
    found = {(event.step, value.tag): cv2.imdecode(
                 np.frombuffer(value.image.encoded_image_string, np.uint8), 1)
             for event in events(folder, 'validation')
             for value in event.summary.value if value.HasField('image')}
    assert set(found) == {(epoch, tag) for epoch in (1, 2, 3) for tag in [
        'confusion_matrix', 'worst_mistakes']} | {(1, 'conv1_filters')}  # not trained
    drawn = found[1, 'worst_mistakes'].astype(int)
    picture, heat_map = drawn[6:233, 6:233], drawn[6:233, 246:473]
    assert drawn.shape[1] == 960
    assert np.ptp(picture, 2).mean() < 5 and np.ptp(heat_map, 2).mean() > 50  # colours
    filters = found[1, 'conv1_filters'][::5, ::5]
    assert filters.shape == (2 * 12, 12 * 12, 3)
    one = read_weights(narrow_golden_file)['conv1'][0][:, :, :, 18]  # row 2, column 7
    np.testing.assert_allclose(filters[13:24, 73:84],
                               127.5 + 127.5 * one / abs(one).max(), atol=1)


def test_a_batch_and_the_settings_are_in_the_event_file(run):
    found = {value.tag: value for event in events(run[0], 'train')
             for value in event.summary.value}
    batch = cv2.imdecode(np.frombuffer(
        found['batch'].image.encoded_image_string, np.uint8), 1)
    data = ImageDataGenerator(os.path.join(ROOT, 'images', 'test.txt'), True, True,
                              nb_classes=3)
    order, mirrored, _ = data.plan(0)
    for place, sample in [(0, order[0]), (2, order[2])]:
        image = load_image(data.paths[sample])
        image = image[:, ::-1] if mirrored[sample] else image
        drawn = batch[6:233, 240 * place + 6:240 * place + 233]
        assert abs(drawn - np.float32(image)).mean() < 6  # as a JPEG
    settings, layers = [found[name].tensor.string_val[0].decode()
                        for name in ('settings', 'layers')]
    assert "| learning_rate | `1e-06` |\n" in settings and '| OpenCV |' in settings
    assert 'fc8    64 x 3             fresh     trained' in layers
    assert found['layers'].metadata.plugin_data.plugin_name == 'text'


def test_hparams_page_has_the_settings_and_the_subfolders_the_scores(run):
    """Where TensorBoard looks for them: it was asked over HTTP, once."""
    [start] = [value for event in events(run[0], '.') for value in event.summary.value]
    assert start.metadata.plugin_data.plugin_name == 'hparams'
    info = metadata.parse_session_start_info_plugin_data(
        start.metadata.plugin_data.content)
    assert info.hparams['learning_rate'].number_value == 1e-6
    assert {name: info.hparams[name].string_value for name in [
        'train_layers', 'skip_layers', 'random_crop', 'train_file']} == {
            'train_layers': "['fc8']", 'skip_layers': 'None', 'random_crop': 'False',
            'train_file': 'images/test.txt'}


def test_projector_page_shows_the_bottlenecks_of_the_validation_list(
        run, narrow_golden_file):
    folder = run[0] + '/log/1/validation/'
    paths, labels, _ = read_list(os.path.join(ROOT, 'images', 'val.txt'),
                                 OneClass(range(3)))
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 3, ['fc8'], narrow_golden_file)
    with tf.Session() as session:
        model.load_initial_weights(session)
        expected = session.run(model.fc7, {
            x: normalize([load_image(path) for path in paths])})
    np.testing.assert_allclose(np.loadtxt(folder + 'features.tsv'), expected,
                               rtol=1e-3, atol=1e-3 * expected.max())
    with open(folder + 'pictures.tsv') as file:
        rows = [line.rstrip('\n').split('\t') for line in file]
    assert rows[0] == ['class', 'picture']
    names = ['brick', 'grass', 'gravel']
    assert [row[0] for row in rows[1:]] == [names[label] for label in labels]
    assert [os.path.join(ROOT, row[1]) for row in rows[1:]] == paths
    sprite = cv2.imread(folder + 'thumbnails.png')
    assert sprite.shape == (8 * 64, 8 * 64, 3)
    picture = load_image(paths[10])
    np.testing.assert_array_equal(sprite[64:128, 128:192], cv2.resize(
        picture, (64, 64), interpolation=cv2.INTER_AREA))
    with open(folder + 'projector_config.pbtxt') as file:
        config = text_format.Parse(file.read(), projector_config_pb2.ProjectorConfig())
    [embedding] = config.embeddings
    assert all(os.path.exists(folder + name) for name in [
        embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path])
    assert list(embedding.sprite.single_image_dim) == [64, 64]


def test_output_is_clean_and_ends_with_what_to_do_next(run):
    folder, output = run
    device, *lines = output.splitlines()
    assert device.startswith('Device: ')
    assert lines[0].split() == ['layer', 'weights', 'initially', 'then']
    assert lines[7].split()[-2:] == ['loaded', 'frozen']
    assert lines[8].split() == ['fc8', '64', 'x', '3', 'fresh', 'trained']
    while lines[-1].startswith('Next:       '):
        lines.pop()
    assert all(line.startswith('Epoch ') or line.startswith('Warning: all predictions')
               for line in lines[9:-5])
    assert lines[-5].startswith('Best:       ' + checkpoint_of(folder, 'best'))
    assert checkpoint_of(folder, 3) + ', the newest' in lines[-4]
    assert lines[-3].endswith(' tensorboard --logdir %s/log --samples_per_plugin '
                              'images=100' % folder)
    assert lines[-2].endswith(' python predict.py images/val.txt --checkpoint '
                              '%s/new/checkpoints/1' % folder)
    advice = output.splitlines()[len(lines) + 1:]
    assert 2 <= len(advice) <= 5 and 'Frequent mistakes at the end: ' in advice[-1]


def test_graph_file_holds_no_weights(run):
    folder, _ = run
    assert os.path.getsize(checkpoint_of(folder, 3) + '.meta') < 1e6


def test_sample_learns_from_its_own_pictures(tmp_path, monkeypatch):
    missing = os.path.join(ROOT, 'bvlc_alexnet.npy')
    if os.path.exists(missing):
        pytest.skip('the sample starts from the pretrained weights here')
    monkeypatch.setattr(alexnet, 'fc', fc)  # the network as it is
    status, output = finetune(str(tmp_path))
    assert status == 0, output
    assert 'the pretrained weights could not be fetched' in output
    assert 'The sample starts from its own pictures instead.' in output
    accuracies = [value for _, tag, value in summaries(str(tmp_path), 'validation')
                  if tag == 'accuracy']
    assert len(accuracies) == 10
    assert accuracies[-1] >= 0.9
    assert {name for name in files(tmp_path / 'new') if name.endswith('.index')} == set(
        ['model_epoch10.ckpt.index', 'model_best.ckpt.index'])


@pytest.mark.parametrize('weights_path, complaint', [
    ('none.npy', 'none.npy: no such checkpoint or weight file'),
    ('DEFAULT', 'the pretrained weights could not be fetched')])
def test_missing_weights_for_own_pictures_are_an_error(tmp_path, weights_path,
                                                       complaint):
    status, output = finetune(str(tmp_path), '--train_file=images/val.txt',
                              '--weights_path=' + weights_path)
    assert status == 2
    assert complaint in output and 'weights_path = None' in output
    assert not files(tmp_path)
