"""What several test files use: weights and images that a seed reproduces, what real
Caffe made of them, and ways to run the scripts."""
import atexit
import contextlib
import functools
import glob
import io
import json
import multiprocessing
import os
import runpy
import socket
import struct
import sys
import tempfile

import numpy as np
import pytest

import alexnet
import datagenerator
from machinery import export, feature_key, features, run, tf1, workers
from machinery.errors import InputError
from machinery.numbered import list_runs, run_path
from machinery.tf1 import tf
from machinery.weights import save_weights

os.fsync = lambda number: None  # no test cuts the power, and it takes a minute in all
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
KEY = '0' * 64  # of a feature store
NAMES = ['brick', 'lawn, grass', 'gravel']  # of the sample's classes, for tests
IS_OLD = tf.__version__.startswith('1.')
unless_old = pytest.mark.skipif(IS_OLD, reason='long, and the same on each TensorFlow')
CAFFE_SHAPES = {
    'conv1': (96, 3, 11, 11), 'conv2': (256, 48, 5, 5), 'conv3': (384, 256, 3, 3),
    'conv4': (384, 192, 3, 3), 'conv5': (256, 192, 3, 3), 'fc6': (4096, 9216),
    'fc7': (4096, 4096), 'fc8': (1000, 4096)}


@functools.lru_cache(1)
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


def write_caffemodel(path, weights, old, types={},
                     numbers=lambda array: field(5, array.tobytes())):
    """Write weights as Caffe does.

    old: False for the "layer" format, True for the older "layers", 'oldest' for the
    one before; types: {layer name: its type}; numbers: encodes those of an array.
    """
    name_field, type_field, blobs_field = {
        False: (1, 2, 7), True: (4, 5, 6), 'oldest': (1, 2, 50)}[old]
    with open(path, 'wb') as file:
        for name, arrays in weights.items():
            layer = field(name_field, name)
            if name in types:
                layer += field(type_field, types[name])
            for array in arrays:
                if old:
                    shape = (1,) * (4 - array.ndim) + array.shape
                    blob = b''.join(field(1 + i, size) for i, size in enumerate(shape))
                else:
                    blob = field(7, field(1, b''.join(map(varint, array.shape))))
                layer += field(blobs_field, blob + numbers(array))
            if old == 'oldest':
                layer = field(1, layer)
            file.write(field(2 if old else 100, layer))


def same(left, right):
    """Tell whether two dicts of lists of arrays are equal to the bit."""
    return set(left) == set(right) and all(
        np.array_equal(a, b) for name in left for a, b in zip(left[name], right[name]))


def tensors(path):
    """Return {name: [value]} of all variables of a checkpoint."""
    reader = tf.train.load_checkpoint(path)
    return {name: [reader.get_tensor(name)]
            for name in reader.get_variable_to_shape_map()}


def files(folder):
    """Return the names of all files below a folder."""
    return [name for _, _, names in os.walk(str(folder)) for name in names]


def events(folder, part):
    """Return the events of the only event file of "train", say, of the first run."""
    [path] = glob.glob('%s/log/1/%s/events*' % (folder, part))
    return list(tf.train.summary_iterator(path))


def summaries(folder, part):
    """Return [(step, tag, simple value or None)] of such an event file."""
    return [(event.step, value.tag,
             value.simple_value if value.HasField('simple_value') else None)
            for event in events(folder, part) for value in event.summary.value]


def execute(name, arguments, draws=False):
    """Run a script of the repository as the interpreter would; return its status.

    Without draws it makes no pictures for TensorBoard, which are a third of the time.
    """
    sys.argv = [name] + [str(argument) for argument in arguments]
    try:
        try:
            with pytest.MonkeyPatch.context() as patch:
                if not draws:
                    patch.setattr('machinery.summaries.try_to_draw',
                                  lambda draw, *args: (None, None))
                runpy.run_path(os.path.join(ROOT, name), run_name='__main__')
        except (InputError, KeyboardInterrupt):
            sys.excepthook(*sys.exc_info())
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


class Output(io.TextIOWrapper):
    """A text file in memory; calls react(text) with all that is written."""

    def __init__(self, react):
        super().__init__(io.BytesIO(), 'utf-8', write_through=True)
        self.react = react

    def write(self, text):
        self.react(text)
        return super().write(text)


def run_program(name, *arguments, react=lambda text: None, draws=False):
    """Run a script of the repository in this process; return (status, output).

    See execute. Starting a process of its own would take 4 s, for the import of
    TensorFlow.
    """
    if name.endswith('predict.py') and '--features_path' not in str(arguments):
        arguments += '--features_path=None',  # not the user's
    output, argv, hook = Output(react), sys.argv, sys.excepthook
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = execute(name, arguments, draws)
    finally:
        sys.argv, sys.excepthook = argv, hook
    return status, output.buffer.getvalue().decode()


def outputs_in(folder):
    """Return the arguments that put what finetune.py writes into a folder."""
    return ['--filewriter_path=%s/log' % folder,
            '--checkpoint_path=%s/new/checkpoints' % folder,
            '--features_path=%s/features' % folder]


def checkpoint_of(folder, name):
    """Return the path of a checkpoint of the newest run that finetune made in a folder.

    name is the number of an epoch, or the rest of the name.
    """
    name = 'epoch%s' % name if str(name).isdigit() else name
    folder = '%s/new/checkpoints' % folder
    newest = max(list_runs(folder), default=1)
    return '%s/model_%s.ckpt' % (run_path(folder, newest), name)


@contextlib.contextmanager
def all_checkpoints_kept():
    """Let runs with a large keep not remove checkpoints when they are finished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'remove_older', lambda folder, keep: None)
        yield ['--keep=99']


def finetune(folder, *arguments, **kwargs):
    """Run finetune.py with its output in folder; return (status, output)."""
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        return run_program('finetune.py', *outputs_in(folder), *arguments, **kwargs)
    finally:
        os.chdir(before)


NARROW = {4096: 64, 384: 96, 256: 64, 96: 24}  # widths of layers


def narrow_fc(x, num_in, num_out, name, make=alexnet.fc, **options):
    """alexnet.fc with 64 units, not 4096."""
    return make(x, NARROW.get(num_in, num_in), NARROW.get(num_out, num_out), name,
                **options)


def narrow_conv(x, height, width, num_filters, *args, make=alexnet.conv, **options):
    """alexnet.conv with a quarter of the filters; conv5 keeps its own, for fc6."""
    if 'conv5' not in args:
        num_filters = NARROW.get(num_filters, num_filters)
    return make(x, height, width, num_filters, *args, **options)


def narrow(weights):
    """Return the part of a network's weights that is one for a narrow network."""
    result, channels = {}, 3
    for name, (array, biases) in weights.items():
        units = len(biases) if name == 'conv5' else NARROW.get(len(biases), len(biases))
        if name in ('conv2', 'conv4', 'conv5'):  # their filters see one of two groups
            channels //= 2
        if name != 'fc6':  # which sees all that conv5 has
            array = array.take(range(channels), -2)
        result[name] = [array[..., :units], biases[:units]]
        channels = units
    return result


def plain_config(make=tf1.session_config):
    """session_config, but graphs run as they are: optimising takes half of a run."""
    config = make()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def make_narrow(set_attribute=setattr):
    """Let this process have a narrow network, and passes of 12 images, not 48.

    Its checkpoints have 5 MB, not 230, and it computes ten times as fast.
    """
    set_attribute(alexnet, 'fc', narrow_fc)
    set_attribute(alexnet, 'conv', narrow_conv)
    for module in (tf1, workers, export):
        set_attribute(module, 'session_config', plain_config)
    for module in (features, feature_key):
        set_attribute(module, 'find_pass_size', lambda: 12)


def write_narrow_weights(path):
    """Write weights for a narrow network, made from the sample's pictures."""
    data = datagenerator.ImageDataGenerator(
        os.path.join(ROOT, 'images', 'train.txt'), shuffle=True, nb_classes=3)
    with tf.Session(graph=tf.Graph()) as session:
        tf.set_random_seed(0)
        x = tf.placeholder(tf.float32, [None, 227, 227, 3])
        model = alexnet.AlexNet(x, 1., 3, [], None)
        session.run(tf.global_variables_initializer())
        model.initialize_from_data(session, {x: data.next_batch(64)[0]})
        save_weights(session.run(model.variables), path)


def images_of(paths):
    """Return the network's input for pictures."""
    return datagenerator.normalize(
        [datagenerator.load_image(path) for path in paths])


class Program:
    """A script of the repository as a process of its own, which can be killed.

    Processes are forked from a server that has imported TensorFlow already.

    Attributes:
        stdout: what it writes, also to its standard error, as an open text file.
    """

    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['helpers', 'machinery.summaries'])

    def __init__(self, name, *arguments, env=None, setup=None, draws=False):
        with tempfile.TemporaryDirectory() as folder:
            pipe = os.path.join(folder, 'output')
            os.mkfifo(pipe)
            self.process = self.server.Process(
                target=self.main, args=[pipe, name, arguments, env or {}, setup, draws])
            self.process.daemon = True
            self.process.start()
            self.stdout = open(pipe, encoding='utf-8')

    @staticmethod
    def main(pipe, name, arguments, env, setup, draws):
        """Be the process."""
        out = os.open(pipe, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.stdout = open(1, 'w', encoding='utf-8', buffering=1, closefd=False)
        sys.stderr = open(2, 'w', encoding='utf-8', buffering=1, closefd=False)
        os.chdir(ROOT)
        os.environ.update(env)
        if setup:
            setup()
        status = execute(name, arguments, draws)
        atexit._run_exitfuncs()
        sys.exit(status)

    def send_signal(self, number):
        """Send a signal to the process."""
        os.kill(self.process.pid, number)

    def wait(self):
        """Return the status, negative after a signal, and the rest of the output."""
        output = self.stdout.read()
        self.process.join()
        self.stdout.close()
        return self.process.exitcode, output


def tf_configs(size):
    """Return TF_CONFIG of each of some workers with free ports, the chief's first."""
    sockets = [socket.socket() for _ in range(size)]
    for one in sockets:
        one.bind(('127.0.0.1', 0))
    addresses = ['127.0.0.1:%d' % one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    cluster = {'chief': addresses[:1], 'worker': addresses[1:]}
    return [json.dumps({'cluster': cluster, 'task': {
        'type': 'worker' if rank else 'chief', 'index': max(0, rank - 1)}})
        for rank in range(size)]
