"""Download a file over HTTP, and resume after a cut connection."""
import http.client
import os
import re
import time
import urllib.request

from tqdm import tqdm

from machinery.errors import InputError

TIMEOUT = 10  # seconds without an answer
MIN_BYTES_PER_SECOND = 10000  # a slower source counts as dead
MIN_BYTES = 10000  # each connection must add at least these
MAX_CONNECTIONS = 20
MAX_BYTES = 10 ** 9  # four times AlexNet's weights


def transfer(url, path):
    """Append the rest of the file at url to path; reconnect after a cut.

    Starts again if path may hold another version of the file. Raises an InputError if
    the file is too large, an OSError or HTTPException if the download fails.
    """
    reached = find_part(path)[0]
    for _ in range(MAX_CONNECTIONS):
        done, size, tag = find_part(path)
        if done and done == size:
            return
        headers = {'Range': 'bytes=%d-' % done, 'If-Range': tag} if done else {}
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                version = version_of(response.headers)
                if response.code != 206:
                    return receive(response, path, 0, *version)
                # Some servers ignore If-Range, and send the rest of another version.
                span = response.headers.get('Content-Range', '')
                if version == (size, tag) and span.startswith('bytes %d-' % done):
                    return receive(response, path, done, size, tag)
            forget(path)
        except (OSError, http.client.HTTPException) as error:
            before, reached = reached, os.path.exists(path) and os.path.getsize(path)
            if done and getattr(error, 'code', None) == 416:  # the file is now shorter
                forget(path)
            elif isinstance(error, TimeoutError) or reached < before + MIN_BYTES:
                raise
    raise OSError('still incomplete after %d connections' % MAX_CONNECTIONS)


def receive(response, path, done, size, tag):
    """Append a response to the done bytes in path, until it has size (0: unknown)."""
    if not done:
        forget(path)
        if size and tag:
            with open(path + '.tag', 'w') as file:
                file.write('%d %s\n' % (size, tag))
    start, received, limit = time.monotonic(), 0, min(size or MAX_BYTES, MAX_BYTES)
    with open(path, 'ab') as file, tqdm(total=size or None, initial=done, unit='B',
                                        unit_scale=True, disable=None) as bar:
        for chunk in iter(lambda: response.read1(1 << 16), b''):
            received += len(chunk)
            if max(size, done + received) > limit:
                raise InputError('it is larger than %d bytes' % limit)
            file.write(chunk)
            bar.update(len(chunk))
            seconds = time.monotonic() - start
            if seconds > TIMEOUT and received < MIN_BYTES_PER_SECOND * seconds:
                raise TimeoutError('only %d bytes in %d seconds' % (received, seconds))
        file.flush()
        os.fsync(file.fileno())  # or only its size may survive a power failure
    if done + received < size:
        raise OSError('the connection was cut after %d of %d bytes'
                      % (done + received, size))


def version_of(headers):
    """Return (size, tag) of a server's file; 0 or '' if unknown."""
    tag = headers.get('ETag', '')
    if not tag.startswith('"'):  # a weak tag allows other bytes
        tag = headers.get('Last-Modified', '')
    size = headers.get('Content-Range') or headers.get('Content-Length', '')
    size = size.rpartition('/')[2]
    return (int(size) if size.isdecimal() else 0,
            tag if re.fullmatch('[ -~]+', tag) else '')


def find_part(path):
    """Return (bytes in path, size, tag) if it can be resumed, else (0, 0, '')."""
    if os.path.isfile(path) and os.path.isfile(path + '.tag'):
        with open(path + '.tag', encoding='latin-1') as file:
            match = re.fullmatch('([0-9]{1,15}) ([ -~]+)\n', file.read(1000))
        done = os.path.getsize(path)
        if match and done <= int(match.group(1)):
            return done, int(match.group(1)), match.group(2)
    return 0, 0, ''


def forget(path):
    """Remove a part and its tag."""
    for name in [path, path + '.tag']:
        if os.path.exists(name):
            os.remove(name)
