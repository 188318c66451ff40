"""One run: its folders, its checkpoints, and the only place that ends it early."""
import contextlib
import os
import sys
import time

import numpy as np

from machinery.advice import list_results
from machinery.checkpoint_files import (
    NEW, Progress, find_best, find_in, put_aside, remove_older, restore_checkpoint)
from machinery.errors import InputError
from machinery.forgotten import Moving, check_graph, find_unused
from machinery.last_layer import warn_of_other_pictures
from machinery.model_file import (compare_with_earlier, describe, find_decoding,
                                  model_path, write_model)
from machinery.run_folder import RunFolder
from machinery.saver import Saver
from machinery.signals import StopSignals
from machinery.tf1 import (assign, find_device, reason_of, rebound_told, tf,
                           time_outside)


class Run:
    """A run: its folder, its checkpoints and its progress.

    Args:
        checkpoint_path, filewriter_path: folders of all runs; when training starts, a
            new run makes a numbered folder in each, with the same number.
        resume: the run to resume; see RunFolder.choose, whose errors it raises.
        keep: how many checkpoints to keep while it runs, besides the best.
        settings: {name: value}; kept in model.json, and compared when resuming.
        workers: only the chief touches files; it tells the others if the run resumes.

    Attributes:
        folder: a RunFolder.
        settings: {name: value}, completed by record.
        latest: path of the newest checkpoint, None before the first one.
        decoding: how a resumed run decodes JPEGs, for ImageDataGenerator.
        is_resumed: whether the run starts from a checkpoint.
        progress: a Progress.
        seconds: spent 'saving', and 'waiting' for training batches (without this
            thread's time in session.run).
    """

    def __init__(self, checkpoint_path, filewriter_path, resume, keep, settings,
                 workers):
        self.folder = RunFolder(checkpoint_path, filewriter_path, keep)
        self.workers, self.progress, self._saved_step = workers, NEW, None
        self.settings = dict(settings, workers=workers.size)
        self._facts = {'settings': self.settings}
        self.latest = self.folder.choose(resume) if workers.is_chief else None
        self.is_resumed = workers.any(self.latest)
        self.decoding = find_decoding(self.latest, workers) if self.is_resumed else {}
        self.seconds = {'waiting': 0., 'saving': 0.}
        self._variable = tf.get_variable('progress', trainable=False,
                                         initializer=np.array(NEW))

    @contextlib.contextmanager
    def session(self, initialize):
        """Give a session with the variables of this run, equal on all workers.

        Inside, Ctrl-C and SIGTERM wait for guard. initialize(session) sets the weights
        of a new run. Raises an InputError if the checkpoint does not fit the graph.
        """
        print('Device: %s' % find_device())
        with tf.name_scope('is_finite'):
            self._is_finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable))
                                             for variable in tf.trainable_variables()])
        with self.workers.session() as session, StopSignals() as self._signals:
            self._session = session
            if self.latest:  # only on the chief
                restore_checkpoint(session, self.latest)
                self.folder.best_before, progress = find_best(self.latest)
                assign(session, self._variable, progress)
                print('Resuming from %s' % self.latest)
            else:
                session.run(tf.global_variables_initializer())
                if self.workers.is_chief:
                    initialize(session)
            self.workers.broadcast(session)
            self.progress = Progress(*session.run(self._variable).tolist())._replace(
                score=-np.inf)  # none yet for the coming steps
            self._first_step = self._step()
            if self.is_resumed and not session.run(self._is_finite):
                raise InputError('%s holds numbers that are not finite' % self.latest)
            if self.is_done:
                told = ('All %d epochs are done; for more, set a larger num_epochs.'
                        % self.settings['num_epochs'])
                if self.workers.any(self.folder.is_new and self.workers.is_chief):
                    raise InputError(told)
                print(told)
            with self.folder.open(
                    self.workers, self._has_stepped, self.latest), rebound_told():
                self._saver = Saver()
                yield session

    def record(self, model, pictures, others, load_image, train_data, val_data, kind,
               optimizer):
        """Write model.json, which predict.py needs; when resuming, warn of changes.

        pictures and others are placeholders: see check_graph. Raises an InputError if
        the run being resumed trained other layers or prepared pictures differently.
        """
        check_graph(model, [pictures] + others)
        starts_again = False
        if self.workers.is_chief:
            describe(self._facts, self._session, model, pictures, load_image,
                     train_data, val_data, kind, optimizer)
        if self.latest:  # only on the chief
            self._facts['best_by'], reason = compare_with_earlier(
                self.latest, self._facts,
                None if self.folder.is_new else self.folder.log_path)
            starts_again = self.folder.set_best(reason, self.is_done)
            if not self.folder.is_new:
                self._saved_step = self._step()
        elif self.workers.is_chief:
            warn_of_other_pictures(model.WEIGHTS_PATH, self._facts['preprocessing'])
        if self.workers.any(starts_again):
            self.progress = self.progress._replace(best_score=-np.inf, best_epoch=0.)
        path = model_path(self.folder.best)
        if self.workers.is_chief and not (self.is_done and os.path.exists(path)):
            write_model(path, self._facts)

    @property
    def epoch(self):
        """The epoch to train next, or to continue."""
        return int(self.progress.epoch)

    def start_of(self, epoch):
        """Return how many of this worker's samples in an epoch are done already."""
        done = self.progress.done if epoch == self.progress.epoch else 0
        return int(done) // self.workers.size

    def guard(self, batches, epoch=None):
        """Yield (features, labels); save and end the run on a signal or a lost picture.

        The workers agree before each batch, so they all stop at the same step.
        epoch: the epoch of training batches; None: they are for evaluation.
        """
        moving = None
        with contextlib.closing(batches):
            while True:
                batch, fault, start = None, None, time_outside()
                try:
                    batch = next(batches, None)
                    if batch is not None and not len(batch.images):
                        raise InputError('None of the next pictures can be read')
                except InputError as error:
                    fault = error
                if epoch:
                    self.seconds['waiting'] += time_outside() - start
                is_faulty, is_signalled, has_batch = self.workers.collect(
                    [fault is not None, self._signals.is_stopped,
                     batch is not None], np.int32).T
                if is_faulty.any():
                    self._end(fault or InputError('%s cannot go on' % (
                        self.workers.name_of(is_faulty.argmax()))))
                if is_signalled.any():
                    self._end()
                if not has_batch.any():
                    self._end_if(moving and moving.find_fault())
                    return
                if epoch and not has_batch.all():  # a step needs all workers
                    self._end(InputError('The workers have different numbers of '
                                         'training batches'))
                if batch is None:  # another worker has a longer share
                    continue
                if epoch:  # before the yield: the caller may save
                    moving = moving or Moving(self._session, self.settings)
                    self.progress = self.progress._replace(
                        epoch=epoch, done=batch.end * self.workers.size)
                yield batch.images, batch.labels

    def _end_if(self, fault):
        if fault:
            self._end(fault)

    def _end(self, fault=None):
        """Save, and end all workers because of a fault or a signal."""
        if self.folder.is_new and not self._has_stepped():  # there is nothing to save
            if fault:
                raise fault
            self.workers.leave(self._signals.status, '\nStopped before the first step')
        if fault:
            sys.stderr.write('\n%s\n' % fault)  # print first, in case saving fails
        self._write(self._session)
        farewell = ('\nStopped in epoch %d, after step %d; saved %s.\nTo go on from '
                    'there, add --resume=%s to the command.' % (
                        min(self.progress.epoch, self.settings['num_epochs']),
                        self._step(), self.latest, self.folder.number))
        if fault:
            self.workers.finish()
            raise InputError(farewell) from fault
        self.workers.leave(self._signals.status, farewell)

    def save(self, session, epoch, step=None, best_values=None, **score):
        """Save a checkpoint; copy it to model_best if its score is the highest so far.

        Args:
            epoch: the epoch just trained.
            step: in mid-epoch, the number of steps so far.
            best_values: {variable: array} only for model_best, like moving averages.
            score: a single keyword: the name of the score, and its value.
        """
        self._end_if(find_unused(best_values))
        [(name, value)] = score.items()
        before = self._facts.get('best_by') or name
        if self.workers.any(before != name):
            print('Warning: the best checkpoint was chosen by %s, now it is chosen by '
                  '%s, starting with this epoch' % (before, name))
            self.progress = self.progress._replace(best_score=-np.inf)
            if self.workers.is_chief:
                put_aside(self.folder.best, 'earlier')
        is_best = value > self.progress.best_score
        if is_best:
            self.progress = self.progress._replace(best_score=value, best_epoch=epoch)
        self.progress = self.progress._replace(score=value)
        if step is None:
            self.progress = self.progress._replace(epoch=epoch + 1, done=0)
        self._saved_step = None
        start = time.perf_counter()
        self._write(session, None if step else 'model_epoch%d.ckpt' % epoch, is_best,
                    best_values)
        if self.workers.is_chief and self._facts.get('best_by') != name:
            self._facts['best_by'] = name
            write_model(model_path(self.folder.best), self._facts)
        self.seconds['saving'] += time.perf_counter() - start
        self.progress = self.progress._replace(score=-np.inf)

    def _write(self, session, name=None, is_best=False, best_values=None):
        """Save a checkpoint unless this step is saved already; exit on an error."""
        step = self._step()
        name = name or 'model_epoch%d_step%d.ckpt' % (self.progress.epoch, step)
        if not session.run(self._is_finite):
            self._stop_since('network')
        assign(session, self._variable, self.progress)
        if step == self._saved_step:
            return
        path = os.path.join(self.folder.path, name)
        if self.workers.is_chief:
            try:
                self._saver.save_also_best(
                    session, path, is_best and self.folder.best, best_values)
                remove_older(self.folder.path, self.folder.keep)
            except (tf.errors.OpError, OSError) as error:
                last = path if os.path.exists(path + '.index') else self.latest
                sys.exit('The checkpoint of step %d could not be saved: %s\nThe last '
                         'checkpoint: %s.' % (step, reason_of(error), last or 'none'))
        self.latest, self._saved_step = path, step

    def stop_unless_finite(self, means, rate):
        """Stop all workers before a score that is not finite can be saved."""
        for name, value in means.items():
            if not np.isfinite(value):
                self._stop_since('%s with learning_rate %g' % (name, rate))

    def _stop_since(self, name):
        self.workers.leave(1, (
            'The %s is no longer finite in epoch %d, step %d. The last good '
            'checkpoint: %s.\nUsual causes: a learning rate that is too high (try a '
            'tenth of it), or a wrong weights_path.'
            % (name, self.progress.epoch, self._step(), self.latest or 'none yet')))

    def _step(self):
        return self._session.run(tf.train.get_global_step())

    def _has_stepped(self):
        return self._step() != self._first_step

    @property
    def is_done(self):
        """Whether no epoch is left to train."""
        return self.progress.epoch > self.settings['num_epochs']

    def report(self):
        """Print the checkpoints and how to use them; after a signal, end the run."""
        if self.workers.any(self._signals.is_stopped):
            self._end()
        # There may have been more steps after the last validation.
        self._write(self._session)
        print('\n'.join(list_results(self.folder, self.latest, self.progress,
                                     self._facts)))

    def other_values(self, values):
        """Give variables other values in a with block, but not in its checkpoints."""
        return self._saver.other_values(self._session, values)

    def restore_best(self, session):
        """Load the best checkpoint on all workers."""
        if self.workers.is_chief:
            restore_checkpoint(session, find_in(self.folder.path))
        self.workers.broadcast(session)
        self._first_step, self._saved_step = -1, self._step()  # nothing to save

    def finish(self):
        """Wait for the other workers; keep only the newest and the best checkpoint."""
        self.workers.finish()
        if self.workers.is_chief:
            remove_older(self.folder.path, 1)
