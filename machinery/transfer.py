"""Download a file over HTTP, and resume after a cut connection."""
import http.client
import os
import time
import urllib.request

from tqdm import tqdm

TIMEOUT = 10  # seconds without an answer
MIN_BYTES_PER_SECOND = 10000  # a slower source counts as dead


def transfer(url, path):
    """Append the rest of the file at url to path; reconnect after a cut."""
    while True:
        done = os.path.getsize(path) if os.path.exists(path) else 0
        headers = {'Range': 'bytes=%d-' % done} if done else {}
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return receive(response, path, done)
        except (OSError, http.client.HTTPException) as error:
            if done and getattr(error, 'code', None) == 416:  # we have the whole file
                return
            has_grown = os.path.exists(path) and os.path.getsize(path) > done
            if isinstance(error, TimeoutError) or not has_grown:
                raise


def receive(response, path, done):
    """Write a response after the first done bytes of path, or from its start."""
    if 'Content-Range' not in response.headers:
        done = 0
    total = done + int(response.headers.get('Content-Length', 0))
    start, received = time.time(), 0
    with open(path, 'ab') as file, tqdm(total=total or None, initial=done, unit='B',
                                        unit_scale=True, disable=None) as bar:
        file.truncate(done)
        for chunk in iter(lambda: response.read1(1 << 16), b''):
            file.write(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            seconds = time.time() - start
            if seconds > TIMEOUT and received < MIN_BYTES_PER_SECOND * seconds:
                raise TimeoutError('only %d bytes in %d seconds' % (received, seconds))
    if done + received < total:
        raise OSError('the connection was cut after %d of %d bytes'
                      % (done + received, total))
