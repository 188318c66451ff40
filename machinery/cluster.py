"""Find the workers of a run in TF_CONFIG or in Slurm's variables.

Start the same command everywhere, with srun or with TF_CONFIG in the environment. In
TF_CONFIG, "cluster" is the same everywhere, "task" names this process; see EXAMPLE.
"""
import os
import re

from machinery.errors import InputError
from machinery.tf1 import tf

EXAMPLE = ('{"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222"]}, '
           '"task": {"type": "worker", "index": 0}}')
# Slurm writes hosts like rack1,n[01-03,7]-x, and tasks per host like 3,2(x4).
NUMBER = '[0-9]{1,9}'
RANGE = '[0-9]{1,6}(?:-[0-9]{1,6})?'
HOST = r'(?:[\w.-]|\[%s(?:,%s)*\])+' % (RANGE, RANGE)
MAX_HOSTS = 10 ** 4
COUNT = r'([0-9]{1,6})(?:\(x([0-9]{1,6})\))?'


def list_of(item):
    """Return the pattern of a comma-separated list."""
    return '%s(?:,%s)*' % (item, item)


def find_tasks():
    """Return the workers in TF_CONFIG (or else Slurm), and the place of this process.

    Each worker is (job, index, address), the chief first. Without a cluster: [None], 0.
    """
    config = os.environ.get('TF_CONFIG')
    if not config:
        size = int(read_slurm('SLURM_STEP_NUM_TASKS', NUMBER, '1'))
        return find_slurm_tasks(size) if size > 1 else ([None], 0)

    def check(is_right, fault):
        if not is_right:
            raise InputError('TF_CONFIG: %s\n  expected, for example, %s\n'
                             '  found %.500s' % (fault, EXAMPLE, config))
    check(config.lstrip().startswith('{'), 'not a JSON object')
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        jobs = resolver.cluster_spec().as_dict()
        task = (resolver.task_type, resolver.task_id) if jobs else None
    except (AttributeError, TypeError, ValueError, OverflowError,
            RecursionError) as error:
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
    check(task in names, '"task" is not in "cluster"')
    return tasks, names.index(task)


def read_slurm(name, pattern, default=''):
    """Return the value of a Slurm variable, or raise an InputError that names it."""
    value = os.environ.get(name, default)
    if not re.fullmatch(pattern, value):
        raise InputError('%s is %.200r, which srun would not set: start the script '
                         'with srun, or name the workers in TF_CONFIG' % (name, value))
    return value


def expand(host):
    """Return the hosts in an item of Slurm's list, like n[01-03,7]-x.

    Raises an InputError for more than MAX_HOSTS, before they fill the memory.
    """
    match = re.search(r'\[(.*?)\]', host)
    if not match:
        return [host]
    hosts = []
    for part in match.group(1).split(','):
        first, _, last = part.partition('-')
        for number in range(int(first), int(last or first) + 1):
            hosts += expand('%s%0*d%s' % (host[:match.start()], len(first), number,
                                          host[match.end():]))
            if len(hosts) > MAX_HOSTS:
                raise InputError('Slurm names more than %d hosts' % MAX_HOSTS)
    return hosts


def find_slurm_tasks(size):
    """Return workers and place, as find_tasks does, from a Slurm step's variables."""
    nodes = read_slurm('SLURM_STEP_NODELIST', list_of(HOST))
    on_each = read_slurm('SLURM_STEP_TASKS_PER_NODE', list_of(COUNT))
    hosts = [host for part in re.findall(HOST, nodes) for host in expand(part)]
    counts = [int(count) for count, times in re.findall(COUNT, on_each)
              for _ in range(int(times or 1))]
    if len(hosts) != len(counts) or sum(counts) != size:
        raise InputError(
            'SLURM_STEP_NODELIST = %.200s, SLURM_STEP_TASKS_PER_NODE = %.200s and '
            'SLURM_STEP_NUM_TASKS = %d contradict each other: start the script with '
            'srun, or name the workers in TF_CONFIG' % (nodes, on_each, size))
    # Jobs may share a host, so each job has its own port.
    port = 12000 + int(read_slurm('SLURM_JOB_ID', NUMBER)) % 20000
    addresses = ['%s:%d' % (host, port + task) for host, count in zip(hosts, counts)
                 for task in range(count)]
    # Slurm may number the tasks in another order, so we look up our address instead.
    host, task = os.environ.get('SLURMD_NODENAME'), read_slurm('SLURM_LOCALID', NUMBER)
    own = '%s:%d' % (host, port + int(task))
    if own not in addresses:
        raise InputError('SLURMD_NODENAME = %.200s with SLURM_LOCALID = %s is not '
                         'a task on SLURM_STEP_NODELIST = %.200s: name the workers '
                         'in TF_CONFIG' % (host, task, nodes))
    return [('worker', *task) for task in enumerate(addresses)], addresses.index(own)
