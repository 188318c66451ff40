"""Pictures that are not square are squashed, cropped or padded, the same everywhere."""
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from datagenerator import (IMAGENET_MEAN, IMAGE_SIZE, ImageDataGenerator, load_image,
                           normalize)
from helpers import finetune, make_narrow, run_program, unless_old
from machinery.errors import InputError
from machinery.model_file import (check_preprocessing, find_preprocessing,
                                  is_preprocessing)
from machinery.picture_header import inspect
from machinery.picture_ops import preprocess
from machinery.proportions import fit
from machinery.tf1 import tf
from test_features import Forward, size_of_passes, stored  # noqa: F401
from test_reducing import (decoded_at, encode, outputs_of, photograph, run_folder,
                           write)

WAYS = ['squash', 'crop', 'pad']
GREY = tuple(IMAGENET_MEAN)
SHAPES = [(300, 200), (200, 300), (227, 227), (300, 227), (97, 500), (64, 64)]


def places(height, width):
    """Return an image whose colours tell how far right and down a pixel is."""
    y, x = np.mgrid[:height, :width]
    return np.uint8(np.dstack([255 * x / max(1, width - 1),
                               255 * y / max(1, height - 1), 0 * x + 99]))


@pytest.mark.parametrize('proportions, sides, expected', [
    ((1, 1), (300, 200), (200, 200)), ((60, 40), (300, 100), (150, 100)),
    ((3, 2), (227, 227), (227, 151)), ((2, 3), (227, 227), (151, 227)),
    ((227, 227), (227, 227), (227, 227)), ((4, 2), (101, 90), (101, 51)),
    ((1, 5000), (227, 227), (1, 227)), ((227, 227), (1, 5000), (1, 1)),
    ((10 ** 8, 1), (256, 256), (256, 1)), ((256, 256), (10 ** 8, 1), (1, 1))])
def test_fit_keeps_the_proportions(proportions, sides, expected):
    assert fit(proportions, sides) == expected


@pytest.mark.parametrize('height, width', SHAPES)
@pytest.mark.parametrize('size', [(227, 227), (60, 40), (40, 60)])
def test_proportions_are_those_of_pillow(height, width, size):
    image = places(height, width)
    squashed, cropped, padded = [load_image(image, size, resize=way) for way in WAYS]
    assert (squashed == cv2.resize(image, size)).all()
    assert (squashed == load_image(image, size)).all()
    for found, function, options in [(cropped, ImageOps.fit, {}),
                                     (padded, ImageOps.pad, {'color': GREY})]:
        expected = np.int32(function(Image.fromarray(image), size, Image.BILINEAR,
                                     **options))
        # Pillow may put the odd one of the lines around the picture on the other side.
        differs = np.abs(expected - found).max(2) > 8
        assert differs.mean() <= 2 / min(size)
        assert (found == squashed).all() == (height * size[0] == width * size[1])


def test_crop_sees_the_middle_square_alone():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :100], image[:, 100:200], image[:, 200:] = [1, 2, 3], [4, 5, 6], [7, 8, 9]
    for turned in (image, image.transpose(1, 0, 2)):
        assert (load_image(turned, resize='crop') == [4, 5, 6]).all()
        assert {tuple(pixel) for pixel in load_image(turned).reshape(-1, 3)} >= {
            (1, 2, 3), (4, 5, 6), (7, 8, 9)}
    # The 227 x 227 of 256 x 256 are then cut out of that square.
    image[:, 100:200] = places(100, 100)
    assert (load_image(image, margin=29, resize='crop') ==
            cv2.resize(places(100, 100), (256, 256))[14:241, 14:241]).all()


def test_padding_is_zero_for_the_network():
    image = photograph(100, 300)
    inner = cv2.resize(image, (227, 76))
    for turn in (lambda array: array, lambda array: array.transpose(1, 0, 2)):
        found = turn(normalize(load_image(turn(image), resize='pad')))
        assert (found[:75] == 0).all() and (found[151:] == 0).all()
        np.testing.assert_allclose(found[75:151], normalize(inner), atol=1)
    # With a margin, all of it fits into 256 x 256.
    whole = np.empty((256, 256, 3), np.uint8)
    whole[:] = IMAGENET_MEAN
    whole[85:170] = cv2.resize(image, (256, 85))
    for corner, (left, top) in [(None, (14, 14)), ((3, 29), (3, 29))]:
        found = load_image(image, margin=29, corner=corner, resize='pad')
        assert (found == whole[top:top + 227, left:left + 227]).all()


@pytest.mark.parametrize('way', WAYS)
def test_extreme_proportions(tmp_path, way):
    for shape in [(1, 5000), (5000, 1), (1, 1)]:
        for path in (write(tmp_path, photograph(*shape)), photograph(*shape)):
            image = load_image(path, margin=29, resize=way)
            assert image.shape == (227, 227, 3)
            is_grey = (image == IMAGENET_MEAN).all(2)
            assert is_grey.sum() == (226 * 227 if way == 'pad' and 5000 in shape else 0)


def test_side_that_decides_how_far_a_jpeg_is_reduced(tmp_path):
    """The used part keeps at least twice as many pixels as the network sees."""
    path = write(tmp_path, photograph(240, 479))
    part = decoded_at(path, 2, (240, 120))[:, 60:180]
    assert (load_image(path, (60, 60), resize='crop') == cv2.resize(part, (60, 60))
            ).all()
    for width, scale in [(479, 2), (480, 4)]:
        path = write(tmp_path, photograph(240, width))
        found = load_image(path, (60, 60), resize='pad')
        assert (found[15:45] == decoded_at(path, scale, (60, 30))).all()


@pytest.mark.parametrize('way', WAYS)
def test_export_sees_what_load_image_does(tmp_path, way):
    data = tf.placeholder(tf.string, [None])
    headers = inspect(data)
    images = {margin: preprocess(data, headers, IMAGE_SIZE, margin, 2., way,
                                 IMAGENET_MEAN)[0]
              for margin in (0, 29)}
    with tf.Session() as session:
        for shape in [(1, 500), (500, 1), (227, 227), (300, 227), (256, 300),
                      (454, 454), (511, 908), (400, 1817)]:
            photo, file = photograph(*shape), io.BytesIO()
            Image.fromarray(photo).save(file, 'png')
            for content in (encode(photo), encode(photo, 'turned'), file.getvalue()):
                (tmp_path / 'picture').write_bytes(content)
                found = session.run(images, {data: [content]})
                for margin, image in found.items():
                    np.testing.assert_array_equal(image, load_image(
                        str(tmp_path / 'picture'), margin=margin, resize=way))


def test_features_of_different_ways_are_not_mixed(tmp_path):
    for number in range(3):
        write(tmp_path, photograph(10, 20), name='%d.jpg' % number)
    (tmp_path / 'list.txt').write_text('0.jpg 0\n1.jpg 1\n2.jpg 0\n')
    for is_stored in (False, True):
        for way in WAYS:
            data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=(8, 8),
                                      resize=way)
            forward = Forward()
            [batch] = stored(data, forward, tmp_path / 'features').batches(3)
            assert forward.passes == 1 and forward.checks == is_stored
            expected = load_image(data.paths[0], (8, 8), resize=way)
            assert (batch.images[0] == 2 * np.float32(expected)).all()


def test_misspelt_ways_are_named(tmp_path):
    words = r"resize is 'padded', must be 'squash' or 'crop' or 'pad'"
    for call in (lambda: load_image(photograph(9, 9), resize='padded'),
                 lambda: ImageDataGenerator(([], []), resize='padded')):
        with pytest.raises(InputError, match=words):
            call()
    status, output = run_program('finetune.py', '--resize=padded')
    assert status == 2 and "'padded' is not 'squash' or 'crop' or 'pad'" in output


def test_model_files_without_the_key_mean_squash(tmp_path):
    known = {'size': [227, 227], 'margin': 0, 'reducing_gap': 2.}
    defaults = dict(known, resize='squash')
    for more, expected in [({}, 'squash'), ({'resize': 'crop'}, 'crop')]:
        (tmp_path / 'model.json').write_text(json.dumps(
            {'preprocessing': dict(known, **more)}))
        found, _ = find_preprocessing(str(tmp_path / 'x.ckpt'), IMAGENET_MEAN,
                                      **defaults)
        assert found['resize'] == expected
    for way in (None, 'padded', ['pad'], 0):
        assert not is_preprocessing(dict(known, resize=way))
    check_preprocessing('x.ckpt', known, defaults)
    with pytest.raises(InputError, match='x.ckpt: resize was squash, now it is pad'):
        check_preprocessing('x.ckpt', known, dict(known, resize='pad'))


@pytest.fixture(scope='module')
def trained(module_path, narrow_file):
    """A folder with a run of one epoch on padded panoramas, and its arguments."""
    for number in range(4):
        write(module_path, photograph(100 + 9 * number, 1000), name='%d.jpg' % number)
    (module_path / 'train.txt').write_text(''.join(
        '%d.jpg %d\n' % (number, number % 2) for number in range(4)))
    job = ['--train_file=%s/train.txt' % module_path, '--batch_size=2',
           '--val_file=%s/train.txt' % module_path, "--train_layers=['fc8']",
           '--num_classes=3', '--weights_path=' + narrow_file, '--num_epochs=1']
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch.setattr)
        status, output = finetune(module_path, '--resize=pad', *job)
        assert status == 0, output
        yield module_path, job


@unless_old
def test_prediction_and_export_pad_as_training_did(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, path = run_folder(trained[0]), str(trained[0] / '0.jpg')
    with open(folder + '/model.json') as file:
        assert json.load(file)['preprocessing']['resize'] == 'pad'
    arguments = [path, '--checkpoint=' + folder]
    status, output = run_program('predict.py', *arguments, '--layer=conv1',
                                 '--features_file=conv1')
    assert status == 0, output
    with np.load('conv1') as found:
        np.testing.assert_allclose(found['features'], outputs_of(
            path, folder, 'conv1', resize='pad')[2.], atol=1e-3)
    status, output = run_program('predict.py', *arguments, '--export_path=served')
    assert status == 0 and 'not compared' not in output, output


@unless_old
def test_resumed_run_refuses_another_way(trained, tmp_path):
    folder, job = trained
    shutil.copytree(str(folder / 'new'), str(tmp_path / 'new'))
    job = job + ['--num_epochs=2', '--resume=True']
    status, output = finetune(tmp_path, *job, '--resize=crop')
    assert status == 2 and 'resize was pad, now it is crop; a run cannot go' in output
    status, output = finetune(tmp_path, *job, '--resize=pad')
    assert status == 0 and 'Epoch 2/2' in output
