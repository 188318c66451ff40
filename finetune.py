"""Fine-tune AlexNet on your own pictures.

Edit the variables below, or give them on the command line:
    python finetune.py --train_file my/train.txt --num_epochs 3 --train_layers "['fc8']"
"""
import sys
from shlex import quote

import numpy as np

from alexnet import AlexNet
from datagenerator import CROP_MARGIN, IMAGE_SIZE, IMAGENET_MEAN, ImageDataGenerator
from machinery.cache import cache_bottlenecks
from machinery.checkpoints import Checkpoints
from machinery.cluster import find_tasks
from machinery.download import fetch_if_missing
from machinery.export import export_model
from machinery.model_file import choose_class_names, find_preprocessing
from machinery.pictures import examine_pictures
from machinery.settings import read_settings
from machinery.summaries import ProgressBar, Summaries, add_summaries, as_text
from machinery.tf1 import find_device, tf
from machinery.workers import StopSignals, Workers

# Pictures
train_file = 'images/train.txt'  # a line "path label" for each picture
val_file = 'images/val.txt'
test_file = None  # the best checkpoint is evaluated on it at the end
classes_file = 'DEFAULT'  # a name in each line: classes.txt beside train_file
on_bad_image = 'stop'  # or 'skip': go on without the pictures that cannot be read
num_classes = 3
horizontal_flip = True  # mirror training pictures at random
random_crop = False  # crop 227 x 227 from 256 x 256 at random; then nothing is cached

# Learning
learning_rate = 0.003  # 0.001 suits the pretrained weights
num_epochs = 10
batch_size = 16  # on each machine; 128 suits the pretrained weights
dropout_rate = 0.5  # share of fc6 and fc7 that is dropped, not kept
train_layers = ['fc8', 'fc7']
skip_layers = None  # layers that start fresh, not pretrained; None: the train_layers
weights_path = 'DEFAULT'  # 'DEFAULT': bvlc_alexnet.npy; None: start from the pictures
seed = 0
best_by = 'accuracy'  # the best checkpoint has it highest; '-cross_entropy': lowest

# Speed: what the frozen layers make of a picture is computed once
cache_features = True
cache_limit = 4.0  # GB of memory, 16 KB a picture for fc7; the rest goes to a file
cache_dir = None  # folder for that temporary file; None: the system's

# Output
display_step = 5  # steps between two summaries
filewriter_path = '/tmp/finetune_alexnet/tensorboard'  # folder
checkpoint_path = '/tmp/finetune_alexnet/checkpoints'  # folder
export_path = None  # a new folder for a SavedModel of the best checkpoint
peer_timeout = 120  # seconds of silence before another machine counts as lost
resume = False  # True: resume from the newest checkpoint there; or a checkpoint's path

settings = read_settings(globals(), sys.argv[1:])  # changes and checks the variables
tf.reset_default_graph()
tf.set_random_seed(seed)
workers = Workers(*find_tasks(), peer_timeout)  # one, unless the environment names more
workers.check_settings(settings)
checkpoints = Checkpoints(checkpoint_path, resume, workers, settings)
summaries = Summaries(filewriter_path, workers.is_chief, checkpoints.resuming)
print('Device: %s' % find_device())

# Data
shared = {'nb_classes': num_classes, 'shard': workers.shard,
          'margin': CROP_MARGIN * random_crop, 'check_files': on_bad_image == 'stop'}
train_data = ImageDataGenerator(
    train_file, horizontal_flip, shuffle=True, seed=seed + workers.rank, **shared,
    leave_out_bad=on_bad_image == 'skip', random_crop=random_crop)
val_data, *test_data = [ImageDataGenerator(path, **shared)
                        for path in (val_file, test_file) if path]
class_names = choose_class_names(classes_file, train_file, num_classes,
                                 checkpoints.latest)

# Graph
x = tf.placeholder(tf.float32, [None, 227, 227, 3], 'x')
y = tf.placeholder(tf.float32, [None, num_classes], 'y')
keep_prob = tf.placeholder(tf.float32, [], 'keep_prob')
global_step = tf.train.create_global_step()
model = AlexNet(x, keep_prob, num_classes,
                train_layers if skip_layers is None else skip_layers, weights_path,
                train_layers, dropout_seed=[seed + workers.rank, global_step])
variables = [variable for layer in train_layers for variable in model.variables[layer]]

with tf.name_scope('scores'):  # of each sample; all of them are shown everywhere
    predicted = tf.argmax(model.logits, 1)
    probability = tf.reduce_max(model.probabilities, 1)
    correct = tf.equal(predicted, tf.argmax(y, 1))
    scores = {'cross_entropy': tf.nn.softmax_cross_entropy_with_logits_v2(
                  labels=y, logits=model.logits),
              'accuracy': tf.cast(correct, tf.float32)}
with tf.name_scope('train'):
    means = {name: tf.reduce_mean(values) for name, values in scores.items()}
    loss = means['cross_entropy']  # what is minimised, whatever is shown
    gradients, means = workers.mean([tf.gradients(loss, variables), means])
    rate = tf.placeholder(tf.float32, [], 'learning_rate')
    optimizer = tf.train.GradientDescentOptimizer(rate)
    train_op = optimizer.apply_gradients(zip(gradients, variables), global_step)

add_summaries(means, gradients, variables, train_op)
summary = tf.summary.merge_all()


def rate_of(epoch):
    """Return the learning rate of an epoch: the place for one that falls."""
    return learning_rate


def evaluate(batches):
    """Return {score: values}, predicted classes and their probabilities, of a list."""
    batches.reset_pointer()
    results = []
    while batches.pointer < batches.data_size:
        features, labels = batches.next_batch(batch_size)
        feed = {model.bottleneck: features, y: labels, keep_prob: 1.}
        results.append(session.run([predicted, probability, *scores.values()], feed))
    classes, probabilities, *values = [workers.interleave(np.concatenate(share))
                                       for share in zip(*results)]
    return dict(zip(scores, values)), (classes, probabilities)


def mean_of(scores):
    """Return {score: mean of its values}."""
    return {name: values.mean(dtype=np.float64) for name, values in scores.items()}


examine_pictures([train_data, val_data] + test_data, on_bad_image, workers)
if workers.is_chief and not checkpoints.resuming:
    model.WEIGHTS_PATH = weights_path = fetch_if_missing(weights_path, train_file)

with workers.session() as session, StopSignals() as stop:
    session.run(tf.global_variables_initializer())
    if checkpoints.resuming:
        checkpoints.restore(session)
    elif workers.is_chief:
        if weights_path:
            model.load_initial_weights(session)
        else:
            model.initialize_from_data(session, train_data.next_batch(64)[0])
        print(model.table())
    workers.broadcast(session)
    checkpoints.start(session, train_data, val_data, class_names, optimizer, scores)
    step = int(session.run(global_step))
    summaries.start(session.graph, step, settings, model.table())
    summaries.draw_batch(step, train_data, class_names)
    train_batches, val_batches, *test_batches = cache_bottlenecks(
        [train_data, val_data] + test_data, session, model, x, cache_limit, cache_dir,
        cache_features)

    for epoch in range(checkpoints.epoch, num_epochs + 1):
        train_batches.reset_pointer(epoch, checkpoints.done)
        bar = ProgressBar(epoch, num_epochs, train_batches, workers)
        while train_batches.pointer < train_batches.data_size:
            done = train_batches.pointer
            with checkpoints.saving_on_fault(session, epoch, done):
                features, labels = train_batches.next_batch(batch_size)
                is_stopped = workers.any(stop.received)
            if is_stopped:
                checkpoints.save(session, epoch, done)
                workers.leave(stop.status, checkpoints.farewell(epoch, step))
            step += 1
            display = workers.is_chief and step % display_step == 0
            _, batch_scores, merged = session.run(
                [train_op, means, [summary] * display],
                {model.bottleneck: features, y: labels, rate: rate_of(epoch),
                 keep_prob: 1. - dropout_rate})
            checkpoints.stop_unless_finite('training', batch_scores, epoch, step,
                                           rate_of(epoch))
            summaries.add('train', step, *merged)
            bar.update(step, batch_scores, display)
        bar.close()

        with checkpoints.saving_on_fault(session, epoch, train_batches.pointer):
            val_scores, val_predictions = evaluate(val_batches)
        val_means = mean_of(val_scores)
        checkpoints.stop_unless_finite('validation', val_means, epoch, step,
                                       rate_of(epoch))
        summaries.add('train', step, learning_rate=rate_of(epoch),
                      images_per_second=bar.images_per_second)
        summaries.add('validation', step, **val_means)
        checkpoints.save(session, epoch + 1, scores=val_means)
        bar.report(val_means, val_data.labels, val_predictions[0], class_names)
        filters = session.run(model.variables['conv1'][0])
        summaries.draw(step, val_batches, batch_size, val_scores['cross_entropy'],
                       val_predictions, class_names, filters)

    if workers.any(stop.received):
        workers.leave(stop.status, checkpoints.farewell(num_epochs, step))
    stop.release()  # all is saved: from here on, a signal ends the run at once
    checkpoints.report()
    print('Curves:     tensorboard --logdir %s' % quote(filewriter_path))
    print('Predict:    python predict.py %s --checkpoint %s' % (
        quote(test_file or val_file), quote(checkpoint_path)))
    if test_data:
        checkpoints.restore_best(session)
        test_scores, _ = evaluate(*test_batches)
        print('Test:       %s, of the best checkpoint' % as_text(mean_of(test_scores)))
    workers.finish()

summaries.finish()
checkpoints.finish()
if export_path and workers.is_chief:
    export_model(lambda x: AlexNet(x, 1., num_classes, [], checkpoints.best),
                 class_names, export_path, *find_preprocessing(
                     checkpoints.best, (IMAGE_SIZE, IMAGENET_MEAN, 0)))
    print('Exported:   %s' % export_path)
