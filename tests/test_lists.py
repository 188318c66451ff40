"""Lists of pictures, as programs and people write them, and their faults."""
import os
from types import SimpleNamespace

import pytest

from machinery.class_names import choose_class_names
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.lists import find_pictures, has_labels, read_class_names, read_list
from machinery.workers import Workers


def make(folder, names):
    """Write files; the content is the name, or what stands after a =."""
    for name in names:
        name, _, content = name.partition('=')
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(content or name))


def write(tmp_path, text, name='list.txt', encoding='utf-8'):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return str(path)


def fault(tmp_path, text, num_classes=2):
    """Return the message about a list, without its first line, which names the list."""
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_list(path, OneClass(range(num_classes)))
    first, *faults = str(error.value).split('\n  ')
    assert first == path + ':'
    return faults


def test_list_syntax(tmp_path):
    names = ['0.png', 'my photo.png', 'ümläut.png', 'with space/a.png']
    make(tmp_path, names)
    text = ('# a comment\r\n0.png 0\r\n\r\n  my photo.png \t 1 \nümläut.png 1\n'
            'with space/a.png 0\n%s 1' % (tmp_path / 'my photo.png'))
    for encoding in ['utf-8', 'utf-8-sig']:
        paths, labels, line_numbers = read_list(
            write(tmp_path, text, encoding=encoding), OneClass(range(2)))
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
    paths, labels, _ = read_list(path, OneClass(range(2)))
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
        read_list(str(tmp_path / 'none.txt'), OneClass(range(2)))
    path = write(tmp_path, 'café.png 0\n', encoding='latin-1')
    with pytest.raises(InputError, match='list.txt, line 1: .*0xe9.*: save it as'):
        read_list(path, OneClass(range(2)))
    path = write(tmp_path, 'a.png 0\n', encoding='utf-16-le')
    with pytest.raises(InputError, match='list.txt, line 1: this is not a text file'):
        read_list(path, OneClass(range(2)))
    assert fault(tmp_path, 'a.png cat\n' * 30)[::10] == [
        "line 1: label 'cat' is not an integer",
        "line 6: label 'cat' is not an integer", 'and 40 more']


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
    with pytest.raises(InputError, match='list.txt, line 1: .*0xe9'):
        read_class_names(write(tmp_path, 'café\nchat\n', encoding='latin-1'), 2)
    with pytest.raises(InputError, match='none.txt: No such file or directory'):
        read_class_names(str(tmp_path / 'none.txt'), 2)


def find(run=None, **settings):
    run = run or SimpleNamespace(latest=None, is_resumed=False, workers=Workers())
    defaults = dict.fromkeys(['train_file', 'val_file', 'test_file', 'num_classes',
                              'pictures_path'])
    defaults.update(classes_file='DEFAULT', labels='class')
    return choose_class_names({**defaults, **settings}, run, 'fc8')


def test_number_of_classes_is_that_of_the_names_or_labels(tmp_path):
    path = write(tmp_path, '# none\npath,label\na.jpg,0\nb 4.jpg,3\nno label\n')
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
