"""Read the weights from a .caffemodel file of Caffe."""
import mmap
import re

import numpy as np
from google.protobuf import descriptor_pb2, message_factory

from machinery.damage import damage_told
from machinery.errors import InputError

# Weight shapes of BVLC's AlexNet in TensorFlow's layout, whatever alexnet.py has now.
PRETRAINED = {
    'conv1': [11, 11, 3, 96], 'conv2': [5, 5, 48, 256], 'conv3': [3, 3, 256, 384],
    'conv4': [3, 3, 192, 384], 'conv5': [3, 3, 192, 256], 'fc6': [9216, 4096],
    'fc7': [4096, 4096], 'fc8': [4096, 1000]}
# The fields of caffe.proto that hold weights, in today's format ("layer") and in two
# older formats ("layers", and "layers" with a nested "layer"). The floats are packed in
# the file. Declaring them as bytes saves a Python loop over 61 million numbers.
# NVIDIA's Caffe stores them in raw_data.
PROTO = '''
message Shape { repeated int64 dim = 1; }
message Blob { optional int32 num = 1; optional int32 channels = 2;
               optional int32 height = 3; optional int32 width = 4;
               optional bytes data = 5; optional Shape shape = 7;
               optional bytes double_data = 8; optional int32 raw_data_type = 10;
               optional bytes raw_data = 12; }
message OldestLayer { optional string name = 1; optional string type = 2;
                      repeated Blob blobs = 50; }
message OldLayer { optional OldestLayer layer = 1; optional string name = 4;
                   optional int32 type = 5; repeated Blob blobs = 6; }
message Layer { optional string name = 1; optional string type = 2;
                repeated Blob blobs = 7; }
message Net { repeated OldLayer layers = 2; repeated Layer layer = 100; }
'''
RAW_TYPES = {0: '<f8', 1: '<f4', 2: '<f2'}
# A layer's type in each of the three formats.
NORM, POOL = ('LRN', 15, 'lrn'), ('Pooling', 17, 'pool')


def compile_proto(text):
    """Compile messages written like PROTO; return {'weights.' + name: class}."""
    file = descriptor_pb2.FileDescriptorProto(name='weights.proto', package='weights')
    for message_name, fields in re.findall(r'message (\w+) {(.*?)}', text, re.S):
        message = file.message_type.add(name=message_name)
        for label, kind, name, tag in re.findall(r'(\w+) (\w+) (\w+) = (\d+)', fields):
            kind = ({'type': 'TYPE_' + kind.upper()} if kind.islower() else
                    {'type_name': kind})
            message.field.add(name=name, number=int(tag),
                              label='LABEL_' + label.upper(), **kind)
    return message_factory.GetMessages([file])


CaffeNet = compile_proto(PROTO)['weights.Net']


def read_caffemodel(path):
    """Read {layer name: [weights, biases]} of a .caffemodel in TensorFlow's layout.

    Raises an InputError if the file is damaged or holds a different network.
    """
    with open(path, 'rb') as file, damage_told(path, 'a caffemodel'):
        net = CaffeNet()
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if net.ParseFromString(content) < len(content):
            raise ValueError('only its start is a caffemodel')
        layers = [layer.layer if layer.HasField('layer') else layer
                  for layer in net.layers] + list(net.layer)
        check_layers(layers)
        return {layer.name: convert_blobs(layer) for layer in layers if layer.blobs}


def check_layers(layers):
    """Raise an InputError if the layers or their order are not AlexNet's."""
    order = [kind for kind in map(norm_or_pool, layers) if kind]
    filled = [layer for layer in layers if layer.blobs]
    names = [layer.name for layer in filled]
    faults = ['\n  %s (%s) holds %s' % (layer.name, layer.type, ' + '.join(
        'x'.join(map(str, shape_of(blob))) for blob in layer.blobs))
        for layer in filled if names.count(layer.name) > 1 or len(layer.blobs) != 2
        or len(shape_of(layer.blobs[0])) not in (2, 4)]
    if faults:
        fault = 'it is another network: not all layers hold weights and biases'
    elif order[:1] == ['pool'] and 'norm' in order:
        fault = 'it pools before it normalises, like CaffeNet'
    # A file of the whole network (with fc6) that lists its pools would list its norms.
    elif 'pool' in order and 'norm' not in order and 'fc6' in names:
        fault = 'it has no local response normalisation'
    else:
        return
    raise InputError('%s; "python alexnet.py" fetches the weights of AlexNet%s'
                     % (fault, ''.join(faults)))


def norm_or_pool(layer):
    """Return 'norm', 'pool' or None for a layer, by its type or name."""
    for kind, types, names in [('norm', NORM, ('norm', 'lrn')), ('pool', POOL, 'pool')]:
        if layer.type in types or not layer.blobs and layer.name.startswith(names):
            return kind


def shape_of(blob):
    """Return the shape of a blob; older files have it in four separate fields."""
    return list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]


def numbers_of(name, blob):
    """Return the numbers of a layer's blob as float32, from the field that has them."""
    content, kind = blob.data or blob.double_data, '<f4' if blob.data else '<f8'
    if blob.HasField('raw_data'):
        content, kind = blob.raw_data, RAW_TYPES.get(blob.raw_data_type)
    if not kind:
        raise ValueError('%s: holds integers, not floats' % name)
    found, shape = np.frombuffer(content, kind), shape_of(blob)
    if found.size != np.prod(shape, dtype=int):
        raise ValueError('%s: %d numbers for shape %s' % (name, found.size, shape))
    return found.astype('<f4', copy=False)


def convert_blobs(layer):
    """Return [weights, biases] of a Caffe layer in TensorFlow's layout.

    Convolutions change from (out, in, height, width) to (height, width, in, out), fully
    connected layers from (out, in) to (in, out). fc6 flattens pool5, so the order of
    its rows changes from (channel, row, column) to (row, column, channel).
    """
    array, biases = [numbers_of(layer.name, blob) for blob in layer.blobs]
    shape = shape_of(layer.blobs[0])
    if len(shape) == 2 or shape[:2] == [1, 1]:
        array = array.reshape(shape[-2:])
        if layer.name == 'fc6':
            array = array.reshape(-1, 256, 36).swapaxes(1, 2).reshape(shape[-2:])
        return [array.T, biases]
    return [array.reshape(shape).transpose(2, 3, 1, 0), biases]
