#!/usr/bin/env bash
# In a graph of TensorFlow 2.21's tf.compat.v1, map_fn alone runs AutoGraph.
#
# tensorflow 2.21.0, numpy 2.4.6, Python 3.11; so does 2.22.0rc0. After
# disable_v2_behavior(), a Python "if" on a tensor is expected to be refused everywhere
# outside of tf.function and tf.data. cond, while_loop, scan, foldl and vectorized_map do
# refuse it, but map_fn converts the function, and the "if" works. (In 1.15.5, map_fn
# refuses it, too.) It also converts all functions that this function calls, whether they
# need it or not: a graph with 1,700 operations from about 60 functions took 4.2 s to
# build, and 1.9 s with tf.autograph.experimental.do_not_convert around the function.
#
# Output: works: map_fn
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tensorflow==2.21.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
x = tf.constant([-1., 2.])


def relu(value):
    if value > 0:
        return value
    return 0. * value


WAYS = {
    'map_fn': lambda: tf.map_fn(relu, x),
    'cond': lambda: tf.cond(x[0] < 0, lambda: relu(x[0]), lambda: x[1]),
    'while_loop': lambda: tf.while_loop(
        lambda step, _: step < 1, lambda step, value: (step + 1, relu(value)),
        (0, x[0])),
    'scan': lambda: tf.scan(lambda _, value: relu(value), x),
    'foldl': lambda: tf.foldl(lambda _, value: relu(value), x, 0.),
    'vectorized_map': lambda: tf.vectorized_map(relu, x),
    'map_fn, not converted': lambda: tf.map_fn(
        tf.autograph.experimental.do_not_convert(relu), x)}
works = []
for name, build in WAYS.items():
    try:
        build()
        works.append(name)
    except TypeError:  # OperatorNotAllowedInGraphError
        pass
print('works:', *works)
PYTHON
found=$("$folder/env/bin/python" check.py 2>"$folder/log")
echo "$found"
[ "$found" = "works: map_fn" ]
