"""Lists of pictures as tables: the columns and cells of a text file."""
import re

from machinery.columns import (LABEL_WORDS, PATH_WORDS, all_are, find_columns,
                               find_delimiter, has_ending, is_bit, is_number,
                               split_behind_picture, split_line)
from machinery.errors import InputError
from machinery.files import read_text
from machinery.parts import PART_OF
from machinery.text import plain_name

FIRST = 100  # lines from which we find out about the columns
MAX_LENGTH = 10 ** 5  # of a line, in characters


class Table:
    """A list of pictures, as people and other programs write it.

    Its lines are "path label", split at the last white space; or cells between commas,
    semicolons or tabs, with or without a header.

    Args:
        list_path: the text file.
        find: function from a listed path to the path of its file, or None.
        is_labelled: True if each line must have a label; None: find out.
        labels: their kind: 'class', 'classes' or 'numbers'.

    Attributes:
        is_labelled: whether the lines have labels.
        names: the names of the one-hot columns or the columns of numbers, or [].

    Raises:
        InputError: not a text file, or its columns are unclear.
    """

    def __init__(self, list_path, find, is_labelled=True, labels='class'):
        self._path, self._find, self._header = list_path, find, []
        self._labels = labels
        lines = [(line_number, line.strip()) for line_number, line in
                 enumerate(read_text(list_path).split('\n'), 1) if line.strip()]
        for line_number, line in lines:
            if len(line) > MAX_LENGTH:
                raise InputError('%s, line %d: %d characters are more than a path and '
                                 'a label' % (list_path, line_number, len(line)))
        if lines and re.fullmatch('sep=.', lines[0][1]):  # Excel's
            del lines[0]
        sure = [line for _, line in lines if line[0] != '#'] or [
            line for _, line in lines]
        self._delimiter = None
        self._delimiter = find_delimiter(sure[:FIRST], self._split)
        has_hashes = any(line[0] == '#' and not self._is_comment(line)
                         for _, line in lines)
        self._lines = [(line_number, line) for line_number, line in lines
                       if not self._is_comment(line, has_hashes)]
        # The numbers of the columns. If _label is None, a line is a path.
        self._place, self._label, self._several, self._width = 0, 1, [], None
        rows = [self._split(line) for _, line in self._lines[:FIRST]]
        if self._is_header(rows):
            (self._line_number, _), self._header = self._lines.pop(0), rows.pop(0)
            self._name_columns(rows, is_labelled)
        elif rows:
            self._order_columns(rows[0], is_labelled)
        elif not is_labelled:
            self._label = None
        self.is_labelled = self._label is not None or bool(self._several)
        self.names = [plain_name(self._header[column]) for column in self._several]
        for name in self.names:
            if self.names.count(name) > 1:
                self._fail('two columns are called %s' % name)

    def _split(self, line):
        """Return the cells of a line; a label after a picture may have spaces."""
        if self._delimiter is None and self._labels != 'class':
            return split_behind_picture(line)
        return split_line(line, self._delimiter)

    def _is_comment(self, line, has_hashes=False):
        """Tell whether a line starts with # but not with the name of a picture.

        has_hashes: other pictures start with #, so this may be a missing picture.
        """
        if line[0] != '#':
            return False
        path = split_line(line, self._delimiter)[0]
        return not (self._find(line) or self._find(path) or
                    has_hashes and has_ending(path))

    def _is_header(self, rows):
        """Tell whether the first row names columns: no cell is a number or a picture.

        A cell like image_01, which only contains one of our words, may be a missing
        picture. Then all columns must have such names, or be one-hot.
        """
        first, following = (rows + [[], []])[:2]
        if any(map(has_ending, first)):
            return False
        if len(first) > 2 and any(cell.lower() in PATH_WORDS and not self._find(cell)
                                  for cell in first):
            return True  # even if columns are called 2019 and 2020
        if any(map(is_number, first)):
            return False
        if any(cell.lower() in LABEL_WORDS + PATH_WORDS for cell in first):
            return True
        labels, paths = [find_columns(first, range(len(first)), words)
                         for words in (LABEL_WORDS, PATH_WORDS)]
        are_named = paths and (labels or len(first) == 1 or
                               sum(map(bool, map(is_bit, following))) > 1)
        without_digits = [[re.sub('[0-9]', '', cell) for cell in row]
                          for row in (first, following)]
        is_alike = any(here == there for here, there in zip(*without_digits))
        return bool(are_named) and not is_alike and not any(
            cell and self._find(cell) for cell in first)

    def _fail(self, message):
        raise InputError('%s, line %d: %s' % (self._path, self._line_number, message))

    def _name_columns(self, rows, is_labelled):
        """Find the columns by their names and their cells in the first rows."""
        header, self._width = self._header, len(self._header)
        # The index column of pandas has no name.
        columns = [column for column, name in enumerate(header)
                   if name and not name.startswith('Unnamed')]
        labels = find_columns(header, columns, LABEL_WORDS)
        is_sure = bool(labels) and header[labels[0]].lower() in LABEL_WORDS
        if is_sure and len(labels) > 1:
            self._fail('%d columns are called %s' % (len(labels), header[labels[0]]))
        rest = [column for column in columns if column not in labels]
        paths = [column for column in columns if all_are(has_ending, rows, column)]
        named = find_columns(header, rest, PATH_WORDS)
        self._place = (paths + named + rest + [None])[0]
        if self._place in labels + [None]:
            self._fail('no column of the header can be the path')
        others = [column for column in columns if column != self._place]
        self._choose_label(rows, labels, is_sure, others, is_labelled)
        for column in set(others) - {self._label, *self._several}:
            if all_are(lambda cell: cell.lower() in PART_OF, rows, column):
                self._fail('the column %s names parts, like test: write a list for '
                           'each part' % header[column])

    def _choose_label(self, rows, labels, is_sure, others, is_labelled):
        """Choose the column of labels, or the one-hot columns or columns of numbers.

        labels: columns whose names contain a word of LABEL_WORDS, or equal it if
        is_sure; others: all columns except the path.
        """
        self._label = None
        # For a single class, a table has a single one-hot column, not called label.
        least = 1 if self._labels == 'classes' and not labels else 2
        if self._labels == 'numbers':
            # An id or an index cannot be learnt from a picture.
            numbers = [column for column in others
                       if self._header[column].lower() not in ['index', *PATH_WORDS]]
            self._choose_numbers(rows, labels if is_sure else numbers, is_labelled)
        elif len(others) >= least and not is_sure and all(
                all_are(is_bit, rows, column) for column in others):
            self._several = others
        elif len(labels) == 1:
            [self._label] = labels
        elif len(others) == 1 and is_labelled:
            [self._label] = others
        elif is_labelled:
            names = ', '.join(self._header[column] for column in labels or others)
            self._fail('which column has the labels, %s? Call it label; with a column '
                       'for each class, all cells are 0 or 1 (one-hot)' % names
                       if names else 'no column has labels')

    def _choose_numbers(self, rows, columns, is_labelled):
        """Choose these columns if all their cells are numbers or empty."""
        wrong = [self._header[column] for column in columns if not all_are(
            lambda cell: not cell or is_number(cell), rows, column)]
        if columns and (not wrong or is_labelled and len(columns) == 1):
            self._several = columns
        elif is_labelled:
            self._fail('which columns have the numbers? %s has other cells: call one '
                       'column label, or leave the others out' % wrong[0]
                       if wrong else 'no column has numbers')

    def _order_columns(self, cells, is_labelled):
        """Choose the first column with a picture's name, and the next for labels."""
        if self._delimiter:
            self._place = next(filter(lambda column: has_ending(cells[column]),
                                      range(len(cells))), 0)
            # A line may have any number of classes.
            self._width = max(2, len(cells)) if self._labels != 'classes' else None
        self._label = self._place + 1
        if is_labelled is None and not self._seem_labelled(cells):
            self._label = None

    def _seem_labelled(self, cells):
        """Tell if the cells of the first line are a path and a label."""
        _, line = self._lines[0]
        if self._label >= len(cells) or has_ending(cells[-1]) or self._find(line):
            return False
        path = cells[self._place]
        return bool(is_number(cells[self._label]) or has_ending(path)
                    or self._find(path))

    def samples(self):
        """Yield (line number, path, label, fault) of each line, the last three as text.

        label: None in a list without labels; a tuple of text for numbers, and for cells
        with several classes ('classes'). fault: a message, or None.
        """
        self._check_first()
        for line_number, line in self._lines:
            try:
                path, label = self._read(line)
                if isinstance(label, str):
                    label = plain_name(label)
                yield line_number, path, label, None
            except InputError as fault:
                yield line_number, None, None, str(fault)

    def _check_first(self):
        """Raise an InputError if the first line may be a header with unknown words."""
        if self._header or not self._label or len(self._lines) < 2:
            return
        (self._line_number, first), *following = self._lines
        cells = self._split(first)
        if len(cells) <= self._label or any(
                is_number(cell) or has_ending(cell) for cell in cells):
            return
        label = cells[self._label]
        if not self._find(cells[self._place]) and not any(
                label in split_line(line, self._delimiter) for _, line in following):
            self._fail('no such file: %.500s; if this is a header, call the columns '
                       'path and label' % cells[self._place])

    def _read(self, line):
        """Return (path, label) of a line; raise an InputError if either is missing."""
        if not self.is_labelled and len(self._header) < 2:
            return line, None
        cells = self._split(line)
        count = len(cells)
        if self._width and count > self._width:
            raise InputError('%d cells, but the first line has %d; quote a cell that '
                             'holds a %r' % (count, self._width, self._delimiter))
        if count <= self._place or not cells[self._place]:
            raise InputError('no path in %.500r' % line)
        path = cells[self._place]
        if not self.is_labelled:
            return path, None
        return path, self._read_label(line, cells)

    def _read_label(self, line, cells):
        """Return the label in the cells of a line."""
        count = len(cells)
        if self._several:
            return self._read_several(
                [cells[column] if column < count else '' for column in self._several])
        if count <= self._label or not cells[self._label]:
            raise InputError('no label after %.500r%s' % (
                line, '; write - for none' if self._labels == 'classes' else ''))
        if has_ending(cells[self._label]):
            raise InputError('label %.100r is the name of a picture; paths come first, '
                             'or a header names the columns' % cells[self._label])
        found = cells[self._label:]
        if self._labels == 'numbers':
            return tuple(found if self._delimiter else found[0].split())
        if self._header or not any(found[1:]):
            return found[0]
        if self._labels == 'classes':
            return tuple(plain_name(cell) for cell in found if cell)
        raise InputError('%d cells, expected a path and a label; or a header that '
                         'names the columns' % count)

    def _read_several(self, values):
        """Return the label in these cells: numbers, or names of columns with a 1."""
        if self._labels == 'numbers':
            return tuple(values)
        names = ', '.join(self.names)
        if not all(map(is_bit, values)):
            raise InputError('the columns %s are not 0 and 1 (one-hot)' % names)
        chosen = tuple(name for name, value in zip(self.names, values)
                       if value[0] in '1tT')
        if self._labels == 'classes':
            return chosen
        if len(chosen) != 1:
            raise InputError('%d of the columns %s are 1, must be one'
                             % (len(chosen), names))
        return chosen[0]
