"""Classify pictures with a fine-tuned checkpoint, or with the pretrained weights.

Edit the variables below, or give them and the pictures on the command line:
    python predict.py cat.jpg photos 'more/*.png' --top_k=5
Or import Classifier from your own program: that runs nothing of the script.
"""
import contextlib
import functools
import os
import sys

from machinery.settings import check_purpose, read_settings

checkpoint = '/tmp/finetune_alexnet/checkpoints'  # a folder means its best one
pictures = 'images/test.txt'  # a picture, folder, pattern or list, or several of them
pictures_path = None  # where paths in a list start; None: at the list's folder
top_k = 3  # classes to show per picture
unknown_below = 0.  # a picture is named unknown if no class is as probable as this
batch_size = 128  # pictures at once
layer = None  # 'fc7', for example: write this layer's activations instead
export_path = None  # a new folder: write a SavedModel there instead
heat_maps = None  # a folder: also write there which places spoke for the best class
features_path = '/tmp/finetune_alexnet/features'  # what training has stored; or None

# Output
predictions_path = 'predictions'  # each call writes to a new numbered folder there
predictions_file = None  # a table of the best classes; None: predictions.csv there
confusion_file = None  # for a list with labels; None: confusion_matrix.png there
features_file = None  # for a layer: features, paths, any labels; None: features.npz

if __name__ == '__main__':
    check_purpose(read_settings(globals(), sys.argv[1:], positional='pictures'))

# TensorFlow takes seconds to load, so misspelt options are reported first.
import numpy as np

from alexnet import AlexNet, LAYERS
from datagenerator import (IMAGENET_MEAN, IMAGE_SIZE, REDUCING_GAP, load_image,
                           normalize)
from machinery.checkpoint_files import find_weights
from machinery.errors import InputError
from machinery.export import export_model, pictures_to_compare
from machinery.features import open_features
from machinery.frozen import FrozenLayers
from machinery.heat_maps import grad_cam, write_heat_maps
from machinery.kinds import find_kind
from machinery.model_file import (check_summary, find_preprocessing, read_model,
                                  summarize)
from machinery.numbered import NewFiles
from machinery.plain_pictures import PlainPictures, list_pictures
from machinery.predictions import (find_samples, leave_out, name_ranked, print_best,
                                   rank, score, write_table)
from machinery.rules import check_value
from machinery.text import number_of
from machinery.tf1 import find_device, session_config, tf


class Classifier(contextlib.AbstractContextManager):
    """A trained network that classifies pictures, in a graph and session of its own.

        classify = Classifier('/tmp/finetune_alexnet/checkpoints')
        [ranked] = classify(['rex.jpg'])  # [('dog', 0.98), ('cat', 0.02)]
        classify.close()  # or: with Classifier(...) as classify:

    A picture is a path, or a uint8 array (height, width, 3) as OpenCV reads it.

    Args:
        checkpoint: a checkpoint or weight file; a folder means its best one.
        unknown_below: a probability in [0, 1). If no class of a picture reaches it, the
            best one is named unknown.
        batch_size: pictures at once.

    Attributes:
        kind, class_names: what the outputs mean (see machinery.labels), and kind.names.
        weights_path, preprocessing: the file, and the arguments of load_image.
        load: function from a picture to the uint8 image that training makes of it.

    Raises:
        InputError: an argument is wrong, the checkpoint is missing or damaged, or
            load_image and normalize are not those of its training.
    """

    def __init__(self, checkpoint, unknown_below=0., batch_size=128):
        check_value('unknown_below', unknown_below)
        check_value('batch_size', batch_size)
        self.unknown_below, self.batch_size = unknown_below, batch_size
        # Next to the checkpoint, model.json names the classes and says how pictures
        # were prepared, so that nobody has to repeat it here.
        self.weights_path = find_weights(os.fspath(checkpoint))
        self.kind = find_kind(self.weights_path, LAYERS[-1])
        self.class_names = self.kind.names
        self.preprocessing, test_summary = find_preprocessing(
            self.weights_path, IMAGENET_MEAN, size=IMAGE_SIZE, margin=0,
            reducing_gap=REDUCING_GAP, resize='squash')
        self.load = functools.partial(load_image, **self.preprocessing)
        self._trained = read_model(self.weights_path).get('train_layers', [])
        with tf.Graph().as_default():  # not that of the program
            self._images = tf.placeholder(tf.uint8, [None, *IMAGE_SIZE[::-1], 3])
            self._model = self.network(self._images)
            self._outputs = self.kind.outputs(self._model.logits)
            self._model.heat_map = grad_cam(self._model, LAYERS, self.kind)
            self._session = tf.Session(config=session_config())
            self._model.load_initial_weights(self._session)
            # If load_image or normalize were edited after training, predictions would
            # be wrong without any sign of it. A test picture tells.
            if test_summary:
                check_summary(self.weights_path, test_summary, summarize(
                    self._session, self._model, self._images, load_image,
                    self.preprocessing))

    def network(self, images):
        """Build the network for uint8 BGR images (n, height, width, 3), an AlexNet."""
        return AlexNet(normalize(images), 1., len(self.class_names), [],
                       self.weights_path, self._trained)

    def __call__(self, pictures, top_k=None):
        """Return [(class name, probability), ...], best first, for each of a list.

        [(name, number), ...] if it was trained with numbers. top_k: at most so many.
        Raises an InputError, with position and path, if a picture cannot be read.
        """
        check_value('top_k', 1 if top_k is None else top_k)
        outputs, _, _ = self.run(pictures)
        ranked = rank(outputs, self.kind, top_k, self.unknown_below)
        return name_ranked(*ranked, self.kind)

    def features(self, pictures, layer):
        """Return the activations (n, ...) of a layer, for example 'fc7'."""
        if layer not in LAYERS:
            raise InputError('layer is %r, must be one of %s' % (layer, LAYERS))
        return self.run(pictures, layer)[0]

    def heat_maps(self, pictures):
        """Return the maps (n, height, width) of grad_cam, or None if it has none."""
        return None if self._model.heat_map is None else self.run(
            pictures, 'heat_map')[0]

    def run(self, pictures, layer=None, features_path=None, leave_out_bad=False):
        """Return (values, samples, faults): what a layer makes of pictures.

        values (n, ...) are the outputs if layer is None, and samples (n,) positions
        in the list. With leave_out_bad, pictures that cannot be read are missing there,
        and faults is {position: InputError}. features_path is for paths, not arrays.
        """
        pictures = list_pictures(pictures)
        model, session = self._model, self._session
        output = getattr(model, layer) if layer else self._outputs
        # Training may have stored what the frozen layers make of a picture.
        is_behind = (
            self._trained and model.bottleneck is not model.X and layer in
            [None] + LAYERS[min(map(LAYERS.index, self._trained)):])
        fed = model.bottleneck if is_behind else self._images
        data = PlainPictures(pictures, self.load, self.preprocessing, leave_out_bad)
        with session.graph.as_default():
            frozen = FrozenLayers(session, fed, self._images, {}, model.same_as)
            # A few are computed faster than the stored ones are found.
            store = features_path and len(pictures) > 32 and frozen.open_store(
                features_path, np.inf, load_image)
            [features] = open_features([data], frozen, store)
            values, samples = frozen.run_behind(output, features, self.batch_size)
        return values, samples, data.faults

    def close(self):
        """Free the network's memory."""
        self._session.close()

    def __exit__(self, *error):
        self.close()


if __name__ == '__main__':
    if layer not in [None] + LAYERS:
        raise InputError('layer is %r, must be None or one of %s' % (layer, LAYERS))
    weights_path = find_weights(checkpoint)
    print('Network: %s\nDevice: %s' % (weights_path, find_device()))
    with Classifier(weights_path, unknown_below, batch_size) as classify:
        kind, files = classify.kind, NewFiles(predictions_path)
        if export_path:
            export_model(
                classify.network, kind, export_path, classify.preprocessing,
                IMAGENET_MEAN, pictures_to_compare(weights_path, kind, classify.load))
            print('Wrote %s' % export_path)
        else:
            paths, labels = find_samples(pictures, pictures_path, kind)
            values, read, faults = classify.run(paths, layer, features_path, True)
            paths, labels = leave_out(faults, paths, labels, read)
        if layer:  # for other programs, so there is nothing to show or to score
            print('%s of %s, shape %s' % (layer, number_of(paths), values.shape))
            with files.new(features_file, 'features.npz') as file:
                np.savez(file, features=values, paths=paths,
                         **({} if labels is None else {'labels': labels}))
        elif not export_path:
            ranked = rank(values, kind, top_k, unknown_below)
            print_best(paths, *ranked, kind)
            with files.new(predictions_file, 'predictions.csv') as file:
                write_table(file, paths, labels, values, *ranked, kind)
            if labels is not None:  # scores tell how far to trust the predictions
                score(labels, values, kind, files, confusion_file)
            if heat_maps:
                write_heat_maps(heat_maps, paths, classify, name_ranked(*ranked, kind))
