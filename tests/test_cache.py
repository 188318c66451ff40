import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import datagenerator
from datagenerator import ImageDataGenerator, load_image
from helpers import ROOT, finetune, tensors
from machinery import cache as cache_module
from machinery.cache import FeatureCache, cache_bottlenecks
from machinery.settings import InputError
from machinery.tf1 import tf

TRAIN = os.path.join(ROOT, 'images', 'train.txt')
ROW = 8 * 8 * 3 * 4  # bytes of a row of features below
DATA = 135 * ROW


def pictures():
    return ImageDataGenerator(TRAIN, nb_classes=3, horizontal_flip=True, shuffle=True,
                              scale_size=(8, 8))


class Forward:
    """A forward pass that counts; its features are the images times 2.

    A pass of one image is the check of a stored one.
    """

    def __init__(self):
        self.passes, self.rows, self.checks = 0, 0, 0

    def __call__(self, images):
        if len(images) == 1:
            self.checks += 1
        else:
            assert len(images) == 50  # padded to the batch size
            self.passes += 1
            self.rows += int(images.any((1, 2, 3)).sum())
        return images * 2


def run_epoch(cache, epoch, batch_size=50):
    """Return the features and the labels of an epoch."""
    cache.reset_pointer(epoch)
    batches = [cache.next_batch(batch_size)
               for _ in range(math.ceil(cache.data_size / batch_size))]
    return [np.concatenate(arrays) for arrays in zip(*batches)]


@pytest.fixture
def decoded(monkeypatch):
    """The paths of all pictures decoded from now on."""
    paths, load_image = [], datagenerator.load_image

    def counting(path, *args):
        paths.append(path)
        return load_image(path, *args)
    monkeypatch.setattr(datagenerator, 'load_image', counting)
    return paths


@pytest.mark.parametrize('memory', [2 * DATA, DATA, 10 * ROW, 0])
def test_features_are_right_and_computed_once(tmp_path, decoded, memory):
    forward, plain = Forward(), pictures()
    cache = FeatureCache(pictures(), forward, memory, str(tmp_path))
    assert cache.data_size == 135
    keys, passes = set(), 0
    for epoch in range(6):
        features, labels = run_epoch(cache, epoch)
        images, same_labels = run_epoch(plain, epoch)
        assert (features == images * 2).all() and (labels == same_labels).all()
        before = len(keys)
        keys |= {(sample, plain.variants[sample]) for sample in plain.order}
        passes += math.ceil((len(keys) - before) / 50)
        assert forward.passes == passes
    assert forward.rows == len(keys) > 135 and passes < 3 + 2 + 5
    assert len(decoded) == 6 * 135 + len(keys) + forward.checks
    assert forward.checks == 5
    assert os.listdir(str(tmp_path)) == []  # the file has no name, so nothing can stay


def test_disabled_cache_computes_every_time(tmp_path, decoded):
    forward = Forward()
    cache = FeatureCache(pictures(), forward, 2 * DATA, str(tmp_path), enabled=False)
    for epoch in range(3):
        run_epoch(cache, epoch)
    assert forward.passes == 9 and not forward.checks and len(decoded) == 3 * 135


def test_what_a_resumed_epoch_misses_is_computed_alone():
    whole, resumed = [FeatureCache(pictures(), Forward(), DATA) for _ in range(2)]
    expected, _ = run_epoch(whole, 4)
    resumed.reset_pointer(4, 100)
    assert (resumed.next_batch(50)[0] == expected[100:]).all()
    assert resumed._forward.passes == 1 and resumed.pointer == 135


def changed(image, rng):
    """A user's own change of pictures at random, of every other one."""
    return image if image[0, 0, 0] % 2 else image * rng.uniform(0.5, 1.5)


def test_pictures_changed_at_random_are_drawn_anew_in_each_epoch(capsys):
    cache, again = [FeatureCache(
        ImageDataGenerator(TRAIN, nb_classes=3, scale_size=(8, 8), augment=changed),
        Forward(), DATA) for _ in range(2)]
    epochs = np.array([run_epoch(cache, epoch)[0] for epoch in range(3)])
    is_changed = (epochs[0] != epochs[1]).any((1, 2, 3))
    assert 10 < is_changed.sum() < 125
    assert ((epochs[1] != epochs[2]).any((1, 2, 3)) == is_changed).all()
    assert cache._forward.rows == 135 + 2 * is_changed.sum()
    # A function of seed, epoch and sample, whatever came before.
    assert (run_epoch(again, 2)[0] == epochs[2]).all()
    assert capsys.readouterr().out.count('their features are not cached\n') == 2


def test_a_change_that_the_cache_cannot_know_of_ends_the_run():
    rng = np.random.RandomState(0)
    cache = FeatureCache(
        ImageDataGenerator(TRAIN, nb_classes=3, scale_size=(8, 8),
                           augment=lambda image, _: image * rng.uniform(0.5, 1.5)),
        Forward(), DATA)
    run_epoch(cache, 0)
    with pytest.raises(InputError, match='Something changes at random'):
        run_epoch(cache, 1)


def test_a_change_in_the_graph_is_not_passed_over(capsys):
    """A script's own operations between the placeholder and the network."""
    class Model:
        x = tf.placeholder(tf.float32, [None, 8, 8, 3])
        KEEP_PROB = tf.placeholder(tf.float32, [])
        X = x * tf.random.uniform(tf.shape(x), 1, 2)
        bottleneck = X  # nothing is frozen

    def batches(enabled):
        return cache_bottlenecks([pictures(), pictures()], session, Model, Model.x, 1,
                                 None, enabled)[0]
    with tf.Session() as session:
        plain, _ = run_epoch(pictures(), 0)
        plain[plain == 0] = np.nan
        first, second = [run_epoch(batches(False), 0)[0] / plain for _ in range(2)]
        for ratio in (first, second):
            assert 1 < np.nanmin(ratio) < np.nanmax(ratio) < 2
        assert (first != second).any()
        cached = batches(True)
        run_epoch(cached, 0)
        with pytest.raises(InputError, match='Something changes at random, in'):
            run_epoch(cached, 0)
        Model.X = Model.bottleneck = Model.x
        assert isinstance(batches(True), ImageDataGenerator)


def test_other_labels_are_used_or_refused():
    """An edit of next_batch, through which all pictures and labels come."""
    class Smooth(ImageDataGenerator):
        def next_batch(self, batch_size):
            images, labels = super().next_batch(batch_size)
            return images + 1, 0.9 * labels + 0.05

    data = Smooth(TRAIN, nb_classes=3, scale_size=(8, 8))
    features, labels = run_epoch(FeatureCache(data, Forward(), 0, enabled=False), 0)
    assert labels.max() == np.float32(0.95)
    assert (features[0] == 2 * (data.select([0]).next_batch(1)[0][0])).all()
    with pytest.raises(InputError, match='next_batch gives other labels than one_hot'):
        run_epoch(FeatureCache(data, Forward(), DATA), 0)


def test_random_crops_are_those_of_the_paper_and_the_middle_is_for_validation():
    path = ImageDataGenerator(TRAIN, nb_classes=3).paths[0]
    large = load_image(path, (256, 256))
    assert (load_image(path, margin=29) == large[14:241, 14:241]).all()
    train = ImageDataGenerator(TRAIN, True, nb_classes=3, margin=29, random_crop=True)
    val = ImageDataGenerator(TRAIN, nb_classes=3, margin=29)
    assert (val.next_batch(1)[0][0] == large[14:241, 14:241]).all()
    found = set()
    for epoch in range(20):
        train.reset_pointer(epoch)
        [image] = train.select([0]).next_batch(1)[0]
        [(left, top, step)] = [
            (left, top, step) for left in range(30) for top in range(30)
            for step in (1, -1)
            if (large[top, left:left + 227][::step] == image[0]).all()]
        assert (large[top:top + 227, left:left + 227][:, ::step] == image).all()
        found.add((left, top, step))
    assert len(found) > 15 and {step for _, _, step in found} == {1, -1}


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_full_disk_costs_time_but_no_features(monkeypatch, capsys):
    monkeypatch.setattr(cache_module.tempfile, 'TemporaryFile',
                        lambda **kwargs: open('/dev/full', 'r+b', buffering=0))
    forward, plain = Forward(), pictures()
    cache = FeatureCache(pictures(), forward, 60 * ROW)
    for _ in range(3):
        assert (run_epoch(cache, 0)[0] == run_epoch(plain, 0)[0] * 2).all()
    assert forward.rows == 135 + 75 + 75 and forward.passes == 3 + 2 + 2
    assert capsys.readouterr().out.splitlines() == [
        '60 features are stored; there is no room for more ([Errno 28] No space left '
        'on device), so the others are computed anew in each epoch']


def test_decoding_error_reaches_the_caller(tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'no picture')
    (tmp_path / 'list.txt').write_text('bad.png 0\n')
    cache = FeatureCache(ImageDataGenerator(str(tmp_path / 'list.txt')), Forward(), 0)
    with pytest.raises(InputError, match='list.txt, line 1: .*bad.png: not a picture'):
        cache.next_batch(50)


def test_pictures_that_vanish_are_left_out_on_demand(tmp_path, capsys):
    for number in range(10):
        cv2.imwrite(str(tmp_path / ('%d.png' % number)), np.full((8, 8, 3), number))
    (tmp_path / 'list.txt').write_text(
        ''.join('%d.png %d\n' % (number, number % 2) for number in range(10)))
    data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=(8, 8), mean=0,
                              leave_out_bad=True)
    cache = FeatureCache(data, lambda images: images[:, 0, 0, 0], 10 ** 6)
    (tmp_path / '2.png').unlink()
    features, labels = run_epoch(cache, 0, 4)
    assert list(features) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert list(labels.argmax(1)) == list(features % 2)
    for number in range(4, 10):  # all that is stored is given all the same
        (tmp_path / ('%d.png' % number)).unlink()
    for epoch in range(1, 9):
        assert list(run_epoch(cache, epoch, 4)[0]) == list(features)
    told = capsys.readouterr().err
    assert told.count('list.txt, line 3: ') == 9 and 'line 5: ' not in told
    (tmp_path / '3.png').unlink()
    cache = FeatureCache(data, lambda images: images[:, 0, 0, 0], 10 ** 6)
    cache.reset_pointer(2)
    assert len(cache.next_batch(4)[0]) == 2
    with pytest.raises(InputError, match='none of the next 4 pictures'):
        cache.next_batch(4)


def resident(folder, code):
    """Run code in a process of its own in a folder; return the numbers it prints."""
    output = subprocess.check_output(
        [sys.executable, '-c', 'import resource\nimport numpy as np\n'
         'from datagenerator import ImageDataGenerator\n'
         'from machinery.cache import FeatureCache\n'
         'peak = lambda: 1024 * resource.getrusage('
         'resource.RUSAGE_SELF).ru_maxrss\n' + code], cwd=str(folder))
    return [int(number) for number in output.split()]


def test_memory_stays_within_the_bound(tmp_path):
    """10 MB of memory for 100 MB of features."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / 'list.txt').write_text('a.png 0\n' * 6250)
    early, late = resident(tmp_path, '''
row = np.ones(4000, np.float32)
cache = FeatureCache(ImageDataGenerator('list.txt', scale_size=(8, 8)),
                     lambda images: images[:, 0, 0, :1] * 0 + row, 10 ** 7, '.')
for _ in range(10):
    cache.next_batch(125)
print(peak())
for epoch in range(2):
    cache.reset_pointer(epoch)
    for _ in range(50):
        features, _ = cache.next_batch(125)
        assert (features == row).all()
print(peak())
''')
    assert late - early < 10e6


def test_bookkeeping_of_many_samples_is_small(tmp_path):
    for letter in 'abcd':
        (tmp_path / ('a_picture_of_%s.jpg' % letter)).write_bytes(b'')
    (tmp_path / 'list.txt').write_text(''.join(
        'a_picture_of_%s.jpg 0\n' % letter for letter in 'abcd') * 100000)
    before, after = resident(tmp_path, '''
print(peak())
cache = FeatureCache(ImageDataGenerator('list.txt', shuffle=True), None, 10 ** 9)
print(peak())
''')
    assert after - before < 150 * 400000


@pytest.mark.parametrize('layers', ["['fc8','fc7']"])
def test_cached_and_uncached_training_end_in_the_same_weights(tmp_path, start_file,
                                                              layers):
    found = []
    for cached in (True, False):
        folder = str(tmp_path / str(cached))
        status, output = finetune(
            folder, '--cache_features=%s' % cached, '--train_layers=' + layers,
            '--train_file=images/val.txt', '--val_file=images/test.txt',
            '--num_epochs=3', '--batch_size=32', '--weights_path=' + start_file)
        assert status == 0, output
        found.append(tensors(folder + '/new/checkpoints/model_epoch3.ckpt'))
    cached, uncached = found
    assert set(cached) == set(uncached)
    for name in cached:
        [one], [other] = cached[name], uncached[name]
        if tf.__version__.startswith('1.'):
            np.testing.assert_allclose(one, other, err_msg=name,
                                       atol=1e-6 * np.abs(other).max())
        else:
            assert (one == other).all(), name
