"""The frozen layers: from uint8 images to the features that the trained layers get."""
import os
import re

from machinery.errors import InputError
from machinery.feature_key import (feature_key, find_processor, find_variables,
                                   list_operations)
from machinery.store import Store
from machinery.tf1 import (TimedSession, find_rounding, session_config, tf,
                           why_no_bfloat16)

FAST = r'\b(avx512_bf16|amx_bf16|bf16)\b'  # flags of processors that gain from it


class FrozenLayers:
    """A function from uint8 images (n, height, width, 3) to features (n, ...).

    Use it in a with statement, which closes what it has opened.

    Args:
        session: has the variables' values, which must not change from now on.
        layer: tensor, the features; or pictures itself, if nothing is frozen.
        pictures: placeholder for images.
        feed: {placeholder: value} of the others, for example {keep_prob: 1.}.
        same_as: {tensor: tensor of the same value}, for example {dropout6: fc6}, if
            dropout is off.
        mixed_precision: run the layers in bfloat16, where TensorFlow considers that
            safe. Prints why that has no effect, or that it is slow.

    Attributes:
        rounding: how much features of the same image may differ, as part of their norm.
    """

    def __init__(self, session, layer, pictures, feed, same_as, mixed_precision=False):
        self._session, self._layer, self._same_as = session, layer, same_as
        self._pictures, self._feed = pictures, feed
        self._config, self._copy = session_config(), None
        self.rounding = find_rounding()
        if mixed_precision and self._has_effect():
            self.rounding = 2e-3  # in passes of 1 and of 32, it was up to 8e-4
            self._config = session_config(mixed_precision=True)
            # A separate session: the option applies to everything run in it, and would
            # change the gradients of the trained layers.
            self._copy = copy_session(session, [layer, pictures, *feed], same_as,
                                      self._config)

    def _has_effect(self):
        """Tell if mixed_precision has an effect; print why not, or that it is slow."""
        reason = why_no_bfloat16(self._layer)
        if reason:
            print('mixed_precision has no effect %s' % reason)
        elif os.path.exists('/proc/cpuinfo') and not re.search(
                FAST, str(find_processor())):
            print('Warning: mixed_precision is slower on this processor, which has '
                  'neither AMX nor AVX512-BF16')
        return not reason

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._copy:
            self._copy.close()

    def __call__(self, images):
        """Return the features of images."""
        feed = {self._pictures: images, **self._feed}
        if not self._copy:
            return self._session.run(self._layer, feed)
        return self._copy.run(self._layer.name, {
            tensor.name: value for tensor, value in feed.items()})

    def open_store(self, folder, limit, load_image):
        """Return the Store for the features, or None if no layer is frozen.

        folder and limit are those of Store, load_image is that of feature_key.
        """
        if self._layer.op.type == 'Placeholder':
            return None
        key = feature_key(self._session, self._layer, self._same_as, load_image,
                          self._config)
        return Store(self._layer.shape.as_list()[1:], folder, key, limit)


def copy_session(session, tensors, same_as, config):
    """Copy the part of the graph that computes these tensors into a new session.

    All keep their names, and variables their values. Raises an InputError if there is
    a table or the like, whose content cannot be copied.
    """
    values, needed = find_variables(), [tensor.op for tensor in tensors]
    used = [values[operation] for operation in list_operations(needed, same_as)
            if operation in values]
    graph_def = session.graph.as_graph_def()  # for its versions and functions
    del graph_def.node[:]
    for operation in list_operations(
            needed + [variable.initializer for variable in used], same_as):
        if operation not in values and not operation.inputs and any(
                tensor.dtype == tf.resource for tensor in operation.outputs):
            raise InputError('mixed_precision: %s (%s) cannot be copied; set '
                             'mixed_precision = False'
                             % (operation.name, operation.type))
        node = graph_def.node.add()
        node.CopyFrom(operation.node_def)
        node.device = ''  # this process's, also in a cluster
        node.attr.pop('_class', None)  # colocation with an operation that is not copied
        node.input[:] = [same_as.get(tensor, tensor).name for tensor in operation.inputs
                         ] + ['^' + source.name for source in operation.control_inputs]
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name='')
    copy = TimedSession(graph=graph, config=config)
    for variable in used:
        initializer = variable.initializer
        copy.run(initializer.name,
                 {initializer.inputs[1].name: session.run(variable)})
    return copy
