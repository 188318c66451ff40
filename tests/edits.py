"""Follow each recipe of docs/recipes.md, and compare what must be equal.

    python tests/edits.py [TITLE ...]   train, resume, predict, export with each of them
    python tests/edits.py --renew       after a change of the scripts: renew the diffs

A table tells for each recipe:
    train    it trains, or is refused with one message
    resume   stopped in the middle of an epoch and resumed, it ends with the same
             weights, to the bit
    cache    without stored features, it has the same scores
    predict  predict.py has the accuracy on the validation list that training printed
    export   a SavedModel has the probabilities that predict.py has written
The status is 1 if any of these is WRONG. The network is narrow, and the lists have 12
pictures, so that each recipe takes half a minute on two cores.
"""
import argparse
import csv
import os
import re
import signal
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import helpers
from helpers import ROOT
from machinery.checkpoint_files import find_weights
from machinery.tf1 import tf
from recipes import (DIFF, SCRIPTS, copy_scripts, make_narrow, read_lines, read_recipes,
                     renew)

CHECKS = ['train', 'resume', 'cache', 'predict', 'export']
OPTIONS = {  # what a recipe asks for
    'fc7 with 256 units': ["--skip_layers=['fc7','fc8']"],
    'Batch normalisation': ['--train_layers=conv1,fc8', "--skip_layers=['fc8']"],
    'Grey pictures': ['--train_layers=conv1,fc8'],
    'A network of your own': ['--weights_path=None', '--train_layers=conv5_2,fc8']}
SMALLER = {  # numbers for epochs of three steps
    'Warm-up, then a cosine': ('step / 100', 'step / 3'),
    'fc7 frozen after epoch 3': ('epoch <= 3', 'epoch <= 1'),
    'Validation every 100 steps': ('step % 100', 'step % 2')}
LEFT_OUT = {  # (recipe, check): the reason
    ('Mixup', 'cache'): 'features cannot be stored, so it says'}
CALLERS = {'Five learning rates': 'sweep.py', 'Five folds': 'folds.py'}
NOT_RUN = {  # by this script; tests/test_recipes.py does
    'Batches of your own': 'it needs a file of yours', 'A camera': 'no edit',
    'One more class': 'no edit', 'Predict from your own program': 'no edit',
    'None of these': 'no edit'}


class Refused(Exception):
    """A script has ended with one message."""


class Wrong(Exception):
    """Something differs that must be equal."""


class Edited:
    """The scripts with a recipe, which train a narrow network on a few pictures.

    Args:
        folder: for the scripts and all that they write.
        shared: holds train.txt, val.txt, narrow.npy, and a store of features.
    """

    def __init__(self, folder, shared, title, diff):
        self.folder, self.shared, self.title = folder, shared, title
        copy_scripts(folder, diff)
        make_narrow(folder)
        path = os.path.join(folder, 'finetune.py')
        text = ''.join(read_lines(path)).replace(*SMALLER.get(title, ('', '')))
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        for name in SCRIPTS:
            sys.modules.pop(name[:-len('.py')], None)
        sys.path[0] = folder
        os.chdir(folder)

    def run(self, script, *arguments, status=0, **kwargs):
        """Run a script; return its output. Another status than this is a fault."""
        found, output = helpers.run_program(os.path.join(self.folder, script),
                                            *arguments, **kwargs)
        if found == 2 and 'Traceback' not in output:
            raise Refused(output.strip().splitlines()[-1])
        if found != status:
            raise Wrong('status %s: ...%s' % (found, output[-500:]))
        return output

    def arguments(self, out):
        """Return the arguments of finetune.py for the output folder out."""
        return helpers.outputs_in(os.path.join(self.folder, out)) + [
            '--num_epochs=2', '--batch_size=4', '--learning_rate=0.01',
            '--train_layers=fc7,fc8', '--display_step=1',
            '--train_file=%s/train.txt' % self.shared,
            '--val_file=%s/val.txt' % self.shared,
            '--weights_path=%s/narrow.npy' % self.shared,
            '--features_path=%s/features' % self.shared, *OPTIONS.get(self.title, [])]

    def finetune(self, out, *arguments, **kwargs):
        return self.run('finetune.py', *self.arguments(out), *arguments, **kwargs)

    def weights(self, out, number=1):
        """Return the variables of the last checkpoint of a run."""
        return helpers.tensors(find_weights('%s/%s/new/checkpoints/%d' % (
            self.folder, out, number), newest=True))

    def train(self):
        self.output = self.finetune('out')

    def resume(self):
        def stop(text):
            if 'Epoch 2/2, step ' in text and signal.SIGINT in left:
                left.clear()
                os.kill(os.getpid(), signal.SIGINT)

        left = [signal.SIGINT]
        self.finetune('stopped', status=130, react=stop)
        self.finetune('stopped', '--resume=True')
        if not helpers.same(self.weights('stopped'), self.weights('out')):
            raise Wrong('other weights')

    def cache(self):
        scores = [list(map(float, re.findall(r'(?:\w+) (-?\d+\.\d{4})', ''.join(
            re.findall('Epoch ./2: validation (.*)', output)))))
            for output in (self.output, self.finetune('uncached',
                                                      '--cache_features=False'))]
        if not scores[0] or not np.allclose(*scores, rtol=0, atol=2e-3):
            raise Wrong('scores %s and %s' % tuple(scores))

    def predict(self):
        epoch, name, best = re.search(
            'Best: .*, of epoch (.*), validation (.*) (.*)', self.output).groups()
        if name != 'accuracy':
            best = re.search('Epoch %s/2: validation .*?accuracy ([0-9.]+)' % epoch,
                             self.output).group(1)
        # The recipe holds out a fifth of the training list.
        listed = 'train.txt.held_out' if self.title == 'Folds' else 'val.txt'
        output = self.run('predict.py', os.path.join(self.shared, listed),
                          '--checkpoint=%s/out/new/checkpoints' % self.folder,
                          '--predictions_file=predictions.csv')
        found = re.search('Accuracy: ([0-9.]+)', output).group(1)
        if found != best:
            raise Wrong('accuracy %s in training, %s in prediction' % (best, found))

    def export(self):
        self.run('predict.py', '--export_path=served',
                 '--checkpoint=%s/out/new/checkpoints' % self.folder)
        with open('predictions.csv', encoding='utf-8-sig') as file:
            rows = list(csv.DictReader(file))
        with tf.Graph().as_default(), tf.Session() as session:
            tf.saved_model.load(session, ['serve'], 'served')
            pictures = []
            for row in rows:
                with open(row['path'], 'rb') as file:
                    pictures.append(file.read())
            found = session.run('TopKV2:0', {'pictures:0': pictures})
        expected = [[float(row['probability_%d' % rank]) for rank in (1, 2, 3)]
                    for row in rows]
        if not np.allclose(found, expected, rtol=0, atol=2e-3):
            raise Wrong('probabilities differ by %.4f' % np.abs(found - expected).max())

    def caller(self):
        """Of five runs that one script makes, the second is like one on its own."""
        script, first, second = CALLERS[self.title], [], ['--learning_rate=0.001']
        if script == 'folds.py':
            first = [self.shared + '/train.txt']
            second = ['--%s_file=%s/train.fold1.%s.txt' % (name, self.shared, name)
                      for name in ('train', 'val')]
        self.run(script, *first, *self.arguments('out'))
        self.finetune('alone', *second)
        self.weights('out', 5)
        if not helpers.same(self.weights('out', 2), self.weights('alone')):
            raise Wrong('its second run differs from one on its own')


def write_shared(folder):
    """Write the lists and weights that all recipes use."""
    for name, first in [('train', 0), ('val', 4)]:
        lines = read_lines(os.path.join(ROOT, 'images', name + '.txt'))
        chosen = [lines[first + step * len(lines) // 12] for step in range(11)]
        with open(os.path.join(folder, name + '.txt'), 'w') as file:
            lines = [os.path.join(ROOT, 'images', line)
                     for line in chosen + lines[-1:]]
            file.writelines(lines)
        with open(os.path.join(folder, name + '.txt.held_out'), 'w') as file:
            file.writelines(lines[::5])
    helpers.make_narrow()
    helpers.write_narrow_weights(os.path.join(folder, 'narrow.npy'))


def follow(title, diff, shared):
    """Follow a recipe; return {check: 'ok', or 'refused: ' or 'WRONG: ' and why}."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        edited = Edited(folder, shared, title, diff)
        for name in ['caller'] if title in CALLERS else CHECKS:
            try:
                if (title, name) in LEFT_OUT:
                    found[name] = '-: ' + LEFT_OUT[title, name]
                    continue
                getattr(edited, name)()
                found[name] = 'ok'
            except Refused as error:
                found[name] = 'refused: %s' % error
            except Exception as error:  # a bug of ours is no recipe that works
                found[name] = 'WRONG: %s: %s' % (type(error).__name__, error)
            if found.get('train', 'ok') != 'ok':  # there is nothing to compare
                break
        os.chdir(ROOT)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('titles', nargs='*', metavar='TITLE')
    parser.add_argument('--renew', action='store_true')
    args = parser.parse_args()
    if args.renew:
        faults = renew()
        sys.exit('\n'.join(['Not renewed:'] + faults) if faults else 0)
    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    recipes, found = read_recipes(), {}
    with tempfile.TemporaryDirectory() as shared:
        write_shared(shared)
        for title in args.titles or [name for name in recipes if name not in NOT_RUN]:
            [diff] = DIFF.findall(recipes[title])
            found[title] = follow(title, diff, shared)
            print('%-32s %s' % (title, '  '.join(
                '%s %s' % (name, told.split(':')[0])
                for name, told in found[title].items())), flush=True)
            for name, told in found[title].items():
                if told != 'ok':
                    print('    %s %s' % (name, told), flush=True)
    sys.exit(any(told.startswith('WRONG') for row in found.values()
                 for told in row.values()))


if __name__ == '__main__':
    main()
