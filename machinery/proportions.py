"""Proportions: how a picture of any shape gets those that the network takes."""
import cv2
import numpy as np

from machinery.rules import check_value


def fit(proportions, sides, clip=np.clip):
    """Return the largest (width, height) of these proportions that fits into sides.

    All are (width, height); the result is rounded, at least 1. In whole numbers, so
    that the export gets the same for int64 tensors, with TensorFlow's clip.
    """
    (right, down), (width, height) = proportions, sides
    return (clip((2 * height * right + down) // (2 * down), 1, width),
            clip((2 * width * down + right) // (2 * right), 1, height))


def corner_of(sides, part):
    """Return (left, top) of the part (width, height) in the middle of these sides."""
    return [(whole - length) // 2 for whole, length in zip(sides, part)]


def cut(image, sides, part, corner=None):
    """Cut a part (width, height) at (left, top) = corner; None: in the middle.

    sides are the image's. The part of an array is a view.
    """
    left, top = corner_of(sides, part) if corner is None else corner
    return image[top:top + part[1], left:left + part[0]]


def resize_image(image, size, resize, grey):
    """Resize a uint8 BGR image to size (width, height), bilinearly.

    Args:
        resize: 'squash': without regard to its proportions. 'crop': only its largest
            middle part that has those of size. 'pad': all of it, in the middle of grey.
        grey: the colour around it, blue first; rounded.

    Raises:
        InputError: resize is another one.
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
