"""Weights and images that a seed reproduces, and what real Caffe made of them."""
import os

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
CAFFE_SHAPES = {
    'conv1': (96, 3, 11, 11), 'conv2': (256, 48, 5, 5), 'conv3': (384, 256, 3, 3),
    'conv4': (384, 192, 3, 3), 'conv5': (256, 192, 3, 3), 'fc6': (4096, 9216),
    'fc7': (4096, 4096), 'fc8': (1000, 4096)}


def golden():
    """Return (Caffe's activations, Caffe's weights {layer: [weights, biases]}, images)."""
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
