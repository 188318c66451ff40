"""Lists that python datagenerator.py writes for a folder of pictures."""
import os
import re
import shutil

import pytest

from helpers import ROOT, run_program
from machinery import folders
from machinery.labels import OneClass
from machinery.lists import read_list
from test_lists import make, write


def write_lists(*arguments):
    return run_program('datagenerator.py', *arguments)


def read_lists(out):
    """Return {list: [(path, label)]} with the real paths."""
    samples = {}
    for name in ('train', 'val', 'test'):
        paths, labels, _ = read_list(str(out / (name + '.txt')), OneClass(range(9)))
        samples[name] = [(os.path.realpath(path), label)
                         for path, label in zip(paths, labels)]
    return samples


def test_folder_of_folders_is_split_by_class(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, 'DEFAULT_WEIGHTS', str(tmp_path / 'bvlc.npy'))
    photos, out = tmp_path / 'my photos', tmp_path / 'lists'
    make(photos, ['cat/%d.jpg' % i for i in range(40)] +
         ['dog/notes.txt', 'cat/.x.jpg', '.trash/cat/1.jpg'] +
         ['../elsewhere/deep/%d.PNG' % i for i in range(20)])
    (photos / 'dog' / 'linked').symlink_to(tmp_path / 'elsewhere')
    status, output = write_lists(photos, '--out', out)
    assert status == 0, output
    assert (out / 'classes.txt').read_text() == 'cat\ndog\n'
    samples = read_lists(out)
    counts = [[str([label for _, label in samples[name]].count(label))
               for name in ('train', 'val', 'test')] for label in (0, 1)]
    *lines, command, hint = output.splitlines()
    assert [line.split() for line in lines] == [
        ['class', 'label', 'train', 'val', 'test'], ['cat', '0'] + counts[0],
        ['dog', '1'] + counts[1], ['Ignored:', '1', '.txt'],
        ['Wrote'] + [str(out / name) + comma for name, comma in [
            ('train.txt', ','), ('val.txt', ','), ('test.txt', ','),
            ('classes.txt', '')]]]
    start = ('Next: python finetune.py --train_file {0}/train.txt --val_file '
             '{0}/val.txt --test_file {0}/test.txt --classes_file {0}/classes.txt '
             .format(out))
    assert command == start + '--weights_path None'
    suited = '--learning_rate 0.001 --batch_size 128'
    assert 'run python alexnet.py first' in hint and hint.endswith(suited)
    (tmp_path / 'bvlc.npy').touch()  # now the pretrained weights are there
    status, output = write_lists(photos, '--out', out, '--force')
    assert status == 0 and output.splitlines()[-1] == start + suited
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


def test_lists_may_go_through_a_link(tmp_path):
    make(tmp_path, ['photos/%s/%d.jpg' % (name, i) for name in 'ab' for i in range(9)])
    (tmp_path / 'far' / 'away').mkdir(parents=True)
    (tmp_path / 'lists').symlink_to(tmp_path / 'far' / 'away')
    assert write_lists(tmp_path / 'photos', '--out', tmp_path / 'lists')[0] == 0
    assert len(sum(read_lists(tmp_path / 'far' / 'away').values(), [])) == 18


def test_folder_that_is_split_stays_so(tmp_path):
    names = ['%s/%s/%d.jpg' % (part, name, i) for part, name, count in [
        ('Train', 'ant', 20), ('Train', 'bee', 20), ('Train', 'cow', 20),
        ('valid', 'ant', 3), ('valid', 'cow', 3)] for i in range(count)]
    found, classes, output = split(tmp_path, names)
    assert classes == ['ant', 'bee', 'cow']
    assert [(path, classes[int(label)]) for path, label in found['val']] == [
        (path, path.split('/')[1]) for path in names[60:]]  # no label has shifted
    assert all(path.startswith('Train') for path, _ in found['train'] + found['test'])
    assert len(found['test']) + len(found['train']) == 60 > 2 * len(found['test']) > 0
    assert 'Warning: val.txt has no picture of bee\n' in output
    assert 'is already split; the split was kept; test.txt was taken from its' in output


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
    assert classes == ['cat', 'dog'] and len(found['train'] + found['val']) == 40
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
    assert "--val_file '%s/my lists/val.txt' " % tmp_path in output


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
    (['a/1.jpg', 'b/1.jpg'], ': too few pictures for a val.txt'),
    (['a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'train.txt/x'], 'train.txt: Is a directory\n')])
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
        2, '%s: is a broken link to %s\n' % (link, tmp_path / 'gone'))
    link = tmp_path / 'a' / 'up'
    link.symlink_to(tmp_path)
    assert write_lists(tmp_path, '--out', tmp_path) == (
        2, '%s: is a link to a folder that it is in\n' % link)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    make(tmp_path, ['a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'file'])
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
    (['--group', 'a(b'], "--group: 'a(b': missing ), unterminated subpattern"),
    (['--seed', -1], "--seed: '-1' is not an integer in 0..4294967295")])
def test_wrong_options_are_named(tmp_path, arguments, complaint):
    status, output = write_lists(tmp_path, *arguments)
    assert status == 2 and complaint in output and output.count('\n') == 1


def test_list_without_a_picture_of_a_class_is_pointed_out(tmp_path):
    make(tmp_path, ['%s.%d.jpg' % (name, i) for name, count in [
        ('few', 1), ('many', 40)] for i in range(count)])
    status, output = write_lists(tmp_path, '--out', tmp_path)
    assert status == 0 and 'Warning: val.txt has no picture of few\n' in output
    assert output.count('Warning') == 2 and 'Warning: test.txt has no' in output


def names_of(folders, count=4):
    """Return the names of count pictures in each of some folders."""
    return ['%s/%d.jpg' % (folder, i) for folder in folders.split()
            for i in range(count)]


@pytest.mark.parametrize('train, test, left_out', [
    ('train/train/a train/train/b', 'test/test/a test/test/b', ''),
    ('train/train/a train/train/b', 'test/a test/b', ''),
    ('seg_train/seg_train/a seg_train/seg_train/b', 'seg_test/seg_test/a '
     'seg_test/seg_test/b', 'seg_pred/seg_pred'),
    ('training_set/a training_set/b', 'test_set/a test_set/b', ''),
    ('trainingSet/a trainingSet/b', 'testSet/a testSet/b', ''),
    ('Train2017/a Train2017/b', 'my-Testing-2/a my-Testing-2/b', 'other'),
    ('Training/a Training/b', 'Test/a Test/b', 'test-multiple_fruits'),
    ('archive/set/train/a archive/set/train/b', 'archive/set/test/a', 'archive/set/x'),
    ('test_data/train/a test_data/train/b', 'test_data/test/a test_data/test/b', ''),
    ('train/images/a train/images/b', 'test/images/a test/images/b', ''),
    ('a/train b/train', 'a/test b/test', ''),
    ('a/images/train b/images/train', 'a/images/test b/images/test', ''),
    ('photos/a/train photos/b/train', 'photos/a/test', '')])
def test_parts_as_archives_leave_them(tmp_path, train, test, left_out):
    found, classes, output = split(
        tmp_path, names_of(train) + names_of(test) + names_of(left_out))
    assert classes == ['a', 'b'] and 'is already split; the split was kept' in output
    assert sorted(path for path, _ in found['test']) == sorted(names_of(test))
    assert sorted(path for path, _ in found['train'] + found['val']) == sorted(
        names_of(train))
    assert all(classes[int(label)] in path.split('/')
               for path, label in sum(found.values(), []))
    assert ('Left out: 4 pictures without a class in %s/photos/%s\n' % (
        tmp_path, left_out) in output) == bool(left_out) == ('Left out' in output)


@pytest.mark.parametrize('train, test', [
    ('train/train/%s.%d.jpg', 'test1/test1/%d.jpg'),
    ('archive/train/%s.%d.jpg', 'archive/test/%d.jpg'),
    ('train/%s/%d.jpg', 'test/%d.jpg'), ('train/%s/%d.jpg', 'test/unknown/%d.jpg')])
def test_test_pictures_without_classes(tmp_path, train, test):
    tests = [test % i for i in range(3)]
    found, classes, output = split(tmp_path, tests + [
        train % (name, i) for name in ('cat', 'dog') for i in range(4)])
    assert classes == ['cat', 'dog'] and 'test.txt has no labels' in output
    assert found['test'] == [(path, None) for path in tests]


@pytest.mark.parametrize('folders', [
    'photos/photos/a photos/photos/b', 'archive/a archive/b', 'train/a train/b',
    'train/train/a train/train/b', 'a/2019 a/2020 b/2020', 'a/session1 b/session2',
    'a/a b/b', 'a b/linked b/linked/deep', 'a/images b/images'])
def test_folders_around_and_in_classes_mean_nothing(tmp_path, folders):
    found, classes, _ = split(tmp_path, names_of(folders))
    assert classes == ['a', 'b']
    pairs = sum(found.values(), [])
    assert sorted(path for path, _ in pairs) == sorted(names_of(folders))
    assert all(('a' in path.split('/')) == (label == '0') for path, label in pairs)


def test_words_in_which_test_is_a_part_are_classes(tmp_path):
    names = 'contest developer latest strained trainer valley'
    found, classes, output = split(tmp_path, names_of(names))
    assert classes == names.split() and 'is split' not in output
    (tmp_path / 'cifar100').mkdir()
    found, classes, output = split(tmp_path / 'cifar100', names_of(
        'train/bus train/train test/bus test/train'))
    assert classes == ['bus', 'train'] and len(found['test']) == 8


@pytest.mark.parametrize('folders, complaint', [
    ('cat dog test', 'is split into test, but has no part train; if these are classe'),
    ('cat dog train', 'is split into train, but {}/cat/0.jpg is in none of these part'),
    ('bullet_train cat dog', 'is split into bullet_train, but {}/cat/0.jpg is in none'),
    ('train/cat train/dog pred', 'split into train, but {}/pred/0.jpg is in none of t'),
    ('train/a train/b test/a a', 'split into test, train, but {}/a/0.jpg is in none o'),
    ('train/a train/b test/a x/a', 'into test, train, but {}/x/a/0.jpg is in none of'),
    ('cat/train cat/test dog/test dog', 'into test, train, but {}/dog/0.jpg is in non'),
    ('test/cat test/dog', 'has only the part test, no part train; to split it, give i'),
    ('train/train train/test test/train', 'has test inside of other parts or classes'),
    ('train/a train/b/test test/a', 'has test inside of other parts or classes; if th'),
    ('a/airfield a/alley b/badlands', 'are the classes the 2 folders a, b, or the 3 '
     'in them, a/airfield, a/alley, b/badlands? If they are the upper ones, name all'),
    ('b/brick g/grass', 'classes the 2 folders b, g, or the 2 in them, b/brick, g/'),
    ('material/a material/b gravel', '2 folders gravel, material, or the 2 in them'),
    ('color/apple color/fig grey/apple grey/fig', '2 folders color, grey, or the 4'),
    ('cells/a cells/b a b', 'the 3 folders a, b, cells, or the 2 in them, cells/a, ce'),
    ('train/a/images train/b/images val/images test/images', 'val/images/0.jpg: is n'),
    ('train/x/a train/x/b train/y/c test/x/a', 'the 2 folders x, y, or the 3 in them')])
def test_doubtful_folders_are_refused(tmp_path, folders, complaint):
    make(tmp_path, names_of(folders, 2))
    status, output = write_lists(tmp_path, '--out', tmp_path)
    assert status == 2 and complaint.format(tmp_path) in output, output
    assert output.startswith('%s' % tmp_path) and output.count('\n') == 1
    assert not (tmp_path / 'train.txt').exists()


@pytest.mark.parametrize('folders, names', [
    ('cat dog test', 'cat dog test'), ('cat bullet_train', 'cat bullet_train'),
    ('x_train y_test', 'y_test x_train'), ('a/airfield a/alley b/badlands', 'a b'),
    ('train/a train/train test/a test/train', 'train a')])
def test_names_in_a_file_are_classes(tmp_path, folders, names):
    path = write(tmp_path, names.replace(' ', '\n'))
    found, classes, _ = split(tmp_path, names_of(folders), '--classes', path)
    assert classes == names.split()


def lists_of(found):
    """Return {path: name of its list}."""
    return {path: name for name, pairs in found.items() for path, _ in pairs}


def test_shares_are_met_and_more_pictures_do_not_move_the_others(tmp_path):
    names = names_of('a b c', 200)
    before = lists_of(split(tmp_path, names, '--split', 70, 20, 10)[0])
    assert sorted(before) == sorted(names)
    counts = [list(before.values()).count(name) for name in ('train', 'val', 'test')]
    for count, share in zip(counts, [420, 120, 60]):
        assert abs(count - share) < 36  # over 3 standard deviations
    after = lists_of(split(tmp_path, names_of('a aa d', 250), '--force',
                           '--split', 70, 20, 10)[0])
    assert len(after) == 250 * 3 + 400 and before.items() <= after.items()
    assert before != lists_of(split(tmp_path, names, '--force', '--seed', 1,
                                    '--split', 70, 20, 10)[0])


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize('seed', range(4))
def test_few_pictures_fill_training_first_and_all_lists(tmp_path, count, seed):
    found, _, output = split(tmp_path, names_of('a b c', count) + names_of('d', 9),
                             '--seed', seed)
    for label in '012':
        counts = [[its for _, its in found[name]].count(label)
                  for name in ('train', 'val', 'test')]
        assert sum(counts) == count and counts[:count].count(0) == 0
        assert ('Warning: val.txt has no picture of a, b, c\n' in output) == (count < 2)
        assert ('Warning: test.txt has no picture of a, b, c\n' in output) == (
            count < 3)


def test_a_test_list_that_would_be_empty_is_not_written(tmp_path):
    found, _, output = split(tmp_path, names_of('a b', 2))
    assert [len(found[name]) for name in found] == [2, 2] == [
        len(found['train']), len(found['val'])]
    assert 'Warning: too few pictures for a test.txt\n' in output
    assert '--test_file' not in output


def test_groups_stay_together(tmp_path):
    names = ['%s/p%d_%d.jpg' % (name, i, j) for name in 'ab' for i in range(30)
             for j in range(3)]
    found, _, _ = split(tmp_path, names, '--group', r'p(\d+)_')
    list_of = {}
    for name, pairs in found.items():
        for path, _ in pairs:
            group = re.search('p[0-9]+', path).group()
            assert list_of.setdefault(group, name) == name
    assert len(sum(found.values(), [])) == 180 and len(list_of) == 30
    found, _, _ = split(tmp_path, ['a/p%d_9.jpg' % i for i in range(40)], '--force',
                        '--group', r'p(\d+)_')
    assert all(list_of.get(re.search('p[0-9]+', path).group(), name) == name
               for name, pairs in found.items() for path, _ in pairs)
    make(tmp_path / 'photos', ['b/x.jpg'])
    assert write_lists(
        tmp_path / 'photos', '--out', tmp_path, '--group', r'p(\d+)_') == (
        2, '--group p(\\d+)_: finds nothing in the path b/x.jpg\n')
    assert write_lists(tmp_path / 'photos', '--out', tmp_path, '--group', '^.') == (
        2, '%s: too few groups for a val.txt\n' % (tmp_path / 'photos'))
