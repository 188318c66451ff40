"""Read the weights in a .caffemodel file of Caffe."""
import mmap
import re

import numpy as np
from google.protobuf import descriptor_pb2, message_factory

from machinery.checkpoint_files import damage_told
from machinery.errors import InputError

# The layers of BVLC's AlexNet in TensorFlow's layout, even if somebody changes ours.
PRETRAINED = {
    'conv1': [11, 11, 3, 96], 'conv2': [5, 5, 48, 256], 'conv3': [3, 3, 256, 384],
    'conv4': [3, 3, 192, 384], 'conv5': [3, 3, 192, 256], 'fc6': [9216, 4096],
    'fc7': [4096, 4096], 'fc8': [4096, 1000]}
# The fields of caffe.proto that hold weights: "layer" is today's format, "layers" the
# older one. The floats are packed in the file; declared as bytes, they need no Python
# loop over 61 million numbers.
PROTO = '''
message Shape { repeated int64 dim = 1; }
message Blob { optional int32 num = 1; optional int32 channels = 2;
               optional int32 height = 3; optional int32 width = 4;
               optional bytes data = 5; optional Shape shape = 7; }
message OldLayer { optional string name = 4; repeated Blob blobs = 6; }
message Layer { optional string name = 1; repeated Blob blobs = 7; }
message Net { repeated OldLayer layers = 2; repeated Layer layer = 100; }
'''


def compile_proto(text):
    """Return {'weights.' + name: class} of the messages in text like PROTO."""
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
    """Read {layer name: [weights, biases]} of a .caffemodel in TensorFlow's layout."""
    with open(path, 'rb') as file, damage_told(path, 'a caffemodel'):
        net = CaffeNet()
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if net.ParseFromString(content) < len(content):
            raise ValueError('only its start is a caffemodel')
        layers = list(net.layers) + list(net.layer)
        order = [layer.name for layer in layers if layer.name in ('norm1', 'pool1')]
        if order == ['pool1', 'norm1']:
            raise InputError('it pools before it normalises, like CaffeNet; "python '
                             'alexnet.py" fetches the weights of AlexNet')
        return {layer.name: convert_blobs(layer) for layer in layers
                if len(layer.blobs) == 2}


def convert_blobs(layer):
    """Return [weights, biases] of a Caffe layer in TensorFlow's layout.

    Convolutions go from (out, in, height, width) to (height, width, in, out), fully
    connected layers from (out, in) to (in, out). fc6 flattens pool5, so its rows go
    from the order (channel, row, column) to (row, column, channel).
    """
    array, biases = [np.frombuffer(blob.data, '<f4') for blob in layer.blobs]
    blob = layer.blobs[0]
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if len(shape) == 2 or shape[:2] == [1, 1]:
        array = array.reshape(shape[-2:])
        if layer.name == 'fc6':
            array = array.reshape(-1, 256, 36).swapaxes(1, 2).reshape(shape[-2:])
        return [array.T, biases]
    return [array.reshape(shape).transpose(2, 3, 1, 0), biases]
