#!/usr/bin/env bash
# Pillow reads a 16-bit RGB TIFF wrong if its bands are stored one after another.
#
# pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6, Python 3.11. All pixels of a valid file
# are (50000, 25000, 100), so Pillow should return the upper bytes, (195, 97, 0), as it
# does if the bands of a pixel are together (PlanarConfiguration = 1). With
# PlanarConfiguration = 2 it returns an image without an error, but takes each byte of a
# band for a pixel: 80 and 168 are the lower bytes of 50000 and 25000.
#
# Output: together [195, 97, 0] [195, 97, 0] planes [80, 168, 100] [195, 97, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import numpy as np
import tifffile
from PIL import Image

pixels = np.full((4, 4, 3), (50000, 25000, 100), np.uint16)
tifffile.imwrite('together.tif', pixels, photometric='rgb')
planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
tifffile.imwrite('planes.tif', planes, photometric='rgb', planarconfig='separate')
found = []
for name in ('together', 'planes'):
    image = np.asarray(Image.open(name + '.tif'))
    found += [name] + image[0, :2].tolist()
print(*found)
PYTHON
found=$("$folder/env/bin/python" check.py)
echo "$found"
[ "$found" = "together [195, 97, 0] [195, 97, 0] planes [80, 168, 100] [195, 97, 0]" ]
