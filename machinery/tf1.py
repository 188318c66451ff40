"""TensorFlow as TensorFlow 1: from machinery.tf1 import tf."""
import collections
import contextlib
import functools
import logging
import os
import re
import sys
import threading
import time

from machinery.cores import count_cores
from machinery.errors import InputError, stderr_to

# Keep TensorFlow's start-up messages off the screen, unless the user set a level. Some
# are written straight to file descriptor 2 during the import, whatever the level is.
is_quiet = os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') == '3'
# TensorFlow imports Keras to register its optimizers, which takes a quarter of the
# start-up. It also runs without them; tf.keras still loads Keras on first use.
KERAS = 'keras.src.optimizers'
sys.modules.setdefault(KERAS, None)
logger = logging.getLogger('tensorflow')
level = logger.level  # the import changes it
try:
    with open(os.devnull, 'w') as null, stderr_to(null.fileno() if is_quiet else 2):
        import tensorflow.compat.v1 as tf
finally:
    if sys.modules[KERAS] is None:
        del sys.modules[KERAS]
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import device_lib

GPU_FILE = '/dev/nvidia0'  # exists on Linux with an NVIDIA GPU

logger.setLevel(logging.ERROR)  # these calls warn that they are deprecated
tf.disable_v2_behavior()
# A reference variable's update can race the backward pass that still reads it.
tf.enable_resource_variables()
logger.setLevel(level)


def session_config():
    """Return the tf.ConfigProto of all sessions."""
    # TensorFlow counts the cores of the machine, even if a container's quota is lower.
    config = tf.ConfigProto(intra_op_parallelism_threads=count_cores())
    config.gpu_options.allow_growth = True  # leave the rest of a GPU to other programs
    # With this optimization, TensorFlow 2.21 asks for x even if conv3's input is fed.
    config.graph_options.rewrite_options.dependency_optimization = RewriterConfig.OFF
    return config


class TimedSession(tf.Session):
    """A session; the class adds up each thread's seconds in run."""

    _seconds = collections.Counter()

    def run(self, *args, **kwargs):
        start = time.perf_counter()
        try:
            return super().run(*args, **kwargs)
        finally:
            self._seconds[threading.get_ident()] += time.perf_counter() - start

    @classmethod
    def seconds(cls):
        """Return the seconds of this thread, and of all others together."""
        own = cls._seconds[threading.get_ident()]
        return own, sum(list(cls._seconds.values())) - own


def time_outside():
    """Return the seconds of a clock that stops while this thread is in session.run."""
    return time.perf_counter() - TimedSession.seconds()[0]


def assign(session, variable, value):
    """Set a variable's value without a new operation, as Variable.load once did."""
    session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def prevent_feeding(sources, allowed):
    """Make session.run refuse to feed tensors computed from placeholders.

    Args:
        sources: the placeholders, or the tensors now bound to their Python names.
        allowed: tensors that may still be fed.
    """
    seen = {source.name for source in sources
            if not source.op.type.startswith('Placeholder')}
    queue = list(sources)
    while queue:
        for operation in queue.pop().consumers():
            new = [tensor for tensor in operation.outputs if tensor.name not in seen]
            seen.update(tensor.name for tensor in new)
            queue.extend(new)
    graph = sources[0].graph
    for name in seen - {tensor.name for tensor in allowed}:
        graph.prevent_feeding(graph.get_tensor_by_name(name))


@contextlib.contextmanager
def rebound_told():
    """Turn session.run's error about a refused feed into an InputError."""
    try:
        yield
    except ValueError as error:
        if 'may not be fed' not in str(error):
            raise
        name = re.search(r'[\w/.-]+:\d+', str(error)).group()
        raise InputError(
            '%s is computed from a placeholder, so feeding it would skip that '
            'computation. Give the new tensor its own name, as in y_smooth = 0.9 * y + '
            '0.05' % name) from error


@functools.lru_cache(None)
def list_gpus():
    """Return the names of TensorFlow's GPUs."""
    devices = device_lib.list_local_devices(session_config())
    return [re.search('name: ([^,]+)', device.physical_device_desc).group(1)
            for device in devices if device.device_type == 'GPU']


ROWS = 12


def find_pass_size():
    """Return how many images to give to the frozen layers at once, on this device.

    A processor multiplies 4 or 6 rows at once, for example, and rounds leftover rows
    differently. A multiple of ROWS leaves none, so an image's place does not matter.
    """
    return 512 if list_gpus() else 4 * ROWS


def find_rounding():
    """Return the share of its norm by which a feature may differ if computed again."""
    # A GPU may round to 10 bits (TF32), and differently each time.
    return 1e-3 if list_gpus() else 1e-5


def find_device():
    """Return the name of the device in use, with a hint if a GPU is idle."""
    if list_gpus():
        return ', '.join(list_gpus())
    cores = '%d CPU cores' % count_cores()
    is_hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    if is_hidden or not os.path.exists(GPU_FILE):
        return cores
    return cores + ('; no GPU is used. Try pip install "tensorflow[and-cuda]"; '
                    'with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow tells why')


def reason_of(error):
    """Return the line with the reason in a TensorFlow error."""
    # It stands between a stack trace and the name of the node.
    return re.search(r'([^\n]+)\n(The error could be .*\n)?\s*\[\[',
                     str(error) + '\n[[').group(1)
