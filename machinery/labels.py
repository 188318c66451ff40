"""The kinds of labels, in one table.

    'class'     one class per picture, as in the tutorial
    'classes'   several classes per picture, or none
    'numbers'   one number per picture, or several

A kind reads labels, makes training targets of them and scores the network;
machinery.label_words shows them to people. Labels are an array with a row for each
picture: the number of its class; a 0 or 1 for each class; or its numbers.
"""
import numpy as np

from machinery.label_text import (hint_at_kind, hint_at_range, read_class, read_classes,
                                  read_numbers, split_classes)
from machinery.label_words import ClassesWords, ClassWords, NumbersWords
from machinery.metrics import average_precisions, mean_of_known, r_squared
from machinery.tf1 import tf


class OneClass(ClassWords):
    """One class per picture.

    Args:
        names: of the classes or numbers, in the order of the network's outputs;
            for example range(3) if they have no names.

    Attributes:
        names, width: the names as text, and their number.
        name: the value of the setting labels.
        loss: the name of the score to minimise.
        drawing: the name of the plot of true against predicted labels, or None.
    """

    name, loss, drawing = 'class', 'cross_entropy', 'confusion_matrix'

    def __init__(self, names):
        self.names = list(map(str, names))
        self.width = len(self.names)

    def facts(self):
        """Return the entries for model.json, besides the names."""
        return {'labels': self.name}

    # Lists
    def read(self, texts):
        """Return {text: its label, or a message if it has none}."""
        return read_class(texts, self.names)

    def hint(self, texts):
        """Return lines of hints about wrong labels."""
        return hint_at_range(texts, self.names) + hint_at_kind(texts)

    def array(self, labels):
        """Return an array of labels from read."""
        return np.array(labels, np.int32)

    def count(self, labels):
        """Return the number of labels of each class; None for numbers."""
        return np.bincount(labels, minlength=self.width)

    # The graph: y and logits are float32 tensors (n, width).
    def targets(self, labels):
        """Return the values to feed for y, float32 (n, width)."""
        return np.float32(labels[:, None] == np.arange(self.width))

    def labels_of(self, targets):
        """Return the labels with these targets."""
        return targets.argmax(1)

    def outputs(self, logits):
        """Return the probabilities of the classes, or the numbers in their units."""
        return tf.nn.softmax(logits)

    def predictions(self, y, logits):
        """Return {name: tensor} to keep for each picture, besides the scores."""
        return {'true': tf.argmax(y, 1), 'predicted': tf.argmax(logits, 1),
                'probability': tf.reduce_max(self.outputs(logits), 1)}

    # After an epoch: values is {name: array} of the scores and predictions of a list.
    def measure(self, values):
        """Return {name: value} of scores that need the whole list."""
        return {}

    def best(self, means):
        """Return {name: value} of the score that chooses the best checkpoint."""
        return {'accuracy': means['accuracy']}


class SeveralClasses(ClassesWords, OneClass):
    """Several classes per picture, or none: each output is a separate yes or no.

    The loss is summed over the classes, as in Caffe's SigmoidCrossEntropyLoss.
    """

    name, drawing = 'classes', None

    def read(self, texts):
        return read_classes(texts, self.names)

    def hint(self, texts):
        words = [split_classes(text, self.names) for text in texts]
        return hint_at_range(set().union(*words), self.names)

    def array(self, labels):
        found = np.zeros((len(labels), self.width), np.uint8)
        for row, classes in zip(found, labels):
            row[list(classes)] = 1
        return found

    def count(self, labels):
        return labels.sum(0, dtype=int)

    def targets(self, labels):
        return np.float32(labels)

    def labels_of(self, targets):
        return targets

    def outputs(self, logits):
        return tf.sigmoid(logits)

    def scores(self, y, logits):
        """Return {name: tensor (n,)}, like finetune.py for a single class."""
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)
        is_right = tf.equal(logits > 0, y > 0.5)
        return {'cross_entropy': tf.reduce_sum(losses, 1),
                'accuracy': tf.reduce_mean(tf.cast(is_right, tf.float32), 1)}

    def predictions(self, y, logits):
        return {'true': y, 'predicted': self.outputs(logits)}

    def measure(self, values):
        found = average_precisions(values['true'], values['predicted'])
        return {'mean_average_precision': mean_of_known(found)}

    def best(self, means):
        # If most answers are no, accuracy is high from the start.
        return {'mean_average_precision': means['mean_average_precision']}


class Numbers(NumbersWords, OneClass):
    """One number per picture, or several.

    The network learns standardised numbers, (number - mean) / deviation, with the mean
    and the deviation (width,) of the training list. Outputs are in their units.
    """

    name, loss, drawing = 'numbers', 'squared_error', 'true_and_predicted'

    def __init__(self, names, mean, deviation):
        super().__init__(names)
        self.mean, self.deviation = np.float32(mean), np.float32(deviation)

    def facts(self):
        return {'labels': self.name, 'mean': self.mean.tolist(),
                'deviation': self.deviation.tolist()}

    def read(self, texts):
        return read_numbers(texts, self.names)

    def hint(self, texts):
        return []

    def array(self, labels):
        return np.array(labels, np.float32).reshape(-1, self.width)

    def count(self, labels):
        return None

    def targets(self, labels):
        return labels

    def labels_of(self, targets):
        return targets

    def outputs(self, logits):
        return logits * self.deviation + self.mean

    def scores(self, y, logits):
        """Return {name: tensor (n,)}: the loss, and each number's error."""
        error = logits - (y - self.mean) / self.deviation
        in_units = tf.abs(self.outputs(logits) - y)
        return {'squared_error': tf.reduce_mean(tf.square(error), 1),
                **{self.tag('absolute_error', place): in_units[:, place]
                   for place in range(self.width)}}

    def predictions(self, y, logits):
        return {'true': y, 'predicted': self.outputs(logits)}

    def measure(self, values):
        found = r_squared(values['true'], values['predicted'])
        return {self.tag('r_squared', place): float(value)
                for place, value in enumerate(found) if np.isfinite(value)}

    def best(self, means):
        return {'negative_squared_error': -means['squared_error']}


KINDS = {kind.name: kind for kind in (OneClass, SeveralClasses, Numbers)}
