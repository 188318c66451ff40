"""The README's recipes: each applies, has its effect, resumes exactly, and predicts."""
import os
import re
import shutil
import sys

import numpy as np
import pytest

from helpers import ROOT, files, outputs_in, run_program, same, summaries, tensors
from machinery.tf1 import tf

JOB = ['--num_epochs=2', '--batch_size=4', "--train_layers=['fc8']", '--dropout_rate=0',
       '--learning_rate=0.01', '--horizontal_flip=False']


def read_recipes():
    """Return {what it is for: [(text to replace, text to put there)]} of the README."""
    with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
        table = file.read().split('| to have | replace | with |\n')[1].split('\n\n')[0]
    recipes = {}
    for row in table.splitlines()[1:]:
        title, old, new = [cell.strip() for cell in row.strip('|').split('|')]
        if title:
            edits = recipes[title] = []
        edits.append((old.strip('`'), '\n'.join(re.findall('`(.*?)`', new))))
    return recipes


RECIPES = read_recipes()


class Edited:
    """Copies of the scripts in a folder, in which a recipe may have been followed."""

    def __init__(self, folder, lists, monkeypatch, edits=()):
        self.folder, self.lists = folder, lists
        for name in ['alexnet.py', 'datagenerator.py', 'finetune.py', 'predict.py']:
            shutil.copy(os.path.join(ROOT, name), str(folder))
            monkeypatch.delitem(sys.modules, name[:-3], raising=False)
        monkeypatch.syspath_prepend(str(folder))
        for old, new in edits:
            [name] = [name for name in ['finetune.py', 'alexnet.py']
                      if old in (folder / name).read_text(encoding='utf-8')]
            text = (folder / name).read_text(encoding='utf-8')
            assert text.count(old) == 1, old
            indent = re.search('\n( *)[^\n]*' + re.escape(old), text).group(1)
            (folder / name).write_text(
                text.replace(old, new.replace('\n', '\n' + indent)), encoding='utf-8')

    def finetune(self, name, *arguments):
        """Run finetune.py; return the folder of its output, and its output."""
        out = self.folder / name
        status, output = run_program(str(self.folder / 'finetune.py'), *(
            JOB + self.lists + outputs_in(out) + list(arguments)))
        assert status == 0, output
        return str(out), output


@pytest.fixture(scope='module')
def lists(module_path, start_file):
    """Arguments for lists of 12 pictures, and for the weights."""
    for name, first in [('train', 0), ('val', 4)]:
        with open(os.path.join(ROOT, 'images', name + '.txt')) as file:
            lines = file.readlines()
        chosen = [lines[first + step * len(lines) // 12] for step in range(11)]
        (module_path / (name + '.txt')).write_text(''.join(
            os.path.join(ROOT, 'images', line) for line in chosen + lines[-1:]))
    return ['--train_file=%s' % (module_path / 'train.txt'),
            '--val_file=%s' % (module_path / 'val.txt'), '--weights_path=' + start_file]


@pytest.fixture
def edited(tmp_path, lists, monkeypatch):
    """Return a function that makes the scripts with some edits."""
    monkeypatch.chdir(tmp_path)
    return lambda edits=(): Edited(tmp_path, lists, monkeypatch, edits)


def variables(out, epoch=2):
    return tensors('%s/new/checkpoints/model_epoch%d.ckpt' % (out, epoch))


@pytest.fixture(scope='module')
def plain(module_path, lists):
    """What the scripts do as they are: the output folder."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = module_path / 'plain'
        folder.mkdir()
        return Edited(folder, lists, monkeypatch).finetune('out')[0]


def update(out):
    """Return how far fc8 went in the second epoch."""
    first, second = [variables(out, epoch)['fc8/weights'][0] for epoch in (1, 2)]
    return np.linalg.norm(second - first)


def has_momentum(out, plain):
    assert any(name.endswith('/Momentum') for name in variables(out))


def has_adam(out, plain):
    assert {'fc8/weights/Adam', 'fc8/weights/Adam_1'} < set(variables(out))


def has_smaller_weights(out, plain):
    small, large = [np.linalg.norm(variables(one)['fc8/weights'][0])
                    for one in (out, plain)]
    assert small < large


def has_falling_rate(out, plain):
    rates = [value for _, tag, value in summaries(out, 'train')
             if tag == 'learning_rate']
    np.testing.assert_allclose(rates, [0.01, 0.005])


def has_larger_updates(out, plain):
    assert 5 < update(out) / update(plain) < 20


def has_other_weights(out, plain):
    assert not same(variables(out), variables(plain))


def has_new_score(out, plain):
    for run in ('train', 'validation'):
        assert 'top_2' in {tag for _, tag, _ in summaries(out, run)}


def has_narrow_layer(out, plain):
    assert variables(out)['fc8/weights'][0].shape == (256, 3)


EFFECTS = {
    'momentum': has_momentum, 'Adam': has_adam, 'an L2 penalty': has_smaller_weights,
    'a rate that falls': has_falling_rate,
    'fc8 learning ten times faster': has_larger_updates,
    'a weight for each class': has_other_weights,
    'brightness jitter': has_other_weights,
    'one more score': has_new_score, 'fc7 with 256 units': has_narrow_layer}


def test_every_recipe_is_tested():
    assert set(RECIPES) == set(EFFECTS) | {'early stopping', 'batches of your own'}


@pytest.mark.parametrize('title', sorted(EFFECTS))
def test_recipe(title, edited, plain):
    scripts = edited(RECIPES[title])
    fresh = ["--skip_layers=['fc7','fc8']"] if 'fc7' in title else []
    out, output = scripts.finetune('out', '--display_step=1', *fresh)
    EFFECTS[title](out, plain)
    best = max(float(value) for value in re.findall('validation .*?accuracy ([0-9.]+)',
                                                    output.split('Best:')[0]))
    status, predicted = run_program(
        str(scripts.folder / 'predict.py'), scripts.lists[1].split('=')[1],
        '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0 and 'Accuracy: %.4f of 12' % best in predicted, predicted
    resumed, output = scripts.finetune(
        'resumed', '--resume=%s/new/checkpoints/model_epoch1.ckpt' % out)
    assert 'Warning: ' not in output.split('Epoch')[0]
    assert same(variables(resumed), variables(out))
    shutil.rmtree(str(scripts.folder))


def test_early_stopping(edited):
    """As no epoch is better than the first."""
    _, output = edited(RECIPES['early stopping']).finetune(
        'out', '--num_epochs=9', '--learning_rate=1e-30')
    assert 'Epoch 6/9' in output and 'Epoch 7/9' not in output


MINE = '''
import numpy as np
from datagenerator import ImageDataGenerator
from machinery.own_batches import DatasetBatches

def batches(path, shuffle):
    data = ImageDataGenerator(path, mode='training', batch_size=4, num_classes=3,
                              shuffle=shuffle)
    return DatasetBatches(data.data, data.data_size)

class Train:
    def __init__(self):
        self._data = ImageDataGenerator(%r, shuffle=True, nb_classes=3)
        self.data_size = self._data.data_size
        self.reset_pointer, self.next_batch = (
            self._data.reset_pointer, self._data.next_batch)

def Val():
    return batches(%r, False)
'''


def test_batches_of_your_own(edited):
    """From an object, and from tf.data; the same ones have the same effect."""
    same_start = '--skip_layers=[]'  # the seeds of fresh layers depend on the graph
    expected = variables(edited().finetune('expected', same_start)[0])
    scripts = edited(RECIPES['batches of your own'])
    train_file, val_file = [path.split('=')[1] for path in scripts.lists[:2]]
    (scripts.folder / 'mine.py').write_text(MINE % (train_file, val_file))
    out, output = scripts.finetune('out', same_start, '--export_path=served')
    assert output.count('Batches of your own: no check of pictures') == 1
    assert 'own, but pictures are now prepared as load_image does' in output
    found = variables(out)
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_allclose(found[name][0], expected[name][0], 0, 1e-6)
    tags = {tag for _, tag, _ in summaries(out, 'validation')}
    assert 'confusion_matrix' in tags and 'worst_mistakes' not in tags

    text = (scripts.folder / 'mine.py').read_text()
    for old, new, message, is_saved in [
            ("def Val():", "Val = Train\n\ndef Train():", 'Best:', True),
            ('data.data_size)', '13)', 'The dataset has fewer than data_size', True),
            ('self._data.next_batch)', 'lambda size: 2 * [np.zeros((size, 3))])',
             'expected (n, 227, 227, 3) and (n, classes)', False)]:
        assert text.count(old) == 1
        (scripts.folder / 'mine.py').write_text(text.replace(old, new))
        sys.modules.pop('mine')
        status, output = run_program(str(scripts.folder / 'finetune.py'), *(
            JOB + scripts.lists + outputs_in(scripts.folder / 'x')))
        assert status == (0 if message == 'Best:' else 2) and message in output, output
        assert ('model_epoch1' in str(files(scripts.folder / 'x'))) == is_saved
        shutil.rmtree(str(scripts.folder / 'x'))
    sys.modules.pop('mine')


def test_nearest_neighbours(edited, plain):
    with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
        code = re.search("`(f = np.load.*?)`", file.read()).group(1)
    scripts = edited()
    picture = os.path.join(ROOT, 'images', 'textures', 'brick', 'train_01.jpg')
    again = str(scripts.folder / 'again.jpg')
    shutil.copy(picture, again)
    status, output = run_program(
        str(scripts.folder / 'predict.py'), picture, os.path.join(ROOT, 'images'),
        again, '--layer=fc7', '--checkpoint=%s/new/checkpoints' % plain)
    assert status == 0, output
    lines = []
    exec(code, {'np': np, 'print': lines.append})
    assert set(lines[0][:2]) <= {picture, again}  # the folder holds it, too
    assert len(lines[0]) == 5


def test_another_optimizer_is_noticed_when_resuming(edited, plain):
    checkpoint = '--resume=%s/new/checkpoints/model_epoch1.ckpt' % plain
    scripts = edited(RECIPES['momentum'])
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'a') + [checkpoint]))
    assert status == 2 and 'Momentum: expected shape' in output
    out, _ = scripts.finetune('out')
    checkpoint = '--resume=%s/new/checkpoints/model_epoch1.ckpt' % out
    path = scripts.folder / 'finetune.py'
    path.write_text(path.read_text().replace('MomentumOptimizer(rate, 0.9)',
                                             'MomentumOptimizer(rate, 0.5)'))
    assert "Warning: optimizer was {'momentum': 0.9, " in scripts.finetune(
        'b', checkpoint)[1]
    path.write_text(path.read_text().replace('MomentumOptimizer(rate, 0.5)',
                                             'GradientDescentOptimizer(rate)'))
    assert 'fc8/weights/Momentum, for which there is no use now' in scripts.finetune(
        'c', checkpoint)[1]


def test_best_may_be_the_lowest_of_a_score(edited):
    scripts = edited()
    out, output = scripts.finetune('out', '--best_by=-cross_entropy')
    told = output.split('Best:')[0]
    losses = [float(text) for text in
              re.findall('validation cross_entropy ([0-9.]+)', told)]
    assert 'of epoch %d, validation cross_entropy %.4f\n' % (
        1 + np.argmin(losses), min(losses)) in output
    for arguments, message in [
            (['--best_by=top_1'], "best_by is 'top_1', must be one of cross_entropy"),
            (['--resume=%s/new/checkpoints/model_epoch1.ckpt' % out],
             'best_by was -cross_entropy, now it is accuracy')]:
        status, output = run_program(str(scripts.folder / 'finetune.py'), *(
            JOB + scripts.lists + outputs_in(scripts.folder / 'x') + arguments))
        assert status == 2 and message in output, output


def test_layer_of_a_name_of_its_own_is_an_edit_of_one_file(edited, plain):
    """fc9 behind fc8, in the table and in create(), and nowhere else."""
    scripts = edited([
        ("'fc8': 'fc7'}", "'fc8': 'fc7', 'fc9': 'fc8'}"),
        ("self.fc8 = fc(self.dropout7, 4096, self.NUM_CLASSES, 'fc8', relu=False)",
         "self.fc8 = fc(self.dropout7, 4096, 10, 'fc8')\n"
         "self.fc9 = fc(self.fc8, 10, self.NUM_CLASSES, 'fc9', relu=False)")])
    served = str(scripts.folder / 'served')
    out, output = scripts.finetune(
        'out', "--train_layers=['fc8','fc9']", '--export_path=' + served)
    assert variables(out)['fc9/weights'][0].shape == (10, 3)
    best = max(re.findall('validation .*?accuracy ([0-9.]+)', output.split('Best:')[0]))
    status, output = run_program(
        str(scripts.folder / 'predict.py'), scripts.lists[1].split('=')[1],
        '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0 and 'Accuracy: %s of 12' % best in output, output
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, ['serve'], served)
        with open(os.path.join(ROOT, 'images', 'cat.jpg'), 'rb') as file:
            found = session.run('TopKV2:0', {'pictures:0': [file.read()]})
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
