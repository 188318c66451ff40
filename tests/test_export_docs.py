"""The snippets of docs/export.md that need nothing but TensorFlow and OpenCV.

tests/converters.py runs the others, in their libraries.
"""
import itertools
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from converters import read_blocks, sample
from datagenerator import load_image
from helpers import ROOT, run_program, unless_old
from predict import Classifier

COMPARE = ['''
import converters
import tensorflow as tf
# The same class has both names.
sys.modules['ai_edge_litert.interpreter'] = tf.lite
for title in 'LiteRT', 'LiteRT with int8':
    converters.convert(title)
found = {'LiteRT': converters.compare('LiteRT')[0], 'int8': converters.compare(
    'LiteRT', 'model.tflite', 'model.int8.tflite')[0]}
''', '''
import converters
found = {title: converters.compare(title)[0] for title in ('TensorFlow', 'Keras')}
found['bytes'] = converters.compare_bytes()
''']
PRINT = '''
print(json.dumps({name: float(values.max()) for name, values in found.items()}))
'''


@pytest.fixture(scope='module')
def prepare():
    """The function prepare of the page."""
    [(_, code)] = read_blocks('The same image as predict.py')
    found = {}
    exec(code.split('\nsettings')[0], found)
    return found['prepare']


@unless_old
@pytest.mark.usefixtures('narrow_network')
def test_snippets_give_what_predict_does(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    checkpoint = trained[0]
    status, output = run_program(os.path.join(ROOT, 'predict.py'),
                                 '--checkpoint=' + checkpoint, '--export_path=served/1')
    assert status == 0, output
    paths = sample('val')[::6]
    with Classifier(checkpoint) as classify:
        np.save('expected.npy', classify.run(paths)[0])
    with open('pictures.json', 'w') as file:
        json.dump(paths, file)
    shutil.copy(paths[0], 'photo.jpg')
    os.mkdir('photos')
    for number, path in enumerate(sample('train')[::5]):
        shutil.copy(path, 'photos/%d.jpg' % number)
    programs = [subprocess.Popen(  # side by side, as each takes 20 s
        [sys.executable, '-c', 'import json, sys\n' + code + PRINT],
        stdout=subprocess.PIPE) for code in COMPARE]
    found = {}
    outputs = [program.communicate()[0].decode() for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    for output in outputs:
        found.update(json.loads(output.rstrip().rsplit('\n', 1)[-1]))
    assert set(found) == {'LiteRT', 'int8', 'TensorFlow', 'Keras', 'bytes'}
    assert found.pop('int8') < 0.1 and max(found.values()) < 2e-5, found


@pytest.mark.parametrize('sides', [(300, 200), (40, 90), (1830, 1000), (3640, 3700)])
def test_prepare_gives_what_load_image_does(prepare, tmp_path, sides):
    cat = cv2.imread(os.path.join(ROOT, 'images', 'cat.jpg'))
    image, path = cv2.resize(cat, sides), str(tmp_path / 'a.jpg')
    cv2.imwrite(path, image)
    for resize, margin, gap in itertools.product(
            ['squash', 'crop', 'pad'], [0, 29], [2., None]):
        settings = {'size': (227, 227), 'margin': margin, 'reducing_gap': gap,
                    'resize': resize}
        assert (prepare(path, **settings) == load_image(path, **settings)).all()


def test_prepare_makes_transparency_white(prepare, tmp_path):
    cat = cv2.imread(os.path.join(ROOT, 'images', 'cat.jpg'))
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.dstack([cat, cat[:, :, :1]]))
    settings = {'size': (227, 227), 'margin': 0, 'reducing_gap': 2., 'resize': 'squash'}
    assert (prepare(path, **settings) == load_image(path, **settings)).all()
