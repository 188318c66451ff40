"""Drawings of how a network does, as the bytes of picture files."""
import math
import os
import warnings

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PROJECTOR_CONFIG = '''embeddings {
  tensor_name: "bottleneck"
  tensor_path: "features.tsv"
  metadata_path: "pictures.tsv"
  sprite { image_path: "thumbnails.png"
           single_image_dim: 64 single_image_dim: 64 }
}
'''


def draw_confusions(labels, predicted, class_names):
    """Return the confusion matrix as a PNG, or None for more than 1000 classes."""
    num_classes = len(class_names)
    if num_classes > 1000:
        return None
    class_names = as_plain_text(class_names)
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    inches = max(4, min(20, 1.5 + 0.5 * num_classes))
    figure = Figure((inches, inches), tight_layout=True)
    axes = figure.add_subplot()
    axes.imshow(shares, 'Blues', vmin=0, vmax=1)
    axes.set(xlabel='predicted', ylabel='true', title='Confusion matrix')
    if num_classes <= 40:
        axes.set_xticks(range(num_classes), class_names, rotation=90)
        axes.set_yticks(range(num_classes), class_names)
        for row, column in zip(*matrix.nonzero()):
            axes.text(column, row, matrix[row, column], ha='center', va='center',
                      color='white' if shares[row, column] > 0.5 else 'black')
    return render(figure, '.png')


def draw_mistakes(pictures, labels, predicted, losses, class_names):
    """Return the 16 wrongly classified pictures of highest loss as a JPEG, or None.

    Args:
        pictures: function from sample numbers to an iterable of uint8 BGR arrays
            (227, 227, 3), with None for a picture that cannot be read.
        labels, predicted, losses: arrays (n,), of all samples.
    """
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[losses[wrong].argsort()[::-1][:16]]
    if not len(worst):
        return None
    class_names = as_plain_text(class_names)
    figure = Figure((9.6, 10.8), dpi=100)
    tiles = np.full((16, 270, 240, 3), 255, np.uint8)
    for position, (sample, image) in enumerate(zip(worst, pictures(worst))):
        if image is not None:
            tiles[position, 38:265, 6:233] = image[:, :, ::-1]
            text = 'true: %s\npredicted: %s' % (
                class_names[labels[sample]], class_names[predicted[sample]])
            row, column = divmod(position, 4)
            figure.text(0.006 + column / 4, 0.995 - row / 4, text, va='top')
    figure.figimage(arrange(tiles, 4))
    return render(figure, '.jpg')


def draw_filters(weights):
    """Return 96 filters (height, width, BGR, 96) as a PNG, each at full contrast."""
    tiles = 127.5 + 127.5 * weights / np.abs(weights).max((0, 1, 2))
    tiles = np.pad(tiles.transpose(3, 0, 1, 2), [(0, 0), (1, 0), (1, 0), (0, 0)],
                   'constant', constant_values=255)
    image = np.uint8(arrange(tiles, 12)).repeat(5, 0).repeat(5, 1)
    # Without a level, OpenCV makes it four times as large.
    return cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def arrange(tiles, columns):
    """Return tiles (n, height, width, 3) as one image with so many columns of them."""
    _, height, width, _ = tiles.shape
    return tiles.reshape(-1, columns, height, width, 3).swapaxes(1, 2).reshape(
        -1, columns * width, 3)


def as_plain_text(names):
    """Shorten names, and keep matplotlib from reading dollar signs as formulas."""
    return [name[:20].replace('$', r'\$') for name in names]


def render(figure, ending):
    """Return a figure as the bytes of a picture file."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # letters that its font lacks come out as boxes
        warnings.simplefilter('ignore', UserWarning)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, 2::-1]
    return cv2.imencode(ending, pixels)[1].tobytes()


def write_projector(folder, batches, batch_size, pictures, paths, names):
    """Write a page for TensorBoard's projector: features, thumbnails and class names.

    Args:
        batches: FeatureCache of a generator that does not shuffle.
        pictures: as draw_mistakes takes it.
        paths, names: path and class name of every sample of the list.
    """
    samples, features = select_features(batches, batch_size)
    np.savetxt(os.path.join(folder, 'features.tsv'), features, '%.4g', '\t')
    with open(os.path.join(folder, 'pictures.tsv'), 'w', encoding='utf-8') as file:
        file.write('class\tpicture\n')
        for sample in samples:
            row = [texts[sample].replace('\t', ' ') for texts in (names, paths)]
            file.write('\t'.join(row) + '\n')
    side = math.ceil(math.sqrt(len(samples)))
    tiles = np.full((side * side, 64, 64, 3), 255, np.uint8)
    for tile, image in zip(tiles, pictures(samples)):
        if image is not None:
            cv2.resize(image, (64, 64), tile, interpolation=cv2.INTER_AREA)
    cv2.imwrite(os.path.join(folder, 'thumbnails.png'), arrange(tiles, side))
    with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
        file.write(PROJECTOR_CONFIG)


def select_features(batches, batch_size):
    """Return the numbers and features (n, m) of evenly chosen samples of this worker.

    They are 500 at most, and fewer if the features are longer than 4000 numbers.
    """
    features = []
    batches.reset_pointer()
    while batches.pointer < batches.data_size:
        start = batches.pointer
        batch = batches.next_batch(batch_size)[0]
        batch = batch.reshape(len(batch), -1)
        count = min(500, max(1, 2000000 // batch.shape[1]))
        stride = math.ceil(batches.data_size / count)
        # A view would keep the whole batch in memory.
        features.append(batch[-start % stride::stride].copy())
    return batches.samples[::stride], np.concatenate(features)
