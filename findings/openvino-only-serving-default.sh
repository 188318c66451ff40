#!/usr/bin/env bash
# OpenVINO converts only serving_default of a SavedModel; it finds no node of the others.
#
# openvino 2026.4.1, tensorflow 2.21.0, numpy 2.4.6, Python 3.11. A SavedModel has two
# signatures with operations that OpenVINO knows, "images" and "serving_default". One
# would expect convert_model to take the name of one, or at least its input's name. But
# it converts serving_default without a word about the other, and input="images" ends in
# "No node with name images", which is an input in the file. If the two are called
# "images" and "sums", the result has the inputs and outputs of both. The way round it is
# convert_model(loaded.signatures['images']), with loaded = tf.saved_model.load(folder).
#
# Output: ['others'] | No node with name images | ['images', 'others'] | ['images']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q openvino==2026.4.1 tensorflow==2.21.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import openvino as ov
import tensorflow as tf


class Network(tf.Module):
    def __init__(self):
        self.weights = tf.Variable([[1.], [2.]])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name='images')])
    def images(self, images):
        return {'probabilities': images @ self.weights}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name='others')])
    def others(self, others):
        return {'sums': tf.reduce_sum(others, 1)}


def inputs_of(model):
    return sorted(name for port in model.inputs for name in port.names)


network = Network()
for folder, name in [('default', 'serving_default'), ('plain', 'sums')]:
    tf.saved_model.save(network, folder, {
        'images': network.images, name: network.others})
found = [inputs_of(ov.convert_model('default'))]
try:
    found.append(inputs_of(ov.convert_model('default', input='images')))
except Exception as error:
    found.append(error)
loaded = tf.saved_model.load('default')
found += [inputs_of(ov.convert_model('plain')),
          inputs_of(ov.convert_model(loaded.signatures['images']))]
print(*found, sep=' | ')
PYTHON
found=$("$folder/env/bin/python" check.py 2>"$folder/log" | tail -n 1)
echo "$found"
[ "$found" = "['others'] | No node with name images | ['images', 'others'] | ['images']" ]
