"""Random damage ends in a result or in our error: no crash, no hang, no code run."""
import json
import os
import resource

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from datagenerator import IMAGENET_MEAN, IMAGE_SIZE, REDUCING_GAP, load_image
from helpers import checkpoint_of, finetune, write_caffemodel
from machinery import class_names
from machinery.errors import InputError
from machinery.export import pictures_to_compare
from machinery.kinds import find_kind
from machinery.labels import OneClass
from machinery.lists import read_list
from machinery.model_file import (check_summary, compare_with_earlier,
                                  find_preprocessing, read_model)
from machinery.settings import read_settings
from machinery.weights import read_weights

LAYERS = {'conv1': [np.ones((7, 2, 11, 11), np.float32), np.ones(7, np.float32)],
          'fc8': [np.ones((5, 30), np.float32), np.ones(5, np.float32)]}
SCRIPT = """train_file = 'a.txt'
num_epochs = 10
learning_rate = 0.1
horizontal_flip = True
train_layers = ['fc8']
skip_layers = None
weights_path = 'DEFAULT'
"""
SETTINGS = {}
exec(SCRIPT, {}, SETTINGS)
fuzz = settings(max_examples=300, deadline=2000, database=None)


@pytest.fixture(autouse=True)
def memory_is_bounded():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 2e9


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz')
    (folder / 'a b.jpg').write_bytes(b'')
    return folder


def result_or_named_error(call, name):
    try:
        return call()
    except InputError as error:
        assert name in str(error)


pieces = st.one_of(
    st.binary(max_size=20), st.text(max_size=20).map(lambda text: text.encode('utf-8')),
    st.integers().map(lambda number: str(number).encode()),
    st.sampled_from([b'a b.jpg', b'a b.jpg 0\n', b'a b.jpg 1\n', b'\n', b'\r\n', b' ',
                     b'\t', b'#', b'\xef\xbb\xbf', b'\0', b'0', b'1', b'x' * 100000,
                     '\u2028'.encode(), '\u00a0'.encode(), '\u0663'.encode()]))


@fuzz
@given(st.lists(pieces, max_size=12).map(b''.join))
def test_lists(folder, content):
    path = folder / 'list.txt'
    path.write_bytes(content)
    found = result_or_named_error(lambda: read_list(str(path), OneClass('ab')),
                                  'list.txt')
    if found:
        paths, labels, line_numbers = found
        assert len(paths) == len(labels) == len(line_numbers) > 0
        assert set(paths) == {str(folder / 'a b.jpg')} and set(labels) <= {0, 1}


@st.composite
def damage(draw, size):
    """Draw a function that cuts, flips and overwrites bytes of a file."""
    flips = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)),
                          max_size=4))
    # Most of a file is numbers; what can break the reader lies at its ends.
    flips += draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)),
                           max_size=3))
    cut = draw(st.one_of(st.none(), st.integers(0, size)))

    def apply(content):
        content = bytearray(content)
        for position, value in flips:
            content[position] = value
        return bytes(content[:cut])
    return apply


def write_npy(path):
    np.save(path, LAYERS)


def write_npz(path):
    np.savez(path, **{'%s/%s' % (name, kind): array for name, pair in LAYERS.items()
                      for kind, array in zip('Wb', pair)})


@pytest.mark.parametrize('name, write', [
    ('fuzz.npy', write_npy), ('fuzz.npz', write_npz),
    ('new.caffemodel', lambda path: write_caffemodel(path, LAYERS, old=False)),
    ('old.caffemodel', lambda path: write_caffemodel(path, LAYERS, old=True))])
def test_weight_files(folder, name, write):
    path = folder / name
    write(str(path))
    whole = path.read_bytes()

    @fuzz
    @given(damage(len(whole)))
    def check(damaged):
        path.write_bytes(damaged(whole))
        found = result_or_named_error(lambda: read_weights(str(path)), name)
        for weights, biases in (found or {}).values():
            assert weights.dtype.kind == biases.dtype.kind == 'f'

    check()
    assert os.listdir(str(folder)).count(name) == 1


@pytest.mark.parametrize('compression, bands', [
    (None, 3), ('tiff_lzw', 4), ('jpeg', 3), ('tiff_adobe_deflate', 1)])
def test_tiffs(folder, compression, bands):
    path = str(folder / 'fuzz.tif')
    noise = np.random.RandomState(0).randint(0, 256, (20, 30, bands)).astype(np.uint8)
    Image.fromarray(np.squeeze(noise)).save(path, compression=compression)
    with open(path, 'rb') as file:
        whole = file.read()

    @fuzz
    @given(damage(len(whole)))
    def check(damaged):
        with open(path, 'wb') as file:
            file.write(damaged(whole))
        image = result_or_named_error(lambda: load_image(path), 'fuzz.tif')
        assert image is None or image.shape == (227, 227, 3)

    check()


@pytest.fixture(scope='module')
def model(tmp_path_factory, narrow_network, narrow_file):
    """The path and the content of a model.json that finetune.py has written."""
    folder = tmp_path_factory.mktemp('run')
    status, output = finetune(
        folder, '--train_file=images/test.txt', '--val_file=images/test.txt',
        '--num_epochs=1', '--weights_path=' + narrow_file, '--features_path=None')
    assert status == 0, output
    path = os.path.join(os.path.dirname(checkpoint_of(folder, 1)), 'model.json')
    with open(path, 'rb') as file:
        return path, file.read()


values = st.recursive(st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
    st.sampled_from([10 ** 400, -1, 227, 'a\0b', '\ud800', '/dev/zero', [227, 227]])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5), inner, max_size=3), max_leaves=5)


def mutate(data, found):
    """Drop or replace a value of {...} or [...], or go into one and do so there."""
    if not found or data.draw(st.integers(0, 9)) == 0:
        return data.draw(values)
    found = found.copy()
    key = data.draw(st.sampled_from(sorted(found) if isinstance(found, dict) else
                                    list(range(len(found)))))
    if data.draw(st.integers(0, 4)) == 0:
        del found[key]
    elif isinstance(found[key], (dict, list)):
        found[key] = mutate(data, found[key])
    else:
        found[key] = data.draw(values)
    return found


@pytest.mark.parametrize('kind', ['bytes', 'values'])
def test_model_files(model, kind, monkeypatch):
    """All that predict.py and a resumed run read of them."""
    monkeypatch.setattr(class_names, 'num_classes_of', lambda path, layer: 3)
    path, whole = model
    weights_path = os.path.join(os.path.dirname(path), 'model_epoch1.ckpt')
    facts = json.loads(whole.decode())
    cat = os.path.join(os.path.dirname(os.path.dirname(class_names.__file__)),
                       'images', 'cat.jpg')

    def read():
        found = read_model(weights_path)
        found_kind = find_kind(weights_path, 'fc8')
        assert found_kind.width == 3 and ', '.join(found_kind.names).encode()
        preprocessing, summary = find_preprocessing(
            weights_path, IMAGENET_MEAN, size=IMAGE_SIZE, margin=0,
            reducing_gap=REDUCING_GAP, resize='squash')
        assert load_image(cat, **preprocessing).shape == (227, 227, 3)
        assert all(type(name) is str for name in found.get('train_layers', []))
        pictures_to_compare(weights_path, found_kind, load_image)
        check_summary('model_epoch1.ckpt', summary, facts['preprocessing']['test'])

    def resume():
        best_by, reason = compare_with_earlier(weights_path, dict(facts), path)
        assert best_by is None or type(best_by) is str

    @fuzz
    @given(st.data())
    def check(data):
        if kind == 'bytes':
            content = data.draw(damage(len(whole)))(whole)
        else:
            content = json.dumps(mutate(data, facts)).encode()
        with open(path, 'wb') as file:
            file.write(content)
        result_or_named_error(read, 'model')
        result_or_named_error(resume, '')

    check()


@fuzz
@given(st.one_of(st.text(max_size=40), st.builds(
    '--{}={}'.format, st.sampled_from(sorted(SETTINGS)), st.one_of(
        st.text(max_size=40), st.integers(), st.floats(), st.lists(st.text(max_size=5)),
        st.sampled_from(['[' * 300, '9' * 5000, '1e999', '{}', '()', "b''", '0x',
                         '__import__("os")', 'lambda: 0', '\0'])))))
def test_command_line(argument):
    script = dict(SETTINGS, __doc__='Train.', In=[SCRIPT])
    try:
        changed = read_settings(script, [argument])
    except InputError as error:
        assert 'is not' in str(error) or 'expected' in str(error)
    except SystemExit as end:
        assert end.code == 0 and argument.startswith('-')  # --help
    else:
        for name, value in changed.items():
            default = SETTINGS[name]
            assert default is None or type(value) is type(default) or (
                type(default), type(value)) in [(float, int), (str, type(None))]
