"""Show labels and predictions of each kind to people: see machinery.labels."""
import math

import numpy as np

from machinery.label_text import NONE


class ClassWords:
    """One class per picture. values: {name: array}, the predictions for a list."""

    def show(self, label):
        """Return a label as text."""
        return self.names[label]

    def show_predicted(self, values, sample):
        """Return the prediction for a picture as text."""
        return '%s, %.2f' % (self.names[values['predicted'][sample]],
                             values['probability'][sample])

    def is_wrong(self, values):
        """Return a bool per picture, True for mistakes."""
        return values['predicted'] != values['true']

    def always(self, true):
        """Return the score of a network that ignores the pictures, as text."""
        return 'always predicting the most common class: %.4f' % (
            np.bincount(true).max() / len(true))

    def guessing(self, true):
        """Return the loss of a network that ignores the pictures."""
        return math.log(self.width)

    def find_same(self, values):
        """Return the prediction as text if all pictures get the same, else None."""
        predicted = set(values['predicted'].tolist())
        if len(predicted) == 1 < len(set(values['true'].tolist())):
            return 'class %s' % self.names[predicted.pop()]
        return None

    def rank(self, outputs, top_k=None):
        """Return places in outputs (n, width), in the order to show: (n, top_k)."""
        return outputs.argsort(1)[:, ::-1][:, :top_k]


class ClassesWords(ClassWords):
    """Several classes per picture, or none."""

    def choose(self, outputs):
        """Return bools: the classes predicted at probabilities outputs (..., width)."""
        return outputs > 0.5

    def show(self, label):
        return ', '.join(self.names[place] for place in np.flatnonzero(label)) or NONE

    def show_predicted(self, values, sample):
        found = values['predicted'][sample]
        return ', '.join('%s %.2f' % (self.names[place], found[place])
                         for place in np.flatnonzero(self.choose(found))) or NONE

    def is_wrong(self, values):
        return (self.choose(values['predicted']) != values['true']).any(1)

    def always(self, true):
        share = true.mean(0)
        return 'always predicting the more common answer for each class: %.4f' % (
            np.maximum(share, 1 - share).mean())

    def guessing(self, true):
        share = np.clip(true.mean(0, dtype=float), 1e-9, 1 - 1e-9)
        return -(share * np.log(share) + (1 - share) * np.log(1 - share)).sum()

    def find_same(self, values):
        predicted = self.choose(values['predicted'])
        if (predicted == predicted[0]).all() and (
                values['true'] != values['true'][0]).any():
            return self.show(predicted[0])
        return None


class NumbersWords(ClassWords):
    """One number per picture, or several, in the user's units."""

    def tag(self, score, place):
        """Return the name of a score of a single number."""
        return score if self.width == 1 else '%s_%s' % (score, self.names[place])

    def show(self, label):
        if self.width == 1:
            return '%.6g' % label[0]
        return ', '.join('%s %.6g' % pair for pair in zip(self.names, label))

    def show_predicted(self, values, sample):
        return self.show(values['predicted'][sample])

    def is_wrong(self, values):
        return np.ones(len(values['true']), bool)  # all are, more or less

    def always(self, true):
        errors = np.abs(true - self.mean).mean(0)
        return 'always predicting the mean: ' + ', '.join(
            '%s %.4f' % (self.tag('absolute_error', place), error)
            for place, error in enumerate(errors))

    def guessing(self, true):
        return np.square((true - self.mean) / self.deviation).mean()

    def find_same(self, values):
        spread, true_spread = [np.ptp(values[name], 0) / self.deviation
                               for name in ('predicted', 'true')]
        if (spread < 1e-3).all() and (true_spread >= 1e-3).any():
            return self.show(values['predicted'][0])
        return None

    def rank(self, outputs, top_k=None):
        return np.tile(np.arange(self.width), (len(outputs), 1))
