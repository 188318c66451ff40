"""The key of stored features: a hash of everything they depend on."""
import hashlib
import inspect
import os
import platform
import re

import cv2
import PIL

from machinery import pictures, proportions, tiff
from machinery.model_file import TEST_PICTURE
from machinery.tf1 import find_pass_size, list_gpus, session_config, tf

HIDDEN = {'PyFunc', 'PyFuncStateless', 'EagerPyFunc', 'ReadFile'}  # Python, or a file
FORMAT = 1  # of the store; a new number hides all earlier stores
# Attributes that only name things.
NAMES = {'_class', 'container', 'debug_name', 'shared_name'}
# Environment variables that may change arithmetic, except HARMLESS names.
ARITHMETIC = 'NVIDIA_TF32|(TF|XLA|ONEDNN|DNNL|MKL|CUDNN|CUBLAS|OPENCV)_'
HARMLESS = 'TF_(CONFIG|CPP|FORCE_GPU_ALLOW|GPU_ALLOC|NUM)|.*(VERBOSE|LOG|THREAD)'


def feature_key(session, layer, same_as, load_image):
    """Return the key of a layer's features, None if they depend on hidden code.

    Args:
        session: has the values of the variables, which are hashed as well.
        layer: tensor, computed from uint8 images (n, height, width, 3).
        same_as: {tensor: tensor of the same value}, for example {dropout6: fc6} while
            dropout is off, so that operations of dropout are not hashed.
        load_image: function from the path of a picture to an image.
    """
    try:
        sources = [inspect.getsource(module)
                   for module in (inspect.getmodule(load_image), pictures, proportions,
                                  tiff)]
    except (OSError, TypeError):  # load_image was typed into a notebook
        return None
    key = hashlib.sha256(repr([
        FORMAT, find_pass_size(), layer.shape.as_list()[1:], tf.__version__,
        cv2.__version__, PIL.__version__, find_environment(),
        list_gpus() or find_processor(), sources,
        session_config().graph_options.SerializeToString(deterministic=True),
        has_tf32(),
    ]).encode('utf-8', 'surrogateescape'))
    if os.path.exists(TEST_PICTURE):
        key.update(load_image(TEST_PICTURE).tobytes())
    values = {variable.op: variable
              for variable in tf.global_variables() + tf.local_variables()}
    for operation in hash_graph(key, layer, same_as):
        if operation.type in HIDDEN:
            return None
        if operation in values:
            value = session.run(values[operation])
            key.update(repr([value.dtype.str, value.shape]).encode())
            key.update(value.tobytes())
    return key.hexdigest()


def has_tf32():
    """Tell whether a GPU may multiply with 10 bits (TF32); False in TensorFlow 1.15."""
    experimental = tf.config.experimental
    return (hasattr(experimental, 'tensor_float_32_execution_enabled') and
            experimental.tensor_float_32_execution_enabled())


def hash_graph(key, layer, same_as):
    """Hash the operations that a tensor is computed from, and return them.

    Each is identified by its place in this walk, so names do not matter.
    """
    layer = same_as.get(layer, layer)
    operations, places, has_functions = [layer.op], {layer.op: 0}, False
    key.update(b'%d' % layer.value_index)
    for operation in operations:  # grows in this loop
        inputs = [same_as.get(tensor, tensor) for tensor in operation.inputs]
        for source in [tensor.op for tensor in inputs] + operation.control_inputs:
            if source not in places:
                places[source] = len(operations)
                operations.append(source)
        attributes = operation.node_def.attr
        key.update(repr([
            operation.type, operation.device,
            [(name, attributes[name].SerializeToString(deterministic=True))
             for name in sorted(set(attributes) - NAMES)],
            [(places[tensor.op], tensor.value_index) for tensor in inputs],
            [places[source] for source in operation.control_inputs]]).encode())
        has_functions |= any(value.HasField('func') or value.list.func
                             for value in attributes.values())
    if has_functions:
        library = layer.graph.as_graph_def().library
        key.update(library.SerializeToString(deterministic=True))
    return operations


def find_environment():
    """Return the environment variables that may change arithmetic, sorted."""
    return sorted((name, value) for name, value in os.environ.items()
                  if re.match(ARITHMETIC, name) and not re.match(HARMLESS, name))


def find_processor():
    """Describe the processor, since rounding depends on its model, flags and caches."""
    if not os.path.exists('/proc/cpuinfo'):
        return platform.processor()
    with open('/proc/cpuinfo') as file:
        first = file.read().split('\n\n')[0]
    return re.findall('^(?:model name|flags|Features|cache size).*', first, re.M)
