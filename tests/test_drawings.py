import glob
import os
import sys
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from machinery.batches import Batch
from machinery.drawings import (draw_confusions, draw_filters, draw_mistakes,
                                select_features, write_projector)
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.summaries import Summaries
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


def mistakes(labels, predicted, losses, look=None):
    """Return the drawing of predictions."""
    count = len(labels)
    return draw_mistakes(Pictures(count), {
        'true': np.array(labels), 'predicted': np.array(predicted),
        'probability': np.ones(count), 'cross_entropy': np.float32(losses)},
        OneClass(['no', 'yes']), look)


def test_worst_mistakes_come_in_the_order_of_their_losses():
    drawing = decode(mistakes([0, 0, 1, 1], [1, 0, 0, 0], [1, 9, 2, 3]))
    assert drawing.shape[0] < 330  # a single row
    blue, green, red = [
        np.argwhere(drawing[:, :, channel] - drawing.sum(2) / 3 > 100)[:, 1]
        for channel in range(3)]
    assert len(green) == 0  # the right one
    assert 240 < red.min() < red.max() < 480 < blue.min()  # the first is unreadable


def test_heat_maps_stand_beside_the_eight_worst_mistakes():
    seen = []

    def look(images):
        seen.extend(images)
        return [255 - image for image in images]
    drawing = decode(mistakes(9 * [0], 9 * [1], range(9, 0, -1), look))
    assert len(seen) == 8 and drawing.shape[0] > 4 * 250  # two in a row
    blue, yellow = drawing[100, 100], drawing[100, 340]
    assert blue.argmax() == 0 and yellow.argmin() == 0
    assert (drawing[245:].min(2) < 100)[:40, :240].any()  # a text under the picture,
    assert not (drawing[245:].min(2) < 100)[:40, 240:480].any()  # none under the map


def test_no_mistakes_are_not_drawn():
    assert mistakes([0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]) is None


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
            summaries.draw(1, SimpleNamespace(data=None, is_stored=False), 1, {})
    told = capsys.readouterr().out
    assert told.count('Warning: ') == 2 and 'without the picture batch: ' in told
    assert 'continues without the picture confusion_matrix: KeyError' in told
    [path] = map(os.fsencode, glob.glob('%s/*/validation/events*' % tmp_path))
    tags = [value.tag for event in tf.train.summary_iterator(path)
            for value in event.summary.value]
    assert tags == 2 * ['a_filters']
    summaries.finish()


def test_each_trouble_is_told_once(tmp_path, monkeypatch, capsys):
    """As with settings of matplotlib that it does not like."""
    summaries = start_summaries(tmp_path)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    values = {'true': np.array([0]), 'predicted': np.array([1]),
              'probability': np.ones(1), 'cross_entropy': np.ones(1)}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(2):
            summaries.draw(1, SimpleNamespace(data=Pictures(1), is_stored=False), 1,
                           values)
    told = capsys.readouterr().out
    assert told.count('matplotlib.figure') == 1 and 'Traceback' not in told


def test_too_many_classes_are_not_drawn():
    assert draw_confusions([0], [0], ['x'] * 1001) is None


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
