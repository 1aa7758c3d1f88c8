"""Optimizers and schedules for one stretch of training."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.models import BatchStats


@dataclass(frozen=True)
class Phase:
    """One stretch of training: how long, at which learning rate, and which parameters move."""

    epochs: int
    learning_rate: float
    name: str = "train"
    trainable: tuple[str, ...] = ("*",)
    """Patterns of parameter paths (`trees.mask`); everything else is frozen, bit for bit."""
    factors: tuple[tuple[str, float], ...] = ()
    """Patterns with factors of the learning rate, as in `transfer.layer_decay`; the first that matches counts, 1 is for
    the rest."""
    batch_stats: BatchStats = "update"
    """Whether the batch normalisation of trainable modules goes by the batch and updates its averages, or by them."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """With "sgd", Nesterov momentum of 0.9."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """"cosine" falls to zero at the end of the phase."""
    warmup: float = 0.1
    """Share of the phase in which the rate rises linearly from zero."""
    weight_decay: float = 1e-4
    """Decoupled, on kernels only."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this norm, taken over the trainable parameters."""
    ema: float | None = None
    """Share of the old value in a moving average of the trainable parameters, which evaluation then uses."""
    views: int | None = None
    """Where the head alone is trained: the features of the images, and of this many augmented views of each, are
    computed once, and the epochs go round them. None: the whole network runs in every step, on images augmented anew.
    """

    def __post_init__(self) -> None:
        if isinstance(self.trainable, str) or not self.trainable:
            raise InputError(f"phase {self.name!r}: trainable is a tuple of patterns, such as ('head',)")
        if self.epochs < 1:
            raise InputError(f"phase {self.name!r}: epochs must be at least 1, got {self.epochs}")
        if not self.learning_rate > 0:
            raise InputError(f"phase {self.name!r}: the learning rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"phase {self.name!r}: warmup is a share of the phase, 0 to 1, got {self.warmup}")
        for pattern, factor in self.factors:
            if not factor > 0:
                raise InputError(f"phase {self.name!r}: the factor of {pattern!r} must be above 0, got {factor}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError(f"phase {self.name!r}: ema is a share, from 0 up to 1, got {self.ema}")
        if self.views is not None and self.views < 0:
            raise InputError(f"phase {self.name!r}: views cannot be negative, got {self.views}")


def make_schedule(phase: Phase, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step within a phase of that many steps."""
    warm = min(round(phase.warmup * steps), steps - 1)  # at least one step at the full rate
    if phase.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warm else phase.learning_rate, phase.learning_rate, warm, steps
        )
    return optax.join_schedules(
        [optax.linear_schedule(0.0, phase.learning_rate, warm), optax.constant_schedule(phase.learning_rate)], [warm]
    )


def make_optimizer(phase: Phase, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a phase at the rates of a schedule. Give it the trainable half of the parameters only: clipping
    and decay then reach nothing that is frozen."""
    decay = optax.add_decayed_weights(phase.weight_decay, mask=_kernels)
    if phase.optimizer == "adamw":
        rule = optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(schedule))
    else:
        rule = optax.chain(decay, optax.trace(0.9, nesterov=True), optax.scale_by_learning_rate(schedule))
    if phase.factors:
        rule = optax.chain(rule, optax.stateless(lambda updates, _: _scaled(updates, phase)))
    return rule if phase.clip_norm is None else optax.chain(optax.clip_by_global_norm(phase.clip_norm), rule)


def factor(phase: Phase, path: str) -> float:
    """What the learning rate of a parameter is multiplied by in a phase."""
    return next((factor for pattern, factor in phase.factors if trees.matches(path, pattern)), 1.0)


def _scaled(updates: Any, phase: Phase) -> Any:
    return trees.from_paths({path: leaf * factor(phase, path) for path, leaf in trees.paths(updates).items()})


def _kernels(params: Any) -> Any:
    """Biases and the scales of batch normalisation are vectors; they are not decayed."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
