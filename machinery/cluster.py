"""Find the workers of a run, as TF_CONFIG or Slurm names them.

Start the same command everywhere: with srun, or with TF_CONFIG in its environment. Its
"cluster" is the same everywhere, and its "task" names this process; see EXAMPLE.
"""
import os
import re

from machinery.errors import InputError
from machinery.tf1 import tf

EXAMPLE = ('{"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222"]}, '
           '"task": {"type": "worker", "index": 0}}')


def find_tasks():
    """Return the workers that TF_CONFIG, or else Slurm, names, and our place in them.

    They are (job, index, address), the chief first; [None] without a cluster.
    """
    config = os.environ.get('TF_CONFIG')
    if not config and int(os.environ.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
        return find_slurm_tasks()

    def check(is_right, fault):
        if not is_right:
            raise InputError('TF_CONFIG: %s\n  expected, for example, %s\n'
                             '  found %.500s' % (fault, EXAMPLE, config))
    check(not config or config.lstrip().startswith('{'), 'not a JSON object')
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        jobs = resolver.cluster_spec().as_dict() if config else {}
        task = (resolver.task_type, resolver.task_id) if jobs else None
    except (AttributeError, TypeError, ValueError) as error:
        check(False, error)
    tasks = [(job, index, address) for job in sorted(jobs)
             for index, address in enumerate(jobs[job])]
    for job, index, address in tasks:
        check(job in ('chief', 'worker'),
              'unknown job %r: only chief and worker are supported' % job)
        port = re.fullmatch(r'[^/\s]+:([0-9]{1,5})', address)
        check(port and 0 < int(port.group(1)) < 65536,
              '%s %d: %r is not host:port' % (job, index, address))
    check(len({address for _, _, address in tasks}) == len(tasks),
          'an address occurs twice. Workers on one host need different ports')
    check(len(jobs.get('chief', [])) <= 1, 'there is more than one chief')
    if not tasks:
        return [None], 0
    names = [(job, index) for job, index, _ in tasks]
    check(task in names, '"task" is none of the cluster\'s')
    return tasks, names.index(task)


def find_slurm_tasks():
    """Return tasks and rank, as find_tasks does, from the variables of a Slurm step."""
    size = int(os.environ['SLURM_STEP_NUM_TASKS'])
    on_each = size // int(os.environ['SLURM_STEP_NUM_NODES'])
    port = 12000 + int(os.environ['SLURM_JOB_ID']) % 20000  # jobs may share a host
    try:
        # Our sessions choose their GPU by CUDA_VISIBLE_DEVICES, as Slurm sets it.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            {'worker': size}, port, on_each, 1, on_each, auto_set_gpu=False)
    except RuntimeError as error:
        raise InputError('Slurm: %s Give each node the same number of tasks' % error)
    addresses = resolver.cluster_spec().as_dict()['worker']
    # The resolver sorts the hosts, n10 before n2, so its rank may differ from Slurm's.
    port += int(os.environ['SLURM_LOCALID'])
    own = '%s:%d' % (os.environ['SLURMD_NODENAME'], port)
    return [('worker', *task) for task in enumerate(addresses)], addresses.index(own)
