"""Start from your own network, trained for other classes."""
import os

import numpy as np

from machinery.errors import InputError
from machinery.label_text import are_plain
from machinery.model_file import OF_EARLIER, check_summary, read_model
from machinery.text import printable, some_of


def read_trained(weights_path):
    """Return the model.json of weights from an earlier run, {} for other weights.

    The weights are a checkpoint, or a .npy file that alexnet.py made from it.
    """
    may_be = weights_path.endswith('.npy') or os.path.exists(weights_path + '.index')
    model = read_model(weights_path) if may_be else {}
    return model if model.get('class_names') else {}


def choose_skip_layers(skip_layers, train_layers, weights_path):
    """Return the layers that start fresh; None means the train_layers.

    For weights from an earlier run, None means no layers: all are trained already.
    """
    trained = weights_path and read_trained(weights_path)  # reports damage early
    if skip_layers is None:
        return [] if trained else train_layers
    return skip_layers


def warn_of_other_pictures(weights_path, today):
    """Warn if pictures were prepared differently when a run trained the weights.

    today: the preprocessing of this run, None if unknown.
    """
    then = weights_path and read_trained(weights_path).get('preprocessing')
    # If these settings agree, any difference comes from edited code.
    if then and today and all(dict(OF_EARLIER, **then).get(name) == today[name]
                              for name in ('margin', 'reducing_gap', 'resize')):
        try:
            check_summary(weights_path, then.get('test'), today['test'])
        except InputError as error:  # more training may be meant to adapt to it
            print('Warning: %s' % error)


def fit_last_layer(path, layer, loaded, fresh, kind):
    """Return the initial [weights, biases] of the last layer, and their origin.

    If the weights come from an earlier run, copies the columns of classes whose names
    both runs have; the columns of other classes start fresh. Prints which. Numbers keep
    their units, even if their mean and deviation have changed.

    Args:
        path, layer: the weight file, and the name of the layer.
        loaded: [weights (n, classes in the file), biases] from the file.
        fresh: [weights (n, classes of this run), biases] from the network.
        kind: the kind of this run's labels, an object from machinery.labels.

    Returns:
        The arrays, and 'by name', 'fresh' or 'loaded'. 'loaded' arrays come from the
        file unchanged, even if they do not fit; check_weights refuses them then.
    """
    model, names = read_trained(path), kind.names
    earlier, labels = model.get('class_names', []), model.get('labels', 'class')
    is_wide = {len(earlier)} == {array.shape[-1] for array in loaded}
    if not is_wide or loaded[0].shape[:-1] != fresh[0].shape[:-1]:
        return loaded, 'loaded'
    kept = [name for name in names if name in earlier]
    why = 'it has none of the classes'
    if kind.name != labels:
        kept, why = [], 'it was trained with labels = %r' % labels
    elif names == earlier:
        return in_units_of(kind, loaded, model), 'loaded'
    elif are_plain(names) or are_plain(earlier):  # plain numbers tell nothing
        if len(names) == len(earlier):
            print('%s is loaded from %s as it is, since the classes of %s have no '
                  'names' % (layer, path, 'this run' if are_plain(names) else 'that'))
            return loaded, 'loaded'
        kept, why = [], ('it has %d classes, this run has %d, and not all have names'
                         % (len(earlier), len(names)))
    if not kept:
        print('%s starts fresh, not from %s: %s' % (layer, path, why))
        return fresh, 'fresh'
    merged = [array.copy() for array in fresh]
    columns = [names.index(name) for name in kept]
    sources = [earlier.index(name) for name in kept]
    for array, source in zip(merged, in_units_of(kind, loaded, model)):
        array[..., columns] = source[..., sources]
    print('%s is loaded from %s by the names of the classes.\n'
          'Kept: %s; new: %s; gone: %s' % (layer, path, *map(enumerate_some, [
              kept, [name for name in names if name not in kept],
              [name for name in earlier if name not in kept]])))
    return merged, 'by name'


def in_units_of(kind, loaded, model):
    """Rescale [weights, biases] to give the same numbers with kind's mean, deviation.

    model: model.json of the loaded weights, with their own. Classes stay as they are.
    """
    if kind.name != 'numbers':
        return loaded
    # Numbers unknown to this run are not copied, so any place will do for them.
    places = [kind.names.index(name) if name in kind.names else 0
              for name in model['class_names']]
    mean, deviation = kind.mean[places], kind.deviation[places]
    scale = np.float32(model['deviation']) / deviation
    weights, biases = loaded
    return [weights * scale,
            biases * scale + (np.float32(model['mean']) - mean) / deviation]


def enumerate_some(names):
    """Join the first few names with commas; no names give a dash."""
    return ', '.join(some_of(names, printable)) or '-'
