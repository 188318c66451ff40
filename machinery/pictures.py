"""Decode picture files, and tell which ones cannot be decoded."""
import contextlib
import hashlib
import io
import math
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import cv2
import imagesize
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from machinery.cores import count_cores
from machinery.errors import InputError, input_errors, open_plain, stderr_to
from machinery.memory import MemoryBudget
from machinery.tiff import decode_tiff, find_size, is_tiff

SLOW = 30  # seconds for a picture
MAX_PIXELS = 10 ** 8  # few cameras have more, and more could fill the memory
MEMORY = MemoryBudget(2 * 10 ** 9)  # bytes, for all threads that decode
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4,
           2: cv2.IMREAD_REDUCED_COLOR_2}


@input_errors()
def read_file(path):
    """Return the bytes of a picture file (a uint8 array), and its (width, height).

    Both are 0 if the header cannot be read. Raises an InputError if the file is empty
    or the picture is too large.
    """
    with open_plain(path) as file:
        data = file.read()
    if not data:
        raise InputError('%s: empty file' % path)
    # From the header, since decoding takes the memory even if the rest is damaged.
    width = height = 0
    with contextlib.suppress(Exception):  # any damage; OpenCV will say what is wrong
        width, height = (find_size(data) if is_tiff(data) else
                         imagesize.get(io.BytesIO(data)))
    if width * height > MAX_PIXELS:
        raise InputError('%s: %d x %d pixels are more than %d million'
                         % (path, width, height, MAX_PIXELS // 10 ** 6))
    return np.frombuffer(data, np.uint8), (width, height)


def is_jpeg(data):
    """Tell if the bytes of a file are those of a JPEG."""
    return data[:2].tobytes() == b'\xff\xd8'


def sides_to_reduce(size, reducing_gap):
    """Return {scale: side from which a JPEG is decoded at 1 / scale}.

    This is the picture's shorter side, or its longer one if all of it is to fit into
    the size (resize is 'pad'). It is compared with the longer side of the size, because
    some versions of imagesize apply the EXIF orientation and others do not.
    """
    return {scale: math.ceil(scale * reducing_gap * max(size)) for scale in REDUCED
            if reducing_gap}


def decode(data, flags, path):
    """Decode the bytes of a picture with these flags of OpenCV."""
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise InputError('%s: OpenCV cannot decode it: %s' % (path, error))
    if image is None:
        raise InputError('%s: not a picture, or damaged, or of a kind that OpenCV '
                         'cannot decode' % path)
    return image


def decode_image(path, size=None, reducing_gap=None, resize='squash'):
    """Decode a picture to uint8 BGR, transparency to white; raise as load_image.

    With a reducing_gap, a JPEG may be smaller than in the file: see load_image. A path
    may also be an array of pixels, which is returned.
    """
    if isinstance(path, np.ndarray):
        return check_pixels(path)
    data, sides = read_file(path)
    with MEMORY.use(memory_for(data, sides)):
        side = max(sides) if resize == 'pad' else min(sides)
        for scale, least in sides_to_reduce(size, reducing_gap).items():
            if side >= least and is_jpeg(data):
                return decode(data, REDUCED[scale], path)
        return decode_bytes(data, path)


def check_pixels(image):
    """Return an array if it is a uint8 BGR image, or raise an InputError."""
    if image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        raise InputError('the array is %s of shape %s, must be uint8 (0 to 255, blue '
                         'first) of shape (height, width, 3)'
                         % (image.dtype, image.shape))
    return image


def memory_for(data, sides):
    """Return how many bytes it may take to decode a picture of (width, height).

    A progressive JPEG's coefficients take 6 bytes per pixel before its colours take 3;
    other pictures may have 4 channels of 16 bits, and are decoded twice.
    """
    return sides[0] * sides[1] * (9 if is_jpeg(data) else 16)


def decode_bytes(data, path):
    """Decode the bytes of a picture as decode_image does; path is for messages."""
    if is_tiff(data):
        return on_white(*decode_tiff(data, path))
    start = data[:16].tobytes()
    if start.startswith(b'\x89PNG') or start[8:] in (b'WEBPVP8X', b'WEBPVP8L'):
        pixels = decode_transparent(data, path)
        if pixels is not None:
            return on_white(cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR), pixels[..., 3])
    image = decode(data, cv2.IMREAD_COLOR, path)
    if start[4:12] != b'ftypavif' and start[:4] != b'GIF8':  # they may have alpha, too
        return image
    whole = decode(data, cv2.IMREAD_UNCHANGED, path)
    if whole.shape == image.shape[:2] + (4,) and whole.dtype.kind == 'u':
        on_white(image, whole[..., 3], largest_value(data.tobytes(), whole.dtype))
    return image


def decode_transparent(data, path):
    """Decode a PNG or WebP to uint8 RGBA with Pillow; None if nothing is transparent.

    OpenCV would turn the image by its EXIF orientation, but not its alpha channel, and
    drop the level that is transparent in a grey PNG.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:  # OpenCV will say what is wrong
        return None
    if not image.mode.endswith('A') and 'transparency' not in image.info:
        return None
    if image.format == 'PNG' and data[24] == 16 and not image.mode.endswith('A'):
        raise InputError('%s: this PNG has 16 bits and names a value that is '
                         'transparent: save it with an alpha channel' % path)
    try:
        image.load()  # the orientation may stand behind the pixels
        # From EXIF alone, as OpenCV: Pillow would take it from XMP or a text, too.
        image.info = {
            name: value for name, value in image.info.items()
            if name == 'transparency' or name == 'exif' and (
                is_tiff(value) or is_tiff(value[len(b'Exif\0\0'):]))}
        # Pillow spreads 2 or 4 bits of grey to 0..255, but not the transparent level.
        if image.format == 'PNG' and data[24:26].tolist() in ([2, 0], [4, 0]):
            largest = 2 ** int(data[24]) - 1
            if image.info['transparency'] <= largest:
                image.info['transparency'] *= 255 // largest
        return np.asarray(ImageOps.exif_transpose(image).convert('RGBA'))
    except Exception as error:  # for damage, Pillow raises any kind
        raise InputError('%s: damaged: %s' % (path, error))


def largest_value(data, dtype):
    """Return the value of white, and of opaque: OpenCV gives AVIF's 12 bits as 16."""
    if dtype == np.uint16 and data[4:12] == b'ftypavif':
        # In its av1C box, one bit says that there are more than 8 bits, the next 12.
        deep = data[data.index(b'av1C') + 6] >> 5 & 3
        return {2: 2 ** 10 - 1, 3: 2 ** 12 - 1}.get(deep, 2 ** 8 - 1)
    return np.iinfo(dtype).max


def on_white(image, alpha, opaque=255):
    """Put a uint8 image on white where alpha, if there is any, is below opaque."""
    if alpha is not None:
        for row, alphas in zip(image, alpha):  # all at once would take 2 GB
            part = alphas[:, None] / np.float32(opaque)
            row[:] = row * part + 255 * (1 - part) + 0.5
    return image


def number_from(content):
    """Return 63 bits of the SHA-1 of bytes as an integer above 0."""
    return int.from_bytes(hashlib.sha1(content).digest()[:8], 'big') >> 1 or 1


def examine(path):
    """Decode a picture as training does, which fails for the same ones.

    Returns:
        why it cannot be decoded, or None; whether it is nearly black; a number made of
        its content, 0 if it cannot be read.
    """
    content = 0
    try:
        data, sides = read_file(path)
        content = number_from(data)
        with MEMORY.use(memory_for(data, sides)):
            if is_jpeg(data):  # all of it is read, and an eighth of its size is faster
                decode(data, REDUCED[8], path)
                return None, False, content
            return None, bool(is_dark(data, decode_bytes(data, path))), content
    except InputError as error:
        return str(error), False, content


def is_low(image):
    """Tell if a uint8 image has next to nothing above 64; single pixels may be hot."""
    return np.count_nonzero(image > 64) <= image.size // 1000


def is_dark(data, image):
    """Tell if training sees next to nothing of a picture, but deeper values exist."""
    if not is_low(image):
        return False
    with contextlib.suppress(cv2.error):
        deep = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if deep is not None and deep.dtype == np.uint16:
            # Formats that tell their number of bits, like AVIF, are scaled already.
            deepest, highest = np.percentile(deep, 99.9), np.percentile(image, 99.9)
            return deepest < 2 ** 14 and abs(deepest / 257 - highest) <= 1
    return False


def examine_all(paths, pool):
    """Return what examine gives for each path; damage inside a JPEG is a fault."""
    # libjpeg reports such damage only on standard error, and without a file name.
    with tempfile.TemporaryFile() as file:
        with stderr_to(file.fileno()):
            results = list(pool.map(examine, paths))
        file.seek(0)
        complaints = [line for line in file if b'JPEG' in line]
    if complaints and len(paths) > 1:  # look again, one by one, to see whose they are
        return [examine_all([path], pool)[0] for path in paths]
    if complaints and not results[0][0]:
        complaint = complaints[0].decode(errors='replace').strip()
        return [('%s: %s' % (paths[0], complaint), False, results[0][2])]
    return results


def result_of(future, path):
    """Return the result or InputError of a future; name a file that takes too long."""
    try:
        error = future.exception(SLOW)
    except TimeoutError:
        tqdm.write('Waiting for %s: nothing for %s s' % (path, SLOW), file=sys.stderr)
        error = future.exception()
    return error if isinstance(error, InputError) else future.result()


def load_ahead(load, items, batch_size, path_of=str):
    """Yield (items, results) of each batch, and load the next one meanwhile.

    load(item) runs in threads; its result may be the InputError that it raised.
    path_of(item) is the path of its file.
    """
    batches = [items[start:start + batch_size]
               for start in range(0, len(items), batch_size)]
    with ThreadPoolExecutor(count_cores()) as pool:
        ahead = [pool.submit(load, item) for item in items[:batch_size]]
        try:
            for batch, following in zip(batches, batches[1:] + [[]]):
                loading, ahead = ahead, [pool.submit(load, item) for item in following]
                yield batch, [result_of(future, path_of(item))
                              for future, item in zip(loading, batch)]
        finally:
            for future in ahead:
                future.cancel()


def apply_augment(augment, image, rng):
    """Return augment(image, rng) as uint8, rounded and clipped, or raise ValueError."""
    changed = np.asarray(augment(np.float32(image), rng))
    if changed.shape != image.shape or not np.isfinite(changed).all():
        raise ValueError('augment must return finite numbers of shape %s'
                         % (image.shape,))
    return np.uint8(np.clip(np.round(changed), 0, 255))
