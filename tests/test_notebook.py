import os

import nbclient
import nbformat

from helpers import ROOT

NOTEBOOK = os.path.join(ROOT, 'validate_alexnet_on_imagenet.ipynb')


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get('outputs', [])]


def check(notebook):
    """Check that the notebook ran from top to bottom and shows what it promises."""
    counts = [cell.execution_count for cell in notebook.cells
              if cell.cell_type == 'code']
    assert counts == list(range(1, len(counts) + 1))
    kinds = [output.output_type for output in outputs(notebook)]
    assert 'error' not in kinds
    assert sum('image/png' in output.get('data', {})
               for output in outputs(notebook)) == 2
    if not os.path.exists(os.path.join(ROOT, 'bvlc_alexnet.npy')):
        first, *others = outputs(notebook)
        assert first.text.startswith('There are no pretrained weights here')
        assert any('These are random weights' in output.get('data', {}).get(
            'text/markdown', '') for output in others)


def test_notebook_runs_from_top_to_bottom():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={
        'metadata': {'path': ROOT}}).execute()
    check(notebook)


def test_notebook_is_committed_as_run():
    assert os.path.getsize(NOTEBOOK) < 500000
    check(nbformat.read(NOTEBOOK, 4))


def test_class_names_are_in_the_order_of_caffe():
    with open(os.path.join(ROOT, 'images', 'imagenet_classes.txt')) as file:
        lines = file.read().splitlines()
    synsets = [line.split(' ', 1)[0] for line in lines]
    assert len(lines) == 1000 and synsets == sorted(set(synsets))
    assert lines[0] == 'n01440764 tench, Tinca tinca'
    assert lines[281] == 'n02123045 tabby, tabby cat'
    assert lines[999] == 'n15075141 toilet tissue, toilet paper, bathroom tissue'
