"""Checkpoint files: find, open, check and copy them."""
import contextlib
import glob
import os
import re
import shutil
import sys

from machinery.errors import InputError, open_plain
from machinery.files import sync
from machinery.numbered import list_runs, run_path
from machinery.rules import PATTERN
from machinery.text import quote
from machinery.tf1 import assign, tf

KINDS = ['weights', 'biases']  # of a layer, in this order


def find_weights(path, newest=False):
    """Return the checkpoint or weight file that a path means.

    A folder means the best (or newest) checkpoint of the newest run in it; any file of
    a checkpoint means that checkpoint. If there is none, raise an InputError.
    """
    start = re.sub(r'\.(index|meta|data-\d{5}-of-\d{5})$', '', path)
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
    """Return the path of a run's best checkpoint, whether it exists or not."""
    return os.path.join(folder, 'model_best.ckpt')


def find_in(folder, newest=False):
    """Return the best (or newest) checkpoint of the run in a folder, None without."""
    best, found = best_in(folder), list_checkpoints(folder)
    if os.path.exists(best + '.index') and not (newest and found):
        return best
    return found[-1] if found else None


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


def remove_checkpoint(path):
    """Remove the files of a checkpoint, if there is one."""
    for part in glob.glob(glob.escape(path) + '.*'):
        os.remove(part)


def remove_older(folder, keep):
    """Keep only so many of the newest checkpoints in a folder, and the best."""
    for path in list_checkpoints(folder)[:-keep]:
        with contextlib.suppress(OSError):  # in use, or gone; the next call tries again
            remove_checkpoint(path)


def copy_checkpoint(source, target):
    """Copy a checkpoint; an interrupted copy is incomplete, never a mix of two."""
    if os.path.realpath(source) == os.path.realpath(target):
        return
    remove_checkpoint(target)
    for path in sorted(glob.glob(glob.escape(source) + '.*')):  # .data, .index, .meta
        # glob leaves out doubled slashes, so lengths of whole paths may differ.
        part = target + os.path.basename(path)[len(os.path.basename(source)):]
        try:
            os.link(path, part)
        except OSError:  # not every file system has links
            shutil.copyfile(path, part)


@contextlib.contextmanager
def damage_told(path, expected='made by finetune.py'):
    """Turn any exception into an InputError; a damaged file raises nearly any."""
    try:
        yield
    except InputError as error:
        raise InputError('%s: %s' % (path, error)) from error
    except Exception as error:
        raise InputError('%s: damaged, or not %s: %s: %s' % (
            path, expected, type(error).__name__, str(error).split('\n')[0])) from error


def open_checkpoint(path):
    """Return TensorFlow's reader of a checkpoint, or raise an InputError."""
    if re.search(PATTERN, path):
        raise InputError('%s: TensorFlow takes [ ] * ? \\ in the path of a checkpoint '
                         'for a pattern; rename its folder' % path)
    with damage_told(path):
        return tf.train.load_checkpoint(path)


def read_all(path):
    """Check TensorFlow's checksums of a whole checkpoint, or raise an InputError."""
    reader = open_checkpoint(path)
    with damage_told(path):
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def check_shapes(found, expected, message):
    """Raise an InputError, the message and all misfits of {variable name: shape}."""
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
            '%s has no %s. If you have changed the optimizer, the run cannot go on; '
            'start a new one from its weights:\n  python %s --resume False '
            '--weights_path %s --skip_layers "[]"' % (
                path, ', '.join(sorted(missing)), ' '.join(map(quote, sys.argv)),
                quote(path)))
    check_shapes(found, expected, '%s does not fit this configuration:' % path)
    surplus = sorted(set(found) - set(expected))
    if surplus:
        print('Warning: %s also holds %s, which this graph does not use'
              % (path, ', '.join(surplus)))
    tf.train.Saver().restore(session, path)


def put_aside_if_damaged(path):
    """Rename a checkpoint that is damaged; return whether it is whole."""
    parts = glob.glob(glob.escape(path) + '.*')
    for part in parts:
        open_plain(part).close()  # a missing permission is not damage: raise it
    try:
        read_all(path)
        return True
    except InputError as error:
        folder, name = os.path.split(path)
        for part in parts:
            os.replace(part, os.path.join(folder, 'damaged_' + os.path.basename(part)))
        print('Warning: %s\nRenamed to %s'
              % (error, os.path.join(folder, 'damaged_' + name)))
        return False


def save_checkpoint(saver, session, path):
    """Save a checkpoint that survives a power failure; delete partial files."""
    try:
        saver.save(session, path)
        parts = glob.glob(glob.escape(path) + '.*')
        for part in parts + [os.path.dirname(os.path.abspath(path))]:
            sync(part)
    except (tf.errors.OpError, OSError):
        # Without .meta, which is written last, a checkpoint is complete.
        if not os.path.exists(path + '.index'):
            remove_checkpoint(path)
        raise


def save_values(saver, session, path, values):
    """Save a checkpoint that has other values, {variable: array}, than the session."""
    current = session.run(list(values))
    for variable, value in values.items():
        assign(session, variable, value)
    saver.save(session, path)
    for variable, value in zip(values, current):
        assign(session, variable, value)


def read_checkpoint(path):
    """Read {layer: [weights, biases]}, without the variables of an optimizer."""
    reader = open_checkpoint(path)
    found = reader.get_variable_to_shape_map()
    layers = [name[:-len('/weights')] for name in sorted(found)
              if name.endswith('/weights')]
    with damage_told(path):
        return {layer: [reader.get_tensor('%s/%s' % (layer, kind)) for kind in KINDS]
                for layer in layers if layer + '/biases' in found}
