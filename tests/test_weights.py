"""Weights from a download, from Caffe's files, from .npy files and checkpoints."""
import hashlib
import http.server
import os
import pickle
import resource
import struct
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers import (HERE, field, golden, run_program, same, to_tensorflow,
                     write_caffemodel)
from machinery import caffe, download, transfer
from machinery.download import SAMPLE, fetch_if_missing, fetch_weights
from machinery.errors import InputError
from machinery.tf1 import tf
from machinery.weights import (check_weights, load_weights, num_classes_of,
                               read_weights, renamed_last)

RNG = np.random.RandomState(0)
# A network of few weights, as Caffe has them, and as TensorFlow does.
CAFFE = {name: [RNG.standard_normal(shape).astype(np.float32),
                RNG.standard_normal(shape[0]).astype(np.float32)]
         for name, shape in [('conv1', (4, 3, 5, 5)), ('fc6', (7, 9216)),
                             ('fc7', (6, 7)), ('fc8', (3, 6))]}
WEIGHTS = to_tensorflow(CAFFE)
SHAPES = {name: pair[0].shape for name, pair in WEIGHTS.items()}
TINY = os.path.join(HERE, 'data', 'tiny.caffemodel')


def save(path, layers):
    np.save(str(path), layers)
    return str(path)


@pytest.mark.parametrize('name', ['tiny', 'tiny_v1'])
def test_files_of_real_caffe_are_read(name):
    rng = np.random.RandomState(7)
    expected = {}
    for layer, shape in [('conv1', (96, 3, 11, 11)), ('conv2', (256, 48, 5, 5))]:
        weights = rng.standard_normal(shape).astype(np.float32)
        biases = rng.standard_normal(shape[0]).astype(np.float32)
        expected[layer] = [weights.transpose(2, 3, 1, 0), biases]
    path = os.path.join(HERE, 'data', name + '.caffemodel')
    assert same(read_weights(path), expected)


@pytest.mark.parametrize('old', [False, True, 'oldest'])
def test_all_kinds_of_layers_of_caffe_are_read(tmp_path, old):
    path = str(tmp_path / 'a.caffemodel')
    write_caffemodel(path, CAFFE, old)
    assert same(read_weights(path), WEIGHTS)
    assert num_classes_of(path, 'fc8') == 3


@pytest.mark.parametrize('old', [False, True])
def test_caffenet_is_not_alexnet(tmp_path, old):
    """It has the same shapes, but pools before it normalises."""
    path = str(tmp_path / 'a.caffemodel')
    write_caffemodel(path, dict(CAFFE, norm1=[], pool1=[]), old)
    assert same(read_weights(path), WEIGHTS)
    write_caffemodel(path, dict(CAFFE, pool1=[], norm1=[]), old)
    with pytest.raises(InputError, match='a.caffemodel: it pools before it normalises'):
        read_weights(path)


@pytest.mark.parametrize('kind, encode', [
    ('<f2', lambda content: field(10, 2) + field(12, content)),  # NVIDIA's Caffe
    ('<f4', lambda content: field(10, 1) + field(12, content)),
    ('<f8', lambda content: field(10, 0) + field(12, content)),
    ('<f8', lambda content: field(8, content))])
def test_numbers_of_every_caffe_are_read(tmp_path, kind, encode):
    path = str(tmp_path / 'a.caffemodel')
    halves = {name: [array.astype(kind).astype(np.float32) for array in pair]
              for name, pair in CAFFE.items()}
    write_caffemodel(path, halves, False, numbers=lambda array: encode(
        array.astype(kind).tobytes()))
    found = read_weights(path)
    assert same(found, to_tensorflow(halves))
    assert all(array.dtype == np.float32 for pair in found.values() for array in pair)


@pytest.mark.parametrize('numbers, complaint', [
    (lambda array: field(10, 3) + field(12, array.tobytes()), 'conv1: holds integers'),
    (lambda array: field(10, 2) + field(12, array.tobytes()), 'conv1: 600 numbers for'),
    (lambda array: b'', 'conv1: 0 numbers for shape .4, 3, 5, 5')])
def test_other_numbers_of_caffe_are_named(tmp_path, numbers, complaint):
    path = str(tmp_path / 'a.caffemodel')
    write_caffemodel(path, CAFFE, False, numbers=numbers)
    with pytest.raises(InputError, match='a.caffemodel: damaged.*' + complaint):
        read_weights(path)


def vectors(*sizes):
    return [np.ones(size, np.float32) for size in sizes]


@pytest.mark.parametrize('name, arrays, kind, holds', [
    ('conv1/bn', vectors(4, 4, 4, 4, 1), 'BatchNorm', '4 + 4 + 4 + 4 + 1'),  # NVIDIA
    ('bn1', vectors(4, 4, 1), 'BatchNorm', '4 + 4 + 1'),
    ('scale1', vectors(4, 4), 'Scale', '4 + 4'), ('relu1', vectors(4), 'PReLU', '4'),
    ('conv1', CAFFE['conv1'][:1], 'Convolution', '4x3x5x5'),
    ('fc8', CAFFE['fc8'][:1], 'InnerProduct', '3x6')])
def test_layers_of_other_networks_are_named_not_dropped(tmp_path, name, arrays, kind,
                                                        holds):
    path = str(tmp_path / 'a.caffemodel')
    write_caffemodel(path, dict(CAFFE, **{name: arrays}), False, {name: kind})
    with pytest.raises(InputError) as error:
        read_weights(path)
    assert str(error.value).endswith('\n  %s (%s) holds %s' % (name, kind, holds))


def test_layers_of_the_same_name_are_not_dropped(tmp_path):
    path = tmp_path / 'a.caffemodel'
    write_caffemodel(str(path), CAFFE, False)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match=r'AlexNet\n  conv1 \(\) holds 4x3x5x5 \+ 4'):
        read_weights(str(path))


@pytest.mark.parametrize('old, norm, pool', [
    (False, 'LRN', 'Pooling'), (True, 15, 17), ('oldest', 'lrn', 'pool'),
    (False, None, None)])
def test_networks_without_lrn_or_of_another_order_are_named(
        tmp_path, old, norm, pool):
    path, types = str(tmp_path / 'a.caffemodel'), {'a': norm, 'b': pool}
    types, a, b = (types, 'a', 'b') if norm else ({}, 'lrn1', 'pool1')
    for layers, complaint in [
            ([b], 'a.caffemodel: it has no local response normalisation'),
            ([b, a], 'a.caffemodel: it pools before it normalises'),
            ([a, b], None), (['relu1'], None), ([], None)]:
        write_caffemodel(path, dict(CAFFE, **{name: [] for name in layers}), old, types)
        if complaint:
            with pytest.raises(InputError, match=complaint):
                read_weights(path)
        else:
            assert same(read_weights(path), WEIGHTS)


def renamed(width=3):
    """WEIGHTS whose last layer has another name, as people rename it for Caffe."""
    layers = dict(WEIGHTS, fc8_pets=[array[..., :width] for array in WEIGHTS['fc8']])
    del layers['fc8']
    return layers


def test_renamed_last_layer_is_fine_when_it_is_skipped():
    check_weights(renamed(), SHAPES, 'a.npy', skip=['fc8'])
    with pytest.raises(InputError, match='fc8: missing, but fc8_pets is there .a '
                       "renamed last layer.; with 'fc8' in skip_layers, it is ignored"):
        check_weights(renamed(), SHAPES, 'a.npy')
    for layers in [WEIGHTS, dict(WEIGHTS, fc9=WEIGHTS['fc8']),  # a layer too many
                   dict(renamed(), fc8_more=WEIGHTS['fc8']),
                   dict(renamed(), fc8_pets=WEIGHTS['fc7'])]:  # for other inputs
        assert renamed_last(layers, SHAPES) is None


def test_renamed_last_layer_is_converted_and_loaded(tmp_path, capsys):
    path, out = str(tmp_path / 'a.caffemodel'), str(tmp_path / 'a.npy')
    layers = dict(CAFFE, fc8_pets=[array[:2] for array in CAFFE['fc8']])
    del layers['fc8']
    write_caffemodel(path, layers, False)
    status, output = run_program('alexnet.py', path)
    assert status == 0 and output.split('\n') == [
        'conv1        5x5x3x4      loads', 'fc6          9216x7       loads',
        'fc7          7x6          loads',
        'fc8_pets     6x2          not a layer of AlexNet',
        "fc8          missing      only with 'fc8' in skip_layers; AlexNet has 6x3",
        'Wrote ' + out, '']
    assert same(read_weights(out), renamed(2)) and same(read_weights(path), renamed(2))
    with pytest.raises(InputError, match='a.npy: holds no layer fc8, only conv1, fc6, '
                       'fc7, fc8_pets'):
        num_classes_of(out, 'fc8')
    variables = {name: [tf.get_variable('%s/%s' % (name, kind), array.shape)
                        for kind, array in zip(['weights', 'biases'], pair)]
                 for name, pair in WEIGHTS.items()}
    with tf.Session() as session:
        load_weights(session, out, variables, [], ['fc8'], '')
        assert 'a.npy: fc8_pets is ignored, fc8 starts fresh' in capsys.readouterr().out
        assert same(session.run({name: variables[name] for name in ['fc6', 'fc7']}),
                    {name: WEIGHTS[name] for name in ['fc6', 'fc7']})


@pytest.mark.parametrize('change, complaint', [
    ({'fc9': WEIGHTS['fc7']}, 'fc9: not a layer of AlexNet'),
    ({'conv1': [np.full((5, 5, 3, 4), np.inf), np.zeros(4)]}, '300 numbers are not'),
    ({name: [np.zeros((3, 3)), np.zeros(3)] for name in WEIGHTS}, 'no layer has its')])
def test_what_could_never_load_is_not_converted(tmp_path, change, complaint):
    path = save(tmp_path / 'a.npy', dict(WEIGHTS, **change))
    status, output = run_program('alexnet.py', path, tmp_path / 'b.npy')
    assert status == 2 and complaint in output
    assert os.listdir(str(tmp_path)) == ['a.npy']


def test_full_caffemodel_is_read(module_path):
    path = str(module_path / 'golden.caffemodel')
    weights = golden()[1]
    write_caffemodel(path, weights, old=True)
    assert same(read_weights(path), to_tensorflow(weights))


@pytest.mark.parametrize('spoil', [
    lambda whole: b'', lambda whole: whole[:-1000], lambda whole: whole[:100],
    lambda whole: b'<html>404</html>', lambda whole: bytes(999),
    lambda whole: np.random.RandomState(0).bytes(999)])
def test_damaged_caffemodels_are_clear_errors(tmp_path, spoil):
    with open(TINY, 'rb') as file:
        content = spoil(file.read())
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(content)
    with pytest.raises(InputError, match='a.caffemodel: damaged, or not a caffemodel'):
        read_weights(str(path))


@pytest.mark.parametrize('writer', ['python2_numpy1', 'python3_numpy1',
                                    'python3_numpy2'])
def test_weights_of_every_writer_are_read(writer):
    path = os.path.join(HERE, 'data', writer + '.npy')
    assert same(read_weights(path), {
        'conv1': [np.arange(6).reshape(2, 3), np.arange(3)],  # a list
        'fc8': [np.ones((2, 2)), np.zeros(2)]})  # a dict
    assert num_classes_of(path, 'fc8') == 2


@pytest.mark.parametrize('kind', ['<f4', '>f4', '>f8', '<f2'])
def test_every_byte_order_and_width_is_read(tmp_path, kind):
    array = np.arange(600).reshape(20, 30).astype(kind)
    path = save(tmp_path / 'kind.npy', {'fc8': [array, np.asfortranarray(array)]})
    assert same(read_weights(path), {'fc8': [array, array]})


@pytest.mark.parametrize('pattern, words', [
    ('%s/%s', ('weights', 'biases')), ('%s/%s:0', ('kernel', 'bias')),
    ('%s_%s', ('W', 'b')), ('%s.%s', ('weight', 'bias')), ('%s_%s', ('w', 'b'))])
def test_names_of_other_programs_are_read(tmp_path, pattern, words):
    flat = {pattern % (name, word): array for name, pair in WEIGHTS.items()
            for word, array in zip(words, pair)}
    flat['fc8_a_' + words[0]], flat['fc8_a_' + words[1]] = WEIGHTS['fc8']
    nested = {name: dict(zip(words, pair)) for name, pair in WEIGHTS.items()}
    np.savez(str(tmp_path / 'a.npz'), **flat)
    expected = dict(WEIGHTS, fc8_a=WEIGHTS['fc8'])
    assert same(read_weights(str(tmp_path / 'a.npz')), expected)
    assert same(read_weights(save(tmp_path / 'flat.npy', flat)), expected)
    assert same(read_weights(save(tmp_path / 'nested.npy', nested)), WEIGHTS)


@pytest.mark.parametrize('arrays, complaint', [
    ({'conv1/W': np.ones(2), 'conv1/w': np.ones(2), 'conv1/b': np.ones(2)},
     'conv1: expected .*, found conv1/W, conv1/w, conv1/b'),
    ({'bn1/mean': np.ones(2), 'bn1/variance': np.ones(2)}, 'bn1: expected .*bn1/mean'),
    ({'fc8/weights': np.ones(2), 'fc8/biases': np.ones(2), 'fc8/gamma': np.ones(2)},
     'fc8: expected .*fc8/gamma'),
    ({'arr_0': np.ones(2)}, 'arr: expected .*, found arr_0')])
def test_names_that_are_not_clear_are_refused(tmp_path, arrays, complaint):
    np.savez(str(tmp_path / 'a.npz'), **arrays)
    for path in [str(tmp_path / 'a.npz'), save(tmp_path / 'a.npy', arrays)]:
        with pytest.raises(InputError, match='a.np[yz]: .*' + complaint):
            read_weights(path)


def test_npz_runs_no_code_and_holds_floats(tmp_path):
    path = str(tmp_path / 'a.npz')
    attack = np.array([Attack(str(tmp_path / 'owned'))], object)
    for array, complaint in [(attack, 'pickle'),
                             (np.arange(3), 'fc8/W: expected floats, found int64')]:
        np.savez(path, **{'fc8/W': array, 'fc8/b': np.ones(3)})
        with pytest.raises(InputError, match='a.npz: .*' + complaint):
            read_weights(path)
        assert os.listdir(str(tmp_path)) == ['a.npz']


@pytest.mark.parametrize('name', ['a.pth', 'a.npy', 'a.caffemodel'])
def test_files_of_other_programs_are_named(tmp_path, name):
    path = tmp_path / name
    with zipfile.ZipFile(str(path), 'w') as file:
        file.writestr('archive/data.pkl', b'')
    with pytest.raises(InputError, match=name + ': it is a file of PyTorch'):
        read_weights(str(path))
    with zipfile.ZipFile(str(path), 'w') as file:
        file.writestr('model.weights.h5', b'')
    with pytest.raises(InputError, match=name + ': it holds model.weights.h5, so'):
        read_weights(str(path))
    for content, kind in [(pickle.dumps({}, 2), 'PyTorch'), (b'\x89HDF\r\n', 'HDF5')]:
        path.write_bytes(content)
        with pytest.raises(InputError, match='%s is an? .*%s' % (name, kind)):
            read_weights(str(path))


def test_missing_weight_file_is_named_with_the_ways_out(tmp_path):
    for call in [read_weights, lambda path: num_classes_of(path, 'fc8')]:
        with pytest.raises(InputError, match='none.npy.*weights_path = None'):
            call(str(tmp_path / 'none.npy'))


@pytest.mark.parametrize('content', [b'', b'<html>404</html>'])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / 'foreign'
    path.write_bytes(content)
    with pytest.raises(InputError, match='foreign: damaged, or not a weight file'):
        read_weights(str(path))


@pytest.mark.parametrize('content, complaint', [
    (np.zeros(3), 'not a dictionary'),
    (np.array([{}], object), 'not a dictionary'),
    (np.array('text', object), 'damaged, or not a weight file'),
    ({}, 'holds no layer'),
    ({'fc8': [np.zeros(3)]}, 'fc8: expected'),
    ({'fc8': ['a', 'b']}, 'fc8: expected'),
    ({'fc8': {'weights': np.zeros(3)}}, 'fc8: expected'),
    ({'fc8': [np.array([None], object), np.zeros(3)]}, 'expected arrays of floats')])
def test_other_contents_are_refused(tmp_path, content, complaint):
    with pytest.raises(InputError, match='other.npy: .*' + complaint):
        read_weights(save(tmp_path / 'other.npy', content))


def test_keys_that_are_no_text_are_refused(tmp_path):
    path = str(tmp_path / 'a.npy')
    for protocol in (0, 2, 4):
        content = np.array({('conv1', 'weights'): np.ones(3, np.float32)}, object)
        with open(path, 'wb') as file:
            np.lib.format.write_array_header_1_0(
                file, np.lib.format.header_data_from_array_1_0(content))
            pickle.dump(content, file, protocol)
        with pytest.raises(InputError, match='a dict with other keys than text'):
            read_weights(path)


def test_npy_file_that_was_cut_is_refused(tmp_path):
    path = tmp_path / 'cut.npy'
    save(path, WEIGHTS)
    path.write_bytes(path.read_bytes()[:-999])
    with pytest.raises(InputError, match='cut.npy: damaged'):
        read_weights(str(path))


@pytest.mark.parametrize('pickled', [
    b'\x80\x02}r' + struct.pack('<I', 1 << 28),  # number in the memo
    b'}p%d\n' % (1 << 28),
    b'\x80\x05\x96' + struct.pack('<Q', 1 << 32),  # bytearray
    b'\x80\x04\x8e' + struct.pack('<Q', 1 << 32),  # bytes
    b'\x80\x04\x8d' + struct.pack('<Q', 1 << 32),  # text
    b'\x80\x04\x95' + struct.pack('<Q', 1 << 32)])  # frame
def test_a_size_that_a_pickle_claims_takes_no_memory(tmp_path, pickled):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match='large.npy: damaged'):
        read_weights(save_pickle(tmp_path / 'large.npy', pickled + b'}.'))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 1e8


def save_pickle(path, content):
    """Write an .npy file with this pickle."""
    with open(str(path), 'wb') as file:
        np.lib.format.write_array_header_1_0(
            file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
        file.write(content)
    return str(path)


def test_all_misfits_are_named():
    weights = dict(WEIGHTS, fc9=WEIGHTS['fc8'], fc8=WEIGHTS['fc7'])
    del weights['conv1']
    with pytest.raises(InputError) as error:
        check_weights(weights, SHAPES, 'a.npy')
    assert str(error.value) == (
        'a.npy does not fit the network:\n'
        '  fc9: not a layer of AlexNet\n'
        '  conv1: missing\n'
        '  fc8/weights: expected shape (6, 3), found (7, 6)\n'
        '  fc8/biases: expected shape (3,), found (6,)')
    del weights['fc9']
    check_weights(weights, SHAPES, 'a.npy', skip=['conv1', 'fc8'])


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of WEIGHTS, and of what an optimizer remembers of them."""
    variables = [tf.get_variable('%s/%s' % (name, kind), initializer=array)
                 for name, pair in WEIGHTS.items()
                 for kind, array in zip(['weights', 'biases'], pair)]
    loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
    tf.train.MomentumOptimizer(0.1, 0.9).minimize(
        loss, tf.train.get_or_create_global_step())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(tmp_path / 'model_epoch1.ckpt'))


def test_checkpoint_becomes_a_weight_file(checkpoint, tmp_path):
    out = str(tmp_path / 'model_epoch1.npy')
    status, output = run_program('alexnet.py', checkpoint)
    assert status == 0 and output.endswith('loads\nWrote %s\n' % out)
    assert same(read_weights(checkpoint), WEIGHTS) and same(read_weights(out), WEIGHTS)
    assert num_classes_of(checkpoint, 'fc8') == num_classes_of(out, 'fc8') == 3


def test_damaged_checkpoints_are_clear_errors(checkpoint):
    complaint = 'model_epoch1.ckpt: damaged, or not made by finetune.py'
    os.truncate(checkpoint + '.data-00000-of-00001', 1000)
    with pytest.raises(InputError, match=complaint):
        read_weights(checkpoint)
    assert num_classes_of(checkpoint, 'fc8') == 3
    os.truncate(checkpoint + '.index', 100)
    for call in [read_weights, lambda path: num_classes_of(path, 'fc8')]:
        with pytest.raises(InputError, match=complaint):
            call(checkpoint)


def test_weights_without_fc8_are_of_no_classes():
    with pytest.raises(InputError, match='tiny.caffemodel: holds no layer fc8'):
        num_classes_of(TINY, 'fc8')


def test_command_line_converts_and_never_overwrites(tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'PRETRAINED', caffe.PRETRAINED)
    out = str(tmp_path / 'out.npy')
    status, output = run_program('alexnet.py', TINY, out)
    assert status == 0 and output.endswith('\nWrote %s\n' % out)
    assert output.startswith('conv1        11x11x3x96   loads\n'
                             'conv2        5x5x48x256   loads\nconv3        missing')
    assert same(read_weights(out), read_weights(TINY))
    assert os.listdir(str(tmp_path)) == ['out.npy']
    assert run_program('alexnet.py', TINY, out) == (
        2, out + ' already exists; remove it to write it again\n')


def test_command_line_tells_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'PRETRAINED', caffe.PRETRAINED)
    status, output = run_program('alexnet.py', tmp_path / 'none.caffemodel')
    assert status == 2 and output.startswith(str(tmp_path / 'none.caffemodel: no such'))
    assert run_program('alexnet.py', TINY, '--url=x') == (
        2, '--url must be the only argument\n')
    status, output = run_program('alexnet.py', TINY, tmp_path / 'none' / 'out.npy')
    assert status == 2 and output.endswith('part: No such file or directory\n')


def test_command_line_fetches_what_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / 'weights.npy'
    monkeypatch.setattr(download, 'DEFAULT_WEIGHTS', str(path))
    status, output = run_program('alexnet.py', '--url=http://127.0.0.1:1/weights')
    assert status == 2 and 'http://127.0.0.1:1/weights: <urlopen error' in output
    for content, fault in [(b'<!DOCTYPE html>', 'is an HTML page'), (b'', 'damaged')]:
        path.write_bytes(content)
        status, output = run_program('alexnet.py')
        assert status == 2 and fault in output
        assert 'Checking %s; remove it to fetch it again\n' % path in output
    monkeypatch.setattr(download, 'PRETRAINED', SHAPES)
    save(path, WEIGHTS)
    status, output = run_program('alexnet.py')
    assert status == 0 and output.endswith('It is complete\n')


class Server:
    """Serve content to one request after the other, each as badly as asked.

    Attributes:
        ranges: the Range header of each request.
        sent: the number of bytes sent.
    """

    def __init__(self, content, *behaviours):
        self.ranges, self.sent = [], 0
        server, behaviours = self, list(behaviours)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                behaviour = behaviours.pop(0) if behaviours else 'good'
                wanted = self.headers.get('Range')
                server.ranges.append(wanted)
                if behaviour == 'missing':
                    return self.send_error(404)
                if behaviour == 'silent':
                    return time.sleep(1.5)
                start = 0 if behaviour == 'no ranges' or not wanted else int(
                    wanted[len('bytes='):-1])
                if start >= len(content):
                    return self.send_error(416)
                body = content[start:]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header('Content-Range', 'bytes %d-%d/%d' % (
                        start, len(content) - 1, len(content)))
                self.send_header('Content-Length', str(len(body)))
                self.send_header('ETag', '"1"')
                self.end_headers()
                if behaviour == 'slow':
                    for _ in range(15):
                        self.wfile.write(b'x')
                        time.sleep(0.1)
                    return
                if behaviour == 'cuts':
                    body = body[:len(content) // 3]
                server.sent += len(body)
                self.wfile.write(body)

        self.http = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        self.url = 'http://127.0.0.1:%d/weights' % self.http.server_port

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=[0.01],
                         daemon=True).start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(download, 'PRETRAINED', SHAPES)


@pytest.fixture(scope='module')
def content(module_path):
    save(module_path / 'content.npy', WEIGHTS)
    return (module_path / 'content.npy').read_bytes()


def fetch(folder, *sources):
    """Fetch into folder; return what is there afterwards: {name: content}."""
    fetch_weights(str(folder / 'weights.npy'), list(sources))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch_fails(folder, *sources):
    """Return the message of a download that fails."""
    with pytest.raises(InputError) as error:
        fetch(folder, *sources)
    for url, _ in sources:
        assert url in str(error.value)
    assert 'put it beside alexnet.py' in str(error.value)
    return str(error.value)


def test_good_file_is_fetched(tmp_path, content):
    with Server(content) as server:
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.ranges == [None]


def test_next_source_is_tried_and_failures_are_told(tmp_path, content):
    with Server(b'', 'missing', 'missing') as bad, Server(content) as good:
        assert fetch(tmp_path, (bad.url, None), (good.url, None)) == {
            'weights.npy': content}
        (tmp_path / 'weights.npy').unlink()
        assert 'HTTP Error 404' in fetch_fails(tmp_path, (bad.url, None))
    assert 'refused' in fetch_fails(tmp_path, (bad.url, None))
    assert 'unknown url type' in fetch_fails(tmp_path, ('weights', None))
    assert not list(tmp_path.iterdir())


def test_cut_connection_is_resumed_at_once(tmp_path, content):
    with Server(content, 'cuts', 'cuts') as server:
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    third = len(content) // 3
    assert server.ranges == [None, 'bytes=%d-' % third, 'bytes=%d-' % (2 * third)]
    assert server.sent == len(content)


def test_earlier_download_is_resumed(tmp_path, content):
    with Server(content, 'cuts', 'missing') as server:
        assert '404' in fetch_fails(tmp_path, (server.url, None))
        part, _ = sorted(tmp_path.iterdir())
        assert part.read_bytes() == content[:len(content) // 3]
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.sent == len(content)


def test_server_without_ranges_starts_again(tmp_path, content):
    with Server(content, 'cuts', 'no ranges') as server:
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.ranges == [None, 'bytes=%d-' % (len(content) // 3)]


def test_complete_part_needs_no_more_bytes(tmp_path, content):
    with Server(content) as server:
        sha1 = hashlib.sha1(server.url.encode()).hexdigest()
        part = tmp_path / ('weights.npy.%s.part' % sha1[:8])
        part.write_bytes(content)
        Path('%s.tag' % part).write_text('%d "1"\n' % len(content))
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.sent == 0


@pytest.mark.parametrize('behaviour, complaint', [
    ('silent', 'timed out'), ('slow', 'bytes in 1 seconds')])
def test_slow_servers_are_given_up(tmp_path, monkeypatch, behaviour, complaint):
    monkeypatch.setattr(transfer, 'TIMEOUT', 1)
    with Server(b'x' * 1000000, behaviour) as server:
        start = time.time()
        assert complaint in fetch_fails(tmp_path, (server.url, None))
        assert time.time() - start < 5


def test_caffemodel_is_checked_and_converted(tmp_path, module_path):
    path = module_path / 'a.caffemodel'
    write_caffemodel(str(path), CAFFE, old=True)
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    with Server(path.read_bytes()) as server:
        url = server.url + '.caffemodel'
        assert 'SHA-1 is %s, should be 9116a64c' % sha1 in fetch_fails(
            tmp_path, (url, '9116a64c0fbe4459d18f4bb6b56d647b63920377'))
        assert not list(tmp_path.iterdir())
        assert list(fetch(tmp_path, (url, sha1))) == ['weights.npy']
    assert same(read_weights(str(tmp_path / 'weights.npy')), WEIGHTS)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('protocol', [0, 2, 3, 4])
def test_pickle_that_runs_code_is_refused_and_runs_nothing(
        tmp_path, module_path, protocol):
    target = tmp_path / 'owned'
    path = module_path / 'attack.npy'
    save_pickle(path, pickle.dumps({'conv1': Attack(str(target))}, protocol))
    with Server(path.read_bytes()) as server:
        assert 'refused to load' in fetch_fails(tmp_path, (server.url, None))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('change, complaint', [
    ({'fc7': [np.full((7, 6), np.nan, np.float32), WEIGHTS['fc7'][1]]},
     'fc7/weights: 42 numbers are not finite'),
    ({'fc8': WEIGHTS['fc7']}, 'fc8/weights: expected shape (6, 3), found (7, 6)')])
def test_unfit_weights_are_not_kept(tmp_path, module_path, change, complaint):
    path = module_path / 'unfit.npy'
    save(path, dict(WEIGHTS, **change))
    with Server(path.read_bytes()) as server:
        assert complaint in fetch_fails(tmp_path, (server.url, None))
    assert not list(tmp_path.iterdir())


def test_missing_pretrained_weights_are_fetched(
        tmp_path, monkeypatch, content, capsys):
    default = tmp_path / 'weights.npy'
    monkeypatch.setattr(download, 'DEFAULT_WEIGHTS', str(default))
    with Server(content, 'missing', 'missing') as server:
        monkeypatch.setattr(download, 'SOURCES', [(server.url, None)])
        for path in [None, __file__]:
            assert fetch_if_missing(path, 'train.txt') == path
        assert server.ranges == []
        with pytest.raises(InputError, match='could not be fetched'):
            fetch_if_missing('DEFAULT', str(tmp_path / 'images' / 'train.txt'))
        assert fetch_if_missing('DEFAULT', os.path.relpath(SAMPLE)) is None
        assert 'starts from its own pictures instead.' in capsys.readouterr().out
        for path in ['DEFAULT', str(default)]:
            assert fetch_if_missing(path, 'train.txt') == path
        assert default.read_bytes() == content and len(server.ranges) == 3
