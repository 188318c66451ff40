"""load_image as operations of a graph, for the export."""
import numpy as np

from machinery.picture_header import check
from machinery.pictures import sides_to_reduce
from machinery.proportions import corner_of, cut, fit
from machinery.tf1 import tf


def preprocess(pictures, headers, size, margin, reducing_gap, resize='squash',
               grey=None):
    """load_image as part of the graph: strings (n,) to uint8 BGR images (n, h, w, 3).

    Takes JPEG and PNG. If it refuses pictures, running it fails with an
    InvalidArgumentError that names their positions and why. Damage of the pixels
    themselves fails too, but with the decoder's own message, without the position.

    headers is what inspect gives for them; the other arguments are load_image's, but
    grey is the colour with which resize = 'pad' pads, blue first.
    """
    faults, orientations, transparent = headers
    with tf.control_dependencies([check(faults)]):
        pictures = tf.identity(pictures)
    whole = size[0] + margin, size[1] + margin
    sides = sides_to_reduce(whole, reducing_gap)

    @tf.autograph.experimental.do_not_convert  # see picture_header.inspect_one
    def prepare(picture):
        data, orientation, is_transparent = picture
        image = tf.cond(tf.equal(tf.strings.substr(data, 0, 1), b'\xff'),
                        lambda: decode_jpeg(data, sides, resize),
                        lambda: decode_png(data, is_transparent))
        image = resize_image(turn(image, orientation), whole, resize, grey)
        image = tf.cast(cut(image, whole, size)[:, :, ::-1], tf.uint8)
        return tf.ensure_shape(image, [size[1], size[0], 3])

    return tf.map_fn(prepare, (pictures, orientations, transparent), tf.uint8)


def decode_jpeg(data, sides, resize):
    """Decode a JPEG, at the scale that sides_to_reduce gives."""
    def decode(scale):
        # OpenCV decodes with the same method.
        return tf.image.decode_jpeg(data, 3, scale, dct_method='INTEGER_ACCURATE')

    if not sides:
        return decode(1)
    compared = tf.reduce_max if resize == 'pad' else tf.reduce_min
    side = compared(tf.image.extract_jpeg_shape(data)[:2])
    return tf.case([(side >= least, lambda scale=scale: decode(scale))
                    for scale, least in sides.items()], lambda: decode(1))


def decode_png(data, is_transparent):
    """Decode a PNG; transparency becomes white."""
    def decode_on_white():
        image = tf.cast(tf.image.decode_png(data, 4), tf.float32)
        alpha = image[:, :, 3:] / 255
        return tf.cast(image[:, :, :3] * alpha + 255 * (1 - alpha) + 0.5, tf.uint8)

    # Without transparency, the fourth channel of 1, 2 or 4 bits would be 1, 3 or 15.
    return tf.cond(is_transparent, decode_on_white,
                   lambda: tf.image.decode_png(data, 3))


def turn(image, orientation):
    """Turn an image with an EXIF orientation so that it is upright."""
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
