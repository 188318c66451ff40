#!/usr/bin/env bash
# tf.io.decode_png(channels=4) calls opaque pictures of 1, 2 or 4 bits nearly transparent.
#
# tensorflow-cpu 2.21.0, numpy 2.4.6, Python 3.11. The documentation says that an alpha
# channel is added if there is none. For a PNG of 8 bits it is 255, which is opaque. For a
# palette, or grey, of 1, 2 or 4 bits it is 1, 3 or 15, though the colours are spread to
# 0..255, so that a program that puts such a picture on white sees next to nothing of it.
#
# Output: grey 1 [1] grey 2 [3] grey 4 [15] grey 8 [255]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tensorflow-cpu==2.21.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import struct
import zlib

import numpy as np
import tensorflow as tf


def chunk(name, content):
    return (struct.pack('>I', len(content)) + name + content +
            struct.pack('>I', zlib.crc32(name + content)))


found = []
for bits in (1, 2, 4, 8):
    content = b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', 8, 1, bits, 0, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(b'\0' + bits * b'\x1b')) + chunk(b'IEND', b'')
    image = tf.io.decode_png(content, 4).numpy()
    found += ['grey', bits, np.unique(image[..., 3]).tolist()]
print(*found)
PYTHON
found=$("$folder/env/bin/python" check.py 2>/dev/null)
echo "$found"
[ "$found" = "grey 1 [1] grey 2 [3] grey 4 [15] grey 8 [255]" ]
