"""Read, check and save the weights of a network."""
import os

import numpy as np

from machinery.caffe import read_caffemodel
from machinery.checkpoint_files import (KINDS, check_shapes, find_weights,
                                        open_checkpoint, read_checkpoint)
from machinery.damage import damage_told
from machinery.errors import InputError, input_errors, open_plain
from machinery.files import write_whole
from machinery.last_layer import fit_last_layer
from machinery.npy import read_npy, read_npz
from machinery.tf1 import assign

# First bytes of other kinds of files.
FOREIGN = {b'\x89HDF': 'an HDF5 file, of Keras or Caffe', b'\x80': 'a file of PyTorch, '
           'or another pickle'}


@input_errors()
def read_weights(path):
    """Read {layer name: [weights, biases]} in TensorFlow's layout.

    path: an .npy, .npz or .caffemodel file, a checkpoint, or a folder of checkpoints.
    """
    path = find_weights(path)
    is_checkpoint = os.path.exists(path + '.index')
    weights = read_checkpoint(path) if is_checkpoint else read_file(path)
    if not weights:
        raise InputError('%s: holds no layer with weights and biases' % path + (
            ', like conv1/weights and conv1/biases' if is_checkpoint else ''))
    return weights


def read_file(path):
    """Read weights from a file; its first bytes tell the format."""
    with open_plain(path) as file:
        start = file.read(6)
    for beginning, kind in FOREIGN.items():
        if start.startswith(beginning):
            raise InputError('%s is %s; only .npy, .npz, .caffemodel and TensorFlow\'s '
                             'checkpoints can be read' % (path, kind))
    if start.startswith(b'PK'):
        return read_npz(path)
    # OpenCV names its files of half precision .caffemodel_fp16.
    is_caffe = '.caffemodel' in os.path.basename(path) and start != b'\x93NUMPY'
    return read_caffemodel(path) if is_caffe else read_npy(path)


def load_weights(session, path, variables, added, skip, scope, kind=None):
    """Load the layers of a network from a file; return {last layer: how it starts}.

    Args:
        variables: {layer name: [weights, biases]}.
        added: more variables, which a checkpoint must have and other files lack.
        skip: names of layers to leave as they are.
        scope: the prefix of the names of all variables of the network, or ''.
        kind: fit the last layer to this kind of labels; None: load it as it is.
    """
    path = find_weights(path)
    loaded, last, start = read_weights(path), list(variables)[-1], {}
    if kind and last in loaded and last not in skip:
        loaded[last], start[last] = fit_last_layer(
            path, last, loaded[last], session.run(variables[last]), kind)
    shapes = {name: pair[0].shape.as_list() for name, pair in variables.items()}
    check_weights(loaded, shapes, path, skip)
    if renamed_last(loaded, shapes):
        print('%s: %s is ignored, %s starts fresh'
              % (path, renamed_last(loaded, shapes), last))
    pairs = [pair for name in variables if name not in skip
             for pair in zip(variables[name], loaded[name])]
    added = {variable.op.name[len(scope):]: variable for variable in added}
    added = {name: variable for name, variable in sorted(added.items())
             if name.split('/')[0] not in skip}
    if os.path.exists(path + '.index'):
        reader = open_checkpoint(path)
        check_shapes(reader.get_variable_to_shape_map(), {
            name: variable.shape.as_list() for name, variable in added.items()},
            '%s does not fit the network:' % path)
        with damage_told(path):
            pairs += [(added[name], reader.get_tensor(name)) for name in added]
    elif added:
        print('Warning: %s has no %s; these keep their initial values'
              % (path, ', '.join(added)))
    for variable, value in pairs:
        assign(session, variable, value)
    return start


def num_classes_of(path, last_layer):
    """Return the number of classes of a weight file: the width of its last layer."""
    layers = {}
    try:
        if os.path.exists(path + '.index'):  # reading all of it would take a second
            shapes = open_checkpoint(path).get_variable_to_shape_map()
            return shapes[last_layer + '/biases'][0]
        layers = read_weights(path)
        return layers[last_layer][1].shape[0]
    except (KeyError, IndexError):
        raise InputError('%s: holds no layer %s%s' % (
            path, last_layer, ', only ' + ', '.join(layers) if layers else ''))


def renamed_last(weights, shapes):
    """Return the last layer's name in a file if it was renamed, or None.

    With Caffe, fc8 is renamed for fine-tuning, to fc8_flickr for example.
    """
    last, others = list(shapes)[-1], [name for name in weights if name not in shapes]
    if last not in weights and len(others) == 1:
        if weights[others[0]][0].shape[:-1] == tuple(shapes[last][:-1]):
            return others[0]


def check_weights(weights, shapes, path, skip=()):
    """Raise an InputError with a list of all differences from the network.

    shapes: {layer name: shape of its weights}; layers in skip may be missing or differ,
    and the last layer may have another name if it is in skip.
    """
    renamed = renamed_last(weights, shapes)
    faults = ['%s: not a layer of AlexNet' % name for name in weights
              if name not in shapes and name != renamed]
    for name in [name for name in shapes if name not in skip]:
        if name not in weights:
            is_renamed = renamed and name == list(shapes)[-1]
            faults.append('%s: missing' % name + (
                ', but %s is there (a renamed last layer); with %r in skip_layers, it '
                'is ignored' % (renamed, name) if is_renamed else ''))
        expected = [tuple(shapes[name]), (shapes[name][-1],)]
        for kind, shape, array in zip(KINDS, expected, weights.get(name, [])):
            if array.shape != shape:
                faults.append('%s/%s: expected shape %s, found %s'
                              % (name, kind, shape, array.shape))
            elif not np.isfinite(array).all():
                faults.append('%s/%s: %d numbers are not finite'
                              % (name, kind, (~np.isfinite(array)).sum()))
    if faults:
        raise InputError('\n  '.join(['%s does not fit the network:' % path] + faults))


@input_errors()
def save_weights(weights, path):
    """Write weights as an .npy file for read_npy, whole or not at all."""
    with write_whole(path) as file:
        np.save(file, {name: [np.ascontiguousarray(array) for array in pair]
                       for name, pair in weights.items()})
