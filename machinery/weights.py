"""Read, check and save the weights of a network."""
import mmap
import os
import pickle

import numpy as np

from machinery.caffe import read_caffemodel
from machinery.checkpoint_files import (KINDS, check_shapes, damage_told, find_weights,
                                        open_checkpoint, read_checkpoint)
from machinery.errors import InputError, input_errors
from machinery.tf1 import assign


@input_errors()
def read_weights(path):
    """Read {layer name: [weights, biases]} in TensorFlow's layout.

    The path is an .npy file, a .caffemodel file, a checkpoint, or a folder of them.
    """
    path = find_weights(path)
    read = read_caffemodel if path.endswith('.caffemodel') else read_npy
    weights = read_checkpoint(path) if os.path.exists(path + '.index') else read(path)
    if not weights:
        raise InputError('%s: holds no layer with weights and biases' % path)
    return weights


def load_weights(session, path, variables, added, skip, scope):
    """Load the layers of a network from a file.

    Args:
        variables: {layer name: [weights, biases]}.
        added: more variables, which a checkpoint must have; other files have none.
        skip: names of layers that are left as they are.
        scope: the beginning of the names of all variables of the network, or ''.
    """
    path = find_weights(path)
    loaded = read_weights(path)
    check_weights(loaded, {name: pair[0].shape.as_list()
                           for name, pair in variables.items()}, path, skip)
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


def num_classes_of(path, last_layer):
    """Return the number of classes of a weight file: the width of its last layer."""
    try:
        if os.path.exists(path + '.index'):  # reading all of it would take a second
            shapes = open_checkpoint(path).get_variable_to_shape_map()
            return shapes[last_layer + '/biases'][0]
        return read_weights(path)[last_layer][1].shape[0]
    except (KeyError, IndexError):
        raise InputError('%s: holds no layer %s' % (path, last_layer))


def check_weights(weights, shapes, path, skip=()):
    """Raise an InputError that names everything that does not fit the network.

    shapes: {layer name: shape of its weights}; layers in skip may be missing or differ.
    """
    faults = ['%s: not a layer of AlexNet' % name for name in weights
              if name not in shapes]
    for name in [name for name in shapes if name not in skip]:
        if name not in weights:
            faults.append('%s: missing' % name)
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
    with open(path + '.part', 'wb') as file:
        np.save(file, {name: [np.ascontiguousarray(array) for array in pair]
                       for name, pair in weights.items()})
    os.replace(path + '.part', path)


def read_npy(path):
    """Read weights from an .npy file, without running its code and without copies.

    It is a pickled dict of lists [weights, biases] or of dicts {'weights': ...,
    'biases': ...}, written by Python 2 or 3 and numpy 1 or 2.
    """
    with open(path, 'rb') as file, damage_told(path, 'a weight file'):
        content = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[:100].lstrip().startswith(b'<'):
            raise ValueError('it is an HTML page')
        np.lib.format.read_magic(content)
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
        if shape != () or dtype != np.dtype(object):
            raise ValueError('holds an array, not a dictionary of layers')
        # Python 2 pickled arrays as text: keep it as bytes, decoding would copy it.
        [layers] = WeightsUnpickler(content, encoding='bytes').load().state[-1]
        return {as_text(name): arrays_of(as_text(name), pair)
                for name, pair in layers.items()}


def arrays_of(name, pair):
    """Return the [weights, biases] of a layer from a pickled list or dict."""
    if isinstance(pair, dict):
        pair = [pair.get(kind, pair.get(kind.encode())) for kind in KINDS]
    if not isinstance(pair, (list, tuple)) or list(map(type, pair)) != 2 * [Pickled]:
        raise ValueError('%s: expected [weights, biases] or {"weights": ..., '
                         '"biases": ...}' % name)
    return [array.array() for array in pair]


def as_text(name):
    """Decode text that Python 2 pickled as bytes."""
    return name.decode() if isinstance(name, bytes) else name


class MappedFile(mmap.mmap):
    """A mapped file; a large read returns a view, not a copy."""

    def read(self, size):
        if size < 1000:
            return super().read(size)
        view = memoryview(self)[self.tell():self.tell() + size]
        self.seek(len(view), os.SEEK_CUR)
        return view


class Pickled:
    """Stands in for a numpy array or its dtype during unpickling."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """Return the array, as a view of the file."""
        _, shape, dtype, is_fortran, data = self.state
        kind, order = as_text(dtype.arguments[0]), as_text(dtype.state[1])
        if kind not in ('f2', 'f4', 'f8'):
            raise ValueError('expected arrays of floats, found type %s' % kind)
        array = np.frombuffer(data, np.dtype(kind).newbyteorder(order))
        return array.reshape(shape, order='F' if is_fortran else 'C')


# pickle.Unpickler, in C, would allocate 16 bytes times a damaged file's memo index.
class WeightsUnpickler(pickle._Unpickler):
    """Unpickle numpy arrays, builtin containers and text; refuse everything else."""

    KNOWN = {'numpy.ndarray': Pickled, 'numpy.dtype': Pickled,
             'numpy.core.multiarray._reconstruct': Pickled,
             'numpy._core.multiarray._reconstruct': Pickled,
             '_codecs.encode': lambda text, encoding: text.encode('latin1')}
    dispatch = dict(pickle._Unpickler.dispatch)
    # No array needs BYTEARRAY8, which allocates the claimed size before it reads.
    dispatch.pop(b'\x96'[0], None)

    def find_class(self, module, name):
        name = '%s.%s' % (module, name)
        if name not in self.KNOWN:
            raise pickle.UnpicklingError('refused to load %s: only arrays in lists and '
                                         'dicts are allowed' % name)
        return self.KNOWN[name]
