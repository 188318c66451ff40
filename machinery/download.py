"""Fetch the pretrained weights of AlexNet, check and convert them."""
import hashlib
import http.client
import os

from machinery import ROOT
from machinery.alone import alone
from machinery.caffe import PRETRAINED, read_caffemodel
from machinery.checkpoint_files import find_weights
from machinery.errors import InputError, act_as_script
from machinery.last_layer import choose_skip_layers
from machinery.model_file import model_path, read_model, write_model
from machinery.npy import read_npy
from machinery.settings import Parser
from machinery.transfer import find_part, forget, transfer
from machinery.weights import check_weights, read_weights, save_weights

DEFAULT_WEIGHTS = os.path.join(ROOT, 'bvlc_alexnet.npy')
SAMPLE = os.path.realpath(os.path.join(ROOT, 'images', 'train.txt'))
# (URL, SHA-1 or SHA-256 if the publisher gives it), tried in this order.
SOURCES = [
    ('https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel',
     '9116a64c0fbe4459d18f4bb6b56d647b63920377')]


def choose_weights(settings, run):
    """Return the file to start a Run from, and the layers to start fresh.

    A resumed run takes all layers from its checkpoint; for a new run, settings decide.
    """
    if run.is_resumed or not run.workers.is_chief:  # only the chief loads weights
        return run.latest, []
    path = fetch_if_missing(settings['weights_path'], settings['train_file'])
    return path, choose_skip_layers(settings['skip_layers'], settings['train_layers'],
                                    path)


def fetch_if_missing(weights_path, train_file):
    """Fetch the pretrained weights if weights_path means them and they are missing.

    Returns their path. If the download fails: None for the sample, else InputError.
    """
    is_default = weights_path in ('DEFAULT', DEFAULT_WEIGHTS)
    try:
        if is_default and not os.path.exists(DEFAULT_WEIGHTS):
            fetch_weights(DEFAULT_WEIGHTS, SOURCES)
        elif weights_path and not is_default:
            weights_path = find_weights(weights_path)
        return weights_path
    except InputError as error:
        if not is_default:
            raise InputError('weights_path = %s' % error) from error
        if os.path.realpath(train_file) != SAMPLE:
            raise
        print('%s\nThe sample starts from its own pictures instead.' % error)


def fetch_weights(path=DEFAULT_WEIGHTS, sources=SOURCES):
    """Download the pretrained weights to path, from the first source that works.

    Resumes an interrupted download. The file appears under its name only if it holds
    all layers, in the right shapes and with finite numbers. A URL may end in #sha256=
    and a checksum. If another run is fetching the file, waits and uses it.
    """
    with alone(path):
        if not os.path.exists(path):
            fetch_first(path, sources)


def fetch_first(path, sources):
    """Download and check the pretrained weights, without waiting for another run."""
    failures, parts = [], []
    for url, checksum in sources:
        url, _, sha256 = url.partition('#sha256=')
        checksum = (checksum or sha256).lower()
        print('Fetching %s' % url)
        part = '%s.%s.part' % (path, hashlib.sha1(url.encode()).hexdigest()[:8])
        parts.append(part)
        is_caffe = url.endswith('.caffemodel')
        try:
            transfer(url, part)
            kind, found = 'SHA-256', hash_file(part, 'sha256')
            print('Its SHA-256 is %s' % found)
            if len(checksum) == 40:
                kind, found = 'SHA-1', hash_file(part, 'sha1')
            if checksum not in ('', found):
                raise InputError('%s is %s, should be %s' % (kind, found, checksum))
            weights = (read_caffemodel if is_caffe else read_npy)(part)
            check_weights(weights, PRETRAINED, part)
            if is_caffe:
                save_weights(weights, path)
            del weights  # some systems cannot rename or remove a mapped file
            if not is_caffe:
                os.replace(part, path)
            for part in parts:
                forget(part)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append('  %s: %s' % (url, error))
            if isinstance(error, OSError) and os.path.exists(part):
                failures[-1] += ' (for %s)' % part
            if isinstance(error, InputError) or not find_part(part)[0]:
                forget(part)  # the next try must not resume it
    raise InputError(
        'the pretrained weights could not be fetched:\n%s\nGet one of these files in '
        'another way and put it beside alexnet.py (for the caffemodel, then run "python'
        ' alexnet.py bvlc_alexnet.caffemodel"),\nor choose weights_path = None to '
        'start from the training images alone.' % '\n'.join(failures))


def hash_file(path, kind):
    """Return a file's checksum in hexadecimal; kind: the name of a hash in hashlib."""
    found = hashlib.new(kind)
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            found.update(chunk)
    return found.hexdigest()


def table_of(weights, source):
    """Return a table of the layers that AlexNet will load, as text.

    Raises an InputError if AlexNet can never load the file. Accepts any checkpoint,
    because it may come from your own network.
    """
    shapes = {name: tuple(shape) for name, shape in PRETRAINED.items()}
    last = list(shapes)[-1]
    if last in weights:  # with any number of classes
        shapes[last] = shapes[last][:-1] + weights[last][1].shape
    fits = [name for name in shapes
            if name in weights and weights[name][0].shape == shapes[name]]
    if not os.path.exists(source + '.index'):
        check_weights(weights, shapes, source, set(shapes).difference(fits))
        if not fits:
            raise InputError('%s: no layer has its shape in AlexNet, which for conv1 '
                             'is (height, width, in, out)' % source)
    lines = []
    for name in list(weights) + [name for name in shapes if name not in weights]:
        found = by_times(weights[name][0].shape) if name in weights else 'missing'
        effect = 'loads' if name in fits else 'not a layer of AlexNet'
        if name in shapes and name not in fits:
            effect = 'only with %r in skip_layers; AlexNet has %s' % (
                name, by_times(shapes[name]))
        lines.append('%-12s %-12s %s' % (name, found, effect))
    return '\n'.join(lines)


def by_times(shape):
    """Format a shape like 11x11x3x96."""
    return 'x'.join(map(str, shape))


def main():
    """Fetch or convert weights, as the command line says."""
    act_as_script()
    parser = Parser(description='Fetch the pretrained weights, or convert weights.')
    parser.add_argument('source', nargs='?', help='.caffemodel, .npz, .npy or '
                        'checkpoint to convert; default: fetch the pretrained weights')
    parser.add_argument('out', nargs='?', help='default: source with the ending .npy')
    parser.add_argument('--url', help='another address to fetch the weights from')
    args = parser.parse_args()
    if args.source and args.url:
        parser.error('--url must be the only argument')
    out = DEFAULT_WEIGHTS
    if args.source:
        source = find_weights(args.source)
        out = args.out or os.path.splitext(source)[0] + '.npy'
        if out == source:  # there is nothing to convert
            return print(table_of(read_weights(source), source))
        if not out.endswith('.npy'):  # the name of its model.json depends on it
            raise InputError('%s: the name of the file to write must end in .npy' % out)
        for path in (out, model_path(out)):
            if os.path.lexists(path):
                raise InputError('%s already exists; remove it to write it again'
                                 % path)
        weights = read_weights(source)
        table = table_of(weights, source)
        save_weights(weights, out)
        print(table)
        model = read_model(source)
        if model:
            write_model(model_path(out), model)
    elif os.path.exists(out):
        print('Checking %s; remove it to fetch it again' % out)
        check_weights(read_weights(out), PRETRAINED, out)
        return print('It is complete')
    else:
        fetch_weights(out, [(args.url, None)] if args.url else SOURCES)
    print('Wrote %s' % out)
