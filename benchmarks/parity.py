"""This library against the networks that others publish, with the same random weights.

    python -m benchmarks.parity                    every network; writes docs/parity.md
    python -m benchmarks.parity efficientnet_b0    those of ours that are named; writes nothing
    python -m benchmarks.parity --golden           the outputs that tests/test_parity.py expects

`make parity` makes the environment that this needs, with the packages of benchmarks/peers.txt.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import formula
from benchmarks.record import _processor
from jaxdl import losses, models, trees
from jaxdl.pretrained import layouts

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "parity.md"
GOLDEN = ROOT / "tests" / "golden" / "efficientnet.json"
PACKAGES = ("geffnet", "timm", "efficientnet_pytorch", "efficientnet_lite_pytorch", "torchvision", "keras")

# Not square, so that exchanged axes show; even at the first strides, where TensorFlow's padding is not PyTorch's, and
# odd at later ones: 72x60, 36x30, 18x15, 9x8, 5x4, 3x2.
BATCH, HEIGHT, WIDTH = 4, 72, 60

# These are compared in float64 too: inverted bottlenecks with and without squeeze-and-excite, fused ones, and all of
# Lite, whose gradients float32 cannot judge (see the page).
DOUBLE = ("efficientnet_b0", "efficientnet_v2_b0", *(f"efficientnet_lite{n}" for n in range(5)))
# Ten million times the rounding of float64, and far below what any mistake makes.
DOUBLE_LIMIT = 1e-9
# A thousand roundings of float32. In float64, where nothing else is left, logits differ by up to 130 roundings of that
# precision in networks of 16 blocks; the deepest has 79. Another epsilon alone changes them by 2e-3.
SINGLE_LIMIT = 1000 * 2.0**-24

Arrays = dict[str, np.ndarray]


# What is compared.


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network of another package."""

    package: str
    name: str


@dataclasses.dataclass(frozen=True)
class Ours:
    """A network of this library, and its options where they are not the defaults."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def model(self) -> Any:
        """The Flax module, without anything random."""
        return models.create(self.name, 1000, dropout=0.0, drop_connect=0.0, **dict(self.options))

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options)])


def same(name: str) -> Ours:
    """TensorFlow's flavour."""
    return Ours(name)


def symmetric(name: str, epsilon: float) -> Ours:
    """PyTorch's flavour."""
    return Ours(name, (("padding", "symmetric"), ("bn_epsilon", epsilon)))


def pairs() -> dict[Ours, list[Peer]]:
    """Every network of ours with the peers that are the same one."""
    found: dict[Ours, list[Peer]] = {}
    for n in range(8):
        name = f"efficientnet_b{n}"
        found[same(name)] = [
            Peer("geffnet", f"tf_{name}"),
            Peer("timm", f"tf_{name}"),
            Peer("efficientnet_pytorch", f"efficientnet-b{n}"),
            Peer("keras", f"EfficientNetB{n}"),
        ]
        found[symmetric(name, 1e-5)] = [Peer("geffnet", name), Peer("timm", name)]
        # torchvision's larger ones were ported from TensorFlow: its epsilon, with the padding of PyTorch.
        found.setdefault(symmetric(name, 1e-5 if n < 5 else 1e-3), []).append(Peer("torchvision", name))
    for n in range(5):
        name = f"efficientnet_lite{n}"
        found[same(name)] = [
            Peer("geffnet", f"tf_{name}"),
            Peer("timm", f"tf_{name}"),
            Peer("efficientnet_lite_pytorch", f"efficientnet-lite{n}"),
        ]
        found[symmetric(name, 1e-5)] = [Peer("geffnet", name), Peer("timm", name)]
    for size in ("b0", "b1", "b2", "b3", "s", "m", "l"):
        name = f"efficientnet_v2_{size}"
        found[same(name)] = [Peer("timm", f"tf_efficientnetv2_{size}"), Peer("keras", f"EfficientNetV2{size.upper()}")]
        if size in ("s", "m", "l"):
            # torchvision's epsilon; timm publishes these with 1e-5, which B0 to B7 show.
            found[symmetric(name, 1e-3)] = [Peer("torchvision", name)]
    return found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a network does with its weights: our paths, our axes."""

    logits: np.ndarray
    """In evaluation, `[B,K]`."""
    train_logits: np.ndarray
    """In training, that is by the statistics of the batch, `[B,K]`."""
    loss: float
    """Mean cross-entropy, in training."""
    statistics: Arrays
    """The running averages after that step."""
    gradients: Arrays
    """Of the loss."""


# The two sides.


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Our network runs in this precision inside.

    The library sums in `jnp.float32` whatever is summed, and looks at a float's bits as `jnp.int32`; where float64 is
    asked for, these names stand for the types of twice the width.
    """
    if dtype == "float32":
        yield
    else:
        with jax.enable_x64(True), mock.patch.multiple(jnp, float32=jnp.float64, int32=jnp.int64):
            yield


@functools.lru_cache(maxsize=1)
def programs(ours: Ours, dtype: str = "float32") -> tuple[Any, Any]:
    """Our network compiled, computing in this type: `(variables, x) -> logits` in evaluation, and
    `(params, batch_stats, x, labels) -> ((loss, (logits, batch_stats)), gradients)`."""
    model = ours.model().clone(dtype=dtype)

    def evaluate(variables: Any, x: Any) -> Any:
        return model.apply(variables, x, train=False)

    def objective(params: Any, batch_stats: Any, x: Any, labels: Any) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, state = models.apply(model, variables, x, key=jax.random.key(0))
        return losses.cross_entropy(logits, labels).mean(), (logits, state["batch_stats"])

    # Compiling is nearly all of the time here. Without LLVM's optimizations it takes less.
    options = {"xla_backend_optimization_level": 0}
    train = jax.value_and_grad(objective, has_aux=True)
    return jax.jit(evaluate, compiler_options=options), jax.jit(train, compiler_options=options)


def run_ours(ours: Ours, variables: Mapping[str, Any], x: np.ndarray, labels: np.ndarray) -> Outcome:
    """Our outcome, in the precision of `x`."""
    evaluate, train = programs(ours, x.dtype.name)
    variables = jax.tree.map(lambda leaf: leaf.astype(x.dtype), dict(variables))
    logits = np.asarray(evaluate(variables, x))
    (loss, (train_logits, stats)), grads = train(variables["params"], variables["batch_stats"], x, labels)
    flat = jax.tree.map(np.asarray, (trees.paths(stats), trees.paths(grads)))
    return Outcome(logits, np.asarray(train_logits), float(loss), *flat)


@dataclasses.dataclass(frozen=True)
class Net:
    """A network that runs on PyTorch."""

    tensors: dict[str, Any]
    """Parameters and statistics by their publisher's names; views that may be written to."""
    call: Callable[[Any, bool], Any]
    """Images `[B,H,W,3]`, and whether to train, to logits."""
    counts: dict[str, int]
    """Of a running variance, how many values a channel of the last batch had."""


def torchvision() -> Any:
    """Its build without a GPU has no compiled operators, and its import would fail where it declares their shapes."""
    import torch

    declare = torch.library.register_fake

    def skip(name: Any, *args: Any, **options: Any) -> Any:
        return (lambda function: function) if str(name).startswith("torchvision::") else declare(name, *args, **options)

    with mock.patch.object(torch.library, "register_fake", skip):
        import torchvision

    return torchvision


def build(peer: Peer, momentum: float, dtype: str) -> Net:
    """The peer without dropout and stochastic depth.

    Args:
      momentum: the share of an old average that is kept. PyTorch's `momentum` is the other share.
    """
    if peer.package == "keras":
        return build_keras(peer.name, dtype)
    import torch

    torchvision()
    if peer.package in ("efficientnet_pytorch", "efficientnet_lite_pytorch"):
        package: Any = __import__(peer.package)
        module = package.EfficientNet.from_name(
            peer.name, image_size=[HEIGHT, WIDTH], dropout_rate=0.0, drop_connect_rate=0.0
        )
    elif peer.package == "torchvision":
        module = getattr(torchvision().models, peer.name)(stochastic_depth_prob=0.0, dropout=0.0)
    else:
        package = __import__(peer.package)
        module = package.create_model(peer.name, pretrained=False)  # nothing is dropped unless it is asked for
    module = module.to(getattr(torch, dtype))
    counts: dict[str, int] = {}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1 - momentum

            def count(part: Any, inputs: Any, name: str = name) -> None:
                counts[f"{name}.running_var"] = inputs[0].numel() // part.num_features

            part.register_forward_pre_hook(count)

    def call(x: Any, train: bool) -> Any:
        return module.train(train)(x.permute(0, 3, 1, 2).contiguous())

    tensors = module.state_dict(keep_vars=True).items()
    return Net({name: tensor for name, tensor in tensors if tensor.is_floating_point()}, call, counts)


def build_keras(name: str, dtype: str) -> Net:
    os.environ["KERAS_BACKEND"] = "torch"  # read at the import
    import keras

    keras.config.set_floatx(dtype)
    v2 = "V2" in name
    options: dict[str, Any] = {"include_preprocessing": False} if v2 else {}
    whole = getattr(keras.applications, name)(
        weights=None, input_shape=(HEIGHT, WIDTH, 3), classifier_activation=None, **options
    )

    # Its dropout cannot be turned off from outside; the network is made again from its description without it.
    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return layer.__class__.from_config({**config, "rate": 0.0} if "rate" in config else config)

    model = keras.models.clone_model(whole, clone_function=clone)
    # V1's Normalization is left as it is made, without effect. Layers for dropout have seeds.
    tensors = {
        weight.path: weight.value for weight in model.weights if not weight.path.startswith(("normalization", "seed"))
    }

    def call(x: Any, train: bool) -> Any:
        return model(x if v2 else x * 255, training=train)  # V1 begins by dividing by 255

    return Net(tensors, call, {})


def positions(tensors: Mapping[str, Any], like: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Where the numbers of our variables lie among all those of a peer, laid end to end.

    `from_layout` only moves numbers. So it is given their positions to move, in two halves that float32 holds exactly.
    """
    numbers = np.split(np.arange(sum(t.numel() for t in tensors.values())), ends(tensors))
    halves = [
        {name: half(n).reshape(t.shape) for (name, t), n in zip(tensors.items(), numbers, strict=True)}
        for half in (lambda n: (n % 2**24).astype(np.float32), lambda n: (n // 2**24).astype(np.float32))
    ]
    low, high = (layouts.from_layout(half, like, origin) for half in halves)
    return jax.tree.map(lambda low, high: low.astype(np.int64) + high.astype(np.int64) * 2**24, low, high)


def ends(tensors: Mapping[str, Any]) -> np.ndarray:
    """Where each tensor but the last ends, where all lie end to end."""
    return np.cumsum([tensor.numel() for tensor in tensors.values()])[:-1]


def run_peer(peer: Peer, ours: Ours, variables: Mapping[str, Any], x: np.ndarray, labels: np.ndarray) -> Outcome:
    """The peer's outcome with our variables, in the precision of `x`.

    The running variance is given as Flax and TensorFlow have it, the average of the biased variance; PyTorch's is that
    of the unbiased one, n / (n - 1) times as large for n values.
    """
    import torch

    momentum = ours.model().architecture.bn_momentum
    net = build(peer, momentum, x.dtype.name)
    where = positions(net.tensors, variables, f"{peer.package} {peer.name}")
    flat = np.empty(sum(tensor.numel() for tensor in net.tensors.values()), x.dtype)
    leaves = trees.paths(variables)
    for path, position in trees.paths(where).items():
        flat[position] = leaves[path]
    before = dict(zip(net.tensors, np.split(flat, ends(net.tensors)), strict=True))
    with torch.no_grad():
        for name, tensor in net.tensors.items():
            tensor.copy_(torch.from_numpy(before[name]).reshape(tensor.shape))
        logits = net.call(torch.from_numpy(x), False).numpy()
    train_logits = net.call(torch.from_numpy(x), True)
    loss = torch.nn.functional.cross_entropy(train_logits, torch.from_numpy(labels))
    loss.backward()

    results = []
    for name, tensor in net.tensors.items():
        result = (tensor if tensor.grad is None else tensor.grad).detach().numpy().ravel()
        if name in net.counts:
            kept = momentum * before[name]
            result = kept + (result - kept) * ((net.counts[name] - 1) / net.counts[name])
        results.append(result)
    flat = np.concatenate(results)
    moved = jax.tree.map(lambda position: flat[position], where)
    return Outcome(
        logits,
        train_logits.detach().numpy(),
        loss.item(),
        trees.paths(moved["batch_stats"]),
        trees.paths(moved["params"]),
    )


# The comparison.


@dataclasses.dataclass(frozen=True)
class Row:
    """The largest relative differences between a network of ours and a peer's."""

    ours: str
    peer: str
    dtype: str
    logits: float
    train_logits: float
    statistics: float
    gradients: float

    def differences(self) -> tuple[float, float, float, float]:
        return self.logits, self.train_logits, self.statistics, self.gradients

    def wrong(self) -> bool:
        """Whether this is more than rounding; not-a-number is."""
        if self.dtype == "float64":
            return not all(number <= DOUBLE_LIMIT for number in self.differences())
        return not (self.logits <= SINGLE_LIMIT and self.train_logits <= SINGLE_LIMIT)


def by_module(leaves: Mapping[str, np.ndarray]) -> Arrays:
    """The leaves of each module laid end to end."""
    modules: dict[str, list[np.ndarray]] = {}
    for path, leaf in leaves.items():
        modules.setdefault(path.rsplit("/", 1)[0], []).append(leaf.ravel())
    return {module: np.concatenate(parts) for module, parts in modules.items()}


def apart(ours: Arrays, peer: Arrays, base: Arrays | None = None) -> float:
    """The largest of max|ours - peer| / max|peer - base| over the arrays."""
    parts = [
        np.abs(ours[name] - peer[name]).max() / np.abs(peer[name] - (0 if base is None else base[name])).max()
        for name in peer
    ]
    return float(np.max(parts, initial=0))  # not-a-number if any is


def compare(ours: Ours, peers: Sequence[Peer], dtype: str) -> list[Row]:
    """Our network and each of its peers, with the same weights, images and labels."""
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    variables = formula.variables(ours.model())
    x, labels = formula.images(BATCH, HEIGHT, WIDTH).astype(dtype), formula.labels(BATCH)
    with precision(dtype):
        mine = run_ours(ours, variables, x, labels)
    ran = time.perf_counter()
    rows = []
    old = trees.paths(variables["batch_stats"])
    for peer in peers:
        other = run_peer(peer, ours, variables, x, labels)
        row = Row(
            str(ours),
            f"{peer.package} {peer.name}",
            dtype,
            apart({"": mine.logits}, {"": other.logits}),
            apart({"": mine.train_logits}, {"": other.train_logits}),
            # Relative to how far the step moved them: it keeps 99% of the old average, which agrees in any case.
            apart(mine.statistics, other.statistics, old),
            # By module, not by leaf: where only another normalisation sees the output of a normalisation, the gradient
            # of its bias is zero, and what is left of it is rounding.
            apart(by_module(mine.gradients), by_module(other.gradients)),
        )
        rows.append(row)
    print(f"{ours} {dtype}: {ran - started:.0f} + {time.perf_counter() - ran:.0f} s", file=sys.stderr, flush=True)
    return rows


# Golden outputs.

GOLDEN_FORWARD = (
    (same("efficientnet_b0"), Peer("geffnet", "tf_efficientnet_b0")),
    (symmetric("efficientnet_b0", 1e-5), Peer("geffnet", "efficientnet_b0")),
    (same("efficientnet_b2"), Peer("geffnet", "tf_efficientnet_b2")),
    (same("efficientnet_lite0"), Peer("geffnet", "tf_efficientnet_lite0")),
    (same("efficientnet_v2_b0"), Peer("timm", "tf_efficientnetv2_b0")),
    (same("efficientnet_v2_b3"), Peer("timm", "tf_efficientnetv2_b3")),
    (same("efficientnet_v2_s"), Peer("timm", "tf_efficientnetv2_s")),
    (symmetric("efficientnet_v2_s", 1e-3), Peer("torchvision", "efficientnet_v2_s")),
)
GOLDEN_TRAIN = ("efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_b0")


def summary(leaves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """One number for each module."""
    return {module: formula.probe(module, numbers) for module, numbers in by_module(leaves).items()}


def golden() -> dict[str, Any]:
    """What the peers make of the formula's weights and images, in float64, to 13 digits."""
    x, labels = formula.images(BATCH, HEIGHT, WIDTH).astype("float64"), formula.labels(BATCH)
    cases = []
    for ours, peer in GOLDEN_FORWARD:
        outcome = run_peer(peer, ours, formula.variables(ours.model()), x, labels)
        case = {
            "ours": {"name": ours.name, "options": dict(ours.options)},
            "peer": f"{peer.package} {version(peer.package)} {peer.name}",
            "logits": outcome.logits[:, :8].tolist(),
            "probe": formula.probe("logits", outcome.logits),
        }
        if ours.name in GOLDEN_TRAIN and not ours.options:
            case["train"] = {
                "loss": outcome.loss,
                "statistics": summary(outcome.statistics),
                "gradients": summary(outcome.gradients),
            }
        cases.append(case)
    return {
        "about": "Outputs of PyTorch's networks with the weights and images of benchmarks/formula.py, in float64.",
        "command": "python -m benchmarks.parity --golden",
        "torch": version("torch"),
        "shape": [BATCH, HEIGHT, WIDTH, 3],
        "cases": json.loads(json.dumps(cases), parse_float=lambda number: float(f"{float(number):.13g}")),
    }


# The page.


def page(rows: Sequence[Row], minutes: float) -> str:
    """docs/parity.md."""
    packages = ("jaxdl", "jax", "flax", "torch", *PACKAGES)
    single, double = ([row for row in rows if row.dtype == dtype] for dtype in ("float32", "float64"))
    worst = scientific(max(max(row.differences()) for row in double))
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return f"""# Parity

The same random weights (He-scaled kernels, variances between 0.5 and 1.5, residual branches scaled to a tenth; see
benchmarks/formula.py), {BATCH} images of {HEIGHT}×{WIDTH} and labels are given to each network here and to the one
that another package publishes, without dropout and stochastic depth. A number is the largest of max|ours − peer| /
max|peer| over the tensors of its kind: logits in evaluation; logits in training, that is by the statistics of the
batch; the running statistics after that step, relative to how far it moved them; the gradient of the mean
cross-entropy, module by module.

Where both compute in float64, in {len(double)} comparisons, the largest difference of all is {worst}: forward and
backward, the formulas are the same. What is left in float32 is rounding in another order. Its unit there is 6e-8, in
float64 1.1e-16; how many units a number differs by is how much the network amplifies them. The library itself sums in
float32 whatever it is given; for float64 the names `jnp.float32` and `jnp.int32` stand for the wider types meanwhile.

Lite's gradients in float32 stand out, because ReLU6 has kinks. Where rounding moves a single activation across one,
the gradient of its channel jumps. At commit 38859d3, the 1.4e-1 of Lite1 was one activation of
`blocks_5_1/depthwise_bn`, 0 in float64 and 1.6e-6 in float32: its channel alone differs by that much, the others by
4e-6. Lite4 has one such crossing, Lite0 none. PyTorch's own gradients of Lite4 in float32 are 9e-3 from its own in
float64. So float32 gradients have no limit here, and float64, where all of Lite agrees, decides.

A run fails where a difference exceeds {scientific(DOUBLE_LIMIT)} in float64, or {scientific(SINGLE_LIMIT)} in
float32 logits.

{table(single, "float32")}

{table(double, "float64")}

Not run: V2-B0 to V2-B3 in PyTorch's flavour, which timm and torchvision do not have; timm's V2-S to V2-L in it, with
epsilon 1e-5;
Keras in float64, where its batch normalisation still computes in float32; other members and images in float64; GPUs.

`make parity`: {minutes:.0f} minutes on {len(os.sched_getaffinity(0))} core(s) of {_processor()}, without installing;
{time.strftime("%Y-%m-%d")}, commit {git.stdout.strip() or "unknown"}; Python {platform.python_version()},
{", ".join(f"{package} {version(package)}" for package in packages)}. Generated by `python -m benchmarks.parity`.
"""


def table(rows: Sequence[Row], dtype: str) -> str:
    """The rows of one precision, in Markdown."""
    head = f"| network here, {dtype} | peer | logits | logits in training | statistics | gradients |\n|" + "---|" * 6
    lines = [
        f"| {row.ours} | {row.peer} | " + " | ".join(map(scientific, row.differences())) + " |"
        for row in sorted(rows, key=lambda row: (row.ours, row.peer))
    ]
    worst = [max(column) for column in zip(*(row.differences() for row in rows), strict=True)]
    return "\n".join([head, *lines, f"| **largest** | | {' | '.join(f'**{scientific(n)}**' for n in worst)} |"])


def scientific(number: float) -> str:
    """
    >>> scientific(1.26e-06), scientific(0)
    ('1.3e-6', '–')
    """
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if number else "–"


def main() -> None:
    chosen = sys.argv[1:]
    if chosen == ["--golden"]:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
        return
    if unknown := set(chosen) - {ours.name for ours in pairs()}:
        sys.exit(f"no such network: {', '.join(sorted(unknown))}")
    started = time.perf_counter()
    networks = {ours: peers for ours, peers in pairs().items() if not chosen or ours.name in chosen}
    tasks = [(ours, peers, "float32") for ours, peers in networks.items()]
    for ours, peers in networks.items():
        if ours.name in DOUBLE:
            tasks.append((ours, [peer for peer in peers if peer.package != "keras"], "float64"))
    tasks.sort(key=lambda task: models.parameters(task[0].name) or 0, reverse=True)  # the longest first
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0)), maxtasksperchild=8) as pool:
        rows = sum(pool.starmap(compare, tasks, chunksize=1), [])
    for dtype in sorted({row.dtype for row in rows}):
        print(table([row for row in rows if row.dtype == dtype], dtype))
    if not chosen:
        PAGE.write_text(page(rows, (time.perf_counter() - started) / 60))
    if wrong := [row for row in rows if row.wrong()]:
        sys.exit("\n".join(f"not the same network: {row}" for row in wrong))


if __name__ == "__main__":
    main()
