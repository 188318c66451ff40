"""Progress on the console, and curves and pictures for TensorBoard."""
import functools
import glob
import os
import platform
import socket
import time

import cv2
import numpy as np
from tqdm import tqdm

from machinery.batches import has_files
from machinery.drawings import (draw_batch, draw_confusions, draw_filters,
                                draw_mistakes, write_projector)
from machinery.run_folder import lock, unlock
from machinery.tf1 import reason_of, tf


def as_text(scores):
    """Return {score: value} as 'cross_entropy 0.5000, accuracy 0.8000'."""
    return ', '.join('%s %.4f' % score for score in scores.items())


def as_table(settings):
    """Return settings and versions as a Markdown table."""
    rows = dict(settings, Python=platform.python_version(), TensorFlow=tf.__version__,
                numpy=np.__version__, OpenCV=cv2.__version__)
    return '| name | value |\n| --- | --- |\n' + ''.join(
        '| %s | `%s` |\n' % row for row in rows.items())


def layer_table(model):
    """Return a text table of an AlexNet: shapes, where they are from, who learns."""
    rows = ['%-6s %-18s %-9s %s' % ('layer', 'weights', 'initially', 'then')]
    for name, (weights, *_) in model.variables.items():
        origin = ('from data' if model.WEIGHTS_PATH is None else
                  'fresh' if name in model.SKIP_LAYER else 'loaded')
        rows.append('%-6s %-18s %-9s %s' % (
            name, ' x '.join(map(str, weights.shape.as_list())), origin,
            'trained' if name in model.train_layers else 'frozen'))
    return '\n'.join(rows)


def add_summaries(scores, gradients, variables):
    """Return two summaries: of scores and gradients, and of the variables.

    The second one is for after the step. Neither of them changes a variable.
    """
    for name, score in scores.items():
        tf.summary.scalar(name, score)
    for gradient, variable in zip(gradients, variables):
        add_histogram('gradient/' + variable.op.name, gradient)
    summary = tf.summary.merge_all()  # with those that you have added
    return summary, tf.summary.merge([
        add_histogram('variable/' + variable.op.name, variable)
        for variable in variables])


def add_histogram(tag, tensor):
    """Return a summary with the histogram of a tensor."""
    with tf.name_scope('histograms/'):
        # All the millions of fc7 would cost a second.
        stride = 1 + tensor.shape.num_elements() // 1000000
        values = tf.reshape(tensor, [-1])[::stride]
        # An infinite value would end the step with an error, before the loop could say
        # what to do about it.
        values = tf.boolean_mask(values, tf.is_finite(values))
    return tf.summary.histogram(tag, values)


class EventFile:
    """A TensorBoard file in a folder.

    tf.summary.FileWriter writes in a thread, so it notices a full disk too late, or
    with TensorFlow 1.15 never.
    """

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        name = 'events.out.tfevents.%017.6f.%s' % (time.time(), socket.gethostname())
        self._writer = tf.python_io.TFRecordWriter(os.path.join(folder, name))
        self.add(file_version='brain.Event:2')

    def add(self, step=0, **content):
        """Add an event; content is a field of tf.Event."""
        event = tf.Event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def unless_lost(method):
    """Turn summaries off after the first write error: it must not stop training."""
    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        try:
            if self._enabled:
                method(self, *args, **kwargs)
        except (tf.errors.OpError, OSError) as error:
            self._enabled = False
            tqdm.write('Warning: %s cannot be written (%s); training continues without '
                       'its curves and pictures' % (self._folder, reason_of(error)))
    return guarded


class Summaries:
    """TensorBoard's runs "train" and "validation" in a folder, if enabled.

    A run that is_resumed expects the event files of its earlier part there.
    """

    def __init__(self, folder, enabled, is_resumed):
        self._folder, self._enabled = folder, enabled
        self._files, self._filters, self._is_projected = {}, None, False
        self._broken = set()  # tags of drawings that have failed
        if enabled and not is_resumed and glob.glob(glob.escape(folder) + '/*/events*'):
            print('Warning: %s also holds the curves of an earlier run' % folder)

    @unless_lost
    def start(self, step, settings, layers):
        """Open the event files; add settings (a dict) and layers (a table) as TEXT."""
        lock(self._folder)
        for run in ('train', 'validation'):
            file = self._files[run] = EventFile(os.path.join(self._folder, run))
            # Makes TensorBoard forget later steps, which a killed run may have written.
            file.add(step + 1, session_log=tf.SessionLog(status=tf.SessionLog.START))
        graph = tf.get_default_graph().as_graph_def(add_shapes=True)
        self._files['train'].add(graph_def=graph.SerializeToString())
        is_text = tf.SummaryMetadata.PluginData(plugin_name='text')
        self._add_values('train', step, [
            tf.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(text.encode()),
                             metadata=tf.SummaryMetadata(plugin_data=is_text))
            for tag, text in [('settings', as_table(settings)),
                              ('layers', '```\n%s\n```' % layers)]])

    @unless_lost
    def add(self, run, step, summary=None, **scalars):
        """Add a summary, if there is one, and scalars to a run."""
        if summary:
            self._files[run].add(step, summary=tf.Summary.FromString(summary))
        self._add_values(run, step, [tf.Summary.Value(tag=tag, simple_value=value)
                                     for tag, value in scalars.items()])

    @unless_lost
    def draw_batch(self, step, data, class_names):
        """Add a drawing of the first training batch, as the network gets it."""
        def draw():
            images, labels, *_ = next(iter(data.batches(16)))
            return draw_batch(np.asarray(images[:16]), np.asarray(labels[:16]),
                              class_names)
        self._add_picture('train', step, 'batch', draw)

    @unless_lost
    def draw(self, step, features, batch_size, values, class_names, filters):
        """Add drawings: confusions, mistakes, filters if they are new, projector.

        features and values (see draw_mistakes) are those of the validation list;
        filters is the variable with the weights of the first layer.
        """
        self._add_picture('validation', step, 'confusion_matrix',
                          lambda: draw_confusions(values['true'], values['predicted'],
                                                  class_names))
        layer = filters.op.name.split('/')[-2]
        filters = tf.get_default_session().run(filters)
        if not np.array_equal(filters, self._filters):
            self._filters = filters
            self._add_picture('validation', step, layer + '_filters',
                              lambda: draw_filters(filters))
        if has_files(features.data):
            self._add_picture('validation', step, 'worst_mistakes',
                              lambda: draw_mistakes(features.data, values, class_names))
        if features.is_stored and not self._is_projected:
            self._is_projected = True
            folder = os.path.join(self._folder, 'validation')
            self._add_picture('validation', step, 'projector', lambda: write_projector(
                folder, features, batch_size, class_names))

    def finish(self):
        """Let other runs write here."""
        if self._files:
            unlock(self._folder)

    def _add_picture(self, run, step, tag, draw):
        """Add what draw returns, the bytes of a picture or None.

        People change the network, the scores and the settings of matplotlib. Pictures
        are a help, so if one cannot be drawn, training goes on without it.
        """
        try:
            data = draw() if tag not in self._broken else None
        except (tf.errors.OpError, OSError):
            raise  # nothing can be written any more
        except Exception as error:
            self._broken.add(tag)
            tqdm.write('Warning: training continues without the picture %s: %s: %s'
                       % (tag, type(error).__name__, error))
            return
        if data:
            self._add_values(run, step, [tf.Summary.Value(
                tag=tag, image=tf.Summary.Image(encoded_image_string=data))])

    def _add_values(self, run, step, values):
        if values:
            self._files[run].add(step, summary=tf.Summary(value=values))


class ProgressBar:
    """Progress of an epoch: a bar on a terminal, otherwise a line every display_step.

    data_size is this worker's number of samples; images_per_second is the speed of all.
    """

    def __init__(self, run, epoch, num_epochs, data_size, display_step):
        self._run, self._is_first = run, epoch == 1
        self._title = 'Epoch %d/%d' % (epoch, num_epochs)
        self._display_step = display_step
        self._start, self._waited = time.time(), run.seconds_waited
        self._seconds = self.images_per_second = 0.  # if a resumed epoch has no step
        self._first = run.start_of(epoch) * run.workers.size
        self._bar = tqdm(
            total=data_size * run.workers.size, desc=self._title, unit=' images',
            initial=self._first, disable=None if run.workers.is_chief else True)

    def update(self, step, means):
        """Show how many samples are done, and the scores of the step."""
        done = self._run.progress.done
        self._seconds = time.time() - self._start
        self.images_per_second = (done - self._first) / max(self._seconds, 1e-9)
        if not self._bar.disable:
            self._bar.set_postfix_str(as_text(means), refresh=False)
            self._bar.update(done - self._bar.n)
        elif step % self._display_step == 0:
            print('%s, step %d: %s' % (self._title, step, as_text(means)))

    def report(self, means, values, class_names):
        """Print the line that ends an epoch; warn if all predictions are one class."""
        self._bar.close()
        classes = values['true']
        line = '%s: validation %s' % (self._title, as_text(means))
        if self._is_first:
            line += ' (always predicting the most common class: %.4f)' % (
                np.bincount(classes).max() / len(classes))
        if self._seconds:
            waited = self._run.seconds_waited - self._waited
            line += '; trained at %.0f images/s, %.0f %% of the time for features' % (
                self.images_per_second, 100 * waited / self._seconds)
        print(line)
        predicted = set(values['predicted'])
        if len(predicted) == 1 < len(set(classes)):
            print('Warning: all predictions are class %s'
                  % class_names[predicted.pop()])
