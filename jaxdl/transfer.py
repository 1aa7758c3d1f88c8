"""Transfer learning: what is frozen, a new head, weights that fit in part, and the phases of fine-tuning."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import models, optim, trees
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


def heads(params: trees.Tree) -> tuple[str, ...]:
    """The modules that are heads: `head`, or `head_NAME` for each of several."""
    return tuple(name for name in modules(params) if _kind(name) == "head")


def unfreeze(
    params: trees.Tree, *rules: trees.Rule, start: str | None = None, last: int | None = None
) -> dict[str, Any]:
    """A mask over the parameters, true for what is trained: whatever a rule names, or comes from `start` on, or is in
    the last layers.

    Args:
      params: `variables["params"]`.
      *rules: paths of modules or parameters, `*` for any characters (`trees.matches`), or functions `path -> bool`.
      start: the first module that is trained, such as "blocks_5"; all that follow are trained too.
      last: how many layers are trained besides the heads, counted as Keras counts them (`models.keras_layers`), for
        which an activation or an addition is a layer too: the last 10 of B0 are from the squeeze-and-excite of its
        last block on.

    Raises:
      InputError: a rule or `start` names nothing in this network, its order is not known, or it has fewer layers.
    """
    chosen = [*rules, *(() if start is None else _from(params, start))]
    if last is not None:
        chosen += [*_last(params, last), *heads(params)]
    return _not_empty(trees.mask(params, chosen))


def freeze(params: trees.Tree, *rules: trees.Rule, until: str | None = None) -> dict[str, Any]:
    """A mask over the parameters, false for what is frozen: whatever a rule names, or comes before `until`.

    `freeze(params, until="head")` is feature extraction.

    Raises:
      InputError: as `unfreeze`, or nothing is left to train.
    """
    before = []
    if until is not None:
        moving = _from(params, until)
        before = [name for name in modules(params) if name not in moving]
    return _not_empty(jax.tree.map(lambda frozen: not frozen, trees.mask(params, (*rules, *before))))


def table(plan: Phase | trees.Tree, variables: Mapping[str, Any]) -> str:
    """What a plan does to a network, a line for each module: how many parameters it has, whether they are trained and
    at which factor of the learning rate, and whether the statistics of its batch normalisation move.

    A module that is treated differently in its parts has a line for each of them.

    Args:
      plan: a phase, or a mask from `freeze` or `unfreeze`.
      variables: of the network, `{"params": …, "batch_stats": …}`; arrays or shapes.

    Raises:
      InputError: the plan is of another network.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    phase = plan if isinstance(plan, Phase) else Phase(1, 1.0)
    mask = trees.mask(params, phase.trainable) if isinstance(plan, Phase) else plan
    moving = trees.split(params, mask)[0]  # proves that the mask is of this network
    trained = trees.paths(mask)

    def rows(path: str, tree: Any, stats: Any) -> list[tuple[str, str, str, str, str]]:
        leaves = [f"{path}/{leaf}" for leaf in trees.paths(tree)] if isinstance(tree, Mapping) else [path]
        kinds = {(trained[leaf], optim.factor(phase, leaf) if trained[leaf] else 1.0) for leaf in leaves}
        if len(kinds) > 1:
            parts = ((name, part, stats.get(name, {})) for name, part in tree.items())
            return [row for name, part, below in parts for row in rows(f"{path}/{name}", part, below)]
        (on, factor) = kinds.pop()
        size = trees.count(tree) if isinstance(tree, Mapping) else int(np.prod(tree.shape))
        statistics = "moving" if on and phase.batch_stats == "update" else "frozen"
        return [
            (
                path,
                f"{size:,}",
                "trainable" if on else "frozen",
                statistics if jax.tree.leaves(stats) else "",
                f"×{factor:.3g}" if on else "",
            )
        ]

    lines = [("module", "parameters", "they are", "statistics", "learning rate")]
    for name in modules(params):
        lines += rows(name, params[name], stats.get(name, {}))
    total, on = trees.count(params), trees.count(moving)
    return f"{trees.columns(lines, right=(1,))}\n{total:,} parameters: {on:,} trainable, {total - on:,} frozen"


def new_head(
    model: Any,
    variables: Mapping[str, Any],
    num_classes: int | Mapping[str, int],
    *,
    dropout: float | None = None,
    keep: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The network with a fresh head for other classes, everything else as it was.

    The new kernel and bias are zero: at the start every class is as likely as the next, and the head's gradient does
    not depend on a draw. For regression the width is the number of targets.

    Args:
      num_classes: the width of the head, or the widths of several by name. A network with several returns a dict.
      dropout: ahead of the heads; None for what the network has.
      keep: keep the old head too, under this name, beside new ones that have names as well. Of several, the one of this
        name is kept.

    Returns:
      `(model, variables)`.

    Raises:
      InputError: the network has no head, or the names do not fit.
    """
    params = dict(variables["params"])
    old = {name: params.pop(name) for name in heads(params)}
    if not old:
        raise InputError(f"this network has no module called 'head'; it has {', '.join(modules(params))}")
    features = next(iter(old.values()))["kernel"].shape[0]
    widths = dict(num_classes) if isinstance(num_classes, Mapping) else {"": num_classes}
    model = models.with_head(model, num_classes, dropout)
    for name, width in widths.items():
        fresh = {"kernel": np.zeros((features, width), np.float32), "bias": np.zeros(width, np.float32)}
        params[f"head_{name}" if name else "head"] = fresh
    if keep is not None:
        kept = old.get("head", old.get(f"head_{keep}"))
        if "" in widths or keep in widths or kept is None:
            raise InputError(
                f"to keep the old head as {keep!r}, give the new ones other names, as in {{'food': 10}}"
                + ("" if kept is not None else f"; the network has {', '.join(old)}")
            )
        params[f"head_{keep}"] = kept
        model = models.with_head(model, {**widths, keep: kept["kernel"].shape[1]})
    return model, {**variables, "params": params}


class Loaded(NamedTuple):
    """What `partial_load` did; `str` of it is a table."""

    variables: dict[str, Any]
    loaded: tuple[str, ...]
    """Paths, such as "params/stem/kernel"."""
    fresh: dict[str, str]
    """Paths that stay as they were, with the reason."""
    ignored: dict[str, str]
    """Paths that were given and are not used, with the reason."""

    def __str__(self) -> str:
        rows: dict[tuple[str, ...], int] = {}
        reasons = {
            **dict.fromkeys(self.loaded, ("loaded", "")),
            **{path: ("fresh", why) for path, why in self.fresh.items()},
            **{f"given {path}": ("ignored", why) for path, why in self.ignored.items()},
        }
        for path, (what, why) in reasons.items():
            module = path.split("/")[1]
            rows[module, what, why] = rows.get((module, what, why), 0) + 1
        order = {name: n for n, name in enumerate(modules({module: None for module, _, _ in rows}))}
        cells = [(module, what, str(count), why) for (module, what, why), count in rows.items()]
        cells.sort(key=lambda row: (order[row[0]], row[1:]))
        counts = f"{len(self.loaded)} arrays loaded, {len(self.fresh)} left fresh, {len(self.ignored)} ignored"
        return f"{trees.columns([('module', 'is', 'arrays', ''), *cells], right=(2,))}\n{counts}"


def partial_load(variables: Mapping[str, Any], given: Mapping[str, Any], *, strict: bool = False) -> Loaded:
    """Take over what fits by path and shape from the variables of another network.

    Args:
      variables: of the network that is to be trained.
      given: of an earlier run or a weight file.
      strict: everything must fit.

    Raises:
      InputError: nothing fits, or with `strict` something does not; the table is in the message.
    """
    flat, found = trees.paths(variables), trees.paths(given)
    fits = {path for path in flat if path in found and np.shape(flat[path]) == np.shape(found[path])}

    def reasons(these: Mapping[str, Any], those: Mapping[str, Any], absent: str) -> dict[str, str]:
        return {
            path: f"{list(np.shape(leaf))} here, {list(np.shape(those[path]))} there" if path in those else absent
            for path, leaf in these.items()
            if path not in fits
        }

    fresh, ignored = reasons(flat, found, "not among the given"), reasons(found, flat, "not in this network")
    filled = trees.from_paths({path: found[path] if path in fits else leaf for path, leaf in flat.items()})
    result = Loaded(filled, tuple(path for path in flat if path in fits), fresh, ignored)
    if not any(np.ndim(flat[path]) > 1 for path in fits):  # biases of the same length prove nothing
        raise InputError("none of the given weights fits this network; is it the same architecture?")
    if strict and (fresh or ignored):
        raise InputError(f"the weights do not fit exactly:\n{result}")
    return result


def layer_decay(params: trees.Tree, decay: float) -> tuple[tuple[str, float], ...]:
    """`Phase.factors` that fall towards the input: the head learns at the full rate, every stage before it at `decay`
    times the rate of the next. The blocks of a stage share theirs.

    Clark et al., "ELECTRA" (2020), arXiv:2003.10555; Howard & Ruder (2018), arXiv:1801.06146, call such rates
    discriminative.

    Raises:
      InputError: the order of the network's modules is not known.
    """
    groups: list[str] = []
    factors = []
    for name in reversed(_known(params)):
        group = re.sub(r"(_bn|(?<=\d)_\d+)$", "", "head" if _kind(name) == "head" else name)
        groups += [] if group in groups else [group]
        factors.append((name, decay ** groups.index(group)))
    return tuple(factors)


@dataclass(frozen=True)
class Recipe:
    """How a pretrained network is taught new classes: the head alone, then more of the network with it."""

    start: str | tuple[str, ...] = "blocks_5"
    """First module that is unfrozen after the head's epochs; stem is the whole network. Several, as in blocks_7
    blocks_6 blocks_5, unfreeze it gradually, a phase for each."""
    last: int | None = None
    """Unfreeze this many layers instead, counted as Keras counts them."""
    head_epochs: int = 40
    """Epochs in which the head alone is trained."""
    views: int | None = 0
    """Augmented views of each image, besides itself, whose features are computed once for those epochs. None: the
    network runs in each of them, on images augmented anew."""
    epochs: int = 12
    """Epochs of every phase of fine-tuning after that. 0: feature extraction."""
    learning_rate: float = 5e-4
    """Of the head."""
    fine_tuning_rate: float = 4e-4
    """Learning rate of fine-tuning. Courses take a tenth of the head's; with the moving average more is better."""
    layer_decay: float = 1.0
    """In fine-tuning, factor of the learning rate from each stage to the one before it."""
    batch_stats: models.BatchStats = "frozen"
    """In fine-tuning, whether batch normalisation goes by its running averages, or by the batch and updates them."""
    ema: float | None = 0.99
    """In fine-tuning, share of the old value in a moving average of the parameters, which is what is kept."""
    dropout: float | None = None
    """Ahead of the head; None for the network's own."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""


def fine_tune(params: trees.Tree, recipe: Recipe | None = None) -> tuple[Phase, ...]:
    """A recipe's phases for a network, as data: change them, or write your own.

    Args:
      params: `variables["params"]`, with the new head.
      recipe: None for the defaults.

    Raises:
      InputError: the recipe names a module that this network does not have, or all phases have no epochs.
    """
    recipe = recipe or Recipe()
    last = heads(params)
    if not last:
        raise InputError(f"this network has no module called 'head'; it has {', '.join(modules(params))}")
    phases = []
    if recipe.head_epochs:
        phases.append(Phase(recipe.head_epochs, recipe.learning_rate, name="head", trainable=last, views=recipe.views))
    starts: tuple[str | None, ...] = (recipe.start,) if isinstance(recipe.start, str) else recipe.start
    if recipe.last is not None:
        starts = (None,)
    for start in starts if recipe.epochs else ():
        mask = unfreeze(params, start=start, last=recipe.last)
        phases.append(
            Phase(
                recipe.epochs,
                recipe.fine_tuning_rate,
                name="fine-tune" if len(starts) == 1 else f"fine-tune {start}",
                trainable=trees.names(mask),
                factors=() if recipe.layer_decay == 1 else layer_decay(params, recipe.layer_decay),
                batch_stats=recipe.batch_stats,
                ema=recipe.ema,
            )
        )
    if not phases:
        raise InputError("there is nothing to train: all phases have 0 epochs")
    return tuple(phases)


def _not_empty(mask: dict[str, Any]) -> dict[str, Any]:
    if not any(jax.tree.leaves(mask)):
        raise InputError("this freezes all of the network; nothing would be trained")
    return mask


def _kind(name: str) -> str:
    """The word that a module's name begins with: "blocks" of "blocks_3_0"."""
    return re.split("[^a-z]", name)[0]


def _known(params: trees.Tree) -> tuple[str, ...]:
    """The modules in their order, which must be known."""
    names = modules(params)
    if strange := [name for name in names if _kind(name) not in RANKS]:
        raise InputError(f"the place of {strange[0]!r} in the network is not known; name what is trained by patterns")
    return names


def _from(params: trees.Tree, start: str) -> tuple[str, ...]:
    """The modules from one on, which may be named by its beginning: "blocks_5" is "blocks_5_0"."""
    names = _known(params)
    for n, name in enumerate(names):
        if name == start or name.startswith(f"{start}_"):
            return names[n:]
    raise InputError(f"no module is called {start!r}{nearest(start, names)}")


def _last(params: trees.Tree, count: int) -> Sequence[str]:
    """The modules among the last layers as Keras counts them."""
    if not {"blocks_1_0", "stem", "top"} <= params.keys():
        raise InputError("layers are counted for EfficientNets only; name the first module instead, or use patterns")
    layers = models.keras_layers(params)
    if not 0 <= count <= len(layers):
        raise InputError(f"there are {len(layers)} layers ahead of this network's head, not {count}")
    return [module for _, module in layers[len(layers) - count :] if module]
