"""The pretrained weights of AlexNet: fetched, checked, converted."""
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request

import numpy as np
from tqdm import tqdm

from machinery.checkpoint_files import find_weights
from machinery.model_file import copy_model
from machinery.settings import InputError, Parser
from machinery.weights import (check_weights, read_caffemodel, read_npy, read_weights,
                               save_weights)

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULT_WEIGHTS = os.path.join(HOME, 'bvlc_alexnet.npy')
SAMPLE = os.path.realpath(os.path.join(HOME, 'images', 'train.txt'))
# In the order in which they are tried; SHA-1 where its publisher gives one.
SOURCES = [
    ('https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy', None),
    ('http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel',
     '9116a64c0fbe4459d18f4bb6b56d647b63920377')]
# The layers of BVLC's network, whatever becomes of ours.
PRETRAINED = {
    'conv1': [11, 11, 3, 96], 'conv2': [5, 5, 48, 256], 'conv3': [3, 3, 256, 384],
    'conv4': [3, 3, 192, 384], 'conv5': [3, 3, 192, 256], 'fc6': [9216, 4096],
    'fc7': [4096, 4096], 'fc8': [4096, 1000]}
TIMEOUT = 10  # seconds without an answer
MIN_BYTES_PER_SECOND = 10000  # below it, a source counts as dead


def fetch_if_missing(weights_path, train_file):
    """Fetch the pretrained weights if weights_path means them and they are not here.

    Returns weights_path, or None where they could not be fetched for the sample.

    Raises:
        InputError: they could not be fetched for other pictures.
    """
    is_default = weights_path in ('DEFAULT', DEFAULT_WEIGHTS)
    try:
        if is_default and not os.path.exists(DEFAULT_WEIGHTS):
            fetch_weights(DEFAULT_WEIGHTS, SOURCES)
        return weights_path
    except InputError as error:
        if os.path.realpath(train_file) != SAMPLE:
            raise
        print('%s\nThe sample starts from its own pictures instead.' % error)


def fetch_weights(path=DEFAULT_WEIGHTS, sources=SOURCES):
    """Download the pretrained weights to path, from the first source that works.

    Resumes an interrupted download. The file appears under its name only when it holds
    all layers in the right shapes and finite numbers.

    Args:
        sources: list of (url, SHA-1 in hexadecimal or None); .npy or .caffemodel.

    Raises:
        InputError: no source gave the weights; says why, and what to do by hand.
    """
    failures = []
    for url, sha1 in sources:
        print('Fetching %s' % url)
        part = '%s.%s.part' % (path, hashlib.sha1(url.encode()).hexdigest()[:8])
        is_caffe = url.endswith('.caffemodel')
        try:
            download(url, part)
            try:
                if sha1:
                    check_sha1(part, sha1)
                weights = (read_caffemodel if is_caffe else read_npy)(part)
                check_weights(weights, PRETRAINED, part)
            except InputError:
                os.remove(part)  # or the next try would resume it
                raise
            if is_caffe:
                save_weights(weights, path)
                os.remove(part)
            else:
                del weights  # a file that is mapped cannot be renamed everywhere
                os.replace(part, path)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append('  %s: %s' % (url, error))
    raise InputError(
        'the pretrained weights could not be fetched:\n%s\nGet one of these files in '
        'another way and put it beside alexnet.py; if it is the caffemodel, run\n'
        '  python alexnet.py bvlc_alexnet.caffemodel\n'
        'Or choose weights_path = None to start from the training images alone.'
        % '\n'.join(failures))


def download(url, path):
    """Append to path what it lacks of the file at url; reconnect when cut off."""
    while True:
        done = os.path.getsize(path) if os.path.exists(path) else 0
        headers = {'Range': 'bytes=%d-' % done} if done else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers),
                                        timeout=TIMEOUT) as response:
                return receive(response, path, done)
        except urllib.error.HTTPError as error:
            if done and error.code == 416:  # nothing comes after what we have
                return
            raise
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            if not os.path.exists(path) or os.path.getsize(path) <= done:
                raise


def receive(response, path, done):
    """Write a response after the first done bytes of path, or from its start."""
    if 'Content-Range' not in response.headers:
        done = 0
    length = response.headers.get('Content-Length')
    start, received = time.time(), 0
    with open(path, 'ab') as file, tqdm(
            total=length and done + int(length), initial=done, unit='B',
            unit_scale=True, disable=None) as bar:
        file.truncate(done)
        for chunk in iter(lambda: response.read1(1 << 16), b''):
            file.write(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            seconds = time.time() - start
            if seconds > TIMEOUT and received < MIN_BYTES_PER_SECOND * seconds:
                raise TimeoutError('only %d bytes in %d seconds' % (received, seconds))
    if length and received < int(length):
        raise OSError('the connection was cut after %d of %d bytes'
                      % (done + received, done + int(length)))


def check_sha1(path, expected):
    """Raise an InputError unless a file has this SHA-1, in hexadecimal."""
    found = hashlib.sha1(np.memmap(path, mode='r')).hexdigest()
    if found != expected:
        raise InputError('SHA-1 is %s, should be %s' % (found, expected))


def main():
    """Fetch or convert weights, as the command line says."""
    parser = Parser(description='Fetch the pretrained weights, or convert weights.')
    parser.add_argument('source', nargs='?', help='.caffemodel, checkpoint or .npy '
                        'file to convert; none: fetch the pretrained weights')
    parser.add_argument('out', nargs='?', help='.npy file to write; by default, source '
                        'with .npy for its ending')
    parser.add_argument('--url', help='another place to fetch the weights from')
    args = parser.parse_args()
    if args.source and args.url:
        parser.error('--url must be the only argument')
    source = args.source and find_weights(args.source)
    out = args.out or (os.path.splitext(source)[0] + '.npy' if source
                       else DEFAULT_WEIGHTS)
    if os.path.exists(out):
        if source:
            raise InputError('%s is already there; to write it anew, remove it first'
                             % out)
        try:
            check_weights(read_weights(out), PRETRAINED, out)
        except InputError as error:
            raise InputError('%s\nRemove it, and "python alexnet.py" fetches it anew.'
                             % error)
        return print('%s is already there, and whole' % out)
    if source:
        save_weights(read_weights(source), out)
        copy_model(source, out)
    else:
        fetch_weights(out, [(args.url, None)] if args.url else SOURCES)
    print('Wrote %s' % out)
