"""Find the pictures in a folder, and their classes."""
import os
import re

import cv2

from machinery.errors import InputError, input_errors

HIDDEN = ['thumbs.db', 'desktop.ini']  # Windows leaves them in folders
HEIC_ENDINGS = '.heic', '.heif'
PICTURE_ENDINGS = tuple('.jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp '
                        '.pbm .pgm .ppm .pnm .jp2 .avif'.split())
# Folders with these names, in any case, are parts that somebody has split already.
PART_OF = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val',
           'validation': 'val', 'test': 'test', 'testing': 'test', 'test1': 'test'}


@input_errors()
def find_files(folder):
    """Return the sorted paths below a folder: pictures, and other files."""
    pictures, others = [], []
    for path in sorted(walk(folder)):
        (pictures if is_picture(path) else others).append(path)
    return pictures, others


def walk(folder):
    """Yield the files below a folder; follow links, skip what is hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.name.lower() not in HIDDEN:
                yield from walk(entry.path) if entry.is_dir() else [entry.path]


def is_picture(path):
    """Tell whether a file is a picture, by its ending or by its first bytes."""
    return path.lower().endswith(PICTURE_ENDINGS) or (
        os.path.isfile(path) and cv2.haveImageReader(path))


def is_list(path):
    """Tell whether this is a file, but not a picture, not even one in HEIC."""
    return (os.path.isfile(path) and not is_picture(path)
            and not path.lower().endswith(HEIC_ENDINGS))


def find_classes(folder, paths):
    """Return {folder that is a part: part} and {part: {class name: [paths]}}.

    A class is a subfolder. In a folder without subfolders, a name like cat.0.jpg tells
    the class. Test pictures may do without classes: then their class is None.
    """
    members = [(os.path.relpath(path, folder).split(os.sep)[:-1], path)
               for path in paths]
    part_of = find_parts(folder, members)
    depth = 1 if part_of else 0
    nested = {tuple(parents[:depth]) for parents, _ in members if len(parents) > depth}
    classes = {}
    for parents, path in members:
        match = re.fullmatch(r'([^.]+)\.\d+(\.[^.]+)?', os.path.basename(path))
        name = match.group(1) if match else None
        if tuple(parents[:depth]) in nested:
            name = parents[depth] if len(parents) > depth else ''
        if ('\n' in path or path.encode(errors='ignore').decode() != path
                or name and not name.strip()):
            raise InputError('%r: cannot be written to a list: it is not UTF-8, has a '
                             'line break, or has a blank class name' % path)
        part = part_of[parents[0]] if part_of else 'train'
        classes.setdefault(part, {}).setdefault(name, []).append(path)
    for part, found in classes.items():
        if '' in found:
            raise InputError('%s: is next to the class folders: move it into one of '
                             'them, or remove it' % found[''][0])
        if None in found and (part != 'test' or len(found) > 1):
            raise InputError('%s: is neither in a class folder nor named like cat.0.jpg'
                             % found[None][0])
    return part_of, classes


def find_parts(folder, members):
    """Return {folder that is a part: part}, empty if there is no split."""
    tops = {parents[0] if parents else '': path for parents, path in members}
    part_of = {top: PART_OF[top.lower()] for top in tops if top.lower() in PART_OF}
    has_classes = any(len(parents) > 1 and parents[0] in part_of
                      for parents, _ in members)
    parts = set(part_of.values())
    # One folder among others may be a class that is called "test".
    if not has_classes and len(part_of) < len(tops) and len(parts) < 2:
        return {}
    others = [path for top, path in tops.items() if top not in part_of]
    if others or 'train' not in parts:
        raise InputError('%s is split into %s, but %s' % (
            folder, ', '.join(sorted(part_of)), 'has no part train' if
            'train' not in parts else '%s is in none of these parts' % others[0]))
    return part_of
