"""TensorFlow's settings, and the device that it computes on."""
import os
import re

from machinery import tf1
from machinery.tf1 import find_device


def test_device_is_named_and_an_idle_gpu_is_explained(monkeypatch):
    cores = '%d CPU cores' % os.cpu_count()
    if os.path.exists(tf1.GPU_FILE):
        assert find_device() != cores
        return
    assert find_device() == cores
    monkeypatch.setattr(tf1, 'GPU_FILE', os.devnull)
    first, *log = find_device().splitlines()
    if tf1.tf.test.is_built_with_cuda():
        assert first == cores + ', since TensorFlow cannot use the GPU:'
        assert log and all(re.search('cuda|gpu|dlopen', line, re.I) for line in log)
    else:
        assert first == cores + ', since this TensorFlow was built without CUDA'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert find_device() == cores
