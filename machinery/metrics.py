"""Scores of a whole list of pictures."""
import numpy as np


def average_precision(true, predicted):
    """Return the area under the steps of precision over recall, for one class.

    true and predicted are (n,), and true is not all 0. As in Everingham et al., "The
    PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 2.2,
    but with the precision at each recall, not the highest at or above it.
    """
    order = predicted.argsort()[::-1]
    hits = np.cumsum(true[order], dtype=float)
    # Pictures with equal probability have no order: they count together.
    last = np.append(np.flatnonzero(np.diff(predicted[order])), len(order) - 1)
    gained = np.diff(hits[last], prepend=0.)
    return (gained * hits[last] / (last + 1)).sum() / hits[-1]


def average_precisions(true, predicted):
    """Return average_precision of each class, (width,) for (n, width).

    It is NaN for a class without pictures.
    """
    return np.array([average_precision(*columns) if columns[0].any() else np.nan
                     for columns in zip(true.T, predicted.T)])


def mean_of_known(scores):
    """Return the mean of the scores that are not NaN, 0 if all are NaN."""
    known = scores[~np.isnan(scores)]
    return float(known.sum() / max(len(known), 1))


def r_squared(true, predicted):
    """Return the explained share of the variance, (width,) for (n, width).

    It is 1 - (squared errors) / (squared deviations from the mean); NaN if all numbers
    are equal.
    """
    true, predicted = np.float64(true), np.float64(predicted)
    total = np.square(true - true.mean(0)).sum(0)
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.where(total > 0, 1 - np.square(true - predicted).sum(0) / total,
                        np.nan)
