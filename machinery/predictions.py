"""Predictions: find the pictures; rank, tabulate and score the results."""
import csv
import io

import numpy as np

from machinery.class_names import warn_of_other_names
from machinery.drawings import draw_comparison, try_to_draw
from machinery.errors import InputError
from machinery.lists import find_pictures, has_labels, read_list
from machinery.metrics import average_precisions, mean_of_known, r_squared
from machinery.text import cell_of, number_of, print_some

UNKNOWN = 'unknown'  # the name of class -1, which no network has
THRESHOLDS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def find_samples(pictures, pictures_path, kind):
    """Return the paths, and the labels or None, for the setting pictures."""
    places = [pictures] if isinstance(pictures, str) else pictures
    # Without labels, pictures may come from several places. With labels they are
    # scored, so every picture needs a label.
    labelled = [place for place in places
                if has_labels(place, pictures_path, kind.name)]
    if not labelled:
        return [path for place in places
                for path in find_pictures(place, pictures_path, kind.name)], None
    if len(places) > 1:
        raise InputError('%s: a list with labels must be the only argument'
                         % labelled[0])
    # A faulty label ends the script, a missing picture does not.
    paths, labels, _ = read_list(labelled[0], kind, False, pictures_path)
    if kind.name != 'numbers':
        warn_of_other_names(labelled[0], kind, pictures_path)
    return paths, labels


def leave_out(faults, paths, labels, read):
    """Print the faults; return the paths and labels of all pictures read."""
    # One bad picture among thousands must not cost the results of the others.
    if faults:
        print('Cannot read %s:' % number_of(faults))
        print_some(['  %s' % fault for _, fault in sorted(faults.items())], '')
    if not read:
        raise InputError('No picture could be read.')
    return ([paths[sample] for sample in read],
            labels if labels is None else labels[read])


def rank(outputs, kind, top_k=None, unknown_below=0.):
    """Return (places, ranked): the outputs to show for each picture, in order.

    Both are (n, top_k): the numbers of the outputs (see kind.rank), and their values.
    The first place is -1 if its probability is below unknown_below, which raises an
    InputError unless each picture has a single class.
    """
    if unknown_below and kind.name != 'class':
        raise InputError('unknown_below is %g, but this network was trained with '
                         'labels = %r' % (unknown_below, kind.name))
    places = kind.rank(outputs, top_k)
    ranked = np.take_along_axis(outputs, places, 1)
    if unknown_below:  # numbers may be below 0
        places[ranked[:, 0] < unknown_below, 0] = -1
    return places, ranked


def name_ranked(places, ranked, kind):
    """Return [(name, probability or number)] of each picture, from rank's results."""
    names = kind.names + [UNKNOWN]  # place -1 is the last name
    return [[(names[place], float(value))
             for place, value in zip(*row)] for row in zip(places, ranked)]


def print_best(paths, places, ranked, kind):
    """Print the best classes, or the numbers, of the first pictures."""
    pattern = '%s %.6g' if kind.name == 'numbers' else '%s %.4f'
    print_some(['%s: %s' % (path, ', '.join(pattern % pair for pair in row))
                for path, row in zip(paths, name_ranked(places, ranked, kind))],
               ' in the table')


def write_table(file, paths, labels, outputs, places, ranked, kind):
    """Write each picture's prediction as CSV, and its label if known."""
    if kind.name == 'numbers':
        rows = number_rows(paths, labels, outputs, kind)
    else:
        rows = class_rows(paths, labels, outputs, places, ranked, kind)
    # Excel needs the byte order mark (sig) to recognise UTF-8.
    with io.TextIOWrapper(file, 'utf-8-sig', 'surrogateescape', newline='') as text:
        csv.writer(text).writerows(rows)


def class_rows(paths, labels, outputs, places, ranked, kind):
    """Yield the rows of a table of classes, best first.

    With several classes per picture, a column has the predicted classes.
    """
    columns = {'path': map(cell_of, paths)}
    if labels is not None and kind.name == 'class':
        columns['true_class'] = labels
    if labels is not None:
        columns['true_name'] = (cell_of(kind.show(label)) for label in labels)
    if kind.name == 'classes':
        columns['predicted_name'] = (cell_of(kind.show(is_chosen))
                                     for is_chosen in kind.choose(outputs))
    named = zip(*name_ranked(places, ranked, kind))
    for number, (best, pairs) in enumerate(zip(places.T, named), 1):
        columns['class_%d' % number] = best
        columns['name_%d' % number] = (cell_of(name) for name, _ in pairs)
        columns['probability_%d' % number] = ('%.6f' % value for _, value in pairs)
    yield list(columns)
    yield from zip(*columns.values())


def number_rows(paths, labels, outputs, kind):
    """Yield the rows of a table of numbers, with a column for each number."""
    true = [] if labels is None else ['true_' + name for name in kind.names]
    yield ['path', *map(cell_of, true + kind.names)]
    for sample, path in enumerate(paths):
        values = [*([] if labels is None else labels[sample]), *outputs[sample]]
        # Print all digits of a float32: year, month and day together have 8.
        yield [cell_of(path), *[np.format_float_positional(value, trim='-')
                                for value in values]]


def score(labels, outputs, kind, files, path):
    """Print scores; draw labels against predictions, if kind has a drawing.

    Writes the drawing to NewFiles, at path if it is not None. If it cannot be drawn,
    prints a warning.
    """
    predicted = outputs
    if kind.name == 'class':
        predicted = kind.rank(outputs)[:, 0]
        print_scores(labels, predicted, outputs, kind.names)
        print_thresholds(labels, predicted, outputs)
    elif kind.name == 'classes':
        print_several(labels, outputs, kind)
    else:
        print_errors(labels, outputs, kind)
    drawing, fault = try_to_draw(draw_comparison, labels, predicted, kind)
    if fault:
        print('Warning: the %s cannot be drawn: %s'
              % (kind.drawing.replace('_', ' '), fault))
    if drawing:
        with files.new(path, kind.drawing + '.png') as file:
            file.write(drawing)


def print_table(names, right, true, claimed, **others):
    """Print precision, recall and F1 of each class that occurs.

    right, true and claimed count pictures of each class, (number of classes,); others
    are further columns of this shape.
    """
    columns = {'precision': right / np.maximum(claimed, 1),
               'recall': right / np.maximum(true, 1),
               'F1': 2 * right / np.maximum(true + claimed, 1), **others}
    width = max(map(len, names + ['class']))
    print('%-*s' % (width, 'class') + ''.join(
        ' %9s' % title for title in [*columns, 'pictures']))
    for place in np.flatnonzero(true + claimed):
        print('%-*s' % (width, names[place]) + ''.join(
            ' %9.4f' % values[place] for values in columns.values())
            + ' %9d' % true[place])


def print_scores(labels, predicted, probabilities, names):
    """Print the scores of each class that occurs, and the accuracy."""
    right, true, claimed = [
        np.bincount(numbers, minlength=len(names))
        for numbers in (labels[labels == predicted], labels, predicted)]
    print_table(names, right, true, claimed)
    print('Accuracy: %.4f of %s' % ((predicted == labels).mean(), number_of(labels)))
    if len(names) > 5:
        own = probabilities[np.arange(len(labels)), labels]
        ranks = (~(probabilities <= own[:, None])).sum(1)  # NaN counts as last
        print('Top-5 accuracy: %.4f' % (ranks < 5).mean())


def print_thresholds(labels, predicted, probabilities):
    """Print how many pictures unknown_below would keep, and how many are right."""
    best = probabilities.max(1)
    print('%s %9s %9s' % ('unknown_below', 'kept', 'right'))
    for threshold in THRESHOLDS:
        is_kept = ~(best < threshold)
        print('%13.2f %9d %9d' % (threshold, is_kept.sum(),
                                  (is_kept & (predicted == labels)).sum()))


def print_several(labels, probabilities, kind):
    """Print the scores of each class if a picture may have several."""
    true, claimed = labels > 0, kind.choose(probabilities)
    precisions = average_precisions(labels, probabilities)
    print_table(kind.names, (true & claimed).sum(0), true.sum(0), claimed.sum(0),
                average=precisions)
    print('Accuracy: %.4f of the answers for %s are right'
          % ((true == claimed).mean(), number_of(labels)))
    print('Mean average precision: %.4f' % mean_of_known(precisions))


def print_errors(labels, outputs, kind):
    """Print how far predicted numbers are from the true ones, in their units."""
    errors, explained = np.abs(outputs - labels).mean(0), r_squared(labels, outputs)
    width = max(len(name) for name in kind.names + ['number'])
    print('%-*s %19s %9s' % (width, 'number', 'mean absolute error', 'R squared'))
    for row in zip(kind.names, errors, explained):
        print('%-*s %19.6g %9.4f' % (width, *row))
    print('of %s' % number_of(labels))
