"""Features outlive a run; whatever happens to their files, wrong ones are not used."""
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import cv2
import numpy as np
import pytest

import alexnet
from datagenerator import ImageDataGenerator, load_image
from helpers import KEY, ROOT, files
from machinery import feature_key, store, tf1
from machinery.features import Features
from machinery.store import Store, names_of
from machinery.tf1 import assign, session_config, tf
from test_features import (TRAIN, Forward, pictures, run_epoch,  # noqa: F401
                           size_of_passes, stored)

ROW = 8 * 8 * 3 * 4  # bytes


def fill(folder):
    """Let a run store all plain pictures of the training list; return its features."""
    return run_epoch(stored(unmirrored(), Forward(), folder), 0)[0]


def unmirrored(**kwargs):
    return ImageDataGenerator(TRAIN, nb_classes=3, scale_size=(8, 8), **kwargs)


def only(folder, ending):
    """Return the path of the only file with an ending in the folder of a key."""
    [path] = glob.glob('%s/%s/*.%s' % (folder, KEY, ending))
    return path


def run(code, *arguments, **kwargs):
    """Start Python code as a process of its own."""
    return subprocess.Popen([sys.executable, '-c', code] + list(map(str, arguments)),
                            stdout=subprocess.PIPE, cwd=ROOT, **kwargs)


def test_the_next_run_computes_nothing(tmp_path):
    first, second = [stored(pictures(), Forward(), tmp_path) for _ in range(2)]
    expected = [run_epoch(first, epoch)[0] for epoch in range(3)]
    assert first._forward.rows > 135
    second = stored(pictures(), Forward(), tmp_path)
    for epoch, features in enumerate(expected):
        assert (run_epoch(second, epoch)[0] == features).all()
    # Eight rows are compared at the start.
    assert (second._forward.passes, second._forward.rows) == (1, 8)
    assert len(files(tmp_path)) == 3  # no new ones


def flip(path, place):
    data = bytearray(open(path, 'rb').read())
    data[place] ^= 1
    open(path, 'wb').write(data)


def foreign(folder):
    """Put the index of other pictures beside the rows."""
    path = only(folder, 'index')
    records = np.fromfile(path, store.RECORD)
    records['name'] = records['name'][::-1].copy()
    records.tofile(path)


@pytest.mark.parametrize('damage, lost', [
    (lambda folder: os.truncate(only(folder, 'rows'), 100 * ROW + 5), 35),
    (lambda folder: os.truncate(only(folder, 'index'), 100 * 20 + 5), 35),
    (lambda folder: os.truncate(only(folder, 'index'), 0), 135),
    (lambda folder: flip(only(folder, 'rows'), 70 * ROW + 9), 1),
    (lambda folder: flip(only(folder, 'index'), 70 * 20 + 8), 1),  # the name
    (lambda folder: flip(only(folder, 'index'), 70 * 20), 1),  # is it mirrored?
    (lambda folder: flip(only(folder, 'index'), 70 * 20 + 16), 1),  # the checksum
    (foreign, 134),  # the one in the middle is right
    (lambda folder: os.remove(only(folder, 'rows')), 135),
    (lambda folder: os.remove(only(folder, 'index')), 135)])
def test_damaged_rows_are_computed_again(tmp_path, damage, lost):
    expected = fill(tmp_path)
    damage(str(tmp_path))
    for rows in (lost, 0):  # once
        forward = Forward()
        features = stored(unmirrored(), forward, tmp_path)
        forward.rows = 0  # those of the check
        for _ in range(2):
            assert (run_epoch(features, 0)[0] == expected).all()
        assert forward.rows == rows


def test_a_row_that_is_cut_off_during_the_run_is_computed_again(tmp_path):
    expected = fill(tmp_path)
    features = stored(unmirrored(), Forward(), tmp_path)
    os.truncate(only(tmp_path, 'rows'), 60 * ROW)
    found = np.concatenate([batch.images for batch in features.batches(50)])
    assert (found == expected).all() and features._forward.rows == 8 + 75


@pytest.mark.parametrize('is_new', [True, False])
def test_a_picture_that_was_changed_is_computed_again(tmp_path, is_new):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.full((8, 8, 3), 7, np.uint8))
    (tmp_path / 'list.txt').write_text('a.png 0\n')

    def features(**kwargs):
        data = ImageDataGenerator(str(tmp_path / 'list.txt'), scale_size=(8, 8),
                                  **kwargs)
        return run_epoch(stored(data, forward, tmp_path), 0)[0]
    forward = Forward()
    assert (features() == 14).all() and forward.passes == 1
    if is_new:  # of the same size
        time = os.stat(path).st_mtime_ns
        cv2.imwrite(path, np.full((8, 8, 3), 9, np.uint8))
        os.utime(path, ns=(time + 1, time + 1))
        assert (features() == 18).all()
    else:  # or the same picture, cut in another way
        features(margin=4)
    assert forward.passes == 2


def test_load_of_a_subclass_is_stored_for_this_run_alone(tmp_path):
    class Dark(ImageDataGenerator):
        def load(self, *args):
            return super().load(*args) // 2

    features = stored(Dark(TRAIN, nb_classes=3, scale_size=(8, 8)), Forward(), tmp_path)
    for _ in range(2):
        run_epoch(features, 0)
    assert features._forward.passes == 3 and files(tmp_path) == ['.lock']


def test_rows_that_are_no_longer_right_start_another_key(tmp_path):
    expected = fill(tmp_path)
    for _ in range(2):
        features = stored(unmirrored(), lambda images: np.float32(images) * 2.0001,
                          tmp_path)
        assert np.allclose(run_epoch(features, 0)[0], expected * 1.00005, atol=1e-6)
    features = stored(unmirrored(), Forward(), tmp_path)
    assert (run_epoch(features, 0)[0] == expected).all()
    assert features._forward.passes == 1
    assert sorted(os.listdir(str(tmp_path))) == [KEY, KEY + '-2']
    # A list whose pictures change at random has no rows to compare.
    changed = unmirrored(augment=lambda image, rng: image + 1)
    assert stored(changed, Forward(), tmp_path)._store._folder.endswith(KEY)


WRITER = '''
import os, sys
import numpy as np
from machinery.store import Store, names_of
folder, key, first, count = sys.argv[1:]
store = Store([1000], folder, key)
paths = ['%d.jpg' % number for number in range(1000)]
start = store.register(paths, '')
print('ready', flush=True)
sys.stdin.readline()
for number in range(int(first), int(first) + int(count)):
    store.add(np.array([start + 2 * number]), np.full((1, 1000), number, np.float32),
              names_of(['%d.jpg' % number], ''))
    if number == int(first):
        print('written', flush=True)
'''


def numbers(folder):
    """Return the numbers of all rows that WRITERs have stored; they must be right."""
    found, rows = Store([1000], str(folder), KEY), np.empty((1000, 1000), np.float32)
    first = found.register(['%d.jpg' % number for number in range(1000)], '')
    is_whole = found.read(first + 2 * np.arange(1000), rows)
    assert (rows[is_whole] == np.flatnonzero(is_whole)[:, None]).all()
    return list(np.flatnonzero(is_whole))


def test_processes_append_at_once(tmp_path):
    writers = [run(WRITER, tmp_path, KEY, first, 400, stdin=subprocess.PIPE)
               for first in (0, 300)]
    for writer in writers:
        assert writer.stdout.readline() == b'ready\n'
    for writer in writers:
        writer.stdin.write(b'\n')
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert numbers(tmp_path) == list(range(700))
    assert len(glob.glob('%s/%s/*.rows' % (tmp_path, KEY))) == 2


def test_a_kill_while_writing_costs_that_row_alone(tmp_path):
    writer = run(WRITER.replace("print('written'", "print('written', flush=True)\n"
                                "        store._own[1].write = lambda data: "
                                "os.kill(os.getpid(), 9)\n        print(''"),
                 tmp_path, KEY, 0, 400, stdin=subprocess.PIPE)
    writer.communicate(b'\n')
    assert writer.returncode == -signal.SIGKILL
    assert os.path.getsize(only(tmp_path, 'rows')) == 2 * 4000
    assert numbers(tmp_path) == [0]


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_a_full_disk_costs_time_but_no_features(monkeypatch, capsys):
    monkeypatch.setattr(store.tempfile, 'TemporaryFile',
                        lambda **kwargs: open('/dev/full', 'r+b', buffering=0))
    forward, plain = Forward(), pictures()
    features = stored(pictures(), forward)
    for _ in range(3):
        assert (run_epoch(features, 0)[0] == run_epoch(plain, 0)[0] * 2.).all()
    assert forward.rows == 3 * 135
    assert capsys.readouterr().out.splitlines() == [
        'Warning: no more features are stored ([Errno 28] No space left on device), so '
        'the others are computed again in each epoch']


def test_a_store_leaves_a_part_of_the_disk_free(tmp_path, monkeypatch, capsys):
    usage, free = shutil.disk_usage(str(tmp_path)), [50, 50, 4, 4, 50]
    monkeypatch.setattr(store.shutil, 'disk_usage', lambda path: usage._replace(
        total=100, free=free.pop(0)))
    fill(tmp_path)
    assert os.path.getsize(only(tmp_path, 'rows')) == 100 * ROW and free == [4, 50]
    assert capsys.readouterr().out.count('less than 5 % of the disk is free') == 1


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / KEY).write_text('a file')
    assert (fill(tmp_path) == run_epoch(unmirrored(), 0)[0] * 2.).all()
    assert capsys.readouterr().out.count('features are not kept for the next run') == 1


def test_the_limit_deletes_the_oldest_keys_that_nobody_uses(tmp_path):
    keys = [letter * 64 for letter in 'abcd'] + ['b' * 64 + '-2']
    for age, key in enumerate(keys):
        (tmp_path / key).mkdir()
        for name in ('.lock', 'host-1-0123abcd.rows', 'host-1-0123abcd.index'):
            path = tmp_path / key / name
            path.write_bytes(b' ' * 500 * (name != '.lock'))
            os.utime(str(path), (1000 + age, 1000 + age))
    (tmp_path / keys[1] / 'mine.rows').write_text('mine')
    (tmp_path / 'mine').mkdir()
    user = Store([1], str(tmp_path), keys[0])
    os.utime(str(tmp_path / keys[0] / '.lock'), (1, 1))
    Store([1], str(tmp_path), KEY, limit=3.5e-6)
    assert sorted(files(tmp_path)) == sorted(
        4 * ['.lock'] + 3 * ['host-1-0123abcd.rows', 'host-1-0123abcd.index']
        + ['mine.rows'])
    assert sorted(os.listdir(str(tmp_path))) == sorted(
        [KEY, keys[0], keys[1], keys[3], keys[4], 'mine'])
    assert os.listdir(str(tmp_path / keys[1])) == ['mine.rows']
    del user
    Store([1], str(tmp_path), KEY, limit=0)
    assert sorted(os.listdir(str(tmp_path))) == sorted([KEY, keys[1], 'mine'])


def test_a_folder_in_memory_or_of_another_user_is_told(monkeypatch, tmp_path, capsys):
    Store([1], str(tmp_path), KEY)
    assert 'belongs' not in capsys.readouterr().out
    monkeypatch.setattr(os, 'getuid', lambda: os.stat(str(tmp_path)).st_uid + 1)
    Store([1], str(tmp_path), KEY)
    assert 'belongs to another user' in capsys.readouterr().out
    with open('/proc/mounts') as file:
        if ' /dev/shm tmpfs ' not in file.read():
            pytest.skip('no file system in memory here')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        Store([1], folder, KEY)
    assert 'is in memory (tmpfs)' in capsys.readouterr().out


OPENER = '''
import sys, time
import numpy as np
from machinery.store import Store
folder, key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
paths = ['photos/a_picture_%d.jpg' % number for number in range(count)]
start = time.process_time()
store = Store([100], folder, key)
first = store.register(paths, '')
print(time.process_time() - start)
rows = np.empty((100, 100), np.float32)
for start in range(0, count, 100):
    assert store.read(first + 2 * np.arange(start, start + 100), rows).all()
    assert (rows[:, 0] == np.arange(start, start + 100)).all()
[peak] = [line for line in open('/proc/self/status') if line.startswith('VmHWM')]
print(int(peak.split()[1]) / 1e3)
'''


def test_many_rows_are_opened_soon_and_take_no_memory(tmp_path):
    found = []
    for key, count in [('1' * 64, 2000), ('2' * 64, 200000)]:
        rows = np.repeat(np.arange(count, dtype=np.float32)[:, None], 100, 1)
        records = np.zeros(count, store.RECORD)
        os.chdir(ROOT)
        records['name'] = names_of(
            ['photos/a_picture_%d.jpg' % number for number in range(count)], '')
        records['checksum'] = [store.checksum(name, row) for name, row in zip(
            records['name'].copy(), rows)]
        (tmp_path / key).mkdir()
        rows.tofile(str(tmp_path / key / 'host-1-0123abcd.rows'))
        records.tofile(str(tmp_path / key / 'host-1-0123abcd.index'))
        output, _ = run(OPENER, tmp_path, key, count).communicate()
        found.append(list(map(float, output.split())))
    (_, few), (seconds, many) = found
    assert seconds < 5  # of the processor, if others use it, too
    assert many - few < 100


def key_of(load=load_image, value=1., stride=1, keep_prob=1., seed=None, name='fc',
           threads=0):
    """Return the key of a small network with dropout before its last layer."""
    options = tf.ConfigProto(intra_op_parallelism_threads=threads)
    with tf.Graph().as_default(), tf.Session(config=options) as session:
        tf.set_random_seed(seed)
        x = tf.placeholder(tf.uint8, [None, 8, 8, 3], name + '_pictures')
        x = tf.reduce_mean(tf.cast(x, tf.float32)[:, ::stride], [1, 2])
        first = alexnet.fc(x, 3, 5, name + '_first')
        dropped = alexnet.dropout(first, keep_prob, 'dropout')
        second = alexnet.fc(dropped, 5, 4, name + '_second')
        for variable in tf.global_variables():
            assign(session, variable, np.full(variable.shape.as_list(), value))
        return feature_key.feature_key(session, second, {dropped: first}, load)


def test_each_thing_that_features_depend_on_changes_the_key(monkeypatch):
    keys = [key_of(), key_of(value=2.), key_of(stride=2)]
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '0')
    keys.append(key_of())
    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '1')  # changes no result
    monkeypatch.setenv('TF_CONFIG', '{}')
    assert keys[-1] == key_of()
    monkeypatch.setattr(feature_key, 'list_gpus', lambda: ['a GPU'])
    keys.append(key_of())
    monkeypatch.setattr(feature_key, 'find_pass_size', lambda: 7)
    keys.append(key_of())
    monkeypatch.setattr(feature_key.cv2, '__version__', '0')
    keys.append(key_of())

    def changed(path, *args, **kwargs):
        return load_image(path, *args, **kwargs) + 1
    monkeypatch.setattr(feature_key.inspect, 'getsource', lambda module: 'edited')
    keys += [key_of(), key_of(changed)]
    assert len(set(keys)) == len(keys) and all(len(key) == 64 for key in keys)


def test_what_features_do_not_depend_on_does_not_change_the_key():
    assert len({key_of(), key_of(name='other'), key_of(keep_prob=0.5), key_of(seed=3),
                key_of(threads=1)}) == 1


def test_number_of_cores_does_not_change_the_key(monkeypatch):
    before = key_of()
    monkeypatch.setattr(tf1, 'count_cores', lambda: 7)
    assert session_config().intra_op_parallelism_threads == 7
    assert key_of() == before


def test_hidden_code_has_no_key():
    x = tf.placeholder(tf.uint8, [None, 8, 8, 3])
    layer = tf.py_func(lambda images: np.float32(images), [x], tf.float32)
    layer.set_shape([None, 8, 8, 3])
    with tf.Session() as session:
        assert feature_key.feature_key(session, layer, {}, load_image) is None


def test_a_picture_that_changes_during_the_run_is_not_stored(tmp_path):
    """It would be taken for the earlier one, if that came back."""
    lines = open(TRAIN).read().split()[:8:2]
    for number, name in enumerate(lines):
        shutil.copy(os.path.join(os.path.dirname(TRAIN), name),
                    str(tmp_path / ('%d.jpg' % number)))
    (tmp_path / 'list').write_text(''.join('%d.jpg 0\n' % n for n in range(4)))
    data = ImageDataGenerator(str(tmp_path / 'list'), scale_size=(8, 8))
    for expected in (3, 4):
        features = stored(data, Forward(), tmp_path)
        os.utime(str(tmp_path / '2.jpg'), (expected, expected))
        run_epoch(features, 0)
        features = stored(data, Forward(), tmp_path)
        assert features._store.has(np.arange(0, 8, 2)).sum() == expected
        os.utime(str(tmp_path / '2.jpg'), (4, 4))


def test_code_without_a_source_is_for_this_process_alone(monkeypatch, tmp_path):
    def fail(_):
        raise OSError('typed into a notebook')
    monkeypatch.setattr(feature_key.inspect, 'getsource', fail)
    assert key_of() is None
    run_epoch(Features(unmirrored(), Forward(), Store((8, 8, 3), str(tmp_path), None)),
              0)
    assert files(tmp_path) == []
