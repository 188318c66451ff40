"""Export a SavedModel, for TensorFlow Serving and other programs."""
import contextlib
import os
import tempfile

import numpy as np

from machinery.errors import InputError, input_errors, open_plain
from machinery.lists import read_list
from machinery.model_file import read_model
from machinery.picture_header import inspect
from machinery.picture_ops import preprocess
from machinery.text import printable
from machinery.tf1 import reason_of, session_config, tf

COMPARED = 32  # pictures at most


def pictures_to_compare(weights_path, kind, load):
    """Yield (path, content, image) of some pictures of the validation list.

    Leaves out those that training has skipped.
    """
    model = read_model(weights_path)
    try:
        paths, _, _ = read_list(model.get('val_list') or '', kind, False,
                                model.get('pictures_path'))
    except InputError:
        paths = []
    for path in paths[::1 + len(paths) // COMPARED]:
        with contextlib.suppress(InputError, OSError):
            with open_plain(path) as file:
                content = file.read()
            yield path, content, load(path)


def compare(session, pictures, faults, images, outputs, examples):
    """Raise an InputError if the export differs from predict.py in an example.

    Prints how many of them the export refuses, and if none is left to compare.
    pictures, faults, images and outputs are tensors of the export.
    """
    count, refused = 0, []
    for path, content, image in examples:
        try:
            found, expected = [session.run(outputs, feed) for feed in (
                {pictures: [content]}, {images: image[None]})]
        except tf.errors.InvalidArgumentError as error:
            [fault] = session.run(faults, {pictures: [content]})
            # Pixels may be damaged; anything else is a fault of the graph.
            if not fault and not error.op.type.startswith('Decode'):
                raise
            refused.append(printable('%s: %s' % (
                path, fault.decode() or reason_of(error))))
            continue
        difference = np.abs(found - expected).max()
        if difference > 1e-3:
            raise InputError(
                '%s: the export would give other predictions than predict.py (by '
                '%.3f). Was load_image changed, but not preprocess in '
                'machinery/picture_ops.py? Or TensorFlow reads such a file in '
                'another way than OpenCV' % (path, difference))
        count += 1
    if refused:
        print('Warning: of %d pictures of the validation list that were tried, the '
              'export refuses %d; the first is %s'
              % (len(refused) + count, len(refused), refused[0]))
    if not count:
        print('Warning: the export was not compared with predict.py, since it can read '
              'no picture of the validation list')


@input_errors()
def export_model(build, kind, folder, preprocessing, grey, examples):
    """Write a SavedModel that classifies the bytes of picture files.

    Its signature serving_default takes pictures, a string tensor (n,) of JPEG or PNG
    files, and fails as preprocess does if it refuses one; it returns
    probabilities, class_ids and names, each (n, number of classes), the most probable
    class first; with numbers, numbers (n, width) and their names (width,).

    The signature images takes the network's input, float32 (n, 227, 227, 3), and
    returns probabilities (or numbers) alone, in the order of the names in labels.txt,
    a file that it writes into the folder: other libraries know no strings.

    Args:
        build: function from uint8 images, as load_image returns them, to an AlexNet.
        kind: what its outputs mean, one of machinery.labels.
        folder: must not exist; it appears when it is complete.
        preprocessing: the arguments of load_image: size, margin, reducing_gap, resize.
        grey: the colour with which resize = 'pad' pads, blue first.
        examples: (path, content, image) of pictures for which the export must give
            the same as predict.py, or refuse them.

    Raises:
        InputError: the folder cannot be written; or the export sees a picture
            differently from training; names it.
    """
    folder = os.path.abspath(folder)
    parent, name = os.path.split(folder)
    place = parent
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    graph = tf.Graph()
    with tempfile.TemporaryDirectory(prefix=name + '.', dir=place) as temporary, \
            graph.as_default(), tf.Session(config=session_config()) as session:
        part = os.path.join(temporary, name)  # with the permissions of a new folder
        pictures = tf.placeholder(tf.string, [None], 'pictures')
        headers = inspect(pictures)
        images = preprocess(pictures, headers, grey=grey, **preprocessing)
        model = build(images)
        values = kind.outputs(model.logits)
        if kind.name == 'numbers':
            plain = {'numbers': values}
            named = {'numbers': values, 'names': tf.constant(kind.names)}
        else:
            plain = {'probabilities': values}
            probabilities, class_ids = tf.nn.top_k(values, kind.width)
            named = {'probabilities': probabilities, 'class_ids': class_ids,
                     'names': tf.gather(tf.constant(kind.names), class_ids)}
        model.load_initial_weights(session)
        # Numbers may have any unit; logits have the same scale for all of them.
        compared = model.logits if kind.name == 'numbers' else values
        compare(session, pictures, headers[0], images, compared, examples)
        builder = tf.saved_model.Builder(part)
        builder.add_meta_graph_and_variables(session, ['serve'], {
            'serving_default': tf.saved_model.predict_signature_def(
                {'pictures': pictures}, named),
            'images': tf.saved_model.predict_signature_def(
                {'images': model.X}, plain)})
        builder.save()
        with open(os.path.join(part, 'labels.txt'), 'w', encoding='utf-8') as file:
            file.write(''.join(name + '\n' for name in kind.names))
        os.makedirs(parent, exist_ok=True)
        if os.path.lexists(folder):
            raise InputError('%s has been made by another program meanwhile; nothing '
                             'in it was changed' % folder)
        os.rename(part, folder)
