"""TensorFlow's settings, and the device that it computes on."""
import os

from machinery import tf1
from machinery.tf1 import find_device


def test_device_is_named_and_an_idle_gpu_is_explained(monkeypatch):
    cores = '%d CPU cores' % os.cpu_count()
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
