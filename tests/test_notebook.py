import os
import re

import nbclient
import nbformat
import pytest

from helpers import ROOT

NOTEBOOK = os.path.join(ROOT, 'validate_alexnet_on_imagenet.ipynb')
WEIGHTS = 'bvlc_alexnet.npy'


def read_notebook():
    return nbformat.read(NOTEBOOK, 4)


def check(cells, has_weights):
    """Check that a notebook's cells ran and show what they promise."""
    outputs = [output for cell in cells for output in cell.get('outputs', [])]
    assert {output.get('name', output.output_type) for output in outputs} == {
        'stdout', 'display_data'}  # no error, and no message of an InputError
    text = ''.join(output.get('text', '') for output in outputs)
    assert ('are not in this folder' in text) != has_weights
    origin = 'loaded' if has_weights else 'from data'
    assert re.search(r'conv1 .* %s +frozen\n' % origin, text)
    assert 'Epoch 1/' in text
    # Predictions and heat maps, similar pictures, and with the weights photographs.
    assert sum('image/png' in output.get('data', {})
               for output in outputs) == 2 + has_weights


def cells_with(weights_path):
    """Return the notebook's code, with weights at another path and short training."""
    sources = [cell.source for cell in read_notebook().cells
               if cell.cell_type == 'code']
    # Random weights would kill all units of fc7 at the usual learning rate.
    short = '--num_epochs 1 --train_file images/test.txt --learning_rate 1e-6'
    for old, new in [(WEIGHTS, weights_path), ('--num_epochs 5', short)]:
        assert old in ''.join(sources)
        sources = [source.replace(old, new) for source in sources]
    return [nbformat.v4.new_code_cell(source) for source in sources]


@pytest.fixture(scope='module')
def executed(module_path, narrow_file, narrow_golden_file):
    """The notebook without weights and with them, and the scripts as cells, all as run.

    In one kernel, as another would take 5 s to start.
    """
    parts = [cells_with(str(module_path / 'missing.npy')),
             cells_with(narrow_golden_file), cells_of_scripts(module_path, narrow_file)]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(MAKE_NARROW)] + sum(parts, []))
    nbclient.NotebookClient(notebook, timeout=300, allow_errors=True, resources={
        'metadata': {'path': ROOT}}).execute()
    return parts


def test_notebook_runs_without_the_pretrained_weights(executed):
    check(executed[0], has_weights=False)


def test_notebook_runs_with_weights_and_shows_classes_of_imagenet(executed):
    check(executed[1], has_weights=True)


def test_notebook_is_committed_as_run():
    cells = read_notebook().cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == 'code']
    assert os.path.getsize(NOTEBOOK) < 1000000
    assert counts == list(range(1, len(counts) + 1))
    check(cells, has_weights=False)
    [predicted] = [output.text for cell in cells if 'print(path' in cell.source
                   for output in cell.outputs]
    assert re.findall(r'textures/(\w+)/.*jpg (\w+)', predicted) == [
        (name, name) for name in ('brick', 'grass', 'gravel')]


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
    cells = executed[2]
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
