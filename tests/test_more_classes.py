"""A network that starts from one that was trained for other classes."""
import os
import re
import shutil

import numpy as np
import pytest

import datagenerator
from helpers import (ROOT, checkpoint_of, finetune, run_program, same,
                     tensors, unless_old)
from machinery.labels import KINDS, Numbers
from machinery.last_layer import fit_last_layer, warn_of_other_pictures
from machinery.model_file import write_model
from machinery.weights import read_weights

JOB = ['--batch_size=8', '--num_epochs=1']
STILL = JOB + ['--learning_rate=1e-30']  # so that the checkpoint has what was loaded


@pytest.fixture(scope='module', autouse=True)
def start_of_the_job(narrow_network, features_path):
    JOB.append('--features_path=' + features_path)
    STILL.append('--features_path=' + features_path)


@pytest.fixture(scope='module')
def trained(module_path, narrow_file):
    """The output folder of a run that has trained brick, grass and gravel."""
    status, output = finetune(
        str(module_path), *JOB, '--weights_path=' + narrow_file,
        '--train_file=images/test.txt', '--val_file=images/test.txt')
    assert status == 0, output
    return module_path


@pytest.fixture
def more(tmp_path):
    """Arguments for a list of three classes, of which two are known: in new places."""
    names = {'0': 'brick', '1': 'cat', '2': 'gravel'}
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        lines = [line.split() for line in list(file)[::3]]
    (tmp_path / 'more.txt').write_text(''.join('%s %s\n' % (
        os.path.join(ROOT, 'images', path), names[label]) for path, label in lines))
    (tmp_path / 'names.txt').write_text('gravel\ncat\nbrick\n')
    return ['--%s=%s' % (name, tmp_path / path) for name, path in [
        ('train_file', 'more.txt'), ('val_file', 'more.txt'),
        ('classes_file', 'names.txt')]]


def start(folder, arguments, *more):
    """Run finetune.py; return the variables of its checkpoint, and its output."""
    status, output = finetune(str(folder), *STILL, *arguments, *more)
    assert status == 0, output
    return tensors(checkpoint_of(folder, 1)), output


def row(output, layer):
    """Return how a layer starts, by the table that is printed."""
    pattern = r'^%s +[\dx ]+ ([a-z ]+?) +(?:trained|frozen)$' % layer
    [found] = re.findall(pattern, output, re.M)
    return found


def test_classes_are_known_by_their_names(trained, more, tmp_path):
    source = str(trained / 'new/checkpoints')
    found, output = start(tmp_path, more, '--weights_path=' + source)
    assert ('fc8 is loaded from %s/1/model_best.ckpt by the names of the classes.\n'
            'Kept: gravel, brick; new: cat; gone: grass\n' % source) in output
    assert [row(output, layer) for layer in ('fc6', 'fc7', 'fc8')] == [
        'loaded', 'loaded', 'by name']
    before = read_weights(source)
    assert same({'fc7': found['fc7/weights']}, {'fc7': before['fc7'][:1]})
    [weights], [biases] = found['fc8/weights'], found['fc8/biases']
    np.testing.assert_array_equal(weights[:, [2, 0]], before['fc8'][0][:, [0, 2]])
    np.testing.assert_array_equal(biases[[2, 0]], before['fc8'][1][[0, 2]])
    assert abs(before['fc8'][1]).min() > 1e-9 > abs(biases[1])
    assert 0.1 < weights[:, 1].std() < 0.2  # Glorot's, sqrt(2 / (64 + 3)), is 0.17

    # The run that began like this is resumed like any other.
    status, output = finetune(str(tmp_path), *STILL, *more, '--num_epochs=2',
                              '--resume=True', '--weights_path=' + source)
    assert status == 0 and row(output, 'fc8') == 'loaded', output
    assert same({'fc8': tensors(checkpoint_of(tmp_path, 2))['fc8/weights']},
                {'fc8': [weights]})


@unless_old
def test_a_file_made_of_a_checkpoint_is_the_same(trained, more, tmp_path):
    checkpoint = checkpoint_of(trained, 'best')
    path = str(tmp_path / 'my.npy')
    assert run_program('alexnet.py', checkpoint, path)[0] == 0
    expected, _ = start(tmp_path / 'a', more, '--weights_path=' + checkpoint)
    found, output = start(tmp_path / 'b', more, '--weights_path=' + path)
    assert same(found, expected) and row(output, 'fc8') == 'by name'

    # Without names of classes, it is like any other weight file.
    os.remove(str(tmp_path / 'my.json'))
    found, output = start(tmp_path / 'c', more, '--weights_path=' + path)
    assert row(output, 'fc7') == row(output, 'fc8') == 'fresh'
    assert not np.array_equal(found['fc7/weights'], expected['fc7/weights'])


@unless_old
def test_layers_to_skip_are_obeyed(trained, more, tmp_path):
    source = '--weights_path=' + checkpoint_of(trained, 'best')
    found, output = start(tmp_path, more, source, '--skip_layers=fc8')
    assert row(output, 'fc7') == 'loaded' and row(output, 'fc8') == 'fresh'
    assert 'Kept' not in output and abs(found['fc8/biases'][0]).max() < 1e-9


def test_damage_is_named_before_the_graph_is_built(trained, more, tmp_path):
    source = tmp_path / '7'
    shutil.copytree(str(trained / 'new/checkpoints/1'), str(source))
    (source / 'model.json').write_text('{"class_names": 3}')
    status, output = finetune(str(tmp_path), *STILL, *more, '--skip_layers=fc8',
                              '--weights_path=%s' % source)
    assert status == 2 and 'Device' not in output
    assert '%s/model.json: damaged (class_names is 3)' % source in output


@unless_old
def test_other_preparation_of_pictures_is_told(trained, more, tmp_path, monkeypatch):
    source, normalize = checkpoint_of(trained, 'best'), datagenerator.normalize
    warning = 'Warning: %s was trained on pictures that were prepared in' % source
    _, output = start(tmp_path, more, '--weights_path=' + source)
    assert warning not in output
    monkeypatch.setattr(datagenerator, 'normalize',
                        lambda images, *mean: normalize(images, *mean)[..., ::-1])
    _, output = start(tmp_path, more, '--weights_path=' + source)
    assert warning in output


@pytest.mark.parametrize('resize, is_told', [('squash', True), ('crop', False)])
def test_another_way_to_resize_is_a_setting(tmp_path, capsys, resize, is_told):
    write_model(str(tmp_path / 'w.json'), {'class_names': ['a', 'b'], 'preprocessing': {
        'size': [227, 227], 'margin': 0, 'reducing_gap': 2., 'test': [1., 2.]}})
    warn_of_other_pictures(str(tmp_path / 'w.npy'), {
        'margin': 0, 'reducing_gap': 2., 'resize': resize, 'test': [1., 9.]})
    assert ('prepared in another way' in capsys.readouterr().out) == is_told


def fit(tmp_path, then, now, labels='class', facts={}):
    """Fit a layer of [[1, 2, ...]] * 2, biases the same, to zeros."""
    path = str(tmp_path / 'w.npy')
    write_model(str(tmp_path / 'w.json'), dict(facts, class_names=then))
    columns = 1. + np.arange(len(then))
    (weights, biases), how = fit_last_layer(
        path, 'fc8', [np.stack([columns, columns]), columns],
        [np.zeros((2, len(now)), 'f4'), np.zeros(len(now), 'f4')], KINDS[labels](now))
    assert (weights == biases).all() and len(weights) == 2
    return biases.tolist(), how


@pytest.mark.parametrize('then, now, expected, how, told', [
    ('a b c', 'a b c', [1, 2, 3], 'loaded', ''),
    ('a b c', 'c a b', [3, 1, 2], 'by name', 'Kept: c, a, b; new: -; gone: -\n'),
    ('a b', 'b x a', [2, 0, 1], 'by name', 'Kept: b, a; new: x; gone: -\n'),
    ('a b c', 'b a', [2, 1], 'by name', 'Kept: b, a; new: -; gone: c\n'),
    ('a b', 'A x', [0, 0], 'fresh', 'w.npy: it has none of the classes\n'),
    ('0 1', '0 1', [1, 2], 'loaded', ''),
    ('0 1', 'b 0', [1, 2], 'loaded', 'since the classes of that have no names\n'),
    ('a b', '0 1', [1, 2], 'loaded', 'since the classes of this run have no names\n'),
    ('0 1 2', '0 1', [0, 0], 'fresh', 'it has 3 classes, this run has 2, and not all'),
    ('2 1', '1 2 3', [2, 1, 0], 'by name', 'Kept: 1, 2; new: 3; gone: -\n')])
def test_columns_of_the_last_layer(tmp_path, capsys, then, now, expected, how, told):
    assert fit(tmp_path, then.split(), now.split()) == (expected, how)
    output = capsys.readouterr().out
    assert told in output and (told != '') == output.startswith('fc8 ')


def test_columns_for_labels_of_another_kind_start_fresh(tmp_path, capsys):
    assert fit(tmp_path, ['a', 'b'], ['a', 'b'], 'classes') == ([0, 0], 'fresh')
    assert "trained with labels = 'class'\n" in capsys.readouterr().out
    assert fit(tmp_path, ['a', 'b'], ['b', 'a'], 'classes', {'labels': 'classes'}) == (
        [2, 1], 'by name')


@pytest.mark.parametrize('now', [['age', 'height'], ['height', 'weight', 'age']])
def test_numbers_keep_their_units(tmp_path, now):
    """What the loaded columns predict is the same with another mean and deviation."""
    then, path = Numbers(['age', 'height'], [30, 2], [10, 0.5]), str(tmp_path / 'w.npy')
    write_model(str(tmp_path / 'w.json'), dict(then.facts(), class_names=then.names))
    kind = Numbers(now, [40, 1, 33][:len(now)], [5, 4, 7][:len(now)])
    rng = np.random.RandomState(0)
    weights, biases = rng.randn(6, 2), rng.randn(2)
    x = rng.randn(9, 6)
    found, _ = fit_last_layer(path, 'fc8', [weights, biases],
                              [np.zeros((6, len(now))), np.zeros(len(now))], kind)
    before, after = [kind.outputs(x @ pair[0] + pair[1]) for kind, pair in (
        (then, (weights, biases)), (kind, found))]
    np.testing.assert_allclose(after[:, [now.index('age'), now.index('height')]],
                               before, 1e-4)


def test_many_classes_are_told_in_short(tmp_path, capsys):
    then = ['class %d' % number for number in range(1000)]
    fit(tmp_path, then, then[::-1] + ['x\n'])
    output = capsys.readouterr().out
    assert len(output) < 600 and 'class 980, and 980 more; new: x\\n;' in output
