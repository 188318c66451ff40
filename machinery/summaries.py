"""What a run shows: a line or a bar on the console, and TensorBoard's pages."""
import functools
import glob
import os
import platform
import socket
import time

import cv2
import numpy as np
from tqdm import tqdm

from machinery.cache import FeatureCache
from machinery.drawings import (draw_batch, draw_confusions, draw_filters,
                                draw_mistakes, write_projector)
from machinery.lock import lock, unlock
from machinery.tf1 import reason_of, tf


def as_text(scores):
    """Return {score: value} as 'cross_entropy 0.5000, accuracy 0.8000'."""
    return ', '.join('%s %.4f' % score for score in scores.items())


def as_table(settings):
    """Return settings and versions as a table in Markdown."""
    versions = {'Python': platform.python_version(), 'TensorFlow': tf.__version__,
                'numpy': np.__version__, 'OpenCV': cv2.__version__}
    return '| name | value |\n| --- | --- |\n' + ''.join(
        '| %s | `%s` |\n' % pair for pair in [*settings.items(), *versions.items()])


def add_summaries(scores, gradients, variables, train_op):
    """Add summaries: scores, and evenly spaced gradients and updated variables."""
    for name, score in scores.items():
        tf.summary.scalar(name, score)
    with tf.name_scope('histograms'), tf.control_dependencies([train_op]):
        updated = [variable.read_value() for variable in variables]
        histograms = {}
        for kind, tensors in [('gradient', gradients), ('variable', updated)]:
            for tensor, variable in zip(tensors, variables):
                size = variable.shape.num_elements()
                # All the millions of fc7 would cost a second.
                values = tf.reshape(tensor, [-1])[::1 + size // 1000000]
                # An infinite value would end the step with an error, before the loop
                # could say what to do about it.
                histograms['%s/%s' % (kind, variable.op.name)] = tf.boolean_mask(
                    values, tf.is_finite(values))
    for tag, values in histograms.items():
        tf.summary.histogram(tag, values)


class EventFile:
    """A file of TensorBoard's in a folder.

    tf.summary.FileWriter writes in a thread, where a full disk is noticed too late, or
    by TensorFlow 1.15 never.
    """

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self._writer = tf.python_io.TFRecordWriter(os.path.join(
            folder, 'events.out.tfevents.%017.6f.%s' % (time.time(),
                                                        socket.gethostname())))
        self.add(file_version='brain.Event:2')

    def add(self, step=0, **content):
        """Add an event; content is a field of tf.Event."""
        self._writer.write(tf.Event(wall_time=time.time(), step=step,
                                    **content).SerializeToString())
        self._writer.flush()


def unless_lost(method):
    """Let a method of Summaries do nothing where they are off.

    Where they cannot be written, they are off from then on: training is worth more.
    """
    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        try:
            if self._enabled:
                method(self, *args, **kwargs)
        except (tf.errors.OpError, OSError) as error:
            self._enabled = False
            tqdm.write('Warning: %s cannot be written (%s); training goes on without '
                       'its curves and pictures' % (self._folder, reason_of(error)))
    return guarded


class Summaries:
    """TensorBoard's runs "train" and "validation" in a folder.

    Args:
        folder: is made where it does not exist.
        enabled: False: write nothing, for all workers but the chief.
        resuming: True: event files of the earlier part of the run are expected.
    """

    def __init__(self, folder, enabled, resuming):
        self._folder, self._enabled = folder, enabled
        self._files, self._filters, self._is_projected = {}, None, False
        if enabled and not resuming and glob.glob(glob.escape(folder) + '/*/events*'):
            print('Warning: %s holds the curves of an earlier run, too' % folder)

    @unless_lost
    def start(self, graph, step, settings, layers):
        """Open the event files; what an earlier run wrote after step is forgotten.

        Args:
            settings, layers: a dict and a table, for TensorBoard's page TEXT.
        """
        lock(self._folder)
        self._files = {run: EventFile(os.path.join(self._folder, run))
                       for run in ('train', 'validation')}
        for file in self._files.values():
            file.add(step + 1, session_log=tf.SessionLog(status=tf.SessionLog.START))
        self._files['train'].add(
            graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())
        text_page = tf.SummaryMetadata(
            plugin_data=tf.SummaryMetadata.PluginData(plugin_name='text'))
        self._add_values('train', step, [
            tf.Summary.Value(tag=tag, metadata=text_page,
                             tensor=tf.make_tensor_proto(text.encode()))
            for tag, text in [('settings', as_table(settings)),
                              ('layers', '```\n%s\n```' % layers)]])

    @unless_lost
    def add(self, run, step, *summaries, **scalars):
        """Add summaries, and values by their tags, to a run."""
        for summary in summaries:
            self._files[run].add(step, summary=tf.Summary.FromString(summary))
        if scalars:
            self._add_values(run, step, [
                tf.Summary.Value(tag=tag, simple_value=value)
                for tag, value in scalars.items()])

    @unless_lost
    def draw_batch(self, step, data, class_names):
        """Add a page with a batch of training pictures as the network gets them."""
        if data.paths:
            images, labels = data.select(data.order[:16]).next_batch(16)
            self._add_pictures('train', step, {'batch': draw_batch(
                images, labels, data.mean, class_names)})

    @unless_lost
    def draw(self, step, batches, batch_size, losses, predictions, class_names,
             filters):
        """Add pictures: confusions, mistakes, filters where they are new, projector.

        Args:
            batches: of the validation list, in whose order losses and predictions are.
            predictions: the predicted labels, and their probabilities.
            filters: array (height, width, channels, filters), those of conv1.
        """
        images = {'confusion_matrix': draw_confusions(batches.labels, predictions[0],
                                                      class_names)}
        if batches.paths:
            images['worst_mistakes'] = draw_mistakes(
                batches.pictures, batches.paths, batches.labels, *predictions, losses,
                class_names)
        if not np.array_equal(filters, self._filters):
            images['conv1_filters'], self._filters = draw_filters(filters), filters
        self._add_pictures('validation', step, images)
        if not self._is_projected and (
                batches.paths and isinstance(batches, FeatureCache)):
            self._is_projected = True
            write_projector(os.path.join(self._folder, 'validation'), batches,
                            batch_size, batches.pictures, batches.paths,
                            [class_names[label] for label in batches.labels])

    def finish(self):
        """Let other runs write here."""
        if self._files:
            unlock(self._folder)

    def _add_pictures(self, run, step, pictures):
        self._add_values(run, step, [
            tf.Summary.Value(
                tag=tag, image=tf.Summary.Image(encoded_image_string=picture))
            for tag, picture in pictures.items() if picture])

    def _add_values(self, run, step, values):
        self._files[run].add(step, summary=tf.Summary(value=values))


class ProgressBar:
    """An epoch on the console: a bar on a terminal, now and then a line elsewhere.

    Args:
        batches: this worker's; its pointer tells how far the epoch has come.

    Attributes, once closed:
        images_per_second: of all workers.
    """

    def __init__(self, epoch, num_epochs, batches, workers):
        self._epoch, self._title = epoch, 'Epoch %d/%d' % (epoch, num_epochs)
        self._batches, self._size = batches, workers.size
        self._start, self._first = time.time(), batches.pointer
        self._waited = batches.seconds_waited
        self._bar = tqdm(
            total=batches.data_size * self._size, desc=self._title, unit=' images',
            initial=batches.pointer * self._size,
            disable=None if workers.is_chief else True)

    def update(self, step, scores, display):
        """Show how many samples are done, and the scores of the step."""
        self._bar.set_postfix_str(as_text(scores))
        self._bar.update(self._batches.pointer * self._size - self._bar.n)
        if display and self._bar.disable:
            print('%s, step %d: %s' % (self._title, step, as_text(scores)))

    def close(self):
        """End the epoch's training."""
        self._bar.close()
        seconds = time.time() - self._start
        self.images_per_second = (
            (self._batches.pointer - self._first) * self._size / seconds)
        self._waiting = (self._batches.seconds_waited - self._waited) / seconds

    def report(self, scores, labels, predicted, class_names):
        """Print the line that ends an epoch; warn if all predictions are one class."""
        majority = np.bincount(labels).max() / len(labels)
        print('%s: validation %s%s; trained at %.0f images/s, waiting for pictures '
              '%.0f %% of the time' % (
                  self._title, as_text(scores),
                  ' (always predicting the most common class: %.4f)' % majority
                  if self._epoch == 1 else '',
                  self.images_per_second, 100 * self._waiting))
        if len(set(predicted)) == 1 < len(set(labels)):
            print('Warning: all predictions are class %s' % class_names[predicted[0]])
