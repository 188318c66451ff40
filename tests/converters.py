"""Run each snippet of docs/export.md in its library, and print the table there:

    python tests/converters.py /tmp/converters [--old python3.7]

Makes virtual environments with the versions below, trains the sample, exports it, and
compares each library with predict.py on 50 pictures. All of it stays in the folder, and
what is there already is not made again. With --time, it only compares and measures.
"""
import argparse
import base64
import contextlib
import glob
import http.server
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
NEEDED = ['tensorboard', 'pillow', 'imagesize', 'tqdm', 'matplotlib']  # by the scripts
ENVIRONMENTS = {
    'new': ['tensorflow==2.21.0', 'keras==3.15.1', 'numpy==2.4.6', 'protobuf==7.36.2',
            'opencv-python==5.0.0.93', 'ai-edge-litert==2.3.0', 'tf2onnx==1.17.0',
            'onnxruntime==1.32.0', 'openvino==2026.4.1'] + NEEDED,
    'opencv5': ['opencv-python==5.0.0.93', 'numpy==2.4.6'],
    'opencv4': ['opencv-python==4.14.0.94', 'numpy==2.4.6'],
    'coreml': ['coremltools==9.0', 'tensorflow==2.21.0', 'numpy==2.4.6'],
    'old': ['tensorflow==1.15.5', 'protobuf<3.21', 'opencv-python>=4.12'] + NEEDED}
# Title of the section, environment, what the table calls it, file, and what to replace.
INT8 = 'model.tflite', 'model.int8.tflite'
HINT = ", {'INFERENCE_PRECISION_HINT': 'f32'}", ''
ROWS = [
    ('TensorFlow', 'new', 'TensorFlow 2.21.0', 'served/1', ()),
    ('TensorFlow', 'new', 'TensorFlow 2.21.0, export by 1.15.5', 'served_old/1',
     ('served/1', 'served_old/1')),
    ('Keras', 'new', 'Keras 3.15.1', 'served/1', ()),
    ('LiteRT', 'new', 'LiteRT 2.3.0', 'model.tflite', ()),
    ('LiteRT', 'new', 'LiteRT 2.3.0, int8', 'model.int8.tflite', INT8),
    ('ONNX Runtime', 'new', 'ONNX Runtime 1.32.0', 'model.onnx', ()),
    ('OpenCV', 'opencv5', 'OpenCV 5.0.0.93', 'model.onnx', ()),
    ('OpenCV', 'opencv4', 'OpenCV 4.14.0.94', 'model.onnx', ()),
    ('OpenVINO', 'new', 'OpenVINO 2026.4.1', 'model.bin', ()),
    ('OpenVINO', 'new', 'OpenVINO 2026.4.1 without the hint', 'model.bin', HINT)]
CONVERTERS = {
    'model.tflite': '`tf.lite.TFLiteConverter`',
    'model.int8.tflite': '`tf.lite.TFLiteConverter`',
    'model.onnx': '`tf2onnx.convert` 1.17.0', 'model.bin': '`ov.convert_model`'}
CONVERSIONS = [  # section, environment, what it writes
    ('LiteRT', 'new', 'model.tflite'), ('LiteRT with int8', 'new', 'model.int8.tflite'),
    ('ONNX Runtime', 'new', 'model.onnx'), ('OpenVINO', 'new', 'model.bin'),
    ('Core ML', 'coreml', 'model.mlpackage')]


def read_blocks(title):
    """Return [(language, code)] of a section of docs/export.md."""
    with open(os.path.join(ROOT, 'docs', 'export.md'), encoding='utf-8') as file:
        sections = dict(section.split('\n', 1)
                        for section in file.read().split('\n## ')[1:])
    return re.findall('```(python|bash)\n(.*?)```', sections[title], re.S)


def predicts(code):
    """Tell a block that predicts from one that converts."""
    return code.rstrip().rsplit('\n', 1)[-1].startswith('print(')


def convert(title):
    """Run what converts in a section, in the current folder."""
    for language, code in read_blocks(title):
        if language == 'bash':
            subprocess.check_call(['bash', '-ec', code])
        elif not predicts(code):
            exec(code, {})


class Snippet:
    """A block that predicts, in its three parts.

    replaced: pairs of text in it, and what stands there instead.
    """

    def __init__(self, title, replaced=()):
        [code] = [code for _, code in read_blocks(title) if predicts(code)]
        for old, new in zip(replaced[::2], replaced[1::2]):
            assert old in code, old
            code = code.replace(old, new)
        start, self.prepare, self.predict = re.match(
            r'(.*?\n)(image = .*\nimages = .*?\n)(.*)print\(', code, re.S).groups()
        self.names = {}
        exec(start, self.names)
        self.predict = compile(self.predict, title, 'exec')

    def prepared(self, paths):
        """Return the images (n, 227, 227, 3) that it makes of picture files."""
        images = []
        for path in paths:
            exec(self.prepare.replace('photo.jpg', path), self.names)
            images.extend(self.names['images'])
        return self.names['np'].stack(images)

    def __call__(self, images):
        """Return the probabilities (n, classes) of images."""
        self.names['images'] = images
        exec(self.predict, self.names)
        return self.names['probabilities']


def compare(title, *replaced):
    """Return how much each probability differs, (pictures, classes).

    Also whether each class is the same, (pictures,), the snippet, and its images.
    pictures.json in the current folder has the paths, expected.npy the probabilities.
    """
    import numpy as np
    snippet = Snippet(title, replaced)
    with open('pictures.json') as file:
        images = snippet.prepared(json.load(file))
    found, expected = snippet(images), np.load('expected.npy')
    is_same = found.argmax(1) == expected.argmax(1)
    return abs(found - expected), is_same, snippet, images


def measure(title, *replaced):
    """Print what one library gives on two cores, as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    differences, is_same, snippet, images = compare(title, *replaced)

    def seconds(part, rounds):
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            snippet(part)
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    print('\n' + json.dumps({
        'difference': float(differences.max()), 'same': int(is_same.sum()),
        'speed': 32 / seconds(images[:32], 5), 'latency': seconds(images[:1], 20)}))


@contextlib.contextmanager
def stand_in(classify):
    """Answer as TensorFlow Serving does to one request; yield the port.

    classify: function from a list of files' bytes to {output: list}.
    """
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == '/v1/models/alexnet:predict'
            asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
            answer = json.dumps({'outputs': classify([
                base64.b64decode(picture['b64'])
                for picture in asked['inputs']['pictures']])}, default=bytes.decode)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        yield str(server.server_port)
        thread.join()


def compare_bytes():
    """Return how much serving_default differs, asked here and over a connection."""
    import numpy as np
    [(_, code)] = read_blocks('TensorFlow, from the bytes of a file')
    here, there = {}, {}
    exec(code, here)

    def classify(contents):
        found = here['network'](pictures=here['tf'].constant(contents))
        return {name: values.numpy().tolist() for name, values in found.items()}

    [(_, code)] = read_blocks('TensorFlow Serving')
    with stand_in(classify) as port:
        exec(code.replace('8501', port), there)
    for name, values in here['found'].items():
        assert there['found'][name] == values.numpy().astype(
            'U' if name == 'names' else values.dtype.name).tolist(), name
    with open('pictures.json') as file:
        found = classify([open(path, 'rb').read() for path in json.load(file)])
    return abs(found['probabilities'] - np.sort(np.load('expected.npy'))[:, ::-1])


def measure_bytes():
    """Print the largest difference of serving_default, as compare_bytes has them."""
    differences = compare_bytes()
    print('\n%.1e' % differences.max())


def write_expected():
    """Write what predict.py gives for 50 pictures; print how large photographs differ.

    By levels of the image: the sample's network is certain of such photographs, so its
    probabilities would say nothing.
    """
    sys.path.insert(0, ROOT)
    import cv2
    import numpy as np
    from benchmark import make_photos
    from datagenerator import load_image
    from predict import Classifier
    paths = sample('val')[:50]
    with open('pictures.json', 'w') as file:
        json.dump(paths, file)
    with Classifier('checkpoints') as classify:
        np.save('expected.npy', classify.run(paths)[0])
    os.makedirs('large', exist_ok=True)
    make_photos('large', 8)
    levels = [abs(np.float32(cv2.resize(cv2.imread(path), (227, 227))) -
                  load_image(path)).mean() for path in glob.glob('large/*.jpg')]
    print('mean difference of large photographs: %.1f levels' % np.mean(levels))


def sample(name):
    """Return the paths of the pictures of train or val."""
    with open(os.path.join(ROOT, 'images', name + '.txt')) as file:
        return [os.path.join(ROOT, 'images', line.rsplit(' ', 1)[0]) for line in file]


def prepare_folder(old):
    """Make environments, a run, its exports, and what the snippets convert.

    old: the name of a Python 3.7, or None.
    """
    for name, packages in ENVIRONMENTS.items():
        if (name != 'old' or old) and not os.path.exists(name + '/done'):
            python = old if name == 'old' else sys.executable
            subprocess.check_call([python, '-m', 'venv', '--clear', name])
            subprocess.check_call([name + '/bin/pip', 'install', '-q'] + packages)
            open(name + '/done', 'w').close()
    shutil.copy(sample('val')[0], 'photo.jpg')
    os.makedirs('photos', exist_ok=True)
    for number, path in enumerate(sample('train')):
        shutil.copy(path, 'photos/%d.jpg' % number)
    if not os.path.exists('checkpoints'):
        run('new', os.path.join(ROOT, 'finetune.py'), '--weights_path=None',
            '--num_epochs=3', '--checkpoint_path=checkpoints', '--filewriter_path=log',
            '--features_path=None')
    for name, folder in [('new', 'served/1'), ('old', 'served_old/1')]:
        if os.path.exists(name) and not os.path.exists(folder):
            run(name, os.path.join(ROOT, 'predict.py'), '--checkpoint=checkpoints',
                '--export_path=' + folder)
    print(run('new', __file__, 'expected'))
    for title, name, path in CONVERSIONS:
        if not os.path.exists(path):
            run(name, __file__, 'convert', title)


def run(name, *arguments):
    """Run a script in an environment; return the last line that it prints."""
    env = dict(os.environ, PATH=os.path.abspath(name + '/bin:') + os.environ['PATH'])
    output = subprocess.run([os.path.abspath(name + '/bin/python')] + list(arguments),
                            check=True, stdout=subprocess.PIPE, env=env).stdout.decode()
    return output.rstrip().rsplit('\n', 1)[-1]


def size_of(path):
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(map(os.path.getsize, filter(os.path.isfile, [path] + glob.glob(
        path + '/**', recursive=True))))


def main():
    """Prepare the folder, and print a row for each library."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder')
    parser.add_argument('--old', help='a Python 3.7, to export with TensorFlow 1.15.5')
    parser.add_argument('--time', action='store_true', help='only compare and measure')
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    os.chdir(args.folder)
    if not args.time:
        prepare_folder(args.old)
    print('serving_default differs by %s' % run(
        'new', __file__, 'bytes'))
    print('| library | converted by | difference | same class | file | images/s '
          '| one picture |\n| --- | --- | --- | --- | --- | --- | --- |')
    for title, name, shown, path, replaced in ROWS:
        if os.path.exists(path):
            found = json.loads(run(name, __file__, 'measure', title, *replaced))
            print('| %s | %s | %.1e | %d | %.0f MB | %.0f | %.0f ms |' % (
                shown, CONVERTERS.get(path, ''), found['difference'], found['same'],
                size_of(path) / 1e6, found['speed'], 1e3 * found['latency']),
                flush=True)


if __name__ == '__main__':
    inner = {'convert': convert, 'measure': measure, 'bytes': measure_bytes,
             'expected': write_expected}
    if sys.argv[1:2] and sys.argv[1] in inner:  # in an environment
        inner[sys.argv[1]](*sys.argv[2:])
    else:
        main()
