"""Weights from a download, from Caffe's files and from checkpoints."""
import http.server
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import alexnet
from alexnet import LAYERS, check_pretrained, fetch_weights, read_weights, tf
from golden import HERE, golden, write_caffemodel
from test_alexnet import Attack, build


def same(left, right):
    return set(left) == set(right) and all(
        np.array_equal(a, b) for name in left for a, b in zip(left[name], right[name]))


@pytest.fixture(scope='module')
def caffemodel(module_path):
    path = str(module_path / 'golden.caffemodel')
    write_caffemodel(path, golden()[1], old=True)
    return path


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


def test_full_caffemodels_are_read(caffemodel, golden_file, tmp_path):
    expected = read_weights(golden_file)
    assert same(read_weights(caffemodel), expected)
    path = str(tmp_path / 'new.caffemodel')
    write_caffemodel(path, golden()[1], old=False)
    assert same(read_weights(path), expected)


def test_caffemodel_as_weights_path_gives_the_activations_of_caffe(caffemodel):
    expected, _, images = golden()
    model = build(weights_path=caffemodel)
    with tf.Session() as session:
        model.load_initial_weights(session)
        output = session.run(model.fc8, {model.x: images, model.keep_prob: 1.})
    error = np.abs(output - expected['fc8']).max()
    assert error <= 2e-6 * np.abs(expected['fc8']).max()


def test_damaged_caffemodels_are_clear_errors(tmp_path):
    with open(os.path.join(HERE, 'data', 'tiny.caffemodel'), 'rb') as file:
        whole = file.read()
    for number, content in enumerate([
            b'', whole[:-1000], whole[:100], b'<html>404</html>', bytes(999),
            np.random.RandomState(0).bytes(999)]):
        path = tmp_path / ('%d.caffemodel' % number)
        path.write_bytes(content)
        with pytest.raises(ValueError, match='%d.caffemodel: not a' % number):
            read_weights(str(path))


def command(*arguments):
    process = subprocess.run(
        [sys.executable, os.path.join(os.path.dirname(HERE), 'alexnet.py')] +
        list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    return process.returncode, process.stdout


def test_command_line_converts_and_never_overwrites(caffemodel, golden_file, tmp_path):
    out = str(tmp_path / 'out.npy')
    assert command(caffemodel, out) == (0, 'Wrote %s\n' % out)
    assert same(read_weights(out), read_weights(golden_file))
    assert os.listdir(str(tmp_path)) == ['out.npy']
    status, output = command(caffemodel, out)
    assert status == 1 and output.startswith('%s is already there' % out)
    status, output = command(str(tmp_path / 'none.caffemodel'))
    assert status == 1 and output.startswith(str(tmp_path / 'none.caffemodel: no such'))


def test_checkpoint_becomes_weights_for_the_next_training(tmp_path):
    model = build(num_classes=3)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        checkpoint = tf.train.Saver().save(session, str(tmp_path / 'model_epoch1.ckpt'))
        expected = session.run(model.variables)
    assert command(checkpoint)[0] == 0
    out = str(tmp_path / 'model_epoch1.npy')
    assert same(read_weights(out), expected)
    tf.reset_default_graph()
    model = build(num_classes=3, weights_path=out)
    with tf.Session() as session:
        model.load_initial_weights(session)
        assert same(session.run(model.variables), expected)


class Server:
    """Serve one content; behaviour says how badly."""

    def __init__(self, content, behaviour=''):
        self.ranges, self.sent = [], 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                wanted = self.headers.get('Range')
                server.ranges.append(wanted)
                if behaviour == 'missing':
                    return self.send_error(404)
                if behaviour == 'silent':
                    return time.sleep(3)
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
                self.end_headers()
                if behaviour == 'slow':
                    for _ in range(30):
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
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def content(golden_file):
    with open(golden_file, 'rb') as file:
        return file.read()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(alexnet, 'TIMEOUT', 1)


def fetch(folder, *sources):
    """Fetch into folder; return what is there afterwards: {name: content}."""
    fetch_weights(str(folder / 'weights.npy'), list(sources))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch_fails(folder, *sources):
    with pytest.raises(OSError) as error:
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
    with Server(b'', 'missing') as bad, Server(content) as good:
        assert fetch(tmp_path, (bad.url, None), (good.url, None)) == {
            'weights.npy': content}
        (tmp_path / 'weights.npy').unlink()
        assert 'HTTP Error 404' in fetch_fails(tmp_path, (bad.url, None))
    assert 'refused' in fetch_fails(tmp_path, (bad.url, None))
    assert not list(tmp_path.iterdir())


def test_cut_connection_is_resumed_at_once(tmp_path, content):
    with Server(content, 'cuts') as server:
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    third = len(content) // 3
    assert server.ranges == [None, 'bytes=%d-' % third, 'bytes=%d-' % (2 * third),
                             'bytes=%d-' % (3 * third)]
    assert server.sent == len(content)


def test_earlier_download_is_resumed(tmp_path, content, monkeypatch):
    with Server(content, 'cuts') as server:
        with monkeypatch.context() as patch:
            patch.setattr(alexnet, 'receive', interrupted(alexnet.receive))
            with pytest.raises(KeyboardInterrupt):
                fetch(tmp_path, (server.url, None))
        [part] = tmp_path.iterdir()
        assert part.read_bytes() == content[:len(content) // 3]
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.sent == len(content)


def interrupted(receive):
    def stop(*args):
        try:
            receive(*args)
        except OSError:
            raise KeyboardInterrupt
    return stop


def test_server_without_ranges_starts_anew(tmp_path, content):
    with Server(content, 'no ranges') as server:
        url = server.url
        part = '%s.%s.part' % (tmp_path / 'weights.npy',
                               alexnet.hashlib.sha1(url.encode()).hexdigest()[:8])
        with open(part, 'wb') as file:
            file.write(b'something else')
        assert fetch(tmp_path, (url, None)) == {'weights.npy': content}
    assert server.ranges == ['bytes=14-']


def test_complete_part_needs_no_more_bytes(tmp_path, content):
    with Server(content) as server:
        part = '%s.%s.part' % (tmp_path / 'weights.npy', alexnet.hashlib.sha1(
            server.url.encode()).hexdigest()[:8])
        with open(part, 'wb') as file:
            file.write(content)
        assert fetch(tmp_path, (server.url, None)) == {'weights.npy': content}
    assert server.sent == 0


@pytest.mark.parametrize('behaviour, complaint', [
    ('silent', 'timed out'), ('slow', 'bytes in 1 seconds')])
def test_slow_servers_are_given_up(tmp_path, behaviour, complaint):
    with Server(b'x' * 1000000, behaviour) as server:
        start = time.time()
        assert complaint in fetch_fails(tmp_path, (server.url, None))
        assert time.time() - start < 10


def test_caffemodel_is_checked_and_converted(tmp_path, caffemodel, golden_file):
    with open(caffemodel, 'rb') as file:
        content = file.read()
    sha1 = alexnet.hashlib.sha1(content).hexdigest()
    with Server(content) as server:
        url = server.url + '.caffemodel'
        assert 'SHA-1 is %s, should be 9116a64c' % sha1 in fetch_fails(
            tmp_path, (url, '9116a64c0fbe4459d18f4bb6b56d647b63920377'))
        assert not list(tmp_path.iterdir())
        assert list(fetch(tmp_path, (url, sha1))) == ['weights.npy']
    assert same(read_weights(str(tmp_path / 'weights.npy')), read_weights(golden_file))


def test_attacking_pickle_is_refused_and_runs_nothing(tmp_path):
    target = str(tmp_path / 'owned')
    np.save(str(tmp_path / 'attack.npy'), {'conv1': Attack(target)})
    content = (tmp_path / 'attack.npy').read_bytes()
    assert pickle.PROTO in content
    (tmp_path / 'attack.npy').unlink()
    with Server(content) as server:
        assert 'refused to load' in fetch_fails(tmp_path, (server.url, None))
    assert not list(tmp_path.iterdir())


def test_only_complete_finite_weights_pass(golden_file):
    weights = read_weights(golden_file)
    check_pretrained(weights, 'file')
    weights['fc7'][1] = weights['fc7'][1].copy()
    weights['fc7'][1][5] = np.nan
    with pytest.raises(ValueError, match='file: fc7 holds numbers that are not finite'):
        check_pretrained(weights, 'file')
    for name in LAYERS[1:]:
        del weights[name]
    with pytest.raises(ValueError, match='conv2: missing'):
        check_pretrained(weights, 'file')
