"""The recipes in docs: each applies, and has its effect; see also edits.py."""
import csv
import json
import os
import re
import shutil
import sys

import cv2
import numpy as np
import pytest

from helpers import (IS_OLD, ROOT, all_checkpoints_kept, checkpoint_of, outputs_in,
                     run_program, same, summaries, tensors, unless_old)
from machinery.checkpoint_files import list_checkpoints
from machinery.labels import OneClass
from machinery.lists import read_list
from machinery.tf1 import tf
from recipes import NARROW, SCRIPTS, copy_scripts, make_narrow, read_recipes

pytestmark = pytest.mark.usefixtures('narrow_network')
JOB = ['--num_epochs=2', '--batch_size=4', "--train_layers=['fc8']", '--dropout_rate=0',
       '--learning_rate=0.01', '--horizontal_flip=False']
RECIPES = read_recipes()


def block(title, language):
    """Return the only block of code of a language in a recipe."""
    [code] = re.findall('```%s\n(.*?)```' % language, RECIPES[title], re.S)
    return code


class Edited:
    """Copies of the scripts in a folder, in which a recipe may have been followed.

    The network is narrow: its checkpoints have 5 MB, not 230.

    Args:
        edits: pairs of code to replace, and what replaces it.
    """

    def __init__(self, folder, lists, monkeypatch, title=None, edits=()):
        self.folder, self.lists = folder, lists
        for name in SCRIPTS:
            monkeypatch.delitem(sys.modules, name[:-3], raising=False)
        monkeypatch.syspath_prepend(str(folder))
        copy_scripts(str(folder), block(title, 'diff') if title else None)
        for old, new in edits:
            self.replace('alexnet.py', old, new)
        make_narrow(str(folder))

    def replace(self, name, old, new):
        """Edit a script."""
        text = (self.folder / name).read_text(encoding='utf-8')
        assert text.count(old) == 1, old
        (self.folder / name).write_text(text.replace(old, new), encoding='utf-8')

    def finetune(self, name, *arguments, draws=False):
        """Run finetune.py; return the folder of its output, and its output."""
        out = self.folder / name
        with all_checkpoints_kept() as keep:
            status, output = run_program(str(self.folder / 'finetune.py'), *(
                JOB + outputs_in(out) + self.lists + keep + list(arguments)),
                draws=draws)
        assert status == 0, output
        return str(out), output


@pytest.fixture(scope='module')
def lists(module_path, narrow_file, features_path):
    """Arguments for lists of 12 pictures, for a narrow network, and for a store."""
    for name, first in [('train', 0), ('val', 4)]:
        with open(os.path.join(ROOT, 'images', name + '.txt')) as file:
            lines = file.readlines()
        chosen = [lines[first + step * len(lines) // 12] for step in range(11)]
        (module_path / (name + '.txt')).write_text(''.join(
            os.path.join(ROOT, 'images', line) for line in chosen + lines[-1:]))
    return ['--train_file=%s' % (module_path / 'train.txt'),
            '--val_file=%s' % (module_path / 'val.txt'),
            '--weights_path=' + narrow_file, '--features_path=' + features_path]


@pytest.fixture
def edited(tmp_path, lists, monkeypatch):
    """Return a function that makes the scripts with some edits."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: Edited(tmp_path, lists, monkeypatch, *args)


def variables(out, epoch=2):
    return tensors(checkpoint_of(out, epoch))


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
    """At a tenth of the rate, fc8 goes as far as without the recipe."""
    np.testing.assert_allclose(update(out), update(plain), rtol=1e-3)


def has_other_weights(out, plain):
    assert not same(variables(out), variables(plain))


def has_new_score(out, plain):
    for run in ('train', 'validation'):
        assert 'top_2' in {tag for _, tag, _ in summaries(out, run)}


def has_narrow_layer(out, plain):
    assert variables(out)['fc8/weights'][0].shape == (256, 3)


def is_chosen_by_the_loss(out, plain):
    losses = [value for _, tag, value in summaries(out, 'validation')
              if tag == 'cross_entropy']
    assert same(tensors(checkpoint_of(out, 'best')),
                variables(out, 1 + np.argmin(losses)))
    with open(out + '/new/checkpoints/1/model.json') as file:
        assert json.load(file)['best_by'] == 'negative_loss'


EFFECTS = {
    'Momentum': has_momentum, 'Adam': has_adam, 'An L2 penalty': has_smaller_weights,
    'A rate that falls': has_falling_rate,
    'fc8 learning ten times faster': has_larger_updates,
    'A weight for each class': has_other_weights,
    'Brightness jitter': has_other_weights, 'One more score': has_new_score,
    'The lowest loss is the best': is_chosen_by_the_loss,
    'fc7 with 256 units': has_narrow_layer}


def has_smaller_updates(out, plain):
    assert update(out) < 0.9 * update(plain)


def has_warm_up(out, plain):
    rates = [value for _, tag, value in summaries(out, 'train')
             if tag == 'learning_rate']
    np.testing.assert_allclose(rates, [0.01 * 3 / 100, 0], rtol=1e-5, atol=1e-9)


def has_averages(out, plain):
    """The best checkpoint has them; training goes on as without them."""
    for name in ('fc8/weights', 'fc8/biases'):
        assert np.array_equal(variables(out)[name], variables(plain)[name])
    best = tensors(checkpoint_of(out, 'best'))
    average = best['fc8/weights/ExponentialMovingAverage'][0]
    assert np.array_equal(best['fc8/weights'][0], average)
    assert not np.array_equal(average, variables(out, 1)['fc8/weights'][0])


def has_table(out, plain):
    with open('scores.csv') as file:
        rows = list(csv.DictReader(file))
    assert [(row['run'], row['epoch'], row['step']) for row in rows] == [
        ('1', '1', '3'), ('1', '2', '6')]
    assert [float(row['accuracy']) for row in rows] == pytest.approx([
        value for _, tag, value in summaries(out, 'validation') if tag == 'accuracy'])


def has_statistics(out, plain):
    found = variables(out, 1)
    for name, start in [('moving_mean', 0), ('moving_variance', 1), ('gamma', 1)]:
        assert (found['conv1/' + name][0] != start).any()


def has_layers_of_its_own(out, plain):
    found = variables(out, 1)
    assert found['conv5_2/weights'][0].shape == (3, 3, 64, 64)
    assert 'conv1/weights' not in found


def has_one_channel(out, plain):
    assert variables(out, 1)['conv1/weights'][0].shape == (11, 11, 1, 24)


def has_larger_pictures(out, plain):
    with open(out + '/new/checkpoints/1/model.json') as file:
        assert json.load(file)['preprocessing']['size'] == [384, 384]
    assert variables(out, 1)['fc6/weights'][0].shape == (9216, 64)


# Of these, edits.py also sees that they resume and predict.
SHORT = {
    'Warm-up, then a cosine': has_warm_up, 'Label smoothing': has_other_weights,
    'Gradient clipping': has_smaller_updates, 'Rotation': has_other_weights,
    'A moving average of the weights': has_averages, 'Mixup': has_other_weights,
    'A table of the scores': has_table, 'Batch normalisation': has_statistics,
    'A network of your own': has_layers_of_its_own, 'Grey pictures': has_one_channel,
    'RGB with mean and deviation': has_other_weights,
    'Pictures of 384 x 384 pixels': has_larger_pictures}
FROM_CONV1 = ['--train_layers=conv1,fc8', '--dropout_rate=0.5', '--num_epochs=1']


def test_networks_of_recipes_can_be_made_narrow():
    with open(os.path.join(ROOT, 'alexnet.py'), encoding='utf-8') as file:
        text = file.read()
    assert [width for width in NARROW if width not in text] == []


@pytest.mark.parametrize('title', [
    'A moving average of the weights', 'Batch normalisation', 'Mixup',
    'Rotation'] if IS_OLD else sorted(SHORT))
def test_short(title, edited, plain):
    arguments = {
        'Batch normalisation': FROM_CONV1, 'Grey pictures': FROM_CONV1,
        'Pictures of 384 x 384 pixels': ['--num_epochs=1'],
        'A network of your own': ['--num_epochs=1', '--weights_path=None',
                                  '--train_layers=conv5_2,fc8']}.get(title, [])
    scripts = edited(title)
    out, _ = scripts.finetune('out', *arguments, draws=True)
    SHORT[title](out, plain)
    shutil.rmtree(str(scripts.folder))


@unless_old
def test_fc7_frozen_after_an_epoch(edited):
    scripts = edited('fc7 frozen after epoch 3')
    scripts.replace('finetune.py', 'epoch <= 3', 'epoch <= 1')
    out, _ = scripts.finetune('out', '--train_layers=fc7,fc8')
    first, second = variables(out, 1), variables(out)
    moved = {name for name in first if not np.array_equal(first[name], second[name])}
    assert moved == {'fc8/weights', 'fc8/biases', 'global_step', 'progress'}


@unless_old
def test_validation_every_two_steps(edited):
    scripts = edited('Validation every 100 steps')
    scripts.replace('finetune.py', 'step % 100', 'step % 2')
    out, _ = scripts.finetune('out')
    assert [step for step, tag, _ in summaries(out, 'validation')
            if tag == 'accuracy'] == [2, 3, 4, 6, 6]


@unless_old
@pytest.mark.parametrize('title, script, last', [
    ('Five folds', 'folds.py', 'Mean: [01]'),
    ('Five learning rates', 'sweep.py', 'learning_rate 0.03: best score [01]')])
def test_five_runs_in_one_process(title, script, last, edited):
    scripts = edited(title)
    # Two of them show what all would.
    path, text = scripts.folder / script, (scripts.folder / script).read_text()
    path.write_text(text.replace('[0.0003, 0.001, 0.003, 0.01, 0.03]', '[0.01, 0.03]')
                    .replace('range(5)', 'range(2)'))
    shutil.copy(scripts.lists[0].split('=')[1], str(scripts.folder / 'all.txt'))
    status, output = run_program(
        str(scripts.folder / script), *(['all.txt'] if script == 'folds.py' else []),
        *JOB, *scripts.lists, *outputs_in(scripts.folder / 'out'), '--num_epochs=1')
    assert status == 0 and re.match(last, output.splitlines()[-1]), output
    assert len(os.listdir(str(scripts.folder / 'out' / 'new' / 'checkpoints'))) == 2


@pytest.mark.parametrize('title, edit, arguments, message', [
    (None, ('variables), global_step)', 'variables))'), [],
     'changed global_step: give it to apply_gradients'),
    (None, ('    train_op = ', '    train_op = tf.train.ExponentialMovingAverage(0.9)'
            '.apply(variables)\n    train_op = '), [],
     'moving averages, like fc8/weights/ExponentialMovingAverage, but nothing uses'),
    (None, ('x = normalize(pictures)', 'share = tf.placeholder_with_default(1., [])\n'
            'x = share * normalize(pictures)'), [],
     'The frozen layers depend on PlaceholderWithDefault'),
    ('Mixup', ('cache_features = False', 'cache_features = True'), [],
     'Mixup overrides batches'),
    ('Batch normalisation', ("KEEP_PROB < 1, 'conv1'", "KEEP_PROB < 1, 'bn1'"),
     FROM_CONV1, 'Nothing trains the variable bn1/'),
    ('Batch normalisation', None, FROM_CONV1[:1], 'changed conv1/moving_mean')])
def test_what_an_edit_forgets_is_named(title, edit, arguments, message, edited):
    scripts = edited(title)
    if edit:
        scripts.replace('alexnet.py' if 'KEEP' in edit[0] else 'finetune.py', *edit)
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'out') + arguments))
    assert status == 2 and message in output, output
    assert 'Traceback' not in output and 'Epoch 2' not in output


def test_every_recipe_is_tested():
    assert set(RECIPES) == set(EFFECTS) | set(SHORT) | {
        'fc7 frozen after epoch 3', 'Validation every 100 steps', 'Five folds',
        'Five learning rates',
        'As many pictures of each class', 'Early stopping', 'Folds',
        'Batches of your own', 'One more class', 'Predict from your own program',
        'A camera', 'None of these'}


@pytest.mark.parametrize('title', sorted(EFFECTS))
def test_recipe(title, edited, plain):
    scripts = edited(title)
    arguments = {
        'fc7 with 256 units': ["--skip_layers=['fc7','fc8']"],
        'fc8 learning ten times faster': ['--learning_rate=0.001']}.get(title, [])
    out, output = scripts.finetune('out', '--display_step=1', *arguments)
    EFFECTS[title](out, plain)
    told, best = output.split('Best:')
    epoch = re.search('of epoch ([0-9]+)', best).group(1)
    best = float(re.search('Epoch %s/2: validation .*?accuracy ([0-9.]+)' % epoch,
                           told).group(1))
    status, predicted = run_program(
        str(scripts.folder / 'predict.py'), scripts.lists[1].split('=')[1],
        '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0 and 'Accuracy: %.4f of 12' % best in predicted, predicted
    resumed, output = scripts.finetune(
        'resumed', '--resume=' + checkpoint_of(out, 1), *arguments)
    assert 'Warning: ' not in output.split('Epoch')[0]
    assert same(variables(resumed), variables(out))
    shutil.rmtree(str(scripts.folder))


def test_early_stopping(edited):
    """As no epoch is better than the first."""
    _, output = edited('Early stopping').finetune(
        'out', '--num_epochs=9', '--learning_rate=1e-30')
    assert 'Epoch 6/9' in output and 'Epoch 7/9' not in output


def test_folds(edited):
    out, output = edited('Folds').finetune('out', draws=True)
    assert 'also in' not in output  # no picture is in both parts
    with open(out + '/log/1/validation/pictures.tsv') as file:
        held_out = [line.split('\t')[1].strip() for line in file][1:]
    paths, _, _ = read_list(edited().lists[0].split('=')[1], OneClass(range(3)))
    assert held_out == paths[::5] and len(paths) == 12
    assert variables(out)['global_step'] == [6]  # 9 pictures in batches of 4, twice


def test_as_many_pictures_of_each_class(edited):
    scripts = edited('As many pictures of each class')
    with open(os.path.join(ROOT, 'images', 'test.txt')) as file:
        lines = [os.path.join(ROOT, 'images', line) for line in file]
    few = [line for label, count in enumerate([6, 2, 1])
           for line in [line for line in lines
                        if line.endswith('%d\n' % label)][:count]]
    path = scripts.folder / 'few.txt'
    path.write_text(''.join(few))
    out, _ = scripts.finetune('out', '--train_file=%s' % path)
    # 6 + 6 + 6 pictures in batches of 4, twice
    assert variables(out)['global_step'] == [10]


MINE = '''
import numpy as np
from datagenerator import ImageDataGenerator
from machinery.batches import DatasetBatches
from machinery.tf1 import tf

class Train:
    def __init__(self):
        self._data = ImageDataGenerator(%r, shuffle=True, nb_classes=3)
        self.data_size = self._data.data_size

    def batches(self, *args):
        return [batch[:2] for batch in self._data.batches(*args)]

def Val():
    data = ImageDataGenerator(%r, nb_classes=3)
    return DatasetBatches(tf.data.Dataset.from_generator(
        lambda: [batch[:2] for batch in data.batches(4)], (tf.uint8, tf.float32)), 12)
'''


def test_batches_of_your_own(edited):
    """From an object, and from tf.data; the same ones have the same effect."""
    same_start = '--skip_layers=[]'  # the seeds of fresh layers depend on the graph
    expected = variables(edited().finetune('expected', same_start)[0])
    scripts = edited('Batches of your own')
    train_file, val_file = [path.split('=')[1] for path in scripts.lists[:2]]
    (scripts.folder / 'mine.py').write_text(MINE % (train_file, val_file))
    scripts.lists = ['--train_file=gone', '--val_file=gone', scripts.lists[2]]
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'x')))
    assert status == 2 and 'num_classes is None, must be an integer if' in output
    scripts.lists.append('--num_classes=3')
    out, output = scripts.finetune('out', same_start, draws=True)
    assert output.count('With your own batches there is no picture check') == 1
    assert same(variables(out), expected)
    tags = {tag for _, tag, _ in summaries(out, 'validation')}
    assert 'confusion_matrix' in tags and 'worst_mistakes' not in tags
    assert 'batch' in {tag for _, tag, _ in summaries(out, 'train')}
    status, output = run_program(str(scripts.folder / 'predict.py'), val_file,
                                 '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0 and 'own, but pictures are now prepared as load_image' in output

    # A fault in the second epoch: the first one is saved.
    scripts.replace('mine.py', '*args):', '*args):\n        if args[1] == 2:\n'
                    '            return [(np.zeros((4, 227, 227, 3)), np.eye(4, 3))]')
    sys.modules.pop('mine')
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'x')))
    assert status == 2 and 'The images are float64, must be uint8' in output, output
    assert 'saved %s' % (scripts.folder / 'x') in output
    sys.modules.pop('mine')


@pytest.mark.parametrize('arguments', [[], ['--weights_path=None']])
def test_batches_of_your_own_as_the_recipe_says(edited, arguments):
    scripts = edited('Batches of your own')
    (scripts.folder / 'mine.py').write_text(block('Batches of your own', 'python'))
    (scripts.folder / 'images').symlink_to(os.path.join(ROOT, 'images'))
    _, output = scripts.finetune('out', '--batch_size=2', '--num_classes=3', *arguments)
    assert 'Epoch 2/2: validation' in output
    sys.modules.pop('mine')


def run_block(title, plain, **replaced):
    """Run the Python code of a recipe on the checkpoints of plain; return its names."""
    code = block(title, 'python').replace('/tmp/finetune_alexnet/checkpoints',
                                          plain + '/new/checkpoints')
    for old, new in replaced.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    names = {}
    exec(code, names)
    return names


def test_predict_from_your_own_program(edited, plain, monkeypatch, capsys):
    edited()
    monkeypatch.chdir(ROOT)
    names = run_block('Predict from your own program', plain)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split(' ')[0] in ('0', '1', '2')
    assert names['activations'].shape == (2, 64)  # it is narrow
    assert names['maps'].shape == (2, 13, 13)
    sys.modules.pop('predict')


def test_a_camera(edited, plain, tmp_path, capsys):
    """A video of ten frames, in a format that OpenCV reads and writes by itself."""
    edited()
    frame = cv2.resize(cv2.imread(os.path.join(ROOT, 'images', 'cat.jpg')), (320, 240))
    path = str(tmp_path / 'video.avi')
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (320, 240))
    assert video.isOpened()
    for _ in range(10):
        video.write(frame)
    video.release()
    run_block('A camera', plain, **{'(0)': '(%r)' % path, '0.6': '0.99'})
    lines = capsys.readouterr().out.splitlines()
    video = cv2.VideoCapture(path)
    frames = [video.read()[1] for _ in range(10)]
    video.release()
    with sys.modules.pop('predict').Classifier(plain + '/new/checkpoints') as classify:
        assert lines == ['unknown %.2f' % ranked[0][1] for ranked in classify(frames)]


def test_none_of_these(edited, plain):
    """The command of the recipe; softmax spreads 1 over the classes, also for noise."""
    scripts = edited()
    [command] = re.findall('`python predict.py photos (.*?)`', RECIPES['None of these'])
    os.mkdir('photos')
    noise = np.random.RandomState(0).randint(0, 256, (227, 227, 3))
    cv2.imwrite('photos/noise.png', noise)
    status, output = run_program(
        str(scripts.folder / 'predict.py'), 'photos', *command.split(' '),
        '--checkpoint=%s/new/checkpoints' % plain)
    assert status == 0, output
    [line] = [line for line in output.splitlines() if 'noise.png: ' in line]
    found = [float(text) for text in re.findall(r' (\d\.\d{4})', line)]
    assert sum(found) == pytest.approx(1, abs=2e-4) and len(found) == 3
    assert ('unknown' in line) == (found[0] < float(command.split(' ')[-1]))


@pytest.mark.parametrize('old, new', [
    ('keep_prob = tf.placeholder', 'y = 0.9 * y + 0.05\nkeep_prob = tf.placeholder'),
    ('x = normalize(pictures)', 'pictures = pictures[:, :, ::-1]\n'
     'x = normalize(pictures)'),
    ('result = session.run(fetches, {fed: features',
     'result = session.run(fetches, {loss: 1, fed: features')])
def test_a_tensor_that_somebody_has_bound_again_is_not_fed(edited, old, new):
    scripts = edited()
    scripts.replace('finetune.py', old, new)
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'out')))
    assert status == 2 and 'y_smooth = 0.9 * y + 0.05' in output, output
    assert 'Traceback' not in output and 'Epoch' not in output


EVERY_TWO_STEPS = """            bar.update(step, result['means'])
            if step % 2 == 0:
                found, _ = evaluate(val_features.batches(batch_size))
                run.save(session, epoch, step=step, accuracy=found['accuracy'],
                         best_values={variables[0]: 0 * session.run(variables[0])})
"""


def test_validation_within_an_epoch_and_other_values_for_the_best(edited):
    """Twelve pictures, three steps in an epoch; model_best has weights of 0."""
    scripts = edited()
    text = (scripts.folder / 'finetune.py').read_text(encoding='utf-8')
    start, end = text.index('        # Score pictures that'), text.index(
        '    run.report()')
    (scripts.folder / 'finetune.py').write_text(text[:start] + '\n' + text[end:],
                                                encoding='utf-8')
    scripts.replace('finetune.py', "            bar.update(step, result['means'])\n",
                    EVERY_TWO_STEPS)
    out, output = scripts.finetune('out', '--num_epochs=3')
    names = ['model_epoch1_step2', 'model_epoch2_step4', 'model_epoch2_step6',
             'model_epoch3_step8', 'model_epoch3_step9']
    folder = out + '/new/checkpoints/1/'
    assert [os.path.basename(path) for path in list_checkpoints(folder)] == [
        name + '.ckpt' for name in names]
    assert (tensors(folder + 'model_best.ckpt')['fc8/weights'][0] == 0).all()
    for name in names:
        assert (tensors(folder + name + '.ckpt')['fc8/weights'][0] != 0).any()
    # Resume keeps the best, and goes on from the values of the last step.
    _, output = scripts.finetune('out', '--num_epochs=3', '--resume=True')
    assert 'Resuming from %smodel_epoch3_step9.ckpt' % folder in output
    assert (tensors(folder + 'model_best.ckpt')['fc8/weights'][0] == 0).all()


def test_nearest_neighbours(edited, plain):
    with open(os.path.join(ROOT, 'docs', 'predict.md'), encoding='utf-8') as file:
        [code] = re.findall('```python\n(.*?)```', file.read(), re.S)
    scripts = edited()
    picture = os.path.join(ROOT, 'images', 'textures', 'brick', 'train_01.jpg')
    again = str(scripts.folder / 'again.jpg')
    shutil.copy(picture, again)
    status, output = run_program(
        str(scripts.folder / 'predict.py'), picture, os.path.dirname(picture),
        again, '--layer=fc7', '--features_file=features.npz',
        '--checkpoint=%s/new/checkpoints' % plain)
    assert status == 0, output
    lines = []
    exec(code, {'print': lines.append})
    assert set(lines[0][:2]) <= {picture, again}  # the folder holds it, too
    assert len(lines[0]) == 5


def test_another_optimizer_is_noticed_when_resuming(edited, plain):
    checkpoint = '--resume=' + checkpoint_of(plain, 1)
    scripts = edited('Momentum')
    status, output = run_program(str(scripts.folder / 'finetune.py'), *(
        JOB + scripts.lists + outputs_in(scripts.folder / 'a') + [checkpoint]))
    assert status == 2 and 'model_epoch1.ckpt has no fc8/biases/Momentum' in output
    out, _ = scripts.finetune('out')
    checkpoint = '--resume=' + checkpoint_of(out, 1)
    path = scripts.folder / 'finetune.py'
    path.write_text(path.read_text().replace('MomentumOptimizer(rate, 0.9)',
                                             'MomentumOptimizer(rate, 0.5)'))
    assert "Warning: optimizer was {'momentum': 0.9, " in scripts.finetune(
        'b', checkpoint)[1]
    path.write_text(path.read_text().replace('MomentumOptimizer(rate, 0.5)',
                                             'GradientDescentOptimizer(rate)'))
    assert 'fc8/weights/Momentum, which this graph does not use' in scripts.finetune(
        'c', checkpoint)[1]


def test_another_score_starts_the_search_for_the_best_again(edited, plain):
    scripts = edited('The lowest loss is the best')
    warning = ('Warning: the best checkpoint was chosen by accuracy, now it is chosen '
               'by negative_loss')
    _, output = scripts.finetune(
        'out', '--resume=' + checkpoint_of(plain, 1))
    assert warning in output and 'of epoch 2, validation negative_loss -' in output
    _, output = scripts.finetune('out', '--resume=True', '--num_epochs=3')
    assert warning not in output


def test_a_layer_of_another_name_is_an_edit_of_one_file(edited, plain):
    """fc9 behind fc8, in the table and in create(), and nowhere else."""
    scripts = edited(None, [
        ("'fc8': 'fc7'}", "'fc8': 'fc7', 'fc9': 'fc8'}"),
        ("self.fc8 = fc(self.dropout7, 4096, self.NUM_CLASSES, 'fc8', relu=False)",
         "self.fc8 = fc(self.dropout7, 4096, 10, 'fc8')\n        "
         "self.fc9 = fc(self.fc8, 10, self.NUM_CLASSES, 'fc9', relu=False)")])
    served = str(scripts.folder / 'served')
    out, output = scripts.finetune('out', "--train_layers=['fc8','fc9']")
    assert variables(out)['fc9/weights'][0].shape == (10, 3)
    best = max(re.findall('validation .*?accuracy ([0-9.]+)', output.split('Best:')[0]))
    status, output = run_program(
        str(scripts.folder / 'predict.py'), scripts.lists[1].split('=')[1],
        '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0 and 'Accuracy: %s of 12' % best in output, output
    status, output = run_program(
        str(scripts.folder / 'predict.py'), '--export_path=' + served,
        '--checkpoint=%s/new/checkpoints' % out)
    assert status == 0, output
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, ['serve'], served)
        with open(os.path.join(ROOT, 'images', 'cat.jpg'), 'rb') as file:
            found = session.run('TopKV2:0', {'pictures:0': [file.read()]})
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
