"""Time one fine-tuning job in several ways: python tests/benchmark.py --help

With --workers 2 instead: what the reduction of gradients among so many workers on this
machine moves and takes, for three choices of layers. With --host: what Python costs in
a step. With --photos 300: what an epoch of large photographs takes. See their help.

Each way is a process of its own, starts from the same weights, and trains fc7 and fc8
on the same pictures, with and without mirroring; all other settings of finetune.py are
those that it comes with. Without lists, the pictures are the solar cells of the PyPI
package elpv-dataset if that is installed (label: probability of a defect above 0.5),
else the sample's, repeated.
"""
import argparse
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
SHOWN = (1, 2, 3, 10)  # epochs
ROUNDS = 3  # of each checkout with --host


def make_lists(folder):
    """Write train.txt, val.txt and the file of classes; return how many classes."""
    rng = np.random.RandomState(0)
    try:
        import elpv_dataset
    except ImportError:
        for name, times in [('train', 14), ('val', 7)]:
            with open(os.path.join(ROOT, 'images', name + '.txt')) as file:
                lines = [os.path.join(ROOT, 'images', line) for line in file]
            with open(os.path.join(folder, name + '.txt'), 'w') as file:
                file.writelines(lines * times)
        return 3
    data = os.path.join(os.path.dirname(elpv_dataset.__file__), 'data')
    with open(os.path.join(data, 'labels.csv')) as file:
        cells = [line.split() for line in file if line.strip()]
    lines = ['%s %d\n' % (os.path.join(data, cell[0]), float(cell[1]) > 0.5)
             for cell in cells]
    rng.shuffle(lines)
    for name, part in [('train', lines[:1836]), ('val', lines[1836:2230])]:
        with open(os.path.join(folder, name + '.txt'), 'w') as file:
            file.writelines(part)
    return 2


def make_photos(folder, count):
    """Write so many JPEGs of 12 megapixels, and lists; return the number of classes.

    Details of every size, as photographs have them, make files of 2 to 3 MB.
    """
    import cv2
    rng, width, height = np.random.RandomState(0), 4032, 3024
    scene = np.full((height, width, 3), 120, np.float32)
    for cells, contrast in [(8, 70), (24, 45), (96, 25), (400, 12), (2016, 6)]:
        noise = rng.normal(0, contrast, (cells * 3 // 4, cells, 3))
        scene += cv2.resize(np.float32(noise), (width, height),
                            interpolation=cv2.INTER_CUBIC)
    scene = np.uint8(np.clip(scene, 0, 255))
    lines = []
    for number in range(count):
        photo = np.roll(scene, (rng.randint(height), rng.randint(width)), (0, 1))
        if number % 2:  # the other class
            photo = photo[..., ::-1]
        name = os.path.join(folder, '%d.jpg' % number)
        cv2.imwrite(name, photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
        lines.append('%s %d\n' % (name, number % 2))
    for name, part in [('train', lines), ('val', lines[:max(2, count // 10)])]:
        with open(os.path.join(folder, name + '.txt'), 'w') as file:
            file.writelines(part)
    print('%d photographs of %.1f MB' % (count, np.mean([
        os.path.getsize(line.split()[0]) for line in lines]) / 1e6), flush=True)
    return 2


def make_weights(args):
    """Save weights that are initialised from the training pictures."""
    from alexnet import AlexNet
    from datagenerator import ImageDataGenerator, normalize
    from machinery.tf1 import tf
    from machinery.weights import save_weights
    generator = ImageDataGenerator(args.train, shuffle=True, nb_classes=args.classes)
    tf.set_random_seed(0)
    x = tf.placeholder(tf.uint8, [None, 227, 227, 3])
    model = AlexNet(normalize(x), 1., args.classes, [], None)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        model.initialize_from_data(session, {x: next(generator.batches(64)).images})
        save_weights(session.run(model.variables), args.weights)


def tutorial(args):
    """The tutorial's loop: decode, train, a second pass for the summary, each step."""
    import cv2
    from alexnet import AlexNet
    from machinery.labels import OneClass
    from machinery.lists import read_list
    from machinery.tf1 import tf

    kind = OneClass(range(args.classes))

    def batches(list_path, shuffle, epoch=0):
        paths, labels, _ = read_list(list_path, kind)
        order = np.arange(len(paths))
        if shuffle:
            np.random.RandomState(epoch).shuffle(order)
        for start in range(0, len(order), args.batch):
            chosen = order[start:start + args.batch]
            images = np.ndarray([len(chosen), 227, 227, 3])
            for i, sample in enumerate(chosen):
                image = cv2.resize(cv2.imread(paths[sample]), (227, 227))
                if shuffle and args.mirror and np.random.rand() < 0.5:
                    image = cv2.flip(image, 1)
                images[i] = image.astype(np.float32) - [104., 117., 124.]
            yield images, np.eye(args.classes)[labels[chosen]]

    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    y = tf.placeholder(tf.float32, [None, args.classes])
    keep_prob = tf.placeholder(tf.float32)
    model = AlexNet(x, keep_prob, args.classes, [], args.weights)
    variables = model.variables['fc7'] + model.variables['fc8']
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        logits=model.fc8, labels=y))
    gradients = list(zip(tf.gradients(loss, variables), variables))
    train_op = tf.train.GradientDescentOptimizer(args.rate).apply_gradients(gradients)
    correct = tf.equal(tf.argmax(model.fc8, 1), tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
    for gradient, variable in gradients:
        tf.summary.histogram(variable.op.name + '/gradient', gradient)
        tf.summary.histogram(variable.op.name, variable)
    tf.summary.scalar('cross_entropy', loss)
    tf.summary.scalar('accuracy', accuracy)
    summary = tf.summary.merge_all()
    writer = tf.summary.FileWriter(args.out)
    saver = tf.train.Saver()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        model.load_initial_weights(session)
        step = 0
        for epoch in range(args.epochs):
            for images, labels in batches(args.train, True, epoch):
                step += 1
                session.run(train_op, {x: images, y: labels, keep_prob: 0.5})
                writer.add_summary(session.run(
                    summary, {x: images, y: labels, keep_prob: 1.}), step)
            scores = [(session.run(accuracy, {x: images, y: labels, keep_prob: 1.}),
                       len(images)) for images, labels in batches(args.val, False)]
            saver.save(session, os.path.join(args.out, 'model%d.ckpt' % epoch))
            print('Epoch %d: validation accuracy %.4f' % (
                epoch + 1, sum(a * n for a, n in scores) / sum(n for _, n in scores)),
                flush=True)


def keras(args):
    """The same fine-tuning as Keras users write it: frozen base, tf.data, fit."""
    import tensorflow as tf
    weights = np.load(args.weights, allow_pickle=True).item()
    layers = tf.keras.layers

    def load(path, label, size=(227, 227)):
        image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
        image = tf.image.resize(image, size)[..., ::-1] - [104., 117., 124.]
        return image, tf.one_hot(label, args.classes)

    def dataset(list_path, shuffle):
        with open(list_path) as file:
            lines = [line.rsplit(None, 1) for line in file]
        data = tf.data.Dataset.from_tensor_slices(
            ([path for path, _ in lines], [int(label) for _, label in lines]))
        if shuffle:
            data = data.shuffle(len(lines), seed=0)
        data = data.map(load, tf.data.AUTOTUNE)
        if shuffle and args.mirror:
            data = data.map(lambda image, label: (
                tf.image.random_flip_left_right(image), label), tf.data.AUTOTUNE)
        return data.batch(args.batch).prefetch(tf.data.AUTOTUNE)

    def lrn(x):
        return tf.nn.local_response_normalization(x, 2, 1., 2e-5, 0.75)

    def conv(filters, size, name, stride=1, padding='same', groups=1):
        return layers.Conv2D(filters, size, stride, padding, groups=groups,
                             activation='relu', trainable=False, name=name)

    model = tf.keras.Sequential([
        layers.Input((227, 227, 3)),
        conv(96, 11, 'conv1', 4, 'valid'), layers.Lambda(lrn), layers.MaxPool2D(3, 2),
        conv(256, 5, 'conv2', groups=2), layers.Lambda(lrn), layers.MaxPool2D(3, 2),
        conv(384, 3, 'conv3'), conv(384, 3, 'conv4', groups=2),
        conv(256, 3, 'conv5', groups=2), layers.MaxPool2D(3, 2), layers.Flatten(),
        layers.Dense(4096, 'relu', trainable=False, name='fc6'), layers.Dropout(0.5),
        layers.Dense(4096, 'relu', name='fc7'), layers.Dropout(0.5),
        layers.Dense(args.classes, name='fc8')])
    for name, pair in weights.items():
        model.get_layer(name).set_weights(pair)
    model.compile(tf.keras.optimizers.SGD(args.rate),
                  tf.keras.losses.CategoricalCrossentropy(from_logits=True),
                  metrics=['accuracy'])

    class Epoch(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model.save_weights(os.path.join(args.out, 'model%d.weights.h5' % epoch))
            print('Epoch %d: validation accuracy %.4f'
                  % (epoch + 1, logs['val_accuracy']), flush=True)

    model.fit(dataset(args.train, True), validation_data=dataset(args.val, False),
              epochs=args.epochs, callbacks=[Epoch()], verbose=0)


def speed(args):
    """Print images/s and GFLOP/s of the pass to fc6, and of a matrix product."""
    from alexnet import AlexNet
    from machinery.tf1 import tf
    x = tf.placeholder(tf.float32, [None, 227, 227, 3])
    model = AlexNet(x, 1., 2, ['fc8'], None, ['fc7', 'fc8'])
    a = tf.Variable(tf.random.uniform([4096, 4096]))
    product = tf.linalg.matmul(a, a)[0, 0]
    images = np.random.RandomState(0).rand(args.batch, 227, 227, 3).astype(np.float32)

    def best(fetch, feed):
        times = []
        for _ in range(6):
            start = time.time()
            session.run(fetch, feed)
            times.append(time.time() - start)
        return min(times)

    # Multiplications and additions of an image, from the shapes of filters and outputs.
    flop = sum(2. * np.prod(model.variables[name][0].shape.as_list()) * np.prod(
        getattr(model, name).shape.as_list()[1:-1]) for name in
        ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6'])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        rate = args.batch / best(model.fc6, {x: images})
        gflops = 2e-9 * 4096 ** 3 / best(product, {})
    print('Forward pass to fc6: %.0f images/s, %.0f GFLOP/s; matrix product of 4096: '
          '%.0f GFLOP/s; that is %.0f %%' % (
              rate, rate * flop / 1e9, gflops, 100 * rate * flop / 1e9 / gflops),
          flush=True)


def worker(args):
    """As one of several workers, print what steps with and without the mean take."""
    from alexnet import LAYERS, AlexNet
    from machinery.cluster import find_tasks
    from machinery.tf1 import tf
    from machinery.workers import Workers

    def bytes_received():
        with open('/proc/net/dev') as file:
            [line] = [line for line in file if line.strip().startswith('lo:')]
        return int(line.split(':')[1].split()[0])

    workers = Workers(*find_tasks())
    steps = 6
    print('%d workers on one machine, batches of %d each; bytes and times of a step of '
          'each worker' % (workers.size, args.batch))
    heads = '%-10s' + 6 * '%14s'
    print(heads % ('trained', 'gradients MB', 'sent MB', 'minimum MB', 'compute s',
                   'with mean s', 'reduction s'))
    for name, layers in [('fc8', ['fc8']), ('fc7, fc8', ['fc7', 'fc8']),
                         ('all', LAYERS)]:
        with tf.Graph().as_default(), workers.session() as session:
            x = tf.placeholder(tf.float32, [None, 227, 227, 3])
            model = AlexNet(x, 0.5, args.classes, [], None, layers)
            variables = [variable for layer in layers
                         for variable in model.variables[layer]]
            loss = tf.reduce_mean(model.fc8 ** 2)
            gradients = tf.gradients(loss, variables)
            optimizer = tf.train.GradientDescentOptimizer(1e-9)
            alone = optimizer.apply_gradients(zip(gradients, variables))
            together = optimizer.apply_gradients(zip(
                workers.mean(gradients), variables))
            shape = [args.batch] + model.bottleneck.shape.as_list()[1:]
            feed = {model.bottleneck: np.random.RandomState(0).rand(*shape)}
            session.run(tf.global_variables_initializer())
            seconds = []
            for train_op in (alone, together):
                session.run(train_op, feed)
                times = []
                for _ in range(steps):
                    workers.any(False)
                    before, start = bytes_received(), time.time()
                    session.run(train_op, feed)
                    times.append(time.time() - start)
                    workers.any(False)
                    moved = (bytes_received() - before) / workers.size
                seconds.append(np.median(times))
            size = 4. * sum(variable.shape.num_elements() for variable in variables)
            print(heads % (
                name, '%.2f' % (size / 1e6), '%.2f' % (moved / 1e6),
                '%.2f' % (2e-6 * (workers.size - 1) / workers.size * size),
                '%.3f' % seconds[0], '%.3f' % seconds[1],
                '%.3f' % (seconds[1] - seconds[0])), flush=True)
    workers.finish()


def run_workers(size, arguments):
    """Run so many workers on this machine."""
    from helpers import tf_configs
    processes = [subprocess.Popen(
        [sys.executable, __file__, '--part', 'worker'] + arguments,
        env=dict(os.environ, TF_CONFIG=config)) for config in tf_configs(size)]
    if any([process.wait() for process in processes]):
        sys.exit('A worker failed')


def run(name, command):
    """Run a way as a process; return its figures."""
    start, marks, accuracy = time.time(), [], None
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE,
                               universal_newlines=True,
                               env=dict(os.environ, PYTHONUNBUFFERED='1',
                                        TF_CPP_MIN_LOG_LEVEL='3'))
    peak = [0]

    def watch():
        while process.poll() is None:
            try:
                with open('/proc/%d/status' % process.pid) as file:
                    peak[0] = max([peak[0]] + [int(line.split()[1]) for line in file
                                               if line.startswith('VmHWM')])
            except OSError:
                pass
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    for line in process.stdout:
        if line.startswith('Epoch') and 'validation' in line:
            marks.append(time.time())
            accuracy = float(re.search('accuracy ([0-9.]+)', line).group(1))
    if process.wait():
        sys.exit('%s failed' % name)
    epochs = np.diff([start] + marks)
    return [epochs[number - 1] for number in SHOWN if number <= len(epochs)] + [
        time.time() - start, peak[0] / 1e6, accuracy]


def host(args):
    """Run the finetune.py of a checkout; print what Python costs, without the network.

    The frozen layers give zeros at once. Prints images per second of processor time in
    the first epoch; and for a step of later ones, whose features are stored, the
    milliseconds of the main thread outside of TensorFlow's core, and of session.run,
    whose Python is TensorFlow's.
    """
    from tensorflow.python.client import session
    core, run, seconds, shown = (
        session.tf_session.TF_SessionRun_wrapper, session.BaseSession.run, [0., 0.], [])

    def timed(function, place):
        def call(*arguments, **kwargs):
            start = time.perf_counter()
            try:
                return function(*arguments, **kwargs)
            finally:
                if threading.current_thread() is threading.main_thread():
                    seconds[place] += time.perf_counter() - start
        return call

    def run_without_frozen(session, fetches, feed_dict=None, *others):
        images = [value for value in (feed_dict or {}).values() if np.ndim(value) == 4]
        if images and getattr(fetches, 'shape', ())[1:] == [4096]:  # the features
            return np.zeros((len(images[0]), 4096), np.float32)
        return run(session, fetches, feed_dict, *others)

    class Output(io.StringIO):
        def write(self, text):
            step = re.match(r'Epoch (\d+)/\d+, step (\d+)', text)
            if step:
                shown.append(list(map(int, step.groups())) + [time.process_time()] + [
                    time.perf_counter() - spent for spent in seconds])
            return super().write(text)

    session.tf_session.TF_SessionRun_wrapper = timed(core, 0)
    session.BaseSession.run = timed(run_without_frozen, 1)
    enter_checkout(args)
    stdout, sys.stdout = sys.stdout, Output()
    runpy.run_path('finetune.py', run_name='__main__')
    sys.stdout = stdout
    steps = [[before[0], *np.subtract(after, before)[2:] / (after[1] - before[1])]
             for before, after in zip(shown, shown[1:]) if before[0] == after[0]]
    first, later = [np.median([step[1:] for step in steps if is_right(step[0])], 0)
                    for is_right in (lambda epoch: epoch == 1, lambda epoch: epoch > 1)]
    print(args.batch / first[0], *1e3 * later[1:])


def enter_checkout(args):
    """Import from a checkout from now on; give its finetune.py the settings."""
    os.chdir(args.checkout)
    sys.path[:] = [args.checkout] + [path for path in sys.path if path != ROOT]
    sys.argv = ['finetune.py'] + json.loads(args.settings)


def part_of_checkout(part, name, checkout, settings):
    """Return the command of a part in a checkout, with the settings that it knows."""
    with open(os.path.join(checkout, 'finetune.py')) as file:
        known = re.findall('^[a-z]\w+', file.read(), re.M)
    return part(name, '--checkout', os.path.abspath(checkout), '--settings',
                json.dumps([setting for setting in settings
                            if re.match('--([a-z]\w+)', setting).group(1) in known]))


def photos_epoch(args):
    """Run the finetune.py of a checkout; print images/s in training and in epochs."""
    enter_checkout(args)
    try:
        from machinery.progress import ProgressBar
    except ImportError:  # earlier versions
        from machinery.summaries import ProgressBar
    found, report = [], ProgressBar.report

    def timed(bar, *arguments):
        seconds = (time.time() - bar._start if hasattr(bar, '_start') else
                   time.perf_counter() - bar._before[0])
        found.append([bar.images_per_second, seconds])
        return report(bar, *arguments)

    ProgressBar.report = timed
    stdout, sys.stdout = sys.stdout, io.StringIO()
    runpy.run_path('finetune.py', run_name='__main__')
    sys.stdout = stdout
    print(*found[0])


def run_photos(part, finetune, folder, checkouts, count):
    """Print how fast the first epoch is in each of these checkouts."""
    _, _, *settings = finetune(1, os.path.join(folder, 'photos'))
    print('%-32s %17s %17s %10s' % ('first epoch', 'trained images/s',
                                    'with validation', 'job, s'))
    speeds = []
    for checkout in checkouts:
        start = time.time()
        output = subprocess.check_output(
            part_of_checkout(part, 'photos_epoch', checkout, settings),
            stderr=subprocess.DEVNULL)
        speed, seconds = map(float, output.split())
        speeds.append([speed, count / seconds, 1 / (time.time() - start)])
        print('%-32s %17.1f %17.1f %10.1f' % (
            checkout, *speeds[-1][:2], time.time() - start), flush=True)
    print('%-32s %17.2f %17.2f %10.2f' % (
        'how many times as fast', *np.divide(speeds[-1], speeds[0])))


def run_host(part, finetune, folder, checkouts):
    """Print what Python costs in each of these checkouts, in turns."""
    _, _, *settings = finetune(0, os.path.join(folder, 'host'),
                               "--train_layers=['fc8']")
    found = {checkout: [] for checkout in checkouts}
    print('%-32s %17s %32s' % ('without the frozen layers', 'first epoch,',
                               'milliseconds per step outside of'))
    print('%-32s %17s %15s %16s' % ('', 'images/core-s', "TF's core", 'session.run'))
    for _ in range(ROUNDS):
        for checkout in checkouts:
            output = subprocess.check_output(
                part_of_checkout(part, 'host', checkout, settings),
                stderr=subprocess.DEVNULL)
            found[checkout].append(list(map(float, output.split())))
            for name in ('host', 'features0'):  # each starts with nothing stored
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
            print('%-32s %17.0f %15.3f %16.3f' % (checkout, *found[checkout][-1]),
                  flush=True)
    first, last = [np.median(times, 0) for times in (found[checkouts[0]],
                                                     found[checkouts[-1]])]
    print('%-32s %17.2f %15.2f %16.2f' % (
        'medians: how many times as fast', last[0] / first[0], *first[1:] / last[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--train', help='list of training pictures')
    parser.add_argument('--val', help='list of validation pictures')
    parser.add_argument('--classes', type=int, help='number of classes of these lists')
    parser.add_argument('--epochs', type=int, help='default: 10, with --host 8')
    parser.add_argument('--batch', type=int,
                        help='default: 128, with --host 32, with --photos 16')
    parser.add_argument('--rate', type=float, default=0.003, help='learning rate')
    parser.add_argument('--ways', nargs='+', default=['tutorial', 'finetune', 'keras'],
                        help='also: again (after finetune: with another learning rate, '
                             'and the features that it left), uncached '
                             '(default: %(default)s)')
    parser.add_argument('--mirror', type=int, nargs='+', default=[1, 0],
                        help='1: with mirroring, 0: without (default: both)')
    parser.add_argument('--workers', type=int, help='2 or more: time the reduction')
    parser.add_argument('--host', action='store_true', help=(
        'the host side alone, with frozen layers that cost nothing: images per second '
        'of processor time in the first epoch, and the time that a step of later ones '
        "takes outside of TensorFlow's core, when fc8 is trained on stored features"))
    parser.add_argument('--photos', type=int, metavar='N', help=(
        'time the first epoch of finetune.py, mirrored, on N generated JPEGs of 12 '
        'megapixels: training alone, and with what it scores at the end, which for '
        'newer versions is also 200 of the training pictures; and the whole job, which '
        'checks the pictures first'))
    parser.add_argument('--against', metavar='DIR', help=(
        'with --host or --photos: the same with the finetune.py of an earlier '
        'checkout, in turns'))
    for option in ('part', 'weights', 'out', 'checkout', 'settings'):
        parser.add_argument('--' + option, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.epochs = args.epochs or (8 if args.host else 1 if args.photos else 10)
    args.batch = args.batch or (32 if args.host else 16 if args.photos else 128)
    if args.part:
        args.mirror = args.mirror[0]
        return globals()[args.part](args)
    if args.workers:
        return run_workers(args.workers, ['--batch', str(args.batch), '--classes',
                                          str(args.classes or 2)])

    with tempfile.TemporaryDirectory() as folder:
        if not args.train:
            args.classes = (make_photos(folder, args.photos) if args.photos else
                            make_lists(folder))
            args.train, args.val = [os.path.join(folder, name + '.txt')
                                    for name in ('train', 'val')]
        weights = os.path.join(folder, 'weights.npy')
        common = ['--train', args.train, '--val', args.val, '--classes',
                  str(args.classes), '--epochs', str(args.epochs), '--batch',
                  str(args.batch), '--rate', str(args.rate), '--weights', weights]

        def part(name, *more):
            return [sys.executable, __file__, '--part', name] + common + list(more)

        def finetune(mirror, out, *more):
            return [sys.executable, 'finetune.py', '--train_file=' + args.train,
                    '--val_file=' + args.val, '--num_classes=%d' % args.classes,
                    '--num_epochs=%d' % args.epochs, '--batch_size=%d' % args.batch,
                    '--learning_rate=%r' % args.rate,
                    '--horizontal_flip=%s' % bool(mirror), '--weights_path=' + weights,
                    '--skip_layers=[]', '--filewriter_path=%s/log' % out,
                    '--checkpoint_path=' + out,
                    '--features_path=%s/features%d' % (folder, mirror)] + list(more)

        subprocess.check_call(part('make_weights'))
        checkouts = [args.against] * bool(args.against) + [ROOT]
        if args.host:
            return run_host(part, finetune, folder, checkouts)
        if args.photos:
            return run_photos(part, finetune, folder, checkouts, args.photos)
        subprocess.check_call(part('speed'))
        print('%-28s' % 'seconds of epoch' + ''.join(
            '%8d' % number for number in SHOWN if number <= args.epochs) +
            '   whole job   peak GB  accuracy')
        for mirror in args.mirror:
            for way in args.ways:
                out = os.path.join(folder, '%s%d' % (way, mirror))
                os.mkdir(out)
                if way == 'finetune':
                    command = finetune(mirror, out)
                elif way == 'again':
                    command = finetune(mirror, out, '--learning_rate=%r' % (
                        args.rate / 3))
                elif way == 'uncached':
                    command = finetune(mirror, out, '--cache_features=False')
                else:
                    command = part(way, '--out', out, '--mirror', str(mirror))
                *epochs, job, memory, accuracy = run(way, command)
                print('%-28s' % (way + ', mirrored' * mirror) + ''.join(
                    '%8.1f' % seconds for seconds in epochs) +
                    '%12.1f%10.2f%10.4f' % (job, memory, accuracy), flush=True)


if __name__ == '__main__':
    main()
