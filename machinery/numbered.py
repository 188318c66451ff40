"""Numbered folders: 1, 2, 3 and so on, a new one for each run of a script."""
import contextlib
import os
import re

from machinery.errors import input_errors


def list_numbers(folder):
    """Return the numbers of the numbered folders in a folder, the newest last."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if re.fullmatch('[1-9][0-9]*', name)
                  and os.path.isdir(os.path.join(folder, name)))


@input_errors()
def make_numbered(*parents):
    """Make a folder with the same new number in each parent; return their paths.

    os.mkdir decides who gets a number, so two processes never share one. Raises an
    InputError if a folder cannot be made.
    """
    for parent in parents:
        os.makedirs(parent, exist_ok=True)
    number = 1 + max([0] + [number for parent in parents
                            for number in list_numbers(parent)])
    while True:
        paths = [os.path.join(parent, str(number)) for parent in parents]
        made = []
        try:
            for path in paths:
                os.mkdir(path)
                made.append(path)
            return paths
        except FileExistsError:  # somebody was faster, or it is a file
            for path in made:
                os.rmdir(path)
            number += 1


class NewFiles:
    """New files, in a numbered folder that is made along with the first of them.

    parent: the folder that holds the numbered ones.
    """

    def __init__(self, parent):
        self._parent, self._folder = parent, None

    @contextlib.contextmanager
    def new(self, path, name):
        """Open a path to write bytes; without one, a file of this name in the folder.

        Raises an InputError if the file exists already, or cannot be written.
        """
        if not path:
            self._folder = self._folder or make_numbered(self._parent)[0]
            path = os.path.join(self._folder, name)
        with input_errors(), open(path, 'xb') as file:
            yield file
        print('Wrote %s' % path)
