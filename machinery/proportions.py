"""Proportions: fit a picture of any shape to the network's width and height."""
import cv2
import numpy as np

from machinery.rules import check_value


def fit(proportions, sides, clip=np.clip):
    """Return the largest (width, height) of these proportions that fits into sides.

    All are (width, height); the result is rounded, and at least 1. With integers, the
    export gets the same result from int64 tensors and TensorFlow's clip.
    """
    (right, down), (width, height) = proportions, sides
    return (clip((2 * height * right + down) // (2 * down), 1, width),
            clip((2 * width * down + right) // (2 * right), 1, height))


def corner_of(sides, part):
    """Return (left, top) of a part (width, height) centred in sides (width, height)."""
    return [(whole - length) // 2 for whole, length in zip(sides, part)]


def cut(image, sides, part, corner=None):
    """Crop an image to part (width, height) at corner (left, top); None: centred.

    sides: the image's (width, height). From an array, the result is a view.
    """
    left, top = corner_of(sides, part) if corner is None else corner
    return image[top:top + part[1], left:left + part[0]]


def resize_image(image, size, resize, grey):
    """Resize a uint8 BGR image to size (width, height), bilinearly.

    Args:
        resize: 'squash': ignore its proportions. 'crop': use only its largest centred
            part with the proportions of size. 'pad': keep all of it, centred on grey.
        grey: the colour of the padding, blue first; it is rounded.

    Raises:
        InputError: resize has another value.
    """
    check_value('resize', resize)
    sides = image.shape[1::-1]
    if resize == 'crop':
        image = cut(image, sides, fit(size, sides))
    if resize != 'pad':
        return cv2.resize(image, size)
    padded = np.empty((size[1], size[0], 3), np.uint8)
    padded[:], part = np.round(grey), fit(sides, size)
    cut(padded, size, part)[:] = cv2.resize(image, part)
    return padded
