"""The check before a run, and TIFFs, whose kinds are many."""
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from datagenerator import ImageDataGenerator, load_image
from machinery import pictures
from machinery.check import (BAD, DARK, check_pictures, find_bad_pictures,
                             list_warnings)
from machinery.errors import InputError
from machinery.labels import OneClass
from machinery.memory import MemoryBudget
from machinery.pictures import decode_image, examine
from machinery.plain_pictures import PlainPictures
from machinery.workers import Workers
from test_datagenerator import TRAIN, colours, picture, write_list

RGB = picture()[..., ::-1]
GREY = picture()[..., 1]
ALPHA = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))
ON_WHITE = np.floor(picture() * (ALPHA[..., None] / 255.) +
                    255 - ALPHA[..., None] + 0.5)
THREE_GREYS = np.dstack(3 * [GREY])
LONG = {254, 256, 257, 273, 278, 279}  # tags whose values have 4 bytes, not 2


def page(pixels, compression=1, **tags):
    """Return the pixels and {tag: values} of a page; tags are given as t258=[8]."""
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    number_format = {'u': 1, 'i': 2, 'f': 3}[pixels.dtype.kind]
    found = {254: [0], 256: [pixels.shape[1]], 257: [pixels.shape[0]],
             258: [8 * pixels.itemsize] * bands, 259: [compression],
             262: [2 if bands > 2 else 1], 277: [bands], 278: [pixels.shape[0]],
             279: [pixels.nbytes], 284: [1], 339: [number_format] * bands}
    found.update((int(name[1:]), values) for name, values in tags.items())
    return pixels.tobytes(), {tag: values for tag, values in found.items() if values}


def tiff(*pages):
    """Return the bytes of a TIFF of pages; see the TIFF 6.0 specification."""
    content, link = b'II*\0' + bytes(4), 4
    for pixels, tags in pages:
        tags.setdefault(273, [len(content)])
        content += pixels + bytes(len(pixels) % 2)
        entries, more = b'', b''
        place = len(content) + 2 + 12 * len(tags) + 4
        for tag in sorted(tags):
            kind, letter = (4, 'I') if tag in LONG else (3, 'H')
            values = struct.pack('<%d%s' % (len(tags[tag]), letter), *tags[tag])
            if len(values) > 4:
                values, more = struct.pack('<I', place + len(more)), more + values
            entries += struct.pack('<HHI', tag, kind, len(tags[tag]))
            entries += values.ljust(4, b'\0')
        content = content[:link] + struct.pack('<I', len(content)) + content[link + 4:]
        link = place - 4
        content += struct.pack('<H', len(tags)) + entries + bytes(4) + more
    return content


def planes(pixels):
    """Return a page that has its bands one after another."""
    count = pixels.shape[2]
    size = pixels.nbytes // count
    return page(np.ascontiguousarray(pixels.transpose(2, 0, 1)), t256=[90], t257=[60],
                t258=[8 * pixels.itemsize] * count, t262=[2], t277=[count], t278=[60],
                t279=[size] * count, t273=[8 + size * band for band in range(count)],
                t284=[2], t339=[1] * count)


def lzw(pixels, path):
    """Return the bytes of a TIFF that is compressed with LZW."""
    Image.fromarray(pixels).save(path, 'tiff', compression='tiff_lzw')
    with open(path, 'rb') as file:
        return file.read()


def deep(pixels):
    """Return 16-bit values."""
    return pixels.astype(np.uint16) * 257


def packed(pixels):
    """Return 12-bit values, two of them in three bytes."""
    first, second = np.uint16(pixels[:, ::2]) * 16, np.uint16(pixels[:, 1::2]) * 16
    return np.uint8(np.dstack([first >> 4, (first & 15) << 4 | second >> 8,
                               second & 255])).reshape(len(pixels), -1)


def associated(pixels):
    """Return RGBA whose colours are multiplied with alpha."""
    return np.dstack([np.uint8(np.round(pixels * (ALPHA[..., None] / 255.))), ALPHA])


@pytest.mark.parametrize('content, expected', [
    (tiff(page(RGB)), picture()), (tiff(page(deep(RGB))), picture()),
    (tiff(page(GREY)), THREE_GREYS), (tiff(page(deep(GREY))), THREE_GREYS),
    (tiff(page(255 - GREY, t262=[0])), THREE_GREYS),
    (tiff(page(deep(255 - GREY), t262=[0])), THREE_GREYS),
    (tiff(page(packed(GREY), t256=[90], t258=[12])), THREE_GREYS),
    (tiff(page(np.dstack([RGB, ALPHA]), t338=[2])), ON_WHITE),
    (tiff(page(deep(np.dstack([RGB, ALPHA])), t338=[2])), ON_WHITE),
    (tiff(page(associated(RGB), t338=[1])), ON_WHITE),
    (tiff(page(deep(associated(RGB)), t338=[1])), ON_WHITE),
    (tiff(page(np.dstack([GREY, ALPHA]), t338=[2])), np.floor(
        THREE_GREYS * (ALPHA[..., None] / 255.) + 255.5 - ALPHA[..., None])),
    # The fourth band is near infrared.
    (tiff(page(np.dstack([RGB, ALPHA]), t338=[0])), picture()),
    (tiff(page(deep(np.dstack([RGB, ALPHA])), t338=[0])), picture()),
    (tiff(page(np.dstack([RGB, ALPHA, ALPHA]), t338=[0, 0])), picture()),
    (tiff(planes(RGB)), picture()),
    # Smaller versions and masks are not pages of their own.
    (tiff(page(RGB), page(RGB[::2, ::2], t254=[1]), page(GREY, t254=[4])), picture()),
    (tiff(page(RGB, t274=[6])), picture().transpose(1, 0, 2)[:, ::-1])])
def test_tiff_is_read_by_its_tags(tmp_path, content, expected):
    path = str(tmp_path / 'a.tif')
    with open(path, 'wb') as file:
        file.write(content)
    image = load_image(path, expected.shape[1::-1])
    # Colours that are multiplied with alpha have been rounded before.
    assert np.abs(image - np.float32(expected)).max() <= 1
    assert examine(path)[:2] == (None, False)


@pytest.mark.parametrize('content, reason', [
    (tiff(page(RGB, t262=[])), 'its tags do not say what its colours are'),
    (tiff(page(GREY, t262=[3], t320=list(range(256)) * 3)), 'its palette is nearly bl'),
    (tiff(page(deep(RGB), t262=[1], t338=[0, 0])), 'it has 3 bands, but its tags name'),
    (tiff(page(np.dstack([RGB, ALPHA]), t262=[1], t338=[0, 0, 0])), 'it has 4 bands'),
    (tiff(page(GREY), page(GREY), page(GREY)), 'it has several pages'),
    (tiff(page(RGB[::2, ::2], t254=[1]), page(RGB)), 'it has several pages'),
    (tiff(page(GREY.astype(np.int16) * 8 - 1000)), 'its values are signed or floating'),
    (tiff(page(GREY.astype(np.int8))), 'its values are signed or floating'),
    (tiff(page(np.float32(RGB) / 255)), 'its values are signed or floating'),
    (tiff(page(GREY.astype(np.uint32))), 'its values have 32 bits'),
    (tiff(page(RGB, 34712)), 'Pillow cannot undo its compression .number 34712.'),
    (tiff(planes(deep(RGB))), 'it has 16 bits and the bands one after another'),
    (tiff(planes(RGB))[:9000], 'it is damaged'), (tiff(page(RGB))[:20], 'it is dam'),
    (tiff(page(RGB, t273=[9000])), 'it is damaged'),
    (tiff(page(RGB, t278=[50])), 'it is damaged')])
def test_tiff_that_could_come_out_wrong_is_refused(tmp_path, content, reason):
    """What training refuses, the check refuses with the same words."""
    path = str(tmp_path / 'a.tif')
    with open(path, 'wb') as file:
        file.write(content)
    with pytest.raises(InputError, match='a.tif: this TIFF cannot be read: ' + reason
                       ) as error:
        load_image(path)
    assert examine(path)[0] == str(error.value)


def test_damage_inside_a_compressed_tiff_is_found(tmp_path):
    content = lzw(RGB, str(tmp_path / 'a.tif'))
    assert (load_image(str(tmp_path / 'a.tif'), (90, 60)) == picture()).all()
    (tmp_path / 'a.tif').write_bytes(content[:4000] + bytes(999) + content[4999:])
    with pytest.raises(InputError, match='a.tif: .* it is damaged'):
        load_image(str(tmp_path / 'a.tif'))


def test_size_in_the_tags_of_a_tiff_counts(tmp_path):
    path = str(tmp_path / 'a.tif')
    with open(path, 'wb') as file:
        file.write(tiff(page(GREY, t256=[30000], t257=[30000])))
    with pytest.raises(InputError, match='30000 x 30000 pixels are more than'):
        load_image(path)


def test_tiff_whose_pages_go_in_a_circle_ends(tmp_path):
    content = tiff(page(RGB, t254=[0]), page(RGB, t254=[1]))
    start = struct.unpack('<I', content[4:8])[0]
    link = start + 2 + 12 * struct.unpack('<H', content[start:start + 2])[0]
    second = struct.unpack('<I', content[link:link + 4])[0]
    link = second + link - start
    content = content[:link] + struct.pack('<I', second) + content[link + 4:]
    (tmp_path / 'a.tif').write_bytes(content)
    assert (load_image(str(tmp_path / 'a.tif'), (90, 60)) == picture()).all()


@pytest.mark.parametrize('bits', [10, 12])
def test_avif_of_more_bits_is_scaled(tmp_path, bits):
    """OpenCV gives 4095 for white; the values of a dark one are right nevertheless."""
    shown = np.dstack([picture() // 8, ALPHA])
    path = str(tmp_path / 'a.avif')
    for pixels in (shown, shown[..., :3]):
        values = pixels.astype(np.uint16) << (bits - 8)
        cv2.imwrite(path, values, [cv2.IMWRITE_AVIF_QUALITY, 100,
                                   cv2.IMWRITE_AVIF_DEPTH, bits])
        assert cv2.imread(path, cv2.IMREAD_UNCHANGED).max() < 2 ** bits
        expected = np.float32(pixels[..., :3])
        if pixels is shown:
            expected = expected * (ALPHA[..., None] / 255.) + 255 - ALPHA[..., None]
        assert np.abs(load_image(path, (90, 60)) - expected).mean() < 3
        assert examine(path)[:2] == (None, False)


def lists(tmp_path, **texts):
    """Return generators of some lists."""
    found = []
    for name, text in sorted(texts.items()):
        (tmp_path / name).write_text(text)
        found.append(ImageDataGenerator(str(tmp_path / name), nb_classes=3))
    return found


def test_equal_pictures_are_warned_about(tmp_path, capsys):
    names, _ = colours(tmp_path, 4)
    (tmp_path / 'copy.png').write_bytes((tmp_path / '0.png').read_bytes())
    (tmp_path / 'link.png').symlink_to(tmp_path / '1.png')
    (tmp_path / 'bad1.png').write_bytes(b'no picture')
    (tmp_path / 'bad2.png').write_bytes(b'no picture')
    texts = {'a': 'bad1.png 0\n0.png 0\n1.png 1\n3.png 2\n3.png 2\n',
             'b': 'bad2.png 2\n2.png 1\ncopy.png 0\nlink.png 1\n1.png 2\n'}
    for _ in range(2):  # the second time, it is remembered what is in them
        check_pictures(lists(tmp_path, **texts), 'skip', Workers())
        a, b, at = str(tmp_path / 'a'), str(tmp_path / 'b'), str(tmp_path) + '/'
        assert capsys.readouterr().out.split('Continuing without them.\n')[1] == (
            'Warning: 3 pictures of %s are also in %s (equal content), so its accuracy '
            'is too optimistic; the first is %scopy.png (line 3), equal to %s0.png (%s,'
            ' line 2)\n'
            'Warning: 1 picture of %s is also listed with another label (equal '
            'content); the first is %s1.png (line 5), equal to %slink.png (%s, '
            'line 4)\n'
            % (b, a, at, at, a, b, at, at, b))


def test_missing_classes_are_warned_about():
    data = SimpleNamespace(class_list='a', labels=np.array([1, 1]),
                           kind=OneClass(range(4)))
    assert list_warnings([data], [np.zeros(2, np.int64)]) == [
        'a has no sample of classes 0, 2, 3 (labels count from 0)']
    data.kind = OneClass(['ant', 'bee', 'cow', 'dog'])
    data.labels = np.array([0, 1, 3])
    assert list_warnings([data], [np.zeros(3, np.int64)]) == [
        'a has no sample of class cow']


def test_lists_that_share_a_memory_add_to_it(tmp_path, monkeypatch):
    """Two folds of one list, say."""
    names, _ = colours(tmp_path, 6)
    path = write_list(tmp_path, ''.join(name + ' 0\n' for name in names))
    asked, examined = [], pictures.examine

    def note(picture):
        asked.append(os.path.basename(picture))
        return examined(picture)
    monkeypatch.setattr(pictures, 'examine', note)
    for left_out, expected in [([4, 5], names[:4]), ([0, 1], names[4:]),
                               ([4, 5], []), ([0, 1], [])]:
        data = ImageDataGenerator(path)
        data.drop(left_out)
        look_at(data)
        assert sorted(asked) == expected
        asked.clear()


def look_at(generator):
    verdicts, _, faults = find_bad_pictures(generator, Workers())
    return verdicts.tolist(), faults


def test_good_pictures_are_remembered_and_bad_ones_are_not(tmp_path, monkeypatch):
    names, _ = colours(tmp_path, 3)
    generator = ImageDataGenerator(write_list(tmp_path, ''.join(
        name + ' 0\n' for name in names)))
    asked = []

    def refuse(path):
        asked.append(path)
        return path.endswith('1.png') and 'no permission', path.endswith('2.png'), 7
    monkeypatch.setattr(pictures, 'examine', refuse)
    found = [0, BAD, DARK], {1: 'no permission'}
    for paths in (generator.paths, generator.paths[1:]):
        assert look_at(generator) == found
        assert sorted(asked) == paths
        asked.clear()
    monkeypatch.undo()
    assert look_at(generator) == ([0, 0, 0], {})
    monkeypatch.setattr(pictures, 'examine', refuse)
    assert look_at(generator) == ([0, 0, 0], {}) and not asked
    os.utime(generator.paths[1])
    assert look_at(generator) == ([0, BAD, 0], found[1])
    assert asked == [generator.paths[1]]
    for rubbish in ('', '[]', '{"state": "", "again": []}'):
        (tmp_path / '.list.txt.checked').write_text(rubbish)
        assert look_at(generator) == found
    assert '.list.txt.checked' in os.listdir(str(tmp_path))


def test_small_dark_and_damaged_pictures(tmp_path, capfd):
    """What libjpeg complains about is bad; nothing of it reaches the screen."""
    image = np.random.RandomState(0).randint(0, 256, (99, 99, 3)).astype(np.uint8)
    for side in (1, 5, 7):
        for ending in ('png', 'bmp'):
            cv2.imwrite('%s/%d.%s' % (tmp_path, side, ending), image[:side, :side])
    cv2.imwrite(str(tmp_path / 'dark.png'), image.astype(np.uint16) * 16)
    hot = image.astype(np.uint16) * 16
    hot[:2, :2] = 65535
    cv2.imwrite(str(tmp_path / 'hot.png'), hot)
    cv2.imwrite(str(tmp_path / 'bright.png'), image.astype(np.uint16) * 65)
    # OpenCV reads it as floats, but not in 8 bits, as load_image does.
    cv2.imwrite(str(tmp_path / 'float.tif'), np.float32(image / 255))
    cv2.imwrite(str(tmp_path / 'good.jpg'), image)
    data = (tmp_path / 'good.jpg').read_bytes()
    (tmp_path / 'damaged.jpg').write_bytes(data[:-2] + 40 * b'\0\x11' + data[-2:])
    (tmp_path / 'cut.jpg').write_bytes(data[:-999])
    names = sorted(os.listdir(str(tmp_path)))
    generator = ImageDataGenerator(write_list(tmp_path, ''.join(
        name + ' 0\n' for name in names)))
    verdicts, bad = look_at(generator)
    assert {names[sample] for sample in bad} == {'cut.jpg', 'damaged.jpg', 'float.tif'}
    assert 'damaged.jpg: Corrupt JPEG data: ' in bad[names.index('damaged.jpg')]
    assert [verdicts.count(verdict) for verdict in (BAD, DARK)] == [3, 2]
    assert {verdicts[names.index(name)] for name in ('dark.png', 'hot.png')} == {DARK}
    assert look_at(generator) == (verdicts, bad)
    assert 'JPEG' not in ''.join(capfd.readouterr())


def test_augment_that_draws_from_elsewhere_is_told(tmp_path):
    def check(augment):
        check_pictures([ImageDataGenerator(TRAIN, nb_classes=3, scale_size=(8, 8),
                                           augment=augment)], 'stop', Workers())
    rng = np.random.RandomState(0)
    check(lambda image, own: image * own.uniform(0.5, 1))
    with pytest.raises(InputError, match='result each time for .*01.jpg: draw'):
        check(lambda image, own: image * rng.uniform(0.5, 1))


def test_bad_pictures_are_refused_or_dropped_by_name(tmp_path, capsys):
    names, _ = colours(tmp_path, 4)
    (tmp_path / '2.png').write_bytes(b'no picture')
    path = write_list(tmp_path, ''.join(name + ' 0\n' for name in names))
    data = ImageDataGenerator(path)
    with pytest.raises(InputError) as error:
        check_pictures([data], 'stop', Workers())
    assert str(error.value).startswith(
        'Cannot read 1 picture:\n  %s, line 3: %s: not a picture'
        % (path, tmp_path / '2.png'))
    assert "choose on_bad_image = 'skip'" in str(error.value) and data.data_size == 4
    check_pictures([data], 'skip', Workers())
    assert data.data_size == 3 and list(data.line_numbers) == [1, 2, 4]
    assert capsys.readouterr().out.startswith('Cannot read 1 picture:\n')
    for name in names:
        (tmp_path / name).write_bytes(b'no picture')
    with pytest.raises(InputError, match='list.txt: no picture is left'):
        check_pictures([data], 'skip', Workers())


def test_many_bad_pictures_are_counted(tmp_path, capsys):
    names, _ = colours(tmp_path, 50)
    for name in names[1:]:
        (tmp_path / name).write_bytes(b'no picture')
    data = ImageDataGenerator(write_list(tmp_path, ' 0\n'.join(names + [''])))
    check_pictures([data], 'skip', Workers())
    told = capsys.readouterr().out
    assert told.count('not a picture') == 20 and '\n  and 29 more\n' in told


def save(path, image, **options):
    """Write a picture with Pillow; return its path as text."""
    image.save(str(path), **options)
    return str(path)


def test_predict_warns_of_nearly_black_pictures(tmp_path, capsys):
    for name, factor in [('dark', 16), ('good', 65)]:
        values = np.arange(10000, dtype=np.uint16).reshape(100, 100) % 256 * factor
        cv2.imwrite('%s/%s.png' % (tmp_path, name), values)
    paths = [str(tmp_path / name) for name in ('good.png', 'dark.png')]
    list(PlainPictures(paths, load_image, {}, False).batches(2))
    told = capsys.readouterr().err
    assert 'nearly black' in told and '1 picture. The first is ' + paths[1] in told


def test_transparency_is_turned_like_the_picture(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 12, 4)).astype(np.uint8)
    alpha = pixels[..., 3:] / 255
    expected = np.round(pixels[..., 2::-1] * alpha + 255 * (1 - alpha))
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter to the right
    image = Image.fromarray(pixels, 'RGBA')
    for name, options in [('a.png', {}), ('a.webp', {'lossless': True, 'exact': True})]:
        for width in (12, 3):  # a header of WebP has the width where PNG has the bits
            path = save(tmp_path / name, image.crop((0, 0, width, 8)), exif=exif,
                        **options)
            np.testing.assert_array_equal(decode_image(path),
                                          np.rot90(expected[:, :width], -1))


def test_transparent_level_of_a_png_becomes_white(tmp_path):
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    white = np.where(grey == 5, 255, grey)
    path = save(tmp_path / 'grey.png', Image.fromarray(grey), transparency=5)
    np.testing.assert_array_equal(decode_image(path), np.dstack([white] * 3))
    # The name of the chunk of pixels in a comment is no chunk of pixels.
    text = PngImagePlugin.PngInfo()
    text.add_text('note', 'IDAT')
    palette = Image.fromarray(grey).convert('P')
    path = save(tmp_path / 'text.png', palette, transparency=5, pnginfo=text)
    np.testing.assert_array_equal(decode_image(path), np.dstack([white] * 3))
    path = save(tmp_path / 'deep.png', Image.fromarray(grey.astype(np.uint16) * 257))
    content, chunk = (tmp_path / 'deep.png').read_bytes(), b'tRNS' + 2 * b'\5'
    (tmp_path / 'deep.png').write_bytes(b''.join([  # behind the header
        content[:33], struct.pack('>I', 2), chunk, struct.pack('>I', zlib.crc32(chunk)),
        content[33:]]))
    with pytest.raises(InputError, match='deep.png: this PNG has 16 bits and names a'):
        decode_image(path)


def test_threads_share_the_memory_for_decoding(tmp_path, monkeypatch):
    path = save(tmp_path / 'a.png', Image.new('RGB', (100, 100)))
    at_once, most = [], []

    def decode(*arguments):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return np.zeros((100, 100, 3), np.uint8)
    monkeypatch.setattr(pictures, 'decode_bytes', decode)
    for size, expected in [(2 * 160000, 2), (160001, 1), (1000, 1)]:
        monkeypatch.setattr(pictures, 'MEMORY', MemoryBudget(size))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(decode_image, [path] * 8))
        assert max(most) == expected
        most.clear()
