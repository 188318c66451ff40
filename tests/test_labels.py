"""Kinds of labels: several classes per picture or none, and numbers."""
import csv
import os
import re

import cv2
import numpy as np
import pytest

from datagenerator import ImageDataGenerator
from helpers import (ROOT, checkpoint_of, finetune, outputs_in, run_program,
                     summaries, unless_old)
from machinery.errors import InputError
from machinery.kinds import check_spread, find_kind, read_training_numbers
from machinery.labels import Numbers, OneClass, SeveralClasses
from machinery.lists import labels_in, read_list
from machinery.metrics import average_precision, r_squared
from machinery.model_file import read_model
from machinery.predictions import name_ranked, number_rows, rank
from machinery.summaries import add_summaries
from machinery.tf1 import tf
from predict import Classifier

IMAGES = os.path.join(ROOT, 'images')
CAT = os.path.join(IMAGES, 'cat.jpg')
NAMES = ['ant', 'bee', 'polar bear']


def write(path, text):
    path.write_text(text, encoding='utf-8')
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for name in ['a.jpg', 'b.jpg', 'my photo.jpg', '7.png']:
        write(tmp_path / name, name)
    return tmp_path


def read(folder, text, kind):
    """Return the labels of a list with this text."""
    return read_list(write(folder / 'list.csv', text), kind)[1].tolist()


@pytest.mark.parametrize('text', [
    'a.jpg 0,2\nb.jpg -\nmy photo.jpg 1\n', 'a.jpg 0 2\nb.jpg -\nmy photo.jpg 1\n',
    'a.jpg 2, 0\nb.jpg -\nmy photo.jpg 1.0\n', 'a.jpg,0,2\nb.jpg,-\nmy photo.jpg,1\n',
    'a.jpg ant, polar bear\nb.jpg -\nmy photo.jpg bee\n',
    'id,0,1,2\na,1,0,1\nb,0,0,0\nmy photo,0,1,0\n',
    'a.jpg,ant,polar bear\nb.jpg,-\nmy photo.jpg,bee\n',
    'path,labels\na.jpg,"ant,polar bear"\nb,-\nmy photo,bee\n',
    'path;labels\na.jpg;polar bear|ant\nb;-\nmy photo;bee\n',
    'id,tags of class\na,0 2\nb,-\nmy photo,1\n',
    'id,ant,bee,polar bear\na,1,0,1\nb,0,0,0\nmy photo,0,1,0\n',
    'id,polar bear,ant,bee\na,1,1,-1\nb,-1,-1,-1\nmy photo,-1,-1,1\n',  # as in CelebA
    'id,ant,bee,polar bear\na,True,False,True\nb,False,False,False\nmy photo,0,1,0\n'])
def test_several_classes_are_read(folder, text):
    labels = read(folder, text, SeveralClasses(NAMES))
    assert labels == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize('text, faults', [
    ('a.jpg 0,3\nb.jpg 0\n', ['line 1: label 3 is not in 0..2', 'the labels run 0..3']),
    ('a.jpg ant\nb.jpg ant,be\n', ["line 2: no class is called 'be'; the nearest is"]),
    ('a.jpg ant bear\nb.jpg bee\n', ["line 1: no class is called 'ant bear'"]),
    ('a.jpg 1\nb.jpg 1,1\n', ["line 2: a class is listed twice in '1,1'"]),
    ('a.jpg 1\nb.jpg\n', ["line 2: no label after 'b.jpg'; write - for none"]),
    ('id,labels\na,1\nb,\n', ["line 3: no label after 'b,'; write - for none"]),
    ('a.jpg 1\na.jpg 0,2\n', ['line 2: label 0,2, but label 1 in an earlier line']),
    ('id,ant,bee\na,1,0\nb,2,0\n', ['which column has the labels, ant, bee?'])])
def test_wrong_classes_are_named(folder, text, faults):
    with pytest.raises(InputError) as error:
        read(folder, text, SeveralClasses(NAMES))
    assert all(fault in str(error.value) for fault in faults)


def test_names_of_several_classes_come_from_the_list(folder):
    for text, names in [
            ('a.jpg ant,bee\nb.jpg -\n', ['ant', 'bee']),
            ('a.jpg polar bear, bee\nb.jpg polar bear\n', ['bee', 'polar bear']),
            ('id,ant,bee\na,1,0\nb,0,0\n', ['ant', 'bee']),
            ('id,defective\na,1\nb,0\n', ['defective']), ('a.jpg 0,4\n', [])]:
        path = write(folder / 'list.csv', text)
        assert labels_in(path, None, 'classes').names == names
    assert labels_in(path, None, 'classes').largest == 4
    path = write(folder / 'list.csv', 'a.jpg polar bear\nb.jpg bee\n')
    with pytest.raises(InputError, match="'polar bear' may be one class or several"):
        labels_in(path, None, 'classes')


@pytest.mark.parametrize('text, names', [
    ('a.jpg 31.5\nb.jpg -2\nmy photo.jpg 1e3\n', ['number']),
    ('path,age\na,31.5\nb,-2\nmy photo,1000\n', ['age']),
    ('id;label;width\na;31.5;9\nb;-2;9\nmy photo;1e3;9\n', ['label'])])
def test_one_number_is_read(folder, text, names):
    path = write(folder / 'list.csv', text)
    found, values = read_training_numbers(
        {'train_file': path, 'pictures_path': None, 'num_classes': None})
    assert found == names and values.tolist() == [[31.5], [-2], [1000]]
    assert read(folder, text, Numbers(names, [0], [1])) == [[31.5], [-2], [1000]]


@pytest.mark.parametrize('text, names', [
    ('a.jpg 1 2.5\nmy photo.jpg 3 4\n', ['number 1', 'number 2']),
    ('a.jpg,1,2.5\nmy photo.jpg,3,4\n', ['number 1', 'number 2']),
    ('index,file,id,age,height\n0,a,5,1,2.5\n1,my photo,6,3,4\n', ['age', 'height']),
    (',file,age,height\n0,a,1,2.5\n1,my photo,3,4\n', ['age', 'height'])])
def test_several_numbers_are_read(folder, text, names):
    path = write(folder / 'list.csv', text)
    found, values = read_training_numbers(
        {'train_file': path, 'pictures_path': None, 'num_classes': None})
    assert found == names and values.tolist() == [[1, 2.5], [3, 4]]
    assert read(folder, text, Numbers(names, [0, 0], [1, 1])) == [[1, 2.5], [3, 4]]


@pytest.mark.parametrize('text, fault', [
    ('a.jpg 1\nb.jpg x\n', "line 2: label 'x' is not a number like 31.5"),
    ('a.jpg 1\nb.jpg 3,5\n', "line 2: label '3,5' is not a number like 31.5"),
    ('a.jpg 1\nb.jpg nan\n', "line 2: label 'nan' is not a number like 31.5"),
    ('a.jpg 1\nb.jpg 1 2\n', 'line 2: numbers: expected 1, found 2'),
    ('path,age\na,1\nb,\n', "line 3: label '' is not a number like 31.5"),
    ('path,age,sex\na,1,m\nb,2,f\n', 'line 1: which columns have the numbers? sex'),
    ('path,age\na,"1,5"\n', "line 2: label '1,5' is not a number like 31.5"),
    ('path,age,age\na,1,2\n', 'line 1: two columns are called age'),
    ('path,year\na,1\n', 'no column is called age, as in training; there are year'),
    ('a.jpg 1\na.jpg 2\n', 'line 2: label 2, but label 1 in an earlier line: ')])
def test_wrong_numbers_are_named(folder, text, fault):
    with pytest.raises(InputError) as error:
        read(folder, text, Numbers(['age'], [0], [1]))
    assert fault in str(error.value)


def test_commas_and_spaces_may_separate_the_classes_of_all_lines(folder):
    text = 'a.jpg ant, polar bear\nmy photo.jpg bee, ant\n'
    assert read(folder, text, SeveralClasses(NAMES)) == [[1, 0, 1], [1, 1, 0]]
    assert labels_in(str(folder / 'list.csv'), None, 'classes').names == NAMES


@pytest.mark.parametrize('text, names', [
    ('a.jpg,0,1\nb.jpg,1,0\n', 'ab'), ('a.jpg 0 1\nb.jpg 1 0\n', 'ab'),
    ('a.jpg,0,1,0\nb.jpg,1,0,0\n', 'abc')])
def test_a_bit_for_each_class_needs_a_header(folder, text, names):
    with pytest.raises(InputError, match='for each class, name the classes in a head'):
        read(folder, text, SeveralClasses(names))


def test_columns_of_numbers_may_be_called_like_numbers(folder):
    kind = Numbers(['2019', '2020'], [0, 0], [1, 1])
    assert read(folder, 'path,2020,2019\na.jpg,2,1\n', kind) == [[1, 2]]


def test_numbers_are_found_by_their_names(folder):
    kind = Numbers(['age', 'height'], [0, 0], [1, 1])
    text = 'path,height,weight,age\na.jpg,2.5,7,1\nb.jpg,4,8,3\n'
    assert read(folder, text, kind) == [[1, 2.5], [3, 4]]
    # A column that is called label, or a list without names, may be any number.
    for column, name in [('label', 'age'), ('age', 'number')]:
        found = read(folder, 'path,%s\na,1\n' % column, Numbers([name], [0], [1]))
        assert found == [[1]]


@pytest.mark.parametrize('numbers', [[1.7e9, 1.7e9 + 60], [0.1] * 3, [0, 1e-35]])
def test_numbers_that_float32_cannot_tell_apart_are_refused(numbers):
    values = np.array(numbers)[:, None]
    with pytest.raises(InputError, match='are all equal|are too close together'):
        check_spread('train.csv', ['age'], values, values.std(0))
    check_spread('train.csv', ['age'], np.array([[101320.], [101330.]]), [5.])


def test_lists_that_python_has_printed_are_refused(folder):
    path = write(folder / 'list.csv',
                 'path,tags\na.jpg,"[\'ant\', \'bee\']"\nb.jpg,[]\n')
    with pytest.raises(InputError, match="is a list of Python's"):
        labels_in(path, None, 'classes')


def test_arrays_have_a_bit_for_each_class():
    bits = np.array([[1, 0], [0, 1]])
    for kind, expected in [(SeveralClasses('ab'), bits.tolist()),
                           (OneClass('ab'), [0, 1])]:
        for array in (bits, bits.astype(bool), np.float32(bits)):
            _, labels, _ = read_list((['a', 'b'], array), kind, False)
            assert labels.tolist() == expected
        with pytest.raises(InputError, match='must have a 0 or 1 for each of 2'):
            read_list((['a', 'b'], 2 * bits), kind, False)
    column = np.array([[1], [0]])
    assert read_list((['a', 'b'], column), OneClass('ab'), False)[1].tolist() == [1, 0]
    with pytest.raises(InputError, match='line 1: expected one class, found'):
        read_list((['a'], [[0, 1]]), OneClass('ab'), False)


def test_numbers_below_0_are_not_unknown():
    kind, outputs = Numbers(['cold'], [0], [1]), np.float32([[-3.5], [20261128]])
    ranked = rank(outputs, kind)
    assert name_ranked(*ranked, kind) == [[('cold', -3.5)], [('cold', 20261128)]]
    rows = list(number_rows(['a', 'b'], None, outputs, kind))
    assert rows[1:] == [['a', '-3.5'], ['b', '20261128']]


def test_equal_numbers_may_be_predicted_of_equal_ones():
    kind, same = Numbers(['age'], [0], [1]), np.float32([[2], [2]])
    assert kind.find_same({'true': same, 'predicted': same}) is None
    assert kind.find_same({'true': np.float32([[1], [2]]), 'predicted': same}) == '2'


def test_pairs_may_have_several_labels():
    data = ImageDataGenerator((['a', 'b', 'c'], [[0, 2], [], [1]]),
                              kind=SeveralClasses(NAMES), check_files=False)
    assert data.one_hot([0, 1, 2]).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    data = ImageDataGenerator((['a', 'b'], np.array([31.5, 2])), check_files=False,
                              kind=Numbers(['age'], [0], [1]))
    assert data.one_hot([1, 0]).tolist() == [[2], [31.5]] and data.n_classes == 1


def test_numbers_below_0_keep_their_names():
    kind = Numbers(['age'], [0], [1])
    ranked = rank(np.float32([[-3.5], [2]]), kind)
    assert name_ranked(*ranked, kind) == [[('age', -3.5)], [('age', 2.)]]


def test_average_precision_is_the_area_under_precision_over_recall():
    # Hits at ranks 1, 3 and 4: (1/1 + 2/3 + 3/4) / 3.
    true = np.array([1, 0, 1, 1, 0])
    assert average_precision(true, np.array([.9, .8, .7, .6, .1])) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3)
    # Equal probabilities have no order: each hit finds 3 of 5.
    assert average_precision(true, np.full(5, .5)) == pytest.approx(3 / 5)
    assert average_precision(true, np.array([.9, .1, .5, .5, .5])) == pytest.approx(
        (1 / 1 + 2 * 3 / 4) / 3)


def test_r_squared_is_the_explained_share_of_the_variance():
    true = np.array([[1., 5], [2, 5], [3, 5]])
    assert r_squared(true, true)[0] == 1 and np.isnan(r_squared(true, true)[1])
    assert r_squared(true, np.full((3, 2), 2.))[0] == 0
    assert r_squared(true, true + 1)[0] == pytest.approx(1 - 3 / 2)


def test_scores_are_those_of_the_formulas():
    logits = np.float32([[2, -1, 0.5], [-3, 1, 4]])
    y = np.float32([[1, 0, 0], [1, 1, 1]])
    with tf.Session() as session:
        found = session.run(SeveralClasses(NAMES).scores(tf.constant(y),
                                                         tf.constant(logits)))
        kind = Numbers('abc', [1, 2, 3], [10, 20, 40])
        numbers = session.run(kind.scores(tf.constant(y), tf.constant(logits)))
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        found['cross_entropy'], -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1), 1e-5)
    np.testing.assert_allclose(found['accuracy'], [2 / 3, 2 / 3], 1e-6)
    standard = (y - [1, 2, 3]) / [10, 20, 40]
    np.testing.assert_allclose(numbers['squared_error'],
                               np.square(logits - standard).mean(1), 1e-5)
    np.testing.assert_allclose(
        numbers['absolute_error_b'], np.abs(logits[:, 1] * 20 + 2 - y[:, 1]), 1e-5)


def test_a_column_of_numbers_may_have_any_name():
    name = Numbers(['größe 1', 'b'], [0, 0], [1, 1]).tag('absolute_error', 0)
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable('v', [3])
        summary, _ = add_summaries({name: tf.constant(2.)}, [variable], [variable])
        session.run(tf.global_variables_initializer())
        found = tf.Summary.FromString(session.run(summary)).value
    assert {value.tag for value in found} == {name, 'gradient/v'}


def listed(part):
    """Yield (path without ending, class) of a list of the sample."""
    with open(os.path.join(IMAGES, part + '.txt')) as file:
        for line in file:
            path, label = line.rsplit(None, 1)
            yield os.path.splitext(path)[0], int(label)


def write_lists(folder, header, cells_of):
    """Write lists of the sample's pictures, and return the options for them."""
    for part in ('train', 'val', 'test'):
        with open(str(folder / (part + '.csv')), 'w', newline='') as file:
            csv.writer(file).writerows([header, *(
                [path, *cells_of(path, label)] for path, label in listed(part))])
    return ['--pictures_path=' + IMAGES, *['--%s_file=%s/%s.csv' % (part, folder, part)
                                           for part in ('train', 'val', 'test')]]


def rows_of(folder):
    with open(str(folder / 'p' / 'table.csv'), newline='',
              encoding='utf-8-sig') as file:
        return list(csv.DictReader(file))


def predict(folder, *arguments):
    """Run predict.py on the validation list with the first run's best checkpoint."""
    os.makedirs(str(folder / 'p'), exist_ok=True)
    status, output = run_program(
        'predict.py', '%s/val.csv' % folder, '--pictures_path=' + IMAGES,
        '--checkpoint=%s/new/checkpoints/1' % folder,
        '--predictions_file=%s/p/table.csv' % folder,
        '--confusion_file=%s/p/drawing.png' % folder, *arguments)
    assert status == 0, output
    return output


@pytest.fixture(scope='module')
def train(module_path, narrow_file, narrow_network, features_path):
    """Return a function that trains, and gives (folder, arguments, output)."""
    def run(labels, num_epochs, header, cells_of):
        folder = module_path / labels
        folder.mkdir()
        job = ['--weights_path=' + narrow_file, '--labels=' + labels,
               '--num_epochs=%d' % num_epochs, '--learning_rate=0.01',
               '--features_path=' + features_path, '--train_layers=fc8',
               *write_lists(folder, header, cells_of)]
        status, output = finetune(folder, *job, draws=True)
        assert status == 0, output
        return folder, job, output
    return run


@pytest.fixture(scope='module')
def several(train):
    """A run with several classes: hard is true of bricks and gravel, none of grass."""
    texts = [['hard, red'], ['-'], ['hard']]
    return train('classes', 12, ['id', 'labels'], lambda _, label: texts[label])


def test_several_classes_are_learnt_and_predicted(several):
    folder, _, output = several
    best = float(re.search('validation mean_average_precision ([0-9.]+)$', output,
                           re.M).group(1))
    # By chance, it would be the mean of the shares of the classes, 0.5.
    assert best > 0.75 and '(always predicting the more common answer for eac' in output
    model = read_model(checkpoint_of(folder, 12))
    assert model['labels'] == 'classes' and model['class_names'] == ['hard', 'red']
    printed = predict(folder)
    assert 'Mean average precision: %.4f' % best in printed
    assert not (folder / 'p' / 'drawing.png').exists()
    assert re.search('^hard +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +36$', printed, re.M)
    table = rows_of(folder)
    assert [row['true_name'] for row in table[::18]] == ['hard, red', '-', 'hard']
    predicted = [[name for name in ('hard', 'red') if float(dict(zip(
        (row['name_1'], row['name_2']), (row['probability_1'], row['probability_2'])
    ))[name]) > 0.5] for row in table]
    assert [row['predicted_name'] for row in table] == [
        ', '.join(names) or '-' for names in predicted]
    # Two sigmoids, so the probabilities do not add up to 1.
    sums = [float(row['probability_1']) + float(row['probability_2']) for row in table]
    assert min(sums) < 0.8 and max(sums) > 1.2
    tags = {tag for _, tag, _ in summaries(folder, 'validation')}
    assert {'worst_mistakes', 'mean_average_precision'} <= tags
    assert 'confusion_matrix' not in tags


@unless_old
def test_several_classes_in_another_program_and_in_the_export(several, tmp_path):
    folder, _, _ = several
    with Classifier(str(folder / 'new' / 'checkpoints' / '1')) as classify:
        [ranked] = classify([CAT])
        [numbers] = classify.run([CAT])[0]
    assert sorted(name for name, _ in ranked) == ['hard', 'red']
    with Classifier(str(folder / 'new' / 'checkpoints' / '1'), 0.6) as classify:
        with pytest.raises(InputError, match="unknown_below is 0.6, .*'classes'"):
            classify([CAT])
    assert dict(ranked) == pytest.approx(dict(zip(['hard', 'red'], numbers)), abs=1e-6)
    served = exported(folder, tmp_path)
    order = served['probabilities'][0].argsort()[::-1]
    assert [name.decode() for name in served['names'][0][order]] == [
        name for name, _ in ranked]
    assert served['probabilities'][0][order] == pytest.approx(
        [value for _, value in ranked], abs=2e-3)


def exported(folder, tmp_path):
    """Return what the export of a run gives for the cat."""
    status, output = run_program('predict.py', '--export_path=%s/served' % tmp_path,
                                 '--checkpoint=%s/new/checkpoints/1' % folder)
    assert status == 0, output
    with tf.Session(graph=tf.Graph()) as session, open(CAT, 'rb') as file:
        served = tf.saved_model.load(session, ['serve'], str(tmp_path / 'served'))
        signature = served.signature_def['serving_default']
        return session.run(
            {name: tensor.name for name, tensor in signature.outputs.items()},
            {signature.inputs['pictures'].name: [file.read()]})


@pytest.fixture(scope='module')
def numbers(train):
    """A run with two numbers, the second of them in millions."""
    def measure(path, label):
        image = cv2.imread(os.path.join(IMAGES, path + '.jpg'))
        return ['%.3f' % image.mean(), 10 ** 6 * (label + 5)]

    return train('numbers', 8, ['id', 'brightness', 'hardness'], measure)


def test_numbers_are_learnt_and_predicted_in_their_units(numbers):
    folder, _, output = numbers
    model = read_model(checkpoint_of(folder, 8))
    assert model['labels'] == 'numbers' and model['mean'][1] == pytest.approx(6e6)
    assert model['deviation'][1] == pytest.approx(1e6 * (2 / 3) ** 0.5)
    assert 'always predicting the mean: absolute_error_brightness' in output
    best = re.search('of epoch ([0-9]+), validation negative_squared_error', output)
    errors = re.search('^Epoch %s/8: validation .*absolute_error_hardness ([0-9.]+), '
                       'r_squared_brightness ([0-9.-]+), r_squared_hardness ([0-9.-]+)'
                       % best.group(1), output, re.M).groups()
    assert float(errors[2]) > 0.3
    printed = predict(folder)
    found = {row[0]: row[1:] for row in map(str.split, printed.splitlines())
             if row and row[0] in ('brightness', 'hardness')}
    assert float(found['hardness'][0]) == pytest.approx(float(errors[0]), rel=1e-4)
    assert float(found['brightness'][1]) == pytest.approx(float(errors[1]), abs=2e-4)
    table = rows_of(folder)
    assert list(table[0]) == ['path', 'true_brightness', 'true_hardness', 'brightness',
                              'hardness']
    assert [table[row]['true_hardness'] for row in (0, -1)] == ['5000000', '7000000']
    wrong = np.mean([abs(float(row['true_hardness']) - float(row['hardness']))
                     for row in table])
    assert wrong == pytest.approx(float(errors[0]), rel=1e-3)
    drawing = cv2.imread(str(folder / 'p' / 'drawing.png'))
    assert drawing.shape == (350, 700, 3)  # two squares
    tags = {tag for _, tag, _ in summaries(folder, 'validation')}
    assert {'worst_mistakes', 'true_and_predicted', 'r_squared_brightness'} <= tags


@unless_old
def test_numbers_in_another_program_and_in_the_export(numbers, tmp_path):
    folder, _, _ = numbers
    checkpoint = str(folder / 'new' / 'checkpoints' / '1')
    with Classifier(checkpoint) as classify:
        [found] = classify([CAT])
    assert [name for name, _ in found] == ['brightness', 'hardness']
    served = exported(folder, tmp_path)
    assert served['names'].tolist() == [b'brightness', b'hardness']
    kind = find_kind(checkpoint_of(folder, 8), 'fc8')
    difference = served['numbers'][0] - [value for _, value in found]
    assert np.abs(difference / kind.deviation).max() < 2e-3
    with Classifier(checkpoint, unknown_below=0.5) as classify:
        with pytest.raises(InputError, match='unknown_below is 0.5, but this network'):
            classify([CAT])


def test_numbers_go_on_with_their_mean_and_no_other_kind(numbers, tmp_path):
    folder, job, _ = numbers
    again = [*job, '--resume=%s' % checkpoint_of(folder, 8), *outputs_in(tmp_path)]
    status, output = finetune(tmp_path, *again, '--labels=class')
    assert status == 2 and "labels was 'numbers', now it is 'class'; a run" in output
    other = (folder / 'train.csv').read_text().replace(
        'brightness,hardness', 'hardness,brightness', 1)
    status, output = finetune(tmp_path, *again, '--train_file=' + write(
        tmp_path / 'other.csv', other))
    assert status == 2 and 'being resumed has brightness, hardness, in' in output
    # A list whose mean is another one does not change what the outputs mean.
    rows = (folder / 'train.csv').read_text().splitlines()
    write(tmp_path / 'train.csv', '\n'.join(
        ','.join([path, hard, bright]) for path, bright, hard in csv.reader(rows)))
    status, output = finetune(tmp_path, *again, '--train_file=%s/train.csv' % tmp_path)
    assert status == 2 and 'the columns of numbers are hardness, brightness' in output
    # A list whose mean is another one does not change what the outputs mean.
    write(tmp_path / 'train.csv', '\n'.join(rows[:30]))
    status, output = finetune(tmp_path, *again, '--num_epochs=9',
                              '--train_file=%s/train.csv' % tmp_path)
    assert status == 0, output
    before, after = [read_model(checkpoint_of(place, epoch))
                     for place, epoch in ((folder, 8), (tmp_path, 9))]
    assert before['mean'] == after['mean']
    assert before['deviation'] == after['deviation']


@pytest.mark.parametrize('text, fault', [
    # 0.1 is rounded, so the mean of three is not quite 0.1.
    (''.join('textures/brick/val_0%d 0.1\n' % number for number in (1, 2, 3)),
     'the numbers are all equal'),
    ('textures/brick/val_01 x\n',
     "no numbers in it\n  line 1: label 'x' is not a number like 31.5")])
def test_runs_without_usable_numbers_are_refused(tmp_path, text, fault):
    path = write(tmp_path / 'train.txt', text)
    status, output = finetune(
        tmp_path, '--labels=numbers', '--train_file=' + path, '--val_file=' + path,
        '--pictures_path=' + IMAGES, '--weights_path=None')
    assert status == 2 and path + ': ' + fault in output and 'Traceback' not in output


@pytest.mark.parametrize('text, message', [
    ('textures/brick/val_01 0\ntextures/brick/val_02 0,1\n',
     "for several classes per picture, set labels = 'classes'"),
    ('textures/brick/val_01 1.5\ntextures/brick/val_02 2.5\n',
     "labels like 1.5 are not classes: set labels = 'numbers'"),
    ('textures/brick/val_01 red\ntextures/brick/val_02 red|hard\n',
     "Warning: 'red|hard' is a class of its own. For several classes")])
def test_a_forgotten_kind_is_told(tmp_path, text, message):
    train = write(tmp_path / 'train.txt', text)
    status, output = finetune(
        tmp_path, '--train_file=' + train, '--val_file=%s/gone.txt' % tmp_path,
        '--pictures_path=' + IMAGES, '--weights_path=None')
    assert status == 2 and 'gone.txt: No such file' in output
    val = write(tmp_path / 'val.txt', text.replace('hard', 'x'))
    status, output = finetune(
        tmp_path, '--train_file=' + train, '--val_file=' + val,
        '--pictures_path=' + IMAGES, '--weights_path=None')
    assert status == 2 and message in output and 'Traceback' not in output


def test_one_class_is_the_tutorials():
    kind = OneClass(NAMES)
    values = {'true': np.array([0, 1, 1]), 'predicted': np.array([1, 1, 1]),
              'probability': np.array([0.5, 0.75, 1])}
    assert kind.always(values['true']).endswith(': 0.6667')
    assert kind.find_same(values) == 'class bee' and kind.measure(values) == {}
    assert kind.show_predicted(values, 1) == 'bee, 0.75'
