"""Lists of pictures, written by python datagenerator.py or by hand; their faults."""
import os
import re
import shutil
from types import SimpleNamespace

import pytest

from helpers import ROOT, run_program
from machinery.class_names import choose_class_names
from machinery.errors import InputError
from machinery.lists import find_pictures, has_labels, read_class_names, read_list
from machinery.workers import Workers


def make(folder, names):
    """Write files; the content is the name, or what stands after a =."""
    for name in names:
        name, _, content = name.partition('=')
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(content or name))


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


def write(tmp_path, text, name='list.txt', encoding='utf-8'):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def fault(tmp_path, text, num_classes=2):
    """Return the message about a list, without its first line, which names the list."""
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_list(path, num_classes)
    first, *faults = str(error.value).split('\n  ')
    assert first == path + ':'
    return faults


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


def test_list_syntax(tmp_path):
    names = ['0.png', 'my photo.png', 'ümläut.png', 'with space/a.png']
    make(tmp_path, names)
    text = ('# a comment\r\n0.png 0\r\n\r\n  my photo.png \t 1 \nümläut.png 1\n'
            'with space/a.png 0\n%s 1' % (tmp_path / 'my photo.png'))
    for encoding in ['utf-8', 'utf-8-sig']:
        paths, labels, line_numbers = read_list(
            write(tmp_path, text, encoding=encoding), 2)
        assert paths == [str(tmp_path / name) for name in names + ['my photo.png']]
        assert labels.tolist() == [0, 1, 1, 0, 1]
        assert line_numbers.tolist() == [2, 4, 5, 6, 7]
        assert labels.dtype == line_numbers.dtype == 'int32'


@pytest.mark.parametrize('text', [
    'a b.png,0\nc.png,1\n', 'path,label\na b.png,0\nc.png,1\n',
    'a b.png;0\r\nc.png;1\r\n', '"a b.png" 0\n"c.png" 1\n',
    '"a b.png",0\nc.png, 1\n', '"a b.png", 0\nc.png ,1\n',
    '.\\a b.png 0\n.\\c.png 1\n', 'a b.png\t0\nc.png\t1\n'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_lists_of_other_programs(tmp_path, text, encoding):
    make(tmp_path, ['a b.png', 'c.png'])
    path = write(tmp_path, text, 'list.csv', encoding)
    paths, labels, _ = read_list(path, 2)
    assert [os.path.normpath(path) for path in paths] == [
        str(tmp_path / 'a b.png'), str(tmp_path / 'c.png')]
    assert labels.tolist() == [0, 1] and has_labels(path)
    paths_alone = write(tmp_path, 'a b.png\n# no\nc.png\n', 'list', encoding)
    assert not has_labels(paths_alone)
    assert find_pictures(paths_alone) == [str(tmp_path / 'a b.png'),
                                          str(tmp_path / 'c.png')]


def test_all_faults_of_a_list_are_reported_together(tmp_path):
    make(tmp_path, ['0.png', '1.png'])
    assert fault(tmp_path, '0.png 0\nnone.png 0\n1.png\n1.png one\n1.png 2\n'
                           '1.png -1\n1.png 0.5\n./0.png 1\nnone.png 7\n') == [
        'line 2: no such file: %s/none.png' % tmp_path,
        "line 3: no label after '1.png'",
        "line 4: label 'one' is not an integer", 'line 5: label 2 is not in 0..1',
        'line 6: label -1 is not in 0..1', "line 7: label '0.5' is not an integer",
        'line 8: label 1, but label 0 in an earlier line: %s/./0.png' % tmp_path,
        'line 9: label 7 is not in 0..1',
        'line 9: no such file: %s/none.png' % tmp_path,
        'the labels run -1..7, but labels start at 0 and num_classes is 2']


def test_wrong_labels_get_a_hint_at_the_end(tmp_path):
    make(tmp_path, ['0.png', '1.png'])
    hint = 'the labels run 1..2, but labels start at 0 and num_classes is 2'
    assert fault(tmp_path, '0.png 1\n1.png 2\n') == [
        'line 2: label 2 is not in 0..1', hint]
    assert fault(tmp_path, '0.png 1\n' + '1.png 2\n' * 22)[19:] == [
        'line 21: label 2 is not in 0..1', 'and 2 more', hint]
    assert fault(tmp_path, '0.png 0\n' + '1.png 4\n' * 2) == [
        'line 2: label 4 is not in 0..1', 'line 3: label 4 is not in 0..1',
        'the labels run 0..4, but labels start at 0 and num_classes is 2']


def test_faults_beyond_20_are_counted(tmp_path):
    faults = fault(tmp_path, 'none.png 0\n' * 50)
    assert len(faults) == 21 and faults[-2].startswith('line 20: ')
    assert faults[-1] == 'and 30 more'


def test_empty_missing_and_foreign_lists_are_named(tmp_path):
    assert fault(tmp_path, '') == fault(tmp_path, '# x\n\n') == ['no samples in it']
    with pytest.raises(InputError, match='none.txt: No such file or directory'):
        read_list(str(tmp_path / 'none.txt'), 2)
    path = write(tmp_path, 'café.png 0\n', encoding='latin-1')
    with pytest.raises(InputError, match='list.txt, line 1: .*0xe9.*: save it as'):
        read_list(path, 2)
    path = write(tmp_path, 'a.png 0\n', encoding='utf-16-le')
    with pytest.raises(InputError, match='list.txt, line 1: this is not a text file'):
        read_list(path, 2)
    assert fault(tmp_path, 'a.png cat\n' * 30)[::10] == [
        "line 1: label 'cat' is not an integer",
        "line 11: label 'cat' is not an integer", 'and 10 more']


def test_class_names_are_one_to_a_line(tmp_path):
    path = write(tmp_path, '\ufeffcat\r\n grey dog \r\ncow\r\n\r\n')
    assert read_class_names(path, 3) == read_class_names(path) == [
        'cat', 'grey dog', 'cow']
    assert read_class_names(None, 3) == ['0', '1', '2']
    with pytest.raises(InputError, match='list.txt: expected names of num_classes = 2 '
                                         'classes, found 3'):
        read_class_names(path, 2)
    with pytest.raises(InputError, match='list.txt, line 3: cat is already in line 1'):
        read_class_names(write(tmp_path, 'cat\ndog\ncat\n'), 3)
    with pytest.raises(InputError, match='list.txt, line 2: no name'):
        read_class_names(write(tmp_path, 'cat\n \ndog\n'), 3)
    with pytest.raises(InputError, match='list.txt: .*0xe9'):
        read_class_names(write(tmp_path, 'café\nchat\n', encoding='latin-1'), 2)
    with pytest.raises(InputError, match='none.txt: No such file or directory'):
        read_class_names(str(tmp_path / 'none.txt'), 2)


def find(run=None, classes_file='DEFAULT', train_file=None, num_classes=None):
    run = run or SimpleNamespace(latest=None, is_resumed=False, workers=Workers())
    return choose_class_names(classes_file, train_file, num_classes, run, 'fc8')


def test_number_of_classes_is_that_of_the_names_or_labels(tmp_path):
    path = write(tmp_path, '# none\npath,label\na.jpg,0\nb 4.jpg 3\nno label\n')
    names = write(tmp_path, 'cat\ndog\n', 'names')
    assert find(train_file=path) == ['0', '1', '2', '3']
    for text, count in [('a.jpg 9999999', 10 ** 6), ('a.jpg 0', 2), ('', 2)]:
        assert len(find(train_file=write(tmp_path, text, 'odd.txt'))) == count
    assert find(train_file=path, classes_file=names) == ['cat', 'dog']
    assert find(train_file=path, classes_file=None, num_classes=3) == ['0', '1', '2']
    os.rename(names, str(tmp_path / 'classes.txt'))
    assert find(train_file=path) == ['cat', 'dog']
    assert find(train_file=path, classes_file=None) == ['0', '1', '2', '3']
    with pytest.raises(InputError, match='num_classes is None, must be'):
        find()
