"""Classify pictures with a fine-tuned checkpoint, or with the pretrained weights.

Edit the variables below, or give them and the pictures on the command line:
    python predict.py cat.jpg photos 'more/*.png' --top_k=5
"""
import csv
import os
import sys

import numpy as np

from alexnet import AlexNet, LAYERS
from datagenerator import IMAGENET_MEAN, IMAGE_SIZE, load_image, normalize
from machinery.batches import check_uint8
from machinery.checkpoint_files import find_weights
from machinery.class_names import find_class_names, warn_of_other_names
from machinery.drawings import draw_confusions
from machinery.export import export_model
from machinery.lists import MAX_FAULTS, find_pictures, has_labels, read_list
from machinery.model_file import check_summary, find_preprocessing, summarize
from machinery.pictures import load_ahead
from machinery.settings import InputError, input_errors, printable, read_settings
from machinery.tf1 import find_device, tf
from machinery.workers import Workers

checkpoint = '/tmp/finetune_alexnet/checkpoints'  # the best of a folder; or a file
pictures = 'images/test.txt'  # a picture, folder, pattern or list, or several of them
top_k = 3  # classes to tell for each picture
batch_size = 128  # pictures in a pass
layer = None  # 'fc7', for example: write this layer's activations instead
export_path = None  # a new folder: write a SavedModel there instead

# Output
predictions_file = 'predictions.csv'  # a table of the best classes
confusion_file = 'confusion_matrix.png'  # for a list with labels
features_file = 'features.npz'  # for a layer: arrays features, paths, perhaps labels

read_settings(globals(), sys.argv[1:], positional='pictures')
if layer not in [None] + LAYERS:
    raise InputError('layer is %r, must be None or one of %s' % (layer, LAYERS))
if hasattr(sys.stdout, 'reconfigure'):  # it is something else in a notebook
    sys.stdout.reconfigure(errors='backslashreplace')  # names that are not UTF-8
tf.reset_default_graph()  # there, this may be the second run


@input_errors()
def write_predictions(paths, labels, probabilities, best):
    """Write the best classes of each picture as a table, and the true ones if known."""
    with open(predictions_file, 'w', newline='', encoding='utf-8',
              errors='surrogateescape') as file:
        writer = csv.writer(file)
        truth = [] if labels is None else ['true_class', 'true_name']
        writer.writerow(['path'] + truth + [
            '%s_%d' % (column, rank + 1) for rank in range(best.shape[1])
            for column in ('class', 'name', 'probability')])
        for sample, (path, row, ranked) in enumerate(zip(paths, probabilities, best)):
            cells = [cell_of(path)]
            if truth:
                cells += [labels[sample], cell_of(class_names[labels[sample]])]
            for label in ranked:
                cells += [label, cell_of(class_names[label]), '%.6f' % row[label]]
            writer.writerow(cells)
    print('Wrote %s' % predictions_file)


def cell_of(text):
    """Return text for a cell, which no spreadsheet shall take for a formula."""
    return "'" * text.startswith(tuple('=+-@\t\r')) + printable(text)


def print_scores(labels, predicted, probabilities):
    """Print precision, recall and F1 of each class that occurs, and the accuracy."""
    right, true, claimed = [
        np.bincount(numbers, minlength=len(class_names))
        for numbers in (labels[labels == predicted], labels, predicted)]
    width = max(len(name) for name in class_names)
    print('%-*s %9s %9s %9s %9s' % (width, 'class', 'precision', 'recall', 'F1',
                                    'pictures'))
    for label in np.flatnonzero(true + claimed):
        print('%-*s %9.4f %9.4f %9.4f %9d' % (
            width, class_names[label], right[label] / max(claimed[label], 1),
            right[label] / max(true[label], 1),
            2 * right[label] / (true[label] + claimed[label]), true[label]))
    print('Accuracy: %.4f of %s' % ((predicted == labels).mean(), number_of(labels)))
    if len(class_names) > 5:
        own = probabilities[np.arange(len(labels)), labels]
        ranks = (~(probabilities <= own[:, None])).sum(1)  # a NaN is no good rank
        print('Top-5 accuracy: %.4f' % (ranks < 5).mean())


def number_of(samples):
    """Return '1 picture', '2 pictures' and so on."""
    return '%d picture%s' % (len(samples), 's' if len(samples) > 1 else '')


weights_path = find_weights(checkpoint)
print('Network: %s' % weights_path)
print('Device: %s' % find_device())
class_names = find_class_names(weights_path, LAYERS[-1])
size, margin, test_summary = find_preprocessing(weights_path, IMAGE_SIZE, IMAGENET_MEAN)


def network(images):
    """Build the network for uint8 images (n, 227, 227, 3), BGR."""
    return AlexNet(normalize(images), 1., len(class_names), [], weights_path)


def load(path):
    """Read a picture as it was read in training."""
    return load_image(path, size, margin=margin)


places = [pictures] if isinstance(pictures, str) else pictures
labels = None
if not export_path:
    labelled = [place for place in places if has_labels(place)]
    if labelled and len(places) > 1:
        raise InputError('%s: a list with labels must be the only argument'
                         % labelled[0])
    if labelled:
        paths, labels, _ = read_list(labelled[0], len(class_names), check_files=False)
        warn_of_other_names(labelled[0], class_names)
    else:
        paths = [path for place in places for path in find_pictures(place)]

images = tf.placeholder(tf.uint8, [None, 227, 227, 3])
model = network(images)
output = getattr(model, layer or 'probabilities')

values, is_read, faults = [], [], []
with Workers().session() as session:
    model.load_initial_weights(session)
    if test_summary:  # the network must see pictures as it did in training
        check_summary(weights_path, test_summary, summarize(
            session, model, images, load_image, size, margin))
    if export_path:
        export_model(network, class_names, export_path, size, margin)
        print('Wrote %s' % export_path)
        sys.exit()
    for _, results in load_ahead(load, paths, batch_size):
        faults += [str(result) for result in results if isinstance(result, InputError)]
        read = [result for result in results if not isinstance(result, InputError)]
        is_read += [not isinstance(result, InputError) for result in results]
        if read:
            values.append(session.run(output, {images: check_uint8(read)}))
if faults:
    print('Cannot read %s:\n  %s%s' % (
        number_of(faults), '\n  '.join(faults[:MAX_FAULTS]),
        '\n  …' * (len(faults) > MAX_FAULTS)))
if not values:
    raise InputError('No picture could be read.')
read = np.flatnonzero(is_read)
paths = [paths[sample] for sample in read]
labels = labels if labels is None else labels[read]
values = np.concatenate(values)

if layer:
    with input_errors(), open(features_file, 'wb') as file:
        np.savez(file, features=values, paths=paths,
                 **{} if labels is None else {'labels': labels})
    print('Wrote %s: %s of %s, shape %s'
          % (features_file, layer, number_of(paths), values.shape))
    sys.exit()

best = values.argsort(1)[:, ::-1][:, :top_k]
for path, row, ranked in zip(paths, values, best):
    print(printable('%s: %s' % (path, ', '.join(
        '%s %.4f' % (class_names[label], row[label]) for label in ranked))))
write_predictions(paths, labels, values, best)
matrix = None
if labels is not None:
    print_scores(labels, best[:, 0], values)
    matrix = draw_confusions(labels, best[:, 0], class_names)
if matrix:
    with input_errors(), open(confusion_file, 'wb') as file:
        file.write(matrix)
    print('Wrote %s' % confusion_file)
elif os.path.exists(confusion_file):
    os.remove(confusion_file)
    print('Removed %s, which was of another list' % confusion_file)
