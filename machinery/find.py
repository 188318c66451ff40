"""Find the pictures in a folder, and their classes."""
import os
import re

import cv2

from machinery.settings import InputError, input_errors

HIDDEN = ['thumbs.db', 'desktop.ini']  # Windows leaves them in folders
HEIC_ENDINGS = '.heic', '.heif'
PICTURE_ENDINGS = tuple('.jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp '
                        '.pbm .pgm .ppm .pnm .jp2 .avif'.split())
# Folders of this name, in any case, are parts that somebody has split already.
PART_OF = {'train': 0, 'training': 0, 'val': 1, 'valid': 1, 'validation': 1, 'test': 2,
           'testing': 2, 'test1': 2}


@input_errors()
def find_files(folder):
    """Return two sorted lists of the paths below a folder: pictures, and other files.

    Raises:
        InputError: a folder or file cannot be read, or links lead in circles.
    """
    pictures, others = [], []
    for path in sorted(walk(folder)):
        (pictures if is_picture(path) else others).append(path)
    return pictures, others


def walk(folder):
    """Yield the files below a folder, also through links; nothing that is hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.name.lower() not in HIDDEN:
                yield from walk(entry.path) if entry.is_dir() else [entry.path]


def is_picture(path):
    """Tell whether a file is a picture, by its ending or by its first bytes."""
    return path.lower().endswith(PICTURE_ENDINGS) or (
        os.path.isfile(path) and cv2.haveImageReader(path))


def is_list(path):
    """Tell whether this is a file, but no picture, not even one in HEIC."""
    return (os.path.isfile(path) and not is_picture(path)
            and not path.lower().endswith(HEIC_ENDINGS))


def find_parts(folder, paths):
    """Return the folders that are parts, and {part: [(subfolders, path)]}.

    Raises:
        InputError: only some pictures are in a part, or none is in one for training.
    """
    members = [(os.path.relpath(path, folder).split(os.sep)[:-1], path)
               for path in paths]
    tops = {subfolders[0] if subfolders else '' for subfolders, _ in members}
    found = {top: PART_OF[top.lower()] for top in sorted(tops)
             if top.lower() in PART_OF}
    has_classes = any(len(subfolders) > 1 and subfolders[0] in found
                      for subfolders, _ in members)
    # One folder among others may be a class that is called "test".
    if not has_classes and len(found) < len(tops) and len(set(found.values())) < 2:
        return [], {0: members}
    parts = {}
    for subfolders, path in members:
        part = found.get(subfolders[0]) if subfolders else None
        parts.setdefault(part, []).append((subfolders[1:], path))
    if 0 not in parts or None in parts:
        raise InputError('%s is split into %s, but %s' % (
            folder, ', '.join(found), 'has no part train' if 0 not in parts else
            '%s is in none of these parts' % parts[None][0][1]))
    return list(found), parts


def find_classes(part, members):
    """Return {class name: [paths]} of a part's [(subfolders, path)].

    A class is a subfolder. Without subfolders, it stands before the number in a name
    like cat.0.jpg. Test pictures may do without classes: then their class is None.

    Raises:
        InputError: a picture has no class, or its path does not fit into a list.
    """
    is_flat = not any(subfolders for subfolders, _ in members)
    is_labelled = part < 2 or not is_flat or any(
        re.match(r'[^.]+\.\d+\.', os.path.basename(path)) for _, path in members)
    classes = {}
    for subfolders, path in members:
        match = re.fullmatch(r'([^.]+)\.\d+(\.[^.]+)?', os.path.basename(path))
        names = [match.group(1)] if is_flat and match else subfolders
        if is_labelled and not names:
            raise InputError('%s: %s' % (path, (
                'is neither in a folder that tells its class nor named like cat.0.jpg'
                if is_flat else 'lies beside the folders of the classes: move it into '
                'one of them, or remove it')))
        name = names[0] if is_labelled else None
        if ('\n' in path or path.encode(errors='ignore').decode() != path
                or is_labelled and not name.strip()):
            raise InputError('%r: cannot stand in a list, since it is not UTF-8, has '
                             'several lines, or has a class without a name' % path)
        classes.setdefault(name, []).append(path)
    return classes
