#!/usr/bin/env bash
# OpenCV drops the transparent level of a grey PNG, but keeps that of colours and palettes.
#
# opencv-python 5.0.0.93, pillow 13.0.0, numpy 2.4.6, Python 3.11. A PNG without an alpha
# channel may name one value as transparent (chunk tRNS). Three files show the same
# picture, all of it transparent. For RGB and for a palette, cv2.IMREAD_UNCHANGED returns
# four channels, the last of them 0. One would expect the same for grey, but there it
# returns one channel, and what nobody should see looks like any other grey.
#
# Output: RGB (4, 4, 4) 0 palette (4, 4, 4) 0 grey (4, 4) 9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q opencv-python==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'PYTHON'
import cv2
from PIL import Image

grey = Image.new('L', (4, 4), 9)
found = []
for name, image, level in [('RGB', grey.convert('RGB'), (9, 9, 9)),
                           ('palette', grey.convert('P'), 9), ('grey', grey, 9)]:
    image.save('a.png', transparency=level)
    pixels = cv2.imread('a.png', cv2.IMREAD_UNCHANGED)
    found += [name, pixels.shape, pixels.ravel()[-1]]
print(*found)
PYTHON
found=$("$folder/env/bin/python" check.py)
echo "$found"
[ "$found" = "RGB (4, 4, 4) 0 palette (4, 4, 4) 0 grey (4, 4) 9" ]
