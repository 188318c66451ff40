"""Downloads from servers that are slow, odd or hostile, and from two runs at once."""
import contextlib
import hashlib
import http.server
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from helpers import ROOT
from machinery import download, transfer
from machinery.download import fetch_weights
from machinery.errors import InputError

OLD, NEW = [bytes([digit]) * 300000 for digit in b'01']
THIRD = len(OLD) // 3
ETAG, DATE = {'ETag': '"1"'}, {'Last-Modified': 'Mon, 01 Jan 2024 00:00:00 GMT'}
ETAG2, DATE2 = {'ETag': '"2"'}, {'Last-Modified': 'Tue, 02 Jan 2024 00:00:00 GMT'}


def sends(content, tag=None, cut=None, knows=('Range', 'If-Range'), **changed):
    """Return a function that answers a request with a file, or with its start."""
    tag = tag or {}

    def answer(request):
        wanted = re.fullmatch('bytes=([0-9]+)-', request.headers.get('Range', ''))
        known = request.headers.get('If-Range', '')
        start = int(wanted.group(1)) if wanted and 'Range' in knows else 0
        if 'If-Range' in knows and known and known not in tag.values():
            start = 0
        if start >= len(content):
            return request.send_error(416)
        headers = dict(tag)
        if start:
            headers['Content-Range'] = 'bytes %d-%d/%d' % (
                start, len(content) - 1, len(content))
        headers['Content-Length'] = str(len(content) - start)
        headers.update({key.replace('_', '-'): text for key, text in changed.items()})
        send(request, 206 if start else 200, headers, content[start:][:cut])

    return answer


def send(request, status, headers, body=b''):
    request.send_response(status)
    for item in headers.items():
        request.send_header(*item)
    request.end_headers()
    with contextlib.suppress(ConnectionError):
        request.wfile.write(body)


def ends(request):
    request.send_error(404)


@contextlib.contextmanager
def serve(*answers):
    """Answer requests so, the last one for ever; yield (URL, [(Range, If-Range)])."""
    answers, seen = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            seen.append((self.headers.get('Range'), self.headers.get('If-Range')))
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield 'http://127.0.0.1:%d/x' % server.server_port, seen
        server.shutdown()


@pytest.fixture
def part(tmp_path):
    return tmp_path / 'x.part'


@pytest.fixture
def any_weights(monkeypatch):
    """Take any file for the right weights."""
    monkeypatch.setattr(download, 'read_npy', lambda path: {})
    monkeypatch.setattr(download, 'check_weights', lambda *args: None)


def names(folder):
    return sorted(os.listdir(str(folder)))


@pytest.mark.parametrize('knows', [('Range', 'If-Range'), ('Range',), ()])
@pytest.mark.parametrize('old, new', [
    (ETAG, ETAG2), (DATE, DATE2), (ETAG, DATE), (DATE, ETAG), ({}, {}), (ETAG, {}),
    ({'ETag': 'W/"1"'}, {'ETag': 'W/"1"'}), (dict(ETAG, **DATE), dict(ETAG2, **DATE))])
def test_halves_of_two_versions_are_not_joined(part, old, new, knows):
    with serve(sends(OLD, old, THIRD), sends(NEW, new, knows=knows)) as (url, _):
        transfer.transfer(url, str(part))
    assert part.read_bytes() == NEW


@pytest.mark.parametrize('tag', [ETAG, DATE])
def test_halves_of_two_runs_are_joined_if_they_belong_together(part, tag):
    with serve(sends(OLD, tag, 1000), sends(OLD, tag)) as (url, seen):
        with pytest.raises(OSError, match='cut after 1000 of 300000 bytes'):
            transfer.transfer(url, str(part))
        transfer.transfer(url, str(part))
    [value] = tag.values()
    assert seen == [(None, None), ('bytes=1000-', value)]
    assert part.read_bytes() == OLD


@pytest.mark.parametrize('note', [
    None, '', '300000 "1"', '300000\n', 'x "1"\n', '99 "1"\n', '300000 "1"\n\n',
    '\xff'])
def test_part_without_a_sound_note_starts_again(part, note):
    part.write_bytes(NEW[:1000])
    if note is not None:
        (part.parent / 'x.part.tag').write_bytes(note.encode('latin-1'))
    with serve(sends(OLD, ETAG)) as (url, seen):
        transfer.transfer(url, str(part))
    assert part.read_bytes() == OLD and seen == [(None, None)]


@pytest.mark.parametrize('changed', [
    'bytes 99999-299999/300000', 'bytes 0-1/300000', 'bytes 100000-299999/300001',
    'bytes 100000-299999/*', 'nonsense', ''])
def test_other_range_than_asked_for_starts_again(part, changed):
    with serve(sends(OLD, ETAG, THIRD), sends(NEW, ETAG, Content_Range=changed),
               sends(NEW, ETAG)) as (url, seen):
        transfer.transfer(url, str(part))
    assert part.read_bytes() == NEW and len(seen) == 3


def test_end_of_a_range_before_that_of_the_file_is_no_end(part):
    short = {'Content_Range': 'bytes 100000-199999/300000', 'Content_Length': '100000'}
    with serve(sends(OLD, ETAG, THIRD), sends(OLD, ETAG, THIRD, **short),
               sends(OLD, ETAG)) as (url, seen):
        transfer.transfer(url, str(part))
    assert part.read_bytes() == OLD and seen[2] == ('bytes=200000-', '"1"')


def test_file_that_became_shorter_is_fetched_again(part):
    short = NEW[:50000]
    for total in ['', 'bytes */50000', 'bytes */100000', 'bytes */300000']:
        refusal = {'Content-Range': total} if total else {}
        with serve(sends(OLD, ETAG, THIRD),
                   lambda request: send(request, 416, refusal),
                   sends(short, ETAG2)) as (url, seen):
            transfer.transfer(url, str(part))
        assert part.read_bytes() == short and len(seen) == 3
        part.unlink()


def test_complete_part_is_not_asked_for(part):
    with serve(sends(OLD, ETAG)) as (url, seen):
        transfer.transfer(url, str(part))
        transfer.transfer(url, str(part))
    assert part.read_bytes() == OLD and len(seen) == 1


def test_endless_file_is_given_up(part, monkeypatch):
    monkeypatch.setattr(transfer, 'MAX_BYTES', 1000000, raising=False)

    def endless(request):
        send(request, 200, {})
        with contextlib.suppress(ConnectionError):
            for _ in range(100):  # at most: it must end before
                request.wfile.write(NEW)

    with serve(endless) as (url, seen):
        with pytest.raises(InputError, match='larger than 1000000 bytes'):
            transfer.transfer(url, str(part))
    assert part.stat().st_size <= 1000000 and len(seen) == 1


def test_too_large_file_is_given_up_before_it_comes(part, monkeypatch, any_weights):
    monkeypatch.setattr(transfer, 'MAX_BYTES', 299999, raising=False)
    with serve(sends(OLD, ETAG)) as (url, seen):
        with pytest.raises(InputError, match='it is larger than 299999 bytes'):
            fetch_weights(str(part), [(url, None)])
    assert names(part.parent) == []


@pytest.mark.parametrize('cut, connections', [(1, 1), (9999, 1), (10000, 20)])
def test_connections_are_not_followed_for_ever(part, cut, connections):
    with serve(*[sends(NEW, ETAG, cut)] * 25, ends) as (url, seen):
        with pytest.raises(OSError):
            transfer.transfer(url, str(part))
    assert len(seen) == connections and part.stat().st_size == cut * connections


def test_server_that_always_sends_another_range_is_given_up(part):
    def unasked(request):
        send(request, 206, dict(ETAG, **{'Content-Range': 'bytes 7-9/300000'}), b'xyz')

    odd = sends(OLD, ETAG, THIRD, Content_Range='bytes 7-9/300000')
    for answer, connections in [(odd, 3), (unasked, 20)]:
        with serve(*[answer] * 25, ends) as (url, seen):
            with pytest.raises(OSError, match='cut after|incomplete after 20 conn'):
                transfer.transfer(url, str(part))
        assert len(seen) == connections


def test_redirected_download_is_resumed(part):
    def redirects(request):
        send(request, 302, {'Location': '/elsewhere', 'Content-Length': '0'})

    with serve(redirects, sends(OLD, ETAG, THIRD), redirects, sends(OLD, ETAG)) as (
            url, seen):
        transfer.transfer(url, str(part))
    assert part.read_bytes() == OLD and seen[3] == ('bytes=100000-', '"1"')


def test_local_file_is_copied(part):
    part.with_suffix('.source').write_bytes(OLD)
    part.write_bytes(NEW[:1000])
    transfer.transfer(part.with_suffix('.source').as_uri(), str(part))
    assert part.read_bytes() == OLD


def test_only_what_can_be_resumed_is_kept(part, any_weights):
    for tag, kept in [(ETAG, True), ({}, False)]:
        with serve(sends(OLD, tag, 1000)) as (url, _):
            with pytest.raises(InputError, match='1000 of 300000 bytes') as error:
                fetch_weights(str(part), [(url, None)])
        found = names(part.parent)
        assert len(found) == (2 if kept else 0)
        for name in found:
            assert name.startswith('x.part.') and name.endswith(('.part', '.part.tag'))
            (part.parent / name).unlink()
        assert '.part)' in str(error.value)


@pytest.mark.parametrize('tag', [ETAG, {}])
def test_full_disk_is_told_with_the_file(part, any_weights, tag):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serve(sends(OLD, tag)) as (url, seen):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200000, hard))
        try:
            with pytest.raises(InputError, match=r'File too large \(for .*\.part\)'):
                fetch_weights(str(part), [(url, None)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(seen) <= 3 and bool(names(part.parent)) == bool(tag)
        fetch_weights(str(part), [(url, None)])
    assert part.read_bytes() == OLD and names(part.parent) == ['x.part']


def test_checksum_is_printed_and_compared(part, any_weights, capsys):
    sha1, sha256 = [hashlib.new(kind, OLD).hexdigest() for kind in ['sha1', 'sha256']]
    with serve(sends(OLD, ETAG)) as (url, _):
        for checksum in [None, sha1, sha256, sha256.upper()]:
            fetch_weights(str(part), [(url, checksum)])
            assert 'Its SHA-256 is %s\n' % sha256 in capsys.readouterr().out
            assert names(part.parent) == ['x.part']
            part.unlink()
        fetch_weights(str(part), [(url + '#sha256=' + sha256, None)])
        part.unlink()
        for source, message in [
                ((url, '0' * 40), 'SHA-1 is %s, should be 000' % sha1),
                ((url, '0' * 64), 'SHA-256 is %s, should be 000' % sha256),
                ((url + '#sha256=123', None), 'SHA-256 is %s, should be 123' % sha256)]:
            with pytest.raises(InputError, match=message):
                fetch_weights(str(part), [source])
            assert names(part.parent) == []


def test_parts_of_earlier_sources_are_removed_at_last(part, any_weights):
    other = part.parent / 'x.part.other.part'
    other.write_bytes(b'not ours')
    with serve(sends(OLD, ETAG, 1000)) as (bad, _), serve(sends(OLD)) as (good, _):
        fetch_weights(str(part), [(bad, None), (good, None)])
    assert names(part.parent) == ['x.part', 'x.part.other.part']


def test_second_run_waits_and_uses_what_the_first_one_fetched(
        part, any_weights, monkeypatch):
    waits, told = threading.Event(), []

    def tell(*args, **kwargs):
        told.append(args)
        waits.set()

    monkeypatch.setattr('machinery.alone.print', tell, raising=False)
    second = threading.Thread(target=lambda: fetch_weights(str(part), [(url, None)]))

    def answer(request):
        if not told:
            second.start()
            assert waits.wait(10)
        sends(OLD, ETAG)(request)

    with serve(answer) as (url, seen):
        fetch_weights(str(part), [(url, None)])
        second.join(10)
    assert not second.is_alive() and len(seen) == 1
    assert told == [('Waiting for another run to fetch %s' % part,)]
    assert part.read_bytes() == OLD and names(part.parent) == ['x.part']


def test_runs_that_wait_go_on_one_at_a_time_after_failures(part, any_weights):
    running, most = [], []

    def fails(request):
        running.append(request)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(request)  # before the answer, which lets the next run go on
        request.send_error(404)

    def run():
        with pytest.raises(InputError, match='404'):
            fetch_weights(str(part), [(url, None)])

    with serve(fails) as (url, seen):
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(seen) == 8 and max(most) == 1 and names(part.parent) == []


def run_alone(path):
    """Start a process that holds the lock for path until it is killed."""
    code = ('import sys, time; from machinery.alone import alone\n'
            'with alone(sys.argv[1]):\n'
            '    print("holds it", flush=True); time.sleep(60)')
    return subprocess.Popen([sys.executable, '-c', code, str(path)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_wait_ends_by_ctrl_c_and_by_a_kill(part):
    from machinery.alone import alone
    with run_alone(part) as first:
        assert first.stdout.readline() == b'holds it\n'
        with run_alone(part) as second:
            assert second.stdout.readline().startswith(b'Waiting for another run')
            second.send_signal(signal.SIGINT)
            assert b'KeyboardInterrupt' in second.communicate(timeout=10)[1]
        assert names(part.parent) == ['x.part.lock']
        with run_alone(part) as third:
            assert third.stdout.readline().startswith(b'Waiting for another run')
            first.kill()
            assert third.stdout.readline() == b'holds it\n'
            third.kill()
    with alone(str(part)):
        assert names(part.parent) == ['x.part.lock']
    assert names(part.parent) == []


@pytest.mark.parametrize('fault', ['no fcntl', 'no locks', 'no permission'])
def test_without_locks_it_goes_on(part, any_weights, monkeypatch, fault):
    def fail(*args):
        raise OSError('not here')

    if fault == 'no fcntl':
        monkeypatch.setattr('machinery.alone.fcntl', None)
    elif fault == 'no locks':
        monkeypatch.setattr('fcntl.flock', fail)
    else:
        monkeypatch.setattr('machinery.alone.open', fail, raising=False)
    with serve(sends(OLD, ETAG)) as (url, _):
        fetch_weights(str(part), [(url, None)])
    assert part.read_bytes() == OLD
    assert names(part.parent) == ['x.part']
