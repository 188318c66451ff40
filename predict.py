"""Classify pictures with a fine-tuned checkpoint, or with the pretrained weights.

Edit the variables below, or give them and the pictures on the command line:
    python predict.py cat.jpg photos 'more/*.png' --top_k=5
"""
import csv
import json
import math
import os
import shutil
import sys
import warnings

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alexnet import LAYERS, AlexNet, list_checkpoints, read_weights
from datagenerator import (IMAGENET_MEAN, check_settings, find_pictures, has_labels,
                           load_batches, read_class_names, read_command_line,
                           read_list)
import tensorflow.compat.v1 as tf

# A checkpoint, a folder of them (the best one counts), or bvlc_alexnet.npy
checkpoint = '/tmp/finetune_alexnet/checkpoints'
pictures = 'images/test.txt'  # a picture, a folder, a pattern, or a list
top_k = 3  # classes to tell for each picture
batch_size = 128
layer = None  # 'fc7', for example: write this layer's activations instead
export_path = None  # a new folder: write a SavedModel there instead

# Output
predictions_file = 'predictions.csv'
confusion_file = 'confusion_matrix.png'  # for a list with labels
features_file = 'features.npz'  # for a layer: arrays features and paths


def find_weights(checkpoint):
    """Return the path of the best checkpoint in a folder, else of the newest one.

    The path of a checkpoint or a weight file itself is returned as it is.

    Raises:
        FileNotFoundError: there is none.
    """
    if not os.path.isdir(checkpoint):
        if os.path.exists(checkpoint) or os.path.exists(checkpoint + '.index'):
            return checkpoint
        raise FileNotFoundError('%s: no such checkpoint; finetune.py writes them'
                                % checkpoint)
    best = os.path.join(checkpoint, 'model_best.ckpt')
    found = [best] if os.path.exists(best + '.index') else list_checkpoints(checkpoint)
    if not found:
        raise FileNotFoundError('%s: no checkpoints there; finetune.py writes them'
                                % checkpoint)
    return found[-1]


def find_class_names(weights_path):
    """Return the names from model.json beside the weights, ImageNet's, or numbers."""
    num_classes = read_weights(weights_path)['fc8'][1].size
    model_file = os.path.join(os.path.dirname(weights_path), 'model.json')
    if os.path.exists(model_file):
        with open(model_file) as file:
            class_names = json.load(file)['class_names']
        if len(class_names) == num_classes:
            return class_names
    if num_classes == 1000:
        imagenet_file = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                     'images', 'imagenet_classes.txt')
        return [line.split(' ', 1)[1] for line in read_class_names(imagenet_file, 1000)]
    return [str(label) for label in range(num_classes)]


def write_predictions(paths, probabilities, best, class_names):
    """Write the top classes of each picture as a table."""
    with open(predictions_file, 'w', newline='', encoding='utf-8',
              errors='surrogateescape') as file:
        writer = csv.writer(file)
        writer.writerow(['path'] + [
            '%s_%d' % (column, rank + 1) for rank in range(best.shape[1])
            for column in ('class', 'name', 'probability')])
        for path, row, ranked in zip(paths, probabilities, best):
            writer.writerow([path] + [
                cell for label in ranked
                for cell in (label, class_names[label], '%.6f' % row[label])])


def print_scores(labels, predicted, class_names):
    """Print precision, recall and F1 of each class that occurs."""
    right, true, found = [np.bincount(classes, minlength=len(class_names)) for classes
                          in (labels[labels == predicted], labels, predicted)]
    width = max(len(name) for name in class_names)
    print('%-*s %9s %9s %9s %9s' % (width, 'class', 'precision', 'recall', 'F1',
                                    'pictures'))
    for label in np.flatnonzero(true + found):
        print('%-*s %9.4f %9.4f %9.4f %9d' % (
            width, class_names[label], right[label] / max(found[label], 1),
            right[label] / max(true[label], 1),
            2 * right[label] / (true[label] + found[label]), true[label]))


def draw_confusions(labels, predicted, class_names):
    """Return the confusion matrix as a PNG, coloured by the share of each true class.

    None for more than 1000 classes.
    """
    num_classes = len(class_names)
    if num_classes > 1000:
        return None
    class_names = as_plain_text(class_names)
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    size = max(4, min(20, 1.5 + 0.5 * num_classes))
    figure = Figure((size, size), tight_layout=True)
    axes = figure.add_subplot()
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), 'Blues', vmin=0,
                vmax=1)
    axes.set(xlabel='predicted', ylabel='true', title='Confusion matrix')
    if num_classes <= 40:
        axes.set_xticks(range(num_classes))
        axes.set_xticklabels(class_names, rotation=90)
        axes.set_yticks(range(num_classes))
        axes.set_yticklabels(class_names)
        for true, found in zip(*matrix.nonzero()):
            share = matrix[true, found] / matrix[true].sum()
            axes.text(found, true, matrix[true, found], ha='center', va='center',
                      color='white' if share > 0.5 else 'black')
    return render(figure, '.png')


def draw_mistakes(paths, labels, predicted, losses, class_names):
    """Return the 16 wrongly classified pictures of highest loss as a JPEG, or None."""
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[losses[wrong].argsort()[::-1][:16]]
    if not len(worst):
        return None
    class_names = as_plain_text(class_names)
    figure = Figure((9.6, 10.8), dpi=100)
    mosaic = np.full((4, 270, 4, 240, 3), 255, np.uint8)
    for _, images in load_batches([paths[sample] for sample in worst], 16):
        for place, (sample, image) in enumerate(zip(worst, images)):
            if isinstance(image, np.ndarray):
                row, column = divmod(place, 4)
                mosaic[row, 38:265, column, 6:233] = (image + IMAGENET_MEAN)[:, :, ::-1]
                figure.text(0.006 + column / 4, 0.995 - row / 4,
                            'true: %s\npredicted: %s' % (
                                class_names[labels[sample]],
                                class_names[predicted[sample]]), va='top')
    figure.figimage(mosaic.reshape(1080, 960, 3))
    return render(figure, '.jpg')


def as_plain_text(names):
    """Shorten names, and keep matplotlib from reading dollar signs as formulas."""
    return [name[:20].replace('$', r'\$') for name in names]


def draw_filters(weights):
    """Return 96 filters (height, width, BGR, 96) as a PNG, each at full contrast."""
    height, width, _, _ = weights.shape
    tiles = np.full((height + 1, width + 1, 3, 96), 255.)
    tiles[1:, 1:] = 127.5 + 127.5 * weights / np.abs(weights).max((0, 1, 2))
    picture = tiles.reshape(height + 1, width + 1, 3, 8, 12).transpose(3, 0, 4, 1, 2)
    picture = np.uint8(picture.reshape(8 * (height + 1), 12 * (width + 1), 3))
    # Without a level, OpenCV makes it four times as large.
    return cv2.imencode('.png', picture.repeat(5, 0).repeat(5, 1),
                        [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def render(figure, ending):
    """Return a figure as the bytes of a picture file."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # letters that its font lacks come out as boxes
        warnings.simplefilter('ignore', UserWarning)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, 2::-1]
    return cv2.imencode(ending, pixels)[1].tobytes()


def write_projector(folder, batches, batch_size, paths, names):
    """Write a page for TensorBoard's projector: features, thumbnails and class names.

    Takes an even selection of the samples, at most 500, and less if their features are
    longer than 4000 numbers; of several workers, only what is in the chief's part.

    Args:
        folder: where the summaries of a run lie.
        batches: FeatureCache of a generator that does not shuffle.
        paths, names: of all samples, in their order.
    """
    batches.reset_pointer()
    chosen, features = [], []
    for start in range(0, batches.data_size, batch_size):
        batch = batches.next_batch(batch_size)[0]
        batch = batch.reshape(len(batch), -1)
        count = min(500, max(1, 2000000 // batch.shape[1]))
        stride = math.ceil(batches.data_size / count)
        for sample, feature in zip(start + batches.rows, batch):
            if sample % stride == 0:
                chosen.append(sample)
                features.append(feature)
    paths, names = [[values[sample] for sample in chosen] for values in (paths, names)]

    side = math.ceil(math.sqrt(len(paths)))
    sprite = np.full((side, 64, side, 64, 3), 255, np.uint8)
    done = 0
    for batch, images in load_batches(paths, 100):
        for place, image in enumerate(images, done):
            if isinstance(image, np.ndarray):
                sprite[place // side, :, place % side] = cv2.resize(
                    np.uint8(image + IMAGENET_MEAN), (64, 64),
                    interpolation=cv2.INTER_AREA)
        done += len(batch)
    cv2.imwrite(os.path.join(folder, 'thumbnails.png'),
                sprite.reshape(side * 64, side * 64, 3))
    np.savetxt(os.path.join(folder, 'features.tsv'), features, '%.4g', '\t')
    with open(os.path.join(folder, 'pictures.tsv'), 'w', encoding='utf-8') as file:
        file.write('class\tpicture\n')
        file.writelines('%s\t%s\n' % (name.replace('\t', ' '), path.replace('\t', ' '))
                        for name, path in zip(names, paths))
    with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
        file.write('embeddings {\n'
                   '  tensor_name: "bottleneck"\n'
                   '  tensor_path: "features.tsv"\n'
                   '  metadata_path: "pictures.tsv"\n'
                   '  sprite { image_path: "thumbnails.png"\n'
                   '           single_image_dim: 64 single_image_dim: 64 }\n'
                   '}\n')


def preprocess(picture):
    """Return what load_image makes of a file, for the bytes of one as a scalar tensor.

    Takes JPEG, PNG, and GIF of one frame; does not obey a camera's rotation mark
    (EXIF), and CMYK comes out up to 2 of 255 levels different.
    """
    # The decoding that OpenCV uses, too. The operation takes the other formats as well.
    image = tf.image.decode_jpeg(picture, 3, dct_method='INTEGER_ACCURATE')
    return tf.cast(resize(image, 227)[:, :, ::-1], tf.float32) - IMAGENET_MEAN


def resize(image, size):
    """Resize (h, w, 3) to (size, size, 3), in the arithmetic of cv2.resize for uint8.

    It keeps weights as multiples of 1 / 2048 and cuts off lower bits (resize.cpp,
    VResizeLinear); the exact mean would be a level higher at every eighth value.
    """
    image = tf.cast(image, tf.int32)
    before, after, weight = interpolation(tf.shape(image)[1], size)
    columns = (tf.gather(image, before, axis=1) * (2048 - weight)[:, None] +
               tf.gather(image, after, axis=1) * weight[:, None]) // 16
    before, after, weight = interpolation(tf.shape(image)[0], size)
    rows = (tf.gather(columns, before) * (2048 - weight)[:, None, None] // 65536 +
            tf.gather(columns, after) * weight[:, None, None] // 65536)
    return (rows + 2) // 4


def interpolation(length, size):
    """Return two neighbours of each of size places, and the weight of the second."""
    scale = tf.cast(length, tf.float64) / size
    place = tf.cast((tf.range(size, dtype=tf.float64) + 0.5) * scale - 0.5, tf.float32)
    before = tf.floor(place)
    weight = tf.cast(tf.round((place - before) * 2048), tf.int32)
    before = tf.cast(before, tf.int32)
    return tf.maximum(before, 0), tf.minimum(before + 1, length - 1), weight


def export_model(weights_path, class_names, folder):
    """Write a SavedModel that classifies the bytes of picture files.

    Its signature, serving_default, takes pictures, a string tensor (n,), and returns
    probabilities, class_ids and names, each (n, number of classes), the most probable
    class first.

    Args:
        weights_path: as AlexNet takes it.
        folder: must not exist; it appears when it is complete.
    """
    part = folder.rstrip(os.sep) + '.part'
    shutil.rmtree(part, ignore_errors=True)
    with tf.Graph().as_default(), tf.Session() as session:
        pictures = tf.placeholder(tf.string, [None], 'pictures')
        x = tf.map_fn(preprocess, pictures, tf.float32)
        model = AlexNet(x, 1., len(class_names), [], weights_path)
        probabilities, class_ids = tf.nn.top_k(tf.nn.softmax(model.fc8),
                                               len(class_names))
        names = tf.gather(tf.constant(class_names), class_ids)
        model.load_initial_weights(session)
        tf.saved_model.simple_save(session, part, {'pictures': pictures}, {
            'probabilities': probabilities, 'class_ids': class_ids, 'names': names})
    os.rename(part, folder)


if __name__ == '__main__':
    sys.stdout.reconfigure(errors='backslashreplace')  # names that are not UTF-8
    globals().update(read_command_line(globals(), [
        argument for argument in sys.argv[1:] if argument.startswith('-')]))
    places = [argument for argument in sys.argv[1:] if not argument.startswith('-')]
    check_settings(globals(), [
        ('top_k', top_k >= 1, '1 or more'),
        ('batch_size', batch_size >= 1, '1 or more'),
        ('layer', layer is None or layer in LAYERS, 'None or one of %s' % LAYERS),
        ('export_path', not export_path or not os.path.exists(export_path),
         'a folder that does not exist yet')])

    weights_path = find_weights(checkpoint)
    print('Network: %s' % weights_path)
    class_names = find_class_names(weights_path)
    num_classes = len(class_names)
    if export_path:
        export_model(weights_path, class_names, export_path)
        print('Wrote %s' % export_path)
        sys.exit()

    places = places or [pictures]
    labelled = [place for place in places if has_labels(place)]
    labels = None
    if labelled and len(places) > 1:
        sys.exit('%s: a list with labels goes alone' % labelled[0])
    if labelled:
        paths, labels, _ = read_list(labelled[0], num_classes, check_files=False)
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
            good = [i for i, image in enumerate(images)
                    if isinstance(image, np.ndarray)]
            faults += [str(image) for image in images
                       if not isinstance(image, np.ndarray)]
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

    if layer:
        with open(features_file, 'wb') as file:
            np.savez(file, features=values, paths=paths)
        print('Wrote %s: %s of %d pictures, shape %s'
              % (features_file, layer, len(paths), values.shape))
        sys.exit()
    best = values.argsort(1)[:, ::-1][:, :top_k]
    for path, row, ranked in zip(paths, values, best):
        print('%s: %s' % (path, ', '.join('%s %.4f' % (class_names[label], row[label])
                                          for label in ranked)))
    write_predictions(paths, values, best, class_names)
    print('Wrote %s' % predictions_file)
    if labels is not None:
        labels, predicted = labels[read], best[:, 0]
        print_scores(labels, predicted, class_names)
        print('Accuracy: %.4f of %d pictures' % ((predicted == labels).mean(),
                                                 len(labels)))
        if num_classes > 5:
            ranks = (values > values[np.arange(len(labels)), labels][:, None]).sum(1)
            print('Top-5 accuracy: %.4f' % (ranks < 5).mean())
        matrix = draw_confusions(labels, predicted, class_names)
        if matrix:
            with open(confusion_file, 'wb') as file:
                file.write(matrix)
            print('Wrote %s' % confusion_file)
