"""Progress on the console, and advice for the next run."""
import time

import numpy as np
from tqdm import tqdm

from machinery.advice import advise
from machinery.tf1 import TimedSession


def as_text(scores):
    """Return {score: value} as 'cross_entropy 0.5000, accuracy 0.8000'."""
    return ', '.join('%s %.4f' % score for score in scores.items())


class ProgressBar:
    """Progress of epochs: a bar on a terminal, otherwise a line every display_step.

    data_size: this worker's number of samples; images_per_second: of all workers.
    """

    def __init__(self, run, num_epochs, data_size, display_step, kind):
        self._run, self._num_epochs, self._display_step = run, num_epochs, display_step
        self._total, self._kind = data_size * run.workers.size, kind
        self._history, self._values = {}, None

    def start(self, epoch):
        """Begin an epoch."""
        self._epoch, self._title = epoch, 'Epoch %d/%d' % (epoch, self._num_epochs)
        self._before = self._now = self._read_clocks()
        self._saved = self._run.seconds['saving']
        self.images_per_second = 0.  # in case no step is left in a resumed epoch
        self._first = self._run.start_of(epoch) * self._run.workers.size
        self._bar = tqdm(total=self._total, desc=self._title, unit=' images',
                         initial=self._first,
                         disable=None if self._run.workers.is_chief else True)

    def _read_clocks(self):
        return np.array([time.perf_counter(), self._run.seconds['waiting'],
                         *TimedSession.seconds()])

    def _split_time(self):
        """Return text with each activity's share of an epoch's training time."""
        seconds, waited, own, others = self._now - self._before
        # Another thread reads pictures and runs the frozen layers. If the loop waits
        # longer than these layers take, it waits for pictures or stored features.
        reading = max(0., waited - others)
        python = seconds - waited - own
        shares = {'network': seconds - reading - python, 'reading': reading,
                  'Python': python}
        return ', '.join('%s %.0f %%' % (name, 100 * share / seconds)
                         for name, share in shares.items())

    def update(self, step, means):
        """Show how many samples are done, and the scores of the step."""
        done = self._run.progress.done
        self._now = self._read_clocks()
        seconds, *_ = self._now - self._before
        self.images_per_second = (done - self._first) / max(seconds, 1e-9)
        if not self._bar.disable:
            self._bar.set_postfix_str(as_text(means), refresh=False)
            self._bar.update(done - self._bar.n)
        elif step % self._display_step == 0:
            print('%s, step %d: %s' % (self._title, step, as_text(means)))

    def report(self, train_means, val_means, val_values):
        """Print the line that ends an epoch; warn if all predictions are the same."""
        self._bar.close()
        self._history[self._epoch] = train_means, val_means
        self._values = val_values
        line = '%s: validation %s' % (self._title, as_text(val_means))
        if self._epoch == 1:
            line += ' (%s)' % self._kind.always(val_values['true'])
        if self.images_per_second:
            line += '; trained at %.0f images/s: %s; saving took %.1f s' % (
                self.images_per_second, self._split_time(),
                self._run.seconds['saving'] - self._saved)
        print(line)
        same = self._kind.find_same(val_values)
        if same:
            print('Warning: all predictions are %s' % same)

    def report_test(self, means):
        """Print the scores of the test list."""
        print('Test:       %s, of the best checkpoint' % as_text(means))

    def advise(self):
        """Print advice for the next run, if an epoch has been trained."""
        if self._history:
            for line in advise(self._history, self._values, self._kind):
                print('Next:       %s' % line)
