"""Count the processor cores that this process may use."""
import contextlib
import math
import os
import pathlib

CGROUP = '/sys/fs/cgroup'  # Linux keeps a container's limits here


def count_cores():
    """Return the number of cores that the scheduler and a container's quota allow."""
    cores = os.cpu_count()
    if hasattr(os, 'sched_getaffinity'):  # on Linux: taskset and Slurm set it
        cores = len(os.sched_getaffinity(0))
    # A quota is in microseconds per period, summed over all cores.
    for names in (['cpu.max'], ['cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us']):
        # The file may be missing, or have no quota: max, or -1.
        with contextlib.suppress(OSError, ValueError):
            texts = [pathlib.Path(CGROUP, name).read_text() for name in names]
            quota, period = map(int, ' '.join(texts).split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores
