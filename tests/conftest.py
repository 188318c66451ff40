import os
import shutil

import numpy as np
import pytest

from alexnet import AlexNet
from datagenerator import ImageDataGenerator
from helpers import ROOT, golden, to_tensorflow
from machinery.tf1 import tf
from machinery.weights import read_weights, save_weights

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
def start_file(tmp_path_factory):
    """Weights made from the sample's pictures, which takes a run 4 s."""
    path = str(tmp_path_factory.mktemp('weights') / 'start.npy')
    data = ImageDataGenerator(os.path.join(ROOT, 'images', 'train.txt'), shuffle=True,
                              nb_classes=3)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        model = AlexNet(x, 1., 3, [], None)
        session.run(tf.global_variables_initializer())
        model.initialize_from_data(session, {x: data.next_batch(64)[0]})
        save_weights(session.run(model.variables), path)
    return path


@pytest.fixture(scope='session')
def narrow_file(start_file, tmp_path_factory):
    """The same for a narrow network, see helpers.narrow_fc."""
    path = str(tmp_path_factory.mktemp('weights') / 'narrow.npy')
    weights = read_weights(start_file)
    for name in ['fc6', 'fc7', 'fc8']:
        array, biases = weights[name]
        array = array if name == 'fc6' else array[:64]
        weights[name] = [array[:, :64], biases[:64]]
    save_weights(weights, path)
    return path
