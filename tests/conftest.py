import os
import shutil
import signal

import numpy as np
import pytest

from alexnet import AlexNet
from helpers import (NAMES, ROOT, finetune, golden, images_of, make_narrow, narrow,
                     to_tensorflow, write_narrow_weights)
from machinery.labels import OneClass
from machinery.lists import read_list
from machinery.tf1 import tf

# A shell lets what it starts in the background ignore Ctrl-C, and so would our scripts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No download leaves this machine. Processes that are forked from a server import ours.
os.environ.update(http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9',
                  no_proxy='127.0.0.1', PYTHONPATH=ROOT + os.pathsep + ROOT + '/tests')


@pytest.fixture(autouse=True)
def new_graph():
    tf.reset_default_graph()


@pytest.fixture(scope='module')
def module_path(tmp_path_factory):
    """A folder for the tests of a module; its checkpoints would fill the disk."""
    path = tmp_path_factory.mktemp('module')
    yield path
    shutil.rmtree(str(path))


@pytest.fixture(scope='session')
def golden_file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('weights') / 'golden.npy')
    np.save(path, to_tensorflow(golden()[1]))
    return path


@pytest.fixture(scope='session')
def narrow_file(tmp_path_factory):
    """Weights of a narrow network, made from the sample's pictures: runs are short.

    See helpers.make_narrow.
    """
    path = str(tmp_path_factory.mktemp('weights') / 'narrow.npy')
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch.setattr)
        write_narrow_weights(path)
    return path


@pytest.fixture(scope='module')
def narrow_network(narrow_file):
    """Let a module's tests have narrow networks, for which narrow_file has weights."""
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch.setattr)
        yield


@pytest.fixture(scope='session')
def trained(tmp_path_factory, narrow_file):
    """A folder of checkpoints, trained on the sample with names and a test list."""
    path = tmp_path_factory.mktemp('trained')
    (path / 'classes.txt').write_text('\n'.join(NAMES))
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch.setattr)
        status, output = finetune(
            path, '--weights_path=' + narrow_file, '--num_epochs=2',
            '--batch_size=32', '--test_file=images/test.txt',
            '--classes_file=%s/classes.txt' % path, draws=True)
    assert status == 0, output
    return str(path / 'new' / 'checkpoints' / '1'), output


@pytest.fixture(scope='session')
def expected(trained):
    """Paths, labels, probabilities and fc7 of the test list, computed here."""
    paths, labels, _ = read_list(os.path.join(ROOT, 'images', 'test.txt'),
                                 OneClass(range(3)))
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default():
        make_narrow(patch.setattr)
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        model = AlexNet(x, 1., 3, [], None)
        with tf.Session() as session:
            tf.train.Saver().restore(session, trained[0] + '/model_best.ckpt')
            probabilities, fc7 = session.run([tf.nn.softmax(model.fc8), model.fc7],
                                             {x: images_of(paths)})
    return paths, labels, probabilities, fc7


@pytest.fixture(scope='session')
def narrow_golden_file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('weights') / 'golden.npy')
    np.save(path, narrow(to_tensorflow(golden()[1])))
    return path


@pytest.fixture(scope='session')
def features_path(tmp_path_factory):
    """A store of features, for runs that compute the same ones: it takes them 2 s."""
    return str(tmp_path_factory.mktemp('features'))
