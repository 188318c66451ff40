"""Classify pictures with a fine-tuned checkpoint, or with the pretrained weights.

Edit the variables below, or give them and the pictures on the command line:
    python predict.py cat.jpg photos 'more/*.png' --top_k=5
"""
import csv
import functools
import io
import sys

from machinery.settings import read_settings

checkpoint = '/tmp/finetune_alexnet/checkpoints'  # a folder means its best one
pictures = 'images/test.txt'  # a picture, folder, pattern or list, or several of them
pictures_path = None  # where paths in a list start; None: at the list's folder
top_k = 3  # classes to show per picture
batch_size = 128  # pictures at once
layer = None  # 'fc7', for example: write this layer's activations instead
export_path = None  # a new folder: write a SavedModel there instead
features_path = '/tmp/finetune_alexnet/features'  # what training has stored; or None

# Output
predictions_path = 'predictions'  # each call writes to a new numbered folder there
predictions_file = None  # a table of the best classes; None: predictions.csv there
confusion_file = None  # for a list with labels; None: confusion_matrix.png there
features_file = None  # for a layer: features, paths, any labels; None: features.npz

read_settings(globals(), sys.argv[1:], positional='pictures')

# TensorFlow takes seconds to load, so misspelt options are reported first.
import numpy as np

from alexnet import AlexNet, LAYERS
from datagenerator import (IMAGENET_MEAN, IMAGE_SIZE, REDUCING_GAP, load_image,
                           normalize)
from machinery.checkpoint_files import find_weights
from machinery.class_names import find_class_names, warn_of_other_names
from machinery.drawings import draw_confusions, try_to_draw
from machinery.errors import InputError
from machinery.export import export_model, pictures_to_compare
from machinery.features import open_features
from machinery.frozen import FrozenLayers
from machinery.lists import find_pictures, has_labels, read_list
from machinery.model_file import (check_summary, find_preprocessing, read_model,
                                  summarize)
from machinery.numbered import NewFiles
from machinery.plain_pictures import PlainPictures
from machinery.text import cell_of, number_of, print_some
from machinery.tf1 import find_device, session_config, tf

if layer not in [None] + LAYERS:
    raise InputError('layer is %r, must be None or one of %s' % (layer, LAYERS))
files = NewFiles(predictions_path)
tf.reset_default_graph()  # in a notebook, this may be the second run


def write_predictions(paths, labels, probabilities, best):
    """Write the best classes of each picture as a table, and the true ones if known."""
    header = ['path'] if labels is None else ['path', 'true_class', 'true_name']
    for rank in range(1, best.shape[1] + 1):
        header += ['class_%d' % rank, 'name_%d' % rank, 'probability_%d' % rank]
    with files.new(predictions_file, 'predictions.csv') as file, io.TextIOWrapper(
            # The byte order mark (sig) tells Excel that this is UTF-8.
            file, 'utf-8-sig', 'surrogateescape', newline='') as text:
        writer = csv.writer(text)
        writer.writerow(header)
        for sample, path in enumerate(paths):
            cells = [cell_of(path)]
            if labels is not None:
                cells += [labels[sample], cell_of(class_names[labels[sample]])]
            for label in best[sample]:
                cells += [label, cell_of(class_names[label]),
                          '%.6f' % probabilities[sample, label]]
            writer.writerow(cells)


def print_scores(labels, predicted, probabilities):
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


# Next to the checkpoint, model.json names the classes and says how pictures were
# prepared, so that nobody has to repeat it here.
weights_path = find_weights(checkpoint)
print('Network: %s' % weights_path)
print('Device: %s' % find_device())
class_names = find_class_names(weights_path, LAYERS[-1])
preprocessing, test_summary = find_preprocessing(
    weights_path, IMAGENET_MEAN, size=IMAGE_SIZE, margin=0, reducing_gap=REDUCING_GAP)
load = functools.partial(load_image, **preprocessing)  # reads as training did
trained = read_model(weights_path).get('train_layers', [])


def network(images):
    """Build the network for uint8 images (n, 227, 227, 3), BGR."""
    return AlexNet(normalize(images), 1., len(class_names), [], weights_path, trained)


# Without labels, pictures may come from several places. With labels they are scored,
# so all of them must have one.
labels = None
if not export_path:
    places = [pictures] if isinstance(pictures, str) else pictures
    labelled = [place for place in places if has_labels(place, pictures_path)]
    if labelled and len(places) > 1:
        raise InputError('%s: a list with labels must be the only argument'
                         % labelled[0])
    if labelled:  # a faulty label ends the script, a missing picture does not
        paths, labels, _ = read_list(labelled[0], len(class_names), False, class_names,
                                     pictures_path)
        warn_of_other_names(labelled[0], class_names, pictures_path)
    else:
        paths = [path for place in places
                 for path in find_pictures(place, pictures_path)]

images = tf.placeholder(tf.uint8, [None, 227, 227, 3])
model = network(images)
output = getattr(model, layer or 'probabilities')
# Training may have stored what the frozen layers make of a picture.
is_behind = (trained and model.bottleneck is not model.X and
             layer not in LAYERS[:min(map(LAYERS.index, trained))])
fed = model.bottleneck if is_behind else images
same = {model.dropout6: model.fc6, model.dropout7: model.fc7}  # without dropout


def run_network(session):
    """Return the output for the pictures that can be read, and which these are."""
    frozen = FrozenLayers(session, fed, images, {}, same)
    data = PlainPictures(paths, load, preprocessing)
    # A few are computed faster than the stored ones are found.
    store = len(paths) > 32 and frozen.open_store(features_path, np.inf, load_image)
    [features] = open_features([data], frozen, store)
    values, read = [], []
    for batch in features.batches(batch_size):
        if len(batch.samples):
            values.append(session.run(output, {fed: batch.images}))
            read += batch.samples.tolist()
    # One bad picture among thousands must not cost the results of the others.
    if data.faults:
        print('Cannot read %s:' % number_of(data.faults))
        print_some(['  %s' % fault for _, fault in sorted(data.faults.items())], '')
    if not values:
        raise InputError('No picture could be read.')
    return np.concatenate(values), read


with tf.Session(config=session_config()) as session:
    model.load_initial_weights(session)
    # If load_image or normalize were edited after training, predictions would be wrong
    # without any sign of it. A test picture tells.
    if test_summary:
        check_summary(weights_path, test_summary, summarize(
            session, model, images, load_image, preprocessing))
    if export_path:
        export_model(network, class_names, export_path, preprocessing,
                     pictures_to_compare(weights_path, class_names, load))
    else:
        values, read = run_network(session)
        paths = [paths[sample] for sample in read]
        labels = labels if labels is None else labels[read]

if export_path:
    print('Wrote %s' % export_path)
elif layer:  # for other programs, so there is nothing to show or to score
    arrays = {'features': values, 'paths': paths}
    if labels is not None:
        arrays['labels'] = labels
    print('%s of %s, shape %s' % (layer, number_of(paths), values.shape))
    with files.new(features_file, 'features.npz') as file:
        np.savez(file, **arrays)
else:
    best = values.argsort(1)[:, ::-1][:, :top_k]
    print_some(['%s: %s' % (path, ', '.join(
        '%s %.4f' % (class_names[label], row[label]) for label in ranked))
                for path, row, ranked in zip(paths, values, best)], ' in the table')
    write_predictions(paths, labels, values, best)
    if labels is not None:  # scores tell how far to trust the classes
        print_scores(labels, best[:, 0], values)
        matrix, fault = try_to_draw(draw_confusions, labels, best[:, 0], class_names)
        if fault:
            print('Warning: the confusion matrix cannot be drawn: %s' % fault)
        if matrix:
            with files.new(confusion_file, 'confusion_matrix.png') as file:
                file.write(matrix)
