"""Several machines, or several GPUs, train one network together.

Each worker trains on its own share of the samples, and TensorFlow's ring all-reduce
(Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of
Workstations", JPDC 2009) gives the mean of their gradients to all. TensorFlow's servers
ask for no password: use a private network only.
"""
import contextlib
import hashlib
import itertools
import os
import socket
import sys
import threading
import time
import zlib

import numpy as np

from machinery.cluster import find_tasks
from machinery.errors import InputError
from machinery.rules import setting_of
from machinery.streams import BROKEN
from machinery.tf1 import TimedSession, assign, reason_of, session_config, tf

LOST_A_PEER = 75  # exit status: try again, with resume
NAME = '%s %d (%s)'  # of a worker: job, index and address
NETWORK_ERRORS = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError,
                  tf.errors.AbortedError, tf.errors.CancelledError,
                  tf.errors.InternalError, tf.errors.UnknownError)


def start_workers(settings):
    """Return the Workers named in the environment; InputError if settings differ."""
    workers = Workers(*find_tasks(), settings['peer_timeout'])
    workers.check_equal({name: value for name, value in settings.items()
                         if not setting_of(name).may_differ})
    return workers


class Workers:
    """All workers of a run, and how this process talks to the others.

    Every worker must make the same calls in the same order.

    Args:
        tasks, rank: from find_tasks; by default, there is a single worker.
        peer_timeout: seconds; if a worker stops answering, this process ends within
            this time, with status 75.

    Attributes:
        size, rank, shard: the number of workers, our place, and (rank, size).
        is_chief: whether this is worker 0; no other worker prints and writes.
    """

    def __init__(self, tasks=(None,), rank=0, peer_timeout=120):
        self.tasks, self.rank, self.size = tasks, rank, len(tasks)
        self.shard = (self.rank, self.size)
        self.is_chief = self.rank == 0
        self._timeout = peer_timeout
        self._finished = threading.Event()
        self._target, self._config = '', session_config()
        self._keys = itertools.count(1)
        if self.size == 1:
            return
        if not self.is_chief:
            sys.stdout = open(os.devnull, 'w')
        self._start_server()
        peers = tasks[:rank] + tasks[rank + 1:]
        self._wait_for(peers)
        for peer in peers:
            threading.Thread(target=self._watch, args=[peer], daemon=True).start()

        with tf.Graph().as_default() as graph:
            self._words = tf.placeholder(tf.int32, [None])
            self._merged = self._all_reduce(self._words)
        self._session = TimedSession(self._target, graph, self._config)
        try:
            self._session.run(self._merged, {self._words: [0]}, tf.RunOptions(
                timeout_in_ms=int(1000 * peer_timeout)))
        except tf.errors.OpError as error:
            sys.exit('%s\nAll workers answer, but TensorFlow cannot connect them. Do '
                     'all have the same cluster in TF_CONFIG and the same version of '
                     'TensorFlow, and was each started just once?' % error.message)

    @contextlib.contextmanager
    def session(self):
        """Give a tf.Session for the tensors of mean."""
        with TimedSession(self._target, config=self._config) as session, self._naming():
            yield session

    def mean(self, structure):
        """Average float32 tensors of known shapes, in lists or dicts, over workers."""
        if self.size == 1:
            return structure
        tensors = tf.nest.flatten(structure)
        with tf.name_scope('all_workers'):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
            parts = tf.split(self._all_reduce(flat) / self.size,
                             [tensor.shape.num_elements() for tensor in tensors])
            return tf.nest.pack_sequence_as(structure, [
                tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)])

    def merge(self, array):
        """Add up arrays exactly; each element must be 0 on all workers but one."""
        if self.size == 1:
            return array
        # As int32 words, because a sum of floats would lose the sign of -0 and the
        # bits of a NaN. So elements must have 4 or 8 bytes.
        words = np.ascontiguousarray(array).reshape(-1).view(np.int32)
        with self._naming():
            words = self._session.run(self._merged, {self._words: words})
        return words.view(array.dtype).reshape(array.shape)

    def collect(self, values, dtype):
        """Return an array whose rows are the values of the workers."""
        values = np.asarray(values, dtype)
        rows = np.zeros((self.size,) + values.shape, dtype)
        rows[self.rank] = values
        return self.merge(rows)

    def any(self, flag):
        """Tell whether any worker's flag is true."""
        return self.collect(bool(flag), np.int32).any()

    def gather(self, batches):
        """Return {name: array of all samples in list order} of our batches' values."""
        return {name: self._gather(np.concatenate([batch[name] for batch in batches]))
                for name in batches[0]}

    def _gather(self, share):
        counts = self.collect(len(share), np.int32)
        # Skipped pictures may have made some shares shorter than others.
        turns = np.concatenate([np.arange(count) for count in counts])
        owners = np.repeat(np.arange(self.size), counts)[turns.argsort(kind='stable')]
        whole = np.zeros((len(owners), *share.shape[1:]), share.dtype)
        whole[owners == self.rank] = share
        return self.merge(whole)

    def check_equal(self, values):
        """Raise an InputError if {name: value} is not the same on all workers."""
        sums = self.collect([zlib.crc32(repr(value).encode())
                             for value in values.values()], np.int64)
        for rank, column in np.argwhere(sums != sums[0]):
            name = list(values)[column]
            self.finish()
            raise InputError('%s differs between %s and %s; here it is %.60r' % (
                name, self.name_of(0), self.name_of(rank), values[name]))

    def broadcast(self, session):
        """Give the chief's variables to all, without adding operations to the graph."""
        if self.size == 1:
            return
        for variable in tf.global_variables():
            value = np.asarray(session.run(variable))
            # Most are equal already, and digests are faster to send.
            digest = hashlib.sha1(value.tobytes()).digest()
            digests = self.collect(list(digest), np.int32)
            if (digests != digests[0]).any():
                value = self.merge(value if self.is_chief else np.zeros_like(value))
                assign(session, variable, value)

    def finish(self):
        """Wait for all workers; from then on they may leave."""
        if self.size > 1:
            self.any(False)
            self._finished.set()
            time.sleep(1)  # a peer may still be reading the last piece
            self._server = None  # now, because TensorFlow 1.15 complains at the exit

    def leave(self, status, message):
        """End this process like all other workers; the chief prints the message."""
        self.finish()
        # Other workers' standard output is closed, and so is ours after "| head".
        print(message, flush=True, file=sys.stderr if 1 in BROKEN else sys.stdout)
        sys.exit(status)

    def name_of(self, rank):
        """Return a worker's name: job, index and address."""
        return NAME % self.tasks[rank]

    @contextlib.contextmanager
    def _naming(self):
        """On a network error, let the watch name the lost peer and end the process."""
        try:
            yield
        except NETWORK_ERRORS as error:
            if self.size == 1:
                raise
            reason = '%s: %s' % (self.name_of(self.rank), reason_of(error))
            sys.stderr.write(reason + '\n')
            time.sleep(0.8 * self._timeout)
            raise RuntimeError(reason) from error

    def _start_server(self):
        jobs = {}
        for job, _, address in self.tasks:
            jobs.setdefault(job, []).append(address)
        job, index, address = self.tasks[self.rank]
        # TensorFlow's servers must not go through a proxy for downloads.
        os.environ['no_grpc_proxy'] = ','.join(
            split(address)[0] for _, _, address in self.tasks)
        # A session sees only its own task, so nothing needs a tf.device.
        self._config.device_filters[:] = ['/job:%s/task:%d' % (job, index)]
        self._config.experimental.collective_group_leader = (
            '/job:%s/replica:0/task:%d' % self.tasks[0][:2])
        try:
            self._server = tf.train.Server(jobs, job, index, config=self._config)
        except tf.errors.OpError as error:
            raise InputError('TF_CONFIG: the server at %s does not start. Is its port '
                             'in use? %s' % (address, error.message))
        self._target = self._server.target

    def _all_reduce(self, tensor):
        # The keys agree because all workers build the same graphs.
        with tf.device('/cpu:0'):
            return tf.raw_ops.CollectiveReduce(
                input=tensor, group_size=self.size, group_key=1,
                instance_key=next(self._keys), merge_op='Add', final_op='Id',
                subdiv_offsets=[0])

    def _wait_for(self, peers):
        print('Waiting for', ', '.join(NAME % peer for peer in peers), flush=True)
        start = time.monotonic()
        while peers:
            if time.monotonic() - start > self._timeout:
                sys.exit('No answer within %d s from %s' % (
                    self._timeout, ', '.join(NAME % peer for peer in peers)))
            time.sleep(0.2)
            peers = [peer for peer in peers if probe(peer[2]) != 'alive']

    def _watch(self, peer):
        """End this process when a peer is gone, or has been silent for too long."""
        heard, refusals = time.monotonic(), 0
        stderr = os.dup(2)  # the check of pictures diverts the original
        while not self._finished.wait(1):
            state = probe(peer[2])
            if state == 'alive':
                heard = time.monotonic()
            # After a refusal the peer is gone, even if another process takes its place.
            if state == 'gone' or refusals:
                refusals += 1
            # Do not blame a peer for quitting because it lost a third worker: five
            # refusals give us time to notice that loss ourselves.
            if refusals == 5 or time.monotonic() - heard > 0.6 * self._timeout:
                sys.stdout.flush()
                os.write(stderr, (
                    '%s lost %s, which %s. Unless it tells another reason, start all '
                    'workers again with --resume=True.\n' % (
                        self.name_of(self.rank), NAME % peer,
                        'is gone' if refusals == 5 else 'does not answer')).encode())
                os._exit(LOST_A_PEER)


def probe(address):
    """Return whether the gRPC server at host:port is 'alive', 'gone' or 'silent'."""
    try:
        with socket.create_connection(split(address), 1) as connection:
            # In HTTP/2 the server speaks without being asked.
            return 'alive' if connection.recv(1) else 'silent'
    except ConnectionRefusedError:
        return 'gone'
    except OSError:
        return 'silent'


def split(address):
    """Return host and port of "host:port", the host without the brackets of IPv6."""
    host, _, port = address.rpartition(':')
    return host.strip('[]'), int(port)
