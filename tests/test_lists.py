"""python datagenerator.py: from a folder of pictures to lists."""
import os
import subprocess
import sys

import pytest

from datagenerator import read_list
from golden import HERE


def make(folder, names):
    """Write files, whose content is the name, or the text behind a =, and list them."""
    for name in names:
        name, _, content = name.partition('=')
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(content or name))


def command(*arguments, **kwargs):
    process = subprocess.run(
        [sys.executable, os.path.join(os.path.dirname(HERE), 'datagenerator.py')] +
        [str(argument) for argument in arguments], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, universal_newlines=True, **kwargs)
    return process.returncode, process.stdout


def read(out):
    """Return {list: [(path, label)]} with the real paths."""
    found = {}
    for name in ('train', 'val', 'test'):
        paths, labels, _ = read_list(str(out / (name + '.txt')), 9)
        found[name] = [(os.path.realpath(path), label)
                       for path, label in zip(paths, labels)]
    return found


def test_folder_of_folders_is_split_by_class(tmp_path):
    photos, out = tmp_path / 'my photos', tmp_path / 'lists'
    make(photos, ['cat/%d.jpg' % i for i in range(40)] +
         ['dog/notes.txt', 'cat/.x.jpg', '.trash/cat/1.jpg'] +
         ['../elsewhere/deep/%d.PNG' % i for i in range(20)])
    (photos / 'dog' / 'linked').symlink_to(tmp_path / 'elsewhere')
    status, output = command(photos, '--out', out)
    assert status == 0, output
    assert (out / 'classes.txt').read_text() == 'cat\ndog\n'
    found = read(out)
    counts = {name: [[label for _, label in samples].count(label) for label in (0, 1)]
              for name, samples in found.items()}
    assert counts == {'train': [28, 14], 'val': [6, 3], 'test': [6, 3]}
    assert [line.split() for line in output.splitlines()] == [
        ['class', 'label', 'train', 'val', 'test'], ['cat', '0', '28', '6', '6'],
        ['dog', '1', '14', '3', '3']]
    everything = sum(found.values(), [])
    assert len(set(everything)) == 60
    assert all(('cat' in path) == (label == 0) for path, label in everything)


def test_names_like_kaggles_tell_the_class(tmp_path):
    make(tmp_path, ['%s.%d.jpg' % (name, i) for name in ('cat', 'dog')
                    for i in range(10)] + ['#odd name.7.jpg'])
    status, output = command(tmp_path, '--split', 50, 50, 0, '--out', tmp_path)
    assert status == 0, output
    assert (tmp_path / 'classes.txt').read_text() == '#odd name\ncat\ndog\n'
    with pytest.raises(ValueError, match='no samples'):  # of test.txt
        read(tmp_path)
    lines = (tmp_path / 'train.txt').read_text() + (tmp_path / 'val.txt').read_text()
    assert lines.count('\n') == 21 and './#odd name.7.jpg 0' in lines


def test_equal_pictures_never_land_in_two_lists(tmp_path):
    make(tmp_path, ['%s/%d.jpg=content %d' % (name, i, i % 7)
                    for name in ('a', 'b') for i in range(50)])
    assert command(tmp_path, '--out', tmp_path)[0] == 0
    contents = [{open(path, 'rb').read() for path, _ in samples}
                for samples in read(tmp_path).values()]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 7


def test_same_seed_same_lists_and_nothing_is_overwritten(tmp_path):
    make(tmp_path, ['%s/%d.jpg' % (name, i) for name in ('a', 'b') for i in range(50)])
    assert command('.', cwd=str(tmp_path))[0] == 0
    first = (tmp_path / 'train.txt').read_text()
    status, output = command('.', '--seed', 1, cwd=str(tmp_path))
    assert status == 1 and 'train.txt' in output and '--force' in output
    assert (tmp_path / 'train.txt').read_text() == first
    assert command('.', '--force', cwd=str(tmp_path))[0] == 0
    assert (tmp_path / 'train.txt').read_text() == first
    assert command('.', '--force', '--seed', 1, cwd=str(tmp_path))[0] == 0
    assert (tmp_path / 'train.txt').read_text() != first


@pytest.mark.parametrize('names, complaint', [
    (['a/1.jpg'], 'pictures of 1 classes found'),
    ([], 'no pictures there'),
    (['a/1.jpg', 'b/1.jpg', 'lonely.jpg'], 'lonely.jpg: lies in no subfolder'),
    (['a/1.jpg', 'b\nc/1.jpg'], r"b\nc/1.jpg': is not UTF-8, has several lines"),
    (['a/1.jpg', ' /1.jpg'], 'has a class without a name'),
    (['a/1.jpg', 'b/\udce9.jpg'], r"b/\udce9.jpg': is not UTF-8"),
    (['a/1.jpg', 'b/1.jpg', 'train.txt/x'], "Is a directory: '")])
def test_folders_that_give_no_lists_are_errors(tmp_path, names, complaint):
    make(tmp_path, names)
    status, output = command(tmp_path, '--out', tmp_path, '--force')
    assert status == 1 and complaint in output and 'Traceback' not in output
    assert not (tmp_path / 'train.txt').is_file()


def test_links_in_a_circle_are_an_error(tmp_path):
    make(tmp_path, ['a/1.jpg', 'b/1.jpg'])
    (tmp_path / 'a' / 'up').symlink_to(tmp_path)
    status, output = command(tmp_path, '--out', tmp_path)
    assert status == 1 and 'Too many levels of symbolic links' in output


@pytest.mark.parametrize('split', [(-1, 1, 1), (0, 1, 1), ('nan', 1, 1), (1, 'inf', 1)])
def test_wrong_shares_are_errors(tmp_path, split):
    status, output = command(tmp_path, '--split', *split)
    assert status == 1 and '--split: the shares must be 0 or more' in output


def test_list_without_a_picture_of_a_class_is_pointed_out(tmp_path):
    make(tmp_path, ['%s.%d.jpg' % (name, i) for name, count in [
        ('few', 4), ('many', 40)] for i in range(count)])
    status, output = command(tmp_path, '--out', tmp_path)
    assert status == 0 and 'Warning: val.txt has no picture of few\n' in output
    assert output.count('Warning') == 1


def test_help_tells_the_settings_of_a_script():
    for script in ['finetune.py', 'predict.py']:
        output = subprocess.check_output(
            [sys.executable, os.path.join(os.path.dirname(HERE), script), '--help'],
            universal_newlines=True)
        assert '--batch_size=' in output and 'or give them' in output
        assert '--best_path' not in output and '--places' not in output
