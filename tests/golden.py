"""Weights and images that a seed reproduces, and what real Caffe made of them."""
import os
import struct

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
CAFFE_SHAPES = {
    'conv1': (96, 3, 11, 11), 'conv2': (256, 48, 5, 5), 'conv3': (384, 256, 3, 3),
    'conv4': (384, 192, 3, 3), 'conv5': (256, 192, 3, 3), 'fc6': (4096, 9216),
    'fc7': (4096, 4096), 'fc8': (1000, 4096)}


def golden():
    """Return (activations, {layer: [weights, biases]}, images), all as Caffe's."""
    activations = np.load(os.path.join(HERE, 'data', 'golden.npz'))
    rng = np.random.RandomState(int(activations['seed']))
    weights = {}
    for name, shape in CAFFE_SHAPES.items():
        scale = np.sqrt(2. / np.prod(shape[1:]))
        weights[name] = [(rng.standard_normal(shape) * scale).astype(np.float32),
                         (rng.standard_normal(shape[0]) * .1).astype(np.float32)]
    images = rng.randint(0, 256, (2, 227, 227, 3)).astype(np.uint8)
    return activations, weights, np.float32(images) - np.float32([104, 117, 124])


def to_tensorflow(weights):
    """Return Caffe's weights in TensorFlow's layout."""
    converted = {}
    for name, (array, biases) in weights.items():
        if name == 'fc6':  # Caffe flattens pool5 as (channel, row, column)
            array = array.reshape(-1, 256, 6, 6).transpose(2, 3, 1, 0).reshape(9216, -1)
        elif array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        else:
            array = array.T
        converted[name] = [np.ascontiguousarray(array), biases]
    return converted


def field(number, content):
    """Encode a protobuf field: bytes or text with length, an integer as a varint."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if isinstance(content, str):
        content = content.encode()
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    """Encode an integer seven bits a byte, the lowest first."""
    encoded = b''
    while value > 127:
        encoded += struct.pack('B', value & 127 | 128)
        value >>= 7
    return encoded + struct.pack('B', value)


def write_caffemodel(path, weights, old):
    """Write weights as Caffe does, in the "layer" or the older "layers" format."""
    with open(path, 'wb') as file:
        for name, arrays in weights.items():
            layer = field(4 if old else 1, name)
            for array in arrays:
                if old:
                    shape = (1,) * (4 - array.ndim) + array.shape
                    blob = b''.join(field(1 + i, size) for i, size in enumerate(shape))
                else:
                    blob = field(7, field(1, b''.join(map(varint, array.shape))))
                layer += field(6 if old else 7, blob + field(5, array.tobytes()))
            file.write(field(2 if old else 100, layer))
