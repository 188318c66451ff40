import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

import datagenerator
from datagenerator import ImageDataGenerator
from helpers import ROOT, finetune, tensors
from machinery import cache as cache_module
from machinery.cache import FeatureCache
from machinery.settings import InputError
from machinery.tf1 import tf

TRAIN = os.path.join(ROOT, 'images', 'train.txt')
ROW = 8 * 8 * 3 * 4  # bytes of a row of features below
DATA = 135 * ROW


def pictures():
    return ImageDataGenerator(TRAIN, nb_classes=3, horizontal_flip=True, shuffle=True,
                              scale_size=(8, 8))


class Forward:
    """A forward pass that counts; its features are the images times 2."""

    def __init__(self):
        self.calls, self.rows = 0, 0

    def __call__(self, images):
        assert len(images) == 50  # padded to the batch size
        self.calls += 1
        self.rows += int(images.any((1, 2, 3)).sum())
        return images * 2


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
    keys = set()
    for epoch in range(6):
        cache.reset_pointer(epoch)
        plain.reset_pointer(epoch)
        for _ in range(3):
            keys |= {(sample, plain.variants[sample])
                     for sample in plain.order[plain.pointer:plain.pointer + 50]}
            images, labels = plain.next_batch(50)
            features, same_labels = cache.next_batch(50)
            assert (features == images * 2).all() and (same_labels == labels).all()
    assert forward.rows == len(keys) > 135
    assert len(decoded) == 6 * 135 + len(keys)
    assert os.listdir(str(tmp_path)) == []  # the file has no name, so nothing can stay


def test_disabled_cache_computes_every_time(tmp_path, decoded):
    forward = Forward()
    cache = FeatureCache(pictures(), forward, 2 * DATA, str(tmp_path), enabled=False)
    for epoch in range(3):
        cache.reset_pointer(epoch)
        for _ in range(3):
            cache.next_batch(50)
    assert forward.calls == 9 and len(decoded) == 3 * 135


def test_samples_without_a_variant_are_computed_every_time():
    """As a user's own random change of pictures."""
    class Jitter(ImageDataGenerator):
        def reset_pointer(self, *args):
            super().reset_pointer(*args)
            self.variants[::2] = -1

    forward = Forward()
    cache = FeatureCache(Jitter(TRAIN, nb_classes=3, scale_size=(8, 8)), forward, DATA)
    for epoch in range(3):
        cache.reset_pointer(epoch)
        for _ in range(3):
            cache.next_batch(50)
    assert forward.rows == 135 + 68 + 68


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_full_disk_costs_time_but_no_features(monkeypatch, capsys):
    monkeypatch.setattr(cache_module.tempfile, 'TemporaryFile',
                        lambda **kwargs: open('/dev/full', 'r+b', buffering=0))
    forward, plain = Forward(), pictures()
    cache = FeatureCache(pictures(), forward, 60 * ROW)
    for _ in range(3):
        cache.reset_pointer(0)
        plain.reset_pointer(0)
        for _ in range(3):
            assert (cache.next_batch(50)[0] == plain.next_batch(50)[0] * 2).all()
    assert forward.rows == 135 + 75 + 75
    assert capsys.readouterr().out.splitlines() == [
        '60 features are stored; there is no room for more ([Errno 28] No space left '
        'on device), so the others are computed anew in each epoch']


def test_decoding_error_reaches_the_caller(tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'no picture')
    (tmp_path / 'list.txt').write_text('bad.png 0\n')
    cache = FeatureCache(ImageDataGenerator(str(tmp_path / 'list.txt')), Forward(), 0)
    with pytest.raises(InputError, match='list.txt, line 1: .*bad.png: not a picture'):
        cache.next_batch(50)


def resident(code, *arguments):
    """Run code in a process of its own; return the numbers that it prints."""
    output = subprocess.check_output(
        [sys.executable, '-c', 'import resource, sys\nimport numpy as np\n'
         'from datagenerator import ImageDataGenerator\n'
         'from machinery.cache import FeatureCache\n'
         'peak = lambda: 1024 * resource.getrusage('
         'resource.RUSAGE_SELF).ru_maxrss\n' + code] + list(arguments),
        cwd=ROOT)
    return [int(number) for number in output.split()]


def test_memory_stays_within_the_bound(tmp_path):
    """10 MB of memory for 100 MB of features."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / 'list.txt').write_text('a.png 0\n' * 6250)
    early, late = resident('''
row = np.ones(4000, np.float32)
cache = FeatureCache(ImageDataGenerator(sys.argv[1], scale_size=(8, 8)),
                     lambda images: images[:, 0, 0, :1] * 0 + row, 10 ** 7, sys.argv[2])
for _ in range(10):
    cache.next_batch(125)
print(peak())
for epoch in range(2):
    cache.reset_pointer(epoch)
    for _ in range(50):
        features, _ = cache.next_batch(125)
        assert (features == row).all()
print(peak())
''', str(tmp_path / 'list.txt'), str(tmp_path))
    assert late - early < 10e6


def test_bookkeeping_of_a_million_samples_is_small(tmp_path):
    for letter in 'abcd':
        (tmp_path / ('a_picture_of_%s.jpg' % letter)).write_bytes(b'')
    (tmp_path / 'list.txt').write_text(''.join(
        'a_picture_of_%s.jpg 0\n' % letter for letter in 'abcd') * 250000)
    before, after = resident('''
print(peak())
cache = FeatureCache(ImageDataGenerator(sys.argv[1], shuffle=True), None, 10 ** 9)
print(peak())
''', str(tmp_path / 'list.txt'))
    assert after - before < 200 * 1000000


@pytest.mark.parametrize('layers', ["['fc8','fc7']"])
def test_cached_and_uncached_training_end_in_the_same_weights(tmp_path, layers):
    found = []
    for cached in (True, False):
        folder = str(tmp_path / str(cached))
        status, output = finetune(
            folder, '--cache_features=%s' % cached, '--train_layers=' + layers,
            '--train_file=images/val.txt', '--val_file=images/test.txt',
            '--num_epochs=3', '--batch_size=32', '--weights_path=None')
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
