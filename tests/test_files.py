"""Files that are written whole, on systems of all kinds."""
import errno
import json
import os
import stat

import numpy as np
import pytest

from machinery.checkpoint_files import list_checkpoints
from machinery.errors import InputError
from machinery.model_file import write_model
from machinery.numbered import NewFiles
from machinery.saver import save_checkpoint
from machinery.tf1 import tf
from machinery.weights import save_weights

WEIGHTS = {'fc8': [np.ones((2, 3), np.float32), np.ones(3, np.float32)]}


def save_all(folder):
    """Save a checkpoint, a model.json and a weight file; return the checkpoint."""
    path = str(folder / 'model_epoch1.ckpt')
    variable = tf.get_variable('fc8/weights', initializer=WEIGHTS['fc8'][0])
    with tf.Session() as session:
        session.run(variable.initializer)
        save_checkpoint(tf.train.Saver(), session, path)
    write_model(str(folder / 'model.json'), {'a': 1})
    save_weights(WEIGHTS, str(folder / 'my.npy'))
    return path


def is_whole(folder, path):
    return (list_checkpoints(str(folder)) == [path]
            and json.loads((folder / 'model.json').read_text()) == {'a': 1}
            and np.load(str(folder / 'my.npy'), allow_pickle=True).item().keys()
            == WEIGHTS.keys() and not list(folder.glob('*.part')))


def fails_with(number, fails):
    """Return an os.fsync that fails for descriptors like this, else does nothing."""
    def fsync(descriptor):
        if fails(descriptor):
            raise OSError(number, os.strerror(number))
    return fsync


def test_a_power_failure_or_a_full_disk_leaves_no_half(tmp_path, monkeypatch):
    synced, path = [], str(tmp_path / 'model.json')
    monkeypatch.setattr(os, 'fsync', lambda number: synced.append(is_folder(number)))
    write_model(path, {'a': 1})
    assert synced == [False, True]  # the file before it gets its name, then the folder
    monkeypatch.setattr(os, 'fsync', fails_with(errno.ENOSPC, lambda number: True))
    with pytest.raises(InputError, match='No space left'):
        write_model(path, {'a': 2})
    assert os.listdir(str(tmp_path)) == ['model.json']
    assert json.loads((tmp_path / 'model.json').read_text()) == {'a': 1}


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize('number', [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
def test_folders_that_cannot_be_synced_end_no_run(tmp_path, monkeypatch, number):
    """Such as on CIFS, and on some FUSE file systems."""
    monkeypatch.setattr(os, 'fsync', fails_with(number, is_folder))
    assert is_whole(tmp_path, save_all(tmp_path))


def test_windows_ends_no_run(tmp_path, monkeypatch):
    """It opens no folder, and syncs only what is open for writing."""
    fcntl, open_ = pytest.importorskip('fcntl'), os.open

    def open_file(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return open_(path, *args, **kwargs)
    monkeypatch.setattr(os, 'open', open_file)
    monkeypatch.setattr(os, 'fsync', fails_with(errno.EBADF, lambda number: (
        fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY)))
    assert is_whole(tmp_path, save_all(tmp_path))


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize('fails', [is_folder, lambda number: not is_folder(number)])
def test_disks_that_fail_are_still_errors(tmp_path, monkeypatch, number, fails):
    monkeypatch.setattr(os, 'fsync', fails_with(number, fails))
    with pytest.raises(OSError, match=os.strerror(number)):
        save_all(tmp_path)


def test_files_that_cannot_be_synced_do_not_appear(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'fsync', fails_with(errno.EINVAL, lambda number: True))
    for write in [lambda path: write_model(path, {}),
                  lambda path: save_weights(WEIGHTS, path)]:
        with pytest.raises(InputError, match='Invalid argument'):
            write(str(tmp_path / 'a'))
        assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('kind', [OSError, KeyboardInterrupt])
def test_file_whose_writing_fails_leaves_no_part(tmp_path, kind):
    error = (InputError, '/new.csv: No space left') if kind is OSError else (kind, None)
    with pytest.raises(error[0], match=error[1]):
        with NewFiles('unused').new(str(tmp_path / 'new.csv'), '') as file:
            file.write(b'part')
            assert not (tmp_path / 'new.csv').exists()
            raise kind(errno.ENOSPC, 'No space left on device')
    assert not list(tmp_path.iterdir())


def test_file_that_has_appeared_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match='/new.csv: File exists'):
        with NewFiles('unused').new(str(tmp_path / 'new.csv'), ''):
            (tmp_path / 'new.csv').write_text('mine')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['mine']
