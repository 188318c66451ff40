"""Name the steps that an edited loop forgot, before they spoil a model."""
import re

from machinery.errors import InputError
from machinery.tf1 import prevent_feeding, tf

STATISTICS = r'moving_|running_'  # in variable names of batch normalisation
AVERAGE = '/ExponentialMovingAverage'  # ends TensorFlow's names of averages
UPDATES = 'Resource(Sparse)?Apply|Assign(Add|Sub)Variable'  # by a training step


def check_graph(model, placeholders):
    """Raise an InputError if a training step would bypass a part of the graph.

    From here on, tensors computed from the placeholders cannot be fed, except layers of
    the model. Otherwise the loop, which feeds y, would silently bypass an edit like
    y = 0.9 * y + 0.05.
    """
    prevent_feeding(placeholders, [
        value for name, value in vars(model).items()
        if tf.is_tensor(value) and name not in ('X', 'KEEP_PROB')])
    check_trained(model)
    if model.bottleneck is not model.X:
        check_frozen(model)


def check_trained(model):
    """Raise an InputError if no step updates a trainable variable of trained layers."""
    frozen = set(model.variables) - set(model.train_layers)
    for variable in model.added:
        name = variable.op.name[len(model.scope):]
        if variable.trainable and name.split('/')[0] not in frozen and not any(
                re.match(UPDATES, user.type) for user in variable.handle.consumers()):
            raise InputError(
                'Nothing trains the variable %s: create it in a tf.variable_scope '
                'named like a layer in train_layers, or with trainable=False' % name)


def check_frozen(model):
    """Raise an InputError if frozen layers depend on a number that the loop may feed.

    They only see its default. A bool like is_training is meant for trained layers.
    """
    operations = [model.bottleneck.op]
    for operation in operations:  # grows in this loop
        operations += {tensor.op for tensor in operation.inputs}.difference(operations)
        if (operation.type == 'PlaceholderWithDefault' and
                operation.outputs[0].dtype != tf.bool and
                operation.outputs[0] is not model.KEEP_PROB):
            raise InputError(
                'The frozen layers depend on %s, but the loop feeds their features, '
                'which are computed once, with its default: train all layers, or '
                'change the pictures in the training generator' % operation.name)


def find_unused(best_values):
    """Return an InputError if there are moving averages, but not in the best model."""
    averages = [variable.op.name for variable in tf.global_variables()
                if variable.op.name.endswith(AVERAGE)]
    if averages and best_values is None:
        return InputError(
            'There are moving averages, like %s, but nothing uses them: score them, '
            'and give them to run.save as best_values, as docs/recipes.md does'
            % averages[0])


class Moving:
    """Variables that every epoch must change: the global step and moving statistics.

    Args:
        session: has their values.
        settings: statistics outside its train_layers need not change.
    """

    def __init__(self, session, settings):
        self._session = session
        self._variables = [tf.train.get_global_step()] + [
            variable for variable in tf.global_variables()
            if re.search(STATISTICS, variable.op.name) and not variable.trainable and
            variable.op.name.split('/')[0] in settings['train_layers']]
        self._before = session.run(self._variables)

    def find_fault(self):
        """Return an InputError if any of them has not changed, else None."""
        for variable, before, now in zip(
                self._variables, self._before, self._session.run(self._variables)):
            if (before == now).all():
                return InputError('No step of this epoch has changed %s: %s' % (
                    variable.op.name, 'give it to apply_gradients'
                    if variable is self._variables[0] else 'run its update together '
                    'with train_op; if that needs keep_prob < 1, dropout_rate must not '
                    'be 0'))
