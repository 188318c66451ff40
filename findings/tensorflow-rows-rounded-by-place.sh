#!/usr/bin/env bash
# tf.matmul rounds the same row differently at different places of a batch on a processor.
#
# tensorflow 2.21.0, numpy 2.4.6, Python 3.11, on an AMD EPYC with AVX2; also seen with
# tensorflow 1.15.5. A row of x @ w depends on that row of x alone, so one would expect
# the rows to be only moved if x is turned upside down, to the bit, as it is without a
# GPU and with a fixed batch size. With 8, 20 or 32 rows, four of them change in the last
# bits: those that are, or were, the last two. The kernels (oneDNN's) take six rows at
# once, and the last two are added up in another order. With 12, 24 or 48 rows, all stay.
# So stored features of a batch of 32 differ from those of the next run, if the pictures
# come in another order.
#
# Output: 8: 4 20: 4 32: 4 12: 0 24: 0 48: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tensorflow==2.21.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import numpy as np
import tensorflow as tf

rng, found = np.random.RandomState(0), []
w = rng.randn(512, 64).astype(np.float32)
for rows in (8, 20, 32, 12, 24, 48):
    x = rng.randn(rows, 512).astype(np.float32)
    moved = tf.matmul(x[::-1], w).numpy()[::-1]
    found.append('%d: %d' % (rows, (moved != tf.matmul(x, w).numpy()).any(1).sum()))
print(*found)
PYTHON
# A newer processor has other kernels; this asks it for the same ones.
found=$(ONEDNN_MAX_CPU_ISA=AVX2 "$folder/env/bin/python" check.py 2>"$folder/log")
echo "$found"
[ "$found" = "8: 4 20: 4 32: 4 12: 0 24: 0 48: 0" ]
