"""What the header of a JPEG or PNG says, as operations of a graph, for the export."""
import numpy as np

from machinery.pictures import MAX_PIXELS
from machinery.tf1 import tf

OTHERS = [  # name, where its mark stands, the mark
    ('GIF', 0, b'GIF8'), ('BMP', 0, b'BM'), ('WebP', 8, b'WEBP'),
    ('TIFF', 0, b'II*\0'), ('TIFF', 0, b'MM\0*'), ('HEIC or AVIF', 4, b'ftyp'),
    ('JPEG 2000', 4, b'jP  ')]
# A turn of TensorFlow's loop takes 0.1 ms, and a small file could ask for a million.
MAX_SEGMENTS, MAX_CHUNKS = 1000, 20000
DAMAGED = -1  # in place of an orientation
ITEM_SIZES = [1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8]  # bytes, of each type in a TIFF
GREY, PALETTE, GREY_ALPHA = 0, 3, 4  # kinds of PNG; those above have alpha, too


def inspect(pictures):
    """Look at the headers of picture files, a string tensor (n,).

    Only the decoder finds damage behind the header. The CRC of a PNG's chunk eXIf is
    not checked; OpenCV ignores a chunk with a wrong one.

    Returns:
        faults: strings (n,), why the export refuses a picture, or ''.
        orientations: int32 (n,), 1 to 8 as in EXIF, as OpenCV reads it.
        transparent: bool (n,), whether a PNG has an alpha channel or a chunk tRNS.
    """
    with tf.device('/cpu:0'):  # a GPU would wait for each step of a loop
        return tf.map_fn(inspect_one, pictures, (tf.string, tf.int32, tf.bool))


def check(faults):
    """Return an operation that fails if there are faults; it names all of them."""
    with tf.device('/cpu:0'):
        positions = tf.where(tf.not_equal(faults, ''))[:, 0]
        told = tf.strings.join(['pictures[', tf.as_string(positions), ']: ',
                                tf.gather(faults, positions)])
        return tf.debugging.Assert(tf.equal(tf.size(positions), 0),
                                   [tf.strings.reduce_join(told, 0, separator='; ')])


# map_fn would look for Python's if and for in all functions here, which takes seconds.
@tf.autograph.experimental.do_not_convert
def inspect_one(data):
    """inspect for a single file, a scalar string."""
    content = tf.decode_raw(data, tf.uint8)

    def name_other():
        marks = [(has(content, start, mark), '%s: send JPEG or PNG' % name)
                 for name, start, mark in OTHERS]
        return first_of((tf.equal(tf.size(content), 0), 'empty'), *marks,
                        (True, 'not a picture')), tf.constant(1), tf.constant(False)

    fault, orientation, is_transparent = tf.case([
        (has(content, 0, b'\xff\xd8\xff'), lambda: inspect_jpeg(content)),
        (has(content, 0, b'\x89PNG\r\n\x1a\n'), lambda: inspect_png(content))],
        name_other)
    is_damaged = tf.equal(fault, '') & tf.equal(orientation, DAMAGED)
    fault = first_of((is_damaged, 'its EXIF is damaged'), (True, fault))
    return fault, tf.maximum(orientation, 1), is_transparent


def inspect_jpeg(content):
    """Walk through a JPEG's segments up to its first scan. ITU T.81, annex B."""
    def is_before_scan(place, frame, orientation):
        segment = read(content, place, 4)
        marker = segment[1]
        has_length = tf.greater_equal(number(segment[2:]), 2)
        return (tf.equal(segment[0], 255) & (marker >= 0xc0) &
                ((marker < 0xd0) | (marker > 0xda)) &
                (tf.equal(marker, 255) | has_length))

    def step(place, frame, orientation):
        segment = read(content, place, 10)
        marker = segment[1]
        # Any number of bytes 255 may stand before a marker.
        after = place + tf.where(tf.equal(marker, 255), np.int64(1),
                                 2 + number(segment[2:4]))
        is_frame = (marker < 0xd0) & tf.reduce_all(tf.not_equal(
            marker, [0xc4, 0xc8, 0xcc]))
        # OpenCV reads one APP1 after another until it finds an orientation.
        orientation = tf.cond(
            tf.equal(marker, 0xe1) & tf.equal(orientation, 0) &
            has(content, place + 4, b'Exif\0\0'),
            lambda: find_orientation(content[place + 10:after]), lambda: orientation)
        return after, tf.where(is_frame, place, frame), orientation

    scan, frame, orientation = tf.while_loop(
        is_before_scan, step, (np.int64(2), np.int64(0), 0),
        maximum_iterations=MAX_SEGMENTS)
    header = read(content, frame, 10)
    height, width, channels = number(header[5:7]), number(header[7:9]), header[9]
    rest = content[scan:]
    is_ended = tf.reduce_any(tf.equal(rest[:-1], 255) & tf.equal(rest[1:], 0xd9))
    return first_of(
        (tf.equal(frame, 0) | ~has(content, scan, b'\xff\xda') |
         tf.equal(height * width, 0), 'its header is damaged or cut off'),
        (header[1] > 0xc2, 'lossless or arithmetic JPEG: send a usual one'),
        (tf.not_equal(header[4], 8), 'JPEG with more than 8 bits: send 8'),
        (tf.equal(channels, 4), 'CMYK JPEG: convert it to RGB'),
        (tf.reduce_all(tf.not_equal(channels, [1, 3])), 'JPEG of neither 1 nor 3 '
                                                        'channels: convert it to RGB'),
        *too_large(width, height), (~is_ended, 'cut off'), (True, '')
    ), orientation, tf.constant(False)


def inspect_png(content):
    """Walk through a PNG's chunks. PNG, third edition, sections 5 and 11."""
    names = [b'PLTE', b'tRNS', b'IDAT', b'eXIf', b'acTL']
    size = tf.size(content, out_type=tf.int64)

    def is_before_end(place, *_):
        return (place + 12 <= size) & ~has(content, place + 4, b'IEND')

    def step(place, first, counts):
        chunk = read(content, place, 8)
        is_here = tf.reduce_all(tf.equal(chunk[4:], [list(name) for name in names]), 1)
        is_first = is_here & tf.equal(counts, 0)
        first = tf.where(is_first, tf.fill([len(names)], place), first)
        return (place + 12 + number(chunk[:4]), first,
                counts + tf.cast(is_here, tf.int32))

    end, first, counts = tf.while_loop(is_before_end, step, (
        np.int64(8), np.zeros(len(names), np.int64), np.zeros(len(names), np.int32)),
        maximum_iterations=MAX_CHUNKS)
    first, counts = (dict(zip(names, tf.unstack(values, len(names))))
                     for values in (first, counts))

    def length_of(name):
        return number(read(content, first[name], 4))

    header = read(content, 8, 21)
    width, height = number(header[8:12]), number(header[12:16])
    bits, kind = header[16], header[17]
    has_level = (counts[b'tRNS'] > 0) & (kind < GREY_ALPHA)
    # libpng and Pillow read a wrong tRNS differently.
    levels = read(content, first[b'tRNS'] + 8, 6)
    is_right = first_of(
        (tf.equal(kind, PALETTE), (length_of(b'tRNS') > 0) &
         (3 * length_of(b'tRNS') <= length_of(b'PLTE')) &
         (first[b'PLTE'] < first[b'tRNS'])),
        (tf.equal(kind, GREY), tf.equal(length_of(b'tRNS'), 2) &
         (number(levels[:2]) < tf.cast(2 ** bits, tf.int64))),
        (True, tf.equal(length_of(b'tRNS'), 6) &
         tf.reduce_all(tf.equal(levels[::2], 0))))
    is_right &= tf.equal(counts[b'tRNS'], 1) & (first[b'tRNS'] < first[b'IDAT'])
    orientation = tf.cond(
        counts[b'eXIf'] > 0, lambda: find_orientation(
            content[first[b'eXIf'] + 8:][:length_of(b'eXIf')]), lambda: 0)
    return first_of(
        (~has(content, 12, b'IHDR') | tf.equal(width * height, 0),
         'its header is damaged or cut off'),
        *too_large(width, height),
        (end + 12 > size, 'cut off'),
        (~has(content, end + 4, b'IEND'), 'PNG of more than %d chunks' % MAX_CHUNKS),
        (counts[b'acTL'] > 0, 'animated PNG: send a single picture'),
        (has_level & tf.equal(bits, 16), 'PNG of 16 bits that names a value that is '
                                         'transparent: save it with an alpha channel'),
        (has_level & ~is_right, 'PNG whose chunk tRNS is damaged'),
        (counts[b'eXIf'] > 1, 'PNG with more than one chunk eXIf'),
        ((counts[b'eXIf'] > 0) & ~is_tiff(content, first[b'eXIf'] + 8),
         'its EXIF is damaged'), (True, '')
    ), orientation, has_level | (kind >= GREY_ALPHA)


def find_orientation(content):
    """Return the orientation that EXIF gives the picture itself, not its thumbnail.

    content is a TIFF, uint8; the result 1 to 8, 0 if it has none, or DAMAGED if
    programs read it in different ways. EXIF 2.3, section 4.6.
    """
    is_little = tf.cast(has(content, 0, b'I'), tf.int64)
    size = tf.size(content, out_type=tf.int64)
    start = number(read(content, 4, 4), is_little) + 2
    count = number(read(content, start - 2, 2), is_little)
    whole = tf.maximum(np.int64(0), tf.minimum(count, (size - start) // 12))
    entries = tf.reshape(content[start:start + 12 * whole], [-1, 12])
    tags, types, counts, places, values = (
        number(entries[:, first:last], is_little)
        for first, last in [(0, 2), (2, 4), (4, 8), (8, 12), (8, 10)])
    is_here = tf.equal(tags, 0x112)
    found = tf.boolean_mask(values, is_here)
    # OpenCV stops at a value that would stand outside.
    lengths = counts * tf.gather(np.int64(ITEM_SIZES), tf.minimum(types, 12))
    is_outside = (lengths > 4) & (places + lengths > size)
    is_wrong = tf.where(is_here, tf.not_equal(types, 3) | tf.not_equal(counts, 1),
                        is_outside & tf.equal(tf.cumsum(tf.cast(is_here, tf.int32)), 0))
    is_damaged = (whole < count) | ((tf.size(found) > 0) & tf.reduce_any(is_wrong)) | (
        tf.size(found) > 1)
    value = tf.reduce_sum(found)
    is_known = (value >= 1) & (value <= 8)
    return tf.cast(first_of(
        (~is_tiff(content, 0), np.int64(0)), (is_damaged, np.int64(DAMAGED)),
        (tf.equal(tf.size(found), 0), np.int64(0)), (is_known, value),
        (True, np.int64(1))), tf.int32)


def is_tiff(content, place):
    """Tell whether a TIFF starts at a place of content, in either order of bytes."""
    return has(content, place, b'II*\0') | has(content, place, b'MM\0*')


def too_large(width, height):
    """Return [(is it so, the complaint)], as first_of takes it."""
    return [(width * height > MAX_PIXELS, tf.strings.join([
        tf.as_string(width), ' x ', tf.as_string(height),
        ' pixels are more than %d million' % (MAX_PIXELS // 10 ** 6)]))]


def first_of(*cases):
    """Return the value of the first of these (condition, value) that is true."""
    conditions, values = zip(*cases)
    return tf.boolean_mask(tf.stack(values), tf.stack(conditions))[0]


def has(content, place, mark):
    """Tell whether these bytes stand at a place of content, uint8 (n,)."""
    return tf.reduce_all(tf.equal(read(content, place, len(mark)), list(mark)))


def read(content, place, length):
    """Return the bytes at a place as int32 (length,); past the end they are 0."""
    part = tf.cast(content[place:place + length], tf.int32)
    part = tf.pad(part, [[0, length - tf.size(part)]])
    part.set_shape([length])
    return part


def number(octets, is_little=0):
    """Return the numbers, int64, whose bytes are in the last dimension."""
    big = 256 ** np.arange(int(octets.shape[-1]), dtype=np.int64)[::-1]
    return tf.reduce_sum(tf.cast(octets, tf.int64) * (
        big + is_little * (big[::-1] - big)), -1)
