"""Curves, pictures and settings for TensorBoard."""
import functools
import os
import platform
import re
import time

import cv2
import numpy as np
from tqdm import tqdm

from machinery.batches import has_files
from machinery.drawings import (draw_batch, draw_comparison, draw_filters,
                                draw_mistakes, find_worst, try_to_draw,
                                write_projector)
from machinery.heat_maps import NO_MAP, grad_cam, overlay
from machinery.text import printable
from machinery.tf1 import reason_of, tf


def as_table(settings):
    """Return settings and versions as a Markdown table."""
    rows = dict(settings, Python=platform.python_version(), TensorFlow=tf.__version__,
                numpy=np.__version__, OpenCV=cv2.__version__)
    return '| name | value |\n| --- | --- |\n' + ''.join(
        '| %s | `%s` |\n' % row for row in rows.items())


def as_cell(text):
    """Escape text for a cell of a Markdown table."""
    # A file's name may contain |, ` or bytes that are not UTF-8.
    text = text.encode(errors='surrogateescape').decode(errors='backslashreplace')
    return re.sub(r'[^\w ./-]|_', lambda match: '&#%d;' % ord(match.group()),
                  printable(text))


def list_mistakes(data, values, kind):
    """Return the 16 worst mistakes as a Markdown table, or None if there is none.

    draw_mistakes, which takes the same arguments, has no room for whole paths.
    """
    worst = find_worst(values, kind, 16)
    if not len(worst):
        return None
    rows = [['loss', 'true', 'predicted', 'path'], 4 * ['---']]
    rows += [['%.4f' % values[kind.loss][sample], *map(as_cell, [
        kind.show(values['true'][sample]), kind.show_predicted(values, sample),
        os.path.abspath(data.paths[sample])])] for sample in worst]
    return ''.join('| %s |\n' % ' | '.join(row) for row in rows)


def layer_table(model):
    """Return a text table of an AlexNet: shapes, start, what is trained."""
    rows = ['%-6s %-18s %-9s %s' % ('layer', 'weights', 'initially', 'then')]
    for name, (weights, *_) in model.variables.items():
        origin = ('from data' if model.WEIGHTS_PATH is None else
                  'fresh' if name in model.SKIP_LAYER else
                  model.start.get(name, 'loaded'))
        rows.append('%-6s %-18s %-9s %s' % (
            name, ' x '.join(map(str, weights.shape.as_list())), origin,
            'trained' if name in model.train_layers else 'frozen'))
    return '\n'.join(rows)


def add_summaries(scores, gradients, variables):
    """Return two summaries: of scores and gradients, and of the variables.

    The second one is for after the step. Neither of them changes a variable.
    """
    for name, score in scores.items():
        # tf.summary.scalar refuses letters like é, which a column of numbers may have.
        tf.add_to_collection(tf.GraphKeys.SUMMARIES,
                             tf.raw_ops.ScalarSummary(tags=name, values=score))
    for gradient, variable in zip(gradients, variables):
        add_histogram('gradient/' + variable.op.name, gradient)
    summary = tf.summary.merge_all()  # with those that you have added
    return summary, tf.summary.merge([
        add_histogram('variable/' + variable.op.name, variable)
        for variable in variables])


def add_histogram(tag, tensor):
    """Return a summary with the histogram of a tensor."""
    with tf.name_scope('histograms/'):
        # All the millions of fc7 would cost a second. The stride is odd, because an
        # even one would skip whole columns of a matrix.
        stride = tensor.shape.num_elements() // 100000 | 1
        values = tf.reshape(tensor, [-1])[::stride]
        # An infinite value would end the step with an error, before the loop could say
        # what to do about it.
        values = tf.boolean_mask(values, tf.is_finite(values))
    return tf.summary.histogram(tag, values)


def scalar_values(scalars):
    """Return {tag: number} as a list of Summary.Values."""
    return [tf.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()]


def text_value(tag, text):
    """Return a Summary.Value with Markdown text, for TensorBoard's Text tab."""
    is_text = tf.SummaryMetadata.PluginData(plugin_name='text')
    return tf.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(text.encode()),
                            metadata=tf.SummaryMetadata(plugin_data=is_text))


class EventFile:
    """A TensorBoard file in a folder. With a name, it replaces an earlier one.

    tf.summary.FileWriter writes in a thread, so it notices a full disk too late, or
    with TensorFlow 1.15 never.
    """

    def __init__(self, folder, name=None):
        os.makedirs(folder, exist_ok=True)
        name = name or '%017.6f' % time.time()
        self._writer = tf.python_io.TFRecordWriter(os.fsencode(
            os.path.join(folder, 'events.out.tfevents.' + name)))
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
        except (tf.errors.OpError, OSError, ImportError) as error:
            self._enabled = False
            tqdm.write('Warning: %s cannot be written (%s); training continues without '
                       'its curves and pictures' % (
                           self._run.folder.log_path, reason_of(error)))
    return guarded


class Summaries:
    """A run's files for TensorBoard: settings in its folder, curves in subfolders.

    Only the chief writes them. The page HParams shows the settings beside the scores.

    Args:
        run, model: the Run and its AlexNet; step: of the first event.
        data: the generator of the training list; kind: what its labels mean.
        frozen, layers: FrozenLayers, which run grad_cam of these layers, or None.
    """

    def __init__(self, run, step, model, data, kind, frozen=None, layers=()):
        self._run, self._enabled = run, run.workers.is_chief and not run.is_done
        self._first_step, self._kind = step, kind
        self._files, self._filters = {}, None
        self._ended = set()  # tags that are not added again, and faults that were told
        self._weights = next(iter(model.variables.values()))[0]
        heat_map = grad_cam(model, layers, kind) if self._enabled else None
        self._look = None if heat_map is None else lambda images: list(map(
            overlay, images, frozen.run(heat_map, images)))
        self._start(layer_table(model), data)

    @unless_lost
    def _start(self, layers, data):
        """Add settings, graph, layers, and a batch of the training list."""
        print(layers)
        if not self._look:
            print(NO_MAP)
        settings = {  # protobuf takes no bytes of paths that are not UTF-8
            name: value if type(value) in (int, float) else
            str(value).encode(errors='backslashreplace').decode()
            for name, value in self._run.settings.items()}
        from tensorboard.plugins.hparams import summary as hparams
        # TensorBoard believes the first settings that it reads, so replace them.
        EventFile(self._run.folder.log_path, 'settings').add(
            summary=hparams.session_start_pb(settings))
        graph = tf.get_default_graph().as_graph_def(add_shapes=True)
        self._file('train').add(graph_def=graph.SerializeToString())
        self._add_values('train', self._first_step, [
            text_value('settings', as_table(settings)),
            text_value('layers', '```\n%s\n```' % layers)])
        self._try_to_add('train', self._first_step, 'batch', draw_batch, data,
                         self._kind)

    @unless_lost
    def add(self, run, step, *summaries, **scalars):
        """Add summaries and scalars to a run, which may be a new one."""
        for summary in summaries:
            self._file(run).add(step, summary=tf.Summary.FromString(summary))
        self._add_values(run, step, scalar_values(scalars))

    @unless_lost
    def report(self, run, step, features, means, values):
        """Add the scores and pictures of a list, whose Features are given.

        The pictures: true against predicted, mistakes, filters if they have changed,
        and once the projector.

        Args:
            run: 'validation' or 'test'.
            means: {score: value}.
            values: {name: a value per picture}; see find_worst.
        """
        self._add_values(run, step, scalar_values(means))
        add, kind = functools.partial(self._try_to_add, run, step), self._kind
        if kind.drawing:
            add(kind.drawing, lambda: draw_comparison(
                values['true'], values['predicted'], kind))
        filters = tf.get_default_session().run(self._weights)
        if not np.array_equal(filters, self._filters):
            self._filters = filters
            layer = self._weights.op.name.split('/')[-2]
            add(layer + '_filters', draw_filters, filters)
        if has_files(features.data):
            add('worst_mistakes', draw_mistakes, features.data, values, kind,
                self._look)
            # Another tag, because TensorBoard takes only one kind of data for each.
            add('worst_mistakes/paths', list_mistakes, features.data, values, kind)
        if features.is_stored:
            folder = os.path.join(self._run.folder.log_path, run)
            add('projector', write_projector, folder, features, 64, kind)
            self._ended.add('projector')

    def _file(self, part):
        """Return the event file in a subfolder, made when it is first needed."""
        if part not in self._files:
            file = EventFile(os.path.join(self._run.folder.log_path, part))
            # Makes TensorBoard forget later steps, which a killed run may have written.
            file.add(self._first_step + 1,
                     session_log=tf.SessionLog(status=tf.SessionLog.START))
            self._files[part] = file
        return self._files[part]

    def _try_to_add(self, run, step, tag, draw, *args):
        """Add what draw returns: a picture's bytes, Markdown text, or None for nothing.

        People change the network, the scores and the settings of matplotlib. If a
        picture cannot be drawn, training continues without it; each reason is printed
        once.
        """
        if tag in self._ended:
            return
        data, fault = try_to_draw(draw, *args)
        if fault and fault not in self._ended:
            tqdm.write('Warning: training continues without the picture %s: %s'
                       % (tag, fault))
        self._ended.update([tag, fault] if fault else [])
        if data:
            self._add_values(run, step, [
                text_value(tag, data) if isinstance(data, str) else tf.Summary.Value(
                    tag=tag, image=tf.Summary.Image(encoded_image_string=data))])

    def _add_values(self, run, step, values):
        if values:
            self._file(run).add(step, summary=tf.Summary(value=values))
