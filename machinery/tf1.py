"""TensorFlow as TensorFlow 1: from machinery.tf1 import tf."""
import os
import re

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
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import device_lib

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
# The update of a reference variable can race the backward pass that still reads it.
tf.enable_resource_variables()


def session_config():
    """Return the tf.ConfigProto that all sessions start from."""
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True  # leave the rest of a GPU to other programs
    # With it, TensorFlow 2.21 asks for x though the input of conv3 is fed.
    config.graph_options.rewrite_options.dependency_optimization = RewriterConfig.OFF
    return config


def find_device():
    """Return the name of the device that computes, for the user."""
    devices = device_lib.list_local_devices(session_config())
    gpus = [re.search('name: ([^,]+)', device.physical_device_desc).group(1)
            for device in devices if device.device_type == 'GPU']
    if gpus:
        return ', '.join(gpus)
    hint = ''
    if os.path.exists('/dev/nvidia0'):
        hint = ('. There is an NVIDIA GPU, too, but TensorFlow cannot use it; '
                'TF_CPP_MIN_LOG_LEVEL=0 in the environment lets it say why')
    return '%d CPU cores%s' % (os.cpu_count(), hint)


def reason_of(error):
    """Return what matters of a TensorFlow error: one line of dozens."""
    # It stands between a stack trace and the name of the node.
    return re.search(r'([^\n]+)\n(The error could be .*\n)?\s*\[\[',
                     str(error) + '\n[[').group(1)
