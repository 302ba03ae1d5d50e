"""Errors: one tree, as drawn; reasons survive a trip between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from ironmask import errors

TREE = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def drawn_parents():
    """Parent of each class in the drawing, from its indentation."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^ *((?:[│├└─]|   )[│├└─ ]*)?(\w+Error)\b", line)
        if found and not line.startswith("Every"):
            depth = line.index(found.group(2)) // 4
            path = [*path[: depth - 1], found.group(2)]
            parents[found.group(2)] = path[-2] if len(path) > 1 else None
    return parents


def test_the_drawing_is_the_tree():
    actual = {
        name: next((b.__name__ for b in kind.__bases__ if b.__name__ in TREE), None)
        for name, kind in TREE.items()
    }
    assert drawn_parents() == actual


@pytest.mark.parametrize("kind", [errors.ParameterError, errors.TemplateError])
def test_bad_values_are_value_errors(kind):
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("kind", [errors.TemplateError, errors.ImageError])
def test_reason_survives_pickling(kind):
    there_and_back = pickle.loads(pickle.dumps(kind("zero_norm", "it is zero")))  # noqa: S301
    assert type(there_and_back) is kind
    assert there_and_back.reason == "zero_norm"
    assert str(there_and_back) == "it is zero"
