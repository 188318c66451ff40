import os
import re

import nbclient
import nbformat
import pytest

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


@pytest.fixture(scope='module')
def executed(module_path, narrow_file):
    """The notebook as run, and the cells of test_scripts_run_in_cells behind it.

    In one kernel, as another would take 5 s to start.
    """
    notebook = nbformat.read(NOTEBOOK, 4)
    length = len(notebook.cells)
    notebook.cells += [nbformat.v4.new_code_cell(MAKE_NARROW)] + cells_of_scripts(
        module_path, narrow_file)
    nbclient.NotebookClient(notebook, timeout=300, allow_errors=True, resources={
        'metadata': {'path': ROOT}}).execute()
    cells = notebook.cells[length + 1:]
    del notebook.cells[length:]
    return notebook, cells


def test_notebook_runs_from_top_to_bottom(executed):
    check(executed[0])


def test_notebook_is_committed_as_run():
    assert os.path.getsize(NOTEBOOK) < 500000
    check(nbformat.read(NOTEBOOK, 4))


def cell_of(name, **variables):
    """Return a cell with the text of a script, with other values at its top."""
    with open(os.path.join(ROOT, name), encoding='utf-8') as file:
        text = file.read()
    for variable, value in variables.items():
        text, count = re.subn(r'(?m)^%s = .*?(?=  #|$)' % variable,
                              '%s = %r' % (variable, value), text)
        assert count == 1, variable
    return nbformat.v4.new_code_cell(text)


MAKE_NARROW = 'import helpers\nhelpers.make_narrow()'


def cells_of_scripts(folder, weights_path):
    """Return five cells with the scripts."""
    runs, log, features, predictions = [
        str(folder / name) for name in ('runs', 'log', 'features', 'predictions')]
    job = dict(train_file='images/test.txt', weights_path=weights_path, num_epochs=1,
               filewriter_path=log, checkpoint_path=runs, features_path=features)
    cells = [
        cell_of('finetune.py', **job),
        cell_of('finetune.py', **dict(job, batch_size=0)),
        cell_of('finetune.py', **job),
        cell_of('predict.py', checkpoint=runs, predictions_path=predictions,
                features_path=features),
        cell_of('predict.py', checkpoint=runs + '/1', predictions_path=predictions,
                layer='fc7', features_path=features)]
    cells[2].source = '%env A_VARIABLE=1\n' + cells[2].source  # no Python
    return cells


def test_scripts_run_in_cells_one_after_another(executed, module_path):
    """A mistake is one message, and the kernel's own arguments are ignored."""
    cells = executed[1]
    assert {output.output_type for cell in cells for output in cell.outputs} == {
        'stream'}
    texts = [''.join(output.text for output in cell.outputs) for cell in cells]
    for text, expected in zip(texts, ['Epoch 1/1: validation', None,
                                      'Epoch 1/1: validation', 'of 27 pictures',
                                      'Wrote %s/predictions/2/features.npz'
                                      % module_path]):
        assert not expected or expected in text, text
    assert texts[1] == 'batch_size is 0, must be an integer in 1..100000\n'


def test_class_names_are_in_the_order_of_caffe():
    with open(os.path.join(ROOT, 'images', 'imagenet_classes.txt')) as file:
        lines = file.read().splitlines()
    synsets = [line.split(' ', 1)[0] for line in lines]
    assert len(lines) == 1000 and synsets == sorted(set(synsets))
    assert lines[0] == 'n01440764 tench, Tinca tinca'
    assert lines[281] == 'n02123045 tabby, tabby cat'
    assert lines[999] == 'n15075141 toilet tissue, toilet paper, bathroom tissue'
