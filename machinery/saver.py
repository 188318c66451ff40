"""Save checkpoints safely, also with other values than the variables have."""
import contextlib
import os

from machinery.checkpoint_files import copy_checkpoint, parts_of, remove_checkpoint
from machinery.files import sync
from machinery.tf1 import assign, tf


def save_checkpoint(saver, session, path):
    """Save a checkpoint, safe from power failures; delete partial files on an error."""
    try:
        saver.save(session, path)
        for part in parts_of(path) + [os.path.dirname(os.path.abspath(path))]:
            sync(part)
    except (tf.errors.OpError, OSError):
        # A checkpoint is complete even without .meta, which is written last.
        if not os.path.exists(path + '.index'):
            remove_checkpoint(path)
        raise


class Saver:
    """A tf.train.Saver; it can give variables other values for a while."""

    def __init__(self):
        self._saver = tf.train.Saver(max_to_keep=None)  # we remove older ones
        self._own = {}

    @contextlib.contextmanager
    def other_values(self, session, values):
        """Give variables other values, {variable: array}, within a with block."""
        with swapped(session, values) as self._own:
            yield
        self._own = {}

    def save(self, session, path, values=None):
        """Save a checkpoint with these values; None: with the variables' own values."""
        with swapped(session, values or self._own):
            self._saver.save(session, path)

    def save_also_best(self, session, path, best, best_values):
        """Save a checkpoint, and the best unless best is None, maybe with best_values.

        With best_values, save the best first: otherwise, after a kill in between, the
        other checkpoint would be taken for the best.
        """
        if best and best_values:
            self.save(session, best, best_values)
        save_checkpoint(self, session, path)
        if best and not best_values:
            copy_checkpoint(path, best)


@contextlib.contextmanager
def swapped(session, values):
    """Set {variable: array} within a with block, which gets the earlier values."""
    earlier = dict(zip(values, session.run(list(values))))
    for variable, value in values.items():
        assign(session, variable, value)
    yield earlier
    for variable, value in earlier.items():
        assign(session, variable, value)
