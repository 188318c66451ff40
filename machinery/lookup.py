"""Find the files for the paths in a list, even if a path is incomplete or unclean."""
import collections
import contextlib
import os

from machinery.find import PICTURE_ENDINGS
from machinery.text import compose


def stem(name):
    """Return a name without its ending, if it is the ending of a picture."""
    return os.path.splitext(name)[0] if name.lower().endswith(PICTURE_ENDINGS) else name


class Lookup:
    """Finds the files for listed paths; relative paths start at folder.

    A path may have quotes around it or Windows' backslashes, differ in its Unicode form
    (see compose), or omit the ending if only one picture fits.
    """

    def __init__(self, folder):
        self._folder, self._entries = folder, {}

    def join(self, path):
        """Return the folder joined with a listed path."""
        return os.path.join(self._folder, path)

    def find(self, path):
        """Return the path of the file for a listed path, or None."""
        whole = self.join(path)
        if os.path.isfile(whole):
            return whole
        found = self._similar(self._clean(path), compose)
        return found[0] if len(found) == 1 else None

    def explain(self, path):
        """Return why a listed path has no file, and name similar files."""
        clean, message = self._clean(path), 'no such file: %.500s' % self.join(path)
        several = self._similar(clean, compose)
        other_case = self._similar(clean, lambda name: compose(name).casefold())
        if several:
            return '%.500s fits several pictures: %s' % (
                self.join(path), ', '.join(map(os.path.basename, several[:5])))
        if other_case:
            return '%s, but there is %s' % (message, other_case[0])
        if ' ' in path and self.find(path.split()[0]):
            return ('%s; the label starts after the last white space, so names with '
                    'spaces need a table, such as CSV' % message)
        if os.path.isfile(path):
            return ('%s; %s exists in the current folder, but relative paths start at '
                    "the list's folder: give pictures_path, or write the path from "
                    'there' % (message, path))
        return message

    def _clean(self, path):
        return self.join(path.strip('"\',;').replace('\\', '/'))

    def _similar(self, path, form, is_file=os.path.isfile):
        """Return the files equal to the path if form is applied to all names.

        A picture's ending may be missing. With os.path.isdir, find folders instead.
        """
        if is_file(path):
            return [path]
        folder, name = os.path.split(path)
        if not name:
            return []
        found = []
        for parent in self._similar(folder, form, os.path.isdir) if folder else ['']:
            for entry in self._entries_like(parent, name):
                whole = os.path.join(parent, entry)
                completed = stem(entry) if name == stem(name) else entry
                if form(name) in (form(entry), form(completed)) and is_file(whole):
                    found.append(whole)
        return found

    def _entries_like(self, folder, name):
        """Return a folder's entries equal to a name except for case and ending.

        Each folder is read only once, because a list may have a million paths.
        """
        if folder not in self._entries:
            self._entries[folder] = collections.defaultdict(set)
            with contextlib.suppress(OSError):  # it may not be readable
                for entry in os.listdir(folder or '.'):
                    for key in entry, stem(entry):
                        self._entries[folder][compose(key).casefold()].add(entry)
        return sorted(self._entries[folder].get(compose(name).casefold(), []))
