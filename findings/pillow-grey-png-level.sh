#!/usr/bin/env bash
# Pillow makes the wrong level of a grey PNG with 2 or 4 bits transparent.
#
# pillow 13.0.0, Python 3.11. A grey PNG may name one of its levels as transparent (chunk
# tRNS), as a number of its own 2 or 4 bits. Pillow spreads the pixels to 0..255 but not
# that level, so it looks for a pixel of value 1, which is not there, and nothing becomes
# transparent. Each file has all levels of its depth in a row and names level 1. With 8
# bits, that pixel gets alpha 0, as it should with 2 and 4.
#
# Output: 2 bits [255, 255, 255, 255] 4 bits [255, 255, 255, 255] 8 bits [255, 0, 255, 255]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pillow==13.0.0
cd "$folder"
cat > check.py <<'PYTHON'
import io
import struct
import zlib

from PIL import Image


def chunk(name, content):
    return (struct.pack('>I', len(content)) + name + content +
            struct.pack('>I', zlib.crc32(name + content)))


found = []
for bits, row in [(2, b'\x1b'), (4, b'\x01\x23'), (8, b'\0\1\2\3')]:  # levels 0 to 3
    content = b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', 4, 1, bits, 0, 0, 0, 0)) + chunk(
        b'tRNS', b'\0\1') + chunk(b'IDAT', zlib.compress(b'\0' + row)) + chunk(
        b'IEND', b'')
    alpha = Image.open(io.BytesIO(content)).convert('RGBA').getchannel('A')
    found += [bits, 'bits', list(alpha.tobytes())]
print(*found)
PYTHON
found=$("$folder/env/bin/python" check.py)
echo "$found"
[ "$found" = "2 bits [255, 255, 255, 255] 4 bits [255, 255, 255, 255] 8 bits [255, 0, 255, 255]" ]
