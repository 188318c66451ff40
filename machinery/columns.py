"""Split the lines of a table into cells, and find columns by their names."""
import csv
import re

from machinery.find import PICTURE_ENDINGS

DELIMITERS = ['\t', ';', ',', None]  # None: a line's last white space
# Words in column names, the most telling first. ClassId has the words class and id.
LABEL_WORDS = ['label', 'labels', 'class', 'breed', 'category']
PATH_WORDS = ['path', 'filepath', 'filename', 'file', 'image', 'img', 'picture', 'id',
              'paths', 'filepaths', 'filenames', 'files', 'images']
is_integer = re.compile(r'[+-]?[0-9]{1,18}(\.0*)?').fullmatch
# CelebA writes -1 for no.
is_bit = re.compile(r'-?[01](\.0*)?|true|false', re.I).fullmatch


def has_ending(cell):
    """Tell whether a cell ends like the name of a picture."""
    return cell.strip('"\'').lower().endswith(PICTURE_ENDINGS)


def is_number(cell):
    """Tell whether a cell is a number that float32 can hold."""
    try:
        return '_' not in cell and abs(float(cell)) < 1e30  # False for NaN
    except ValueError:
        return False


def split_line(line, delimiter):
    """Split a line into its cells."""
    if delimiter is None:
        return line.rsplit(None, 1)
    [cells] = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
    return [cell.strip() for cell in cells]


def split_behind_picture(line):
    """Split a line after its first picture path; return the path and the rest."""
    endings = '|'.join(map(re.escape, PICTURE_ENDINGS))
    found = re.match(r'(.*?(?:%s))\s+(.+)' % endings, line, re.I)
    return list(found.groups()) if found else split_line(line, None)


def find_delimiter(lines, split_at_space):
    """Return the delimiter that gives the most lines a cell with a picture's name.

    split_at_space: function that splits a line into cells at white space.
    """
    def count(delimiter):
        rows = [split_line(line, delimiter) if delimiter else split_at_space(line)
                for line in lines]
        rows = [cells[:1] if delimiter is None else cells
                for cells in rows if len(cells) > 1]
        return sum(any(map(has_ending, cells)) for cells in rows), len(rows)
    return max(DELIMITERS, key=count)


def words_in(name):
    """Return the words in a column name, in lower case."""
    return re.findall('[a-z]+', re.sub('([a-z])([A-Z])', r'\1 \2', name).lower())


def find_columns(header, columns, words):
    """Return the columns whose names match these words best; [] without a match.

    A name equal to a word is a better match than a name with a word in it.
    """
    found = {}
    for column in columns:
        name = header[column].lower()
        if name in words:
            found.setdefault(words.index(name), []).append(column)
        elif set(words_in(header[column])) & set(words):
            found.setdefault(len(words), []).append(column)
    return found[min(found)] if found else []


def all_are(test, rows, column):
    """Tell whether a column has cells and all of them pass a test."""
    cells = [row[column] for row in rows if column < len(row)]
    return bool(cells) and all(map(test, cells))
