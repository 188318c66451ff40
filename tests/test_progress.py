"""What an epoch's line says: where the time has gone."""
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import ROOT
from machinery.labels import OneClass
from machinery.progress import ProgressBar
from machinery.checkpoint_files import NEW
from machinery.tf1 import TimedSession, tf

VALUES = {'true': np.array([0, 1]), 'predicted': np.array([0, 1])}


@pytest.fixture
def sleep():
    """Return a function that keeps a session busy for so many seconds."""
    seconds = tf.placeholder(tf.float64, [])
    operation = tf.py_func(time.sleep, [seconds], [])
    with TimedSession() as session:
        yield lambda duration: session.run(operation, {seconds: duration})


def line_of(capsys, train):
    """Return the line of an epoch whose training is train(run)."""
    run = SimpleNamespace(progress=NEW._replace(done=8), start_of=lambda epoch: 0,
                          seconds={'waiting': 0., 'saving': 1.},
                          workers=SimpleNamespace(size=1, is_chief=True))
    bar = ProgressBar(run, 3, 8, 99, OneClass('ab'))
    bar.start(2)
    train(run)
    bar.update(1, {'loss': 1.})
    run.seconds['saving'] += 0.25
    bar.report({}, {'loss': 0.5}, VALUES)
    return capsys.readouterr().out


@pytest.mark.parametrize('how, expected', [
    ('step', 'network'), ('frozen layers', 'network'), ('pictures', 'reading'),
    ('loop', 'Python')])
def test_line_says_what_took_the_time(capsys, sleep, how, expected):
    def train(run):
        if how == 'step':
            sleep(0.3)
        elif how == 'loop':
            time.sleep(0.3)
        else:  # this thread waits for one that runs the frozen layers, or that waits
            thread = threading.Thread(target=time.sleep if how == 'pictures' else sleep,
                                      args=[0.3])
            thread.start()
            thread.join()
            run.seconds['waiting'] += 0.3

    line = line_of(capsys, train)
    shares = line.split('images/s: ')[1].split('; ')[0].split(', ')
    shares = {name: int(share) for name, share, _ in map(str.split, shares)}
    assert shares.pop(expected) >= 90 and max(shares.values()) <= 10, line
    assert line.endswith('; saving took 0.2 s\n')


def test_speed_is_not_negative_after_the_clock_is_set_back():
    code = ('import time; times = iter(range(9 ** 9, 0, -99)); '
            'time.time = lambda: next(times); '
            'from machinery.errors import act_as_script; act_as_script(); '
            'from tqdm import tqdm; bar = tqdm(total=9, disable=False); '
            'time.sleep(0.2); bar.update(9); bar.close()')
    told = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                          stderr=subprocess.PIPE).stderr.decode()
    assert '9/9 [00:00<00:00, ' in told and '-' not in told
