"""Split pictures at random; adding pictures later never moves the others."""
import argparse
import hashlib
import os
import re
from bisect import bisect
from collections import Counter

import numpy as np

from machinery.errors import InputError


def pattern(text):
    """Return a compiled regular expression, or raise argparse's error."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError('%r: %s' % (text, error))


def find_groups(folder, paths, pattern):
    """Return {path: its match of a pattern, as bytes}.

    Parentheses in the pattern choose the part. Raises an InputError without a match.
    """
    group_of = {}
    for path in paths:
        name = os.path.relpath(path, folder).replace(os.sep, '/')
        match = pattern.search(name)
        group = match and match.group(min(1, pattern.groups))
        if group is None:
            raise InputError('--group %s: finds nothing in the path %s'
                             % (pattern.pattern, name))
        group_of[path] = group.encode()
    return group_of


def place_of(unit, seed):
    """Return a random number in [0, 1) for the bytes of a unit, always the same."""
    digest = hashlib.sha256(b'%d ' % seed + unit).digest()
    return int.from_bytes(digest[:6], 'big') / 2 ** 48


def assign(units_of, shares, seed):
    """Return {unit: the number of its share} for {label: set of its units}.

    A unit stays together. Its place alone decides its share, with an exception: if a
    share has no unit of a class, it gets the nearest, if the class has enough.
    """
    ends = [0, *np.cumsum(shares) / np.sum(shares)]
    place, labels_of, counts = {}, {}, {}
    for label, units in units_of.items():
        for unit in units:
            place[unit] = place_of(unit, seed)
            labels_of.setdefault(unit, []).append(label)
    share_of = {unit: bisect(ends[1:-1], place[unit]) for unit in place}
    for label, units in units_of.items():
        counts[label] = Counter(share_of[unit] for unit in units)
    for label, units in units_of.items():
        for share, (start, end) in enumerate(zip(ends, ends[1:])):
            if counts[label][share]:
                continue
            # A unit its share can spare, or else a unit of a less important share.
            spare = [unit for unit in units if all(
                counts[other][share_of[unit]] > 1 for other in labels_of[unit])]
            spare = spare or [unit for unit in units if share_of[unit] > share]
            if spare:
                unit = min(spare, key=lambda unit: max(start - place[unit],
                                                       place[unit] - end))
                for other in labels_of[unit]:
                    counts[other].update({share_of[unit]: -1, share: 1})
                share_of[unit] = share
    return share_of
