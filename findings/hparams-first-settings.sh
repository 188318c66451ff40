#!/usr/bin/env bash
# TensorBoard's HParams page pairs the first settings of a run with its last scores.
#
# tensorboard 2.20.0, Python 3.11. A run that is stopped and goes on writes a second
# event file into its folder, with a session_start_info of its own. One would expect the
# later one to count, as it does for scalars of the same step. But the page keeps the
# hyperparameters that it has read first, and shows the newest metric beside them: below,
# rate 0.1 with the loss of the part that was trained with 0.2.
#
# Output: {'rate': 0.1} 0.2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tensorboard==2.20.0 'setuptools<81'
cd "$folder"
cat > check.py <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.request

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (HParamsPluginData,
                                                         SessionStartInfo)
from tensorboard.summary.writer.event_file_writer import EventFileWriter

for number, rate in enumerate([0.1, 0.2]):
    start = SessionStartInfo()
    start.hparams['rate'].number_value = rate
    values = [Summary.Value(tag=metadata.SESSION_START_INFO_TAG,
                            tensor=metadata.NULL_TENSOR,
                            metadata=metadata.create_summary_metadata(
                                HParamsPluginData(session_start_info=start))),
              Summary.Value(tag='loss', simple_value=rate)]
    writer = EventFileWriter('log/1', filename_suffix='.%d' % number)
    for value in values:
        writer.add_event(Event(wall_time=time.time(), step=number,
                               summary=Summary(value=[value])))
    writer.close()
    time.sleep(1.1)

with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
board = subprocess.Popen(
    [sys.executable, '-m', 'tensorboard.main', '--logdir', 'log', '--port', str(port),
     '--load_fast', 'false'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
request = urllib.request.Request(
    'http://127.0.0.1:%d/data/plugin/hparams/session_groups' % port,
    json.dumps({'experimentName': '', 'startIndex': 0, 'sliceSize': 9,
                'allowedStatuses': ['STATUS_UNKNOWN'],
                'colParams': [{'hparam': 'rate'}]}).encode(),
    {'Content-Type': 'application/json'})
try:
    groups = []
    for _ in range(120):
        time.sleep(0.5)
        try:
            groups = json.load(urllib.request.urlopen(request))['sessionGroups']
        except (OSError, KeyError):
            continue  # it is still starting
        if groups and groups[0]['metricValues']:
            break
finally:
    board.terminate()
[group] = groups
[loss] = group['metricValues']
print(group['hparams'], round(loss['value'], 3))
PYTHON
found=$("$folder/env/bin/python" check.py)
echo "$found"
[ "$found" = "{'rate': 0.1} 0.2" ]
