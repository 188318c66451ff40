"""Fine-tune AlexNet on your own pictures.

Edit the variables below, or give them on the command line:
    python finetune.py --train_file my/train.txt --num_epochs 3 --train_layers fc8
"""
import sys

from machinery.settings import read_settings

# Pictures
train_file = 'images/train.txt'  # one line per picture: "path label", labels from 0
val_file = 'images/val.txt'  # scored after each epoch
test_file = None  # scored once, at the end, with the best checkpoint
labels = 'class'  # or 'classes', several each; or 'numbers', at a tenth of the rate
classes_file = 'DEFAULT'  # one class name per line; or classes.txt next to train_file
pictures_path = None  # where paths in the lists start; None: at the list's folder
on_bad_image = 'stop'  # or 'skip' unreadable pictures
num_classes = None  # None: as many as have names, or the largest label + 1
horizontal_flip = True  # mirror training pictures at random
resize = 'squash'  # or 'crop', the middle square; or 'pad', the whole picture on grey
random_crop = False  # 227 x 227 out of 256 x 256; then no features are stored

# Learning
learning_rate = 0.003  # 0.001 suits the pretrained weights
find_rate = False  # True: only propose a learning_rate, and end
num_epochs = 10  # how often each training picture is seen
batch_size = 16  # per machine; 128 suits the pretrained weights
dropout_rate = 0.5  # the share of fc6 and fc7 that is dropped, not kept
train_layers = ['fc8', 'fc7']  # of conv1 ... conv5, fc6 ... fc8; the rest is frozen
skip_layers = None  # layers that start fresh; None: train_layers; a run's weights: []
weights_path = 'DEFAULT'  # bvlc_alexnet.npy; None: start from your pictures alone
seed = 0  # the same seed repeats a run

# Speed
cache_features = True  # run the frozen layers only once per picture
features_path = '/tmp/finetune_alexnet/features'  # shared by runs; None: not shared
features_limit = 20.  # GB; above it, features unused for longest are deleted

# Output
display_step = 5  # steps between two summaries
filewriter_path = '/tmp/finetune_alexnet/tensorboard'  # TensorBoard's folder
checkpoint_path = '/tmp/finetune_alexnet/checkpoints'  # a folder 1, 2 ... per run
keep = 2  # newest checkpoints to keep, besides the best; one when a run is finished
resume = False  # True: go on with the newest run; or a run's number; or a path
peer_timeout = 120  # seconds of silence before another machine counts as lost

settings = read_settings(globals(), sys.argv[1:], has_lists=True)  # command line
from alexnet import AlexNet, LAYERS
from datagenerator import (CROP_MARGIN, IMAGE_SIZE, ImageDataGenerator, load_image,
                           normalize)
from machinery.batches import read_batches
from machinery.check import check_pictures
from machinery.download import choose_weights
from machinery.features import open_features
from machinery.frozen import FrozenLayers
from machinery.kinds import choose_kind
from machinery.progress import ProgressBar
from machinery.rate_finder import try_rates
from machinery.run import Run
from machinery.summaries import Summaries, add_summaries
from machinery.tf1 import tf
from machinery.workers import start_workers

tf.reset_default_graph()
tf.set_random_seed(seed)
workers = start_workers(settings)  # just this one, unless TF_CONFIG names more
run = Run(checkpoint_path, filewriter_path, resume, keep, settings, workers)

# Data: each worker reads its share of the lists; only training pictures are shuffled.
kind = choose_kind(settings, run, LAYERS[-1])  # of labels; kind.width: how many
shared = dict(kind=kind, pictures_path=pictures_path, resize=resize,
              margin=CROP_MARGIN if random_crop else 0, shard=workers.shard,
              check_files=on_bad_image == 'stop', **run.decoding)  # of a resumed run
train_data = ImageDataGenerator(
    train_file, horizontal_flip, shuffle=True, seed=seed + workers.rank, **shared,
    leave_out_bad=on_bad_image == 'skip', random_crop=random_crop)
val_data = ImageDataGenerator(val_file, **shared)
test_data = ImageDataGenerator(test_file, **shared) if test_file else None

# Graph: pictures go in as bytes, which is a quarter of the work of feeding floats.
pictures = tf.placeholder(tf.uint8, [None, *IMAGE_SIZE[::-1], 3], 'pictures')
x = normalize(pictures)
y = tf.placeholder(tf.float32, [None, kind.width], 'y')
keep_prob = tf.placeholder(tf.float32, [], 'keep_prob')
rate = tf.placeholder(tf.float32, [], 'learning_rate')
global_step = tf.train.create_global_step()
weights_path, skip_layers = choose_weights(settings, run)
model = AlexNet(x, keep_prob, kind.width, skip_layers, weights_path, train_layers,
                dropout_seed=[seed + workers.rank, global_step])
variables = sum([tf.trainable_variables(name + '/') for name in train_layers], [])
# Frozen layers run once per picture. Then their output is fed; TF1 feeds any tensor.
fed = pictures if model.bottleneck is model.X else model.bottleneck

with tf.name_scope('scores'):  # one value per picture; add yours here
    predictions = kind.predictions(y, model.logits)  # for drawings and advice
    if kind.name == 'class':
        correct = tf.equal(tf.argmax(model.logits, 1), tf.argmax(y, 1))
        scores = {'cross_entropy': tf.nn.softmax_cross_entropy_with_logits_v2(
                      labels=y, logits=model.logits),
                  'accuracy': tf.cast(correct, tf.float32)}
    else:  # sigmoids, or numbers
        scores = kind.scores(y, model.logits)

with tf.name_scope('train'):
    means = {name: tf.reduce_mean(values) for name, values in scores.items()}
    loss = means[kind.loss]  # only this is minimised; other scores are reported
    gradients, means = workers.mean([tf.gradients(loss, variables), means])
    optimizer = tf.train.GradientDescentOptimizer(rate)  # which the loop feeds
    train_op = optimizer.apply_gradients(zip(gradients, variables), global_step)
summary, histograms = add_summaries(means, gradients, variables)


def rate_of(epoch):
    """Return the learning rate for an epoch. Put your schedule here."""
    return learning_rate


def initialize(session):
    """Set the weights that a new run starts from."""
    if weights_path:
        model.load_initial_weights(session, kind)
    else:  # random filters, scaled to some of the training pictures
        batch = next(read_batches(train_data, 64))
        model.initialize_from_data(session, {pictures: batch.images})


def evaluate(batches):
    """Return the mean of each score of a list, and {name: a value per picture}."""
    fetches = {**scores, **predictions}
    values = workers.gather([
        session.run(fetches, {fed: features, y: targets, keep_prob: 1.})
        for features, targets in run.guard(batches)])
    means = {name: values[name].mean(dtype='float64') for name in scores}
    return {**means, **kind.measure(values)}, values


check_pictures([train_data, val_data, test_data], on_bad_image, workers)
with run.session(initialize) as session:
    frozen = FrozenLayers(session, fed, pictures, {keep_prob: 1.}, model.same_as)
    run.record(model, pictures, [y, rate, keep_prob], load_image, train_data, val_data,
               kind, optimizer)
    # Features outlive the run: the next one with the same frozen layers finds them.
    store = cache_features and frozen.open_store(features_path, features_limit,
                                                 load_image)
    train_features, val_features, test_features = open_features(
        [train_data, val_data, test_data], frozen, store)
    seen = train_features.select_unchanged()  # 200 pictures; None: your own batches
    if find_rate:  # try rates from 1e-5 to 1, print the best one, and end
        try_rates(run, train_features, loss, train_op, (fed, y, rate, keep_prob))
    step = int(session.run(global_step))
    summaries = Summaries(run, step, model, train_data, kind, frozen, LAYERS)
    bar = ProgressBar(run, num_epochs, train_data.data_size, display_step, kind)

    for epoch in range(run.epoch, num_epochs + 1):
        bar.start(epoch)
        # guard() saves a checkpoint and ends the run on Ctrl-C or if a picture is gone.
        batches = train_features.batches(batch_size, epoch, run.start_of(epoch))
        for features, targets in run.guard(batches, epoch):
            step += 1
            fetches = {'update': train_op, 'means': means}
            if step % display_step == 0:  # histograms are too slow for every step
                fetches['summary'] = summary
            result = session.run(fetches, {fed: features, y: targets,
                                           rate: rate_of(epoch),
                                           keep_prob: 1. - dropout_rate})
            run.stop_unless_finite(result['means'], rate_of(epoch))
            if 'summary' in result:
                summaries.add('train', step, result['summary'], session.run(histograms))
            bar.update(step, result['means'])

        # Score pictures that it was not trained on, and some that it was; no dropout.
        val_means, val_values = evaluate(val_features.batches(batch_size))
        seen_means = evaluate(seen.batches(batch_size))[0] if seen else {}
        run.stop_unless_finite(val_means, rate_of(epoch))
        # The best one has the highest score; or write negative_loss=-val_means[...].
        run.save(session, epoch, **kind.best(val_means))
        bar.report(seen_means, val_means, val_values)
        summaries.add('train without dropout', step, **seen_means)
        summaries.add('train', step, learning_rate=rate_of(epoch),
                      images_per_second=bar.images_per_second)
        summaries.report('validation', step, val_features, val_means, val_values)

    run.report()
    if test_file:
        run.restore_best(session)
        test_means, test_values = evaluate(test_features.batches(batch_size))
        bar.report_test(test_means)
        summaries.report('test', step, test_features, test_means, test_values)
    bar.advise()
    run.finish()
