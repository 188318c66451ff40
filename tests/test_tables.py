"""Lists as Kaggle, pandas, spreadsheets and people write them."""
import os
import re
import unicodedata

import numpy as np
import pytest

from datagenerator import ImageDataGenerator
from helpers import ROOT, checkpoint_of, finetune, outputs_in, run_program
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.lists import find_pictures, has_labels, read_list
from machinery.model_file import read_model
from test_lists import find as choose

NAMES = ['ant', 'bee', 'cow']


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for name in ['a.jpg', 'b.jpg', 'my photo.jpg', '0001.jpg', '0002.png',
                 'a,b.jpg', '#1.jpg', '#2/c.jpg', 'both.jpg', 'both.png', 'class1.jpg']:
        write(tmp_path / name, name)
    return tmp_path


def read(folder, text, class_names=range(3), **arguments):
    """Return [(path from the folder, label)] of a list with this text."""
    path = write(folder / 'list.csv', text)
    paths, labels, _ = read_list(path, OneClass(class_names), **arguments)
    return [(os.path.relpath(path, str(folder)), label)
            for path, label in zip(paths, labels)]


@pytest.mark.parametrize('text', [
    'id,breed\na,bee\n0002,cow\n',  # Kaggle
    'image_id,ant,bee,cow\na.jpg,0,1,0\n0002.png,0,0,1\n',  # one-hot
    'image_id,ant,bee,cow\na,False,True,False\n0002,False,False,True\n',  # of pandas
    ',path,label\n0,a.jpg,bee\n1,0002.png,cow\n',  # of pandas, with its index
    'Unnamed: 0,path,label\n0,a.jpg,1.0\n1,0002.png,2.0\n',
    '0,a.jpg,1\n1,0002.png,2\n',
    'label,path\n1,a.jpg\n2,0002.png\n', 'ClassId;ImageName\n1;a.jpg\n2;0002.png\n',
    'filename\tcategory\na.jpg\tbee\n0002.png\tcow\n', 'a.jpg bee\n0002.png cow\n',
    '"path","label"\r"a.jpg","1"\r"0002.png","2"\r', 'a.jpg,1,\n0002.png,2,\n',
    'path label\na.jpg 1\n0002.png 2\n', 'file.name,width,label1\na,9,1\n0002,9,2\n'])
def test_tables_are_read(folder, text):
    assert read(folder, text, class_names=NAMES) == [('a.jpg', 1), ('0002.png', 2)]
    path = str(folder / 'list.csv')
    assert has_labels(path)


@pytest.mark.parametrize('text, expected', [
    ('id\n0001\n0002\n', ['0001.jpg', '0002.png']),
    ('id\nmy photo.jpg\n"my photo.jpg"\n', 2 * ['my photo.jpg']),
    ('a,b.jpg\na.jpg\n', None),
    ('a.jpg\n#1.jpg\n#2/c.jpg\n# no picture\n', ['a.jpg', '#1.jpg', '#2/c.jpg']),
    ('filename;width;height\na;3;1\nb;3;1\n', ['a.jpg', 'b.jpg']),
    ('id,ant,bee\na,0.3,0.7\n0001,1,0\n', ['a.jpg', '0001.jpg']),  # to be submitted
    ('path,height\na,0\n0001,1\n', ['a.jpg', '0001.jpg']),
    ('"a,b.jpg"\nb.jpg\n', ['a,b.jpg', 'b.jpg'])])
def test_lists_of_pictures_alone_are_read(folder, text, expected):
    path = write(folder / 'list', text)
    assert not has_labels(path)
    assert find_pictures(path) == [str(folder / name)
                                   for name in expected or text.split()]


def test_a_comment_is_no_picture(folder):
    assert read(folder, '#1.jpg 0\n# a 1\n#3 2\n#2/c.jpg 1\n') == [
        ('#1.jpg', 0), ('#2/c.jpg', 1)]
    assert read(folder, 'path,label\n#1,2\n') == [('#1.jpg', 2)]


def test_a_missing_picture_is_no_comment(folder):
    with pytest.raises(InputError, match='line 3: no such file: .*#3.jpg'):
        read(folder, '#1.jpg 0\n# a comment\n#3.jpg 2\n')


def test_lines_without_a_path_are_named(folder):
    path = write(folder / 'list', 'id,width\na,5\nb,5,6\n')
    with pytest.raises(InputError, match='list:\n  line 3: 3 cells, but the first'):
        find_pictures(path)


def test_a_picture_is_no_header(folder):
    """Its name is that of a column, and so is its class."""
    assert read(folder, 'class1,ant\na,bee\n', class_names=NAMES) == [
        ('class1.jpg', 0), ('a.jpg', 1)]


@pytest.mark.parametrize('form, other', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_composed_and_decomposed_letters_are_the_same(tmp_path, form, other):
    name = unicodedata.normalize(form, 'Größe/é.jpg')
    write(tmp_path / name, '')
    text = unicodedata.normalize(other, '\u200bGröße/é.jpg 0\nGröße\\é 0\n')
    assert read(tmp_path, text) == 2 * [(name, 0)]


def test_pictures_may_be_elsewhere(folder, tmp_path_factory):
    path = write(tmp_path_factory.mktemp('lists') / 'list.csv', 'a.jpg 0\n0001 1\n')
    with pytest.raises(InputError, match='no such file: .*/lists0/a.jpg'):
        read_list(path, OneClass(range(2)))
    expected = [str(folder / 'a.jpg'), str(folder / '0001.jpg')]
    assert read_list(path, OneClass(range(2)), pictures_path=str(folder))[0] == expected
    write(tmp_path_factory.getbasetemp() / 'alone', 'a.jpg\n0001\n')
    assert find_pictures(str(tmp_path_factory.getbasetemp() / 'alone'),
                         str(folder)) == expected


@pytest.mark.parametrize('text, message', [
    ('a.jpg,ant\nb.jpg,be\n',
     "line 2: no class is called 'be'; the nearest is 'bee'"),
    ('A.JPG 0\n', 'line 1: no such file: {0}/A.JPG, but there is {0}/a.jpg'),
    ('both 0\n', 'line 1: {0}/both fits several pictures: both.jpg, both.png'),
    ('a.jpg,0\n"a,b.jpg",1\na,b.jpg,1\n', 'line 3: 3 cells, but the first line has 2; '
     "quote a cell that holds a ','"),
    ('a.jpg,0,1\nb.jpg,0,1\n', 'line 1: 3 cells, expected a path and a label; or a '
     'header that names the columns'),
    ('id,ant,bee\na,0,0\nb,1,1\n0001,0,1\n', 'line 2: 0 of the columns ant, bee are 1, '
     'must be one'),
    ('id,ant,bee\n' + 'a,0,1\n' * 100 + 'b,0.5,1\n',
     'line 102: the columns ant, bee are not 0 and 1 (one-hot)'),
    ('a.jpg grey ant\n', 'line 1: no such file: {0}/a.jpg grey; the label starts '
     'after the last white space, so names with spaces need a table, such as CSV'),
    ('1 a.jpg\n2 b.jpg\n', "line 1: label 'a.jpg' is the name of a picture; paths come "
     'first, or a header names the columns'),
    ('path,label\na.jpg,\n,1\n', "line 2: no label after 'a.jpg,'"),
    ('path,label\na.jpg,0\n,1\n', "line 3: no path in ',1'"),
    ('a.jpg 0,2\nb.jpg 1\n', "line 1: label '0,2' is not an integer"),
    ('a.jpg ant\nb.jpg 1\n',
     "line 2: no class is called '1'; the classes are ant, bee, cow")])
def test_faults_are_named(folder, text, message):
    with pytest.raises(InputError) as error:
        read(folder, text, class_names=NAMES)
    assert str(error.value).split('\n  ')[1] == message.format(folder)


def test_a_path_from_the_current_folder_is_pointed_out(folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = write(folder / 'lists' / 'list.csv', 'a.jpg 0\n')
    with pytest.raises(InputError, match='lists/a.jpg; a.jpg exists in the current '
                       "folder, but relative paths start at the list's folder: give "
                       'pictures_path, or write the path from there'):
        read_list(path, OneClass(range(3)))


def test_headers_without_the_columns_are_named(folder):
    write(folder / '1.jpg', '')
    for text, message in [
            ('label,label\n0,1\n', 'line 1: 2 columns are called label'),
            ('label\n0\n', 'line 1: no column of the header can be the path'),
            ('id\n0001\n', 'no column has labels'),
            ('id,x,y\na,0.5,3\n', 'line 1: which column has the labels, x, y. Call it'),
            ('id,class_id,class_name\na,0,ant\n', 'the labels, class_id, class_name'),
            ('id,label,data set\na,0,test\nb,1,train\n', 'column data set names parts'),
            ('Dateiname;Art\na;ant\nb;ant\n', 'line 1: no such file: Dateiname; if '
             'this is a header, call the columns path and label'),
            ('Dateiname;Art\na.jpg;0\nb.jpg;1\n', 'line 1: no such file: Dateiname;')]:
        with pytest.raises(InputError, match=message):
            read(folder, text, class_names=NAMES, check_files=False)


@pytest.mark.parametrize('text', [
    'path,label_quality,label\na,0,1\nb,0,2\n',
    'path,label,label_name\na,1,x\nb,2,x\n',
    'path,class_count,class\na,7,1\nb,7,2\n', 'id,img,label\n1,a.jpg,1\n2,b.jpg,2\n',
    'class id,filepaths,labels\n7,a.jpg,bee\n8,b.jpg,cow\n',
    'sep=;\nimage;label\na;1\nb;2\n', '# 0;x;y\n' * 120 + 'a.jpg,1\nb.jpg,2\n',
    'image,label\na,1\nb,2\n'])
def test_the_column_of_the_labels_is_the_surest_one(folder, text):
    write(folder / 'image.jpg', '')  # which is no reason to take line 1 for a picture
    write(folder / '1.jpg', '')
    found = read(folder, text, class_names=NAMES)
    assert [label for _, label in found] == [1, 2]
    assert [path for path, _ in found] == ['a.jpg', 'b.jpg']


def test_one_hot_columns_may_be_called_classes(folder):
    text = 'id,class_1,class_2\na,0,1\nb,1,0\n'
    assert read(folder, text, class_names=['class_1', 'class_2']) == [
        ('a.jpg', 1), ('b.jpg', 0)]


def test_columns_may_stand_in_another_order(folder):
    expected = [('a.jpg', 1), ('b.jpg', 2)]
    for text in ['id,ant,bee,cow\na,0,1,0\nb,0,0,1\n',
                 'cow,id,bee,ant\n0,a,1,0\n1,b,0,0\n', 'breed,id\nbee,a\ncow,b\n']:
        assert read(folder, text, class_names=NAMES) == expected


def test_a_missing_picture_is_no_header(folder):
    for text in ['image_1,ant\nimage_2,ant\n', 'image_1,ant\na,ant\n0001,bee\n']:
        with pytest.raises(InputError, match='line 1: no such file: .*image_1'):
            read(folder, text, class_names=NAMES)


def test_names_that_look_the_same_are_the_same(folder):
    name = unicodedata.normalize('NFD', 'Käse  alt')
    path = write(folder / 'train.csv', 'a,%s\nb,Brot\n0001,Käse alt\n' % name)
    assert choose(train_file=path) == ['Brot', 'Käse alt']
    kind = OneClass(['Brot', 'Käse alt'])
    assert read_list(path, kind)[1].tolist() == [1, 0, 1]
    path = write(folder / 'train.csv', 'a,Ant\nb,ant\n')
    with pytest.raises(InputError, match='only in upper and lower case: Ant, ant'):
        choose(train_file=path)


def test_numbers_and_names_are_told_apart_for_all_lists_of_a_run(folder):
    """One list alone would not tell that 1 is a name, and not number 1."""
    names = write(folder / 'names', 'A\nB\n1\n')
    train = write(folder / 'train.csv', 'a,A\nb,B\n0001,1\n')
    numbers = write(folder / 'val.csv', '0002,1\n')
    with pytest.raises(InputError, match='train.csv has names for classes, unlike'):
        choose(train_file=train, val_file=numbers, classes_file=names)
    assert choose(train_file=numbers, val_file=numbers, classes_file=names) == [
        'A', 'B', '1']


def test_classes_are_the_sorted_names_of_the_training_list(folder):
    train = write(folder / 'train.csv', 'id,breed\na,cow\nb,ant\n0001,bee\n')
    hot = write(folder / 'hot.csv', 'id,cow,bee,ant\na,1,0,0\nb,0,0,1\n')
    numbers = write(folder / 'numbers.csv', 'id,label\na,0\nb,1\n')
    assert choose(train_file=train) == choose(train_file=hot) == NAMES
    assert choose(train_file=train, val_file=hot, classes_file=None) == NAMES
    assert choose(train_file=train, num_classes=3) == NAMES
    assert choose(train_file=numbers) == ['0', '1']
    with pytest.raises(InputError, match='train.csv has names of 3 classes, but'):
        choose(train_file=train, num_classes=4)
    with pytest.raises(InputError, match='train.csv has names for classes, unlike .*'
                       'numbers.csv: write names in both'):
        choose(train_file=train, val_file=numbers)
    with pytest.raises(InputError, match='one class, ant; at least 2'):
        choose(train_file=write(folder / 'one.csv', 'a,ant\nb,ant\n'))
    names = write(folder / 'names', 'cow\nant\nbee\n')
    assert choose(train_file=train, val_file=numbers, classes_file=names)[0] == 'cow'


def test_numbers_stay_numbers_where_classes_are_called_so(folder):
    """datagenerator.py writes numbers, also for folders that are called 0, 1 and 10."""
    assert read(folder, 'a.jpg 1\nb.jpg 0\n', class_names=['10', '1', '0']) == [
        ('a.jpg', 1), ('b.jpg', 0)]
    assert read(folder, 'a.jpg 1\nb.jpg 0\n', class_names=['10', 'ant', '0']) == [
        ('a.jpg', 1), ('b.jpg', 0)]
    names = ['2001', 'ant', '1']
    assert read(folder, 'a.jpg ant\nb.jpg 2001\n', class_names=names) == [
        ('a.jpg', 1), ('b.jpg', 0)]


def test_paths_and_labels_in_place_of_a_list(folder, monkeypatch):
    monkeypatch.chdir(folder)
    labels = np.array([1, 0, 1])
    for pairs in [(['a.jpg', 'b', folder / '0001'], labels),
                  (np.array(['a.jpg', 'b.jpg', '0001']), [1.0, 0.0, 1.0])]:
        data = ImageDataGenerator(pairs)
        assert list(map(os.path.basename, data.paths)) == ['a.jpg', 'b.jpg', '0001.jpg']
        assert data.labels.tolist() == [1, 0, 1] and data.data_size == 3
    data = ImageDataGenerator((['a', 'b'], ['bee', 'ant']), kind=OneClass(NAMES))
    assert data.labels.tolist() == [1, 0] and data.n_classes == 3
    for pairs, message in [
            ((['a.jpg'], [0, 1]), 'expected a list file, or (paths, labels) of the'),
            ((['a.jpg', 'x.jpg'], [0, 1]),
             'the given paths:\n  line 2: no such file: x'),
            ((['a.jpg'], [2]), 'the given paths:\n  line 1: label 2 is not in 0..1'),
            ([('a.jpg', 0), ('b.jpg', 1), ('a.jpg', 0)], 'expected a list file, or'),
            (([], []), 'the given paths:\n  no samples in it')]:
        with pytest.raises(InputError) as error:
            ImageDataGenerator(pairs)
        assert str(error.value).startswith(message)


def write_named(path, name, is_one_hot=False, without=None):
    """Write a list of the sample as Kaggle would: ids and names, or one-hot columns."""
    with open(os.path.join(ROOT, 'images', name)) as file:
        pairs = [line.rsplit(None, 1) for line in file]
    names = ['brick', 'grass', 'gravel']
    rows = [['id', *(names if is_one_hot else ['breed'])]]
    for picture, label in pairs:
        if names[int(label)] != without:
            cells = ([str(int(name == names[int(label)])) for name in names]
                     if is_one_hot else [names[int(label)]])
            rows.append([os.path.splitext(picture)[0], *cells])
    return write(path, ''.join(','.join(row) + '\n' for row in rows))


@pytest.mark.usefixtures('narrow_network')
def test_names_are_kept_for_resuming_and_predicting(tmp_path, narrow_file):
    pictures = '--pictures_path=' + os.path.join(ROOT, 'images')
    train = write_named(tmp_path / 'train.csv', 'test.txt')
    val = write_named(tmp_path / 'val.csv', 'test.txt', is_one_hot=True)
    job = ['--train_file=' + train, '--val_file=' + val, pictures, '--num_epochs=1',
           "--train_layers=['fc8']", '--weights_path=' + narrow_file]
    status, output = finetune(str(tmp_path), *job)
    assert status == 0, output
    accuracy = re.search('validation accuracy ([0-9.]+)', output).group(1)
    assert 'python predict.py %s --pictures_path ' % val in output
    checkpoint = checkpoint_of(tmp_path, 1)
    for path in train, val:
        status, output = run_program('predict.py', path, pictures,
                                     '--checkpoint=' + checkpoint)
        assert status == 0 and 'Accuracy: %s of 27' % accuracy in output, output
    # Without bricks in the list, 0 would be grass.
    write_named(tmp_path / 'train.csv', 'test.txt', without='brick')
    status, output = finetune(str(tmp_path), *job, '--num_epochs=2', '--resume=True',
                              *outputs_in(tmp_path))
    assert status == 0 and 'has no sample of class brick (lab' in output, output
    assert read_model(checkpoint)['class_names'] == ['brick', 'grass', 'gravel']
    write(tmp_path / 'train.csv', 'id,breed\ntextures/brick/val_01,stone\n')
    status, output = finetune(str(tmp_path), *job, '--num_epochs=3', '--resume=True',
                              *outputs_in(tmp_path))
    assert status == 2 and "no class is called 'stone'; the classes are br" in output
