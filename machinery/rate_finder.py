"""Propose a learning rate: train a few steps, each with a higher rate than the last.

This is the learning rate range test of Smith, "Cyclical Learning Rates for Training
Neural Networks", WACV 2017, section 3.3.
"""
import contextlib
import itertools
import math
import os

import cv2
import numpy as np
from tqdm import tqdm

from machinery.drawings import new_figure, render, try_to_draw
from machinery.files import write_whole
from machinery.tf1 import assign, tf

RATES = np.geomspace(1e-5, 1, 40)  # one for each step
MOST_PICTURES = 2000  # training pictures, whose features are stored
MEASURED = 200  # pictures whose loss is measured after each step
SMOOTHING = 0.7  # share of the earlier losses in the moving average
FALLEN = 0.02  # share of the first loss; a smaller fall may be chance
EXPLODED = 4.  # times the lowest loss, and above the first loss


def smooth(losses):
    """Return the exponential moving averages of losses, not biased towards 0.

    The correction is from Kingma and Ba, "Adam", ICLR 2015, section 3.
    """
    mean, means = 0., []
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING ** count))
    return np.array(means)


def has_exploded(losses):
    """Tell whether the last moving average is not finite, or far too high."""
    means = smooth(losses)
    highest = max(means[0], EXPLODED * means.min())
    return not means[-1] <= highest  # not >, because a NaN must count as well


def propose(losses):
    """Return the rate at which the loss falls fastest, None if it does not fall.

    losses: measured after a step with each of the first RATES; the last may have
    exploded and may not be finite.
    """
    means = smooth(losses)
    means = means[np.isfinite(means)]
    if not len(means) or means[0] - means.min() <= FALLEN * abs(means[0]):
        return None
    # Stop at the lowest loss: after it, the loss only falls if it has jumped before.
    return RATES[1 + np.diff(means[:means.argmin() + 1]).argmin()]


def tell(losses):
    """Return the rate to try, and when the loss explodes, as a line of text."""
    rate, explosion = propose(losses), RATES[len(losses) - 1]
    end = ('explodes at %.2g' % explosion if has_exploded(losses) else
           'does not explode up to %.2g' % explosion)
    if rate is None:
        return ('Rate:       no rate made the loss fall, and it %s. Check the labels, '
                'or try a larger batch_size, or other train_layers' % end)
    return ('Rate:       the loss falls fastest at %.2g and %s; try --learning_rate '
            '%.2g' % (rate, end, rate))


def draw_rates(losses):
    """Return a PNG with the curve of the losses; see propose."""
    rates, means, losses = RATES[:len(losses)], smooth(losses), np.array(losses)
    figure = new_figure((8, 5), dpi=100, tight_layout=True)
    axes = figure.add_subplot()
    axes.set_xscale('log')
    axes.plot(rates, losses, '.', color='0.6', label='after each step')
    axes.plot(rates, means, label='moving average')
    rate = propose(losses)
    if rate:
        axes.axvline(rate, color='tab:green', linestyle='--',
                     label='falls fastest: %.2g' % rate)
    if has_exploded(losses):
        axes.axvline(rates[-1], color='tab:red', linestyle=':',
                     label='explodes: %.2g' % rates[-1])
    # Show the range below the first loss, which an explosion would make tiny.
    low, high = np.nanmin(losses), losses[0]
    space = (high - low) or 1.
    axes.set_ylim(low - 0.1 * space, high + 0.5 * space)
    axes.set(xlabel='learning rate', ylabel='loss without dropout',
             title='Which learning rate makes the loss fall?')
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left')
    return cv2.imencode('.png', render(figure))[1].tobytes()


def write_curve(path, losses):
    """Write the curve to a PNG file, whole or not at all."""
    with write_whole(path) as file:
        file.write(draw_rates(losses))


def try_rates(run, features, loss, train_op, inputs):
    """Print the learning rate to try, draw the curve, and end the script.

    The run leaves only the curve, as a picture in its numbered folder.

    Args:
        run: a new Run, in its session.
        features: the Features to train on.
        loss, train_op: the tensor to minimise, and the operation for a step.
        inputs: placeholders for features, labels, learning rate and keep_prob. The
            run's settings give the batch_size and the dropout_rate.

    Raises:
        InputError: a picture can no longer be read.
        SystemExit: at the end, or after a signal.
    """
    session, step = tf.get_default_session(), tf.train.get_global_step()
    batch_size, kept = run.settings['batch_size'], 1. - run.settings['dropout_rate']
    first, losses = session.run(step), []
    features = features.select_first(MOST_PICTURES // run.workers.size)
    # Another batch or dropout mask changes the loss more than a step does. So measure
    # it on the same pictures each time, without dropout.
    count = math.ceil(MEASURED / (batch_size * run.workers.size))
    with contextlib.closing(run.guard(features.batches(batch_size, 1))) as batches:
        measured = list(itertools.islice(batches, count))
    with contextlib.closing(run.guard(repeat(features, batch_size))) as batches, tqdm(
            RATES, 'Trying rates', unit=' steps',
            disable=None if run.workers.is_chief else True) as rates:
        for rate, batch in zip(rates, batches):
            assign(session, step, first + len(losses))  # another dropout mask each time
            session.run(train_op, dict(zip(inputs, [*batch, rate, kept])))
            assign(session, step, first)  # otherwise guard would save on Ctrl-C
            losses.append(run.workers.collect(np.mean([
                session.run(loss, dict(zip(inputs, [*batch, rate, 1.])))
                for batch in measured]), np.float32).mean())
            if has_exploded(losses):
                break
    if run.workers.is_chief:
        path = os.path.join(run.folder.log_path, 'learning_rate.png')
        # Without the curve, as on a full disk, the proposal still counts.
        _, fault = try_to_draw(write_curve, path, losses)
        print('Warning: there is no picture of the curve: %s' % fault if fault else
              'Curve:      %s' % path)
    run.workers.leave(0, tell(losses))


def repeat(features, batch_size):
    """Yield the batches of epoch 1, 2, 3, ... without end."""
    for epoch in itertools.count(1):
        yield from features.batches(batch_size, epoch)
