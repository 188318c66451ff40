"""find_rate = True: the learning rate that it proposes, and what it leaves behind."""
import os
import signal

import cv2
import numpy as np
import pytest

from datagenerator import ImageDataGenerator
from helpers import ROOT, files, finetune, unless_old
from machinery import rate_finder
from machinery.features import Features
from machinery.rate_finder import RATES, draw_rates, has_exploded, propose, tell
from machinery.store import Store


def descend(curvatures, noise=0.):
    """Return the losses of gradient descent in a bowl, with each of RATES for a step.

    It diverges at rates above 2 / the largest curvature.
    """
    rng, place, losses = np.random.RandomState(0), np.ones(len(curvatures)), []
    for rate in RATES:
        place = place * (1 - rate * np.array(curvatures))
        losses.append(0.5 * (curvatures * place ** 2).mean() + noise * rng.randn())
        if has_exploded(losses):
            return losses
    return losses


@pytest.mark.parametrize('curvature', [20., 200., 2000.])
@pytest.mark.parametrize('noise', [0., 0.01])
def test_proposal_is_a_decade_below_where_descent_diverges(curvature, noise):
    limit = 2 / curvature
    losses = descend([curvature, curvature / 5], noise * curvature / 4)
    assert 0.02 * limit < propose(losses) < limit
    assert has_exploded(losses) and limit < RATES[len(losses) - 1] < 10 * limit
    assert tell(losses).endswith(' at %.2g; try --learning_rate %.2g' % (
        RATES[len(losses) - 1], propose(losses)))


def test_loss_that_never_falls_is_told():
    noise = np.random.RandomState(0).randn(len(RATES))
    for losses in [np.ones(40), np.zeros(40), 1 + 0.001 * noise, np.linspace(1, 2, 40),
                   [1., np.nan], [np.nan], [1., 1.5, 60.]]:
        assert propose(losses) is None
        assert tell(losses).startswith('Rate:       no rate made the loss fall')
    assert 'does not explode up to 1. ' in tell(np.ones(40))
    assert 'it explodes at 1.3e-05. ' in tell([1., np.nan])


def test_fall_from_where_the_loss_has_jumped_to_does_not_count():
    losses = np.r_[np.linspace(1, 0.9, 10), np.linspace(0.8, 0.2, 10), 0.7, 0.2]
    assert RATES[9] < propose(losses) <= RATES[20]
    assert propose(losses) == propose(np.r_[losses, 50, 30, 9, 2, np.inf])


def test_loss_explodes_if_it_is_far_above_its_lowest_and_its_first():
    assert has_exploded([1., np.inf]) and has_exploded([1., np.nan])
    assert has_exploded([1., 0.5, 30.]) and not has_exploded([1., 0.01, 1.])
    assert not has_exploded([-1., -2.])  # a loss of your own


def test_curve_is_drawn_also_if_it_is_flat_or_not_finite():
    for losses in [descend([20.]), np.ones(40), [1., np.nan]]:
        image = cv2.imdecode(np.frombuffer(draw_rates(losses), np.uint8), 1)
        assert image.shape == (500, 800, 3) and image.std() > 10


def test_first_pictures_are_every_epoch(tmp_path):
    data = ImageDataGenerator(os.path.join(ROOT, 'images', 'test.txt'), True, True,
                              nb_classes=3)
    features = Features(data, lambda images: np.float32(images[:, 0, :2, 0]),
                        Store((2,), str(tmp_path), '0' * 64, 1))
    first = features.select_first(10)
    expected = next(features.batches(10, 1))
    for epoch in (1, 2):
        [batch] = first.batches(32, epoch)
        np.testing.assert_array_equal(batch.samples, expected.samples)
        np.testing.assert_array_equal(batch.images, expected.images)
    assert first.data_size == 10 and features.data_size == data.data_size == 27

    class Own:
        data_size = 3
    own = Features(Own(), None)
    assert own.select_first(2) is own


def try_rates(folder, weights, *arguments):
    return finetune(str(folder), '--weights_path=' + weights, '--batch_size=8',
                    '--train_file=images/test.txt', '--num_epochs=1', *arguments)


def test_rates_are_tried_and_leave_nothing_but_the_curve(tmp_path, narrow_network,
                                                         narrow_file):
    status, output = try_rates(tmp_path, narrow_file, '--find_rate=True')
    assert status == 0, output
    *_, curve, told = output.splitlines()
    picture = str(tmp_path / 'log' / '1' / 'learning_rate.png')
    assert curve == 'Curve:      ' + picture
    assert told.startswith('Rate:       the loss falls fastest at ')
    assert 1e-5 < float(told.split()[-1]) <= 1
    assert not files(tmp_path / 'new') and 'Epoch' not in output
    assert files(tmp_path / 'log') == ['learning_rate.png']
    assert cv2.imread(picture).shape == (500, 800, 3)

    # The next run takes the next number in both folders, and can be resumed.
    status, output = try_rates(tmp_path, narrow_file)
    assert status == 0 and '--resume=2 continues' in output, output
    status, output = try_rates(tmp_path, narrow_file, '--resume=True', '--num_epochs=2')
    assert status == 0 and '/2/model_epoch1.ckpt' in output, output
    assert 'Warning: find_rate' not in output
    assert sorted(os.listdir(str(tmp_path / 'new' / 'checkpoints'))) == ['2']
    assert sorted(os.listdir(str(tmp_path / 'log'))) == ['1', '2']


@unless_old
def test_signal_ends_it_and_leaves_nothing(tmp_path, narrow_network, narrow_file,
                                           monkeypatch):
    monkeypatch.setattr(rate_finder, 'has_exploded', lambda losses: os.kill(
        os.getpid(), signal.SIGINT))
    status, output = try_rates(tmp_path, narrow_file, '--find_rate=True')
    assert status == 130 and 'Traceback' not in output, output
    assert not files(tmp_path / 'new') and not files(tmp_path / 'log')


@unless_old
def test_picture_that_cannot_be_written_is_a_warning(tmp_path, narrow_network,
                                                     narrow_file, monkeypatch):
    def fail(losses):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(rate_finder, 'draw_rates', fail)
    status, output = try_rates(tmp_path, narrow_file, '--find_rate=True')
    assert status == 0 and 'try --learning_rate' in output, output
    assert 'Warning: there is no picture of the curve: OSError: [Errno 28]' in output


@pytest.mark.parametrize('resume', ['True', '3', 'old.ckpt'])
def test_rates_for_a_run_to_go_on_are_refused(tmp_path, resume):
    status, output = finetune(str(tmp_path), '--find_rate=True', '--resume=' + resume)
    assert status == 2 and not files(tmp_path)
    assert output == ('find_rate = True tries rates for a new run: leave out resume\n')
