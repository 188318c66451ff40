"""Fine-tune AlexNet on your own pictures.

Edit the variables below, or give them on the command line:
    python finetune.py --train_file=my/train.txt --num_epochs=3 --train_layers="['fc8']"
"""
import math
import os
import sys
import time

import numpy as np
from tqdm import tqdm

from alexnet import AlexNet, DEFAULT_WEIGHTS, check_layers, fetch_weights
from datagenerator import FeatureCache, ImageDataGenerator, read_command_line
import tensorflow.compat.v1 as tf

# Pictures
train_file = 'images/train.txt'  # a line "path label" for each picture
val_file = 'images/val.txt'
num_classes = 3
horizontal_flip = True  # mirror training pictures at random

# Learning
learning_rate = 0.003  # 0.001 suits the pretrained weights
num_epochs = 10
batch_size = 16  # 128 suits the pretrained weights
dropout_rate = 0.5  # share of fc6 and fc7 that is dropped, not kept
train_layers = ['fc8', 'fc7']
skip_layers = None  # layers that start fresh, not pretrained; None: the train_layers
weights_path = 'DEFAULT'  # 'DEFAULT': bvlc_alexnet.npy; None: start from the pictures
seed = 0

# Speed: what the frozen layers make of a picture is computed once
cache_features = True
cache_limit = 4.0  # GB of memory, 16 KB a picture for fc7; the rest goes to a file
cache_dir = None  # folder of that file, which ends with the process; None: the system's

# Output
display_step = 5  # steps between two summaries
filewriter_path = '/tmp/finetune_alexnet/tensorboard'
checkpoint_path = '/tmp/finetune_alexnet/checkpoints'

globals().update(read_command_line(globals(), sys.argv[1:]))
check_layers(train_layers, 'train_layers')
if skip_layers is None:
    skip_layers = train_layers
check_layers(skip_layers, 'skip_layers')
for name, fits, allowed in [
        ('learning_rate', learning_rate > 0, 'above 0'),
        ('num_epochs', num_epochs >= 1, '1 or more'),
        ('batch_size', batch_size >= 1, '1 or more'),
        ('dropout_rate', 0 <= dropout_rate < 1, 'in [0, 1)'),
        ('num_classes', num_classes >= 2, '2 or more'),
        ('seed', 0 <= seed < 2 ** 32, 'in [0, 2**32)'),
        ('display_step', display_step >= 1, '1 or more'),
        ('train_layers', len(train_layers) >= 1, 'at least one layer')]:
    if not fits:
        raise ValueError('%s is %r, must be %s' % (name, globals()[name], allowed))

if weights_path == 'DEFAULT' and not os.path.exists(DEFAULT_WEIGHTS):
    try:
        fetch_weights()
    except OSError as error:
        if train_file != 'images/train.txt':
            raise
        print('%s\nThe sample starts from its own pictures instead.' % error)
        weights_path = None

train_generator = ImageDataGenerator(train_file, horizontal_flip=horizontal_flip,
                                     shuffle=True, nb_classes=num_classes, seed=seed)
val_generator = ImageDataGenerator(val_file, nb_classes=num_classes)

tf.set_random_seed(seed)
x = tf.placeholder(tf.float32, [None, 227, 227, 3], 'x')
y = tf.placeholder(tf.float32, [None, num_classes], 'y')
keep_prob = tf.placeholder(tf.float32, [], 'keep_prob')
global_step = tf.train.create_global_step()

model = AlexNet(x, keep_prob, num_classes, skip_layers, weights_path, train_layers,
                dropout_seed=[seed, global_step])
logits = model.fc8
variables = [variable for layer in train_layers for variable in model.variables[layer]]

with tf.name_scope('loss'):
    loss = tf.reduce_mean(
        tf.nn.softmax_cross_entropy_with_logits_v2(labels=y, logits=logits))

with tf.name_scope('train'):
    gradients = tf.gradients(loss, variables)
    optimizer = tf.train.GradientDescentOptimizer(learning_rate)
    train_op = optimizer.apply_gradients(zip(gradients, variables), global_step)

with tf.name_scope('score'):
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))

# Histograms of evenly spaced values: all the millions of fc7 would cost a second.
with tf.control_dependencies([train_op]):
    updated = [variable.read_value() for variable in variables]
for gradient, value, variable in zip(gradients, updated, variables):
    spaced = slice(None, None, 1 + variable.shape.num_elements() // 1000000)
    tf.summary.histogram('gradient/' + variable.op.name,
                         tf.reshape(gradient, [-1])[spaced])
    tf.summary.histogram('variable/' + variable.op.name,
                         tf.reshape(value, [-1])[spaced])
tf.summary.scalar('cross_entropy', loss)
tf.summary.scalar('accuracy', accuracy)
summary = tf.summary.merge_all()


def cached(generator):
    """Return batches of what enters the first trained layer, in the same order."""
    if model.frozen is x:
        return generator
    share = generator.data_size / (train_generator.data_size + val_generator.data_size)
    return FeatureCache(
        generator, lambda images: session.run(model.frozen, {x: images, keep_prob: 1.}),
        int(cache_limit * 1e9 * share), cache_dir, cache_features)


def evaluate(batches):
    """Return the mean loss and accuracy over every sample."""
    batches.reset_pointer()
    totals = np.zeros(2)
    for _ in range(math.ceil(batches.data_size / batch_size)):
        features, labels = batches.next_batch(batch_size)
        means = session.run([loss, accuracy],
                            {model.frozen: features, y: labels, keep_prob: 1.})
        totals += np.multiply(means, len(features))
    return totals / batches.data_size


saver = tf.train.Saver()

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    if weights_path is None:
        model.initialize_from_data(session, train_generator.next_batch(64)[0])
    else:
        model.load_initial_weights(session)
    print(model.table())

    os.makedirs(checkpoint_path, exist_ok=True)
    train_writer = tf.summary.FileWriter(os.path.join(filewriter_path, 'train'),
                                         session.graph)
    val_writer = tf.summary.FileWriter(os.path.join(filewriter_path, 'validation'))

    train_batches, val_batches = cached(train_generator), cached(val_generator)
    steps_per_epoch = math.ceil(train_generator.data_size / batch_size)
    step = 0
    for epoch in range(1, num_epochs + 1):
        train_batches.reset_pointer(epoch)
        start, waited = time.time(), train_generator.seconds_waited
        bar = tqdm(total=train_generator.data_size, unit=' images', disable=None,
                   desc='Epoch %d/%d' % (epoch, num_epochs))
        for _ in range(steps_per_epoch):
            features, labels = train_batches.next_batch(batch_size)
            step += 1
            display = step % display_step == 0
            _, batch_loss, batch_accuracy, *summaries = session.run(
                [train_op, loss, accuracy] + [summary] * display,
                {model.frozen: features, y: labels, keep_prob: 1. - dropout_rate})
            if display:
                train_writer.add_summary(summaries[0], step)
            bar.set_postfix(loss='%.4f' % batch_loss, accuracy='%.4f' % batch_accuracy)
            bar.update(len(features))
            if display and bar.disable:
                print('Epoch %d/%d, step %d: loss %.4f, accuracy %.4f'
                      % (epoch, num_epochs, step, batch_loss, batch_accuracy))
        bar.close()
        seconds = time.time() - start
        waited = train_generator.seconds_waited - waited

        val_loss, val_accuracy = evaluate(val_batches)
        val_writer.add_summary(tf.Summary(value=[
            tf.Summary.Value(tag='cross_entropy', simple_value=val_loss),
            tf.Summary.Value(tag='accuracy', simple_value=val_accuracy)]), step)
        train_writer.flush()
        val_writer.flush()
        checkpoint = saver.save(
            session, os.path.join(checkpoint_path, 'model_epoch%d.ckpt' % epoch))
        print('Epoch %d/%d: validation loss %.4f, accuracy %.4f; trained at %.0f '
              'images/s, waiting for pictures %.0f %% of the time'
              % (epoch, num_epochs, val_loss, val_accuracy,
                 train_generator.data_size / seconds, 100 * waited / seconds))

print('Curves:     tensorboard --logdir %s' % filewriter_path)
print('Checkpoint: %s' % checkpoint)
