"""The folder of a run: one run at a time, and the checkpoint that it resumes from."""
import glob
import os
import socket
import time
from collections import namedtuple

import numpy as np

from machinery.checkpoint_files import (find_weights, list_checkpoints, open_checkpoint,
                                        put_aside_if_damaged, read_all)
from machinery.errors import InputError, input_errors

try:
    import fcntl
except ImportError:  # Windows has none of these
    fcntl = None

HELD = {}  # {real path: open file} of this process
# How far a run is, kept in each checkpoint as a vector of five numbers. epoch and done:
# where to go on; done counts the samples of all workers. score: of this checkpoint.
Progress = namedtuple('Progress', 'best_score best_epoch epoch done score')
NEW = Progress(-np.inf, 0., 1., 0., -np.inf)


@input_errors()
def lock(folder):
    """Keep other runs out of a folder until unlock, or until the process ends.

    The operating system releases its lock however the process ends.

    Raises:
        InputError: another process has it; names that and its host.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(os.path.realpath(folder), '.lock')
    if path in HELD:
        return
    file = open(path, 'a+')
    try:
        if fcntl is None:
            raise OSError('this system has no such locks')
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        for _ in range(20):
            file.seek(0)
            holder = file.read()
            if holder:  # written just after locking
                break
            time.sleep(0.1)
        raise InputError('%s is in use by another run, %s; wait for it, or choose '
                         'another folder' % (folder, holder or 'just started'))
    except OSError as error:
        print('Warning: %s cannot be locked (%s); make sure that only one run uses it'
              % (folder, error))
    file.truncate(0)
    file.write('process %d on %s' % (os.getpid(), socket.gethostname()))
    file.flush()
    HELD[path] = file


def unlock(folder):
    """Let other runs use a folder again."""
    file = HELD.pop(os.path.join(os.path.realpath(folder), '.lock'), None)
    if file:  # unless it was also the other folder
        file.close()


def choose_checkpoint(folder, resume):
    """Return the checkpoint to resume from, or None, and all that are in a folder.

    Removes parts of checkpoints that were cut off while being saved; to resume, puts
    damaged ones aside. From here on, the folder is locked if it exists.

    Args:
        resume: True: the newest one; False: none; or a path.

    Raises:
        InputError: another run uses the folder, or resume is the path of no checkpoint,
            or of a damaged one, or all are, or newer checkpoints in the folder would
            be overwritten.
    """
    if os.path.isdir(folder):
        lock(folder)
    checkpoints = list_checkpoints(folder)
    best_path = os.path.join(folder, 'model_best.ckpt')
    if resume:
        found = checkpoints + [best_path] * os.path.exists(best_path + '.index')
        whole = list(filter(put_aside_if_damaged, found))
        checkpoints = [path for path in whole if path != best_path]
    if not checkpoints and os.path.exists(best_path + '.index'):
        checkpoints = [best_path]
    checkpoint = None
    if resume is True and checkpoints:
        checkpoint = checkpoints[-1]
    elif resume is True and found:
        raise InputError('%s: none of the checkpoints can be read' % folder)
    elif resume is True:
        print('%s holds no checkpoint to resume from: a new run starts' % folder)
    elif resume:
        checkpoint = find_weights(resume, newest=True)
        if is_in(folder, checkpoint):
            checkpoint = os.path.join(folder, os.path.basename(checkpoint))
    if checkpoint and checkpoint not in checkpoints:
        read_all(checkpoint)  # report damage now, not after minutes of other checks
    if checkpoints and checkpoint != checkpoints[-1]:
        raise InputError(
            '%s holds checkpoints of an earlier run. Choose another checkpoint_path '
            'and filewriter_path, or go on with that run by --resume=True.' % folder)
    for path in glob.glob(os.path.join(glob.escape(folder), 'model_*.ckpt.*')):
        start = path[:path.rindex('.ckpt.')]
        if '.tempstate' in path or not os.path.exists(start + '.ckpt.index'):
            os.remove(path)
    return checkpoint, checkpoints


def find_best(progress, candidates, checkpoints):
    """Return (path, score, epoch) of the best checkpoint of a run; or (None, -inf, 0).

    Each checkpoint knows its own score, so file names are never trusted.

    Args:
        progress: of the checkpoint that the run resumes from.
        candidates: paths where the best one should be; some may not exist.
        checkpoints: paths of others, if it is at none of these.
    """
    found = []
    for path in candidates + checkpoints:
        if os.path.exists(path + '.index'):
            own = Progress(*open_checkpoint(path).get_tensor('progress'))
            epoch = own.epoch if own.done else own.epoch - 1
            if (own.score, epoch) == progress[:2] != NEW[:2]:
                return path, own.score, epoch
            if path in checkpoints and own.score > -np.inf:
                found.append((own.score, -epoch, path))
    if not found:
        return (None,) + NEW[:2]
    score, epoch, path = max(found)
    print('Warning: the best checkpoint is gone; %s is the best that is left' % path)
    return path, score, -epoch


def is_in(folder, path):
    """Tell whether a file is in a folder, however that is written."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)
