"""What a run is told to try next follows from its numbers, or is not said."""
import os

import numpy as np
import pytest

from machinery import advice
from machinery.labels import OneClass
from machinery.text import quote

NAMES = ['cat', 'dog', 'emu']


def history(*pairs, accuracies=((0.9, 0.9),), first=1):
    """Return the history of epochs with these losses; accuracies are of the last."""
    accuracies = [(0.9, 0.9)] * (len(pairs) - len(accuracies)) + list(accuracies)
    return {epoch: tuple({'cross_entropy': loss, 'accuracy': accuracy}
                         for loss, accuracy in zip(*pair))
            for epoch, pair in enumerate(zip(pairs, accuracies), first)}


def classes(**confusions):
    """Return true and predicted classes, as in classes(cat_dog=3)."""
    pairs = [[NAMES.index(name) for name in pair.split('_')]
             for pair, count in confusions.items() for _ in range(count)]
    return np.array(pairs).T


def advise(history, true, predicted, names):
    return advice.advise(history, {'true': true, 'predicted': predicted},
                         OneClass(names))


GOOD = classes(cat_cat=20, dog_dog=20, emu_emu=20)
STEADY = history((0.5, 0.5), (0.3, 0.35), (0.3, 0.35))


def test_a_healthy_run_needs_no_advice():
    assert advise(STEADY, *GOOD, NAMES) == []
    assert advise(history((0.1, 0.2)), *GOOD, NAMES) == []


@pytest.mark.parametrize('counts, is_told', [((3, 4), True), ((4, 1), True),
                                             ((5, 5), False)])
def test_a_perfect_score_needs_no_advice_but_pictures_that_can_tell(counts, is_told):
    true, _ = np.repeat(classes(cat_cat=1, dog_dog=1), counts, axis=1)
    lines = advise(STEADY, true, true, NAMES)
    assert lines == is_told * ['All %d pictures of the validation list are right, but '
                               'they are too few to tell: give it more' % sum(counts)]


def test_mistakes_are_named_with_the_most_frequent_first():
    true, predicted = classes(cat_cat=20, dog_dog=20, emu_emu=20, cat_dog=2, emu_cat=3,
                              dog_cat=1, cat_emu=1, emu_dog=1, dog_emu=1)
    [line] = advise(STEADY, true, predicted, NAMES)
    assert line.startswith('Frequent mistakes at the end: emu as cat (3), cat as dog '
                           '(2), ')
    assert line.count(' as ') == 5 and line.count('(1)') == 3


@pytest.mark.parametrize('trained, validated, count, is_told', [
    (0.99, 0.71, 60, True), (0.97, 0.94, 36, False), (1., 0.8, 15, False),
    (1., 0.8, 300, True), (0.99, 0.96, 10000, False), (0.7, 0.9, 60, False)])
def test_a_gap_beyond_chance_is_overfitting(trained, validated, count, is_told):
    found = history((0.5, 0.5), (0.1, 0.5), accuracies=[(trained, validated)])
    every = classes(cat_cat=1, dog_dog=1, emu_emu=1)
    lines = advise(found, *np.repeat(every, count // 3, axis=1), NAMES)
    assert len(lines) == is_told
    if is_told:
        assert 'accuracy %.2f on training pictures, %.2f in' % (trained, validated) in (
            lines[0])
        assert 'random_crop' in lines[0]


def test_a_loss_that_still_falls_asks_for_more_epochs():
    found = history((0.9, 0.9), (0.5, 0.6), (0.4, 0.5), first=8)
    assert advise(found, *GOOD, NAMES) == [
        'The validation loss was still falling, from 0.90 to 0.50 in the last two '
        'epochs. Try num_epochs = 20 with resume = True']
    for losses in [(0.9, 0.5), (0.9, 0.4, 0.45), (0.51, 0.5, 0.49)]:
        assert not advise(history(*zip(losses, losses)), *GOOD, NAMES)


def test_a_loss_that_has_risen_asks_for_a_lower_rate():
    found = history((0.3, 0.16), (0.7, 0.59), accuracies=[(0.76, 0.76)])
    assert advise(found, *GOOD, NAMES) == [
        'Since epoch 1, the loss has risen, from 0.16 to 0.59 in validation. Try a '
        'third of the learning_rate']


def test_a_loss_that_never_fell_asks_for_another_rate():
    found = history((1.3, 1.2), (1.08, 1.1), (1.1, 1.1))
    assert advise(found, *GOOD, NAMES) == [
        'The training loss hardly fell: it was 1.08 at best, guessing gives 1.10. Try '
        'another learning_rate: find_rate = True proposes one']
    assert not advise(history((1.9, 1.9), (1.2, 1.2)), *GOOD, NAMES)  # but it falls


@pytest.mark.parametrize('confusions, is_told', [
    (dict(cat_cat=30, dog_dog=3, dog_cat=17), True),
    (dict(cat_cat=30, dog_dog=10, dog_cat=10), False),
    (dict(cat_cat=20, cat_dog=10, dog_dog=15, dog_cat=5), True),
    (dict(cat_cat=9), False)])
def test_the_most_common_class_is_the_one_to_beat(confusions, is_told):
    lines = [line for line in advise(STEADY, *classes(**confusions), NAMES[:2])
             if 'Frequent' not in line]
    assert len(lines) == is_told
    if is_told:
        assert 'is not clearly above 0.60, which always predicting cat' in lines[0]
        assert 'find_rate = True proposes one' in lines[0]


def test_a_class_without_a_hit_is_named_if_it_is_no_chance():
    true, predicted = classes(cat_cat=40, dog_dog=40, emu_dog=7)
    line, _ = advise(STEADY, true, predicted, NAMES)
    assert line.startswith('Not one hit in validation: emu (of 7). Check')
    true, predicted = classes(cat_cat=11, cat_dog=4, dog_dog=15, emu_dog=1)
    assert [line[:4] for line in advise(STEADY, true, predicted, NAMES)] == ['Freq']
    labels = np.arange(10).repeat(30)
    line, _ = advise(STEADY, labels, np.maximum(labels, 5), list('abcdefghij'))
    assert ': a (of 30), b (of 30), c (of 30), 2 more. ' in line


def test_scores_of_your_own_and_batches_of_your_own_are_no_trouble():
    assert advise({1: ({}, {'error': 1.})}, *GOOD, NAMES) == []


@pytest.mark.parametrize('system, expected', [
    ('posix', "'C:\\my pictures'"), ('nt', '"C:\\my pictures"')])
def test_path_in_a_command_is_quoted_for_the_shell(system, expected):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'name', system)
        quoted = quote('C:\\my pictures')
    assert quoted == expected
