"""Large JPEGs are decoded at a reduced scale, the same one everywhere."""
import io
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

import datagenerator
from alexnet import AlexNet
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import checkpoint_of, finetune, make_narrow, run_program
from machinery import pictures
from machinery.checkpoint_files import find_weights
from machinery.errors import InputError
from machinery.model_file import find_decoding
from machinery.picture_header import inspect
from machinery.picture_ops import preprocess
from machinery.pictures import examine
from machinery.tf1 import tf
from test_features import Forward, size_of_passes, stored  # noqa: F401

SIZE = (60, 40)
FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2,
         4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
KINDS = ['colour', 'grey', 'progressive', 'turned', 'cmyk']


def photograph(height, width):
    """Return gradients with noise, which two-pixel interpolation does not remove."""
    y, x = np.mgrid[:height, :width]
    gradients = np.dstack([x / width, y / height, (x + y) / (width + height)]) * 255
    noise = np.random.RandomState(0).normal(0, 40, gradients.shape)
    return np.uint8(np.clip(gradients + noise, 0, 255))


def encode(image, kind='colour'):
    """Return the bytes of a JPEG; a turned one is to be turned by a quarter."""
    mode = {'grey': 'L', 'cmyk': 'CMYK'}.get(kind, 'RGB')
    file, options = io.BytesIO(), {'progressive': kind == 'progressive'}
    if kind == 'turned':
        options['exif'] = b'Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6' + bytes(7)
    Image.fromarray(image).convert(mode).save(file, 'jpeg', quality=90, **options)
    return file.getvalue()


def write(folder, image, kind='colour', name='photo.jpg'):
    """Write a JPEG; return its path."""
    (folder / name).write_bytes(encode(image, kind))
    return str(folder / name)


def decoded_at(path, scale, size=SIZE):
    """Return a picture that OpenCV decodes at a scale, in a size."""
    return cv2.resize(cv2.imread(path, FLAGS[scale]), size)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('scale', [2, 4, 8])
def test_scale_leaves_twice_the_larger_side(tmp_path, kind, scale):
    """Whichever side of the picture is the shorter one, however it is turned."""
    for margin in (0, 3):
        least = scale * 2 * (SIZE[0] + margin)
        size = (SIZE[0] + margin, SIZE[1] + margin)
        left = margin // 2
        for side, expected in [(least - 1, scale // 2), (least, scale)]:
            for shape in [(side, side + 50), (side + 50, side)]:
                path = write(tmp_path, photograph(*shape), kind)
                shown = shape[::-1] if kind == 'turned' else shape
                assert cv2.imread(path, FLAGS[expected]).shape[:2] == tuple(
                    -(-length // expected) for length in shown)
                others = [decoded_at(path, other, size)[left:left + 40, left:left + 60]
                          for other in FLAGS]
                image = load_image(path, SIZE, margin=margin)
                equal = [np.array_equal(image, other) for other in others]
                assert [number for number, is_it in zip(FLAGS, equal) if is_it] == [
                    expected]


def test_gap_sets_the_scale(tmp_path):
    path = write(tmp_path, photograph(480, 600))  # 8 times the larger side
    for gap, scale in [(None, 1), (1, 8), (1.01, 4), (2., 4), (3, 2), (5, 1)]:
        assert np.array_equal(load_image(path, SIZE, reducing_gap=gap),
                              decoded_at(path, scale))


def test_what_is_no_jpeg_or_has_no_size_is_decoded_in_full(tmp_path, monkeypatch):
    image = photograph(480, 600)
    cv2.imwrite(str(tmp_path / 'photo.png'), image)
    assert np.array_equal(load_image(str(tmp_path / 'photo.png'), SIZE),
                          cv2.resize(image, SIZE))
    path = write(tmp_path, image)
    assert np.array_equal(load_image(path, SIZE), decoded_at(path, 4))

    def fail(file):
        raise ValueError('damaged')
    monkeypatch.setattr(pictures.imagesize, 'get', fail)
    assert np.array_equal(load_image(path, SIZE), decoded_at(path, 1))


@pytest.mark.parametrize('kind', ['colour', 'grey', 'progressive'])
def test_reduced_is_nearer_to_averages_than_full(tmp_path, kind):
    path = write(tmp_path, photograph(1000, 1400), kind)
    averages = cv2.resize(cv2.imread(path), SIZE, interpolation=cv2.INTER_AREA)
    reduced, full = [np.abs(np.float32(averages) - load_image(
        path, SIZE, reducing_gap=gap)).mean() for gap in (2., None)]
    assert reduced < 0.5 * full


def test_generator_reduces_by_default(tmp_path):
    path = write(tmp_path, photograph(480, 600))
    (tmp_path / 'list.txt').write_text(path + ' 0\n')
    for options, scale in [({}, 4), ({'reducing_gap': None}, 1)]:
        data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=SIZE,
                                  **options)
        expected = normalize(decoded_at(path, scale))
        assert (data.next_batch(1)[0] == expected).all()
        [batch] = data.batches(1)
        assert (normalize(batch.images) == expected).all()
    data = ImageDataGenerator(str(tmp_path / 'list.txt'), mode='inference',
                              scale_size=SIZE, batch_size=1)
    images, _ = tf.data.make_one_shot_iterator(data.data).get_next()
    with tf.Session() as session:
        assert (session.run(images) == normalize(decoded_at(path, 4))).all()


@pytest.mark.parametrize('kind', ['colour', 'progressive'])
def test_damage_that_training_meets_is_found_before(tmp_path, kind):
    data = encode(photograph(960, 1200), kind)
    for name, content in [('cut.jpg', data[:len(data) // 2]), ('head.jpg', data[:300])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_image(str(tmp_path / name), SIZE)
        assert name in examine(str(tmp_path / name))[0]
    (tmp_path / 'whole.jpg').write_bytes(data)
    assert examine(str(tmp_path / 'whole.jpg'))[0] is None


@pytest.fixture(scope='module')
def exported():
    """A function from a file's bytes to {(margin, gap): its image in an export}."""
    with tf.Graph().as_default():
        data = tf.placeholder(tf.string, [None])
        headers = inspect(data)
        images = {(margin, gap): preprocess(data, headers, SIZE, margin, gap)[0]
                  for margin in (0, 3) for gap in (2., None)}
        session = tf.Session()
    yield lambda content: session.run(images, {data: [content]})
    session.close()


@pytest.mark.parametrize('kind', KINDS[:-1])  # CMYK is refused
def test_export_decodes_at_the_same_scale(exported, tmp_path, kind):
    for shape in [(119, 130), (120, 130), (239, 240), (240, 240), (252, 300),
                  (251, 252), (500, 480), (479, 700), (1100, 960), (1007, 1008)]:
        path = write(tmp_path, photograph(*shape), kind)
        with open(path, 'rb') as file:
            content = file.read()
        for (margin, gap), found in exported(content).items():
            expected = load_image(path, SIZE, margin=margin, reducing_gap=gap)
            np.testing.assert_array_equal(found, expected)


def test_features_of_full_and_reduced_decoding_are_not_mixed(tmp_path):
    for number in range(3):
        write(tmp_path, photograph(128, 200), name='%d.jpg' % number)
    (tmp_path / 'list.txt').write_text('0.jpg 0\n1.jpg 1\n2.jpg 0\n')
    forwards = {}
    for gap in (None, 2., None, 2.):
        data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=(8, 8),
                                  reducing_gap=gap)
        forward = Forward()
        [batch] = stored(data, forward, tmp_path / 'features').batches(3)
        forwards.setdefault(gap, []).append(forward)
        expected = decoded_at(data.paths[0], 1 if gap is None else 8, (8, 8))
        assert (batch.images[0] == 2 * np.float32(expected)).all()
    for first, second in forwards.values():  # the second time, they are only compared
        assert (first.passes, first.checks) == (1, 0)
        assert (second.passes, second.checks) == (1, 1)


# The network looks at pictures of 454 pixels and more at a reduced scale.

@pytest.fixture(scope='module')
def trained(module_path, narrow_file):
    """A folder with a run of one epoch on photographs, and its arguments."""
    for number in range(4):
        write(module_path, photograph(908, 940)[:, ::-1 if number % 2 else 1],
              name='%d.jpg' % number)
    (module_path / 'train.txt').write_text(''.join(
        '%d.jpg %d\n' % (number, number % 2) for number in range(4)))
    job = ['--train_file=%s/train.txt' % module_path, '--batch_size=2',
           '--val_file=%s/train.txt' % module_path, "--train_layers=['fc8']",
           '--num_classes=3', '--weights_path=' + narrow_file]
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch.setattr)
        status, output = finetune(module_path, '--num_epochs=1', *job)
        assert status == 0, output
        yield module_path, job


def edit_model(path, edit):
    """Change the preprocessing of a model.json with a function."""
    with open(path) as file:
        model = json.load(file)
    edit(model['preprocessing'])
    with open(path, 'w') as file:
        json.dump(model, file)


def forget(preprocessing):
    """Make it that of an earlier version, which decoded everything in full."""
    assert preprocessing.pop('reducing_gap') == 2
    assert preprocessing.pop('resize') == 'squash'


def run_folder(folder):
    """Return the folder with the checkpoints of the newest run."""
    return os.path.dirname(checkpoint_of(folder, 'best'))


@pytest.fixture(params=['new', 'old', 'npy'])
def network(request, trained, tmp_path, narrow_file):
    """A checkpoint and the gap with which it must see pictures."""
    if request.param == 'npy':
        return narrow_file, 2.
    shutil.copytree(run_folder(trained[0]), str(tmp_path / 'run'))
    if request.param == 'old':
        edit_model(str(tmp_path / 'run' / 'model.json'), forget)
    return str(tmp_path / 'run'), 2. if request.param == 'new' else None


def outputs_of(path, checkpoint, layer, **how):
    """Return what a network makes of a picture, {gap: values}."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        model = AlexNet(x, 1., 3, [], find_weights(checkpoint))
        model.load_initial_weights(session)
        return {gap: session.run(getattr(model, layer), {
            x: [normalize(load_image(path, reducing_gap=gap, **how))]})
                for gap in (2., None)}


def test_prediction_decodes_as_training_did(trained, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint, gap = network
    path = str(trained[0] / '0.jpg')
    status, output = run_program('predict.py', path, '--checkpoint=' + checkpoint,
                                 '--layer=conv1', '--features_file=conv1')
    assert status == 0, output
    values = outputs_of(path, checkpoint, 'conv1')
    with np.load('conv1') as found:
        np.testing.assert_allclose(found['features'], values[gap], atol=1e-3)
    assert np.abs(values[2.] - values[None]).max() > 1


def test_export_decodes_as_training_did(trained, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint, gap = network
    status, output = run_program('predict.py', '--checkpoint=' + checkpoint,
                                 '--export_path=served')
    assert status == 0, output
    path = str(trained[0] / '0.jpg')
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.load(session, ['serve'], 'served').signature_def[
            'serving_default']
        with open(path, 'rb') as file:
            found = session.run(signature.outputs['probabilities'].name, {
                signature.inputs['pictures'].name: [file.read()]})
    values = {key: np.sort(value)[:, ::-1] for key, value in outputs_of(
        path, checkpoint, 'probabilities').items()}
    np.testing.assert_allclose(found, values[gap], atol=1e-5)
    assert np.abs(values[2.] - values[None]).max() > 1e-3


def resume(trained, tmp_path, monkeypatch, *edits):
    """Resume the run in a copy of its folder; return (status, output, gaps)."""
    folder, job = trained
    shutil.copytree(str(folder / 'new'), str(tmp_path / 'new'))
    for edit in edits:
        edit_model(run_folder(tmp_path) + '/model.json', edit)
    gaps, load = set(), datagenerator.load_image

    def noting(path, *args, **kwargs):
        if os.path.dirname(path) == str(folder):
            gaps.add(kwargs['reducing_gap'])
        return load(path, *args, **kwargs)
    monkeypatch.setattr(datagenerator, 'load_image', noting)
    status, output = finetune(tmp_path, '--num_epochs=2', '--resume=True', *job)
    return status, output, gaps


@pytest.mark.parametrize('edits, expected', [
    ([], 2.), ([forget], None), ([lambda found: found.update(reducing_gap=3)], 3.)])
def test_resumed_run_decodes_as_before(trained, tmp_path, monkeypatch, edits, expected):
    status, output, gaps = resume(trained, tmp_path, monkeypatch, *edits)
    assert status == 0 and 'Epoch 2/2' in output, output
    assert gaps == {expected}
    with open(run_folder(tmp_path) + '/model.json') as file:
        assert json.load(file)['preprocessing']['reducing_gap'] == expected


def test_resumed_run_refuses_another_decoding(trained, tmp_path, monkeypatch):
    monkeypatch.setattr('machinery.run.find_decoding',
                        lambda checkpoint, workers: {'reducing_gap': None})
    status, output, _ = resume(trained, tmp_path, monkeypatch)
    assert status == 2 and 'reducing_gap was 2.0, now it is None' in output


class Other:
    """A worker that is not the chief."""

    def __init__(self, words):
        self.words = words

    def collect(self, values, dtype):
        return np.array([self.words, values], dtype)


def test_other_workers_decode_like_the_chief(trained):
    assert find_decoding(None, Other([1, 2])) == {'reducing_gap': 2.}
    assert find_decoding(None, Other([1, 0])) == {'reducing_gap': None}
    assert find_decoding(None, Other([0, 0])) == {}
