"""Labels: the classes of a set in their order, and the number of each picture's.

A label is a name, or a whole number from 0 up. Names are numbered in the order of their text. Numbers count up to the
largest, also those that no picture has, but at most `MOST_NUMBERS` for each that one has: beyond, they are no numbers
of classes. A picture without a label (null or NaN) has no class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from whitebench import TaskDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from whitebench_tasks.images.options import ImageOptions

MOST_NUMBERS = 1000
"""Of classes, for each that has a picture."""


def is_unlabelled(table: Any, label: str) -> bool:
    """Return whether the labels are kept back, as those of ImageNet's test split are: all are -1 or none."""
    return all(_is_missing(value) or value == -1 for value in table.unique(label))


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def classes_of(options: ImageOptions, tables: Mapping[str, Any], label: str) -> list[str]:
    """Return the names of the classes, in the order of their numbers.

    Raises:
        TaskDataError: there are not two, or not those of the set, or their numbers count further than there are labels.
    """
    found = {value for table in tables.values() for value in table.unique(label) if not _is_missing(value)}
    fixed = options.origin.classes
    named: list[list[str]] = [getattr(table.features[label], "names", None) or [] for table in tables.values()]
    classes: Sequence[object]
    if named and all(named):
        classes = named[0]
    elif all(isinstance(value, int) for value in found):
        classes = range(max([value + 1 for value in found] + [fixed]))
    else:
        classes = sorted(map(str, found))
    if fixed and len(classes) != fixed:
        raise TaskDataError(f"{options.task}: it has {fixed} classes, and there are {len(classes)}: is this the set?")
    if len(found) < 2:
        raise TaskDataError(
            f"{options.task}: {'all pictures are of one class' if found else 'there are no classes'}: to be told "
            "apart they need two or more, each in a folder or under a label of its own"
        )
    if isinstance(classes, range) and len(classes) > MOST_NUMBERS * len(found):
        raise TaskDataError(
            f"{options.task}: its labels count up to {classes[-1]}, and {len(found)} of these numbers have pictures: "
            f"count classes from 0, at most {MOST_NUMBERS:,} for each that has pictures, or write labels as text"
        )
    return [str(one) for one in classes]


def numbers_of(options: ImageOptions, name: str, values: Any, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each label of a split.

    Raises:
        TaskDataError: a picture has none of the classes; says which.
    """
    number_of = {text: number for number, text in enumerate(classes)}
    numbers = [_number(value, number_of) for value in values]
    strange = [row for row, number in enumerate(numbers) if not 0 <= number < len(classes)]
    if strange:
        raise TaskDataError(
            f"{options.task}: row {strange[0]} of its {name} split has the label {values[strange[0]]!r}; labels are 0 "
            f"to {len(classes) - 1}, or names of the {len(classes)} classes"
        )
    return np.array(numbers, dtype=np.int64)


def _number(value: object, number_of: Mapping[str, int]) -> int:
    if isinstance(value, int):
        return value
    return -1 if _is_missing(value) else number_of.get(str(value), -1)
