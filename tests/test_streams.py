"""Messages that nobody can read any more: what is computed is saved all the same."""
import os
import signal
import subprocess
import sys

import pytest

from helpers import ROOT, Program, checkpoint_of, make_narrow, outputs_in

JOB = ['--train_file=images/test.txt', '--val_file=images/test.txt', '--batch_size=8',
       "--train_layers=['fc8']", '--learning_rate=0.01', '--display_step=1',
       '--num_epochs=999']


def without_space():
    make_narrow()
    os.dup2(os.open('/dev/full', os.O_WRONLY), 2)


def start(folder, narrow_file, setup):
    program = Program('finetune.py', *JOB, *outputs_in(folder),
                      '--weights_path=' + narrow_file, setup=setup)
    for line in program.stdout:
        if 'step 6:' in line:
            return program
    raise AssertionError(program.wait())


def saved(folder):
    """Return how many checkpoints there are in mid-epoch."""
    run = os.path.dirname(checkpoint_of(folder, 1))
    return len([name for name in os.listdir(run)
                if '_step' in name and name.endswith('.index')])


@pytest.mark.usefixtures('narrow_network')
def test_a_reader_that_has_gone_stops_and_saves(tmp_path, narrow_file):
    """As in "| head", and for Ctrl-C, which also ends the tee behind a pipe."""
    program = start(tmp_path, narrow_file, make_narrow)
    program.stdout.close()
    program.process.join()
    assert program.process.exitcode == 128 + signal.SIGPIPE and saved(tmp_path) == 1


@pytest.mark.usefixtures('narrow_network')
def test_a_message_that_cannot_be_written_does_not_keep_from_saving(tmp_path,
                                                                    narrow_file):
    program = start(tmp_path, narrow_file, without_space)
    program.send_signal(signal.SIGTERM)
    status, output = program.wait()
    assert status == 128 + signal.SIGTERM and saved(tmp_path) == 1
    assert 'To go on from there, add --resume=1' in output


@pytest.mark.parametrize('redirection', ['>&-', '2>&-', '<&- >&- 2>&-', '>/dev/full',
                                         '| head -0'])
def test_standard_streams_may_be_closed_or_full(redirection):
    code = ('from machinery.errors import InputError, act_as_script; import sys; '
            'act_as_script(); print("Größe " * 999); print("ö", file=sys.stderr); '
            'raise InputError("%s is wrong" % open("README.md").fileno())')
    done = subprocess.run(
        ['bash', '-c', '%s -c \'%s\' %s; exit ${PIPESTATUS[0]}'
         % (sys.executable, code, redirection)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=dict(os.environ, PYTHONIOENCODING='ascii'))
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 2 and 'Traceback' not in told and 'Exception' not in told
    if '2>&-' not in redirection:
        assert told.endswith('3 is wrong\n')


def test_codes_that_a_terminal_obeys_are_escaped():
    """Names of classes and files may have some; tqdm needs return and up by a line."""
    code = ('from machinery.errors import act_as_script; act_as_script(); '
            r'print("\x1b[31mred\x1b]0;title\x07\b\x7f\x9b2J\ttab\r\x1b[A")')
    told = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE).stdout.decode()
    assert told == (r'\x1b[31mred\x1b]0;title\x07\x08\x7f\x9b2J' '\ttab\r\x1b[A\n')


@pytest.mark.parametrize('value, complaint', [
    ('1e8', "OPENCV_IO_MAX_IMAGE_PIXELS is '1e8', must be an integer"),
    ('200000000', 'usage')])
def test_what_opencv_would_abort_at_is_told(value, complaint):
    done = subprocess.run([sys.executable, 'finetune.py', '--help'], cwd=ROOT,
                          env=dict(os.environ, OPENCV_IO_MAX_IMAGE_PIXELS=value),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.stdout.decode().startswith(complaint)
    assert done.returncode == (value == '1e8')
