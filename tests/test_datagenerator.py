import os

import cv2
import numpy as np
import pytest

import datagenerator
from datagenerator import (ImageDataGenerator, load_image, read_class_names,
                          read_command_line)
from golden import HERE

MEAN = np.float32([104, 117, 124])
TRAIN = os.path.join(os.path.dirname(HERE), 'images', 'train.txt')


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


def faults(tmp_path, text, **kwargs):
    with pytest.raises(ValueError) as error:
        ImageDataGenerator(write_list(tmp_path, text), **kwargs)
    assert 'list.txt' in str(error.value)
    return str(error.value)


def picture():
    small = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
    return cv2.resize(small, (90, 60))


@pytest.mark.parametrize('name, pixels, expected', [
    ('colour.png', picture(), picture()),
    ('rgba.png', np.dstack([picture(), picture()[..., 0]]), picture()),
    ('grey.png', picture()[..., 0], np.dstack([picture()[..., 0]] * 3)),
    ('deep.png', picture().astype(np.uint16) * 257, picture()),
    ('deep_grey.png', picture()[..., 1].astype(np.uint16) * 257,
     np.dstack([picture()[..., 1]] * 3)),
    ('deep.tif', picture().astype(np.uint16) * 257, picture()),
])
def test_every_kind_of_picture_becomes_bgr(tmp_path, name, pixels, expected):
    path = str(tmp_path / name)
    cv2.imwrite(path, pixels)
    image = load_image(path, (90, 60))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, expected - MEAN)
    assert load_image(path).shape == (227, 227, 3)


def test_animation_gives_its_first_frame(tmp_path):
    frames = cv2.Animation()
    frames.frames = [np.full((20, 30, 3), value, np.uint8) for value in (250, 10)]
    frames.durations = [100, 100]
    cv2.imwriteanimation(str(tmp_path / 'moving.gif'), frames)
    image = load_image(str(tmp_path / 'moving.gif'), (30, 20))
    assert image.shape == (20, 30, 3)
    assert (image + MEAN).mean() > 200  # GIF has few colours, so not exactly 250


def test_bad_pictures_are_errors_that_name_the_path(tmp_path):
    cv2.imwrite(str(tmp_path / 'whole.jpg'), picture())
    whole = (tmp_path / 'whole.jpg').read_bytes()
    for name, content, complaint in [('empty.jpg', b'', 'empty file'),
                                     ('text.jpg', b'no picture', 'not a picture'),
                                     ('cut.jpg', whole[:-99], 'not a picture')]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match='%s: %s' % (name, complaint)):
            load_image(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match='none.jpg'):
        load_image(str(tmp_path / 'none.jpg'))


def test_an_epoch_gives_every_sample_once_and_its_last_batch_is_the_remainder(tmp_path):
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
        with pytest.raises(ValueError, match='batch_size is 0'):
            generator.next_batch(0)
        with pytest.raises(IndexError, match='epoch %d of .*list.txt' % epoch):
            generator.next_batch(4)
        generator.reset_pointer()
    assert orders[0] != orders[1] != orders[2]


def test_order_and_mirroring_depend_on_seed_and_epoch_alone():
    def epoch(seed, number, batch_sizes, before=()):
        generator = ImageDataGenerator(TRAIN, horizontal_flip=True, shuffle=True,
                                       nb_classes=3, scale_size=(24, 24), seed=seed)
        for other in before:
            generator.reset_pointer(other)
            generator.next_batch(7)
        generator.reset_pointer(number)
        return np.concatenate([generator.next_batch(size)[0] for size in batch_sizes])

    reference = epoch(1, 5, [50, 50, 35])
    assert (epoch(1, 5, [135], before=[2, 9]) == reference).all()
    assert (epoch(1, 5, [1, 100, 50]) == reference).all()
    assert (epoch(2, 5, [135]) != reference).any()
    assert (epoch(1, 6, [135]) != reference).any()


def test_about_half_the_pictures_are_mirrored_and_all_without_shuffling_in_order():
    generators = [ImageDataGenerator(TRAIN, nb_classes=3, horizontal_flip=flip)
                  for flip in (False, True)]
    (plain, _), (flipped, _) = [generator.next_batch(135) for generator in generators]
    assert (plain[0] == load_image(generators[0].paths[0])).all()
    mirrored = [(image != original).any()
                for image, original in zip(flipped, plain)]
    for image, original, turned in zip(flipped, plain, mirrored):
        assert (image == (original[:, ::-1] if turned else original)).all()
    assert 45 < sum(mirrored) < 90


def test_list_syntax(tmp_path):
    colours(tmp_path, 1)
    (tmp_path / 'with space').mkdir()
    for name in ['my photo.png', 'ümläut.png', os.path.join('with space', 'a.png')]:
        (tmp_path / name).write_bytes((tmp_path / '0.png').read_bytes())
    text = ('# a comment\r\n0.png 0\r\n\r\n  my photo.png \t 1 \nümläut.png 1\n'
            'with space/a.png 0\n%s 1' % (tmp_path / 'my photo.png'))
    for encoding in ['utf-8', 'utf-8-sig']:
        generator = ImageDataGenerator(write_list(tmp_path, text, encoding))
        assert [os.path.relpath(path, str(tmp_path)) for path in generator.paths] == [
            '0.png', 'my photo.png', 'ümläut.png', 'with space/a.png', 'my photo.png']
        assert list(generator.labels) == [0, 1, 1, 0, 1]
        assert list(generator.line_numbers) == [2, 4, 5, 6, 7]
        assert generator.next_batch(9)[0].shape == (5, 227, 227, 3)


def test_all_faults_of_a_list_are_reported_together(tmp_path):
    colours(tmp_path, 2)
    message = faults(tmp_path, '0.png 0\nnone.png 0\n1.png\n1.png one\n1.png 2\n'
                               '1.png -1\n1.png 0.5\n./0.png 1\nnone.png 7\n')
    for expected in ['line 2: no such file: ' + str(tmp_path / 'none.png'),
                     "line 3: no label behind '1.png'",
                     "line 4: label 'one' is not an integer",
                     'line 5: label 2 is not in 0..1',
                     'line 6: label -1 is not in 0..1',
                     "line 7: label '0.5' is not an integer",
                     'line 8: label 1, but label 0 in an earlier line: '
                     + os.path.join(str(tmp_path), './0.png'),
                     'line 9: label 7 is not in 0..1',
                     'line 9: no such file: ' + str(tmp_path / 'none.png')]:
        assert expected in message
    assert 'line 1:' not in message and 'start at 0' not in message


def test_list_of_labels_from_1_gets_a_hint(tmp_path):
    colours(tmp_path, 2)
    message = faults(tmp_path, '0.png 1\n1.png 2\n')
    assert 'line 2: label 2 is not in 0..1' in message
    assert 'labels run 1..2, but labels start at 0' in message


def test_empty_and_missing_lists_are_errors(tmp_path):
    assert 'no samples' in faults(tmp_path, '')
    assert 'no samples' in faults(tmp_path, '# nothing\n\n')
    with pytest.raises(FileNotFoundError, match='none.txt'):
        ImageDataGenerator(str(tmp_path / 'none.txt'))


def test_many_faults_are_cut_at_20(tmp_path):
    message = faults(tmp_path, 'none.png 0\n' * 50)
    assert 'line 20:' in message and 'line 21:' not in message
    assert 'and 30 more' in message


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(b'caf\xe9.png 0\n')
    with pytest.raises(ValueError, match='list.txt(.|\n)*line 1: .*0xe9'):
        ImageDataGenerator(str(path))


def test_class_names_are_one_to_a_line(tmp_path):
    path = write_list(tmp_path, '\ufeffcat\r\n grey dog \r\ncat\r\n\r\n')
    assert read_class_names(path, 3) == ['cat', 'grey dog', 'cat']
    with pytest.raises(ValueError, match='list.txt: names 3 classes, but num_classes'):
        read_class_names(path, 2)
    with pytest.raises(ValueError, match='list.txt, line 2: no name'):
        read_class_names(write_list(tmp_path, 'cat\n \ndog\n'), 3)


def test_good_pictures_are_remembered_and_bad_ones_are_not(tmp_path, monkeypatch):
    names, _ = colours(tmp_path, 3)
    generator = ImageDataGenerator(write_list(tmp_path, ''.join(
        name + ' 0\n' for name in names)))
    asked = []

    def refuse(path):
        asked.append(path)
        return 'no permission' if path.endswith('1.png') else None
    monkeypatch.setattr(datagenerator, 'find_fault', refuse)
    for paths in (generator.paths, [generator.paths[1]]):
        assert generator.find_bad_images() == {1: 'no permission'}
        assert sorted(asked) == paths
        asked.clear()
    monkeypatch.undo()
    assert generator.find_bad_images() == {}
    monkeypatch.setattr(datagenerator, 'find_fault', refuse)
    assert generator.find_bad_images() == {} and not asked
    os.utime(generator.paths[0])
    assert generator.find_bad_images() == {1: 'no permission'} and len(asked) == 3


def test_decoding_error_reaches_the_caller_with_list_line_and_path(tmp_path):
    names, _ = colours(tmp_path, 6)
    (tmp_path / '4.png').write_bytes(b'no picture')
    generator = ImageDataGenerator(
        write_list(tmp_path, '\n'.join(name + ' 0' for name in names)))
    assert len(generator.next_batch(3)[0]) == 3
    with pytest.raises(ValueError, match='list.txt, line 5: .*4.png: not a picture'):
        generator.next_batch(3)


SETTINGS = {'train_file': 'a.txt', 'num_epochs': 10, 'learning_rate': 0.1,
            'horizontal_flip': True, 'train_layers': ['fc8'], 'skip_layers': None,
            'weights_path': 'DEFAULT', 'os': os, '_hidden': 1, 'CONSTANT': 2}


@pytest.mark.parametrize('argument, changed', [
    ('--num_epochs=3', {'num_epochs': 3}),
    ('--learning_rate=1e-3', {'learning_rate': 0.001}),
    ('--learning_rate=1', {'learning_rate': 1}),
    ('--horizontal_flip=False', {'horizontal_flip': False}),
    ("--train_layers=['fc7', 'fc8']", {'train_layers': ['fc7', 'fc8']}),
    ('--skip_layers=[]', {'skip_layers': []}),
    ('--train_file=my photos/b=1.txt', {'train_file': 'my photos/b=1.txt'}),
    ("--train_file='b.txt'", {'train_file': 'b.txt'}),
    ('--train_file=12', {'train_file': '12'}),
    ('--train_file=None', {'train_file': 'None'}),
    ('--skip_layers=None', {'skip_layers': None}),
    ('--weights_path=None', {'weights_path': None}),
    ('--weights_path=w.npy', {'weights_path': 'w.npy'}),
])
def test_settings_are_read_as_literals(argument, changed):
    assert read_command_line(SETTINGS, [argument]) == changed


@pytest.mark.parametrize('argument', [
    '--epochs=3', 'num_epochs=3', '--num_epochs', '--num_epochs=', '--num_epochs=3.5',
    '--num_epochs=many', '--num_epochs=True', '--horizontal_flip=1',
    '--train_layers=fc8',
    "--train_layers='fc8'", '--learning_rate=None', '--os=1', '--_hidden=2',
    '--CONSTANT=3', "--num_epochs=__import__('os').getpid()",
])
def test_wrong_settings_are_errors_that_list_the_names(argument):
    with pytest.raises(ValueError) as error:
        read_command_line(SETTINGS, [argument])
    assert argument in str(error.value)
    assert 'train_file, num_epochs, learning_rate' in str(error.value)
    assert 'CONSTANT,' not in str(error.value)
