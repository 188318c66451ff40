"""The export: its signatures, and that it sees pictures as predict.py does."""
import io
import json
import os
import shutil
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from datagenerator import IMAGE_SIZE, REDUCING_GAP, load_image
from helpers import NAMES, ROOT, files, images_of, run_program
from machinery import export, picture_header
from machinery.picture_header import inspect
from machinery.picture_ops import preprocess, stretch
from machinery.tf1 import tf

pytestmark = pytest.mark.usefixtures('narrow_network')
CAT = os.path.join(ROOT, 'images', 'cat.jpg')


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def predict(*arguments):
    return run_program('predict.py', *arguments)


def contents_of(paths):
    """Return the bytes of files."""
    contents = []
    for path in paths:
        with open(path, 'rb') as file:
            contents.append(file.read())
    return contents


@pytest.fixture(scope='module')
def served(trained, module_path):
    """A folder with a SavedModel of it."""
    folder = str(module_path / 'served' / '1')
    status, output = predict('--export_path=' + folder, '--checkpoint=' + trained[0])
    assert status == 0 and 'Warning' not in output, output
    return folder


@pytest.fixture(scope='module')
def classify(served):
    """Return a function from files' contents to what serving_default gives for them."""
    with tf.Graph().as_default() as graph:
        session = tf.Session(graph=graph)
        signature = tf.saved_model.load(session, ['serve'], served).signature_def[
            'serving_default']
    outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
    yield lambda contents: session.run(
        outputs, {signature.inputs['pictures'].name: contents})
    session.close()


def test_exported_model_classifies_the_bytes_of_pictures(classify, expected):
    paths, _, probabilities, _ = expected
    found = classify(contents_of(paths))
    assert set(found) == {'probabilities', 'class_ids', 'names'}
    assert (found['class_ids'] == probabilities.argsort(1)[:, ::-1]).all()
    np.testing.assert_allclose(found['probabilities'],
                               np.sort(probabilities)[:, ::-1], atol=1e-5)
    assert (found['names'] == np.array(NAMES, 'S')[found['class_ids']]).all()
    for values in classify([]).values():
        assert values.shape == (0, 3)


def test_signature_for_images_is_the_network_alone(served, expected):
    """Other libraries know no strings, and the network draws no random numbers."""
    paths, _, probabilities, _ = expected
    with tf.Graph().as_default() as graph, tf.Session() as session:
        signature = tf.saved_model.load(session, ['serve'], served).signature_def[
            'images']
        assert list(signature.outputs) == ['probabilities']
        found = session.run(signature.outputs['probabilities'].name,
                            {signature.inputs['images'].name: images_of(paths)})
        fed = graph.get_tensor_by_name(signature.inputs['images'].name)
        used = [graph.get_tensor_by_name(signature.outputs['probabilities'].name).op]
        for operation in used:
            used += [tensor.op for tensor in operation.inputs
                     if tensor is not fed and tensor.op not in used]
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert {operation.type for operation in used} <= {
        'Softmax', 'MatMul', 'BiasAdd', 'Relu', 'Reshape', 'MaxPool', 'Conv2D', 'LRN',
        'Split', 'ConcatV2', 'Const', 'ReadVariableOp', 'VarHandleOp', 'Identity'}
    with open(served + '/labels.txt', encoding='utf-8') as file:
        assert file.read().splitlines() == NAMES


def photograph():
    """Return gradients with noise, RGB (40, 60, 3)."""
    y, x = np.mgrid[:40, :60]
    gradients = np.dstack([4 * x, 6 * y, 2 * (x + y)])
    noise = np.random.RandomState(0).normal(0, 20, gradients.shape)
    return np.uint8(np.clip(gradients + noise, 0, 255))


PHOTO = photograph()


def encode(kind, mode='RGB', **options):
    """Return the bytes of a file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = encode('jpeg'), encode('png')


def tiff(*entries, order='<', count=None, start=8):
    """Return EXIF with these entries (tag, type, count, value of 4 bytes) in IFD0."""
    content = struct.pack(order + '2sHI', b'II' if order == '<' else b'MM', 42, start)
    content += bytes(start - 8)
    content += struct.pack(order + 'H', len(entries) if count is None else count)
    for entry in entries:
        content += struct.pack(order + 'HHI4s', *entry)
    return content + bytes(4)


def turned(value, order='<', kind=3, count=1):
    """Return such an entry for an orientation."""
    return 0x112, kind, count, struct.pack(order + 'HH', value, 0)


def segment(content, marker=0xe1, start=b'Exif\0\0'):
    """Return a segment of a JPEG."""
    return struct.pack('>BBH', 255, marker, len(start + content) + 2) + start + content


def jpeg(*segments):
    return JPEG[:2] + b''.join(segments) + JPEG[2:]


def chunk(name, content):
    """Return a chunk of a PNG."""
    return (struct.pack('>I', len(content)) + name + content +
            struct.pack('>I', zlib.crc32(name + content) & 0xffffffff))


def png(*chunks, content=PNG, place=33):
    """Return a PNG with chunks more, by default behind its header."""
    return content[:place] + b''.join(chunks) + content[place:]


def raw_png(kind, bits, *chunks, interlaced=False):
    """Return a PNG of 24 x 10 random pixels, of any kind and number of bits."""
    rng, pixels = np.random.RandomState(0), b''
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2),
              (0, 2, 1, 2), (1, 2, 0, 1)] if interlaced else [(0, 1, 0, 1)]
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    for top, down, left, right in passes:  # PNG, third edition, section 8
        width = len(range(left, 24, right)) * bits * channels
        for _ in range(top, 10, down):
            pixels += b'\0' + rng.bytes((width + 7) // 8)
    return b''.join([
        PNG[:8], chunk(b'IHDR', struct.pack('>IIBBBBB', 24, 10, bits, kind, 0, 0,
                                            interlaced)),
        *chunks, chunk(b'IDAT', zlib.compress(pixels)), chunk(b'IEND', b'')])


def palette(bits):
    return chunk(b'PLTE', np.random.RandomState(1).bytes(3 * 2 ** bits))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
TEXT = b'Raw profile type exif\0\nexif\n      32\n' + (
    b'Exif\0\0' + tiff(turned(6))).hex().encode() + b'\n'
ALPHA = encode('png', 'RGBA')
TAKEN = {
    'grey': encode('jpeg', 'L'), 'progressive': encode('jpeg', progressive=True),
    'optimized': encode('jpeg', optimize=True), 'trailing bytes': JPEG + b'rest',
    'restarts': cv2.imencode('.jpg', PHOTO, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
                             )[1].tobytes(),
    '4:4:4': encode('jpeg', subsampling=0), '4:2:2': encode('jpeg', subsampling=1),
    '4:2:0': encode('jpeg', subsampling=2),
    'interlaced': raw_png(2, 8, interlaced=True),
    'interlaced bits': raw_png(0, 1, chunk(b'tRNS', b'\0\1'), interlaced=True),
    'transparent colour': encode('png', transparency=tuple(map(int, PHOTO[5, 5]))),
    'RGB alpha': ALPHA, 'text': png(chunk(b'tEXt', TEXT)),
    'text, alpha': png(chunk(b'tEXt', TEXT), content=ALPHA),
    'XMP': png(chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP)),
    'XMP, alpha': png(chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP),
                      content=ALPHA),
    'EXIF behind pixels': png(chunk(b'eXIf', tiff(turned(6))), place=-12),
    'EXIF behind pixels, alpha': png(chunk(b'eXIf', tiff(turned(6))), content=ALPHA,
                                     place=-12),
    'thumbnail turned': jpeg(segment(tiff((256, 3, 1, bytes(4)))[:-4] +
                                     struct.pack('<I', 26) + tiff(turned(6))[8:])),
    'far behind': jpeg(segment(bytes(60000), 0xfe), segment(bytes(9000), 0xfe),
                       segment(tiff(turned(6)))),
    'XMP before EXIF': jpeg(segment(XMP, start=b'http://ns.adobe.com/xap/1.0/\0'),
                            segment(tiff(turned(6)))),
    'fill bytes': jpeg(b'\xff\xff', segment(tiff(turned(6)))),
    'EXIF without it, and with it': jpeg(segment(tiff()), segment(tiff(turned(6))),
                                         segment(tiff(turned(8)))),
    'first no TIFF': jpeg(segment(b'XX' + tiff(turned(8))[2:]),
                          segment(tiff(turned(6)))),
    'far within': jpeg(segment(tiff(turned(6), start=50))),
    'value 0': jpeg(segment(tiff(turned(0))), segment(tiff(turned(6)))),
    'value 9': jpeg(segment(tiff(turned(9)))),
    'after a text': jpeg(segment(tiff((0x10f, 2, 9, struct.pack('<I', 8)), turned(6)))),
    'end of file': JPEG + segment(tiff(turned(6)))}
for place in range(1, 9):
    for order in '<>':
        exif = tiff(turned(place, order), order=order)
        TAKEN['JPEG %d%s' % (place, order)] = jpeg(segment(exif))
        TAKEN['PNG %d%s' % (place, order)] = png(chunk(b'eXIf', exif))
    TAKEN['alpha %d' % place] = png(chunk(b'eXIf', exif), content=ALPHA)
for depth in (1, 2, 4, 8, 16):
    TAKEN['grey %d' % depth] = raw_png(0, depth)
    if depth < 16:
        TAKEN['grey %d, level' % depth] = raw_png(0, depth, chunk(b'tRNS', b'\0\1'))
        TAKEN['palette %d' % depth] = raw_png(3, depth, palette(depth))
        TAKEN['palette %d, levels' % depth] = raw_png(3, depth, palette(depth),
                                                      chunk(b'tRNS', b'\0\x90'))
for depth in (8, 16):
    for color in (2, 4, 6):
        TAKEN['kind %d of %d' % (color, depth)] = raw_png(color, depth)


@pytest.fixture(scope='module')
def exported():
    """Return a function from a picture's bytes, and a margin, to the export's image."""
    with tf.Graph().as_default() as graph:
        data = tf.placeholder(tf.string, [None])
        images = {margin: preprocess(data, inspect(data), IMAGE_SIZE, margin,
                                     REDUCING_GAP) for margin in (0, 29)}
    session = tf.Session(graph=graph)
    yield lambda content, margin: session.run(images[margin], {data: [content]})[0]
    session.close()


@pytest.mark.parametrize('name', TAKEN)
def test_exported_model_sees_a_picture_as_load_image_does(exported, name):
    with open('picture', 'wb') as file:
        file.write(TAKEN[name])
    for margin in (0, 29):
        np.testing.assert_array_equal(exported(TAKEN[name], margin),
                                      load_image('picture', margin=margin))


def changed(content, mark, distance, value):
    """Return content with other bytes at some distance behind a mark."""
    place = content.index(mark) + distance
    return content[:place] + value + content[place + len(value):]


EXIF, FRAME = 'its EXIF is damaged', b'\xff\xc0\0\x11'
LEVEL = chunk(b'tRNS', b'\0\1')
HEADER = 'its header is damaged or cut off'
REFUSED = [
    (b'', 'empty'), (b'no picture', 'not a picture'), (b'B', 'not a picture'),
    (encode('gif'), 'GIF: send JPEG or PNG'), (encode('bmp'), 'BMP: send JPEG or PNG'),
    (encode('webp'), 'WebP: send JPEG or PNG'),
    (encode('tiff'), 'TIFF: send JPEG or PNG'),
    (b'\0\0\0\x18ftypheic', 'HEIC or AVIF: send JPEG or PNG'),
    (encode('jpeg', 'CMYK'), 'CMYK JPEG: convert it to RGB'),
    (changed(JPEG, FRAME, 9, b'\2'), 'JPEG of neither 1 nor 3 channels: convert it to '
                                     'RGB'),
    (changed(JPEG, FRAME, 4, b'\x0c'), 'JPEG with more than 8 bits: send 8'),
    (changed(JPEG, FRAME, 1, b'\xc3'), 'lossless or arithmetic JPEG: send a usual one'),
    (changed(JPEG, FRAME, 5, 4 * b'\xff'), '65535 x 65535 pixels are more than 100 '
                                           'million'),
    (changed(JPEG, FRAME, 5, 2 * b'\0'), HEADER), (JPEG[:300], HEADER),
    (JPEG[:2] + b'\xff', HEADER), (JPEG[:2] + 2000 * b'\xff' + JPEG[2:], HEADER),
    (JPEG[:-1], 'cut off'), (JPEG[:-100], 'cut off'), (PNG[:-1], 'cut off'),
    (PNG[:-100], 'cut off'), (PNG[:40], 'cut off'), (PNG[:20], HEADER),
    (changed(PNG, b'IHDR', 4, 4 * b'\0'), HEADER),
    (changed(PNG, b'IHDR', 4, b'\0\1\0\0\0\0\x27\x10'), '65536 x 10000 pixels are more '
                                                       'than 100 million'),
    (png(chunk(b'acTL', bytes(8))), 'animated PNG: send a single picture'),
    (raw_png(0, 16, LEVEL), 'PNG of 16 bits that names a value that is transparent: '
                            'save it with an alpha channel'),
    (raw_png(2, 8, LEVEL), 'PNG whose chunk tRNS is damaged'),
    (raw_png(0, 1, chunk(b'tRNS', b'\0\2')), 'PNG whose chunk tRNS is damaged'),
    (raw_png(3, 1, palette(1), chunk(b'tRNS', b'abc')),
     'PNG whose chunk tRNS is damaged'),
    (png(chunk(b'eXIf', tiff(turned(6))), chunk(b'eXIf', tiff(turned(6)))),
     'PNG with more than one chunk eXIf'),
    (png(chunk(b'eXIf', b'Exif\0\0' + tiff(turned(6)))), EXIF),
    (jpeg(segment(tiff(turned(6, kind=4)))), EXIF),
    (png(chunk(b'eXIf', tiff(turned(6, count=2)))), EXIF),
    (jpeg(segment(tiff(turned(6), turned(1)))), EXIF),
    (jpeg(segment(tiff(turned(6), count=2))), EXIF),
    (jpeg(segment(tiff((0x10f, 2, 9, struct.pack('<I', 30)), turned(6)))), EXIF)]


def test_every_picture_that_is_refused_is_named(exported, classify):
    """Good pictures stand between them."""
    contents = [content for bad, _ in REFUSED for content in (PNG, bad)]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        classify(contents)
    message = '; '.join('pictures[%d]: %s' % (2 * position + 1, fault)
                        for position, (_, fault) in enumerate(REFUSED))
    assert '[%s]' % message in error.value.message
    for content, fault in REFUSED:
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            exported(content, 0)
        assert '[pictures[0]: %s]' % fault in error.value.message


def test_limits_are_the_largest_that_are_taken(monkeypatch):
    monkeypatch.setattr(picture_header, 'MAX_CHUNKS', 5)
    contents = [changed(png(*chunks), b'IHDR', 4, struct.pack('>II', 10000, height))
                for chunks, height in [((), 10000), ((), 10001),
                                       (5 * [chunk(b'teXt', b'')], 1)]]
    with tf.Session() as session:
        faults = session.run(inspect(tf.constant(contents))[0])
    assert faults.tolist() == [
        b'', b'10000 x 10001 pixels are more than 100 million',
        b'PNG of more than 5 chunks']


def test_requests_do_not_disturb_each_other(classify):
    """Good, bad and empty ones from many threads get what each gets alone."""
    def answer(contents):
        try:
            found = classify(contents)
        except tf.errors.InvalidArgumentError as error:
            return error.message
        return found['names'].tolist(), found['probabilities'].round(4).tolist()
    cut = PNG[:60] + bytes(50) + PNG[110:]  # which only the decoder finds
    requests = [[JPEG, ALPHA], [b''], [], [cut], [TAKEN['JPEG 6<']],
                [PNG, b'', encode('gif')], [JPEG, cut], [encode('jpeg', 'CMYK')]]
    alone = [answer(request) for request in requests]
    assert [type(found) for found in alone] == [
        tuple, str, tuple, str, tuple, str, str, str]
    assert len({str(found) for found in alone}) == len(alone) - 1  # both cut
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, 25 * requests)) == 25 * alone


@pytest.mark.parametrize('height, width', [
    (1, 5), (100, 130), (227, 227), (333, 500), (454, 454), (1201, 900)])
def test_resize_is_that_of_opencv(height, width):
    image = np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
    for size in [(227, 227), (300, 200)]:
        with tf.Session() as session:
            found = session.run(stretch(image, size))
        np.testing.assert_array_equal(found, cv2.resize(image, size))


def test_export_that_sees_pictures_in_another_way_is_refused(trained, monkeypatch):
    preprocess = export.preprocess
    monkeypatch.setattr(export, 'preprocess', lambda *data, **how: preprocess(
        *data, **how)[:, :, ::-1])
    status, output = predict('--export_path=served', '--checkpoint=' + trained[0])
    assert status == 2 and 'val_01.jpg: the export would give other pred' in output
    assert not [name for name in os.listdir('.') if name.startswith('served')]


def test_export_that_fails_is_not_taken_for_pictures_that_are_refused(trained,
                                                                      monkeypatch):
    preprocess = export.preprocess
    monkeypatch.setattr(export, 'preprocess', lambda *data, **how: tf.reshape(
        preprocess(*data, **how), [2, 227, 227, 3]))
    with pytest.raises(tf.errors.InvalidArgumentError, match='reshape'):
        predict('--export_path=served', '--checkpoint=' + trained[0])


@pytest.mark.parametrize('lines, told', [
    (None, ['the export was not compared with predict.py, since it can read no picture '
            'of the validation list']),
    (['gone.jpg', CAT, 'a.bmp', 'b.bmp'], [
        'of 3 pictures of the validation list that were tried, the export refuses 2; '
        'the first is a.bmp: BMP: send JPEG or PNG'])])
def test_export_says_what_it_has_not_compared(trained, lines, told):
    for name in ('a.bmp', 'b.bmp'):
        cv2.imwrite(name, PHOTO)
    if lines:
        with open('val.txt', 'w') as file:
            file.write(''.join(line + ' 0\n' for line in lines))
    shutil.copytree(trained[0], 'copy')
    with open('copy/model.json') as file:
        model = json.load(file)
    assert os.path.isabs(model['val_list'])
    with open('copy/model.json', 'w') as file:
        json.dump(dict(model, val_list=os.path.abspath('val.txt')), file)
    status, output = predict('--export_path=served', '--checkpoint=copy')
    warnings = [line.replace(os.getcwd() + '/', '').replace('Warning: ', '')
                for line in output.splitlines() if line.startswith('Warning: ')]
    assert status == 0 and warnings == told, output


def test_export_writes_a_new_folder_and_nothing_else(trained, served):
    assert os.listdir(os.path.dirname(served)) == ['1']
    assert 'saved_model.pb' in files(served)
    status, output = predict('--export_path=' + served, '--checkpoint=' + trained[0])
    assert not os.path.exists('predictions')
    assert status == 2 and 'export_path' in output
    assert 'None or a folder that does not exist yet' in output
