"""Read labels from the cells of a list, for each kind of labels.

read_class, read_classes and read_numbers return {text: label}. A faulty text gets a
message (a str) in place of its label.
"""
import difflib
import re

from machinery.columns import is_integer, is_number

NONE = '-'  # for a picture without any class
SEPARATOR = re.compile('[,;|]')  # between classes, or else a space


def are_names(texts, names):
    """Tell whether labels are names: any is a known name, or none is an integer."""
    words = {text for text in texts if not is_integer(text)}
    return bool(words & set(names)) or (
        words == set(texts) and not all(map(is_integer, names)))


def read_class(texts, names):
    """Read the number of a class (from 0; 1.0 counts as 1) or its name."""
    known = {name: label for label, name in enumerate(names)}
    if are_names(texts, known):
        return {text: known[text] if text in known else hint_at_name(text, names)
                for text in texts}
    found = {}
    for text in texts:
        found[text] = 'label %.100r is not an integer' % text
        if is_integer(text):
            label = int_of(text)
            found[text] = label if 0 <= label < len(names) else (
                'label %d is not in 0..%d' % (label, len(names) - 1))
    return found


def read_classes(texts, names):
    """Read several classes as a sorted tuple of their numbers, which may be empty."""
    words_in = {text: split_classes(text, names) for text in texts}
    label_of = read_class({word for words in words_in.values() for word in words},
                          names)
    # With two classes, '0 1' may list both classes, or answer no and yes.
    are_bits = len(names) == 2 and {('0', '1'), ('1', '0')} == {
        tuple(words) for words in words_in.values() if len(words) > 1}
    found = {}
    for text, words in words_in.items():
        labels = [label_of[word] for word in words]
        faults = [label for label in labels if isinstance(label, str)]
        if len(set(labels)) < len(labels) and not faults:
            faults = ['a class is listed twice in %.100r%s'
                      % (text, hint_at_bits(words))]
        if are_bits and len(words) > 1:
            faults = ['%.100r is not clear%s' % (text, hint_at_bits(words))]
        found[text] = faults[0] if faults else tuple(sorted(labels))
    return found


def read_numbers(texts, names):
    """Read a tuple of numbers, as many as there are names."""
    found = {}
    for text in texts:
        cells = text if isinstance(text, tuple) else (text,)
        wrong = [cell for cell in cells if not is_number(cell)]
        if len(cells) != len(names):
            found[text] = 'numbers: expected %d, found %d' % (len(names), len(cells))
        elif wrong:
            found[text] = 'label %.100r is not a number like 31.5' % wrong[0]
        else:
            found[text] = tuple(map(float, cells))
    return found


def hint_at_bits(words):
    """Return a hint if the words in a cell look like a 0 or 1 per class, else ''."""
    return ('' if set(words) - {'0', '1', '-1'} else
            ': to give 0 or 1 for each class, name the classes in a header')


def split_classes(text, names):
    """Split a cell into the words for its classes; a tuple is split already."""
    if isinstance(text, tuple):
        return text
    if text in names:
        return [text]
    if text == NONE:
        return []
    words = [word.strip() for word in SEPARATOR.split(text) if word.strip()]
    between_spaces = text.split()
    if len(words) == 1 and all(word in names or is_integer(word)
                               for word in between_spaces):
        return between_spaces
    return words


def is_ambiguous(text):
    """Tell whether an unknown text may be a single class or several."""
    return isinstance(text, str) and ' ' in text and not SEPARATOR.search(text) and (
        not all(map(is_integer, text.split())))


def are_plain(names):
    """Tell whether classes are called 0, 1 and so on, because they have no names."""
    return names == list(map(str, range(len(names))))


def int_of(text):
    """Return text as an integer; '1.0' is 1."""
    return int(text.split('.')[0])


def hint_at_name(text, names):
    """Return the message for an unknown class name."""
    near = difflib.get_close_matches(text, names, 1, 0.4)
    return 'no class is called %.100r; the %s' % (
        text, 'nearest is %r' % near[0] if near else
        'classes are %.200s' % ', '.join(names))


def hint_at_kind(texts):
    """Return [a hint] if single-class labels look like another kind, else []."""
    if all(map(is_number, texts)) and not all(map(is_integer, texts)):
        return ["if these are numbers, not classes, set labels = 'numbers'"]
    if any(SEPARATOR.search(text) for text in texts):
        return ["for several classes per picture, set labels = 'classes'"]
    return []


def hint_at_range(texts, names):
    """Return [a hint] if integers are not all class numbers, else []."""
    labels = [int_of(text) for text in texts if is_integer(text)]
    if are_names(texts, names):
        return []
    low, high = min(labels, default=0), max(labels, default=0)
    if 0 <= low and high < len(names):
        return []
    return ['the labels run %d..%d, but labels start at 0 and num_classes is %d'
            % (low, high, len(names))]
