"""Weights in files: .npy, .caffemodel, and checkpoints."""
import mmap
import os
import pickle
import re

import numpy as np
from google.protobuf import descriptor_pb2, message_factory

from machinery.checkpoint_files import (KINDS, damage_told, find_weights,
                                        open_checkpoint, read_checkpoint)
from machinery.settings import InputError, input_errors


@input_errors()
def read_weights(path):
    """Read {layer name: [weights, biases]} in TensorFlow's layout.

    Args:
        path: an .npy file, a .caffemodel file, a checkpoint, or a folder of them.

    Raises:
        InputError: there is no such file, or it is damaged, foreign or empty; names it,
            and the layer if it can.
    """
    path = find_weights(path)
    if os.path.exists(path + '.index'):
        weights = read_checkpoint(path)
    else:
        weights = (read_caffemodel if path.endswith('.caffemodel') else read_npy)(path)
    if not weights:
        raise InputError('%s: holds no layer with weights and biases' % path)
    return weights


def num_classes_of(path, layer):
    """Return the number of classes that a file's weights are for.

    Args:
        layer: name of the last layer, whose width that is.

    Raises:
        InputError: as read_weights, or there is no such layer.
    """
    try:
        if os.path.exists(path + '.index'):  # where reading all would take a second
            return open_checkpoint(path).get_variable_to_shape_map()[
                layer + '/biases'][0]
        return read_weights(path)[layer][1].shape[0]
    except (KeyError, IndexError):
        raise InputError('%s: holds no layer %s' % (path, layer))


def check_weights(weights, shapes, path, skip=()):
    """Raise an InputError that names all that does not fit the network.

    Args:
        weights: {layer name: [weights, biases]}; path is the file that they are from.
        shapes: {layer name: shape of its weights}.
        skip: names of the layers that may be missing or have other shapes.
    """
    faults = ['%s: not a layer of AlexNet' % name for name in weights
              if name not in shapes]
    for name in [name for name in shapes if name not in skip]:
        if name not in weights:
            faults.append('%s: missing' % name)
            continue
        expected = [tuple(shapes[name]), (shapes[name][-1],)]
        for kind, shape, array in zip(KINDS, expected, weights[name]):
            if array.shape != shape:
                faults.append('%s/%s: expected shape %s, found %s'
                              % (name, kind, shape, array.shape))
            elif not np.isfinite(array).all():
                faults.append('%s/%s: %d numbers are not finite'
                              % (name, kind, (~np.isfinite(array)).sum()))
    if faults:
        raise InputError('%s does not fit the network:\n  %s'
                         % (path, '\n  '.join(faults)))


@input_errors()
def save_weights(weights, path):
    """Write weights as an .npy file that read_npy reads, whole or not at all."""
    with open(path + '.part', 'wb') as file:
        np.save(file, {name: [np.ascontiguousarray(array) for array in pair]
                       for name, pair in weights.items()})
    os.replace(path + '.part', path)


def read_npy(path):
    """Read weights from an .npy file without running its code, or copying it.

    The file holds a pickled dict whose values are lists [weights, biases] or dicts
    {'weights': ..., 'biases': ...}, written by Python 2 or 3 and numpy 1 or 2.
    """
    with open(path, 'rb') as file, damage_told(path, 'a weight file'):
        content = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[:100].lstrip().startswith(b'<'):
            raise ValueError('it is an HTML page')
        np.lib.format.read_magic(content)
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
        if shape != () or dtype != np.dtype(object):
            raise ValueError('holds an array, not a dictionary of layers')
        # As bytes, since Python 2 pickled arrays as text; decoding it would copy.
        [layers] = WeightsUnpickler(content, encoding='bytes').load().state[-1]
        return {as_text(name): arrays_of(as_text(name), pair)
                for name, pair in layers.items()}


def arrays_of(name, pair):
    """Return [weights, biases] of what a pickle holds for a layer."""
    if isinstance(pair, dict):
        pair = {as_text(kind): array for kind, array in pair.items()}
        pair = [pair.get(kind) for kind in KINDS]
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and
            all(isinstance(array, Pickled) for array in pair)):
        raise ValueError('%s: expected [weights, biases] or {"weights": ..., '
                         '"biases": ...}' % name)
    return [array.array() for array in pair]


def as_text(name):
    """Return text that may have been pickled by Python 2 as bytes."""
    return name.decode() if isinstance(name, bytes) else name


class MappedFile(mmap.mmap):
    """A file of which large reads are views, not copies."""

    def read(self, size):
        if size < 1000:
            return super().read(size)
        view = memoryview(self)[self.tell():self.tell() + size]
        self.seek(len(view), os.SEEK_CUR)
        return view


class Pickled:
    """Stands for a numpy array, or its dtype, while it is unpickled."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """Return the array, a view of the bytes that were read."""
        _, shape, dtype, is_fortran, data = self.state
        kind = as_text(dtype.arguments[0])
        if kind not in ('f2', 'f4', 'f8'):
            raise ValueError('expected arrays of floats, found type %s' % kind)
        order = '>' if as_text(dtype.state[1]) == '>' else '<'
        array = np.frombuffer(data, order + kind)
        return array.reshape(shape, order='F' if is_fortran else 'C')


class WeightsUnpickler(pickle._Unpickler):
    """Unpickle numpy arrays, builtin containers and text; refuse everything else.

    Calls nothing of a pickle's choice, only what KNOWN holds. The compiled unpickler
    would allocate 16 bytes times whatever memo index a damaged file claims.
    """

    KNOWN = {
        'numpy.ndarray': Pickled, 'numpy.dtype': Pickled,
        'numpy.core.multiarray._reconstruct': Pickled,
        'numpy._core.multiarray._reconstruct': Pickled,
        '_codecs.encode': lambda text, encoding: text.encode('latin1')}
    dispatch = dict(pickle._Unpickler.dispatch)
    # BYTEARRAY8, which no array needs, allocates what it claims before it reads.
    dispatch.pop(b'\x96'[0], None)

    def find_class(self, module, name):
        name = '%s.%s' % (module, name)
        if name not in self.KNOWN:
            raise pickle.UnpicklingError('refused to load %s: weights hold arrays in '
                                         'lists and dicts, no more' % name)
        return self.KNOWN[name]


# The fields of caffe.proto that hold weights, in today's "layer" and the older "layers"
# format. Packed floats are declared as the bytes that they are on the wire, which
# spares a Python loop over 61 million numbers.
PROTO = '''
message Shape { repeated int64 dim = 1; }
message Blob { optional int32 num = 1; optional int32 channels = 2;
               optional int32 height = 3; optional int32 width = 4;
               optional bytes data = 5; optional Shape shape = 7; }
message OldLayer { optional string name = 4; repeated Blob blobs = 6; }
message Layer { optional string name = 1; repeated Blob blobs = 7; }
message Net { repeated OldLayer layers = 2; repeated Layer layer = 100; }
'''
file_proto = descriptor_pb2.FileDescriptorProto(name='weights.proto', package='weights')
for message, fields in re.findall(r'message (\w+) {(.*?)}', PROTO, re.S):
    message_proto = file_proto.message_type.add(name=message)
    for label, kind, name, number in re.findall(r'(\w+) (\w+) (\w+) = (\d+)', fields):
        kind = ({'type': 'TYPE_' + kind.upper()} if kind.islower() else
                {'type_name': kind})
        message_proto.field.add(name=name, number=int(number),
                                label='LABEL_' + label.upper(), **kind)
CaffeNet = message_factory.GetMessages([file_proto])['weights.Net']


def read_caffemodel(path):
    """Read weights from Caffe's NetParameter and turn them to TensorFlow's layout.

    Convolutions go from (out, in, height, width) to (height, width, in, out), fully
    connected layers from (out, in) to (in, out), and the rows of fc6, which flattens
    pool5, from the order (channel, row, column) to (row, column, channel).
    """
    with open(path, 'rb') as file, damage_told(path, 'a caffemodel'):
        net = CaffeNet()
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if net.ParseFromString(content) < len(content):
            raise ValueError('only its start is a caffemodel')
        names = [layer.name for layer in list(net.layers) + list(net.layer)]
        if {'norm1', 'pool1'} < set(names) and (
                names.index('pool1') < names.index('norm1')):
            raise InputError('it pools before it normalises, so it is CaffeNet or '
                             'the like, not AlexNet; "python alexnet.py" fetches '
                             "AlexNet's weights")
        return {layer.name: convert_blobs(layer)
                for layer in list(net.layers) + list(net.layer)
                if len(layer.blobs) == 2}


def convert_blobs(layer):
    """Return [weights, biases] of a Caffe layer in TensorFlow's layout."""
    array, biases = [np.frombuffer(blob.data, '<f4') for blob in layer.blobs]
    blob = layer.blobs[0]
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if len(shape) == 2 or shape[:2] == [1, 1]:
        array = array.reshape(shape[-2:])
        if layer.name == 'fc6':
            array = array.reshape(-1, 256, 36).swapaxes(1, 2).reshape(shape[-2:])
        return [array.T, biases]
    return [array.reshape(shape).transpose(2, 3, 1, 0), biases]
