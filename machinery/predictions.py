"""Predictions: of which pictures, and how they are ranked, tabulated and scored."""
import csv
import io

import numpy as np

from machinery.class_names import warn_of_other_names
from machinery.drawings import draw_confusions, try_to_draw
from machinery.errors import InputError
from machinery.lists import find_pictures, has_labels, read_list
from machinery.text import cell_of, number_of, print_some

UNKNOWN = 'unknown'  # the name of class -1, which no network has
THRESHOLDS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def find_samples(pictures, pictures_path, class_names):
    """Return the paths, and labels or None, of what the setting pictures may be."""
    places = [pictures] if isinstance(pictures, str) else pictures
    # Without labels, pictures may come from several places. With labels they are
    # scored, so all of them must have one.
    labelled = [place for place in places if has_labels(place, pictures_path)]
    if not labelled:
        return [path for place in places
                for path in find_pictures(place, pictures_path)], None
    if len(places) > 1:
        raise InputError('%s: a list with labels must be the only argument'
                         % labelled[0])
    # A faulty label ends the script, a missing picture does not.
    paths, labels, _ = read_list(labelled[0], len(class_names), False, class_names,
                                 pictures_path)
    warn_of_other_names(labelled[0], class_names, pictures_path)
    return paths, labels


def leave_out(faults, paths, labels, read):
    """Return the paths and labels of the pictures that were read; name the faults."""
    # One bad picture among thousands must not cost the results of the others.
    if faults:
        print('Cannot read %s:' % number_of(faults))
        print_some(['  %s' % fault for _, fault in sorted(faults.items())], '')
    if not read:
        raise InputError('No picture could be read.')
    return ([paths[sample] for sample in read],
            labels if labels is None else labels[read])


def rank(probabilities, top_k=None, unknown_below=0.):
    """Return the classes of each picture, best first, and their probabilities.

    Both are (n, top_k). The first class is -1 if less probable than unknown_below.
    """
    classes = probabilities.argsort(1)[:, ::-1][:, :top_k]
    ranked = np.take_along_axis(probabilities, classes, 1)
    classes[ranked[:, 0] < unknown_below, 0] = -1
    return classes, ranked


def name_ranked(classes, ranked, class_names):
    """Return [(class name, probability), ...] of each picture, from what rank gives."""
    names = class_names + [UNKNOWN]  # so that class -1 is the last one
    return [[(names[label], float(probability))
             for label, probability in zip(*row)] for row in zip(classes, ranked)]


def print_best(paths, classes, ranked, class_names):
    """Print the best classes of some pictures."""
    print_some(['%s: %s' % (path, ', '.join('%s %.4f' % pair for pair in row))
                for path, row in zip(paths, name_ranked(classes, ranked, class_names))],
               ' in the table')


def write_table(file, paths, labels, classes, ranked, class_names):
    """Write the best classes of each picture as CSV, and the true ones if known."""
    header = ['path'] if labels is None else ['path', 'true_class', 'true_name']
    for number in range(1, classes.shape[1] + 1):
        header += [name % number for name in ('class_%d', 'name_%d', 'probability_%d')]
    # The byte order mark (sig) tells Excel that this is UTF-8.
    with io.TextIOWrapper(file, 'utf-8-sig', 'surrogateescape', newline='') as text:
        writer = csv.writer(text)
        writer.writerow(header)
        named = name_ranked(classes, ranked, class_names)
        for sample, path in enumerate(paths):
            cells = [cell_of(path)]
            if labels is not None:
                cells += [labels[sample], cell_of(class_names[labels[sample]])]
            for label, (name, probability) in zip(classes[sample], named[sample]):
                cells += [label, cell_of(name), '%.6f' % probability]
            writer.writerow(cells)


def score(labels, probabilities, class_names):
    """Print scores of the best classes; return a PNG of their confusions, or None."""
    predicted = rank(probabilities)[0][:, 0]
    print_scores(labels, predicted, probabilities, class_names)
    print_thresholds(labels, predicted, probabilities)
    matrix, fault = try_to_draw(draw_confusions, labels, predicted, class_names)
    if fault:
        print('Warning: the confusion matrix cannot be drawn: %s' % fault)
    return matrix


def print_scores(labels, predicted, probabilities, class_names):
    """Print precision, recall and F1 of each class that occurs, and the accuracy."""
    right, true, claimed = [
        np.bincount(numbers, minlength=len(class_names))
        for numbers in (labels[labels == predicted], labels, predicted)]
    width = max(len(name) for name in class_names)
    print('%-*s %9s %9s %9s %9s'
          % (width, 'class', 'precision', 'recall', 'F1', 'pictures'))
    for label in np.flatnonzero(true + claimed):
        print('%-*s %9.4f %9.4f %9.4f %9d' % (
            width, class_names[label], right[label] / max(claimed[label], 1),
            right[label] / max(true[label], 1),
            2 * right[label] / (true[label] + claimed[label]), true[label]))
    print('Accuracy: %.4f of %s' % ((predicted == labels).mean(), number_of(labels)))
    if len(class_names) > 5:
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
