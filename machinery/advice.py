"""Advice after a run: useful commands, and changes that its numbers suggest."""
import math
import os
from collections import Counter

import numpy as np

from machinery.features import SAMPLE_SIZE
from machinery.text import number_of, quote


def list_results(folder, latest, progress, facts):
    """Return lines about a run's checkpoints, and commands that use them.

    folder: its RunFolder; latest: the newest checkpoint; facts: its model.json.
    """
    settings, lines = facts['settings'], []
    if progress.best_epoch:
        lines.append('Best:       %s, of epoch %d, validation %s %.4f' % (
            folder.best, progress.best_epoch, facts.get('best_by') or 'score',
            progress.best_score))
    tested = quote(settings['test_file'] or settings['val_file'])
    if settings.get('pictures_path'):
        tested += ' --pictures_path ' + quote(settings['pictures_path'])
    return lines + [
        'Checkpoint: %s, the newest; --resume=%s continues from it'
        % (latest, folder.number),
        'Curves:     tensorboard --logdir %s --samples_per_plugin images=100'
        % quote(os.path.abspath(settings['filewriter_path'])),
        'Predict:    python predict.py %s --checkpoint %s'
        % (tested, quote(folder.path)),
        'Export:     python predict.py --export_path served/1 --checkpoint %s'
        % quote(folder.path)]


def advise(history, values, kind):
    """Return at most five lines of advice, each with the numbers behind it.

    history: {epoch: (training means, validation means)}, both {score: mean}; training
    means are without dropout, {} if unknown. values: the arrays true and predicted
    of the validation list at the end. kind: the kind of its labels.
    """
    true, predicted = values['true'], values['predicted']
    trained, validated = [
        {epoch: means[place][kind.loss] for epoch, means in history.items()
         if kind.loss in means[place]} for place in (0, 1)]
    lines = [find_overfitting(*history[max(history)], len(true)),
             follow_loss(trained, validated, max(history), kind.guessing(true))]
    if kind.name == 'class':
        lines += [compare_with_common(true, predicted, kind.names),
                  find_missed(true, predicted, kind.names),
                  find_confused(true, predicted, kind.names)]
    return [line for line in lines if line]


def find_overfitting(train_means, val_means, count):
    """Compare training accuracy with the accuracy on count validation pictures."""
    trained, validated = train_means.get('accuracy'), val_means.get('accuracy')
    if trained is None or validated is None:
        return None
    error = math.hypot(standard_error(trained, SAMPLE_SIZE),
                       standard_error(validated, count))
    if trained - validated < max(0.05, 2 * error):
        return None
    return ('Overfitting: accuracy %.2f on training pictures, %.2f in validation. Try '
            'more pictures, random_crop = True, a higher dropout_rate, fewer '
            'train_layers' % (trained, validated))


def standard_error(share, count):
    """Return the standard error of a share measured on count pictures.

    Adds two hits and two misses (Agresti and Coull, 1998). Otherwise the error would be
    0 if all pictures were hits.
    """
    share = (share * count + 2) / (count + 4)
    return math.sqrt(share * (1 - share) / (count + 4))


def follow_loss(losses, validated, last, guessing):
    """Report a loss that hardly fell, has risen, or was still falling at the end.

    losses, validated: {epoch: loss} of training and of validation. last: the last
    epoch. guessing: the loss of a network that ignores the pictures.
    """
    *_, before, now = [0., 0., *losses.values()]  # in the last two epochs
    is_stuck = min(losses.values(), default=0.) > 0.95 * guessing > 0
    if is_stuck and now > 0.95 * before > 0:
        return ('The training loss hardly fell: it was %.2f at best, guessing gives '
                '%.2f. Try another learning_rate: find_rate = True proposes one'
                % (min(losses.values()), guessing))
    best = min(validated, key=validated.get, default=0)
    if losses and all(found[last] > 1.2 * found[best] for found in (losses, validated)):
        return ('Since epoch %d, the loss has risen, from %.2f to %.2f in validation. '
                'Try a third of the learning_rate'
                % (best, validated[best], validated[last]))
    recent = list(validated.values())[-3:]
    if len(recent) < 3 or not recent[0] > recent[1] > recent[2] < 0.95 * recent[0]:
        return None
    return ('The validation loss was still falling, from %.2f to %.2f in the last two '
            'epochs. Try num_epochs = %d with resume = True'
            % (recent[0], recent[2], 2 * last))


def compare_with_common(true, predicted, class_names):
    """Compare the accuracy with always predicting the most common class."""
    common = np.bincount(true).argmax()
    is_hit, is_common = predicted == true, true == common
    won, lost = (is_hit & ~is_common).sum(), (~is_hit & is_common).sum()
    # The pictures are the same, so only differing verdicts count (McNemar's test).
    if is_common.all() or won - lost > 2 * math.sqrt(won + lost):
        return None
    if is_hit.all():
        return ('All %s of the validation list are right, but they are too few to '
                'tell: give it more' % number_of(true))
    return ('Accuracy %.2f in validation is not clearly above %.2f, which always '
            'predicting %s gives. Try another learning_rate (find_rate = True proposes '
            'one), or more pictures'
            % (is_hit.mean(), is_common.mean(), class_names[common]))


def find_missed(true, predicted, class_names):
    """Name classes with no hit at all, if they are too large for bad luck."""
    is_hit = predicted == true
    counts = Counter(true[~np.isin(true, true[is_hit])].tolist())
    missed = ['%s (of %d)' % (class_names[label], count)
              for label, count in counts.most_common()
              if (1 - is_hit.mean()) ** count < 0.05]
    if not missed:
        return None
    if len(missed) > 3:
        missed[3:] = ['%d more' % (len(missed) - 3)]
    return ('Not one hit in validation: %s. Check their labels, add pictures of them, '
            'or give them a weight (docs/recipes.md)' % ', '.join(missed))


def find_confused(true, predicted, class_names):
    """Name the five most frequent confusions, if any occurred more than once."""
    is_wrong = predicted != true
    pairs = Counter(zip(true[is_wrong].tolist(), predicted[is_wrong].tolist()))
    if max(pairs.values(), default=0) < 2:
        return None
    return 'Frequent mistakes at the end: %s. Check their labels, or add pictures' % (
        ', '.join('%s as %s (%d)' % (class_names[label], class_names[other], count)
                  for (label, other), count in pairs.most_common(5)))
