"""TensorFlow's settings, and the device that it computes on."""
import os
import subprocess
import sys

import pytest

from helpers import ROOT
from machinery import cores, tf1
from machinery.cores import count_cores
from machinery.tf1 import find_device


def test_device_is_named_and_an_idle_gpu_is_explained(monkeypatch):
    cores = '%d CPU cores' % count_cores()
    if os.path.exists(tf1.GPU_FILE):
        assert find_device() != cores
        return
    assert find_device() == cores
    monkeypatch.setattr(tf1, 'GPU_FILE', os.devnull)
    assert find_device() == cores + (
        '; no GPU is used. Try pip install "tensorflow[and-cuda]"; '
        'with TF_CPP_MIN_LOG_LEVEL=0 TensorFlow tells why')
    for hidden in ('', '-1'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
        assert find_device() == cores


@pytest.mark.parametrize('limits, expected', [
    ({'cpu.max': '150000 100000\n'}, 2),
    ({'cpu.max': 'max 100000\n'}, 8),
    ({'cpu/cpu.cfs_quota_us': '400000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 4),
    ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 8),
    ({'cpu.max': '1600000 100000\n'}, 8),
    ({}, 8)])
def test_a_containers_quota_limits_the_cores(tmp_path, monkeypatch, limits, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    monkeypatch.setattr(cores, 'CGROUP', str(tmp_path))
    (tmp_path / 'cpu').mkdir()
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    assert count_cores() == expected
    assert tf1.session_config().intra_op_parallelism_threads == expected


def test_import_leaves_keras_to_those_who_use_it():
    code = ('import sys, alexnet; assert not {name for name in sys.modules if '
            'name.split(".")[0] == "keras"}; import tensorflow as tf; '
            'from tensorflow.keras.layers import Dense; '
            'assert tf.keras.layers.Dense is Dense; tf.keras.optimizers.Adam')
    subprocess.check_call([sys.executable, '-c', code], cwd=ROOT)
