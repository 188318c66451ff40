"""Several workers on this machine."""
import json
import socket


def tf_configs(size):
    """Return TF_CONFIG of each of some workers with free ports, the chief's first."""
    sockets = [socket.socket() for _ in range(size)]
    for one in sockets:
        one.bind(('127.0.0.1', 0))
    addresses = ['127.0.0.1:%d' % one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    cluster = {'chief': addresses[:1], 'worker': addresses[1:]}
    return [json.dumps({'cluster': cluster, 'task': {
        'type': 'worker' if rank else 'chief', 'index': max(0, rank - 1)}})
        for rank in range(size)]
