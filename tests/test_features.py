import math
import os
import tempfile
import threading

import cv2
import numpy as np
import pytest

import datagenerator
from alexnet import AlexNet
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import (IS_OLD, KEY, ROOT, checkpoint_of, finetune, make_narrow, same,
                     tensors)
from machinery import features, passes
from machinery.batches import checked_batches
from machinery.errors import InputError
from machinery.features import Features, open_features
from machinery.frozen import FrozenLayers
from machinery.store import Store
from machinery.tf1 import ROWS, tf

TRAIN = os.path.join(ROOT, 'images', 'train.txt')
SHAPE = (8, 8, 3)  # of a row of features below
PASS = 50


def pictures(**kwargs):
    return ImageDataGenerator(TRAIN, nb_classes=3, horizontal_flip=True, shuffle=True,
                              scale_size=(8, 8), **kwargs)


class Forward:
    """A forward pass that counts; its features are the images times 2.

    A pass of one image is the check of a stored one.
    """

    def __init__(self):
        self.passes, self.rows, self.checks = 0, 0, 0

    def __call__(self, images):
        assert images.dtype == np.uint8
        if len(images) == 1:
            self.checks += 1
        else:
            assert len(images) == PASS
            self.passes += 1
            self.rows += int(images.any((1, 2, 3)).sum())
        return np.float32(images) * 2


def stored(data, forward, folder=None, shape=SHAPE):
    """Return Features that are stored in a folder, or in files without a name."""
    store = Store(shape, folder and str(folder), KEY)
    return open_features([data], forward, store)[0]


def run_epoch(source, epoch, start=0, batch_size=50):
    """Return the images or features, and the labels, of an epoch."""
    found = list(source.batches(batch_size, epoch, start))
    assert [batch.end for batch in found] == [
        min(end, source.data_size) for end in range(
            start + batch_size, source.data_size + batch_size, batch_size)]
    return [np.concatenate(arrays) for arrays in list(zip(*found))[:2]]


@pytest.fixture(autouse=True)
def size_of_passes(monkeypatch):
    monkeypatch.setattr(features, 'find_pass_size', lambda: PASS)


@pytest.fixture
def decoded(monkeypatch):
    """The paths of all pictures decoded from now on."""
    paths, load_image = [], datagenerator.load_image

    def counting(path, **preprocessing):
        paths.append(path)
        return load_image(path, **preprocessing)
    monkeypatch.setattr(datagenerator, 'load_image', counting)
    return paths


@pytest.mark.parametrize('is_kept', [True, False])
def test_features_are_right_and_computed_once(tmp_path, decoded, monkeypatch, is_kept):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    forward, plain = Forward(), pictures()
    features = stored(pictures(), forward, is_kept and tmp_path)
    assert features.data_size == 135
    keys, passes = set(), 0
    for epoch in range(6):
        found, labels = run_epoch(features, epoch)
        images, same_labels = run_epoch(plain, epoch)
        assert (found == np.float32(images) * 2).all() and (labels == same_labels).all()
        before = len(keys)
        order, mirrored, _ = plain.plan(epoch)
        keys |= {(sample, mirrored[sample]) for sample in order}
        passes += math.ceil((len(keys) - before) / PASS)
        assert forward.passes == passes
    assert forward.rows == len(keys) > 135 and passes < 3 + 2 + 5
    assert len(decoded) == 6 * 135 + len(keys) + forward.checks
    assert forward.checks == 5
    # A file without a name vanishes with the process.
    assert len(os.listdir(str(tmp_path))) == is_kept


def test_without_a_store_features_are_computed_every_time(decoded):
    forward = Forward()
    features = Features(pictures(), forward)
    for epoch in range(3):
        found, _ = run_epoch(features, epoch, batch_size=16)  # passes span batches
        assert (found == np.float32(run_epoch(pictures(), epoch)[0]) * 2).all()
    assert forward.passes == 9 and not forward.checks and len(decoded) == 6 * 135


def test_what_a_resumed_epoch_misses_is_computed_alone():
    whole, resumed = [stored(pictures(), Forward()) for _ in range(2)]
    expected, _ = run_epoch(whole, 4)
    assert (run_epoch(resumed, 4, start=100)[0] == expected[100:]).all()
    assert resumed._forward.passes == 1


def changed(image, rng):
    """A user's own change of pictures at random, of every other one."""
    return image if image[0, 0, 0] % 2 else image * rng.uniform(0.5, 1.5)


def test_pictures_changed_at_random_are_drawn_again_in_each_epoch(capsys):
    features, again = [stored(ImageDataGenerator(
        TRAIN, nb_classes=3, scale_size=(8, 8), augment=changed), Forward())
        for _ in range(2)]
    epochs = np.array([run_epoch(features, epoch)[0] for epoch in range(3)])
    is_changed = (epochs[0] != epochs[1]).any((1, 2, 3))
    assert 10 < is_changed.sum() < 125
    assert ((epochs[1] != epochs[2]).any((1, 2, 3)) == is_changed).all()
    assert features._forward.rows == 3 * 135
    # A function of seed, epoch and sample, whatever came before.
    assert (run_epoch(again, 2)[0] == epochs[2]).all()
    assert capsys.readouterr().out.count('their features are not stored\n') == 2


def test_augmented_images_are_rounded_and_clipped_or_refused():
    def first(augment):
        data = ImageDataGenerator(TRAIN, nb_classes=3, scale_size=(8, 8),
                                  augment=augment)
        return next(data.batches(1)).images[0]
    plain = first(None)
    assert plain.dtype == first(lambda image, rng: image).dtype == np.uint8
    assert (first(lambda image, rng: image + 0.7) == np.minimum(plain, 254) + 1).all()
    assert (first(lambda image, rng: -image) == 0).all()
    for wrong in (lambda image, rng: image[1:], lambda image, rng: image * np.nan):
        with pytest.raises(ValueError, match='augment must return finite numbers of'):
            first(wrong)


def test_a_change_that_the_plan_does_not_know_of_ends_the_run():
    """Images that a subclass changes at random."""
    rng = np.random.RandomState(0)

    class Noisy(ImageDataGenerator):
        def load(self, sample, epoch, is_mirrored):
            # In the second epoch clearly brighter: equal draws would be no change.
            factor = rng.uniform(0.5, 0.6) + 0.3 * epoch
            return np.uint8(super().load(sample, epoch, is_mirrored) * factor)

    features = stored(Noisy(TRAIN, nb_classes=3, scale_size=(8, 8)), Forward())
    run_epoch(features, 0)
    with pytest.raises(InputError, match='Something changes at random'):
        run_epoch(features, 1)


def test_a_change_in_the_graph_is_not_passed_over():
    """A script's own operations between the placeholder and the network."""
    x = tf.placeholder(tf.uint8, [None, 8, 8, 3])
    output = tf.cast(x, tf.float32) * tf.random.uniform(tf.shape(x), 1, 2)
    with tf.Session() as session:
        def forward(images):
            return session.run(output, {x: images})
        first, second = [run_epoch(Features(pictures(), forward), 0)[0]
                         for _ in range(2)]
        assert (first != second).any()
        features = stored(pictures(), forward)
        run_epoch(features, 0)
        with pytest.raises(InputError, match='Something changes at random, in'):
            run_epoch(features, 0)


def test_labels_of_a_subclass_are_used_or_refused():
    class Smooth(ImageDataGenerator):
        def batches(self, *args, **kwargs):
            for batch in super().batches(*args, **kwargs):
                yield batch._replace(labels=0.9 * batch.labels + 0.05)

    data = Smooth(TRAIN, nb_classes=3, scale_size=(8, 8))
    features = Features(data, Forward())
    assert run_epoch(features, 0)[1].max() == np.float32(0.95)
    with pytest.raises(InputError, match='Smooth overrides batches, which is not call'):
        run_epoch(stored(data, Forward()), 0)


@pytest.mark.parametrize('augment', [None, changed])
def test_order_of_a_subclass_is_used(augment):
    """Balancing, for example: the samples of class 0 three times."""
    class Balanced(ImageDataGenerator):
        def plan(self, epoch):
            order, *rest = super().plan(epoch)
            return (np.repeat(order, np.where(self.labels[order] == 0, 3, 1)), *rest)

        data_size = 225

    data = Balanced(TRAIN, True, True, nb_classes=3, scale_size=(8, 8), augment=augment)
    features = stored(data, Forward())
    for epoch in range(3):
        (found, labels), (images, _) = [run_epoch(source, epoch)
                                        for source in (features, data)]
        assert labels.sum(0).tolist() == [135, 45, 45]
        assert (found == np.float32(images) * 2).all()


def test_the_same_unchanged_pictures_are_scored_in_every_run(monkeypatch):
    """Whatever changes the training pictures; shared among the workers."""
    class Own(ImageDataGenerator):
        def plan(self, epoch):
            order, mirrored, is_random = super().plan(epoch)
            return np.repeat(order, 2), ~mirrored, is_random

        data_size = 270

        def load(self, *args):
            return super().load(*args) // 2

    def scored(data, is_stored=True):
        make = stored if is_stored else Features
        subset = make(data, Forward()).select_unchanged()
        for _ in range(2):
            found, labels = run_epoch(subset, 0)
            order = subset.data.samples
            assert subset.data_size == len(found) == len(order)
            assert (labels.argmax(1) == data.labels[order]).all()
            plain = [load_image(data.paths[sample], (8, 8)) for sample in order]
            yield order.tolist(), (found / 2 == np.stack(plain)).mean()

    everything, share = next(scored(pictures()))
    assert sorted(everything) == list(range(135)) and share == 1
    monkeypatch.setattr(features, 'SAMPLE_SIZE', 101)
    chosen = everything[:101]
    assert list(scored(pictures(seed=7, augment=changed))) == 2 * [(chosen, 1)]
    assert list(scored(pictures(seed=7), False)) == 2 * [(chosen, 1)]
    shares = [next(scored(pictures(shard=(rank, 2))))[0] for rank in range(2)]
    assert shares == [chosen[::2], chosen[1::2]]
    own = Own(TRAIN, True, True, nb_classes=3, scale_size=(8, 8))
    (order, _), _ = scored(own)
    assert order == chosen
    crop = Features(pictures(margin=4, random_crop=True),
                    Forward()).select_unchanged()
    expected = load_image(crop.data.paths[chosen[5]], (8, 8), margin=4)
    assert (run_epoch(crop, 0)[0][5] == np.float32(expected) * 2).all()


@pytest.mark.parametrize('name', ['next_batch', 'reset_pointer'])
def test_methods_that_would_not_be_called_may_not_be_overridden(name):
    override = type('Mine', (ImageDataGenerator,), {
        name: lambda self, *args: getattr(super(override, self), name)(*args)})
    data = override(TRAIN, nb_classes=3)
    assert data.next_batch(1)
    with pytest.raises(InputError, match='Mine overrides %s, which is not' % name):
        data.batches(1)


def test_a_mean_of_its_own_is_for_next_batch_alone():
    data = ImageDataGenerator(TRAIN, nb_classes=3, mean=[1, 2, 3])
    plain = load_image(data.paths[0])
    assert (data.next_batch(1)[0][0] == plain - np.float32([1, 2, 3])).all()
    with pytest.raises(InputError, match=r'mean = \[1, 2, 3\] is for next_batch alone'):
        data.batches(1)


def test_images_that_are_not_bytes_are_refused():
    class Float(ImageDataGenerator):
        def load(self, *args):
            return np.float32(super().load(*args))

    data = Float(TRAIN, nb_classes=3, scale_size=(8, 8))
    with pytest.raises(InputError, match='images are float32, must be uint8'):
        run_epoch(Features(data, Forward()), 0)


def test_samples_are_dropped_by_their_numbers():
    data = pictures()
    data.drop([0, 134])
    assert data.data_size == 133 and data.line_numbers[0] == 2
    for wrong in ([133], [-1], data.labels == 0, ['a']):
        with pytest.raises(InputError, match='drop takes numbers of samples, from'):
            data.drop(wrong)
    assert data.data_size == 133


def test_next_batch_goes_on_after_a_bad_one(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3)))
    (tmp_path / 'b.png').write_bytes(b'no picture')
    (tmp_path / 'list.txt').write_text('a.png 0\nb.png 0\na.png 0\n')
    data = ImageDataGenerator(str(tmp_path / 'list.txt'))
    assert len(data.next_batch(1)[0]) == 1
    with pytest.raises(InputError, match='line 2'):
        data.next_batch(1)
    assert data.next_batch(1)[1].tolist() == [[1, 0]]


IMAGES = np.zeros((2, 227, 227, 3), np.uint8)


class Mine:
    """Batches of one's own."""
    paths = ['mine']  # an attribute of its own, which means nothing to us
    data_size = 5

    def __init__(self, image=IMAGES, label=np.eye(2)):
        self.batch = image, label

    def batches(self, batch_size, epoch=0, start=0):
        for first in range(start, 4, 2):
            yield self.batch


@pytest.mark.parametrize('data, complaint', [
    (Mine(), 'Mine ends after 4 of data_size = 5 samples'),
    (Mine(np.float64(IMAGES)), 'images are float64, must be uint8'),
    (Mine(label=np.array([0, 1])), r'After 0 of 5 samples, batches\(\) of Mine yields'),
    (Mine(IMAGES[:, :100]), r'images \(2, 100, 227, 3\) and labels \(2, 2\); expected'),
    (Mine(label=np.eye(3)), r'labels \(3, 3\); expected \(n, 227, 227, 3\) and'),
    (Mine(IMAGES[[0, 0, 0]], np.eye(3)), 'yields more than data_size')])
def test_wrong_batches_of_ones_own_are_named(data, complaint):
    with pytest.raises(InputError, match=complaint):
        list(Features(data, lambda images: images).batches(2))
    assert next(checked_batches(Mine(), 2, 0, 2)).end == 4


def test_features_do_not_depend_on_the_place_in_a_pass():
    """Or else a resumed run, which has other passes, would end with other weights."""
    images = np.random.RandomState(0).randint(0, 256, (ROWS, 227, 227, 3), np.uint8)
    x = tf.placeholder(tf.uint8, [None, 227, 227, 3])
    fc7 = AlexNet(normalize(x), 1., 3, [], None).fc7
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        found = session.run(fc7, {x: images})
        for shift in (1, 5):
            moved = session.run(fc7, {x: np.roll(images, shift, 0)})
            assert np.array_equal(np.roll(moved, -shift, 0), found)


def test_an_abandoned_generator_stops_its_threads():
    before = threading.active_count()
    batches = stored(pictures(), Forward()).batches(50)
    next(batches)
    assert threading.active_count() > before
    del batches
    assert threading.active_count() <= before


def test_random_crops_are_those_of_the_paper():
    path = ImageDataGenerator(TRAIN, nb_classes=3).paths[0]
    large = load_image(path, (256, 256))
    assert (load_image(path, margin=29) == large[14:241, 14:241]).all()
    train = ImageDataGenerator(TRAIN, True, nb_classes=3, margin=29, random_crop=True)
    val = ImageDataGenerator(TRAIN, nb_classes=3, margin=29)
    assert (next(val.batches(1)).images[0] == large[14:241, 14:241]).all()
    found = set()
    for epoch in range(20):
        [image] = next(train.batches_of(np.array([0]), 1, epoch)).images
        [(left, top, step)] = [
            (left, top, step) for left in range(30) for top in range(30)
            for step in (1, -1)
            if (large[top, left:left + 227][::step] == image[0]).all()]
        assert (large[top:top + 227, left:left + 227][:, ::step] == image).all()
        found.add((left, top, step))
    assert len(found) > 15 and {step for _, _, step in found} == {1, -1}


def test_decoding_error_reaches_the_caller(tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'no picture')
    (tmp_path / 'list.txt').write_text('bad.png 0\n')
    data = ImageDataGenerator(str(tmp_path / 'list.txt'))
    with pytest.raises(InputError, match='list.txt, line 1: .*bad.png: not a picture'):
        next(stored(data, Forward()).batches(50))


def test_pictures_that_vanish_are_left_out_on_demand(tmp_path, capsys):
    for number in range(10):
        cv2.imwrite(str(tmp_path / ('%d.png' % number)), np.full((8, 8, 3), number))
    (tmp_path / 'list.txt').write_text(
        ''.join('%d.png %d\n' % (number, number % 2) for number in range(10)))
    data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=(8, 8),
                              leave_out_bad=True)
    features = stored(data, lambda images: np.float32(images[:, 0, 0, :1]), shape=[1])

    def numbers(epoch):
        found, labels = run_epoch(features, epoch, batch_size=4)
        assert list(labels.argmax(1)) == list(found[:, 0] % 2)
        return list(found[:, 0])
    (tmp_path / '2.png').unlink()
    assert numbers(0) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    for number in range(4, 10):  # all that is stored is given all the same
        (tmp_path / ('%d.png' % number)).unlink()
    for epoch in range(1, 9):
        assert numbers(epoch) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    told = capsys.readouterr().err
    assert told.count('skipped') == told.count('list.txt, line 3: ') == 9
    (tmp_path / '3.png').unlink()
    batches = stored(data, features._forward, shape=[1]).batches(4, 2)
    assert len(next(batches).images) == 2
    empty = next(batches)  # the run ends, but predictions go on
    assert len(empty.images) == len(empty.samples) == 0 and empty.end == 8


@pytest.mark.parametrize('layers', ["['fc8','fc7']"])
def test_a_second_run_computes_nothing_and_ends_as_one_that_stores_nothing(
        tmp_path, narrow_file, layers, monkeypatch):
    counts, found = [], []

    def counting(forward, images, size):
        counts[-1] += len(images)
        return passes.compute(forward, images, size)
    monkeypatch.setattr(features, 'compute', counting)
    make_narrow(monkeypatch.setattr)
    for name, cached, rate in [('first', True, 0.001), ('second', True, 0.003),
                               ('uncached', False, 0.003)]:
        folder = str(tmp_path / name)
        counts.append(0)
        status, output = finetune(
            folder, '--cache_features=%s' % cached, '--train_layers=' + layers,
            '--train_file=images/val.txt', '--val_file=images/test.txt',
            '--num_epochs=3', '--batch_size=32', '--weights_path=' + narrow_file,
            '--learning_rate=%s' % rate, '--features_path=%s' % (tmp_path / 'features'),
            draws=True)
        assert status == 0, output
        found.append(tensors(checkpoint_of(folder, 3)))
    first, cached, uncached = found
    # Eight of each list at the start; one in each epoch of three kinds of pictures
    # (training, validation, unchanged), and one for the projector.
    assert counts[0] > 100 and counts[1] == 2 * 8 + 3 * 3 + 1
    assert not same(first, cached)
    assert set(cached) == set(uncached)
    for name in cached:
        [one], [other] = cached[name], uncached[name]
        if IS_OLD:
            np.testing.assert_allclose(one, other, err_msg=name,
                                       atol=1e-6 * np.abs(other).max())
        else:
            assert (one == other).all(), name


def test_if_no_layer_is_frozen_pictures_are_the_features():
    placeholder = tf.placeholder(tf.uint8, [None, 8, 8, 3])
    images = next(pictures().batches(4)).images
    with tf.Session() as session:
        frozen = FrozenLayers(session, placeholder, placeholder, {}, {})
        assert (frozen(images) == images).all()
        assert frozen.open_store(None, 0, load_image) is None


def test_next_batch_is_made_during_a_step():
    is_made, made = threading.Event(), []

    def batches():
        try:
            for number in range(3):
                made.append(number)
                if number == 1:
                    is_made.set()
                yield number
        finally:
            made.append('closed')

    ahead = passes.one_ahead(batches())
    assert next(ahead) == 0 and is_made.wait(10)  # nobody has asked for it so far
    ahead.close()
    assert made == [0, 1, 'closed']
    assert list(passes.one_ahead(batches())) == [0, 1, 2]


def test_error_in_the_thread_reaches_the_loop():
    def batches():
        yield 1
        raise InputError('a picture is gone')

    ahead = passes.one_ahead(batches())
    assert next(ahead) == 1
    with pytest.raises(InputError, match='a picture is gone'):
        next(ahead)


def test_features_are_right_if_the_loop_evaluates_within_an_epoch(tmp_path):
    data = pictures()
    features = stored(data, Forward(), tmp_path)
    for number, batch in enumerate(features.batches(20)):
        if number % 2:
            for other in features.batches(30, epoch=1):
                _, mirrored, _ = data.plan(1)
                for sample, row in zip(other.samples, other.images):
                    image = data.load(sample, 1, mirrored[sample])
                    assert (row == np.float32(image) * 2).all()
