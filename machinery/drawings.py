"""Drawings that show how good a network is, as the bytes of picture files."""
import math
import os
import warnings

import cv2
import numpy as np

from machinery.batches import read_batches
from machinery.errors import InputError
from machinery.pictures import load_ahead
from machinery.text import printable

WHITE = np.full((227, 227, 3), 255, np.uint8)
PROJECTOR_CONFIG = '''embeddings {
  tensor_name: "bottleneck"
  tensor_path: "features.tsv"
  metadata_path: "pictures.tsv"
  sprite { image_path: "thumbnails.png" single_image_dim: 64 single_image_dim: 64 }
}
'''


def try_to_draw(draw, *args):
    """Return what draw returns, and why it failed or None: pictures are only a help."""
    try:
        return draw(*args), None
    except Exception as error:
        return None, '%s: %s' % (type(error).__name__, str(error).split('\n')[0])


def draw_confusions(labels, predicted, class_names):
    """Return the confusion matrix as a PNG, or None for more than 1000 classes."""
    num_classes = len(class_names)
    if num_classes > 1000:
        return None
    class_names = [plain(cut(name)) for name in class_names]
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    inches = max(4, min(20, 1.5 + 0.5 * num_classes))
    figure = new_figure((inches, inches), tight_layout=True)
    axes = figure.add_subplot()
    axes.imshow(shares, 'Blues', vmin=0, vmax=1)
    axes.set(xlabel='predicted', ylabel='true',
             title='Confusion matrix\n(shade: share of the true class)')
    if num_classes <= 40:
        axes.set_xticks(range(num_classes), class_names, rotation=90)
        axes.set_yticks(range(num_classes), class_names)
        for row, column in zip(*matrix.nonzero()):
            axes.text(column, row, matrix[row, column], ha='center', va='center',
                      color='white' if shares[row, column] > 0.5 else 'black')
    return cv2.imencode('.png', render(figure))[1].tobytes()


def draw_comparison(true, predicted, kind):
    """Return the drawing of true and predicted labels that a kind has, or None."""
    if kind.drawing == 'confusion_matrix':
        return draw_confusions(true, predicted, kind.names)
    return draw_scatter(true, predicted, kind.names) if kind.drawing else None


def draw_scatter(true, predicted, names):
    """Return predicted against true numbers (n, width) as a PNG, a square for each."""
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure((4.5 * columns, 4.5 * rows), tight_layout=True)
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        pair = true[:, place], predicted[:, place]
        low, high = np.min(pair), np.max(pair)
        axes.plot([low, high], [low, high], color='0.7')  # where both are equal
        axes.plot(*pair, '.', alpha=0.5)
        axes.set(xlabel='true', ylabel='predicted', title=plain(cut(name)))
    return cv2.imencode('.png', render(figure))[1].tobytes()


def draw_mistakes(data, values, kind, look=None):
    """Return the 16 mistakes with the highest loss as a JPEG; None without a mistake.

    values is {name: array (n, ...)} of the scores and predictions of the list of data,
    whose labels are of this kind. With look, a function from images to their heat maps
    drawn over them, there are 8 mistakes, and these beside them.
    """
    wrong = np.flatnonzero(kind.is_wrong(values))
    worst = wrong[values[kind.loss][wrong].argsort()[::-1][:8 if look else 16]]
    if not len(worst):
        return None
    images = list(load_all(data, worst))
    texts = ['\n'.join([
        cut(os.path.basename(data.paths[sample]), 30),
        'true: ' + cut(kind.show(values['true'][sample])),
        'predicted: ' + cut(kind.show_predicted(values, sample), 26)])
        for sample in worst]
    if look:
        images = [tile for pair in zip(images, look(images)) for tile in pair]
        texts = [part for text in texts for part in (text, '')]
    return draw_tiles(images, texts)


def load_all(data, samples):
    """Yield the images of samples, a white one if a picture cannot be read."""
    for _, images in load_ahead(data.load, samples, 16):
        for image in images:
            yield WHITE if isinstance(image, InputError) else image


def draw_batch(data, kind):
    """Return the first images of an epoch, as the network gets them, as a JPEG."""
    batch = next(read_batches(data, 16))
    # Your own batches have a size of their own.
    labels = kind.labels_of(batch.labels[:16])
    return draw_tiles(batch.images[:16], [cut(kind.show(label)) for label in labels])


def draw_tiles(images, texts, columns=4):
    """Draw uint8 BGR images, columns in a row, each above its text."""
    rows = math.ceil(len(texts) / columns)
    height = 240 + 16 * max(text.count('\n') + 1 for text in texts)
    figure = new_figure((2.4 * columns, rows * height / 100), dpi=100)
    for position, text in enumerate(texts):
        row, column = divmod(position, columns)
        x, y = 240 * column + 6, (rows - row) * height  # y counts from the bottom
        figure.text(x, y - 236, plain(text), va='top', fontsize=9, transform=None)
    pixels = render(figure)
    for position, image in enumerate(images):  # matplotlib would be slow at it
        row, column = divmod(position, columns)
        top, left = row * height + 6, 240 * column + 6
        pixels[top:top + 227, left:left + 227] = cv2.resize(image, (227, 227))
    return cv2.imencode('.jpg', pixels)[1].tobytes()


def draw_filters(weights):
    """Return filters (height, width, channels, n) as a PNG, each at full contrast.

    None if they have neither three channels (blue, green, red) nor one.
    """
    if weights.ndim != 4 or weights.shape[2] not in (1, 3):
        return None
    tiles = 127.5 + 127.5 * weights / np.maximum(np.abs(weights).max((0, 1, 2)), 1e-30)
    tiles = np.repeat(tiles, 3 // weights.shape[2], 2).transpose(3, 0, 1, 2)
    tiles = np.pad(tiles, [(0, -len(tiles) % 12), (1, 0), (1, 0), (0, 0)],
                   'constant', constant_values=255)
    image = np.uint8(arrange(tiles, 12)).repeat(5, 0).repeat(5, 1)
    # Without a level, OpenCV makes it four times as large.
    return cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def arrange(tiles, columns):
    """Join tiles (n, height, width, 3) to one image with this number of columns."""
    _, height, width, _ = tiles.shape
    return tiles.reshape(-1, columns, height, width, 3).swapaxes(1, 2).reshape(
        -1, columns * width, 3)


def cut(text, length=20):
    """Shorten text to at most length characters."""
    return text if len(text) <= length else text[:length - 1] + '…'


def plain(text):
    """Keep matplotlib from formulas between dollar signs, and from bytes of a path."""
    return text.replace('$', r'\$').encode('utf-8', 'replace').decode()


def new_figure(*args, **kwargs):
    """Return a matplotlib Figure; the user's settings can make even the import fail."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    return FigureCanvasAgg(Figure(*args, **kwargs)).figure


def render(figure):
    """Return a figure as a uint8 BGR array."""
    with warnings.catch_warnings():  # its font draws boxes for letters that it lacks
        warnings.simplefilter('ignore', UserWarning)
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[:, :, 2::-1])


def write_projector(folder, features, batch_size, kind):
    """Write a page for TensorBoard's projector: features, thumbnails, labels.

    features must come from a generator that does not shuffle.
    """
    data = features.data
    samples, rows = select_features(features, batch_size)
    np.savetxt(os.path.join(folder, 'features.tsv'), rows, '%.4g', '\t')
    with open(os.path.join(folder, 'pictures.tsv'), 'w', encoding='utf-8') as file:
        file.write('%s\tpicture\n' % kind.name)
        for sample in samples:
            file.write('%s\t%s\n' % (printable(kind.show(data.labels[sample])),
                                     printable(data.paths[sample])))
    side = math.ceil(math.sqrt(len(samples)))
    tiles = np.full((side * side, 64, 64, 3), 255, np.uint8)
    for tile, image in zip(tiles, load_all(data, samples)):
        cv2.resize(image, (64, 64), tile, interpolation=cv2.INTER_AREA)
    with open(os.path.join(folder, 'thumbnails.png'), 'wb') as file:
        file.write(cv2.imencode('.png', arrange(tiles, side))[1].tobytes())
    with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
        file.write(PROJECTOR_CONFIG)


def select_features(features, batch_size):
    """Return evenly spaced samples of this worker, and their features (n, m).

    At most 500, and fewer if a feature is longer than 4000 numbers.
    """
    samples, rows = [], []
    for batch in features.batches(batch_size):
        start = batch.end - len(batch.samples)
        found = batch.images.reshape(len(batch.images), -1)
        count = min(500, max(1, 2000000 // found.shape[1]))
        stride = math.ceil(features.data_size / count)
        chosen = slice(-start % stride, None, stride)
        rows.append(found[chosen].copy())  # a view would keep the batch in memory
        samples.extend(batch.samples[chosen])
    return samples, np.concatenate(rows)
