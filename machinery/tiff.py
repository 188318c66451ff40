"""Read TIFF files with Pillow, and refuse files whose pixels could come out wrong.

OpenCV ignores the tags and hides damage: it reads a near-infrared band as alpha,
returns only one of several pages or bands, and makes unreadable tiles black.
"""
import io

import cv2
import numpy as np
from PIL import TiffImagePlugin

from machinery.errors import InputError

MARKS = b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
ALPHA = (1,), (2,)  # premultiplied, or not


def is_tiff(data):
    """Tell whether bytes, or an array of bytes, are a TIFF."""
    return bytes(data[:4]) in MARKS


def read_pages(data):
    """Yield the tags of each page, {number or name in PIL.TiffTags: value}."""
    file, seen = io.BytesIO(data), set()
    header = file.read(16 if 43 in data[2:4] else 8)
    place = TiffImagePlugin.ImageFileDirectory_v2(header).next
    while place and place not in seen:  # damage may lead around in circles
        seen.add(place)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(place)
        tags.load(file)
        yield tags
        place = tags.next


def find_size(data):
    """Return (width, height) of the first page."""
    tags = next(read_pages(data))
    return int(tags[256]), int(tags[257])


def find_reason(pages):
    """Return why a TIFF with these pages of tags cannot be read correctly, or None."""
    tags = next(pages)
    bits, number_format = max(tags.get(258, (1,))), tags.get(339, (1,))
    bands, extra_bands = tags.get(277, 1), tags.get(338, ())
    is_grey = tags.get(262) in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    compression = tags.get(259, 1)
    # Bit 0 of tag 254: a smaller version of a page; bit 2: its mask.
    if tags.get(254, 0) & 5 or not all(page.get(254, 0) & 5 for page in pages):
        return 'it has several pages: save the page that counts as a separate file'
    if set(number_format) != {1}:
        return ('its values are signed or floating-point numbers: scale them to 0..255 '
                'and save it with 8 bits')
    if bits > 16:
        return ('its values have %d bits: scale them to 0..255 and save it with 8 bits'
                % bits)
    if 262 not in tags and 256 in tags:  # without both, it is damaged
        return 'its tags do not say what its colours are: save it as RGB'
    if max(tags.get(320, (256,))) < 256:
        return 'its palette is nearly black: save it as RGB'
    if is_grey and bands > 1 and extra_bands not in ALPHA:
        return ('it has %d bands, but its tags name only the first, as grey: save it '
                'as RGB, or only the first' % bands)
    # Pillow would mistake the bytes for pixels: see findings/pillow-planar-tiff.sh.
    if bands > 1 and bits > 8 and tags.get(284) == 2:
        return ('it has %d bits and the bands one after another: save it with 8 bits, '
                'or with interleaved bands' % bits)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return ('Pillow cannot undo its compression (number %s): save it with LZW or '
                'uncompressed' % compression)


def decode_tiff(data, path):
    """Decode a TIFF to uint8 BGR and a uint8 alpha channel, which may be None.

    Bands are left out if they are neither colour nor alpha.
    """
    try:
        reason = find_reason(read_pages(data))
        if not reason:
            return to_bgr(TiffImagePlugin.TiffImageFile(io.BytesIO(data)))
    except Exception:  # Pillow raises any kind of exception for damage
        reason = ('it is damaged, or of a kind that Pillow cannot decode: save it '
                  'again as RGB with 8 bits')
    raise InputError('%s: this TIFF cannot be read: %s' % (path, reason))


def to_bgr(image):
    """Return (uint8 BGR, uint8 alpha or None) of a TIFF opened by Pillow."""
    if max(place[3] for _, place, *_ in image.tile) < image.tag_v2[257]:
        raise ValueError('strips are missing, which Pillow would make black')
    image.load()
    if image.mode.startswith('I;16'):  # Pillow neither scales nor inverts these
        bits, = image.tag_v2[258]
        grey = np.uint8(np.asarray(image) >> (bits - 8))
        if image.tag_v2[262] == WHITE_IS_ZERO:
            grey = 255 - grey
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), None
    if image.mode in ('LA', 'PA', 'RGBA'):
        pixels = np.asarray(image.convert('RGBA'))
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR), pixels[..., 3]
    return cv2.cvtColor(np.asarray(image.convert('RGB')), cv2.COLOR_RGB2BGR), None
