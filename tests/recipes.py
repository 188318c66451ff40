"""The recipes of docs/recipes.md: read, follow and renew them."""
import difflib
import os
import re
import shutil
import subprocess
import tempfile

from helpers import ROOT

RECIPES_FILE = os.path.join(ROOT, 'docs', 'recipes.md')
NARROW = {'4096': '64', '384': '96', '5, 5, 256': '5, 5, 64',
          '11, 11, 96': '11, 11, 24'}  # as in helpers
SCRIPTS = ['alexnet.py', 'datagenerator.py', 'finetune.py', 'predict.py']
DIFF = re.compile('```diff\n(.*?)```', re.S)


def read_recipes():
    """Return {title: text} of the sections of docs/recipes.md."""
    with open(RECIPES_FILE, encoding='utf-8') as file:
        sections = file.read().split('\n## ')[1:]
    return dict(section.split('\n', 1) for section in sections)


def apply_diff(diff, folder, fuzz=0):
    """Follow a recipe in a folder; raise CalledProcessError if it does not apply."""
    subprocess.run(['patch', '-p0', '--fuzz=%d' % fuzz, '--no-backup-if-mismatch'],
                   check=True, cwd=folder, stdout=subprocess.PIPE,
                   stderr=subprocess.STDOUT, input=diff.encode())


def copy_scripts(folder, diff=None, fuzz=0):
    """Copy the scripts to a folder, and follow a recipe there."""
    for name in SCRIPTS:
        shutil.copy(os.path.join(ROOT, name), folder)
    if diff:
        apply_diff(diff, folder, fuzz)


def make_narrow(folder):
    """Make the network of a copy of alexnet.py as narrow as that of the tests."""
    path = os.path.join(folder, 'alexnet.py')
    text = ''.join(read_lines(path))
    for old, new in NARROW.items():
        text = text.replace(old, new)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def make_diff(before, after):
    """Return the diff of the Python files in two folders, with context of 2 lines."""
    diff = ''
    for name in sorted(name for name in os.listdir(after) if name.endswith('.py')):
        old, new = [read_lines(os.path.join(folder, name))
                    for folder in (before, after)]
        diff += ''.join(difflib.unified_diff(old, new, name if old else '/dev/null',
                                             name, n=2))
    return diff


def read_lines(path):
    """Return the lines of a file, none if it does not exist."""
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as file:
        return file.readlines()


def changes_in(diff):
    """Return the removed and added lines of a diff."""
    return [line for line in diff.splitlines()
            if line[:1] in ('-', '+') and line[:3] not in ('---', '+++')]


def renew():
    """Write the diffs of docs/recipes.md for the scripts as they are; return faults.

    A recipe that does not apply any more, or would now change other lines, is left as
    it is.
    """
    with open(RECIPES_FILE, encoding='utf-8') as file:
        text = file.read()
    faults = []
    for title, recipe in read_recipes().items():
        for diff in DIFF.findall(recipe):
            with tempfile.TemporaryDirectory() as before, \
                    tempfile.TemporaryDirectory() as after:
                copy_scripts(before)
                try:  # a fuzz of 2 would ignore all of the context
                    copy_scripts(after, diff, fuzz=1)
                except subprocess.CalledProcessError as error:
                    faults.append('%s: %s' % (title, error.stdout.decode()))
                    continue
                new = make_diff(before, after)
            if changes_in(new) != changes_in(diff):
                faults.append('%s: it would now change other lines:\n%s' % (title, new))
                continue
            text = text.replace(diff, new)
    with open(RECIPES_FILE, 'w', encoding='utf-8') as file:
        file.write(text)
    return faults
