"""The folder of a run: a new folder, or the folder of the run being resumed."""
import contextlib
import os
import re
import shutil

import numpy as np

from machinery.alone import hold, release
from machinery.checkpoint_files import (
    NAME, PART, UNFINISHED, best_in, copy_checkpoint, find_in, find_weights,
    list_checkpoints, list_parts, put_aside, put_aside_if_damaged, read_all)
from machinery.errors import InputError, input_errors
from machinery.numbered import list_runs, make_run, run_path
from machinery.tf1 import tf

# Files of a run before its first step.
OURS = (r'\.lock|model\.json(\.[0-9a-f]{8}\.part)?|'
        r'events\.out\.tfevents\..*|'
        '%s(%s|%s)' % (NAME, PART, UNFINISHED))
KEPT = r'.*model_.*\.ckpt'  # also checkpoints put aside or renamed; never removed


class RunFolder:
    """The numbered folders of a run: path for checkpoints, log_path for TensorBoard.

    open makes the folders and the number of a new run. is_new: no earlier run continues
    here. best: the path of the best checkpoint; best_before: the path of the best
    checkpoint up to the start, or None.
    """

    def __init__(self, checkpoint_path, filewriter_path, keep):
        self._parents, self.keep = [checkpoint_path, filewriter_path], keep
        self.number, self.is_new = 0, True  # until choose or open
        self.best_before = None

    @input_errors()
    def choose(self, resume):
        """Return the checkpoint to start from, None for a fresh start.

        resume: True for the newest run with a checkpoint, False for none, the number of
        a run, or the path of a checkpoint. The newest checkpoint of a run continues
        that run, and the folder is locked and repaired; any other starts a new run.
        Raises an InputError if the checkpoint is missing or damaged, or if another
        process uses the run.
        """
        if resume is False:
            return None
        parent = self._parents[0]
        numbers = [number for number in list_runs(parent)
                   if list_parts(run_path(parent, number), KEPT, r'\.index')]
        if isinstance(resume, str):
            try:
                checkpoint = find_weights(resume, newest=True)
            except InputError as error:
                raise InputError('resume is not True, False, the number of a run, or a '
                                 'path with a checkpoint: %s' % error) from error
            numbers = [number for number in numbers
                       if is_newest(checkpoint, run_path(parent, number))]
            if numbers:
                hold(run_path(parent, numbers[0]))
            read_all(checkpoint)  # report damage now, not after minutes of other checks
            if not numbers:
                return checkpoint
        elif resume is not True and resume not in numbers:
            raise InputError('resume is %d, but %s has no such run with a checkpoint; '
                             'it has %s' % (resume, parent, ', '.join(
                                 map(str, numbers)) or 'none'))
        elif not numbers and find_in(parent, newest=True):
            raise InputError('%s is the folder of one run: give --resume=%s, or the '
                             'folder above it as checkpoint_path' % (parent, parent))
        elif not numbers:
            print('%s holds no checkpoint to resume from: a new run starts' % parent)
            return None
        self.number = resume if type(resume) is int else numbers[-1]
        self.is_new = False
        return repair(run_path(parent, self.number))

    @contextlib.contextmanager
    def open(self, workers, has_stepped, start):
        """Make the folders of a new run; remove them at the end unless has_stepped().

        start: the checkpoint to start from, or None.
        """
        if self.is_new and workers.is_chief:
            self.number = make_run(
                *dict.fromkeys(map(os.path.realpath, self._parents)))
        # All workers need the number for their messages.
        self.number, self.is_new = workers.collect(
            [self.number, self.is_new], np.int64)[0].tolist()
        self.path, self.log_path = [run_path(parent, self.number)
                                    for parent in self._parents]
        self.best = best_in(self.path)
        if not workers.is_chief:
            yield
            return
        hold(self.path)
        try:
            self._tell_of_disk()
            name = os.path.basename(start or '')
            if self.is_new and re.fullmatch(NAME, name):  # so that a kill loses nothing
                copy_checkpoint(start, os.path.join(self.path, name))
            yield
        finally:
            if self.is_new and not has_stepped():
                remove_ours(self.path)
                remove_ours(self.log_path)
            release(self.path)

    def set_best(self, reason, is_done):
        """Make model_best the best checkpoint up to the start; put any other aside.

        reason: why its score cannot be compared with later scores, or None. Returns
        whether the best score starts again: with a reason, unless is_done.
        """
        starts_again = bool(reason) and not is_done
        if starts_again:
            print('Warning: the best score starts again, since %s; weights and epochs '
                  'are kept' % reason)
        if self.best_before and not starts_again:
            if os.path.realpath(self.best_before) != os.path.realpath(self.best):
                put_aside(self.best, 'earlier')  # it may be from after the start
            copy_checkpoint(self.best_before, self.best)
        elif list_checkpoints(self.path):  # else the run starts from model_best itself
            put_aside(self.best, 'earlier')
        return starts_again

    def _tell_of_disk(self):
        """Print the disk space of all runs; warn if this run may not have enough."""
        parent, files = self._parents[0], {}
        for number in list_runs(parent):
            for path in list_parts(run_path(parent, number), KEPT):
                with contextlib.suppress(FileNotFoundError):  # its run may be active
                    file = os.stat(path)
                    files[file.st_ino] = file.st_size  # model_best is often a link
        if files:
            print('Disk: the checkpoints of all runs in %s take %.1f GB'
                  % (parent, sum(files.values()) / 1e9))
        size = 4 * sum(variable.shape.num_elements()
                       for variable in tf.global_variables())
        # Two more: the best, and the next checkpoint while it is being saved.
        needed = size * (self.keep + 2 - len(list_checkpoints(self.path)))
        free = shutil.disk_usage(self.path).free
        if free < needed:
            print('Warning: %s has %.1f GB free, but the checkpoints of this run may '
                  'take %.1f GB' % (self.path, free / 1e9, needed / 1e9))


def remove_ours(folder):
    """Remove the files of a run without any step, and folders left empty."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            if re.fullmatch(OURS, name):
                os.remove(os.path.join(path, name))
        with contextlib.suppress(OSError):  # it holds files of the user
            os.rmdir(path)


def is_newest(checkpoint, folder):
    """Tell whether a checkpoint is the newest in a folder."""
    newest = find_in(folder, newest=True) or ''
    return os.path.realpath(newest) == os.path.realpath(checkpoint)


def repair(folder):
    """Put damaged checkpoints aside, remove parts; return the newest checkpoint."""
    hold(folder)
    found = list_checkpoints(folder)
    if os.path.exists(best_in(folder) + '.index'):
        found.append(best_in(folder))
    if not [path for path in found if put_aside_if_damaged(path)]:
        raise InputError('%s: none of the checkpoints can be read' % folder)
    for path in list_parts(folder, NAME):
        start = path[:path.rindex('.ckpt.')]
        if re.search(UNFINISHED + '$', path) or not os.path.exists(
                start + '.ckpt.index'):
            os.remove(path)
    return find_in(folder, newest=True)
