"""Choose the kind of labels for a run, and find the kind of a trained network."""
import contextlib

import numpy as np

from machinery.class_names import choose_class_names, find_class_names
from machinery.errors import InputError
from machinery.files import Damaged
from machinery.label_text import read_numbers
from machinery.labels import KINDS, Numbers
from machinery.lists import lookup_of
from machinery.model_file import model_path, read_model
from machinery.tables import Table


def choose_kind(settings, run, layer):
    """Return the kind of a run's labels, an object from machinery.labels.

    Uses the setting labels and those of choose_class_names. In a resumed run, numbers
    keep their mean and deviation.

    Args:
        run: the Run; layer: the name of the network's last layer.

    Raises:
        InputError: the run being resumed has another kind of labels; or the training
            list has no numbers, or only equal numbers.
    """
    labels, model = settings['labels'], {}
    if run.latest:  # only the chief has it
        with contextlib.suppress(Damaged):  # reported when the file is written again
            model = read_model(run.latest)
        before = model.get('labels', 'class')
        if model and before != labels:
            raise InputError('%s: labels was %r, now it is %r; a run keeps its labels: '
                             'give --labels %s, or start a new run from it with '
                             '--weights_path' % (run.latest, before, labels, before))
    if labels != 'numbers':
        return KINDS[labels](choose_class_names(settings, run, layer))
    names, values = read_training_numbers(settings)
    mean, deviation = values.mean(0), values.std(0)
    if run.is_resumed:
        mean, deviation = scale_of_earlier(run, model, names, settings['train_file'])
    run.workers.check_equal({'names and scale of the numbers': (
        names, mean.tolist(), deviation.tolist())})
    check_spread(settings['train_file'], names, values, deviation)
    return Numbers(names, mean, deviation)


def scale_of_earlier(run, model, names, train_file):
    """Return the mean and the deviation of the run being resumed, both (width,).

    model: its model.json; only the chief has it and sends both to the other workers.
    Raises an InputError if the run had other numbers.
    """
    scale = np.zeros([2, len(names)])
    if run.latest:
        if 'mean' not in model:
            raise InputError('%s: without %s, the mean and the deviation of its '
                             'numbers are not known'
                             % (run.latest, model_path(run.latest)))
        scale, earlier = [model['mean'], model['deviation']], model['class_names']
        if len(names) != len(earlier) or names != earlier and set(names) & set(earlier):
            raise InputError('%s: the columns of numbers are %s; the run being resumed '
                             'has %s, in this order' % (
                                 train_file, ', '.join(names), ', '.join(earlier)))
    return run.workers.collect(scale, np.float64)[0]


def check_spread(list_path, names, values, deviations):
    """Raise an InputError unless float32 can tell the numbers (n, width) apart."""
    for name, column, deviation in zip(names, values.T, deviations):
        low, high = column.min(), column.max()
        # float32 has 24 bits: the seconds 1700000000 and 1700000060 are the same.
        limit = 100 * np.spacing(np.float32(max(abs(low), abs(high))))
        if not deviation > max(limit, 1e-30):
            raise InputError('%s: the numbers%s %s' % (
                list_path, '' if len(names) == 1 else ' of ' + name,
                'are all equal, so there is nothing to learn' if low == high else
                'from %.17g to %.17g are too close together for float32: subtract a '
                'constant from all of them' % (low, high)))


def read_training_numbers(settings):
    """Return the names of the numbers in the training list, and the numbers (n, width).

    Skips faulty lines, because read_list reports them.
    """
    path, num_classes = settings['train_file'], settings['num_classes']
    if not path:
        raise InputError("labels = 'numbers' needs a train_file, for the mean and the "
                         'deviation of its numbers; or write kind = Numbers(names, '
                         'mean, deviation), from machinery.labels')
    find = lookup_of(path, settings['pictures_path']).find
    table = Table(path, find, labels='numbers')
    samples = [(line_number, text) for line_number, _, text, fault in table.samples()
               if not fault]
    labels = [text for _, text in samples]
    width = len(labels[0]) if labels else 0
    names = table.names or (['number'] if width == 1 else
                            ['number %d' % place for place in range(1, width + 1)])
    found = read_numbers(set(labels), names)
    values = [found[label] for label in labels if not isinstance(found[label], str)]
    if not values:
        raise InputError('%s: no numbers in it%s' % (path, '\n  line %d: %s' % (
            samples[0][0], found[labels[0]]) if labels else ''))
    if num_classes not in (None, width):
        raise InputError('%s has %d numbers per picture, but num_classes is %d'
                         % (path, width, num_classes))
    return names, np.array(values, float)


def find_kind(weights_path, layer):
    """Return the kind of a network's labels, an object from machinery.labels.

    Args:
        weights_path: a checkpoint or weight file, with model.json beside it.
        layer: the name of the network's last layer.
    """
    model = read_model(weights_path)
    labels = model.get('labels', 'class')
    if labels != 'numbers':
        return KINDS[labels](find_class_names(weights_path, layer))
    return Numbers(model['class_names'], model['mean'], model['deviation'])
