"""A SavedModel, for TensorFlow Serving and other programs."""
import os
import shutil

from machinery.settings import input_errors
from machinery.tf1 import session_config, tf


@input_errors()
def export_model(build, class_names, folder, size, mean, margin):
    """Write a SavedModel that classifies the bytes of picture files.

    Its signature, serving_default, takes pictures, a string tensor (n,), and returns
    probabilities, class_ids and names, each (n, number of classes), the most probable
    class first.

    Args:
        build: function from images, as load_image gives them, to an AlexNet.
        folder: must not exist; it appears when it is complete, with its parents.
        size, mean, margin: as load_image takes them.

    Raises:
        InputError: the folder cannot be made; names it.
    """
    part = folder.rstrip(os.sep) + '.part'
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        pictures = tf.placeholder(tf.string, [None], 'pictures')
        x = tf.map_fn(lambda data: preprocess(data, size, mean, margin), pictures,
                      tf.float32)
        model = build(x)
        probabilities, class_ids = tf.nn.top_k(model.probabilities, len(class_names))
        names = tf.gather(tf.constant(class_names), class_ids)
        model.load_initial_weights(session)
        tf.saved_model.simple_save(session, part, {'pictures': pictures}, {
            'probabilities': probabilities, 'class_ids': class_ids, 'names': names})
    os.rename(part, folder)


def preprocess(data, size, mean, margin):
    """load_image in graph form, for a file's bytes as a scalar tensor.

    Takes JPEG, PNG, and GIF of one frame; does not obey the EXIF orientation, and CMYK
    comes out up to 2 of 255 levels different.
    """
    # The decoding that OpenCV uses, too. The operation takes the other formats as well.
    image = tf.image.decode_jpeg(data, 3, dct_method='INTEGER_ACCURATE')
    width, height = size
    start = margin // 2
    image = resize(image, (width + margin, height + margin))
    image = image[start:start + height, start:start + width, ::-1]
    return tf.cast(image, tf.float32) - mean


def resize(image, size):
    """Resize (h, w, 3) to size (width, height), in cv2.resize's arithmetic for uint8.

    It keeps weights as multiples of 1 / 2048 and cuts off lower bits (resize.cpp,
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
    """Return two neighbours of each of size points, and the weight of the second."""
    scale = tf.cast(length, tf.float64) / size
    point = tf.cast((tf.range(size, dtype=tf.float64) + 0.5) * scale - 0.5, tf.float32)
    before = tf.floor(point)
    weight = tf.cast(tf.round((point - before) * 2048), tf.int32)
    before = tf.cast(before, tf.int32)
    return tf.maximum(before, 0), tf.minimum(before + 1, length - 1), weight
