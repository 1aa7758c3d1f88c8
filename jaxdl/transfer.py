"""Transfer learning: what is frozen, a new head, and the phases of fine-tuning."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdl import models, trees
from jaxdl.errors import InputError, nearest
from jaxdl.optim import Phase

# The kinds of modules that the networks of this library have, in the order in which they are applied.
RANKS = {"stem": 0, "conv": 1, "blocks": 1, "dense": 2, "top": 3, "head": 4}


def modules(params: trees.Tree) -> tuple[str, ...]:
    """The network's top-level modules in the order in which they are applied: stem, numbered ones, top, head.

    This is known of the networks of this library; the modules of others come sorted.
    """

    def place(name: str) -> tuple[Any, ...]:
        return RANKS.get(_kind(name), 2), [int(number) for number in re.findall(r"\d+", name)], name

    return tuple(sorted(params, key=place))


def unfreeze(params: trees.Tree, *patterns: str, start: str | None = None) -> dict[str, Any]:
    """A mask over the parameters, true for what is trained: whatever matches a pattern, or comes from `start` on.

    Args:
      params: `variables["params"]`.
      *patterns: paths of modules or parameters, `*` for any characters (`trees.matches`).
      start: the first module that is trained, such as "blocks_5"; all that follow are trained too.

    Raises:
      InputError: a pattern or `start` names nothing in this network, or its order is not known.
    """
    return trees.mask(params, (*patterns, *(() if start is None else _from(params, start))))


def freeze(params: trees.Tree, *patterns: str, until: str | None = None) -> dict[str, Any]:
    """A mask over the parameters, false for what is frozen: whatever matches a pattern, or comes before `until`.

    `freeze(params, until="head")` is feature extraction.
    """
    before = []
    if until is not None:
        moving = _from(params, until)
        before = [name for name in modules(params) if name not in moving]
    mask = trees.mask(params, (*patterns, *before))
    return jax.tree.map(lambda frozen: not frozen, mask)


def new_head(model: Any, variables: Mapping[str, Any], num_classes: int) -> tuple[Any, dict[str, Any]]:
    """The network with a fresh head for other classes, everything else as it was.

    The new kernel and bias are zero: at the start every class is as likely as the next, and the head's gradient does
    not depend on a draw.

    Returns:
      `(model, variables)`.

    Raises:
      InputError: the network has no "head".
    """
    params = dict(variables["params"])
    if "head" not in params:
        raise InputError(f"this network has no module called 'head'; it has {', '.join(modules(params))}")
    width = params["head"]["kernel"].shape[0]
    params["head"] = {"kernel": np.zeros((width, num_classes), np.float32), "bias": np.zeros(num_classes, np.float32)}
    return models.with_classes(model, num_classes), {**variables, "params": params}


def fine_tune(
    params: trees.Tree,
    *,
    start: str | None = None,
    head_epochs: int = 5,
    epochs: int = 12,
    learning_rate: float = 5e-3,
) -> tuple[Phase, ...]:
    """The course's two phases, as data: the head on the frozen network, then everything from `start` on, more slowly.

    In the second phase too, batch normalisation keeps its running averages: a few photographs are a poor sample.

    Args:
      params: `variables["params"]`, with the new head.
      start: the first module that is unfrozen in the second phase; None for the whole network. Another choice of
        modules is a `Phase` of your own.
      head_epochs, epochs: of the first and the second phase; 0 leaves a phase out.
      learning_rate: of the head; the second phase has a tenth of it.

    Raises:
      InputError: `start` is not a module of this network, or both phases have no epochs.
    """
    names = modules(params)
    if "head" not in names:
        raise InputError(f"this network has no module called 'head'; it has {', '.join(names)}")
    phases = []
    if head_epochs:
        phases.append(Phase(head_epochs, learning_rate, name="head", trainable=("head",)))
    if epochs:
        moving = names if start is None else _from(params, start)
        phases.append(Phase(epochs, learning_rate / 10, name="fine-tune", trainable=moving, batch_stats="frozen"))
    if not phases:
        raise InputError("there is nothing to train: both phases have 0 epochs")
    return tuple(phases)


def _kind(name: str) -> str:
    """The word that a module's name begins with: "blocks" of "blocks_3_0"."""
    return re.split("[^a-z]", name)[0]


def _from(params: trees.Tree, start: str) -> tuple[str, ...]:
    """The modules from one on, which may be named by its beginning: "blocks_5" is "blocks_5_0"."""
    names = modules(params)
    if strange := [name for name in names if _kind(name) not in RANKS]:
        raise InputError(f"the place of {strange[0]!r} in the network is not known; name what is trained by patterns")
    for n, name in enumerate(names):
        if name == start or name.startswith(f"{start}_"):
            return names[n:]
    raise InputError(f"no module is called {start!r}{nearest(start, names)}")
