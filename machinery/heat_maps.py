"""Heat maps: the places of a picture that speak for its best class."""
import os

import cv2
import numpy as np

from machinery.drawings import draw_tiles, try_to_draw
from machinery.errors import InputError
from machinery.numbered import NewFiles
from machinery.tf1 import tf

LEGEND = 'red: these places spoke for it most'
NO_MAP = 'No heat maps: no layer has an output (n, height, width, channels)'


def grad_cam(model, layers, kind):
    """Return heat maps (n, height, width) in 0..1, a tensor that depends on model.X.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", ICCV 2017, section 3. The map is made from the last of
    these layers with rows and columns (conv5 in AlexNet): its channels show which
    objects there are, and where. Returns None without such a layer. If labels
    are numbers (see machinery.labels), the map shows the places that raise the first.
    """
    outputs = [getattr(model, name) for name in layers]
    outputs = [output for output in outputs if output.shape.ndims == 4]
    if not outputs:
        return None
    channels = outputs[-1]
    with tf.name_scope('grad_cam'):
        # If a channel were a little stronger at some place, how much higher would the
        # logit of the best class be? A picture's logits depend on no other picture, so
        # the gradient of their sum holds each picture's gradient.
        logits = model.logits[:, :1] if kind.name == 'numbers' else model.logits
        best = tf.reduce_sum(tf.reduce_max(logits, 1))
        [gradient] = tf.gradients(best, channels)
        # Equation 1: a channel's weight is the mean of its gradient over all places.
        weights = tf.reduce_mean(gradient, [1, 2], keepdims=True)
        # Equation 2: add up the weighted channels. A place with a negative sum speaks
        # for other classes, so the ReLU removes it.
        heat = tf.nn.relu(tf.reduce_sum(weights * channels, 3))
        # Scale to 1 at most: only the places matter. The map stays zero if nothing
        # speaks for the best class, and it is only best because others are worse.
        return tf.math.divide_no_nan(heat, tf.reduce_max(heat, [1, 2], keepdims=True))


def overlay(image, heat):
    """Blend a uint8 BGR image with its map (height, width): 0 is blue, 1 is red."""
    heat = cv2.resize(np.uint8(255 * heat), image.shape[1::-1],
                      interpolation=cv2.INTER_CUBIC)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.5, colours, 0.5, 0)


def write_heat_maps(folder, paths, classify, ranked):
    """Write each picture side by side with its heat map, to a new folder.

    Args:
        folder: gets a numbered subfolder with a JPEG for each picture. File names start
            with the picture's place in the list, because names may occur twice.
        paths: of the pictures, which must all be readable.
        classify: a Classifier; if its network has no maps, prints that.
        ranked: [(class name, probability), ...] for each picture, best first.

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
        text = [name, '%s, %.2f' % best, LEGEND]
        data, fault = try_to_draw(draw_tiles, [image, overlay(image, heat)], [text], 2)
        if fault:
            raise InputError('The heat map of %s cannot be drawn: %s' % (path, fault))
        stem = os.path.splitext(name)[0][:50]  # names have at most 255 bytes
        with files.new(None, '%0*d_%s.jpg' % (digits, place, stem), False) as file:
            file.write(data)
    print('Wrote %d heat maps to %s' % (len(paths), files.folder))
