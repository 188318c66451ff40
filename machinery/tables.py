"""Lists of pictures as tables: the columns and cells of a text file."""
import codecs
import csv
import re

from machinery.errors import InputError, open_plain
from machinery.find import PICTURE_ENDINGS

DELIMITERS = ['\t', ';', ',', None]  # None: the last white space of a line
# Words in the name of a column, the surest first. ClassId has the words class and id.
LABEL_WORDS = ['label', 'labels', 'class', 'breed', 'category']
PATH_WORDS = ['path', 'filename', 'file', 'image', 'picture', 'id']
MAX_LENGTH = 10 ** 5  # of a line, in characters
is_integer = re.compile(r'[+-]?[0-9]{1,18}(\.0*)?').fullmatch
is_number = re.compile(r'[+-]?[0-9.]+').fullmatch


def read_text(path):
    """Return a text file in UTF-8, or in UTF-16 with a byte order mark, with \\n."""
    with open_plain(path) as file:
        data = file.read(1000)
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if is_utf16 or b'\0' not in data:  # a video, say, is not read as a whole
            data += file.read()
    try:
        text = data.decode('utf-16' if is_utf16 else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise InputError('%s, line %d: this is no text in UTF-8 (%s): save it as UTF-8'
                         % (path, 1 + data.count(b'\n', 0, error.start), error))
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    if '\0' in text:
        raise InputError('%s, line %d: this is not a text file'
                         % (path, 1 + text.count('\n', 0, text.index('\0'))))
    return text


def has_ending(cell):
    """Tell whether a cell ends like the name of a picture."""
    return cell.strip('"\'').lower().endswith(PICTURE_ENDINGS)


def split_line(line, delimiter):
    """Return the cells of a line."""
    if delimiter is None:
        return line.rsplit(None, 1)
    [cells] = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
    return [cell.strip() for cell in cells]


def find_delimiter(lines):
    """Return the delimiter with which most lines have a cell that names a picture."""
    def count(delimiter):
        rows = [split_line(line, delimiter) for line in lines]
        rows = [cells[:1] if delimiter is None else cells
                for cells in rows if len(cells) > 1]
        return sum(any(map(has_ending, cells)) for cells in rows), len(rows)
    return max(DELIMITERS, key=count)


def find_column(header, words, others=()):
    """Return the number of the column with the first of these words in its name."""
    words_of = [re.findall('[a-z]+', re.sub('([a-z])([A-Z])', r'\1 \2', name).lower())
                for name in header]
    for word in words:
        for column, found in enumerate(words_of):
            if word in found and column not in others:
                return column
    return None


class Table:
    """A list of pictures, as people and other programs write it.

    Its lines are "path label", split at the last white space; or cells between commas,
    semicolons or tabs, with a header that names the columns, or without.

    Args:
        list_path: the text file.
        find: function from a listed path to that of the file, None if there is none.
        is_labelled: a line that is the name of a file still holds a label.

    Attributes:
        header: the names of the columns, [] without them.
        path, label: the numbers of these columns; label is None if there is none.
        hot: the numbers of one-hot columns, whose names are the classes.
        lines: [(line number, line)] without the header and comments.

    Raises:
        InputError: this is not a text file, or the header tells no columns.
    """

    def __init__(self, list_path, find, is_labelled=True):
        self._find, self.header, self.hot = find, [], []
        lines = [(line_number, line.strip()) for line_number, line in
                 enumerate(read_text(list_path).split('\n'), 1) if line.strip()]
        for line_number, line in lines:
            if len(line) > MAX_LENGTH:
                raise InputError('%s, line %d: %d characters are more than a path and '
                                 'a label' % (list_path, line_number, len(line)))
        self._delimiter = find_delimiter([line for _, line in lines[:100]])
        self.path, self.label, self._width = 0, 1 if is_labelled else None, None
        lines = [pair for pair in lines if not self._is_comment(pair[1])]
        if lines:
            line_number, first = lines[0]
            cells = split_line(first, self._delimiter)
            if self._is_header(cells):
                self.header = cells
                del lines[0]
                try:
                    self._name_columns()
                except InputError as fault:
                    raise InputError('%s, line %d: %s'
                                     % (list_path, line_number, fault))
            else:
                self._order_columns(first, cells, is_labelled)
        self.lines = lines

    is_labelled = property(lambda self: self.label is not None or bool(self.hot))

    def _is_comment(self, line):
        """Tell whether a line starts with #, unless a picture does."""
        if not line.startswith('#'):
            return False
        return not (self._find(line) or
                    self._find(split_line(line, self._delimiter)[0]))

    def _is_header(self, cells):
        """Tell whether the cells name columns: none is a number or a picture."""
        if find_column(cells, LABEL_WORDS + PATH_WORDS) is None:
            return False
        return not any(is_number(cell) or has_ending(cell) or cell and self._find(cell)
                       for cell in cells)

    def _name_columns(self):
        """Find the columns by their names."""
        self._width = len(self.header)
        # An index that pandas has written has no name.
        named = [column for column, name in enumerate(self.header)
                 if name and not name.startswith('Unnamed')]
        self.label = find_column(self.header, LABEL_WORDS)
        self.path = find_column(self.header, PATH_WORDS, [self.label])
        if self.path is None:
            self.path = next((column for column in named if column != self.label),
                             None)
        if self.path is None:
            raise InputError('no column for the paths')
        others = [column for column in named if column not in (self.path, self.label)]
        if self.label is None and len(others) == 1:
            [self.label] = others
        elif self.label is None:
            self.hot = others

    def _order_columns(self, line, cells, is_labelled):
        """Take the first column that names a picture, and the next one for labels."""
        if self._delimiter:
            self.path = next(filter(lambda column: has_ending(cells[column]),
                                    range(len(cells))), 0)
            self._width = max(2, len(cells))
        self.label = self.path + 1
        if not is_labelled and (
                self.label >= len(cells) or has_ending(cells[-1]) or self._find(line)):
            self.label = None

    def read(self, line):
        """Return (path, label) of a line, as text; the label is None if it has none.

        Raises an InputError if a cell is missing, or what it means is not known.
        """
        if not self.is_labelled and not self.header:
            return line, None
        cells = split_line(line, self._delimiter)
        count = len(cells)
        if self._width and count > self._width:
            raise InputError('%d cells, but the first line has %d; quote a cell that '
                             'holds a %r' % (count, self._width, self._delimiter))
        if count <= self.path or not cells[self.path]:
            raise InputError('no path in %.500r' % line)
        if not self.is_labelled:
            return cells[self.path], None
        if self.hot:
            return cells[self.path], self._read_hot(cells)
        if count <= self.label or not cells[self.label]:
            raise InputError('no label after %.500r' % line)
        if not self.header and any(cells[self.label + 1:]):
            raise InputError('%d cells, expected a path and a label; or a header that '
                             'names the columns' % count)
        return cells[self.path], cells[self.label]

    def _read_hot(self, cells):
        """Return the name of the only column that holds a 1."""
        values = [cells[column] if column < len(cells) else '' for column in self.hot]
        if not all(is_integer(value) and float(value) in (0, 1) for value in values):
            raise InputError('the columns %s are neither called label, class, breed '
                             'or category, nor 0 and 1 (one-hot)'
                             % ', '.join(self.header[column] for column in self.hot))
        chosen = [column for column, value in zip(self.hot, values) if float(value)]
        if len(chosen) != 1:
            raise InputError('%d of the columns %s are 1, must be one' % (
                len(chosen), ', '.join(self.header[column] for column in self.hot)))
        return self.header[chosen[0]]
