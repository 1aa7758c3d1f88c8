"""Parameter trees by path.

A tree is a nested dict of arrays, as `model.init` returns it. A leaf's path is its keys joined by slashes, such as
`blocks_3_0/expand/kernel`; it is the one name for that array in masks, tables, checkpoints and weight files.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from jaxdl.errors import InputError, nearest

Tree = Mapping[str, Any]
Rule = str | Callable[[str], bool]
"""A pattern (see `matches`), or a function of the path."""


def paths(tree: Tree) -> dict[str, Any]:
    """Every leaf by its path, in the tree's own order.

    >>> paths({"head": {"kernel": 1, "bias": 2}})
    {'head/kernel': 1, 'head/bias': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": leaf for rest, leaf in paths(value).items()})
        else:
            flat[name] = value
    return flat


def from_paths(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `paths`.

    >>> from_paths({"head/kernel": 1, "head/bias": 2})
    {'head': {'kernel': 1, 'bias': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern names this path or a module that holds it; `*` stands for any characters, slashes too.

    >>> matches("blocks_3_0/expand/kernel", "blocks_3_*"), matches("head/kernel", "hea")
    (True, False)
    """
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*")


def mask(tree: Tree, rules: Iterable[Rule]) -> dict[str, Any]:
    """A tree of booleans, true where any rule says so of the path.

    >>> mask({"stem": {"kernel": 1}, "head": {"kernel": 2, "bias": 3}}, ["head", lambda path: path.endswith("bias")])
    {'stem': {'kernel': False}, 'head': {'kernel': True, 'bias': True}}

    Raises:
      InputError: a rule matches nothing; the message names the nearest modules.
    """
    flat = paths(tree)
    chosen: set[str] = set()
    for rule in rules:
        found = {path for path in flat if (matches(path, rule) if isinstance(rule, str) else rule(path))}
        if not found and isinstance(rule, str):
            prefixes = {path.rsplit("/", n)[0] for path in flat for n in range(path.count("/") + 1)}
            raise InputError(f"no parameter matches {rule!r}{nearest(rule, prefixes)}")
        if not found:
            raise InputError("no parameter matches the function that was given as a rule")
        chosen |= found
    return from_paths({path: path in chosen for path in flat})


def names(mask: Tree) -> tuple[str, ...]:
    """The shortest list of patterns for a mask: whole modules where all of them is true, single parameters elsewhere.

    >>> names({"stem": {"kernel": True, "bias": True}, "head": {"kernel": True, "bias": False}})
    ('stem', 'head/kernel')
    """
    found: list[str] = []
    for name, value in mask.items():
        if not isinstance(value, Mapping):
            found += [name] if value else []
        elif all(paths(value).values()):
            found.append(name)
        else:
            found += [f"{name}/{rest}" for rest in names(value)]
    return tuple(found)


def split(tree: Tree, mask: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two trees: the leaves where the mask is true, and the others. `join` puts them together again.

    Raises:
      InputError: the mask belongs to another tree.
    """
    chosen = paths(mask)
    flat = paths(tree)
    if chosen.keys() != flat.keys():
        raise InputError(f"the mask belongs to another tree:\n{difference(tree, mask)}")
    return (
        from_paths({path: leaf for path, leaf in flat.items() if chosen[path]}),
        from_paths({path: leaf for path, leaf in flat.items() if not chosen[path]}),
    )


def join(*trees: Tree) -> dict[str, Any]:
    """One tree with the leaves of all.

    Raises:
      InputError: two trees have a leaf at the same path.
    """
    flat: dict[str, Any] = {}
    for tree in trees:
        more = paths(tree)
        if both := flat.keys() & more.keys():
            raise InputError(f"two of the trees have {sorted(both)[0]!r}")
        flat.update(more)
    return from_paths(dict(sorted(flat.items())))


def frozen_modules(trainable: Tree) -> frozenset[str]:
    """The paths of the modules in which nothing is trainable, from a mask; "" stands for the whole network.

    >>> sorted(frozen_modules({"stem": {"kernel": False}, "head": {"kernel": True, "bias": False}}))
    ['stem']
    """
    moving, seen = set(), {""}
    for path, on in paths(trainable).items():
        modules = path.split("/")[:-1]
        above = {"/".join(modules[:n]) for n in range(len(modules) + 1)}
        seen |= above
        if on:
            moving |= above
    return frozenset(seen - moving)


def table(params: Tree, trainable: Tree | None = None) -> str:
    """Every leaf with its shape and number of parameters, and whether it is frozen; one line each, sums at the end.

    Args:
      params: arrays or shapes.
      trainable: a mask from `mask`, `freeze` or `unfreeze`; None where everything is trainable.

    Raises:
      InputError: the mask belongs to another tree.
    """
    flat = paths(params)
    on = dict.fromkeys(flat, True) if trainable is None else paths(trainable)
    if on.keys() != flat.keys():
        raise InputError(f"the mask belongs to another tree:\n{difference(params, trainable or {})}")
    rows = [
        (
            path,
            "×".join(map(str, leaf.shape)) or "scalar",
            f"{int(np.prod(leaf.shape)):,}",
            "" if on[path] else "frozen",
        )
        for path, leaf in flat.items()
    ]
    total, moving = count(params), sum(int(np.prod(leaf.shape)) for path, leaf in flat.items() if on[path])
    lines = columns([("parameter", "shape", "count", ""), *rows], right=(1, 2))
    return f"{lines}\n{total:,} parameters: {moving:,} trainable, {total - moving:,} frozen"


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows of cells as lines of equally wide columns, those of the given numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if n in set(right) else "<" for n in range(len(widths))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    )


def count(tree: Tree) -> int:
    """How many numbers the tree holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in paths(tree).values())


def difference(expected: Tree, given: Tree, most: int = 8) -> str:
    """What separates two trees, a line for each path that is missing, left over or of another shape; "" if nothing."""
    old, new = paths(expected), paths(given)
    lines = [f"  missing   {path}" for path in old if path not in new]
    lines += [f"  left over {path}" for path in new if path not in old]
    lines += [
        f"  shape     {path}: expected {np.shape(old[path])}, got {np.shape(new[path])}"
        for path in old
        if path in new and np.shape(old[path]) != np.shape(new[path])
    ]
    if len(lines) > most:
        lines = [*lines[:most], f"  and {len(lines) - most} more"]
    return "\n".join(lines)
