"""Scripts like the tutorial's, for the interfaces of its two versions."""
import glob
import os

import numpy as np
import pytest

from alexnet import AlexNet
from datagenerator import ImageDataGenerator, load_image, normalize
from helpers import ROOT
from machinery.errors import InputError
from machinery.tf1 import tf

TRAIN, VAL = [os.path.join(ROOT, 'images', name) for name in ('val.txt', 'test.txt')]
pytestmark = pytest.mark.usefixtures('narrow_network')


class Script:
    """What scripts for either version build alike, to train fc8 on three classes."""

    def __init__(self, weights_path):
        tf.set_random_seed(0)
        self.x = tf.placeholder(tf.float32, [None, 227, 227, 3], 'x')
        self.y = tf.placeholder(tf.float32, [None, 3])
        self.keep_prob = tf.placeholder(tf.float32, name='keep_prob')
        self.model = AlexNet(self.x, self.keep_prob, 3, ['fc8'], weights_path)
        self.score = self.model.fc8
        variables = [variable for variable in tf.trainable_variables()
                     if variable.name.split('/')[0] in ['fc8']]
        self.loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
            logits=self.score, labels=self.y))
        gradients = list(zip(tf.gradients(self.loss, variables), variables))
        self.train_op = tf.train.GradientDescentOptimizer(0.1).apply_gradients(
            grads_and_vars=gradients)

    def feed(self, batch):
        return {self.x: batch[0], self.y: batch[1], self.keep_prob: 1.}

    def train(self, session, batch):
        return session.run([self.loss, self.train_op], self.feed(batch))[0]

    def train_epoch(self, session, start, next_batch, steps):
        """Train on a dataset that start begins; return the mean loss."""
        session.run(start)
        return np.mean([self.train(session, session.run(next_batch))
                        for _ in range(steps)])


def test_first_version_with_next_batch(narrow_file, tmp_path):
    script = Script(narrow_file)
    train = ImageDataGenerator(TRAIN, horizontal_flip=True, shuffle=True, nb_classes=3)
    val = ImageDataGenerator(VAL, shuffle=False, nb_classes=3)
    assert len(train.images) == len(train.labels) == train.data_size == 54
    assert train.n_classes == 3
    steps = np.floor(train.data_size / 16).astype(np.int16)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        script.model.load_initial_weights(session)
        losses = []
        for _ in range(2):
            losses.append(np.mean([script.train(session, train.next_batch(16))
                                   for _ in range(steps)]))
            batch = val.next_batch(16)
            session.run(script.score, script.feed(batch))
            val.reset_pointer()
            train.reset_pointer()
        assert losses[1] < losses[0]
        expected = session.run(script.score, script.feed(batch))
        tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))

    # Other scripts look tensors up by name in the saved graph.
    tf.reset_default_graph()
    with tf.Session() as session:
        saver = tf.train.import_meta_graph(str(tmp_path / 'model.ckpt.meta'))
        saver.restore(session, str(tmp_path / 'model.ckpt'))
        by_name = tf.get_default_graph().get_tensor_by_name
        found, fc7, *_ = session.run(
            [by_name(name) for name in [
                'fc8/fc8:0', 'fc7/fc7:0', 'fc6/fc6:0', 'conv1/conv1:0', 'conv5/conv5:0',
                'norm1:0', 'pool1:0', 'pool5:0']],
            {by_name('x:0'): batch[0], by_name('keep_prob:0'): 1.})
    assert (found == expected).all() and fc7.min() < 0  # before its ReLU


def test_second_version_with_datasets(narrow_file):
    script = Script(narrow_file)
    with tf.device('/cpu:0'):
        train = ImageDataGenerator(TRAIN, mode='training', batch_size=16, num_classes=3,
                                   shuffle=True)
        val = ImageDataGenerator(VAL, mode='inference', batch_size=16, num_classes=3,
                                 shuffle=False)
        iterator = tf.data.Iterator.from_structure(train.data.output_types,
                                                   train.data.output_shapes)
        next_batch = iterator.get_next()
    start_training = iterator.make_initializer(train.data)
    start_validation = iterator.make_initializer(val.data)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        script.model.load_initial_weights(session)
        losses = []
        for _ in range(2):
            losses.append(script.train_epoch(session, start_training, next_batch,
                                             train.data_size // 16))
            session.run(start_validation)
            images, labels = zip(*[session.run(next_batch) for _ in range(2)])
            with pytest.raises(tf.errors.OutOfRangeError):
                session.run(next_batch)
    assert losses[1] < losses[0]
    assert (np.concatenate(labels).argmax(1) == val.labels).all()
    np.testing.assert_array_equal(np.concatenate(images),
                                  normalize([load_image(path) for path in val.paths]))


def test_chinese_translation_with_paths_and_labels(narrow_file, monkeypatch):
    """stephen-v/tensorflow_alexnet_classify passes images and labels as lists."""
    monkeypatch.chdir(os.path.join(ROOT, 'images', 'textures'))
    script = Script(narrow_file)
    paths = sorted(glob.glob('*/val_*.jpg'))
    labels = [sorted(os.listdir('.')).index(path.split(os.sep)[0]) for path in paths]
    train = ImageDataGenerator(images=paths, labels=labels, batch_size=16,
                               num_classes=3, image_format='jpg')
    test = ImageDataGenerator(images=paths, labels=labels, batch_size=16, num_classes=3,
                              image_format='jpg', shuffle=False)
    iterator = tf.data.Iterator.from_structure(train.data.output_types,
                                               train.data.output_shapes)
    start_training = iterator.make_initializer(train.data)
    start_testing = iterator.make_initializer(test.data)
    next_batch = iterator.get_next()
    assert train.data_size == len(paths) == 54
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        script.model.load_initial_weights(session)
        losses = [script.train_epoch(session, start_training, next_batch,
                                     train.data_size // 16) for _ in range(2)]
        session.run(start_testing)
        images, one_hot = session.run(next_batch)
    assert losses[1] < losses[0]
    assert one_hot.argmax(1).tolist() == labels[:16]
    np.testing.assert_array_equal(images, normalize(
        [load_image(path) for path in paths[:16]]))


def test_each_start_of_a_dataset_is_another_epoch():
    data = ImageDataGenerator(TRAIN, mode='training', batch_size=54, num_classes=3)
    iterators = [tf.data.make_initializable_iterator(data.data) for _ in range(2)]
    with tf.Session() as session:
        for iterator in iterators:
            session.run(iterator.initializer)
        (first, one), (second, other) = session.run(
            [iterator.get_next() for iterator in iterators])
    assert (one != other).any()
    np.testing.assert_array_equal(np.sort(first.sum((1, 2, 3))),
                                  np.sort(second.sum((1, 2, 3))))


def test_what_the_second_version_refuses_is_refused():
    for arguments in [{'mode': 'testing', 'batch_size': 8}, {'mode': 'training'},
                      {'horizontal_flip': 'training'}]:
        with pytest.raises(InputError, match='(mode|batch_size|horizontal_flip) is'):
            ImageDataGenerator(TRAIN, num_classes=3, **arguments)


@pytest.mark.parametrize('skip_layer', ['', [], None, ['pool1', 'norm2', 'pool5']])
def test_no_layer_to_skip_has_many_spellings(skip_layer):
    x = tf.placeholder(tf.float32, [16, 240, 258, 3])
    model = AlexNet(x, 0.5, 2, skip_layer)
    assert model.SKIP_LAYER == [] and model.X is x and model.NUM_CLASSES == 2
    assert model.WEIGHTS_PATH.endswith('bvlc_alexnet.npy')
