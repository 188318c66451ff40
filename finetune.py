"""Fine-tune AlexNet on your own pictures.

Edit the variables below, or give them on the command line:
    python finetune.py --train_file=my/train.txt --num_epochs=3 --train_layers="['fc8']"
"""
import glob
import math
import os
import signal
import sys
import time

import numpy as np
from tqdm import tqdm

from alexnet import (AlexNet, DEFAULT_WEIGHTS, check_layers, choose_checkpoint,
                     copy_checkpoint, fetch_weights, restore_checkpoint,
                     warn_of_changes, write_model_file)
from datagenerator import (FeatureCache, ImageDataGenerator, check_images,
                           check_settings, list_warnings, read_class_names,
                           read_command_line)
from distributed import Workers, reason_of
from predict import (draw_confusions, draw_filters, draw_mistakes, export_model,
                     write_projector)
import tensorflow.compat.v1 as tf

# Pictures
train_file = 'images/train.txt'  # a line "path label" for each picture
val_file = 'images/val.txt'
test_file = None  # on it the best checkpoint is evaluated in the end
classes_file = None  # a line with the name of each class
on_bad_image = 'stop'  # or 'skip': go on without the pictures that cannot be read
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
export_path = None  # a new folder for a SavedModel of the best checkpoint
peer_timeout = 120  # seconds; of several machines, see distributed.py
resume = False  # True: go on from the newest checkpoint there; or a checkpoint's path

globals().update(read_command_line(globals(), sys.argv[1:]))
check_layers(train_layers, 'train_layers')
if skip_layers is None:
    skip_layers = train_layers
check_layers(skip_layers, 'skip_layers')
check_settings(globals(), [
    ('learning_rate', learning_rate > 0, 'above 0'),
    ('num_epochs', num_epochs >= 1, '1 or more'),
    ('batch_size', 1 <= batch_size <= 10 ** 5, 'in 1..100000'),
    ('dropout_rate', 0 <= dropout_rate < 1, 'in [0, 1)'),
    ('num_classes', 2 <= num_classes <= 10 ** 6, 'in 2..1000000'),
    ('seed', 0 <= seed < 2 ** 32, 'in [0, 2**32)'),
    ('cache_limit', 0 <= cache_limit < 10 ** 6, 'in [0, 1000000)'),
    ('display_step', display_step >= 1, '1 or more'),
    ('train_layers', len(train_layers) >= 1, 'at least one layer'),
    ('on_bad_image', on_bad_image in ('stop', 'skip'), "'stop' or 'skip'"),
    ('cache_dir', cache_dir is None or os.path.isdir(cache_dir), 'None or a folder'),
    ('peer_timeout', peer_timeout >= 10, '10 or more'),
    ('export_path', not export_path or not os.path.exists(export_path),
     'a folder that does not exist yet')])

workers = Workers(os.environ.get('TF_CONFIG'), peer_timeout)
workers.check_equal({name: globals()[name] for name in [
    'num_classes', 'on_bad_image', 'horizontal_flip', 'learning_rate', 'num_epochs',
    'batch_size', 'dropout_rate', 'train_layers', 'skip_layers', 'seed']})
batch_size *= workers.size
run_settings = {name: globals()[name] for name in [
    'train_file', 'val_file', 'horizontal_flip', 'learning_rate', 'dropout_rate',
    'seed', 'batch_size']}
checkpoint = None  # the newest one, as far as the run has come
best_path = os.path.join(checkpoint_path, 'model_best.ckpt')
if workers.is_chief:
    os.makedirs(checkpoint_path, exist_ok=True)
    os.makedirs(filewriter_path, exist_ok=True)
    if export_path:
        os.makedirs(os.path.dirname(os.path.abspath(export_path)), exist_ok=True)
    checkpoint, checkpoints = choose_checkpoint(checkpoint_path, resume)
goes_on = workers.any(checkpoint)

shard = (workers.rank, workers.size)
train_generator = ImageDataGenerator(
    train_file, horizontal_flip=horizontal_flip, shuffle=True, nb_classes=num_classes,
    seed=seed, shard=shard)
val_generator = ImageDataGenerator(val_file, nb_classes=num_classes, shard=shard)
generators = [train_generator, val_generator]
if test_file:
    generators.append(ImageDataGenerator(test_file, nb_classes=num_classes,
                                         shard=shard))
class_names = (read_class_names(classes_file, num_classes) if classes_file
               else [str(label) for label in range(num_classes)])
workers.check_equal({
    'weights_path = None': weights_path is None,
    'the list of labels': [one.labels.tolist() for one in generators],
    'the list of picture names': [
        [os.path.basename(path) for path in one.paths] for one in generators]})
check_images(generators, on_bad_image, workers.gather)
run_settings['training pictures'] = train_generator.data_size
if workers.is_chief:
    if checkpoint:
        warn_of_changes(os.path.dirname(checkpoint), class_names, train_layers,
                        run_settings)
    elif glob.glob(glob.escape(filewriter_path) + '/*/events*'):
        print('Warning: %s holds the curves of an earlier run, too' % filewriter_path)
    for warning in list_warnings(generators):
        print('Warning: ' + warning)

if (weights_path == 'DEFAULT' and not goes_on and workers.size == 1
        and not os.path.exists(DEFAULT_WEIGHTS)):
    try:
        fetch_weights()
    except OSError as error:
        if train_file != 'images/train.txt':
            raise
        print('%s\nThe sample starts from its own pictures instead.' % error)
        weights_path = None

tf.set_random_seed(seed)
x = tf.placeholder(tf.float32, [None, 227, 227, 3], 'x')
y = tf.placeholder(tf.float32, [None, num_classes], 'y')
keep_prob = tf.placeholder(tf.float32, [], 'keep_prob')
global_step = tf.train.create_global_step()
# The best validation accuracy and its epoch; the epoch to go on in, and what is done
# of its samples
progress = tf.get_variable('progress', trainable=False,
                           initializer=np.array([-1., 0., 1., 0.]))

rows = tf.placeholder_with_default(np.zeros(0, np.int32), [None], 'rows')
model = AlexNet(x, keep_prob, num_classes, skip_layers, weights_path, train_layers,
                dropout_seed=[seed, global_step], dropout_rows=[rows, batch_size])
logits = model.fc8
variables = [variable for layer in train_layers for variable in model.variables[layer]]

with tf.name_scope('loss'):
    losses = tf.nn.softmax_cross_entropy_with_logits_v2(labels=y, logits=logits)
    loss = tf.reduce_mean(losses)

with tf.name_scope('score'):
    predicted = tf.argmax(logits, 1)
    correct = tf.equal(predicted, tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))

with tf.name_scope('train'):
    *gradients, loss, accuracy = workers.mean(
        tf.gradients(loss, variables) + [loss, accuracy], tf.reduce_sum(y))
    optimizer = tf.train.GradientDescentOptimizer(learning_rate)
    train_op = optimizer.apply_gradients(zip(gradients, variables), global_step)

    weights_are_finite = tf.reduce_all(
        [tf.reduce_all(tf.is_finite(variable)) for variable in variables])

# Histograms of evenly spaced values: all the millions of fc7 would cost a second.
histograms = {}
with tf.name_scope('histograms'):
    with tf.control_dependencies([train_op]):
        updated = [variable.read_value() for variable in variables]
    for kind, tensors in [('gradient', gradients), ('variable', updated)]:
        for tensor, variable in zip(tensors, variables):
            size = variable.shape.num_elements()
            values = tf.reshape(tensor, [-1])[::1 + size // 1000000]
            # An infinite value would end the step with an error, before check_finite.
            histograms['%s/%s' % (kind, variable.op.name)] = tf.boolean_mask(
                values, tf.is_finite(values))
for tag, values in histograms.items():
    tf.summary.histogram(tag, values)
tf.summary.scalar('cross_entropy', loss)
tf.summary.scalar('accuracy', accuracy)
summary = tf.summary.merge_all()


def cached(generator, stores=cache_features):
    """Return batches of what enters the first trained layer, in the same order."""
    if model.frozen is x:
        return generator
    share = generator.data_size / (train_generator.data_size + val_generator.data_size)
    return FeatureCache(
        generator, lambda images: session.run(model.frozen, {x: images, keep_prob: 1.}),
        int(cache_limit * 1e9 * share), cache_dir, stores)


def evaluate(batches):
    """Return the loss and the predicted class of every sample, in the list's order."""
    batches.reset_pointer()
    found = np.zeros((2, batches.data_size))
    for start in range(0, batches.data_size, batch_size):
        features, labels = batches.next_batch(batch_size)
        if len(batches.rows):
            found[:, start + batches.rows] = session.run(
                [losses, predicted],
                {model.frozen: features, y: labels, keep_prob: 1.})
    sample_losses, classes = workers.gather(found)
    return sample_losses, classes.astype(int)


def write_scalars(writer, step, scalars):
    """Write {tag: value} for a step."""
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value)
        for tag, value in scalars.items()]), step)


def write_images(writer, step, images):
    """Write {tag: encoded picture or None} for a step."""
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=tag, image=tf.Summary.Image(encoded_image_string=image))
        for tag, image in images.items() if image]), step)
    writer.flush()


def save(name, is_best=False):
    """Save a checkpoint and return its path; where that fails, say what is left."""
    is_over = done >= train_generator.data_size
    progress.load([best_accuracy, best_epoch, epoch + is_over,
                   0 if is_over else done], session)
    check_finite('network', session.run(weights_are_finite))
    path = os.path.join(checkpoint_path, name)
    if not workers.is_chief or path == checkpoint:  # or nothing was trained since
        return path
    try:
        train_writer.flush()
        val_writer.flush()
        saver.save(session, path)
        if is_best:
            copy_checkpoint(path, best_path)
        return path
    except (tf.errors.OpError, OSError) as error:
        for part in glob.glob(glob.escape(path) + '*'):
            os.remove(part)
        sys.exit('%s could not be saved: %s\nThe last checkpoint: %s.'
                 % (path, reason_of(error), checkpoint or 'none yet'))


def check_finite(what, is_finite):
    """Stop the run, before anything is spoilt, unless this is finite."""
    if not is_finite:
        leave('The %s is no longer finite in epoch %d, step %d, with learning_rate %g. '
              'The last good checkpoint: %s.\nUsual causes: a learning rate that is '
              'too high (try a tenth of it), or a wrong weights_path.'
              % (what, epoch, step, learning_rate, checkpoint or 'none yet'))


def leave(status):
    """End the process with all others; status is a number, or the chief's message."""
    if workers.is_chief:
        train_writer.flush()
    workers.finish()
    sys.exit(status if workers.is_chief or type(status) is int else 1)


def request_stop(number, frame):
    """Ask the loop to save and stop; a second signal ends the process at once."""
    stop_requests.append(number)
    # print could be in the midst of its work.
    os.write(2, b'\nStopping after this step, or the validation; once more: at once.\n')
    signal.signal(number, signal.SIG_DFL)


stop_requests = []
saver = tf.train.Saver()

with workers.session() as session, workers.patience():
    session.run(tf.global_variables_initializer())
    if goes_on:
        if workers.is_chief:
            restore_checkpoint(session, saver, checkpoint)
            saver.recover_last_checkpoints([path for path in checkpoints
                                            if path != best_path])
        print('Going on from %s' % checkpoint)
    else:
        if weights_path is not None:
            model.load_initial_weights(session)
        elif workers.is_chief:
            model.initialize_from_data(
                session, train_generator.images(train_generator.order[:64]))
        print(model.table())
    workers.broadcast(session)
    step = int(session.run(global_step))
    best_accuracy, best_epoch, epoch, done = session.run(progress)
    if workers.is_chief:
        if goes_on:
            # The earlier run may have been cut off before it had copied its best, or
            # may have had another checkpoint_path.
            best_source = checkpoint
            if epoch != best_epoch + 1 or done:
                best_source = os.path.join(os.path.dirname(checkpoint),
                                           'model_best.ckpt')
            if os.path.exists(best_source + '.index'):
                copy_checkpoint(best_source, best_path)
            if not os.path.exists(best_path + '.index'):
                best_accuracy = -1.
        if epoch <= num_epochs or not os.path.exists(
                os.path.join(checkpoint_path, 'model.json')):
            write_model_file(checkpoint_path, class_names, train_layers, run_settings)
        train_writer = tf.summary.FileWriter(os.path.join(filewriter_path, 'train'),
                                             session.graph)
        val_writer = tf.summary.FileWriter(os.path.join(filewriter_path, 'validation'))
        for writer in (train_writer, val_writer):  # forget what came after checkpoint
            writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    first_epoch = int(epoch)
    if first_epoch > num_epochs:
        print('All %d epochs are done; a larger num_epochs goes on.' % num_epochs)
    train_batches, val_batches = cached(train_generator), cached(val_generator)
    val_labels = val_generator.labels
    majority = np.bincount(val_labels).max() / len(val_labels)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)

    for epoch in range(first_epoch, num_epochs + 1):
        done = first = int(done)
        train_batches.reset_pointer(epoch, done)
        start, waited = time.time(), train_generator.seconds_waited
        bar = tqdm(total=train_generator.data_size, initial=done, unit=' images',
                   disable=None if workers.is_chief else True,
                   desc='Epoch %d/%d' % (epoch, num_epochs))
        while done < train_generator.data_size:
            if workers.any(stop_requests):
                if done or epoch == first_epoch:
                    checkpoint = save('model_step%d.ckpt' % step)
                print('\nStopped in epoch %d, before step %d; saved %s.\nGo on with '
                      'the same command and --resume=True.'
                      % (epoch, step + 1, checkpoint))
                leave(128 + (stop_requests or [signal.SIGTERM])[0])
            features, labels = train_batches.next_batch(batch_size)
            step += 1
            display = workers.is_chief and step % display_step == 0
            _, batch_loss, batch_accuracy, *summaries = session.run(
                [train_op, loss, accuracy] + [summary] * display,
                {model.frozen: features, y: labels, keep_prob: 1. - dropout_rate,
                 rows: train_batches.rows})
            check_finite('loss', np.isfinite(batch_loss))
            if display:
                train_writer.add_summary(summaries[0], step)
            bar.set_postfix(loss='%.4f' % batch_loss, accuracy='%.4f' % batch_accuracy)
            done = min(done + batch_size, train_generator.data_size)
            bar.update(done - bar.n)
            if display and bar.disable:
                print('Epoch %d/%d, step %d: loss %.4f, accuracy %.4f'
                      % (epoch, num_epochs, step, batch_loss, batch_accuracy))
        bar.close()
        seconds = time.time() - start
        waited = train_generator.seconds_waited - waited
        images_per_second = (done - first) / seconds

        val_losses, classes = evaluate(val_batches)
        val_loss, val_accuracy = val_losses.mean(), (classes == val_labels).mean()
        check_finite('validation loss', np.isfinite(val_loss))
        is_best = val_accuracy > best_accuracy
        if is_best:
            best_accuracy, best_epoch = val_accuracy, epoch
        if workers.is_chief:
            write_scalars(train_writer, step, {'images_per_second': images_per_second,
                                               'learning_rate': learning_rate})
            write_scalars(val_writer, step, {'cross_entropy': val_loss,
                                             'accuracy': val_accuracy})
        checkpoint = save('model_epoch%d.ckpt' % epoch, is_best)
        print('Epoch %d/%d: validation loss %.4f, accuracy %.4f%s; trained at %.0f '
              'images/s, waiting for pictures %.0f %% of the time'
              % (epoch, num_epochs, val_loss, val_accuracy,
                 ' (the commonest class alone: %.4f)' % majority if epoch == 1 else '',
                 images_per_second, 100 * waited / seconds))
        if len(set(classes)) == 1 < len(set(val_labels)):
            print('Warning: all predictions are class %s' % class_names[classes[0]])
        if workers.is_chief:
            write_images(val_writer, step, {
                'confusion_matrix': draw_confusions(val_labels, classes, class_names),
                'worst_mistakes': draw_mistakes(val_generator.paths, val_labels,
                                                classes, val_losses, class_names),
                'conv1_filters': draw_filters(
                    session.run(model.variables['conv1'][0]))})
            if epoch == first_epoch and model.frozen is not x:
                write_projector(os.path.join(filewriter_path, 'validation'),
                                val_batches, batch_size, val_generator.paths,
                                [class_names[label] for label in val_labels])
        done = 0

    if test_file:
        if workers.is_chief:
            restore_checkpoint(session, saver, best_path)
        workers.broadcast(session)
        test_losses, classes = evaluate(cached(generators[-1], stores=False))
        print('Test: loss %.4f, accuracy %.4f, of the best checkpoint' % (
            test_losses.mean(), (classes == generators[-1].labels).mean()))
    workers.finish()

print('Best:       %s, of epoch %d, validation accuracy %.4f'
      % (best_path, best_epoch, best_accuracy))
print('Curves:     tensorboard --logdir %s' % filewriter_path)
print('Checkpoint: %s' % checkpoint)
if export_path and workers.is_chief:
    export_model(best_path, class_names, export_path)
    print('Exported:   %s' % export_path)
