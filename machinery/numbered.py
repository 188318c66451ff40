"""Numbered folders 1, 2, 3, ...: each run of a script makes the next."""
import contextlib
import os
import re

from machinery.errors import InputError, input_errors
from machinery.files import write_whole


def list_runs(folder):
    """Return the numbers of the runs in a folder, the newest last."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if re.fullmatch('[1-9][0-9]{0,8}', name)
                  and os.path.isdir(os.path.join(folder, name)))


def run_path(folder, number):
    """Return the path of the run with this number."""
    return os.path.join(folder, str(number))


@input_errors()
def make_run(*folders):
    """Make a folder with the same new number in each of these; return the number."""
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    number = 1 + max(max(list_runs(folder), default=0) for folder in folders)
    while True:  # os.mkdir decides who gets a number, so two processes never share one
        made = []
        try:
            for folder in folders:
                os.mkdir(run_path(folder, number))
                made.append(run_path(folder, number))
            return number
        except OSError as error:
            for path in made:
                os.rmdir(path)
            if not isinstance(error, FileExistsError):
                raise
            number += 1  # another process was faster, or it is a file


class NewFiles:
    """Writes new files; the first without a path makes a numbered folder in parent."""

    def __init__(self, parent):
        self._parent, self.folder = parent, None

    @contextlib.contextmanager
    def new(self, path, name, is_told=True):
        """Open a path to write bytes; None: a file with this name in the folder.

        The file appears when it is complete. Raises an InputError if it exists already,
        or cannot be written.
        """
        if not path:
            self.folder = self.folder or run_path(self._parent, make_run(self._parent))
            path = os.path.join(self.folder, name)
        try:
            with write_whole(path, may_replace=False) as file:
                yield file
        except OSError as error:  # on a full disk, the error names no file
            raise InputError('%s: %s' % (path, error.strerror or error)) from error
        if is_told:
            print('Wrote %s' % path)
