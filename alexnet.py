"""AlexNet as BVLC trained it for Caffe.

Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012; as in Caffe's models/bvlc_alexnet. An import only turns eager mode off.

    python alexnet.py                           fetch the pretrained weights
    python alexnet.py a.caffemodel [out.npy]    convert Caffe's weights, or a checkpoint
"""
import numpy as np

from machinery import download
from machinery.errors import InputError
from machinery.tf1 import assign, tf
from machinery.weights import load_weights

# Each layer that has weights, and the layer that feeds it (before dropout).
INPUT_OF = {'conv1': 'X', 'conv2': 'pool1', 'conv3': 'pool2', 'conv4': 'conv3',
            'conv5': 'conv4', 'fc6': 'flat5', 'fc7': 'fc6', 'fc8': 'fc7'}
LAYERS = list(INPUT_OF)
NO_WEIGHTS = ['norm1', 'pool1', 'norm2', 'pool2', 'pool5']


class AlexNet:
    """The graph of AlexNet; the output of every layer in create is an attribute.

    Args:
        x: float32 tensor (n, 227, 227, 3) or larger, as normalize makes it.
        keep_prob: probability that dropout keeps a value, a scalar; 1.: no dropout.
        num_classes: width of fc8.
        skip_layer: layers, with weights or not, that load_initial_weights leaves alone.
        weights_path: for read_weights; 'DEFAULT': bvlc_alexnet.npy here; None: no file.
        train_layers: layers that will be trained; None: as skip_layer.
        dropout_seed: two integers or scalar tensors that alone determine the masks.

    Attributes:
        logits, probabilities: the output of the last layer, and its softmax.
        variables: {layer name: [weights, biases]}.
        bottleneck: the input of the first trained layer, which depends on x alone.

    Raises:
        InputError: x has another shape or type, or there are no such layers.
    """

    def __init__(self, x, keep_prob, num_classes, skip_layer, weights_path='DEFAULT',
                 train_layers=None, dropout_seed=None):
        skip_layer = skip_layer or []  # the tutorial's scripts also say '' or None
        check_layers(train_layers or [], 'train_layers', LAYERS)
        check_layers(skip_layer, 'skip_layer', LAYERS + NO_WEIGHTS)
        self.SKIP_LAYER = [name for name in skip_layer if name in LAYERS]
        self.train_layers = self.SKIP_LAYER if train_layers is None else train_layers
        self.WEIGHTS_PATH = (download.DEFAULT_WEIGHTS if weights_path == 'DEFAULT'
                             else weights_path)
        x = tf.convert_to_tensor(x)  # float64, if it comes from numpy
        self.X = tf.cast(x, tf.float32) if x.dtype == tf.float64 else x
        sides = self.X.shape.as_list()[1:3] if self.X.shape.ndims == 4 else []
        if self.X.dtype != tf.float32 or None in sides or min(sides, default=0) < 227:
            raise InputError('x is %s %s, must be float32 (n, 227, 227, 3), as from '
                             'normalize(images)' % (self.X.dtype.name, self.X.shape))
        self.KEEP_PROB = tf.convert_to_tensor(keep_prob, tf.float32)
        self.NUM_CLASSES = num_classes
        self.start = {}  # how load_initial_weights starts a layer: 'by name' or 'fresh'
        earlier = set(tf.global_variables())
        self.create(*dropout_seeds(dropout_seed))
        known = earlier.union(*self.variables.values())
        self.added = list(set(tf.global_variables()) - known)  # as of batch norm

    def create(self, seed6=None, seed7=None):
        """Build the layers; the seeds are those of dropout."""
        self.conv1 = conv(self.X, 11, 11, 96, 4, 4, 'conv1', padding='VALID')  # edges
        self.norm1 = lrn(self.conv1, 2, 2e-5, 0.75, 'norm1')  # strong units damp others
        self.pool1 = max_pool(self.norm1, 3, 3, 2, 2, 'pool1', padding='VALID')
        self.conv2 = conv(self.pool1, 5, 5, 256, 1, 1, 'conv2', groups=2)  # textures
        self.norm2 = lrn(self.conv2, 2, 2e-5, 0.75, 'norm2')
        self.pool2 = max_pool(self.norm2, 3, 3, 2, 2, 'pool2', padding='VALID')
        self.conv3 = conv(self.pool2, 3, 3, 384, 1, 1, 'conv3')  # both groups meet
        self.conv4 = conv(self.conv3, 3, 3, 384, 1, 1, 'conv4', groups=2)  # parts
        self.conv5 = conv(self.conv4, 3, 3, 256, 1, 1, 'conv5', groups=2)  # of objects
        # 3 x 3 with stride 2, and more for larger pictures: fc6 takes 6 x 6 places.
        sides = self.conv5.shape.as_list()[1:3]
        strides = [side // 6 for side in sides]
        windows = [side // 6 + side % 6 for side in sides]
        self.pool5 = max_pool(self.conv5, *windows, *strides, 'pool5', padding='VALID')
        self.flat5 = tf.reshape(self.pool5, [-1, 6 * 6 * 256], 'flat5')
        self.fc6 = fc(self.flat5, 6 * 6 * 256, 4096, 'fc6')  # sees the whole picture
        self.dropout6 = dropout(self.fc6, self.KEEP_PROB, 'dropout6', seed6)
        self.fc7 = fc(self.dropout6, 4096, 4096, 'fc7')  # features for any classes
        self.dropout7 = dropout(self.fc7, self.KEEP_PROB, 'dropout7', seed7)
        self.fc8 = fc(self.dropout7, 4096, self.NUM_CLASSES, 'fc8', relu=False)
        self.same_as = {self.dropout6: self.fc6, self.dropout7: self.fc7}  # undropped
        self.logits = getattr(self, LAYERS[-1])
        self.probabilities = tf.nn.softmax(self.logits, name='probabilities')
        trained = [name for name in LAYERS if name in self.train_layers]
        self.bottleneck = getattr(self, INPUT_OF[trained[0]] if trained else LAYERS[-1])
        self.scope = (tf.get_variable_scope().name + '/').lstrip('/')
        self.variables = {name: tf.trainable_variables('%s%s/' % (self.scope, name))[:2]
                          for name in LAYERS}

    def load_initial_weights(self, session, kind=None):
        """Assign the file's weights to every layer that is not in skip_layer.

        With kind, fc8 is fitted to its classes, see fit_last_layer. Adds no operation.
        InputError, and no change, if the file is missing, damaged, runs code or unfit.
        """
        self.start = load_weights(session, self.WEIGHTS_PATH, self.variables,
                                  self.added, self.SKIP_LAYER, self.scope, kind)
        return []  # some scripts give this to session.run

    def initialize_from_data(self, session, feed):
        """Scale each layer so that its channels have mean 0 and variance 1 on images.

        From first to last, before the ReLU: Krähenbühl et al., "Data-dependent
        Initializations of Convolutional Neural Networks", ICLR 2016, 3.1. feed is
        {placeholder: some dozens of images}; InputError if a channel is constant.
        """
        is_fed = tf.get_static_value(self.KEEP_PROB) != 1  # else there is no dropout
        feed = {self.KEEP_PROB: 1., **feed} if is_fed else dict(feed)
        for name in LAYERS:
            output = getattr(self, name)
            output = output.op.inputs[0] if output.op.type == 'Relu' else output
            activation = session.run(output, feed)
            activation = activation.reshape(-1, activation.shape[-1])
            mean = activation.mean(0, dtype=np.float64)
            deviation = activation.std(0, dtype=np.float64)
            if deviation.min() <= 1e-6 * np.abs(activation).max():
                raise InputError(name + ': a channel is constant; use different images')
            weights, biases = session.run(self.variables[name])
            assign(session, self.variables[name][0], weights / deviation)
            assign(session, self.variables[name][1], (biases - mean) / deviation)
            feed[output] = session.run(output, feed)  # start the next layer here


def check_layers(names, argument, allowed):
    """Raise an InputError unless names is a list of distinct layers."""
    if not isinstance(names, (list, tuple)) or sorted(map(str, names)) != sorted(
            name for name in allowed if name in names):
        raise InputError('%s = %r: expected a list of different names from %s'
                         % (argument, names, ', '.join(LAYERS)))


def get_variables(shape):
    """Return the weights of this shape, and the biases, of the layer in scope."""
    return (tf.get_variable('weights', shape),
            tf.get_variable('biases', shape[-1:], initializer=tf.zeros_initializer()))


def conv(x, filter_height, filter_width, num_filters, stride_y, stride_x, name,
         padding='SAME', groups=1):
    """Convolutional layer with ReLU; each group of filters sees its own channels."""
    with tf.variable_scope(name):
        weights, biases = get_variables([
            filter_height, filter_width, x.shape.as_list()[-1] // groups, num_filters])
        outputs = [tf.nn.conv2d(part, filters, [1, stride_y, stride_x, 1], padding)
                   for part, filters in zip(tf.split(x, groups, -1),
                                            tf.split(weights, groups, -1))]
        return tf.nn.relu(tf.nn.bias_add(tf.concat(outputs, -1), biases), name)


def fc(x, num_in, num_out, name, relu=True):
    """Fully connected layer: x @ weights + biases, then ReLU."""
    with tf.variable_scope(name):
        weights, biases = get_variables([num_in, num_out])
        output = tf.nn.bias_add(tf.matmul(x, weights), biases, name=name)
        return tf.nn.relu(output) if relu else output


def max_pool(x, filter_height, filter_width, stride_y, stride_x, name, padding='SAME'):
    """Take the maximum of each window of (n, height, width, channels)."""
    return tf.nn.max_pool(x, [1, filter_height, filter_width, 1],
                          [1, stride_y, stride_x, 1], padding, name=name)


def lrn(x, radius, alpha, beta, name, bias=1.0):
    """Local response normalisation, section 3.3; alpha: Caffe's / (2 * radius + 1)."""
    return tf.nn.local_response_normalization(x, radius, bias, alpha, beta, name=name)


def dropout(x, keep_prob, name='dropout', seed=None):
    """Keep each value with probability keep_prob, scaled by 1 / keep_prob, or zero it.

    The mask depends on seed (integer tensor of shape (2,)) alone; None: always new.
    """
    if tf.get_static_value(keep_prob) == 1:  # then no random numbers are drawn
        return x
    with tf.name_scope(name):
        uniform = (tf.random.uniform(tf.shape(x)) if seed is None else
                   tf.random.stateless_uniform(tf.shape(x), seed))
        return tf.where(uniform < keep_prob, x / keep_prob, tf.zeros_like(x))


def dropout_seeds(seed):
    """Return two different seeds, or fc6 and fc7 would drop the same units."""
    if seed is None:
        return None, None
    with tf.name_scope('dropout_seeds'):
        first, second = [tf.cast(number, tf.int64) for number in seed]
        return tf.stack([2 * first, second]), tf.stack([2 * first + 1, second])


if __name__ == '__main__':
    download.main()
