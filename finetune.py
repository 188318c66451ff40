"""Fine-tune AlexNet on your own pictures.

Edit the variables below, or give them on the command line:
    python finetune.py --train_file my/train.txt --num_epochs 3 --train_layers fc8
"""
import sys

from machinery.settings import check_files, read_settings

# Pictures
train_file = 'images/train.txt'  # one line per picture: "path label", labels from 0
val_file = 'images/val.txt'  # scored after each epoch
test_file = None  # scored once, at the end, with the best checkpoint
classes_file = 'DEFAULT'  # one class name per line; or classes.txt next to train_file
pictures_path = None  # where paths in the lists start; None: at the list's folder
on_bad_image = 'stop'  # or 'skip' unreadable pictures
num_classes = None  # None: as many as have names, or the largest label + 1
horizontal_flip = True  # mirror training pictures at random
random_crop = False  # 227 x 227 out of 256 x 256; then no features are stored

# Learning
learning_rate = 0.003  # 0.001 suits the pretrained weights
num_epochs = 10  # how often each training picture is seen
batch_size = 16  # per machine; 128 suits the pretrained weights
dropout_rate = 0.5  # the share of fc6 and fc7 that is dropped, not kept
train_layers = ['fc8', 'fc7']  # of conv1 ... conv5, fc6 ... fc8; the rest is frozen
skip_layers = None  # layers that start from random weights; None: the train_layers
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

settings = read_settings(globals(), sys.argv[1:])  # overrides and checks the above
check_files(settings)  # before TensorFlow is loaded, which takes seconds
from alexnet import AlexNet, LAYERS
from datagenerator import (CROP_MARGIN, IMAGE_SIZE, ImageDataGenerator, load_image,
                           normalize)
from machinery.batches import read_batches
from machinery.check import check_pictures
from machinery.class_names import choose_class_names
from machinery.download import fetch_if_missing
from machinery.features import open_features
from machinery.frozen import FrozenLayers
from machinery.progress import ProgressBar
from machinery.run import Run
from machinery.summaries import Summaries, add_summaries
from machinery.tf1 import tf
from machinery.workers import start_workers

tf.reset_default_graph()
tf.set_random_seed(seed)
workers = start_workers(settings)  # just this one, unless TF_CONFIG names more
run = Run(checkpoint_path, filewriter_path, resume, keep, settings, workers)

# Data: each worker reads its share of the lists; only training pictures are shuffled.
class_names = choose_class_names(settings, run, LAYERS[-1])
num_classes = len(class_names)
shared = dict(class_names=class_names, pictures_path=pictures_path,
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
y = tf.placeholder(tf.float32, [None, num_classes], 'y')
keep_prob = tf.placeholder(tf.float32, [], 'keep_prob')
rate = tf.placeholder(tf.float32, [], 'learning_rate')
global_step = tf.train.create_global_step()
if run.is_resumed:  # all layers come from the checkpoint
    weights_path, skip_layers = run.latest, []
elif workers.is_chief:
    weights_path = fetch_if_missing(weights_path, train_file)
model = AlexNet(x, keep_prob, num_classes,
                train_layers if skip_layers is None else skip_layers, weights_path,
                train_layers, dropout_seed=[seed + workers.rank, global_step])
variables = model.trained
# The trained layers are fed with the output of the frozen ones, which is computed once
# per picture. If nothing is frozen, the network is fed with pictures.
fed = pictures if model.bottleneck is model.X else model.bottleneck
same = {model.dropout6: model.fc6, model.dropout7: model.fc7}  # without dropout

with tf.name_scope('scores'):  # one value per picture; add yours here
    predictions = {'true': tf.argmax(y, 1), 'predicted': tf.argmax(model.logits, 1),
                   'probability': tf.reduce_max(model.probabilities, 1)}
    correct = tf.equal(predictions['predicted'], predictions['true'])
    scores = {'cross_entropy': tf.nn.softmax_cross_entropy_with_logits_v2(
                  labels=y, logits=model.logits),
              'accuracy': tf.cast(correct, tf.float32)}

with tf.name_scope('train'):
    means = {name: tf.reduce_mean(values) for name, values in scores.items()}
    loss = means['cross_entropy']  # only this is minimised; other scores are reported
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
        model.load_initial_weights(session)
    else:  # random filters, scaled to some of the training pictures
        batch = next(read_batches(train_data, 64))
        model.initialize_from_data(session, {pictures: batch.images})


def evaluate(batches):
    """Return the mean of each score of a list, and {name: a value per picture}."""
    results = [session.run({**scores, **predictions},
                           {fed: features, y: labels, keep_prob: 1.})
               for features, labels in run.guard(batches)]
    values = {name: workers.gather([result[name] for result in results])
              for name in results[0]}
    return {name: values[name].mean(dtype='float64') for name in scores}, values


check_pictures([train_data, val_data, test_data], on_bad_image, workers)
with run.session(initialize) as session:
    frozen = FrozenLayers(session, fed, pictures, {keep_prob: 1.}, same)
    run.record(model, pictures, [y, rate, keep_prob], load_image, train_data, val_data,
               class_names, optimizer)
    # Features outlive the run: the next one with the same frozen layers finds them.
    store = cache_features and frozen.open_store(features_path, features_limit,
                                                 load_image)
    train_features, val_features, test_features = open_features(
        [train_data, val_data, test_data], frozen, store)
    seen = train_features.select_unchanged()  # None for batches of your own
    step = int(session.run(global_step))
    summaries = Summaries(run, step, model, train_data, class_names)
    bar = ProgressBar(run, num_epochs, train_data.data_size, display_step, class_names)

    for epoch in range(run.epoch, num_epochs + 1):
        bar.start(epoch)
        # guard() saves a checkpoint and ends the run on Ctrl-C or if a picture is gone.
        batches = train_features.batches(batch_size, epoch, run.start_of(epoch))
        for features, labels in run.guard(batches, epoch):
            step += 1
            fetches = {'update': train_op, 'means': means}
            if step % display_step == 0:  # histograms are too slow for every step
                fetches['summary'] = summary
            result = session.run(fetches, {fed: features, y: labels,
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
        # The best checkpoint has the highest score. For the lowest loss instead, write
        # negative_loss=-val_means['cross_entropy'].
        run.save(session, epoch, accuracy=val_means['accuracy'])
        bar.report(seen_means, val_means, val_values)
        summaries.add('train without dropout', step, **seen_means)
        summaries.add('validation', step, **val_means)
        summaries.add('train', step, learning_rate=rate_of(epoch),
                      images_per_second=bar.images_per_second)
        summaries.draw(step, val_features, batch_size, val_values)

    run.report()
    if test_file:
        run.restore_best(session)
        bar.report_test(evaluate(test_features.batches(batch_size))[0])
    bar.advise()
    run.finish()
    summaries.finish()
