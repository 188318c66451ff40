"""Classify pictures with a fine-tuned checkpoint, or with the pretrained weights.

Edit the variables below, or give them and the pictures on the command line:
    python predict.py cat.jpg photos 'more/*.png' --top_k=5
"""
import csv
import json
import os
import sys

import numpy as np

from alexnet import LAYERS, AlexNet, list_checkpoints, read_weights
from datagenerator import (check_settings, find_pictures, load_batches,
                           read_class_names, read_command_line, read_list)
import tensorflow.compat.v1 as tf

# A checkpoint, a folder of them (the best one counts), or bvlc_alexnet.npy
checkpoint = '/tmp/finetune_alexnet/checkpoints'
pictures = 'images/test.txt'  # a picture, a folder, a pattern, or a list with labels
top_k = 3  # classes to tell for each picture
batch_size = 128
layer = None  # 'fc7', for example: write this layer's activations instead

# Output
predictions_file = 'predictions.csv'
confusion_file = 'confusion_matrix.png'  # for a list with labels
features_file = 'features.npz'  # for a layer: arrays features and paths

globals().update(read_command_line(
    globals(), [argument for argument in sys.argv[1:] if argument.startswith('--')]))
places = [argument for argument in sys.argv[1:] if not argument.startswith('--')]
check_settings(globals(), [
    ('top_k', top_k >= 1, '1 or more'),
    ('batch_size', batch_size >= 1, '1 or more'),
    ('layer', layer is None or layer in LAYERS, 'None or one of %s' % LAYERS)])

weights_path = checkpoint
if os.path.isdir(checkpoint):
    weights_path = os.path.join(checkpoint, 'model_best.ckpt')
    if not os.path.exists(weights_path + '.index'):
        found = list_checkpoints(checkpoint)
        if not found:
            sys.exit('%s: no checkpoints there; finetune.py writes them' % checkpoint)
        weights_path = found[-1]
num_classes = read_weights(weights_path)['fc8'][1].size
model_file = os.path.join(os.path.dirname(weights_path), 'model.json')
if os.path.exists(model_file):
    with open(model_file) as file:
        class_names = json.load(file)['class_names']
elif num_classes == 1000:
    class_names = [line.split(' ', 1)[1] for line in read_class_names(
        os.path.join(os.path.dirname(os.path.abspath(__file__)),
                     'images', 'imagenet_classes.txt'), 1000)]
else:
    class_names = [str(label) for label in range(num_classes)]

places = places or [pictures]
labels = None
if len(places) == 1 and places[0].endswith('.txt'):
    paths, labels, _ = read_list(places[0], num_classes)
else:
    paths = [path for place in places for path in find_pictures(place)]

x = tf.placeholder(tf.float32, [None, 227, 227, 3])
model = AlexNet(x, 1., num_classes, [], weights_path)
output = tf.nn.softmax(model.fc8) if layer is None else getattr(model, layer)

read, values, faults = [], [], []
with tf.Session() as session:
    model.load_initial_weights(session)
    done = 0
    for batch, images in load_batches(paths, batch_size):
        good = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
        faults += [str(image) for image in images if not isinstance(image, np.ndarray)]
        if good:
            read += [done + i for i in good]
            values.append(session.run(output, {x: [images[i] for i in good]}))
        done += len(batch)
if faults:
    print('%d pictures cannot be read:\n  %s' % (len(faults), '\n  '.join(faults)))
if not read:
    sys.exit('No picture could be read.')
paths = [paths[i] for i in read]
values = np.concatenate(values)


def write_predictions(paths, probabilities, best):
    """Write the top classes of each picture as a table."""
    with open(predictions_file, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['path'] + [
            '%s_%d' % (column, rank + 1) for rank in range(best.shape[1])
            for column in ('class', 'name', 'probability')])
        for path, row, ranked in zip(paths, probabilities, best):
            writer.writerow([path] + [
                cell for label in ranked
                for cell in (label, class_names[label], '%.6f' % row[label])])


def count_confusions(labels, predicted):
    """Return the confusion matrix: rows are true classes, columns predicted ones."""
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def print_scores(matrix):
    """Print precision, recall and F1 of each class that occurs."""
    width = max(len(name) for name in class_names)
    print('%-*s %9s %9s %9s %9s' % (width, 'class', 'precision', 'recall', 'F1',
                                    'pictures'))
    for label, name in enumerate(class_names):
        right, true, found = (matrix[label, label], matrix[label].sum(),
                              matrix[:, label].sum())
        if true or found:
            print('%-*s %9.4f %9.4f %9.4f %9d' % (
                width, name, right / max(found, 1), right / max(true, 1),
                2 * right / (true + found), true))


def draw_confusions(matrix):
    """Draw the confusion matrix, coloured by the share of each true class."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    size = max(4, min(20, 1.5 + 0.5 * num_classes))
    figure, axis = pyplot.subplots(figsize=(size, size))
    axis.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), 'Blues', vmin=0,
                vmax=1)
    axis.set(xlabel='predicted', ylabel='true', title='Confusion matrix')
    if num_classes <= 40:
        axis.set_xticks(range(num_classes))
        axis.set_xticklabels(class_names, rotation=90)
        axis.set_yticks(range(num_classes))
        axis.set_yticklabels(class_names)
        for true, found in zip(*matrix.nonzero()):
            share = matrix[true, found] / matrix[true].sum()
            axis.text(found, true, matrix[true, found], ha='center', va='center',
                      color='white' if share > 0.5 else 'black')
    figure.tight_layout()
    figure.savefig(confusion_file)


if layer:
    np.savez(features_file, features=values, paths=paths)
    print('Wrote %s: %s of %d pictures, shape %s'
          % (features_file, layer, len(paths), values.shape))
else:
    best = values.argsort(1)[:, ::-1][:, :top_k]
    for path, row, ranked in zip(paths, values, best):
        print('%s: %s' % (path, ', '.join('%s %.4f' % (class_names[label], row[label])
                                          for label in ranked)))
    write_predictions(paths, values, best)
    print('Wrote %s' % predictions_file)
    if labels is not None:
        labels = labels[read]
        matrix = count_confusions(labels, best[:, 0])
        print_scores(matrix)
        print('Accuracy: %.4f of %d pictures' % (
            np.trace(matrix) / len(labels), len(labels)))
        if num_classes > 5:
            ranks = (values > values[np.arange(len(labels)), labels][:, None]).sum(1)
            print('Top-5 accuracy: %.4f' % (ranks < 5).mean())
        draw_confusions(matrix)
        print('Wrote %s' % confusion_file)
