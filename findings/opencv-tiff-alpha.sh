#!/usr/bin/env bash
# OpenCV multiplies the colours of a transparent TIFF with alpha, but not those of a PNG.
#
# opencv-python 5.0.0.93, pillow 13.0.0, numpy 2.4.6, Python 3.11. Pillow writes the same
# half-transparent orange as PNG and as TIFF, with ExtraSamples = 2: "unassociated
# alpha", colours as they are. One would expect cv2.IMREAD_UNCHANGED to return the
# channels of the file in both cases, as it does for PNG (and for a TIFF of 16 bits). But
# the 8-bit TIFF comes with its colours multiplied with alpha / 255, and nothing tells
# them apart, so whoever composes it with a background darkens it twice.
#
# Output: png [0, 100, 200, 128] tif [0, 50, 100, 128]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q opencv-python==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import cv2
from PIL import Image

found = []
for name in ('png', 'tif'):
    Image.new('RGBA', (8, 8), (200, 100, 0, 128)).save('a.' + name)
    found += [name, cv2.imread('a.' + name, cv2.IMREAD_UNCHANGED)[0, 0].tolist()]
print(*found)
PYTHON
found=$("$folder/env/bin/python" check.py)
echo "$found"
[ "$found" = "png [0, 100, 200, 128] tif [0, 50, 100, 128]" ]
