import os
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from datagenerator import (IMAGENET_MEAN, ImageDataGenerator, load_image,
                           normalize)
from helpers import ROOT
from machinery import pictures
from machinery.errors import InputError
from machinery.pictures import examine, load_ahead
from machinery.tf1 import tf

MEAN = np.float32(IMAGENET_MEAN)
TRAIN = os.path.join(ROOT, 'images', 'train.txt')


def colours(tmp_path, count, size=8):
    """Write pictures of one colour each and return their file names and colours."""
    values = np.random.RandomState(0).randint(0, 256, (count, 3)).astype(np.uint8)
    names = ['%d.png' % number for number in range(count)]
    for name, value in zip(names, values):
        cv2.imwrite(str(tmp_path / name), np.full((size, size, 3), value))
    return names, values


def write_list(tmp_path, text, encoding='utf-8'):
    path = tmp_path / 'list.txt'
    path.write_bytes(text.encode(encoding))
    return str(path)


def picture():
    small = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
    return cv2.resize(small, (90, 60))


def on_white(limit):
    alpha = picture()[..., :1] / limit
    return np.round(picture() * alpha + 255 * (1 - alpha))


@pytest.mark.parametrize('name, pixels, expected', [
    ('colour.png', picture(), picture()),
    ('opaque.png', np.dstack([picture(), np.full((60, 90), 255, np.uint8)]), picture()),
    ('rgba.png', np.dstack([picture(), picture()[..., 0]]), on_white(255)),
    ('rgba.webp', np.dstack([picture(), picture()[..., 0]]), on_white(255)),
    ('rgba.tif', np.dstack([picture(), picture()[..., 0]]), on_white(255)),
    ('deep_rgba.png', np.dstack([picture(), picture()[..., 0]]).astype(np.uint16) * 257,
     on_white(255)),
    ('grey.png', picture()[..., 0], np.dstack([picture()[..., 0]] * 3)),
    ('deep.png', picture().astype(np.uint16) * 257, picture()),
    ('deep_grey.png', picture()[..., 1].astype(np.uint16) * 257,
     np.dstack([picture()[..., 1]] * 3)),
    ('deep.tif', picture().astype(np.uint16) * 257, picture()),
])
def test_every_kind_of_picture_becomes_bgr(tmp_path, name, pixels, expected):
    path = str(tmp_path / name)
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith('webp') else []
    cv2.imwrite(path, pixels, lossless)
    image = load_image(path, (90, 60))
    assert image.dtype == np.uint8
    if name == 'rgba.webp':  # which drops what cannot be seen
        np.testing.assert_allclose(image, expected, atol=1)
    else:
        np.testing.assert_array_equal(image, expected)
    assert load_image(path).shape == (227, 227, 3)


def test_animation_gives_its_first_frame(tmp_path):
    frames = cv2.Animation()
    frames.frames = [np.full((20, 30, 3), value, np.uint8) for value in (250, 10)]
    frames.durations = [100, 100]
    cv2.imwriteanimation(str(tmp_path / 'moving.gif'), frames)
    image = load_image(str(tmp_path / 'moving.gif'), (30, 20))
    assert image.shape == (20, 30, 3)
    assert image.mean() > 200  # GIF has few colours, so not exactly 250


def test_normalize_is_the_same_for_arrays_and_tensors():
    path = os.path.join(ROOT, 'images', 'cat.jpg')
    image = load_image(path)
    expected = np.float32(image) - MEAN
    with tf.Session() as session:
        found = session.run(normalize(tf.constant(image)))
    for other in (found, normalize(image), load_image(path, mean=MEAN)):
        assert other.dtype == np.float32 and (other == expected).all()
    assert (load_image(path, mean=[1, 2, 3]) == np.float32(image) - [1, 2, 3]).all()


def test_bad_pictures_are_errors_that_name_the_path(tmp_path):
    cv2.imwrite(str(tmp_path / 'whole.jpg'), picture())
    whole = (tmp_path / 'whole.jpg').read_bytes()
    for name, content, complaint in [('empty.jpg', b'', 'empty file'),
                                     ('text.jpg', b'no picture', 'not a picture'),
                                     ('cut.jpg', whole[:-99], 'not a picture')]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match='%s: %s' % (name, complaint)):
            load_image(str(tmp_path / name))
    with pytest.raises(InputError, match='none.jpg: No such file'):
        load_image(str(tmp_path / 'none.jpg'))


def test_an_epoch_gives_every_sample_once(tmp_path):
    names, values = colours(tmp_path, 10)
    path = write_list(tmp_path, ''.join(
        '%s %d\n' % (name, number % 3) for number, name in enumerate(names)))
    generator = ImageDataGenerator(path, shuffle=True, nb_classes=3)
    assert generator.data_size == 10
    orders = []
    for epoch in range(3):
        batches = [generator.next_batch(4) for _ in range(3)]
        assert [len(images) for images, _ in batches] == [4, 4, 2]
        images, labels = [np.concatenate(arrays) for arrays in zip(*batches)]
        assert images.dtype == labels.dtype == np.float32
        assert images.shape == (10, 227, 227, 3) and labels.shape == (10, 3)
        found = [int(np.abs(values - (image[0, 0] + MEAN)).sum(1).argmin())
                 for image in images]
        assert sorted(found) == list(range(10))
        for number, image, label in zip(found, images, labels):
            assert (image == values[number] - MEAN).all()
            assert (label == np.eye(3)[number % 3]).all()
        orders.append(found)
        with pytest.raises(IndexError, match='epoch %d of .*list.txt' % epoch):
            generator.next_batch(4)
        generator.reset_pointer()
        with pytest.raises(ValueError, match='batch_size is 0'):
            generator.next_batch(0)
    assert orders[0] != orders[1] != orders[2]


def test_order_and_mirroring_depend_on_seed_and_epoch_alone():
    def epoch(seed, number, batch_sizes, before=()):
        generator = ImageDataGenerator(TRAIN, horizontal_flip=True, shuffle=True,
                                       nb_classes=3, scale_size=(24, 24), seed=seed)
        for other in before:
            generator.reset_pointer(other)
            generator.next_batch(7)
        generator.reset_pointer(number)
        images = np.concatenate([generator.next_batch(size)[0] for size in batch_sizes])
        parts = [batch.images for start, size in zip([0, 50, 100], 3 * [50])
                 for batch in [next(generator.batches(size, number, start))]]
        assert (normalize(np.concatenate(parts)) == images).all()
        return images

    reference = epoch(1, 5, [50, 50, 35])
    assert (epoch(1, 5, [135], before=[2, 9]) == reference).all()
    assert (epoch(1, 5, [1, 100, 50]) == reference).all()
    assert (epoch(2, 5, [135]) != reference).any()
    assert (epoch(1, 6, [135]) != reference).any()


def test_about_half_the_pictures_are_mirrored_and_all_without_shuffling_in_order():
    generators = [ImageDataGenerator(TRAIN, nb_classes=3, horizontal_flip=flip)
                  for flip in (False, True)]
    (plain, _), (flipped, _) = [generator.next_batch(135) for generator in generators]
    assert (plain[0] == normalize(load_image(generators[0].paths[0]))).all()
    mirrored = [(image != original).any()
                for image, original in zip(flipped, plain)]
    for image, original, turned in zip(flipped, plain, mirrored):
        assert (image == (original[:, ::-1] if turned else original)).all()
    assert 45 < sum(mirrored) < 90


def test_what_is_no_plain_file_is_no_picture(tmp_path):
    os.mkfifo(str(tmp_path / 'pipe.jpg'))
    for path in (str(tmp_path / 'pipe.jpg'), '/dev/zero', str(tmp_path)):
        with pytest.raises(InputError, match='is not a regular file'):
            load_image(path)


@pytest.mark.parametrize('ending', ['png', 'jpg'])
def test_picture_of_too_many_pixels_is_bad(tmp_path, ending):
    path = str(tmp_path / ('bomb.' + ending))
    cv2.imwrite(path, np.zeros((10001, 10000), np.uint8))
    assert os.path.getsize(path) < 2000000
    message = '10000 x 10001 pixels are more than 100 million'
    with pytest.raises(InputError, match='bomb.*: ' + message):
        load_image(path)
    assert message in examine(path)[0]


def test_size_in_the_header_counts_even_if_the_rest_is_missing(tmp_path):
    """Decoding would take memory for all pixels before it meets the end."""
    header = b'IHDR' + struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0)
    (tmp_path / 'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) +
                                       header + struct.pack('>I', zlib.crc32(header)))
    with pytest.raises(InputError, match='cut.png: 30000 x 30000 pixels are more than'):
        load_image(str(tmp_path / 'cut.png'))


def test_file_that_is_waited_for_is_named(monkeypatch, capsys):
    monkeypatch.setattr(pictures, 'SLOW', 0.5)
    seconds = {'quick.jpg': 0, 'slow.jpg': 0.8}
    [(paths, results)] = load_ahead(lambda path: time.sleep(seconds[path]),
                                    list(seconds), 2)
    assert paths == list(seconds) and results == [None, None]
    assert capsys.readouterr().err == 'Waiting for slow.jpg: nothing for 0.5 s\n'


def test_decoding_error_reaches_the_caller_with_list_line_and_path(tmp_path):
    names, _ = colours(tmp_path, 6)
    (tmp_path / '4.png').write_bytes(b'no picture')
    generator = ImageDataGenerator(
        write_list(tmp_path, '\n'.join(name + ' 0' for name in names)))
    assert len(generator.next_batch(3)[0]) == 3
    with pytest.raises(InputError, match='list.txt, line 5: .*4.png: not a picture'):
        generator.next_batch(3)


def test_shards_make_up_the_list():
    """Of 135 samples, two workers train on 68 each, one of them twice."""
    def shards(shuffle):
        return [ImageDataGenerator(TRAIN, nb_classes=3, shuffle=shuffle, seed=rank,
                                   scale_size=(8, 8), shard=(rank, 2))
                for rank in range(2)]
    for epoch in range(3):
        orders = []
        for data in shards(True):
            [batch] = data.batches(100, epoch)
            order = data.plan(epoch)[0]
            assert len(batch.images) == data.data_size == 68
            assert (batch.labels.argmax(1) == data.labels[order]).all()
            assert (batch.images[5] == load_image(data.paths[order[5]], (8, 8))).all()
            orders.append(order)
        seen = np.bincount(np.concatenate(orders))
        assert len(seen) == 135 and sorted(seen)[:-1] == [1] * 134 and seen.max() == 2
        assert (np.argsort(orders[0]) != np.argsort(orders[1])).any()
    assert [data.plan(0)[0].tolist() for data in shards(False)] == [
        list(range(0, 135, 2)), list(range(1, 135, 2))]
    with pytest.raises(InputError, match='135 pictures are too few for 136 workers'):
        ImageDataGenerator(TRAIN, nb_classes=3, shard=(0, 136))
