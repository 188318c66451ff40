"""AlexNet as BVLC trained it for Caffe, and its weights.

Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012; layers and constants are those of Caffe's models/bvlc_alexnet.

    python alexnet.py                          fetch the pretrained weights
    python alexnet.py a.caffemodel [out.npy]   convert Caffe's weights
    python alexnet.py model_epoch9.ckpt [out.npy]   or those of a checkpoint
"""
import argparse
import glob
import hashlib
import http.client
import json
import mmap
import os
import pickle
import shutil
import sys
import time
import urllib.error
import urllib.request

import numpy as np
from google.protobuf import descriptor_pb2, message_factory, text_format
from tqdm import tqdm

# Keep TensorFlow's start-up messages off the screen, unless the user set a level. Some
# are written straight to file descriptor 2 during the import, whatever the level is.
if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') == '3':
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow.compat.v1 as tf
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
else:
    import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
# The update of a reference variable can race the backward pass that still reads it.
tf.enable_resource_variables()

LAYERS = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8']
DEFAULT_WEIGHTS = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                               'bvlc_alexnet.npy')
# In the order in which they are tried; SHA-1 where its publisher gives one.
SOURCES = [
    ('https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel',
     '9116a64c0fbe4459d18f4bb6b56d647b63920377')]
TIMEOUT = 10  # seconds without an answer
SLOWEST = 10000  # bytes a second, below which a source counts as dead


class AlexNet:
    """Build the graph of AlexNet; every layer's output is an attribute of its name.

    Args:
        x: float32 tensor (n, 227, 227, 3), BGR, 0..255 minus the mean; n may be None.
        keep_prob: scalar tensor or float, the probability that dropout keeps a value.
        num_classes: width of fc8.
        skip_layer: names of the layers that load_initial_weights leaves as they are.
        weights_path: a file that read_weights reads; 'DEFAULT': bvlc_alexnet.npy beside
            this file; None: there is none, initialize_from_data is used instead.
        train_layers: names of the layers that will be trained; None: as skip_layer.
        dropout_seed: two integers or scalar tensors, for example [seed, global_step],
            that alone determine the dropout masks; None draws new masks at every run.
        dropout_rows: (integer tensor (n,), number of rows): x is that selection of the
            rows of a larger batch, and gets the masks that they would get there; an
            empty tensor stands for the first n rows.

    Attributes:
        conv1, norm1, pool1, conv2, norm2, pool2, conv3, conv4, conv5, pool5, flat5,
        fc6, dropout6, fc7, dropout7, fc8: the outputs, fc8 being the unscaled logits.
        variables: {layer name: [weights, biases]}.
        frozen: the tensor that enters the first trained layer, before its dropout. It
            depends on the image alone, so it can be computed once and fed instead of x.

    Raises:
        ValueError: x has another shape, or skip_layer or train_layers is not a list of
            different names of layers.
    """

    def __init__(self, x, keep_prob, num_classes, skip_layer, weights_path='DEFAULT',
                 train_layers=None, dropout_seed=None, dropout_rows=None):
        train_layers = skip_layer if train_layers is None else train_layers
        check_layers(skip_layer, 'skip_layer')
        check_layers(train_layers, 'train_layers')
        if x.shape.as_list()[1:] != [227, 227, 3]:
            raise ValueError('x has shape %s, expected (n, 227, 227, 3)' % x.shape)
        self.x = x
        self.keep_prob = tf.convert_to_tensor(keep_prob, tf.float32)
        self.skip_layer = list(skip_layer)
        self.train_layers = list(train_layers)
        if weights_path == 'DEFAULT':
            weights_path = DEFAULT_WEIGHTS
        self.weights_path = weights_path
        seed6, seed7 = dropout_seeds(dropout_seed)

        self.conv1 = conv(x, 11, 96, 4, 'conv1', padding='VALID')
        self.norm1 = lrn(self.conv1, 2, 2e-5, 0.75, 'norm1')
        self.pool1 = max_pool(self.norm1, 3, 2, 'pool1')
        self.conv2 = conv(self.pool1, 5, 256, 1, 'conv2', groups=2)
        self.norm2 = lrn(self.conv2, 2, 2e-5, 0.75, 'norm2')
        self.pool2 = max_pool(self.norm2, 3, 2, 'pool2')
        self.conv3 = conv(self.pool2, 3, 384, 1, 'conv3')
        self.conv4 = conv(self.conv3, 3, 384, 1, 'conv4', groups=2)
        self.conv5 = conv(self.conv4, 3, 256, 1, 'conv5', groups=2)
        self.pool5 = max_pool(self.conv5, 3, 2, 'pool5')
        self.flat5 = tf.reshape(self.pool5, [-1, 6 * 6 * 256], 'flat5')
        self.fc6 = fc(self.flat5, 4096, 'fc6')
        self.dropout6 = dropout(self.fc6, self.keep_prob, 'dropout6', seed6,
                                dropout_rows)
        self.fc7 = fc(self.dropout6, 4096, 'fc7')
        self.dropout7 = dropout(self.fc7, self.keep_prob, 'dropout7', seed7,
                                dropout_rows)
        self.fc8 = fc(self.dropout7, num_classes, 'fc8', relu=False)

        inputs = [x, self.pool1, self.pool2, self.conv3, self.conv4, self.flat5,
                  self.fc6, self.fc7, self.fc8]
        is_trained = [name in train_layers for name in LAYERS]
        self.frozen = inputs[(is_trained + [True]).index(True)]
        scope = tf.get_variable_scope().name
        prefix = scope + '/' if scope else ''
        self.variables = {name: tf.trainable_variables('%s%s/' % (prefix, name))
                          for name in LAYERS}

    def load_initial_weights(self, session):
        """Assign the file's weights to every layer that is not in skip_layer.

        Adds no operation to the graph, and assigns nothing unless everything fits.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, runs code, or has a missing or surplus
                layer or a wrong shape; names the file and each such layer.
        """
        loaded = read_weights(self.weights_path)
        self.check_weights(loaded, self.weights_path)
        for name in LAYERS:
            if name not in self.skip_layer:
                for variable, value in zip(self.variables[name], loaded[name]):
                    variable.load(value, session)

    def check_weights(self, weights, path):
        """Raise a ValueError that names all that does not fit the layers to load."""
        faults = ['%s: not a layer of AlexNet' % name
                  for name in weights if name not in LAYERS]
        for name in LAYERS:
            if name in self.skip_layer:
                continue
            if name not in weights:
                faults.append('%s: missing' % name)
                continue
            for variable, value in zip(self.variables[name], weights[name]):
                expected = tuple(variable.shape.as_list())
                if value.shape != expected:
                    faults.append('%s: expected shape %s, found %s'
                                  % (variable.op.name, expected, value.shape))
        if faults:
            raise ValueError('%s does not fit the network:\n  %s'
                             % (path, '\n  '.join(faults)))

    def initialize_from_data(self, session, images):
        """Scale every layer so that its channels have mean 0, variance 1 on the images.

        Starts from the values that the variables have, takes the layers in their order,
        and measures before the ReLU. Krähenbühl et al., "Data-dependent
        Initializations of Convolutional Neural Networks", ICLR 2016, section 3.1.

        Args:
            images: float32 array (n, 227, 227, 3) as x takes them; some dozens suffice.

        Raises:
            ValueError: a channel does not vary over the images.
        """
        for name in LAYERS:
            output = getattr(self, name)
            if output.op.type == 'Relu':
                output = output.op.inputs[0]
            activation = session.run(output, {self.x: images, self.keep_prob: 1.})
            activation = activation.reshape(-1, activation.shape[-1])
            mean = activation.mean(0, dtype=np.float64)
            deviation = activation.std(0, dtype=np.float64)
            if deviation.min() <= 1e-6 * np.abs(activation).max():
                raise ValueError('%s: a channel has the same value for all %d images; '
                                 'initialising from data needs more and different ones'
                                 % (name, len(images)))
            weights, biases = session.run(self.variables[name])
            self.variables[name][0].load(weights / deviation, session)
            self.variables[name][1].load((biases - mean) / deviation, session)

    def table(self):
        """Return a table as text: each layer, its shape, its origin, if it trains."""
        rows = ['%-6s %-18s %-9s %s' % ('layer', 'weights', 'initially', 'then')]
        for name in LAYERS:
            shape = ' x '.join(map(str, self.variables[name][0].shape.as_list()))
            origin = ('from data' if self.weights_path is None else
                      'fresh' if name in self.skip_layer else 'loaded')
            rows.append('%-6s %-18s %-9s %s' % (
                name, shape, origin,
                'trained' if name in self.train_layers else 'frozen'))
        return '\n'.join(rows)


def check_layers(names, argument):
    """Raise a ValueError that lists the layers if names is no list of some of them."""
    if (isinstance(names, str) or any(name not in LAYERS for name in names)
            or len(set(names)) < len(names)):
        raise ValueError('%s = %r: expected a list of different names from %s'
                         % (argument, names, ', '.join(LAYERS)))


def conv(x, size, num_filters, stride, name, padding='SAME', groups=1):
    """Convolve (n, h, w, channels) with square filters, add biases, apply ReLU.

    With groups, each part of the filters sees its own part of the input channels.
    """
    with tf.variable_scope(name):
        channels = x.shape.as_list()[-1]
        weights = tf.get_variable(
            'weights', [size, size, channels // groups, num_filters])
        biases = tf.get_variable('biases', [num_filters],
                                 initializer=tf.zeros_initializer())
        outputs = [tf.nn.conv2d(part, filters, [1, stride, stride, 1], padding,
                                name='group%d' % number)
                   for number, (part, filters) in enumerate(zip(
                       tf.split(x, groups, -1), tf.split(weights, groups, -1)), 1)]
        return tf.nn.relu(tf.nn.bias_add(tf.concat(outputs, -1), biases))


def fc(x, num_out, name, relu=True):
    """Multiply (n, channels) with the weights, add biases, apply ReLU if asked to."""
    with tf.variable_scope(name):
        weights = tf.get_variable('weights', [x.shape.as_list()[-1], num_out])
        biases = tf.get_variable('biases', [num_out],
                                 initializer=tf.zeros_initializer())
        output = tf.nn.bias_add(tf.matmul(x, weights), biases)
        return tf.nn.relu(output) if relu else output


def max_pool(x, size, stride, name, padding='VALID'):
    """Take the maximum of square windows."""
    return tf.nn.max_pool(x, [1, size, size, 1], [1, stride, stride, 1], padding,
                          name=name)


def lrn(x, radius, alpha, beta, name, bias=1.0):
    """Normalise across channels; alpha is Caffe's over the 2 * radius + 1 channels.

    Krizhevsky et al. 2012, section 3.3.
    """
    return tf.nn.local_response_normalization(x, radius, bias, alpha, beta, name=name)


def dropout(x, keep_prob, name='dropout', seed=None, rows=None):
    """Keep each value with probability keep_prob, scaled by 1 / keep_prob, or zero it.

    The mask is a function of seed (integer tensor of shape (2,)), or new at every run.
    For rows, see dropout_rows of AlexNet; x is (n, channels) then.
    """
    with tf.name_scope(name):
        if seed is None:
            uniform = tf.random.uniform(tf.shape(x))
        elif rows is None:
            uniform = tf.random.stateless_uniform(tf.shape(x), seed)
        else:
            places, total = rows
            number, channels = tf.shape(x)[0], x.shape[1]
            places = tf.concat([places, tf.range(tf.size(places), number)], 0)
            uniform = tf.gather(tf.random.stateless_uniform(
                [tf.maximum(total, number), channels], seed), places)
        return tf.where(uniform < keep_prob, x / keep_prob, tf.zeros_like(x))


def dropout_seeds(seed):
    """Return two unlike seeds, so that fc6 and fc7 drop different units."""
    if seed is None:
        return None, None
    with tf.name_scope('dropout_seeds'):
        first, second = [tf.cast(number, tf.int64) for number in seed]
        return tf.stack([2 * first, second]), tf.stack([2 * first + 1, second])


class MappedFile:
    """A file to unpickle from, whose large reads are views of its memory map."""

    def __init__(self, file):
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.map.seek(file.tell())
        self.readline = self.map.readline

    def read(self, size):
        if size < 1000:
            return self.map.read(size)
        start = self.map.tell()
        view = memoryview(self.map)[start:start + size]
        self.map.seek(start + len(view))
        return view


class PickledArray:
    """Stands for a numpy array, or its dtype, while it is unpickled."""

    def __init__(self, kind=None):
        self.kind, self.order = kind, '='

    def __setstate__(self, state):
        if self.kind:
            self.order = state[1]
        else:
            self.state = state[1:]

    def array(self):
        """Return the array, a view of the bytes that were read."""
        shape, dtype, is_fortran, data = self.state
        if dtype.kind not in ['f2', 'f4', 'f8']:
            raise ValueError('expected arrays of floats, found type %s' % dtype.kind)
        order = '>' if dtype.order in ('>', b'>') else '<'
        array = np.frombuffer(data, order + dtype.kind)
        return array.reshape(shape, order='F' if is_fortran else 'C')


class WeightsUnpickler(pickle._Unpickler):
    """Unpickle numpy arrays, builtin containers and text; refuse everything else.

    No class or function of the pickle's choice is ever called, only PickledArray. The
    interpreted unpickler is used since a damaged memo index makes the compiled one
    allocate gigabytes.
    """

    # BYTEARRAY8, which weights do not need, allocates what it claims before it reads.
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items()
                if code != b'\x96'[0]}

    def find_class(self, module, name):
        stand_ins = {
            ('numpy', 'ndarray'): None,
            ('numpy', 'dtype'): lambda kind, *flags: PickledArray(as_text(kind)),
            ('numpy.core.multiarray', '_reconstruct'): lambda *args: PickledArray(),
            ('numpy._core.multiarray', '_reconstruct'): lambda *args: PickledArray(),
            ('_codecs', 'encode'): lambda text, encoding: text.encode('latin1')}
        if (module, name) not in stand_ins:
            raise pickle.UnpicklingError(
                'refused to load %s.%s: weights hold arrays in lists and dicts, no more'
                % (module, name))
        return stand_ins[module, name]


def as_text(name):
    """Return text that may have been pickled by Python 2 as bytes."""
    return bytes(name).decode() if isinstance(name, (bytes, memoryview)) else name


def read_weights(path):
    """Read {layer name: [weights, biases]} in TensorFlow's layout.

    Args:
        path: an .npy file, a .caffemodel file, or a checkpoint (path without .index).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or foreign; names it, and the layer if it can.
    """
    if os.path.exists(path + '.index'):
        return read_checkpoint(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            '%s: no such weight file; "python alexnet.py" fetches the pretrained '
            'weights, and weights_path = None starts from the training images alone'
            % path)
    return read_caffemodel(path) if path.endswith('.caffemodel') else read_npy(path)


def read_npy(path):
    """Read weights from an .npy file without running its code.

    The file holds a pickled dict whose values are lists [weights, biases] or dicts
    {'weights': ..., 'biases': ...}, written by Python 2 or 3 and numpy 1 or 2.
    """
    with open(path, 'rb') as file:
        # A damaged pickle raises nearly any exception.
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(file)
            else:
                header = np.lib.format.read_array_header_2_0(file)
            if header[0] != () or header[2] != np.dtype(object):
                raise ValueError('holds an array, not a dictionary of layers')
            # As bytes, since Python 2 pickled arrays as text; decoding it would copy.
            pickled = WeightsUnpickler(MappedFile(file), encoding='bytes').load()
            [layers] = pickled.state[-1]
            if not isinstance(layers, dict):
                raise ValueError('holds a %s, not a dictionary of layers'
                                 % type(layers).__name__)
            return {as_text(name): unpickled_pair(as_text(name), pair)
                    for name, pair in layers.items()}
        except Exception as error:
            raise ValueError('%s: not a readable weight file: %s: %s'
                             % (path, type(error).__name__, error))


def unpickled_pair(name, pair):
    """Return [weights, biases] of what a pickle holds for a layer."""
    if isinstance(pair, dict):
        pair = {as_text(kind): array for kind, array in pair.items()}
        pair = [pair.get('weights'), pair.get('biases')]
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and
            all(isinstance(array, PickledArray) for array in pair)):
        raise ValueError('%s: expected [weights, biases] or {"weights": ..., '
                         '"biases": ...}' % name)
    return [array.array() for array in pair]


def read_checkpoint(path):
    """Read the layers' weights from a checkpoint of finetune.py."""
    return {name: [read_tensor(path, name + '/weights'),
                   read_tensor(path, name + '/biases')]
            for name in LAYERS}


def read_tensor(path, name):
    """Return a variable of a checkpoint; raise a ValueError if it cannot be read."""
    # A damaged checkpoint raises nearly any exception.
    try:
        return tf.train.load_checkpoint(path).get_tensor(name)
    except Exception as error:
        raise ValueError('%s: cannot read %s; damaged, or not made by finetune.py: %s'
                         % (path, name, str(error).split('\n')[0]))


def list_checkpoints(folder):
    """Return the complete checkpoints of finetune.py in a folder, oldest step first.

    Saving writes .index last, so a checkpoint without it was cut off. model_best.ckpt,
    a copy of one of them, is left out.
    """
    paths = glob.glob(os.path.join(glob.escape(folder), 'model_*.ckpt.index'))
    paths = [path[:-len('.index')] for path in paths
             if os.path.basename(path) != 'model_best.ckpt.index']
    return sorted(paths, key=lambda path: read_tensor(path, 'global_step'))


def choose_checkpoint(folder, resume):
    """Return the checkpoint to go on from, or None, and all that are in a folder.

    Removes what is left of checkpoints that were cut off while being saved.

    Args:
        resume: True: the newest one; False: none; or a path.

    Raises:
        FileNotFoundError: resume is the path of no checkpoint.
        SystemExit: newer checkpoints in the folder would be overwritten.
    """
    checkpoints = list_checkpoints(folder)
    best_path = os.path.join(folder, 'model_best.ckpt')
    if not checkpoints and os.path.exists(best_path + '.index'):
        checkpoints = [best_path]
    checkpoint = None
    if resume is True and checkpoints:
        checkpoint = checkpoints[-1]
    elif resume and resume is not True:
        checkpoint = resume
        if not os.path.exists(checkpoint + '.index'):
            raise FileNotFoundError('%s: no such checkpoint' % checkpoint)
    if checkpoints and checkpoint != checkpoints[-1]:
        sys.exit('%s holds checkpoints of an earlier run. Go on from them with '
                 '--resume=True, or choose another checkpoint_path and filewriter_path.'
                 % folder)
    remove_incomplete_checkpoints(folder)
    return checkpoint, checkpoints


def remove_incomplete_checkpoints(folder):
    """Remove what is left of checkpoints that were cut off while being saved."""
    for path in glob.glob(os.path.join(glob.escape(folder), 'model_*.ckpt.*')):
        start = path[:path.rindex('.ckpt.')]
        if '.tempstate' in path or not os.path.exists(start + '.ckpt.index'):
            os.remove(path)


def restore_checkpoint(session, saver, path):
    """Restore all variables of the graph.

    Raises:
        ValueError: a variable is missing in it or has another shape; names each.
    """
    found = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    faults = ['%s: expected shape %s, found %s'
              % (variable.op.name, variable.shape.as_list(),
                 found.get(variable.op.name, 'nothing'))
              for variable in tf.global_variables()
              if found.get(variable.op.name) != variable.shape.as_list()]
    if faults:
        raise ValueError('%s does not fit this configuration:\n  %s'
                         % (path, '\n  '.join(faults)))
    saver.restore(session, path)


def write_model_file(folder, class_names, train_layers, settings):
    """Write model.json, with what one needs to use the checkpoints of a folder."""
    path = os.path.join(folder, 'model.json')
    with open(path + '.part', 'w') as file:
        json.dump({
            'network': 'AlexNet', 'num_classes': len(class_names),
            'class_names': class_names, 'train_layers': train_layers,
            'preprocessing': {'size': [227, 227], 'channels': 'BGR',
                              'minus_mean': [104, 117, 124]},
            'settings': settings,
            'versions': {'tensorflow': tf.__version__, 'numpy': np.__version__}
        }, file, indent=2)
    os.replace(path + '.part', path)


def warn_of_changes(folder, class_names, train_layers, settings):
    """Compare a run that goes on with the model.json beside its checkpoint.

    Raises:
        ValueError: other layers were trained; names them.
    """
    path = os.path.join(folder, 'model.json')
    if not os.path.exists(path):
        return
    with open(path) as file:
        earlier = json.load(file)
    if sorted(earlier['train_layers']) != sorted(train_layers):
        raise ValueError('%s: train_layers was %s, now it is %s'
                         % (path, earlier['train_layers'], train_layers))
    before = dict(earlier['settings'], class_names=earlier['class_names'])
    for name, value in dict(settings, class_names=class_names).items():
        if before.get(name, value) != value:
            print('Warning: %s was %.200r in the run that goes on, now it is %.200r'
                  % (name, before[name], value))


def copy_checkpoint(source, target):
    """Make target a copy of a checkpoint; cut off, it is incomplete, never mixed."""
    if os.path.realpath(source) == os.path.realpath(target):
        return
    for path in glob.glob(glob.escape(target) + '.*'):
        os.remove(path)
    for path in sorted(glob.glob(glob.escape(source) + '.*')):  # .data, .index, .meta
        try:
            os.link(path, target + path[len(source):])
        except OSError:  # not every file system has links
            shutil.copyfile(path, target + path[len(source):])


# The fields of caffe.proto that hold weights, in today's "layer" and the older "layers"
# format. Packed floats are declared as the bytes that they are on the wire, which
# spares a Python loop over 61 million numbers.
CaffeNet = message_factory.GetMessages([text_format.Parse('''
name: "weights_of_caffe.proto" package: "weights_of_caffe" syntax: "proto2"
message_type { name: "Shape"
  field { name: "dim" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type { name: "Blob"
  field { name: "num" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "channels" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "height" number: 3 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "width" number: 4 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "data" number: 5 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "shape" number: 7 type: TYPE_MESSAGE label: LABEL_OPTIONAL
          type_name: "Shape" } }
message_type { name: "Layer"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "blobs" number: 7 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: "Blob" } }
message_type { name: "OldLayer"
  field { name: "name" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "blobs" number: 6 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: "Blob" } }
message_type { name: "Net"
  field { name: "layers" number: 2 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: "OldLayer" }
  field { name: "layer" number: 100 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: "Layer" } }
''', descriptor_pb2.FileDescriptorProto())])['weights_of_caffe.Net']


def read_caffemodel(path):
    """Read weights from Caffe's NetParameter and turn them to TensorFlow's layout.

    Convolutions go from (out, in, height, width) to (height, width, in, out), fully
    connected layers from (out, in) to (in, out), and the rows of fc6, which flattens
    pool5, from the order (channel, row, column) to (row, column, channel).
    """
    net, weights = CaffeNet(), {}
    with open(path, 'rb') as file:
        # A damaged message raises nearly any exception.
        try:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if net.ParseFromString(content) < len(content):
                raise ValueError('only its start is a caffemodel')
            for layer in list(net.layers) + list(net.layer):
                if len(layer.blobs) == 2:
                    weights[layer.name] = convert_blobs(layer)
        except Exception as error:
            raise ValueError('%s: not a readable caffemodel: %s: %s'
                             % (path, type(error).__name__, error))
    if not weights:
        raise ValueError('%s: not a caffemodel, or one without weights' % path)
    return weights


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


def save_weights(weights, path):
    """Write weights as an .npy file that read_npy reads, whole or not at all."""
    with open(path + '.part', 'wb') as file:
        np.save(file, {name: [np.ascontiguousarray(array) for array in pair]
                       for name, pair in weights.items()})
    os.replace(path + '.part', path)


def fetch_weights(path=DEFAULT_WEIGHTS, sources=SOURCES):
    """Download the pretrained weights to path, from the first source that works.

    Goes on where an earlier download was cut. The file appears under its name only when
    it holds all layers in the right shapes and finite numbers.

    Args:
        sources: list of (url, SHA-1 in hexadecimal or None); .npy or .caffemodel.

    Raises:
        OSError: no source gave the weights; says why, and what to do by hand.
    """
    failures = []
    for url, sha1 in sources:
        print('Fetching %s' % url)
        part = '%s.%s.part' % (path, hashlib.sha1(url.encode()).hexdigest()[:8])
        try:
            download(url, part)
            try:
                if sha1:
                    check_sha1(part, sha1)
                is_caffe = url.endswith('.caffemodel')
                weights = read_caffemodel(part) if is_caffe else read_npy(part)
                check_pretrained(weights, part)
            except ValueError:
                os.remove(part)  # else the next try would go on from it
                raise
            if is_caffe:
                save_weights(weights, path)
                os.remove(part)
            else:
                del weights  # a file that is mapped cannot be renamed everywhere
                os.replace(part, path)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append('  %s: %s' % (url, error))
    raise OSError(
        'the pretrained weights could not be fetched:\n%s\nGet one of these files in '
        'another way and put it beside alexnet.py; if it is the caffemodel, run\n'
        '  python alexnet.py bvlc_alexnet.caffemodel\n'
        'Or choose weights_path = None to start from the training images alone.'
        % '\n'.join(failures))


def download(url, path):
    """Append to path what it lacks of the file at url; go on after a cut connection."""
    while True:
        done = os.path.getsize(path) if os.path.exists(path) else 0
        headers = {'Range': 'bytes=%d-' % done} if done else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers),
                                        timeout=TIMEOUT) as response:
                return receive(response, path, done)
        except urllib.error.HTTPError as error:
            if done and error.code == 416:  # nothing lies behind what we have
                return
            raise
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            if not os.path.exists(path) or os.path.getsize(path) <= done:
                raise


def receive(response, path, done):
    """Write a response behind the first done bytes of path, or from its start."""
    if 'Content-Range' not in response.headers:
        done = 0
    length = response.headers.get('Content-Length')
    start, received = time.time(), 0
    with open(path, 'ab') as file, tqdm(
            total=length and done + int(length), initial=done, unit='B',
            unit_scale=True, disable=None) as bar:
        file.truncate(done)
        chunk = True
        while chunk:
            chunk = response.read1(1 << 16)
            file.write(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            seconds = time.time() - start
            if seconds > TIMEOUT and received < SLOWEST * seconds:
                raise TimeoutError('only %d bytes in %d seconds' % (received, seconds))
    if length and received < int(length):
        raise OSError('the connection was cut after %d of %d bytes'
                      % (done + received, done + int(length)))


def check_sha1(path, expected):
    """Raise a ValueError unless the file has this SHA-1, in hexadecimal."""
    digest = hashlib.sha1()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ValueError('SHA-1 is %s, should be %s' % (digest.hexdigest(), expected))


def check_pretrained(weights, path):
    """Raise a ValueError unless these are finite weights for ImageNet's AlexNet."""
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        AlexNet(x, 1., 1000, []).check_weights(weights, path)
    for name, pair in weights.items():
        if not all(np.isfinite(array).all() for array in pair):
            raise ValueError('%s: %s holds numbers that are not finite' % (path, name))


def main():
    """Fetch or convert weights, as the command line says."""
    parser = argparse.ArgumentParser(
        description='Fetch the pretrained weights of AlexNet, or convert weights.')
    parser.add_argument('source', nargs='?', help='.caffemodel, checkpoint or .npy '
                        'file to convert; none: fetch the pretrained weights')
    parser.add_argument('out', nargs='?', help='.npy file to write; by default that of '
                        'the source with .npy for its ending')
    parser.add_argument('--url', help='another place to fetch the weights from')
    args = parser.parse_args()
    if args.source and args.url:
        parser.error('--url goes without a source')
    out = args.out or (os.path.splitext(args.source)[0] + '.npy' if args.source
                       else DEFAULT_WEIGHTS)
    if os.path.exists(out):
        print('%s is already there; to write it anew, remove it first' % out)
        sys.exit(1 if args.source else 0)
    try:
        if args.source:
            save_weights(read_weights(args.source), out)
        else:
            fetch_weights(out, [(args.url, None)] if args.url else SOURCES)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print('Wrote %s' % out)


if __name__ == '__main__':
    main()
