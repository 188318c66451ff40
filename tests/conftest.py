import os
import shutil

import numpy as np
import pytest

from helpers import ROOT, golden, to_tensorflow
from machinery.tf1 import tf

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
