"""README.md and docs: links lead somewhere, options exist, paragraphs are short."""
import os
import re

import pytest

from edits import NOT_RUN
from helpers import ROOT
from machinery.rules import SETTINGS
from recipes import DIFF, changes_in, read_recipes

PAGES = ['README.md'] + sorted('docs/' + name
                               for name in os.listdir(os.path.join(ROOT, 'docs')))
MAIN = '    python -m pip install -r requirements.txt && python finetune.py'
TESTED = ('    python -m pip install -r requirements.txt pytest hypothesis nbclient '
          'ipykernel && python -m pytest tests')


def read(page):
    with open(os.path.join(ROOT, page), encoding='utf-8') as file:
        return file.read()


def prose_of(page):
    """Return the text of a page without its blocks of code."""
    text = re.sub('^```.*?^```$', '', read(page), flags=re.M | re.S)
    return re.sub('^    .*$', '', text, flags=re.M)


def anchors_of(page):
    """Return the anchors that GitHub makes of the headings of a page."""
    titles = re.findall('^#+ (.*)$', prose_of(page), re.M)
    return [re.sub(r'[^\w\- ]', '', title).lower().replace(' ', '-')
            for title in titles]


@pytest.mark.parametrize('page', PAGES)
def test_links(page):
    found = re.findall(r'\]\(([^)]*)\)', prose_of(page))
    wrong = []
    for link in found:
        path, _, anchor = link.partition('#')
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)
                                  if path else page)
        if link.startswith('https://'):
            continue
        if not os.path.exists(os.path.join(ROOT, target)) or (
                anchor and anchor not in anchors_of(target)):
            wrong.append(link)
    assert not wrong and (found or page != 'README.md')


@pytest.mark.parametrize('page', PAGES)
def test_paragraphs_are_short(page):
    text = re.sub('^(#.*|[|].*)$', '', prose_of(page), flags=re.M)  # headings, tables
    text = re.sub(r'\]\([^)]*\)', ']', text)
    limit = 50 if page == 'README.md' else 70
    assert [part for part in re.split(r'\n\s*\n|\n- ', text)
            if len(part.split()) > limit] == []


def test_readme_is_short():
    text = read('README.md')
    assert len(text.splitlines()) <= 110 and len(text.encode()) <= 7168


def test_readme_has_the_commands_that_others_run():
    lines = read('README.md').splitlines()
    assert MAIN in lines
    assert next(line for line in lines if '-m pytest' in line) == TESTED


@pytest.mark.parametrize('page', PAGES)
def test_options_exist(page):
    commands = re.findall(r'python (?:finetune|predict)\.py((?:\\\n|[^`\n])*)',
                          read(page))
    options = re.findall('--([a-z_]+)', ' '.join(commands))
    assert set(options) <= set(SETTINGS) | {'help'}
    assert options or page not in ('README.md', 'docs/predict.md')


def test_readme_has_edits_of_recipes():
    [diff] = DIFF.findall(read('README.md'))
    assert set(changes_in(diff)) <= {
        line for recipe in read_recipes().values() for edit in DIFF.findall(recipe)
        for line in changes_in(edit)}


def test_edits_follows_recipes_that_have_one_diff():
    assert [title for title, recipe in read_recipes().items()
            if title not in NOT_RUN and len(DIFF.findall(recipe)) != 1] == []
