"""The checkpoints of a run: the newest five, the best, and model.json beside them."""
import contextlib
import glob
import os
import sys

import numpy as np

from machinery.checkpoint_files import (
    copy_checkpoint, find_weights, list_checkpoints, make_durable, open_checkpoint,
    put_aside_if_damaged, read_all)
from machinery.lock import lock, unlock
from machinery.model_file import (
    model_path, warn_of_changes, warn_of_other_lists, write_digests,
    write_model)
from machinery.settings import InputError
from machinery.tf1 import reason_of, tf


class Checkpoints:
    """A run's checkpoints in a folder, and how far the run has come.

    Args:
        folder: is made where it does not exist.
        resume: True: resume from the newest one in the folder; False: start; or the
            path of one.
        workers: the chief alone touches files; all learn whether the run is resumed.
        settings: {name: value}; kept in model.json, and compared when resuming.

    Attributes:
        latest, best: paths; latest is None before the first one.
        resuming: whether the run continues an earlier one.
        epoch, done: the epoch to resume in, and how many samples of this worker's share
            are done.
        best_score, best_epoch: on the validation list, of the score that best_by names;
            of one that is to be low, as in '-cross_entropy', the negative.

    Raises:
        InputError: see choose_checkpoint.
    """

    def __init__(self, folder, resume, workers, settings):
        self.folder, self._workers = folder, workers
        self._settings = dict(settings, workers=workers.size)
        self.best = os.path.join(folder, 'model_best.ckpt')
        self.latest, self._earlier, self._saved_step = None, [], None
        if workers.is_chief:
            self.latest, self._earlier = choose_checkpoint(folder, resume)
        self.resuming = workers.any(self.latest)
        # best_score, best_epoch, epoch, done of all workers, and the score of this
        # checkpoint; a variable, so that each holds its own.
        self._progress = tf.get_variable(
            'progress', trainable=False,
            initializer=np.array([-np.inf, 0., 1., 0., -np.inf]))

    def restore(self, session):
        """Restore the latest checkpoint, and see that its best one is here."""
        if self._workers.is_chief:
            restore_checkpoint(session, self.latest)
            _, best_epoch, epoch, done, score = session.run(self._progress)
            # The earlier run may have been killed before it had copied its best, or
            # may have had another folder.
            source = self.latest
            if epoch != best_epoch + 1 or done:
                source = os.path.join(os.path.dirname(self.latest), 'model_best.ckpt')
            if os.path.exists(source + '.index'):
                os.makedirs(self.folder, exist_ok=True)
                copy_checkpoint(source, self.best)
            if not os.path.exists(self.best + '.index'):
                best_score, best_epoch = self._find_best()
                self._progress.load([best_score, best_epoch, epoch, done, score],
                                    session)
        print('Resuming from %s' % self.latest)

    def _find_best(self):
        """Copy the best checkpoint that is left; return its score and epoch."""
        scores = {}
        for path in self._earlier:
            *_, epoch, _, score = open_checkpoint(path).get_tensor('progress')
            scores[score, -epoch] = path
        score, epoch = max(scores, default=(-np.inf, 0))
        if score == -np.inf:
            return score, 0
        copy_checkpoint(scores[score, epoch], self.best)
        print('Warning: %s is now a copy of %s, the best that is left'
              % (self.best, scores[score, epoch]))
        return score, -epoch - 1

    def start(self, session, data, val_data, class_names, optimizer, scores):
        """Find out how far the run has come, warn of changes, and write model.json.

        Args:
            data, val_data: ImageDataGenerators of the training and validation pictures.
            optimizer: the tf.train.Optimizer; its kind and numbers are compared, too.
            scores: the names that best_by may have.

        Raises:
            InputError: there is no score of the name best_by, or the run being resumed
                had another best_by, or trained other layers; names them.
        """
        best_by = self._settings['best_by']
        self._score, self._sign = best_by.lstrip('-'), -1 if best_by[0] == '-' else 1
        if self._score not in scores:
            raise InputError('best_by is %r, must be one of %s, perhaps with a minus'
                             % (best_by, ', '.join(scores)))
        self.best_score, best_epoch, epoch, done, _ = session.run(self._progress)
        self.best_epoch, self.epoch = int(best_epoch), int(epoch)
        self.done = int(done) // self._workers.size
        is_over = self.epoch > self._settings['num_epochs']
        if is_over:
            print('All %d epochs are done; with a larger num_epochs, training goes on.'
                  % self._settings['num_epochs'])
        self._saver = tf.train.Saver()
        self._saver.recover_last_checkpoints(
            [path for path in self._earlier if path != self.best])
        with tf.name_scope('is_finite'):
            self._is_finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable))
                                             for variable in tf.trainable_variables()])
        if self.resuming and not session.run(self._is_finite):
            raise InputError('%s holds numbers that are not finite' % self.latest)
        self._settings['training pictures'] = len(data.paths) or data.data_size
        self._settings['optimizer'] = dict(
            {name.lstrip('_'): value for name, value in vars(optimizer).items()
             if type(value) in (int, float)}, kind=type(optimizer).__name__)
        if self._workers.is_chief:
            model = {
                'network': 'AlexNet', 'num_classes': len(class_names),
                'class_names': class_names,
                'train_layers': self._settings['train_layers'],
                'preprocessing': None if data.mean is None else {
                    'size': list(data.scale_size), 'channels': 'BGR',
                    'minus_mean': list(data.mean), 'margin': data.margin},
                'settings': self._settings,
                'versions': {'tensorflow': tf.__version__, 'numpy': np.__version__}}
            lists = {name: one for name, one in [('train', data), ('val', val_data)]
                     if one.paths}
            if self.latest:
                warn_of_changes(self.latest, model)
                warn_of_other_lists(self.latest, lists)
                if is_in(self.folder, self.latest):
                    self._saved_step = session.run(tf.train.get_global_step())
            lock(self.folder)  # which was made by now, perhaps, by another run
            if not self._earlier and list_checkpoints(self.folder):
                raise InputError('%s: another run has just used it' % self.folder)
            if not is_over or not os.path.exists(model_path(self.best)):
                write_model(model_path(self.best), model)
                write_digests(self.folder, lists)

    def save(self, session, epoch, done=0, scores=None):
        """Save a checkpoint, or delete what there is of it, name the last one and exit.

        Args:
            epoch, done: where to resume from it, as the attributes.
            scores: {name: value} on the validation list, at the end of an epoch.
        """
        step = session.run(tf.train.get_global_step())
        if not session.run(self._is_finite):
            self._stop_since('network', epoch, step)
        score = self._sign * scores[self._score] if scores else -np.inf
        is_best = score > self.best_score
        if is_best:
            self.best_score, self.best_epoch = score, epoch - 1
        self.epoch, self.done = epoch, done
        self._progress.load([self.best_score, self.best_epoch, epoch,
                             done * self._workers.size, score], session)
        if step == self._saved_step and not scores:  # nothing was trained since
            return
        path = os.path.join(self.folder, 'model_epoch%d%s.ckpt' % (
            (epoch - 1, '') if scores else (epoch, '_step%d' % step)))
        if self._workers.is_chief:
            try:
                self._saver.save(session, path)
                if is_best:
                    copy_checkpoint(path, self.best)
                make_durable(glob.glob(glob.escape(path) + '.*'))
            except (tf.errors.OpError, OSError) as error:
                # Without .meta, which is written last, a checkpoint is complete.
                if not os.path.exists(path + '.index'):
                    for part in glob.glob(glob.escape(path) + '*'):
                        os.remove(part)
                    path = self.latest or 'none yet'
                sys.exit('The checkpoint of step %d could not be saved: %s\nThe last '
                         'checkpoint: %s.' % (step, reason_of(error), path))
        self.latest, self._saved_step = path, step

    @contextlib.contextmanager
    def saving_on_fault(self, session, epoch, done):
        """Save before an InputError of any worker ends all: a picture is gone, say.

        Of what is done within, the first word between workers must be any or
        interleave.
        """
        try:
            yield
        except InputError as error:
            self._workers.give_up()
            step = session.run(tf.train.get_global_step())
            if not step:  # nothing to save
                raise
            sys.stderr.write('\n%s\n' % error)  # saving may end in an error, too
            self.save(session, epoch, done)
            self._workers.finish()
            raise InputError(self.farewell(epoch, step)) from error

    def stop_unless_finite(self, what, scores, epoch, step, rate):
        """End all workers, before anything is spoilt, where a score is not finite."""
        for name, value in scores.items():
            if not np.isfinite(value):
                self._stop_since('%s %s with learning_rate %g' % (what, name, rate),
                                 epoch, step)

    def _stop_since(self, what, epoch, step):
        self._workers.leave(1, (
            'The %s is no longer finite in epoch %d, step %d. The last good '
            'checkpoint: %s.\nUsual causes: a learning rate that is too high (try a '
            'tenth of it), or a wrong weights_path.'
            % (what, epoch, step, self.latest or 'none yet')))

    def farewell(self, epoch, step):
        """Return what to say when the run ends early, and all is saved."""
        return ('\nStopped in epoch %d, after step %d; saved %s.\nTo go on from there, '
                'add --resume=True to the command.' % (epoch, step, self.latest))

    def report(self):
        """Print the best and the newest checkpoint."""
        print('Best:       %s, of epoch %d, validation %s %.4f' % (
            self.best, self.best_epoch, self._score, self._sign * self.best_score))
        print('Checkpoint: %s, the newest, from which --resume True goes on'
              % self.latest)

    def finish(self):
        """Let other runs use the folder."""
        if self._workers.is_chief:
            unlock(self.folder)

    def restore_best(self, session):
        """Give the variables of the best checkpoint to all workers."""
        if self._workers.is_chief:
            restore_checkpoint(session, self.best)
        self._workers.broadcast(session)


def choose_checkpoint(folder, resume):
    """Return the checkpoint to resume from, or None, and all that are in a folder.

    Removes what is left of checkpoints that were cut off while being saved; to resume,
    puts damaged ones aside. The folder is locked from here on, if it exists.

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
        read_all(checkpoint)  # a damaged one is told now, not after the pictures
    if checkpoints and checkpoint != checkpoints[-1]:
        raise InputError(
            '%s holds checkpoints of an earlier run. Choose another checkpoint_path '
            'and filewriter_path, or go on with that run by --resume=True.' % folder)
    for path in glob.glob(os.path.join(glob.escape(folder), 'model_*.ckpt.*')):
        start = path[:path.rindex('.ckpt.')]
        if '.tempstate' in path or not os.path.exists(start + '.ckpt.index'):
            os.remove(path)
    return checkpoint, checkpoints


def is_in(folder, path):
    """Tell whether a file is in a folder, however that is written."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)


def restore_checkpoint(session, path):
    """Restore all variables of the graph.

    Raises:
        InputError: a variable is missing in it or has another shape; names each.
    """
    shapes = open_checkpoint(path).get_variable_to_shape_map()
    faults = ['%s: expected shape %s, found %s'
              % (variable.op.name, variable.shape.as_list(),
                 shapes.get(variable.op.name, 'nothing'))
              for variable in tf.global_variables()
              if shapes.get(variable.op.name) != variable.shape.as_list()]
    if faults:
        raise InputError('%s does not fit this configuration:\n  %s'
                         % (path, '\n  '.join(faults)))
    surplus = set(shapes) - {variable.op.name for variable in tf.global_variables()}
    if surplus:
        print('Warning: %s also holds %s, for which there is no use now'
              % (path, ', '.join(sorted(surplus))))
    tf.train.Saver().restore(session, path)
