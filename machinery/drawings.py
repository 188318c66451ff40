"""Drawings that show how good a network is, as the bytes of picture files."""
import contextlib
import math
import os
import warnings

import cv2
import numpy as np

from machinery.batches import has_files, read_batches
from machinery.errors import InputError
from machinery.pictures import load_ahead
from machinery.text import printable

DPI = 100
# TensorBoard scales a picture to a width of 350 pixels by dropping pixels. From twice
# that width it drops every second one, which leaves letters readable.
CHART_WIDTH = 700
WHITE = np.full((227, 227, 3), 255, np.uint8)
PROJECTOR_CONFIG = '''embeddings {
  tensor_name: "bottleneck"
  tensor_path: "features.tsv"
  metadata_path: "pictures.tsv"
  sprite { image_path: "thumbnails.png" single_image_dim: 64 single_image_dim: 64 }
}
'''


def try_to_draw(draw, *args):
    """Return (result of draw, None), or (None, why it failed): no picture is vital."""
    try:
        return draw(*args), None
    except Exception as error:
        return None, '%s: %s' % (type(error).__name__, str(error).split('\n')[0])


def count_confusions(labels, predicted, num_classes, most=20):
    """Return the most confused classes (n,), sorted, and their counts (n, n).

    These classes have the most mistakes, counted as the true and as the predicted
    class. The counts are their part of the confusion matrix, with true classes in rows.
    """
    is_wrong = labels != predicted
    num_mistakes = sum(np.bincount(numbers[is_wrong], minlength=num_classes)
                       for numbers in (labels, predicted))
    classes = np.sort(np.argsort(-num_mistakes, kind='stable')[:most])
    is_among = np.isin(labels, classes) & np.isin(predicted, classes)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, tuple(np.searchsorted(classes, numbers[is_among])
                            for numbers in (labels, predicted)), 1)
    return classes, counts


def draw_confusions(labels, predicted, class_names):
    """Return the confusion matrix as a PNG, of the 20 most confused classes if more."""
    labels, predicted = np.array(labels), np.array(predicted)
    shown, matrix = count_confusions(labels, predicted, len(class_names))
    totals = np.bincount(labels, minlength=len(class_names))[shown]
    shares = matrix / np.maximum(totals[:, None], 1)
    title = 'Confusion matrix' if len(shown) == len(class_names) else (
        'The %d of %d classes that are confused most' % (len(shown), len(class_names)))
    inches = max(4, 3 + 0.15 * len(shown))
    figure = new_figure((inches, inches), dpi=CHART_WIDTH / inches)
    axes = figure.add_subplot()
    axes.imshow(shares, 'Blues', vmin=0, vmax=1)
    axes.set(xlabel='predicted', ylabel='true')
    figure.suptitle(title + '\n(shade: share of the true class)', fontsize='medium')
    names = [plain(cut(class_names[number])) for number in shown]
    axes.set_xticks(range(len(shown)), names, rotation=90)
    axes.set_yticks(range(len(shown)), names)
    with boxes_for_letters():
        figure.tight_layout()
    axes.apply_aspect()  # now the width of a cell is known
    cell = axes.get_window_extent().width / figure.dpi * 72 / len(shown)
    for row, column in zip(*matrix.nonzero()):
        count = str(matrix[row, column])
        axes.text(column, row, count, fontsize=min(10, 1.5 * cell / len(count)),
                  ha='center', va='center',
                  color='white' if shares[row, column] > 0.5 else 'black')
    return cv2.imencode('.png', render(figure))[1].tobytes()


def draw_comparison(true, predicted, kind):
    """Return the drawing that compares true and predicted labels, if a kind has one."""
    if kind.drawing == 'confusion_matrix':
        return draw_confusions(true, predicted, kind.names)
    return draw_scatter(true, predicted, kind.names) if kind.drawing else None


def draw_scatter(true, predicted, names):
    """Plot predicted against true numbers (n, width) as a PNG, a square per number."""
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    inches = 4 if columns == 1 else 3.2
    figure = new_figure((inches * columns, inches * rows), tight_layout=True,
                        dpi=CHART_WIDTH / (inches * columns))
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        pair = true[:, place], predicted[:, place]
        low, high = np.min(pair), np.max(pair)
        axes.plot([low, high], [low, high], color='0.7')  # true equals predicted
        axes.plot(*pair, '.', alpha=0.5)
        axes.set(xlabel='true', ylabel='predicted', title=plain(cut(name)))
        axes.locator_params(nbins=3)  # more tick labels would overlap
    return cv2.imencode('.png', render(figure))[1].tobytes()


def find_worst(values, kind, count):
    """Return the mistakes with the highest loss, at most count samples (n,).

    values is {name: array (n, ...)}: the scores and predictions of a list whose labels
    are of this kind.
    """
    wrong = np.flatnonzero(kind.is_wrong(values))
    return wrong[values[kind.loss][wrong].argsort()[::-1][:count]]


def draw_mistakes(data, values, kind, look=None):
    """Return the 8 worst mistakes as a JPEG, or None without a mistake.

    data is the generator of the list, values and kind are those of find_worst. look is
    a function from images to their heat maps, which are drawn beside them.
    """
    worst = find_worst(values, kind, 8)
    if not len(worst):
        return None
    images = list(load_all(data, worst))
    texts = [[os.path.basename(data.paths[sample]),
              'true: ' + kind.show(values['true'][sample]),
              'predicted: ' + kind.show_predicted(values, sample)] for sample in worst]
    if not look:
        return draw_tiles(images, texts, 2)
    return draw_tiles([image for pair in zip(images, look(images)) for image in pair],
                      texts, 4)


def load_all(data, samples):
    """Yield the images of samples, or a white one if a picture cannot be read."""
    for _, images in load_ahead(data.load, samples, 16):
        for image in images:
            yield WHITE if isinstance(image, InputError) else image


def draw_batch(data, kind):
    """Return the first images of an epoch, as the network gets them, as a JPEG."""
    batch = next(read_batches(data, 12))
    texts = [[kind.show(label)] for label in kind.labels_of(batch.labels)]
    if has_files(data):
        for text, sample in zip(texts, batch.samples):
            text.append(os.path.basename(data.paths[sample]))
    # A batch of your own may be larger.
    return draw_tiles(batch.images[:12], texts[:12], 3)


def draw_tiles(images, texts, columns):
    """Return uint8 BGR images as a JPEG, columns in a row, above their texts.

    A text is a list of lines. With fewer texts than images, each is below several.
    """
    columns = min(columns, len(images))
    # TensorBoard scales the whole to one width, so more columns need larger letters.
    line, letter = 9 * columns, 4.3 * columns
    rows, span = math.ceil(len(images) / columns), len(images) // len(texts)
    height = 240 + line * max(map(len, texts))
    figure = new_figure((240 * columns / DPI, rows * height / DPI), dpi=DPI)
    for position, text in enumerate(texts):
        row, column = divmod(span * position, columns)
        for place, words in enumerate(text):
            words = cut(printable(words), int((240 * span - 12) / letter))
            figure.text(240 * column + 6, (rows - row) * height - 236 - line * place,
                        plain(words), va='top', transform=None, family='monospace',
                        fontsize=72 / DPI * letter / 0.602)  # width / size of letters
    pixels = render(figure)
    for position, image in enumerate(images):  # matplotlib would be slow
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
    """Shorten text to at most length characters, two thirds of them from its start."""
    end = length // 3
    return text if len(text) <= length else (
        text[:length - 1 - end] + '…' + text[-end:])


def plain(text):
    """Escape $, which starts a formula in matplotlib, and bytes that are not UTF-8."""
    return text.replace('$', r'\$').encode('utf-8', 'replace').decode()


def new_figure(*args, **kwargs):
    """Return a matplotlib Figure; a user's settings can break even its import."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    return FigureCanvasAgg(Figure(*args, **kwargs)).figure


@contextlib.contextmanager
def boxes_for_letters():
    """Silence warnings of letters that the font draws as boxes."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        yield


def render(figure):
    """Return a figure as a uint8 BGR array."""
    with boxes_for_letters():
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[:, :, 2::-1])


def write_projector(folder, features, batch_size, kind):
    """Write the files of TensorBoard's projector: features, thumbnails, labels.

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
