"""Lists that python datagenerator.py writes for a folder of pictures."""
import os
import re
import shutil

import pytest

from helpers import ROOT, run_program
from machinery.lists import read_list
from test_lists import make, write


def write_lists(*arguments):
    return run_program('datagenerator.py', *arguments)


def read_lists(out):
    """Return {list: [(path, label)]} with the real paths."""
    samples = {}
    for name in ('train', 'val', 'test'):
        paths, labels, _ = read_list(str(out / (name + '.txt')), 9)
        samples[name] = [(os.path.realpath(path), label)
                         for path, label in zip(paths, labels)]
    return samples


def test_folder_of_folders_is_split_by_class(tmp_path):
    photos, out = tmp_path / 'my photos', tmp_path / 'lists'
    make(photos, ['cat/%d.jpg' % i for i in range(40)] +
         ['dog/notes.txt', 'cat/.x.jpg', '.trash/cat/1.jpg'] +
         ['../elsewhere/deep/%d.PNG' % i for i in range(20)])
    (photos / 'dog' / 'linked').symlink_to(tmp_path / 'elsewhere')
    status, output = write_lists(photos, '--out', out)
    assert status == 0, output
    assert (out / 'classes.txt').read_text() == 'cat\ndog\n'
    samples = read_lists(out)
    assert {name: [[label for _, label in pairs].count(label) for label in (0, 1)]
            for name, pairs in samples.items()} == {
                'train': [28, 14], 'val': [6, 3], 'test': [6, 3]}
    assert [line.split() for line in output.splitlines()] == [
        ['class', 'label', 'train', 'val', 'test'], ['cat', '0', '28', '6', '6'],
        ['dog', '1', '14', '3', '3'], ['Ignored:', '1', '.txt'],
        ['Wrote'] + [str(out / name) + comma for name, comma in [
            ('train.txt', ','), ('val.txt', ','), ('test.txt', ','),
            ('classes.txt', '')]],
        ('python finetune.py --train_file {0}/train.txt --val_file {0}/val.txt '
         '--test_file {0}/test.txt --classes_file {0}/classes.txt '
         '--learning_rate 0.001 --batch_size 128'.format(out)).split()]
    everything = sum(samples.values(), [])
    assert len(set(everything)) == 60
    assert all(('cat' in path) == (label == 0) for path, label in everything)


def test_names_like_kaggles_tell_the_class(tmp_path):
    make(tmp_path, ['%s.%d.jpg' % (name, i) for name in ('cat', 'dog')
                    for i in range(10)] + ['#odd name.7.jpg'])
    status, output = write_lists(tmp_path, '--split', 50, 50, 0, '--out', tmp_path)
    assert status == 0, output
    assert (tmp_path / 'classes.txt').read_text() == '#odd name\ncat\ndog\n'
    assert not (tmp_path / 'test.txt').exists() and '--test_file' not in output
    lines = (tmp_path / 'train.txt').read_text() + (tmp_path / 'val.txt').read_text()
    assert lines.count('\n') == 21 and './#odd name.7.jpg 0\n' in lines


def split(tmp_path, names, *arguments):
    """Return {list: [(path, label or None)]}, the classes, and the output."""
    photos = tmp_path / 'photos'
    make(photos, names)
    status, output = write_lists(photos, '--out', tmp_path / 'out', *arguments)
    assert status == 0, output
    found = {}
    for name in ('train', 'val', 'test'):
        path = tmp_path / 'out' / (name + '.txt')
        if path.exists():
            found[name] = [
                re.fullmatch(r'\./\.\./photos/(.*?)(?: (\d+))?', line).groups()
                for line in path.read_text().splitlines()]
    return found, (tmp_path / 'out' / 'classes.txt').read_text().split(), output


def test_folder_that_is_split_stays_so(tmp_path):
    names = ['%s/%s/%d.jpg' % (part, name, i) for part, name, count in [
        ('Train', 'ant', 20), ('Train', 'bee', 20), ('Train', 'cow', 20),
        ('valid', 'ant', 3), ('valid', 'cow', 3)] for i in range(count)]
    found, classes, output = split(tmp_path, names)
    assert classes == ['ant', 'bee', 'cow']
    assert [(path, classes[int(label)]) for path, label in found['val']] == [
        (path, path.split('/')[1]) for path in names[60:]]  # no label has shifted
    assert all(path.startswith('Train') for path, _ in found['train'] + found['test'])
    assert len(found['test']) == 12 and len(found['train']) == 48
    assert 'Warning: val.txt has no picture of bee\n' in output
    assert 'is split already, which was kept; test.txt was taken from its' in output


def test_each_folder_of_a_part_tells_its_classes_in_its_own_way(tmp_path):
    train = ['train/%s/%d.jpg' % (name, i) for name in ('cat', 'dog') for i in range(9)]
    val = ['val/cat/1.jpg', 'val/dog/x.7.jpg', 'valid/cat.0.jpg', 'valid/dog.0.jpg']
    found, classes, _ = split(tmp_path, train + val)
    assert classes == ['cat', 'dog']
    assert sorted(found['val']) == [(path, str(i % 2)) for i, path in enumerate(val)]
    make(tmp_path / 'photos', ['valid/1.jpg'])
    status, output = write_lists(tmp_path / 'photos')
    assert status == 2 and 'valid/1.jpg: is neither in a class folder' in output
    make(tmp_path / 'photos', ['val/1.jpg'])
    status, output = write_lists(tmp_path / 'photos')
    assert status == 2 and 'val/1.jpg: is next to the class folders' in output


def test_kaggles_archive(tmp_path):
    found, classes, output = split(
        tmp_path, ['train/%s.%d.jpg' % (name, i) for name in ('cat', 'dog')
                   for i in range(20)] + ['test1/%d.jpg' % i for i in range(5)])
    assert classes == ['cat', 'dog'] and len(found['train']) == 32
    assert found['test'] == [('test1/%d.jpg' % i, None) for i in range(5)]
    assert all(path.split('/')[1].split('.')[0] == classes[int(label)]
               for path, label in found['train'] + found['val'])
    assert 'val.txt was taken' in output and 'it is for predict.py' in output
    assert '--test_file' not in output


def test_names_and_order_of_classes_may_be_given(tmp_path):
    names = ['%d/%d.jpg' % (name, i) for name in (0, 1, 2, 10) for i in range(9)]
    assert split(tmp_path, names)[1] == ['0', '1', '2', '10']
    path = write(tmp_path, '10\n2\n1\n0\n-1\n')
    found, classes, output = split(tmp_path, names, '--force', '--classes', path)
    assert classes == ['10', '2', '1', '0', '-1']
    assert all(path.split('/')[0] == classes[int(label)]
               for path, label in found['train'])
    assert 'train.txt has no picture of -1' in output
    path = write(tmp_path, '10\n2\n1\n')
    assert write_lists(tmp_path / 'photos', '--classes', path) == (
        2, path + ': no class 0\n')


def test_nothing_vanishes_silently(tmp_path):
    """What is no picture is counted; content tells where a name does not."""
    make(tmp_path / 'photos', ['fish/x.txt', 'a/b.heic', 'a/c.HEIC', 'b/plain',
                               'Thumbs.db', 'b/notes.pdf'])
    (tmp_path / 'photos' / 'empty').mkdir()
    shutil.copy(os.path.join(ROOT, 'images', 'cat.jpg'), str(tmp_path / 'photos/b/cat'))
    found, classes, output = split(tmp_path, ['%s/%d.jpg' % (name, i) for name in 'ab'
                                              for i in range(9)])
    assert classes == ['a', 'b']
    assert 'b/cat' in [path for path, _ in sum(found.values(), [])]
    assert 'Ignored: 1 without an ending, 2 .heic, 1 .pdf, 1 .txt\n' in output
    assert 'OpenCV does not read HEIC' in output
    assert 'No pictures in: empty, fish\n' in output


def test_command_to_go_on_with_is_quoted(tmp_path):
    make(tmp_path / 'photos', ['a/%d.jpg' % i for i in range(18)] + ['b/1.jpg'])
    _, output = write_lists(tmp_path / 'photos', '--out', tmp_path / 'my lists')
    assert "--val_file '%s/my lists/val.txt' " % tmp_path in output.splitlines()[-1]


def test_identical_pictures_go_to_the_same_list(tmp_path):
    make(tmp_path, ['%s/%d.jpg=content %d' % (name, i, i % 7)
                    for name in ('a', 'b') for i in range(50)])
    assert write_lists(tmp_path, '--out', tmp_path)[0] == 0
    contents = [{open(path, 'rb').read() for path, _ in samples}
                for samples in read_lists(tmp_path).values()]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 7


def test_lists_depend_on_the_seed_and_are_not_overwritten(tmp_path, monkeypatch):
    make(tmp_path, ['%s/%d.jpg' % (name, i) for name in ('a', 'b') for i in range(50)])
    monkeypatch.chdir(tmp_path)
    train = tmp_path / 'train.txt'
    assert write_lists('.')[0] == 0
    first = train.read_text()
    status, output = write_lists('.', '--seed', 1)
    assert status == 2 and 'train.txt' in output and '--force' in output
    assert train.read_text() == first
    assert write_lists('.', '--force')[0] == 0 and train.read_text() == first
    assert write_lists('.', '--force', '--seed', 1)[0] == 0
    assert train.read_text() != first


@pytest.mark.parametrize('names, complaint', [
    (['a/1.jpg'], 'all pictures are of one class, a; at least 2 classes are needed'),
    ([], 'no pictures there'),
    (['a/1.jpg', 'b/1.jpg', 'at 10.15.33.png'],
     'at 10.15.33.png: is next to the class folders: move it into one of them, or re'),
    (['cat.0.jpg', 'dog.0.jpg', 'at 10.15.33.png'], '33.png: is neither in a class '
     'folder nor named like cat.0.jpg'),
    (['train/a/1.jpg', 'val/a/1.jpg', 'x/a/1.jpg'], 'is split into train, val, but'),
    (['val/a/1.jpg', 'test/a/1.jpg'], 'is split into test, val, but has no part tr'),
    (['a/1.jpg', 'b\nc/1.jpg'], r"b\nc/1.jpg': cannot be written to a list"),
    (['a/1.jpg', ' /1.jpg'], 'has a blank class name'),
    (['a/1.jpg', 'b/\udce9.jpg'], r"b/\udce9.jpg': cannot be written to a list"),
    (['a/1.jpg', 'b/1.jpg', 'train.txt/x'], 'train.txt: Is a directory\n')])
def test_folders_that_give_no_lists_are_named(tmp_path, names, complaint):
    make(tmp_path, names)
    status, output = write_lists(tmp_path, '--out', tmp_path, '--force')
    assert status == 2 and complaint in output and output.count('\n') == 1
    assert not (tmp_path / 'train.txt').is_file()


def test_links_in_a_circle_and_dangling_ones_are_named(tmp_path):
    make(tmp_path, ['a/1.jpg', 'b/1.jpg'])
    link = tmp_path / 'a' / '2.jpg'
    link.symlink_to(tmp_path / 'gone')
    assert write_lists(tmp_path, '--out', tmp_path) == (
        2, '%s: No such file or directory\n' % link)
    (tmp_path / 'a' / 'up').symlink_to(tmp_path)
    status, output = write_lists(tmp_path, '--out', tmp_path)
    assert status == 2 and output.startswith(str(tmp_path / 'a' / 'up' / 'a' / 'up'))
    assert output.endswith(': Too many levels of symbolic links\n')


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    make(tmp_path, ['a/1.jpg', 'b/1.jpg', 'file'])
    assert write_lists(tmp_path, '--out', tmp_path / 'file' / 'lists') == (
        2, '%s: Not a directory\n' % (tmp_path / 'file' / 'lists'))


@pytest.mark.parametrize('arguments, complaint', [
    (['--split', -1, 1, 1], '--split: the shares must be 0 or more'),
    (['--split', 0, 1, 1], 'those of training and validation above 0'),
    (['--split', 1, 0, 1], 'those of training and validation above 0'),
    (['--split', 'nan', 1, 1], '--split: the shares must be 0 or more'),
    (['--split', 1, 'nan', 1], '--split: the shares must be 0 or more'),
    (['--split', 1, 'inf', 1], '--split: the shares must be 0 or more'),
    (['--split', 1, 'x', 1], "--split: invalid float value: 'x'"),
    (['--split', 1, 1], '--split: expected 3 arguments'),
    (['--seed', -1], "--seed: '-1' is not an integer in 0..4294967295")])
def test_wrong_options_are_named(tmp_path, arguments, complaint):
    status, output = write_lists(tmp_path, *arguments)
    assert status == 2 and complaint in output and output.count('\n') == 1


def test_list_without_a_picture_of_a_class_is_pointed_out(tmp_path):
    make(tmp_path, ['%s.%d.jpg' % (name, i) for name, count in [
        ('few', 4), ('many', 40)] for i in range(count)])
    status, output = write_lists(tmp_path, '--out', tmp_path)
    assert status == 0 and 'Warning: val.txt has no picture of few\n' in output
    assert output.count('Warning') == 1
