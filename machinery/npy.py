"""Read weights from numpy's files, without running any code inside them."""
import mmap
import os
import pickle
import re

import numpy as np

from machinery.damage import damage_told
from machinery.errors import InputError

FLOATS = ('f2', 'f4', 'f8')
# Our names and other programs' names for the weights (0) and the biases (1) of a layer.
WORDS = {'weights': 0, 'weight': 0, 'kernel': 0, 'W': 0, 'w': 0,
         'biases': 1, 'bias': 1, 'b': 1}


def read_npy(path):
    """Read weights from an .npy file, without running its code and without copies.

    The file is a pickled dict for layers_of, from Python 2 or 3 and numpy 1 or 2.
    """
    with open(path, 'rb') as file, damage_told(path, 'a weight file'):
        content = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[:100].lstrip().startswith(b'<'):
            raise ValueError('it is an HTML page')
        np.lib.format.read_magic(content)
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
        if shape != () or dtype != np.dtype(object):
            raise ValueError('holds an array, not a dictionary of layers')
        # Python 2 pickled arrays as text. Keep the bytes: decoding would copy them.
        [layers] = WeightsUnpickler(content, encoding='bytes').load().state[-1]
        return layers_of(layers)


def read_npz(path):
    """Read weights from an .npz file; layers_of explains the names of its arrays."""
    with damage_told(path, 'a weight file'), np.load(path, allow_pickle=False) as file:
        names = [os.path.basename(name) for name in file.zip.namelist()]
        if 'data.pkl' in names:
            raise InputError('it is a file of PyTorch, whose networks differ')
        for name in names:
            if not name.endswith('.npy'):
                raise InputError('it holds %s, so it is not an archive of numpy' % name)
        arrays = {name: file[name] for name in file.files}
        for name, array in arrays.items():
            if array.dtype.str[1:] not in FLOATS:
                raise ValueError('%s: expected floats, found %s' % (name, array.dtype))
        return layers_of(arrays)


def layers_of(content):
    """Return {layer: [weights, biases]}, or raise a ValueError.

    content: {layer: [weights, biases]}, {layer: {'weights': ..., 'biases': ...}} or
    {'conv1/weights': array, ...}; instead of weights and biases, any of WORDS.
    """
    layers = {}
    for name, value in content.items():
        name = as_text(name)
        if isinstance(value, (Pickled, np.ndarray)):
            layer = re.split('[/_.][^/_.]+$', name)[0]
            layers.setdefault(layer, {})[name] = value
        else:
            layers[name] = value
    return {name: arrays_of(name, layer) for name, layer in layers.items()}


def arrays_of(name, layer):
    """Return the [weights, biases] of a layer from a list or dict."""
    pair, found = layer, type(layer).__name__
    if isinstance(layer, dict):
        found = ', '.join(map(as_text, layer))
        # Any further array means another kind of layer: refuse it, do not ignore it.
        pair = []
        if sorted(map(kind_of, layer)) == [0, 1]:
            pair = [layer[key] for key in sorted(layer, key=kind_of)]
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(
            isinstance(array, (Pickled, np.ndarray)) for array in pair):
        raise ValueError('%s: expected [weights, biases] or {"weights": ..., '
                         '"biases": ...}, found %s' % (name, found))
    return [array.array() if isinstance(array, Pickled) else array for array in pair]


def kind_of(name):
    """Return the number in WORDS of a name's last word ('conv1/kernel:0'), else 2."""
    return WORDS.get(re.split('[/_.]', as_text(name).split(':')[0])[-1], 2)


def as_text(name):
    """Decode text if Python 2 pickled it as bytes."""
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
        if kind not in FLOATS:
            raise ValueError('expected arrays of floats, found type %s' % kind)
        array = np.frombuffer(data, np.dtype(kind).newbyteorder(order))
        return array.reshape(shape, order='F' if is_fortran else 'C')


# Not pickle.Unpickler, in C: it allocates 16 bytes x memo index, even a damaged index.
class WeightsUnpickler(pickle._Unpickler):
    """Unpickle numpy arrays, builtin containers and text; refuse everything else."""

    KNOWN = {'numpy.ndarray': Pickled, 'numpy.dtype': Pickled,
             'numpy.core.multiarray._reconstruct': Pickled,
             'numpy._core.multiarray._reconstruct': Pickled,
             '_codecs.encode': lambda text, encoding: text.encode('latin1')}
    dispatch = dict(pickle._Unpickler.dispatch)
    # No array needs BYTEARRAY8, which allocates the claimed size before it reads.
    dispatch.pop(b'\x96'[0], None)
    # Nor sets: a tuple of tuples of ... in a set may take forever to hash.
    for code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        dispatch.pop(code[0])

    def load_setitem(self):
        self.check_keys(self.stack[-2:-1])
        super().load_setitem()
    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self):
        self.check_keys(self.stack[::2])
        super().load_setitems()
    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self):
        self.check_keys(self.stack[::2])
        super().load_dict()
    dispatch[pickle.DICT[0]] = load_dict

    @staticmethod
    def check_keys(keys):
        if not all(isinstance(key, (str, bytes)) for key in keys):
            raise pickle.UnpicklingError('refused to load a dict with other keys than '
                                         'text')

    def find_class(self, module, name):
        name = '%s.%s' % (module, name)
        if name not in self.KNOWN:
            raise pickle.UnpicklingError('refused to load %s: only arrays in lists and '
                                         'dicts are allowed' % name)
        return self.KNOWN[name]
