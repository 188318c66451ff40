"""load_image as operations of a graph, for the export."""
import numpy as np

from machinery.pictures import MAX_PIXELS, sides_to_reduce
from machinery.proportions import corner_of, cut, fit
from machinery.tf1 import tf


def preprocess(data, size, margin, reducing_gap, resize='squash', grey=None):
    """load_image as part of the graph: a scalar string to a uint8 BGR image.

    Takes JPEG, PNG, BMP, and GIF of one frame. CMYK differs by up to 2 of 255 levels.
    """
    def has(mark, start):
        return tf.equal(tf.strings.substr(data, start, len(mark)), mark)

    def sides_at(start, kind, is_little=True):
        content = tf.strings.substr(data, start, 2 * kind.size)
        return tf.cast(tf.decode_raw(content, kind, is_little), tf.int64)

    # From the header, since decoding takes the memory even if the rest is damaged.
    sides = tf.case([(has('PNG', 1), lambda: sides_at(16, tf.int32, False)),
                     (has('BM', 0), lambda: sides_at(18, tf.int32)),
                     (has('GIF', 0), lambda: sides_at(6, tf.uint16))],
                    lambda: tf.cast(tf.image.extract_jpeg_shape(data)[:2], tf.int64))
    is_small = tf.reduce_prod(tf.abs(sides)) <= MAX_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(is_small, [
            'the picture has more than %d pixels:' % MAX_PIXELS, sides])]):
        data = tf.identity(data)

    width, height = size
    whole = width + margin, height + margin
    sides = sides_to_reduce(whole, reducing_gap)
    compared = tf.reduce_max if resize == 'pad' else tf.reduce_min
    image = tf.case([(has('PNG', 1), lambda: decode_png(data)),
                     (has('BM', 0), lambda: decode_bmp(data)),
                     (has(b'\xff\xd8', 0), lambda: decode_jpeg(data, sides, compared))],
                    lambda: tf.image.decode_jpeg(data, 3))  # GIF works here as well
    image = resize_image(image, whole, resize, grey)
    return tf.cast(cut(image, whole, size)[:, :, ::-1], tf.uint8)


def decode_jpeg(data, sides, compared):
    """Decode and turn a JPEG, at the scale that sides_to_reduce gives.

    compared is reduce_min if its shorter side counts, or reduce_max.
    """
    def decode(scale):
        # OpenCV decodes with the same method.
        return tf.image.decode_jpeg(data, 3, scale, dct_method='INTEGER_ACCURATE')

    if not sides:
        return turn(decode(1), data)
    side = compared(tf.image.extract_jpeg_shape(data)[:2])
    return turn(tf.case([(side >= least, lambda scale=scale: decode(scale))
                         for scale, least in sides.items()], lambda: decode(1)), data)


def decode_png(data):
    """Decode a PNG; transparency becomes white."""
    image = tf.cast(tf.image.decode_png(data, 4), tf.float32)
    alpha = image[:, :, 3:] / 255
    return tf.cast(image[:, :, :3] * alpha + 255 * (1 - alpha) + 0.5, tf.uint8)


def decode_bmp(data):
    """Decode a BMP; ignore a fourth channel, which is not alpha, and expand grey."""
    image = tf.image.decode_bmp(data)[:, :, :3]
    return tf.tile(image, [1, 1, 3 // tf.shape(image)[2]])


def turn(image, data):
    """Turn a JPEG as the EXIF orientation in its first bytes says.

    The orientation is an entry of 12 bytes, in either byte order: the tag 0x112, the
    type 3, the count 1, and the value from 1 to 8. EXIF 2.3, section 4.6.
    """
    head = tf.cast(tf.decode_raw(tf.strings.substr(data, 0, 4096), tf.uint8), tf.int32)
    # Each row holds 10 bytes in a row, of which all but the value are known.
    windows = tf.stack([head[i:tf.size(head) - 9 + i] for i in range(10)], 1)
    orientation = tf.constant([1])
    for entry, place in [([0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0], 8),
                         ([1, 0x12, 0, 3, 0, 0, 0, 1, 0, 0], 9)]:
        others = windows * (1 - tf.one_hot(place, 10, dtype=tf.int32))
        is_here = tf.reduce_all(tf.equal(others, entry), 1)
        orientation = tf.concat([tf.boolean_mask(windows[:, place], is_here),
                                 orientation], 0)
    orientation = orientation[0]
    for values, change in [((5, 6, 7, 8), lambda: tf.transpose(image, [1, 0, 2])),
                           ((2, 3, 6, 7), lambda: image[:, ::-1]),
                           ((3, 4, 7, 8), lambda: image[::-1])]:
        image = tf.cond(tf.reduce_any(tf.equal(orientation, values)), change,
                        lambda: image)
    return image


def resize_image(image, size, resize, grey):
    """resize_image of machinery/proportions.py as part of the graph, RGB, as int32."""
    sides = tf.unstack(tf.shape(image, out_type=tf.int64)[1::-1], 2)
    if resize == 'crop':
        image = cut(image, sides, fit(size, sides, tf.clip_by_value))
    if resize != 'pad':
        return stretch(image, size)
    part = fit(sides, size, tf.clip_by_value)
    left, top = corner_of(size, part)
    grey = tf.constant(np.round(grey[::-1]), tf.int32)
    padded = grey + tf.pad(stretch(image, part) - grey, [
        [top, size[1] - part[1] - top], [left, size[0] - part[0] - left], [0, 0]])
    padded.set_shape([size[1], size[0], 3])
    return padded


def stretch(image, size):
    """Resize (h, w, 3) to size (width, height), with cv2.resize's uint8 arithmetic.

    It rounds weights to multiples of 1 / 2048 and cuts off lower bits (resize.cpp,
    VResizeLinear); the exact mean would be a level higher at every eighth value.
    """
    image = tf.cast(image, tf.int32)
    before, after, weight = interpolation(tf.shape(image)[1], size[0])
    columns = (tf.gather(image, before, axis=1) * (2048 - weight)[:, None] +
               tf.gather(image, after, axis=1) * weight[:, None]) // 16
    before, after, weight = interpolation(tf.shape(image)[0], size[1])
    rows = (tf.gather(columns, before) * (2048 - weight)[:, None, None] // 65536 +
            tf.gather(columns, after) * weight[:, None, None] // 65536)
    return (rows + 2) // 4


def interpolation(length, size):
    """Return the two neighbours of each of size points, and the second's weight."""
    size = tf.cast(size, tf.float64)
    scale = tf.cast(length, tf.float64) / size
    point = tf.cast((tf.range(size) + 0.5) * scale - 0.5, tf.float32)
    before = tf.floor(point)
    weight = tf.cast(tf.round((point - before) * 2048), tf.int32)
    before = tf.cast(before, tf.int32)
    return tf.maximum(before, 0), tf.minimum(before + 1, length - 1), weight
