"""Heat maps: the places of a picture that speak for its best class."""
import os

import cv2
import numpy as np

from machinery.drawings import cut, draw_tiles, try_to_draw
from machinery.errors import InputError
from machinery.numbered import NewFiles
from machinery.text import printable
from machinery.tf1 import tf

LEGEND = 'red: these places spoke for it most'
NO_MAP = 'No heat maps: no layer has an output (n, height, width, channels)'


def grad_cam(model, layers, kind):
    """Return heat maps (n, height, width) in 0..1, a tensor that depends on model.X.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", ICCV 2017, section 3. The map is made from the last of
    these layers that still has rows and columns, in AlexNet conv5: its channels know
    what is in the picture, and still where. Without such a layer, return None. If the
    labels are numbers (see machinery.labels), it is what raises the first of them.
    """
    outputs = [getattr(model, name) for name in layers]
    outputs = [output for output in outputs if output.shape.ndims == 4]
    if not outputs:
        return None
    channels = outputs[-1]
    with tf.name_scope('grad_cam'):
        # If a channel were a little stronger at some place, how much higher would the
        # logit of the best class be? A picture's logits depend on no other picture, so
        # the gradient of their sum holds the gradient of each.
        logits = model.logits[:, :1] if kind.name == 'numbers' else model.logits
        best = tf.reduce_sum(tf.reduce_max(logits, 1))
        [gradient] = tf.gradients(best, channels)
        # Equation 1: the mean over all places says what a channel counts for the class.
        weights = tf.reduce_mean(gradient, [1, 2], keepdims=True)
        # Equation 2: add up the channels by what they count. Where the sum is negative,
        # the place speaks for other classes, and the ReLU leaves it out.
        heat = tf.nn.relu(tf.reduce_sum(weights * channels, 3))
        # Only where it is hot matters, not how hot. If nothing speaks for a class
        # that is the best only because others are worse, the map stays zero.
        return tf.math.divide_no_nan(heat, tf.reduce_max(heat, [1, 2], keepdims=True))


def overlay(image, heat):
    """Return a uint8 BGR image under a map (height, width): 0 is blue, 1 is red."""
    heat = cv2.resize(np.uint8(255 * heat), image.shape[1::-1],
                      interpolation=cv2.INTER_CUBIC)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.5, colours, 0.5, 0)


def write_heat_maps(folder, paths, classify, ranked):
    """Write each picture, and beside it the same under its map, to a new folder.

    Args:
        folder: gets a numbered folder with a JPEG for each picture. Its name starts
            with the picture's place in the list, since names may occur twice.
        paths: those of the pictures, all of which can be read.
        classify: a Classifier; if its network has no maps, a line says so.
        ranked: [(class name, probability), ...] of each picture, best first.

    Raises:
        InputError: a file cannot be drawn or written.
    """
    maps = classify.heat_maps(paths)
    if maps is None:
        print(NO_MAP)
        return
    files, digits = NewFiles(folder), len(str(len(paths)))
    for place, (path, heat, [best, *_]) in enumerate(zip(paths, maps, ranked), 1):
        image, name = classify.load(path), os.path.basename(path)
        text = '%s\n%s, %.2f' % (cut(printable(name), 50), cut(best[0], 50), best[1])
        data, fault = try_to_draw(
            draw_tiles, [image, overlay(image, heat)], [text, LEGEND], 2)
        if fault:
            raise InputError('The heat map of %s cannot be drawn: %s' % (path, fault))
        stem = os.path.splitext(name)[0][:50]  # systems allow 255 bytes
        with files.new(None, '%0*d_%s.jpg' % (digits, place, stem), False) as file:
            file.write(data)
    print('Wrote %d heat maps to %s' % (len(paths), files.folder))
