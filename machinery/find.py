"""Find the pictures in a folder."""
import os

import cv2

from machinery.errors import InputError, input_errors

HIDDEN = ['thumbs.db', 'desktop.ini']  # left in folders by Windows
PICTURE_ENDINGS = tuple('.jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp '
                        '.pbm .pgm .ppm .pnm .jp2 .avif'.split())


@input_errors()
def find_files(folder):
    """Return the sorted paths below a folder, as (pictures, other files)."""
    pictures, others = [], []
    for path in sorted(walk(folder)):
        (pictures if is_picture(path) else others).append(path)
    return pictures, others


def find_photos(folder):
    """Return the sorted pictures below a folder, and HEIC files, which get a fault."""
    pictures, others = find_files(folder)
    return sorted(pictures + list(filter(is_heic, others)))


def walk(folder, above=()):
    """Yield the files below a folder; follow links, skip hidden files and folders."""
    above += os.path.realpath(folder),
    if above[-1] in above[:-1]:
        raise InputError('%s: is a link to a folder that it is in' % folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.name.lower() not in HIDDEN:
                yield from walk(entry.path, above) if entry.is_dir() else [entry.path]


def is_picture(path):
    """Tell whether a file is a picture, by its ending or by its first bytes."""
    return path.lower().endswith(PICTURE_ENDINGS) or (
        os.path.isfile(path) and cv2.haveImageReader(path))


def is_heic(path):
    """Tell whether a file is a picture of a kind that OpenCV does not read."""
    return path.lower().endswith(('.heic', '.heif'))


def is_list(path):
    """Tell whether path is a file and not a picture; HEIC counts as a picture."""
    return os.path.isfile(path) and not is_picture(path) and not is_heic(path)
