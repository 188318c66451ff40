import glob
import html
import os
import re
import sys
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tensorboard import plugin_util

from machinery.batches import Batch
from machinery.drawings import (count_confusions, draw_batch, draw_confusions,
                                draw_filters, draw_mistakes, draw_scatter,
                                select_features, write_projector)
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.summaries import Summaries, list_mistakes
from machinery.tf1 import tf


def decode(picture):
    return cv2.imdecode(np.frombuffer(picture, np.uint8), 1).astype(int)


class Pictures:
    """A blue, a green and a red image; the others cannot be read."""

    def __init__(self, count):
        self.paths = ['%d.jpg' % sample for sample in range(count)]
        self.labels = np.arange(count)

    def load(self, sample):
        if sample > 2:
            raise InputError('gone')
        return np.full((227, 227, 3), 255 * np.eye(3)[sample], np.uint8)


def values_of(labels, predicted, losses):
    return {'true': np.array(labels), 'predicted': np.array(predicted),
            'probability': np.ones(len(labels)), 'cross_entropy': np.float32(losses)}


def mistakes(labels, predicted, losses, look=None):
    """Return the drawing of predictions."""
    return draw_mistakes(Pictures(len(labels)), values_of(labels, predicted, losses),
                         OneClass(['no', 'yes']), look)


def test_worst_mistakes_come_in_the_order_of_their_losses():
    drawing = decode(mistakes([0, 0, 1, 1], [1, 0, 0, 0], [1, 9, 2, 3]))
    height = drawing.shape[0] // 2
    blue, green, red = [
        np.argwhere(drawing[:, :, channel] - drawing.sum(2) / 3 > 100)
        for channel in range(3)]
    assert len(green) == 0  # the right one
    # The first is unreadable, the next is beside it, the third is below.
    assert red[:, 1].min() > 240 and red[:, 0].max() < height
    assert blue[:, 1].max() < 240 and blue[:, 0].min() > height


def test_heat_maps_stand_beside_the_eight_worst_mistakes():
    seen = []

    def look(images):
        seen.extend(images)
        return [255 - image for image in images]
    drawing = decode(mistakes(9 * [0], 9 * [1], range(9, 0, -1), look))
    assert len(seen) == 8 and drawing.shape[0] > 4 * 250  # two in a row
    blue, yellow = drawing[100, 100], drawing[100, 340]
    assert blue.argmax() == 0 and yellow.argmin() == 0
    is_text = (drawing[235:340].min(2) < 100).any(0)
    # Under the picture and its map, up to the next picture.
    assert is_text[:240].any() and is_text[240:480].any() and not is_text[470:486].any()


def test_paths_of_the_worst_mistakes_are_a_table_whatever_is_in_them():
    data = Pictures(3)
    data.paths = ['/a|b/`_c_`*<i>&#33;\n\udcff.jpg', '/right.jpg', '/worst ü.jpg']
    text = list_mistakes(data, values_of([0, 1, 1], [1, 1, 0], [1, 9, 2]),
                         OneClass(['n|o', '[y](e)s']))
    shown = re.findall('<td>(.*?)</td>', plugin_util.markdown_to_safe_html(text))
    assert list(map(html.unescape, shown)) == [
        '2.0000', '[y](e)s', 'n|o, 1.00', '/worst ü.jpg',
        '1.0000', 'n|o', '[y](e)s, 1.00', '/a|b/`_c_`*<i>&#33;\\n\\xff.jpg']
    assert list_mistakes(data, values_of([0], [0], [1]), OneClass(['a', 'b'])) is None


def test_a_batch_shows_labels_and_names_of_files():
    def drawing(label, name):
        images = np.zeros((3, 227, 227, 3), np.uint8)  # a row
        batch = Batch(images, np.eye(2)[3 * [label]], np.zeros(3, int), 3)
        data = SimpleNamespace(plan=None, batches=lambda *args: iter([batch]),
                               paths=['folder/' + name])
        found = decode(draw_batch(data, OneClass(['brick', 'grass'])))[235:]
        return found.min(2) < 128

    def differ(left, right):
        return (left != right).any(1)

    one, other, third = drawing(0, 'a.jpg'), drawing(1, 'a.jpg'), drawing(0, 'b.jpg')
    label, name = differ(one, other), differ(one, third)
    assert label.any() and name.any() and np.flatnonzero(label).max() < (
        np.flatnonzero(name).min())


def test_no_mistakes_are_not_drawn():
    assert mistakes([0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]) is None


def test_most_confused_classes_keep_their_counts():
    rng = np.random.RandomState(0)
    labels, predicted = rng.randint(0, 50, (2, 3000))
    predicted[::2] = labels[::2]
    predicted[labels == 7] = labels[predicted == 9] = 7  # so it is right
    full = np.zeros((50, 50), int)
    for pair in zip(labels, predicted):
        full[pair] += 1
    wrong = full - np.diag(np.diag(full))
    num_mistakes = wrong.sum(0) + wrong.sum(1)
    classes, counts = count_confusions(labels, predicted, 50)
    assert len(classes) == 20 and (np.diff(classes) > 0).all()
    others = np.setdiff1d(range(50), classes)
    assert num_mistakes[classes].min() >= num_mistakes[others].max()
    assert (counts == full[np.ix_(classes, classes)]).all()


def test_confusion_matrix_has_true_classes_in_rows():
    drawing = decode(draw_confusions(np.array([0, 0]), np.array([1, 1]), ['a', 'b']))
    is_dark_blue = (drawing[:, :, 0] > 80) & (drawing[:, :, 2] < 50)
    row, column = np.argwhere(is_dark_blue).mean(0) / is_dark_blue.shape
    assert row < 0.5 and column > 0.5


@pytest.mark.parametrize('shape, width', [
    ((11, 11, 3, 96), 12 * 60), ((3, 3, 1, 5), 12 * 20), ((5, 5, 4, 12), None),
    ((100, 10), None)])
def test_filters_of_any_first_layer_are_drawn_or_left_out(shape, width):
    drawing = draw_filters(np.random.RandomState(0).standard_normal(shape))
    assert (drawing and decode(drawing).shape[1]) == width


def start_summaries(tmp_path):
    """Return those of a run whose log is in a folder with a name that is not UTF-8."""
    folder = str(tmp_path / 'l\udcff')
    filters = tf.get_variable('a/weights', [3, 3, 1, 5])
    model = SimpleNamespace(variables={'a': [filters]}, WEIGHTS_PATH=None,
                            SKIP_LAYER=[], train_layers=[])
    run = SimpleNamespace(folder=SimpleNamespace(log_path=folder), is_done=False,
                          workers=SimpleNamespace(is_chief=True),
                          settings={'train_file': folder})
    return Summaries(run, 0, model, None, OneClass('ab'))


def test_trouble_with_drawings_is_one_warning(tmp_path, capsys):
    """As without predictions; the others are drawn."""
    summaries = start_summaries(tmp_path)
    with tf.Session() as session:
        for _ in range(2):
            session.run(tf.global_variables_initializer())
            summaries.report('validation', 1, SimpleNamespace(
                data=None, is_stored=False), {'accuracy': 1.}, {})
    told = capsys.readouterr().out
    assert told.count('Warning: ') == 2 and 'without the picture batch: ' in told
    assert 'continues without the picture confusion_matrix: KeyError' in told
    [path] = map(os.fsencode, glob.glob('%s/*/validation/events*' % tmp_path))
    tags = [value.tag for event in tf.train.summary_iterator(path)
            for value in event.summary.value]
    assert tags == 2 * ['accuracy', 'a_filters']


def test_each_trouble_is_told_once(tmp_path, monkeypatch, capsys):
    """As with settings of matplotlib that it does not like."""
    summaries = start_summaries(tmp_path)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(2):
            summaries.report('test', 1, SimpleNamespace(
                data=Pictures(1), is_stored=False), {}, values_of([0], [1], [1]))
    told = capsys.readouterr().out
    assert told.count('matplotlib.figure') == 1 and 'Traceback' not in told


@pytest.mark.parametrize('count', [2, 20, 21000])
def test_charts_are_twice_as_wide_as_in_tensorboard(count):
    names = ['a class'] * count
    assert decode(draw_confusions([0], [count - 1], names)).shape == (700, 700, 3)
    numbers = np.zeros((5, min(count, 5)))
    assert decode(draw_scatter(numbers, numbers, names[:5])).shape[1] == 700


@pytest.mark.parametrize('names', [['x' * 500, '\u732b'], ['$5_$10', 'b']])
def test_names_of_any_kind_leave_room_for_the_confusion_matrix(names):
    def width(names):
        drawing = decode(draw_confusions([0], [0], names))
        return (drawing.min(2) < 200).any(0).sum()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert width(names) > 0.5 * width(['a', 'b'])


class Positions:
    """1200 samples, every other one of a list, whose features are their positions."""
    data_size = 1200
    data = Pictures(2400)

    def __init__(self, length):
        self.length = length

    def batches(self, batch_size):
        for start in range(0, 1200, batch_size):
            places = np.arange(start, min(start + batch_size, 1200))
            yield Batch(np.repeat(places[:, None, None], self.length, 2), None,
                        2 * places + 1, places[-1] + 1)


@pytest.mark.parametrize('length, stride', [(1, 3), (4096, 3), (10000, 6)])
def test_evenly_chosen_features_are_fewer_if_they_are_long(length, stride):
    samples, features = select_features(Positions(length), 128)
    assert list(samples) == list(range(1, 2400, 2 * stride))
    assert features.shape == (1200 / stride, length)
    assert list(features[:, -1]) == list(range(0, 1200, stride))


def test_projector_page_names_what_it_shows(tmp_path):
    tmp_path = tmp_path / 'l\udcff'  # at which cv2.imwrite would die
    tmp_path.mkdir()
    write_projector(str(tmp_path), Positions(1), 128,
                    OneClass('a\tclass%d' % sample for sample in range(2400)))
    assert list(np.loadtxt(str(tmp_path / 'features.tsv'))) == list(range(0, 1200, 3))
    lines = (tmp_path / 'pictures.tsv').read_text().splitlines()
    assert lines[0] == 'class\tpicture' and lines[400] == 'a\\tclass2395\t2395.jpg'
    thumbnails = decode((tmp_path / 'thumbnails.png').read_bytes())
    assert thumbnails.shape == (20 * 64, 20 * 64, 3)
    assert (thumbnails[:64, :64] == (0, 255, 0)).all()  # sample 1
    assert (thumbnails[:64, 64:] == 255).all()
