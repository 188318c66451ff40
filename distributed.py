"""Several machines, or several GPUs, that train one network together.

Start the same command everywhere, each with TF_CONFIG in its environment: the cluster,
which is the same for all, and the place of this process in it.

    {"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222", "host2:2222"]},
     "task": {"type": "worker", "index": 0}}

Each worker computes the gradients of its part of a batch, and TensorFlow's ring
all-reduce (Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of
Workstations", JPDC 2009) gives their mean to all. TensorFlow's servers ask for no
password: use a private network only.
"""
import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
import zlib

import numpy as np

from alexnet import tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

EXAMPLE = ('{"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222"]}, '
           '"task": {"type": "worker", "index": 0}}')
LOST_A_PEER = 75  # exit status: try again, with resume
NETWORK_ERRORS = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError,
                  tf.errors.AbortedError, tf.errors.CancelledError,
                  tf.errors.InternalError, tf.errors.UnknownError)


class Workers:
    """All workers of a run, as one of them sees the others.

    All must call mean, gather and what builds on it in the same order.

    Args:
        tf_config: text of TF_CONFIG; None or without a cluster: there is one worker.
        peer_timeout: seconds after which a worker that does not answer counts as lost.
            The process then ends with status 75, within that time.

    Attributes:
        size, rank: number of workers, and the place of this one among them.
        is_chief: whether this is worker 0, which alone prints and writes files.

    Raises:
        ValueError: tf_config is malformed, or its port cannot be opened.
        SystemExit: other workers do not answer; names them.
    """

    def __init__(self, tf_config=None, peer_timeout=120):
        self.tasks, self.rank = read_tf_config(tf_config or '{}')
        self.size = len(self.tasks)
        self.is_chief = self.rank == 0
        self._timeout = peer_timeout
        self._target, self._config = '', tf.ConfigProto()
        # With it, TensorFlow 2.21 asks for x though the input of conv3 is fed.
        self._config.graph_options.rewrite_options.dependency_optimization = (
            RewriterConfig.OFF)
        self._finished = threading.Event()
        self._keys = itertools.count(1)
        if self.size == 1:
            return
        if not self.is_chief:
            sys.stdout = open(os.devnull, 'w')
        self._start_server()
        peers = self.tasks[:self.rank] + self.tasks[self.rank + 1:]
        self._wait_for(peers)
        for peer in peers:
            threading.Thread(target=self._watch, args=[peer], daemon=True).start()

        with tf.Graph().as_default() as graph:
            self._words = tf.placeholder(tf.int32, [None])
            self._gathered = self._all_reduce(self._words)
        self._session = tf.Session(self._target, graph, self._config)
        try:
            self._session.run(self._gathered, {self._words: [0]}, tf.RunOptions(
                timeout_in_ms=int(1000 * peer_timeout)))
        except tf.errors.OpError as error:
            sys.exit('All workers answer, but TensorFlow cannot connect them. Have all '
                     'the same version of it, and have all just been started, each '
                     'once? %s' % error.message)

    def session(self):
        """Return a tf.Session in which the tensors of mean can be run."""
        return tf.Session(self._target, config=self._config)

    def mean(self, tensors, count):
        """Return the means over all samples, from those over the count samples here.

        Args:
            tensors: float32 tensors of known shapes; where count is 0 they may be NaN.
            count: scalar float32 tensor.
        """
        if self.size == 1:
            return tensors
        with tf.name_scope('all_workers'):
            sums = [tf.reshape(tf.math.multiply_no_nan(tensor, count), [-1])
                    for tensor in tensors]
            total = self._all_reduce(tf.concat(sums + [[count]], 0))
            *parts, total_count = tf.split(total, [
                tensor.shape.num_elements() for tensor in tensors] + [1])
            return [tf.reshape(part / total_count, tensor.shape)
                    for part, tensor in zip(parts, tensors)]

    def gather(self, array):
        """Return the sum of all workers' arrays, where only one is not zero, exactly.

        Args:
            array: numpy array of one shape for all, of a type of 4 or 8 bytes.
        """
        if self.size == 1:
            return array
        words = np.ascontiguousarray(array).reshape(-1).view(np.int32)
        with self.patience():
            words = self._session.run(self._gathered, {self._words: words})
        return words.view(array.dtype).reshape(array.shape)

    def any(self, flag):
        """Tell whether any worker's flag is true."""
        flags = np.zeros(self.size, np.int32)
        flags[self.rank] = bool(flag)
        return self.gather(flags).any()

    def check_equal(self, settings):
        """Raise a ValueError if not all workers have the values of the chief.

        Args:
            settings: {name: value}.
        """
        if self.size == 1:
            return
        sums = np.zeros((self.size, len(settings)), np.int64)
        sums[self.rank] = [zlib.crc32(repr(value).encode())
                           for value in settings.values()]
        sums = self.gather(sums)
        for rank, place in np.argwhere(sums != sums[0]):
            name = list(settings)[place]
            self.finish()
            raise ValueError('%s differs between %s and %s; here it is %.60r' % (
                name, self._name(self.tasks[0]), self._name(self.tasks[rank]),
                settings[name]))

    def broadcast(self, session):
        """Give the chief's variables to all, unless a digest tells that they are equal.

        Adds no operation to the graph.
        """
        if self.size == 1:
            return
        variables = tf.global_variables()
        digest = hashlib.sha1()
        for variable in variables:
            digest.update(np.ascontiguousarray(session.run(variable)))
        digests = np.zeros((self.size, digest.digest_size), np.int32)
        digests[self.rank] = list(digest.digest())
        digests = self.gather(digests)
        if (digests == digests[0]).all():
            return
        for variable in variables:
            value = np.asarray(session.run(variable))
            value = self.gather(value if self.is_chief else np.zeros_like(value))
            variable.load(value, session)

    def finish(self):
        """Wait for all workers; from then on they may leave."""
        if self.size > 1:
            self.any(False)
            self._finished.set()
            time.sleep(1)  # a peer may still be reading the last piece
            self._server = None  # now, since TensorFlow 1.15 complains at the exit

    @contextlib.contextmanager
    def patience(self):
        """Leave it to the watch to end the process, by name, where a peer is lost."""
        try:
            yield
        except NETWORK_ERRORS as error:
            if self.size == 1:
                raise
            reason = '%s: %s' % (self._name(self.tasks[self.rank]), reason_of(error))
            sys.stderr.write(reason + '\n')
            time.sleep(0.8 * self._timeout)
            raise RuntimeError(reason) from error

    def _start_server(self):
        jobs = {}
        for job, _, address in self.tasks:
            jobs.setdefault(job, []).append(address)
        job, index, address = self.tasks[self.rank]
        # A proxy for downloads is in the way of TensorFlow's servers.
        os.environ['no_grpc_proxy'] = ','.join(
            host_of(address) for _, _, address in self.tasks)
        # A session sees its own task only, so that nothing needs a tf.device.
        self._config.device_filters[:] = ['/job:%s/task:%d' % (job, index)]
        self._config.experimental.collective_group_leader = (
            '/job:%s/replica:0/task:%d' % self.tasks[0][:2])
        try:
            self._server = tf.train.Server(jobs, job, index, config=self._config)
        except tf.errors.OpError as error:
            raise ValueError('TF_CONFIG: the server at %s does not start; is its port '
                             'in use? %s' % (address, error.message))
        self._target = self._server.target

    def _all_reduce(self, tensor):
        # The keys agree, since all workers build the same graphs.
        with tf.device('/cpu:0'):
            return tf.raw_ops.CollectiveReduce(
                input=tensor, group_size=self.size, group_key=1,
                instance_key=next(self._keys), merge_op='Add', final_op='Id',
                subdiv_offsets=[0])

    def _wait_for(self, peers):
        print('Waiting for %d workers' % len(peers), flush=True)
        start = time.time()
        while peers:
            peers = [peer for peer in peers if probe(peer[2]) != 'alive']
            if peers and time.time() - start > self._timeout:
                sys.exit('No answer within %d s from %s' % (
                    self._timeout, ', '.join(map(self._name, peers))))
            time.sleep(0.2)

    def _watch(self, peer):
        """End this process when a peer is gone, or has been silent for too long."""
        heard, refusals = time.time(), 0
        while not self._finished.wait(1):
            state = probe(peer[2])
            if state == 'alive':
                heard = time.time()
            # Once refused, it is gone, even if another process has taken its place.
            if state == 'gone' or refusals:
                refusals += 1
            # Those who leave since they have lost another one shall not be named: that
            # one is found before they have been refused so often.
            if refusals == 5 or time.time() - heard > 0.6 * self._timeout:
                sys.stdout.flush()
                sys.stderr.write(
                    '%s lost %s, which %s. Unless that one tells a reason of its own, '
                    'start all workers again with --resume=True.\n' % (
                        self._name(self.tasks[self.rank]), self._name(peer),
                        'is gone' if refusals == 5 else 'does not answer'))
                sys.stderr.flush()
                os._exit(LOST_A_PEER)

    def _name(self, task):
        return '%s %d (%s)' % task


def reason_of(error):
    """Return what matters of TensorFlow's error: one line of dozens."""
    # It stands between a stack trace and the name of the node.
    return re.search(r'([^\n]+)\n(The error could be .*\n)?\s*\[\[',
                     str(error) + '\n[[').group(1)


def probe(address):
    """Return 'alive', 'gone' or 'silent' for the gRPC server at host:port."""
    port = int(address.rpartition(':')[2])
    try:
        with socket.create_connection((host_of(address), port), 1) as connection:
            # In HTTP/2 the server speaks without being asked.
            return 'alive' if connection.recv(1) else 'silent'
    except ConnectionRefusedError:
        return 'gone'
    except OSError:
        return 'silent'


def host_of(address):
    """Return the host of host:port, without the brackets of IPv6."""
    return address.rpartition(':')[0].strip('[]')


def read_tf_config(text):
    """Return the tasks of a TF_CONFIG, the chief first, and which of them this is.

    A task is (job, index, address). Without a job "chief", worker 0 is the chief.

    Raises:
        ValueError: it is malformed.
    """
    def check(is_right, fault):
        if not is_right:
            raise ValueError('TF_CONFIG: %s\n  expected, for example, %s\n'
                             '  found %.500s' % (fault, EXAMPLE, text))
    try:
        config = json.loads(text)
    except ValueError as error:
        check(False, 'not JSON: %s' % error)
    check(isinstance(config, dict), 'not a JSON object')
    cluster = config.get('cluster') or {}
    check(isinstance(cluster, dict), '"cluster" is not an object')
    tasks = []
    for job in sorted(cluster):
        check(job in ('chief', 'worker'), 'there is no use for a job %r' % job)
        check(isinstance(cluster[job], list), '%r is not a list' % job)
        tasks += [(job, index, address) for index, address in enumerate(cluster[job])]
    if not tasks:
        return [('worker', 0, '')], 0
    for job, index, address in tasks:
        is_address = re.fullmatch(r'[^/\s]+:[0-9]{1,5}', str(address))
        check(is_address and 0 < int(address.rpartition(':')[2]) < 65536,
              '%s %d: %r is not host:port' % (job, index, address))
    check(len({address for _, _, address in tasks}) == len(tasks),
          'an address occurs twice; workers on one host need different ports')
    check(len(cluster.get('chief', [])) <= 1, 'there is more than one chief')
    task = config.get('task')
    check(isinstance(task, dict), '"task" is not an object')
    places = [place for place, (job, index, _) in enumerate(tasks)
              if job == task.get('type') and str(index) == str(task.get('index'))]
    check(places, '"task" is none of the cluster\'s')
    return tasks, places[0]
