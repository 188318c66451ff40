import os
import shutil
import signal

import numpy as np
import pytest

from helpers import (ROOT, golden, make_narrow, narrow, to_tensorflow,
                     write_narrow_weights)
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
def narrow_golden_file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('weights') / 'golden.npy')
    np.save(path, narrow(to_tensorflow(golden()[1])))
    return path


@pytest.fixture(scope='session')
def features_path(tmp_path_factory):
    """A store of features, for runs that compute the same ones: it takes them 2 s."""
    return str(tmp_path_factory.mktemp('features'))
