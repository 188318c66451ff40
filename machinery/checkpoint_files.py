"""Checkpoint files: find, open, check and copy them."""
import contextlib
import os
import re
import shutil
import sys
from collections import namedtuple

import numpy as np

from machinery.damage import damage_told
from machinery.errors import InputError, input_errors, open_plain
from machinery.files import Damaged
from machinery.numbered import list_runs, run_path
from machinery.rules import MARKS, PATTERN
from machinery.text import quote
from machinery.tf1 import tf

KINDS = ['weights', 'biases']  # a layer's variables, in this order
# Names of our checkpoints, TensorFlow's endings, and the endings of files that it has
# not finished. No other files are ever removed or renamed.
NAME = r'model_(?:best|epoch\d+(?:_step\d+)?)\.ckpt'
PART = r'\.(?:index|meta|data-\d{5}-of-\d{5})'
UNFINISHED = PART + r'\.(?:tempstate\d+|tmp[0-9a-f]{32})'
# How far a run is: a vector of five numbers in each checkpoint. The run continues in
# epoch, after done samples (of all workers together). score: of this checkpoint.
Progress = namedtuple('Progress', 'best_score best_epoch epoch done score')
NEW = Progress(-np.inf, 0., 1., 0., -np.inf)


def find_weights(path, newest=False):
    """Return the checkpoint or weight file that a path means.

    A folder means the best (or newest) checkpoint of the newest run in it; any file of
    a checkpoint means the whole checkpoint. Raises an InputError if there is none.
    """
    start = re.sub(PART + '$', '', path)
    if os.path.exists(start + '.index'):
        return start
    if os.path.isdir(path):
        runs = [run_path(path, number) for number in list_runs(path)]
        for folder in reversed([path] + runs):
            found = find_in(folder, newest)
            if found:
                return found
        raise InputError('%s: no checkpoints there; finetune.py writes them' % path)
    if os.path.isfile(path):
        return path
    raise InputError(
        '%s: no such checkpoint or weight file; finetune.py writes checkpoints, '
        '"python alexnet.py" fetches the pretrained weights, and with weights_path '
        '= None finetune.py starts from the training images alone' % path)


def best_in(folder):
    """Return the path of a run's best checkpoint, which need not exist."""
    return os.path.join(folder, 'model_best.ckpt')


def find_in(folder, newest=False):
    """Return the best (or newest) checkpoint in a run's folder, or None."""
    best, found = best_in(folder), list_checkpoints(folder)
    has_best = os.path.exists(best + '.index')
    if not found:
        return best if has_best else None
    if has_best and not newest:
        try:
            return find_best(found[-1])[0] or found[-1]
        except InputError:  # the newest checkpoint is unreadable
            return best
    return found[-1]


def find_best(checkpoint):
    """Return the path of a run's best checkpoint (or None), and a Progress.

    Only this checkpoint and earlier ones count; the Progress is this checkpoint's. All
    files are searched, because the run may have been killed before it copied its best.
    Each checkpoint knows its own score, so file names are never trusted.
    """
    progress, folder, found = read_progress(checkpoint), os.path.dirname(checkpoint), []
    if progress[:2] == NEW[:2]:
        return None, progress
    earlier = [checkpoint] + list_checkpoints(folder)
    for path in [best_in(folder)] + earlier:
        try:
            own = read_progress(path)
        except Damaged:  # or it does not exist
            continue
        epoch = own.epoch if own.done else own.epoch - 1
        if (own.score, epoch) == progress[:2]:
            return path, progress
        is_earlier = (own.epoch, own.done) <= (progress.epoch, progress.done)
        if path in earlier and is_earlier and own.score > -np.inf:
            found.append((own.score, -epoch, path))
    score, epoch, path = max(found, default=NEW[:2] + (None,))
    print('Warning: the best checkpoint is gone; %s' % (
        path + ' is the best that is left' if path else 'no other has a score'))
    return path, progress._replace(best_score=score, best_epoch=-epoch)


def read_progress(path):
    """Read the Progress in a checkpoint."""
    reader = open_checkpoint(path)
    with damage_told(path):
        return Progress(*reader.get_tensor('progress').tolist())


def list_checkpoints(folder):
    """Return the complete checkpoints in a folder, oldest first, without model_best."""
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        # Saving writes .index last, so a checkpoint without it is incomplete.
        match = re.fullmatch(r'(model_epoch(\d+)(?:_step(\d+))?\.ckpt)\.index', name)
        if match:  # an epoch's last checkpoint has no step in its name
            name, epoch, step = match.groups()
            found.append((int(epoch), float(step or 'inf'), os.path.join(folder, name)))
    return [path for _, _, path in sorted(found)]


def list_parts(folder, name, part='(?:%s|%s)' % (PART, UNFINISHED)):
    """Return the files of checkpoints in a folder; name and part are patterns."""
    names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    return [os.path.join(folder, found) for found in sorted(names)
            if re.fullmatch(name + part, found)]


def parts_of(path, *part):
    """Return the files of a checkpoint: .data, .index, .meta."""
    folder, name = os.path.split(path)
    return list_parts(folder, re.escape(name), *part)


def remove_checkpoint(path):
    """Remove the files of a checkpoint, if it exists."""
    for part in parts_of(path):
        os.remove(part)


def remove_older(folder, keep):
    """Remove all checkpoints in a folder but the newest (keep of them) and the best."""
    for path in list_checkpoints(folder)[:-keep]:
        with contextlib.suppress(OSError):  # in use, or gone; the next call tries again
            remove_checkpoint(path)


def copy_checkpoint(source, target):
    """Copy a checkpoint; an interrupted copy is incomplete, never a mix of two."""
    if os.path.realpath(source) == os.path.realpath(target):
        return
    remove_checkpoint(target)
    for path in parts_of(source, PART):
        part = target + os.path.basename(path)[len(os.path.basename(source)):]
        try:
            os.link(path, part)
        except OSError:  # not every file system has links
            shutil.copyfile(path, part)


def open_checkpoint(path):
    """Open a checkpoint with TensorFlow's reader, or raise an InputError."""
    if re.search(PATTERN, path):
        raise InputError('%s: TensorFlow reads %s in the path of a checkpoint as a '
                         'pattern; rename its folder' % (path, MARKS))
    for part in parts_of(path, PART):
        open_plain(part).close()
    with damage_told(path):
        return tf.train.load_checkpoint(path)


def read_all(path):
    """Read a whole checkpoint; raise an InputError if a checksum is wrong."""
    reader = open_checkpoint(path)
    with damage_told(path):
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def check_shapes(found, expected, message):
    """Raise an InputError with all misfits, unless both {variable: shape} agree."""
    faults = ['\n  %s: expected shape %s, found %s'
              % (name, shape, found.get(name, 'nothing'))
              for name, shape in expected.items() if found.get(name) != shape]
    if faults:
        raise InputError(message + ''.join(faults))


def restore_checkpoint(session, path):
    """Restore the graph's variables; an InputError names those that do not fit."""
    found = open_checkpoint(path).get_variable_to_shape_map()
    expected = {variable.op.name: variable.shape.as_list()
                for variable in tf.global_variables()}
    missing = set(expected) - set(found)
    known = {variable.op.name for variable in tf.trainable_variables()}
    if missing and not missing & known.union(['global_step', 'progress']):
        raise InputError(
            '%s has no %s. If you have changed the optimizer, the run cannot be '
            'resumed; start a new run from its weights:\n  python %s --resume False '
            '--weights_path %s --skip_layers "[]"' % (
                path, ', '.join(sorted(missing)), ' '.join(map(quote, sys.argv)),
                quote(path)))
    check_shapes(found, expected, '%s does not fit this configuration:' % path)
    surplus = sorted(set(found) - set(expected))
    if surplus:
        print('Warning: %s also holds %s, which this graph does not use'
              % (path, ', '.join(surplus)))
    tf.train.Saver().restore(session, path)


@input_errors()
def put_aside_if_damaged(path):
    """Rename a checkpoint if it is provably damaged; return whether it is intact."""
    try:
        read_all(path)
        return True
    except Damaged as error:
        for part in parts_of(path):  # a failing disk raises its own error here
            with open_plain(part) as file:
                while file.read(1 << 20):
                    pass
        print('Warning: %s' % error)
    put_aside(path, 'damaged')
    return False


def put_aside(path, word):
    """Rename a checkpoint, if there is any, to word_NAME (if taken, word2_NAME ...)."""
    folder, name = os.path.split(path)
    start, number = word + '_', 1
    while list_parts(folder, re.escape(start + name)):
        number += 1
        start = '%s%d_' % (word, number)
    parts = parts_of(path)
    for part in parts:
        os.replace(part, os.path.join(folder, start + os.path.basename(part)))
    if parts:
        print('Renamed to %s' % os.path.join(folder, start + name))


def read_checkpoint(path):
    """Read {layer: [weights, biases]}, without the optimizer's variables."""
    reader = open_checkpoint(path)
    found = reader.get_variable_to_shape_map()
    layers = [name[:-len('/weights')] for name in sorted(found)
              if name.endswith('/weights')]
    with damage_told(path):
        return {layer: [reader.get_tensor('%s/%s' % (layer, kind)) for kind in KINDS]
                for layer in layers if layer + '/biases' in found}
