"""EfficientNet-B0 here, in plain Flax, in Keras and in PyTorch, side by side: `make bench-efficientnet`.

Each library runs in a process of its own with all cores, and they take turns, a few calls each; an idle one waits for a
line on its standard input. A ratio is of two turns that follow one another, so that a machine that slows down slows
both. The memory settings of `jaxdl.parallel.configure` hold for all of them.

On a GPU the batches are larger, the arithmetic is bfloat16, and what is reached is set against a large matrix product
and a large copy, measured in the same run. A library that is not installed is left out.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.plain_linen import PlainB0
from benchmarks.record import spread, write
from jaxdl import models, parallel, train


@dataclass(frozen=True)
class Work:
    """What is timed: calls of a training step or of a forward pass."""

    kind: str  # "training" or "inference"
    batch: int
    size: int  # height and width in pixels
    calls: int  # in a turn
    half: bool = False  # bfloat16 arithmetic, float32 parameters and statistics

    def __str__(self) -> str:
        return f"{self.kind} EfficientNet-B0, batch {self.batch} @{self.size}, {'bfloat16' if self.half else 'float32'}"


CPU = (
    Work("training", 16, 128, 3),
    Work("training", 16, 224, 1),
    Work("inference", 16, 224, 3),
    Work("inference", 1, 224, 20),
)
GPU = tuple(Work(kind, batch, 224, 10, half=True) for kind in ("training", "inference") for batch in (128, 256, 512))
ROUNDS = 5
OURS, FOLDED = "jaxdl", "jaxdl, folded"
NAMES = {"keras": "Keras 3 (JAX)", "linen": "plain Flax", "torch": "PyTorch", "compiled": "torch.compile"}

Prepared = tuple[Callable[[], Any], dict[str, Any]]  # a call that waits for its result, and facts about it


class Half:
    """A Flax module in bfloat16: what is multiplied is cast, parameters and statistics stay float32."""

    def __init__(self, model: Any):
        self.apply = lambda variables, x, **options: model.apply(
            {**variables, "params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])},
            x.astype(jnp.bfloat16),
            **options,
        )


def with_jax(library: str, work: Work, batch: Mapping[str, np.ndarray]) -> Prepared:
    """jaxdl, folded or not, and plain Flax: the same train step around another module."""
    started = time.perf_counter()
    images = jnp.asarray(batch["image"])
    if library == "linen":
        model: Any = PlainB0()
        variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    else:
        model = models.create("efficientnet_b0", 1000)
        variables = models.init(model, jax.random.key(0), images.shape[1:])
    if library == FOLDED:
        model, variables = models.fold_batchnorm(model, variables)
    jax.block_until_ready(variables)
    facts: dict[str, Any] = {"init_seconds": time.perf_counter() - started}
    model = Half(model) if work.half else model

    started = time.perf_counter()
    if work.kind == "inference":
        on_device = jax.device_put(variables)
        compiled = jax.jit(lambda variables, x: model.apply(variables, x, train=False)).lower(on_device, images)
        program = compiled.compile()
        facts |= {"compile_seconds": time.perf_counter() - started, "cost": cost(program)}
        return lambda: jax.block_until_ready(program(on_device, images)), facts
    optimizer = optax.sgd(1e-2, momentum=0.9)
    state = train.init_state(variables, optimizer, jax.random.key(1))
    on_device = jax.device_put(dict(batch))
    step = jax.jit(train.make_train_step(model, optimizer), donate_argnums=0).lower(state, on_device).compile()
    facts |= {"compile_seconds": time.perf_counter() - started, "cost": cost(step)}

    def call() -> None:
        nonlocal state
        state, sums = step(state, on_device)
        jax.block_until_ready((state, sums))

    return call, facts


def cost(program: Any) -> dict[str, float]:
    """Floating point operations and bytes of one call, as XLA counts them."""
    analysis = program.cost_analysis()
    return {"flops": analysis["flops"], "bytes": analysis["bytes accessed"]}


def with_keras(library: str, work: Work, batch: Mapping[str, np.ndarray]) -> Prepared:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    started = time.perf_counter()
    model = keras.applications.EfficientNetB0(
        weights=None, classifier_activation=None, classes=1000, input_shape=batch["image"].shape[1:]
    )
    facts = {"init_seconds": time.perf_counter() - started}
    if work.kind == "inference":
        return lambda: model.predict_on_batch(batch["image"]), facts
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1e-2, momentum=0.9), loss=loss)
    return lambda: model.train_on_batch(batch["image"], batch["label"]), facts


def with_torch(library: str, work: Work, batch: Mapping[str, np.ndarray]) -> Prepared:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    if importlib.util.find_spec("timm") and importlib.util.find_spec("torchvision") and device == "cuda":
        import timm

        model = timm.create_model("tf_efficientnet_b0", drop_rate=0.2, drop_path_rate=0.2)
    else:  # the lineage of timm, without its need of torchvision
        import geffnet

        model = geffnet.tf_efficientnet_b0(drop_rate=0.2, drop_connect_rate=0.2)
    model = model.to(device=device, memory_format=torch.channels_last).train(work.kind == "training")
    facts = {"init_seconds": time.perf_counter() - started}
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    images, labels = images.to(device), torch.from_numpy(batch["label"]).long().to(device)
    forward = torch.compile(model) if library == "compiled" else model
    half = torch.autocast(device, torch.bfloat16, enabled=work.half)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)

    def infer() -> None:
        with torch.inference_mode(), half:
            forward(images)

    def step() -> None:
        optimizer.zero_grad()
        with half:
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    def call() -> None:
        (step if work.kind == "training" else infer)()
        if device == "cuda":
            torch.cuda.synchronize()

    return call, facts


def serve(library: str, work: Work) -> None:
    """A library's process: prepare, call twice, take turns."""
    if library != "torch" or jax.default_backend() == "cpu":
        parallel.configure()
    draw = np.random.default_rng(0)
    images = draw.normal(size=(work.batch, work.size, work.size, 3)).astype(np.float32)
    batch: dict[str, np.ndarray] = {
        "image": images,
        "label": np.arange(work.batch) % 1000,
        "weight": np.ones(work.batch, np.float32),
    }
    prepare = {"keras": with_keras, "torch": with_torch, "compiled": with_torch}.get(library, with_jax)
    call, facts = prepare(library, work, batch)
    started = time.perf_counter()
    call()
    facts["first_call_seconds"] = time.perf_counter() - started + facts.get("compile_seconds", 0)
    call()
    take_turns(call, facts)


def take_turns(call: Callable[[], Any], facts: Mapping[str, Any]) -> None:
    """Say what is known so far, then time as many calls as each line of standard input asks for."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
        print(json.dumps(seconds), flush=True)


def start(library: str, work: Any, cache: str, script: str) -> tuple[Any, dict[str, Any]]:
    """A process, and what it says when it is ready; compiled programs go to a folder of their own."""
    command = [sys.executable, "-m", script, "--serve", library, json.dumps(asdict(work))]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    return process, answer(process)


def answer(process: Any) -> Any:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a benchmark's process stopped: {' '.join(process.args)}")
    return json.loads(line)


def stop(process: Any) -> None:
    process.stdin.close()
    process.wait()


def measure(
    work: Any, libraries: tuple[str, ...], rounds: int = ROUNDS, script: str = "benchmarks.efficientnet"
) -> dict[str, Any]:
    """Every library on one kind of work: facts of the start, and the seconds of a call, turn by turn.

    Args:
      work: a dataclass with `calls`, those of a turn; the script gets it, and the library, behind `--serve`.
      libraries: what is measured, in the order of the turns.
    """
    processes, facts = {}, {}
    with tempfile.TemporaryDirectory() as cache:
        for library in libraries:
            processes[library], facts[library] = start(library, work, cache, script)
        if work == CPU[0]:
            again, facts["jaxdl, started again"] = start(OURS, work, cache, script)
            stop(again)
        turns: dict[str, list[float]] = {library: [] for library in libraries}
        for _ in range(rounds):
            for library, process in processes.items():
                process.stdin.write(f"{work.calls}\n")
                process.stdin.flush()
                turns[library].append(float(np.median(answer(process))))
        for process in processes.values():
            stop(process)
    for library in libraries:
        facts[library]["seconds"] = spread(turns[library])
        print(f"  {library:15} {facts[library]['seconds']['median'] * 1e3:9.1f} ms", flush=True)
    return {"facts": facts, "turns": turns}


def row(what: str, peer: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """A row of the record: the seconds of both, and the ratios of their turns."""
    return {
        "what": what,
        "peer": peer,
        "ours_seconds": spread(ours),
        "peer_seconds": spread(theirs),
        "ratio": spread((np.array(theirs) / np.array(ours)).tolist()),
    }


def report(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        ratio = row["ratio"]
        print(f"{row['what']}: ×{ratio['median']:.2f} ({ratio['q25']:.2f}–{ratio['q75']:.2f}) against {row['peer']}")


def ceilings() -> dict[str, float]:
    """What this device reaches at best: a large bfloat16 matrix product, a large copy."""
    a = jnp.ones((8192, 8192), jnp.bfloat16)
    x = jnp.ones(2**28, jnp.float32)  # 1 GiB
    figures = {}
    for name, function, operand, amount in (
        ("flops_per_second", lambda a: a @ a, a, 2 * 8192**3),
        ("bytes_per_second", lambda x: x + 1, x, 2 * x.nbytes),
    ):
        compiled = jax.jit(function)
        jax.block_until_ready(compiled(operand))
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            jax.block_until_ready(compiled(operand))
            seconds.append(time.perf_counter() - started)
        figures[name] = amount / float(np.median(seconds))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("LIBRARY", "WORK"), help=argparse.SUPPRESS)
    if served := parser.parse_args().serve:
        serve(served[0], Work(**json.loads(served[1])))
    else:
        compare()


def compare() -> None:
    """Measure every library on every kind of work, and write the record."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share a GPU
    on_cpu = jax.default_backend() == "cpu"
    installed = {name for name in ("keras", "torch") if importlib.util.find_spec(name)}
    rows, details = [], []
    best = None if on_cpu else ceilings()
    for work in CPU if on_cpu else GPU:
        print(work, flush=True)
        libraries = [OURS, "linen"]
        if work.kind == "inference":
            libraries.append(FOLDED)
        if "keras" in installed and on_cpu:
            libraries.append("keras")
        if "torch" in installed:
            libraries += ["torch", "compiled"] if work.kind == "inference" or not on_cpu else ["torch"]
        result = measure(work, tuple(libraries))
        facts, turns = result["facts"], result["turns"]
        if best:
            # The operations of the plain network, whoever runs it: jaxdl is given nothing for work it adds.
            for library, fact in facts.items():
                seconds, plain = fact["seconds"]["median"], facts["linen"]["cost"]
                fact["flops_per_second"] = flops = plain["flops"] / seconds
                fact["bytes_per_second"] = moved = fact.get("cost", plain)["bytes"] / seconds
                limits = f"{best['flops_per_second'] / 1e12:.0f} TFLOP/s", f"{best['bytes_per_second'] / 1e9:.0f} GB/s"
                print(f"  {library:15} {flops / 1e12:.1f} of {limits[0]}, {moved / 1e9:.0f} of {limits[1]}")
        ours = FOLDED if FOLDED in libraries else OURS
        rows += [row(str(work), NAMES[peer], turns[ours], turns[peer]) for peer in libraries if peer in NAMES]
        details.append({"work": str(work), "libraries": facts})
    record = {"command": "make bench-efficientnet", "rows": rows, "details": details}
    packages = tuple(name for name in ("keras", "torch", "timm", "geffnet") if importlib.util.find_spec(name))
    name = "efficientnet" if on_cpu else f"efficientnet-{jax.devices()[0].device_kind.lower().replace(' ', '-')}"
    print(write(name, record | ({"ceilings": best} if best else {}), packages))
    report(rows)


if __name__ == "__main__":
    main()
