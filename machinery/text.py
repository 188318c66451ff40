"""Text for terminals and tables."""
import os
import re
import shlex
import subprocess
import unicodedata

MAX_LINES = 20  # of each kind, shown at most


def compose(text):
    """Return text with its letters composed, as Unicode's NFC, without joiners.

    An archive from a Mac has "o" and two dots instead of "ö".
    """
    if text.isascii():
        return text
    return ''.join(letter for letter in unicodedata.normalize('NFC', text)
                   if unicodedata.category(letter) != 'Cf')


def plain_name(text):
    """Return a class name with single spaces and composed letters."""
    return ' '.join(compose(text).split())


def escaped(match):
    """Return the text of a match with Python's escapes."""
    return repr(match.group())[1:-1]


def printable(text):
    """Return text with escaped control characters, which file names may have."""
    return re.sub('[\0-\x1f\x7f-\x9f]', escaped, text)


def quote(path):
    """Quote a path for a command in the system's shell."""
    return subprocess.list2cmdline([path]) if os.name == 'nt' else shlex.quote(path)


def cell_of(text):
    """Return printable text for a cell; no spreadsheet reads it as a formula."""
    mark = "'" if text[1:] and text.startswith(tuple('=+-@\t\r')) else ''
    return mark + printable(text)


def some_of(faults, as_line=str):
    """Return a line for each of the first faults, and a count of the others."""
    lines = [as_line(fault) for fault in faults[:MAX_LINES]]
    if len(faults) > MAX_LINES:
        lines.append('and %d more' % (len(faults) - MAX_LINES))
    return lines


def print_some(lines, rest):
    """Print the first lines; if there are more, also their number and the text rest."""
    print('\n'.join(map(printable, lines[:MAX_LINES])))
    if len(lines) > MAX_LINES:
        print('… and %d more%s' % (len(lines) - MAX_LINES, rest))


def number_of(pictures):
    """Return '1 picture', '2 pictures' and so on."""
    return '%d picture%s' % (len(pictures), 's' if len(pictures) > 1 else '')
