"""What may happen to a training, done to it: `make faults`.

Small trainings in processes of their own are killed, told to stop, starved of disk and given damaged files. An attempt
is lost if a training does not end with the bits and the rows of one that nothing happened to, or if damage is neither
found nor harmless. Two kinds are trained: a table by the command line, and a network with statistics, dropout,
augmentation, averages and two phases by `jaxdl.fit`. Both save after every epoch.
"""

import contextlib
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxdl
from benchmarks.record import write
from jaxdl import callbacks, checkpoint, cli, data, models, page, parallel, pretrained, runs, train
from jaxdl.cli import training
from jaxdl.errors import BadFile, InputError, Interrupted
from jaxdl.optim import Phase

EPOCHS = 24  # of a training by the command line, and by `fit`
KINDS = ("table", "fit")
PATIENCE = 300.0  # seconds that a process may take


@dataclass(frozen=True)
class Outcome:
    """What came of some attempts at a fault."""

    fault: str
    tries: int
    lost: int = 0
    note: str = ""


class Net(nn.Module):
    """Something of everything that a checkpoint holds."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Any:
        x = nn.Dense(8, name="dense")(x)  # [B,8]
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        return nn.Dense(3, name="head")(nn.Dropout(0.2, deterministic=not train)(x))  # [B,3]


PHASES = (
    Phase(EPOCHS // 3, 0.05, name="head", trainable=("head",), ema=0.9),
    Phase(EPOCHS - EPOCHS // 3, 0.02, name="all", ema=0.8, optimizer="adam", batch_stats="update"),
)


def source(count: int, seed: int) -> data.Arrays:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    return data.from_arrays((np.eye(3)[labels] + draw.normal(size=(count, 3))).astype(np.float32), labels)


def noise(key: jax.Array, x: jax.Array) -> jax.Array:
    return x + 0.1 * jax.random.normal(key, x.shape)


def run(
    kind: str, folder: Path, log: str = "log", fail: int | None = None, limit: int | None = None, wait: float = 0.0
) -> None:
    """The process of a training, which goes on where there is one in the folder.

    Args:
      log: the ending of the file that has what it says.
      fail: a callback raises after this epoch.
      limit: bytes that a file may have from the sixth epoch on.
      wait: seconds after the first epoch.
    """
    said = os.open(f"{folder}.{log}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)

    def happen(event: callbacks.Event) -> None:
        if event.epoch == 1:
            time.sleep(wait)
        if limit is not None and event.epoch == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if event.epoch == fail:
            raise ZeroDivisionError

    if kind == "table":
        watch = training.Watch.callbacks
        vars(runs)["ModelCheckpoint"] = partial(callbacks.ModelCheckpoint, every=0)
        # In a process of its own, as a user's code would not do it; mypy minds that a method is replaced.
        training.Watch.callbacks = lambda *args: [*watch(*args), happen]  # type: ignore[method-assign]
        vars(page)["write"] = lambda *_: None
        table = folder.parent / "table.csv"
        options = ["--target", "class", "--hidden", "8", "--epochs", str(EPOCHS), "--learning-rate", "0.3"]
        cli.main(["train", str(table), *options, "--out", str(folder), *(["--resume"] if folder.exists() else [])])
        return
    parallel.configure()
    jaxdl.loop._resident = lambda *_: False  # so that it can stop in the middle of an epoch
    kept = folder / "checkpoints"
    watching: list[callbacks.Callback] = [
        callbacks.JSONLines(folder / "metrics.jsonl"),
        callbacks.ModelCheckpoint(kept, every=0),
        callbacks.ReduceLROnPlateau(0.5, patience=2),
        happen,
    ]
    try:
        same: Any = {"phases": PHASES, "batch_size": 8, "augment": noise, "progress": False}
        again = kept if kept.exists() else None
        jaxdl.fit(Net(), source(40, 0), source(20, 1), callbacks=watching, resume=again, **same)
    except InputError as error:
        print(f"jaxdl: {error}")
        sys.exit(2)
    except Interrupted as told:
        print(f"jaxdl: {told}")
        sys.exit(128 + told.signal)


def start(kind: str, folder: Path, **happens: Any) -> Any:
    """A process; what it needs is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxdl.cli", "orbax.checkpoint.v1"])
    process = context.Process(target=run, args=(kind, folder), kwargs=happens)
    process.start()
    return process


def finish(process: Any) -> int:
    """Its exit code."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise RuntimeError(f"a training took more than {PATIENCE} s")
    return int(process.exitcode)


def end(folder: Path) -> tuple[Any, ...]:
    """What a training is compared by: its rows without times, and the digests of all that its last checkpoint holds."""
    last = checkpoint.newest(folder / "checkpoints")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    kept = checkpoint.steps(folder / "checkpoints")
    return timeless, kept, checkpoint.manifest(folder / "checkpoints", last)["arrays"]


def whole(work: Path, kind: str) -> Path:
    """A training that nothing happens to."""
    folder = work / f"whole-{kind}"
    if not folder.exists():
        table = np.column_stack([source(60, 0).inputs, source(60, 0).labels])
        lines = [",".join([*(f"{x:.4f}" for x in row[:3]), "abc"[int(row[3])]]) for row in table]
        (work / "table.csv").write_text("\n".join(["x,y,z,class", *lines]))
        if code := finish(start(kind, folder)):
            raise RuntimeError(f"exit code {code}: {Path(f'{folder}.log').read_text()}")
    return folder


def same(folder: Path, work: Path, kind: str) -> bool:
    """Whether a training that goes on to its end has the bits and rows of the whole one, and left nothing behind."""
    if not (folder / "summary.json").exists() and finish(start(kind, folder)):
        return False
    left = [path.name for path in (folder / "checkpoints").iterdir() if not path.name.isdigit()]
    return end(folder) == end(whole(work, kind)) and not left


def stopped(work: Path, tries: int, number: int, saving: bool, seed: int = 0) -> Outcome:
    """A signal at a random moment, in trainings that go on up to five times."""
    draw, lost, late, name = random.Random(seed), 0, 0, signal.Signals(number).name
    for n in range(0, tries, 5):
        kind = KINDS[n // 5 % 2]
        folder, right = work / f"{name}-{saving}-{n}", True
        times = sorted(draw.sample(range(1, EPOCHS - 2), min(5, tries - n)))
        whole(work, kind)
        for least in times:
            epoch = max(least, _rows(folder) + 1)  # before its own first epoch, a process does not hear of signals yet
            process = start(kind, folder)
            while process.is_alive() and not (_rows(folder) >= epoch and (not saving or _saving(folder))):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.03))
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(process.pid, number)
            code = finish(process)
            late += code == 0
            right &= code in (-number, 0) if number == signal.SIGKILL else code in (128 + number, 0)
        right &= same(folder, work, kind)
        lost += 0 if right else len(times)
    moment = "while it saves" if saving else "while it trains"
    return Outcome(f"{name} {moment}, at random", tries - late, lost, f"{late} more came too late" if late else "")


def _rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _saving(folder: Path) -> bool:
    kept = folder / "checkpoints"
    return kept.exists() and any("tmp" in name for name in os.listdir(kept))


def flip(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "a bit flipped": flip,
    "truncated": lambda content, draw: content[: draw.randrange(len(content))],
    "empty": lambda content, draw: b"",
    "deleted": lambda content, draw: None,
}


@contextlib.contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with another content, or without it; then as it was."""
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    yield
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(before)


def every_file(work: Path, most: int | None = None, seed: int = 0) -> list[Outcome]:
    """Each file of a checkpoint with each kind of damage: the checkpoint before it is read, and this one put aside."""
    draw, kept = random.Random(seed), whole(work, "fit") / "checkpoints"
    shutil.rmtree(work / "damaged", ignore_errors=True)
    folder = Path(shutil.copytree(kept, work / "damaged"))
    before, last = checkpoint.steps(folder)
    files = [path for path in sorted((folder / f"{last:08d}").rglob("*")) if path.is_file() and path.stat().st_size]
    files = files if most is None else draw.sample(files, most)
    outcomes = []
    for kind, change in DAMAGE.items():
        lost = 0
        for path in files:
            with damaged(path, change(path.read_bytes(), draw)):
                found = checkpoint.newest(folder)
                aside = [each for each in (folder / checkpoint.QUARANTINE).glob("*") if each.is_dir()]
                lost += found != before or len(aside) != 1 or not aside[0].with_suffix(".txt").read_text()
                aside[0].rename(folder / f"{last:08d}") if aside else None
                shutil.rmtree(folder / checkpoint.QUARANTINE, ignore_errors=True)
        outcomes.append(Outcome(f"a file of a checkpoint {kind}", len(files), lost))
    return outcomes


def run_files(work: Path, seed: int = 0) -> list[Outcome]:
    """The files of a run beside its checkpoints: what is predicted, and by which epoch, stays."""
    draw = random.Random(seed)
    shutil.rmtree(work / "run", ignore_errors=True)
    folder = Path(shutil.copytree(whole(work, "table"), work / "run"))

    def seen() -> Any:
        found = runs.load(folder)
        numbers = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found.variables())]
        return found.model, found.classes, found.preprocessing, found.history(), found.best_step(), numbers

    right, outcomes = seen(), []
    for name in ("config.json", "metrics.jsonl"):
        lost = 0
        for change in DAMAGE.values():
            for _ in range(4):
                with damaged(folder / name, change((folder / name).read_bytes(), draw)):
                    lost += seen() != right
        outcomes.append(Outcome(f"{name} of a run damaged", 4 * len(DAMAGE), lost))
    best = folder / "checkpoints" / f"{right[4]:08d}" / checkpoint.MANIFEST
    best.unlink()
    outcomes.append(Outcome("the best checkpoint of a run damaged", 1, int(seen()[4] == right[4])))
    return outcomes


def strange(work: Path) -> Outcome:
    """Folders that are no checkpoints among them, and half of one, as an `rm` that was stopped leaves it."""
    kept = whole(work, "fit") / "checkpoints"
    _, last = checkpoint.steps(kept)
    shutil.rmtree(work / "strange", ignore_errors=True)
    folder = Path(shutil.copytree(kept, work / "strange"))
    (folder / "99999999").mkdir()
    (folder / "99999998").write_text("a file")
    (folder / "99999997").mkdir()
    (folder / "99999997" / checkpoint.MANIFEST).write_text('{"sha256": "", "manifest": {}}')
    (folder / "notes").mkdir()
    shutil.copytree(folder / f"{last:08d}", folder / "99999996")
    for path in sorted((folder / "99999996").rglob("*"))[::2]:
        path.unlink() if path.is_file() else None
    lost = checkpoint.newest(folder) != last or len(list((folder / checkpoint.QUARANTINE).glob("*.txt"))) != 3
    return Outcome("half-deleted and foreign folders", 5, 5 * lost)


def full(work: Path) -> list[Outcome]:
    """No room to save: one line, what was good stays and nothing else does; with room it goes on."""
    outcomes = []
    small = work / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], capture_output=True, check=False)
    if mounted.returncode:
        outcomes.append(Outcome("disk full", 0, 0, "not run: a small file system cannot be mounted"))
    else:
        try:
            folder = small / "run"
            finish(start("fit", folder, fail=4))
            ballast = small / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))
            right = finish(start("fit", folder)) == 2 and _untouched(folder)
            ballast.unlink()
            outcomes.append(Outcome("disk full", 1, int(not (right and same(folder, work, "fit")))))
        finally:
            subprocess.run(["umount", small], check=True)
    lost = 0
    for limit in (4096, 2048):
        folder = work / f"limited-{limit}"
        right = finish(start("fit", folder, limit=limit)) == 2 and _untouched(folder)
        lost += not (right and same(folder, work, "fit"))
    outcomes.append(Outcome("files that may not grow", 2, lost))
    return outcomes


def _untouched(folder: Path) -> bool:
    """Whether one line said it, and the last checkpoint is whole and nothing lies beside."""
    text = Path(f"{folder}.log").read_text()
    *_, line = text.splitlines()
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    last = checkpoint.steps(folder / "checkpoints")[-1]
    return (
        line.startswith("jaxdl: ")
        and "Traceback" not in text
        and all(map(str.isdigit, names))
        and checkpoint.newest(folder / "checkpoints") == last
    )


def failed(work: Path) -> Outcome:
    """A callback raises: the epochs before are kept, and training goes on after them."""
    lost = 0
    for n, (kind, epoch) in enumerate((kind, epoch) for kind in KINDS for epoch in (1, EPOCHS // 3, EPOCHS)):
        folder = work / f"failed-{n}"
        whole(work, kind)
        lost += finish(start(kind, folder, fail=epoch)) == 0 or not same(folder, work, kind)
    return Outcome("an exception in a callback", 6, lost)


LEAVE = """
import sys, threading, jax, numpy as np
from jaxdl import checkpoint, train
params = {f"w{n}": np.ones((300, 300), np.float32) for n in range(20)}
state = train.TrainState(jax.numpy.int32(7), params, {}, {}, jax.random.key(0), {})
def leave():
    checkpoint.Saver(sys.argv[1]).save(state)
"""


def left(work: Path) -> Outcome:
    """The process ends in the middle of a save that nobody waits for."""
    ways, lost = ("leave()", "leave(); sys.exit(3)", "leave(); raise KeyboardInterrupt", "leave(); 1 / 0"), 0
    for n, way in enumerate(ways):
        command = [sys.executable, "-c", LEAVE + way, str(work / f"left-{n}")]
        done = subprocess.run(command, capture_output=True, check=False)
        lost += checkpoint.newest(work / f"left-{n}") != 7 or (done.returncode == 0) != (way == "leave()")
    return Outcome("exit without close", len(ways), lost)


def retention(work: Path) -> Outcome:
    """The best and the last are kept, whichever they are; what is no number is never the best; one that is opened again
    knows its best."""
    net, lost, draw, tries = models.create("neuron", 1), 0, random.Random(0), 4
    training = callbacks.Training(net, (1,), (Phase(9, 0.1),), ({},), 8, 1, ("loss", "val_loss"), "val_loss")
    for n in range(tries):
        figures = [draw.choice([draw.random(), float("nan"), float("inf")]) for _ in range(6)]
        rows: list[dict[str, Any]] = []
        for step, figure in enumerate(figures, 1):
            keep = callbacks.ModelCheckpoint(work / f"retention-{n}", every=0)
            state = train.TrainState(jnp.int32(step - 1), {"w": jnp.zeros(1)}, {}, {}, jax.random.key(0), {})
            event = callbacks.Event("begin", training, 0, state, jaxdl.history.History(rows))
            keep(event)
            rows.append({"epoch": step, "step": step, "val_loss": figure})
            event = replace(event, kind="epoch", state=replace(state, step=jnp.int32(step)), metrics=rows[-1])
            keep(event := replace(event, history=jaxdl.history.History(rows)))
            keep(replace(event, kind="end"))
            finite = [(value, at) for at, value in enumerate(figures[:step], 1) if np.isfinite(value)]
            lost += checkpoint.steps(work / f"retention-{n}") != sorted({step, *([min(finite)[1]] if finite else [])})
    return Outcome("retention, with figures that are no numbers", 6 * tries, lost)


def twice(work: Path) -> Outcome:
    """A second process in the same directory is refused, and the first one ends as if nothing had been."""
    folder, lost = work / "twice", 0
    whole(work, "table")
    first = start("table", folder, wait=8.0)
    while _rows(folder) < 1 and first.is_alive():
        time.sleep(0.01)
    lost += finish(start("table", folder, log="second")) != 2
    lost += "another process is training" not in Path(f"{folder}.second").read_text()
    lost += finish(first) != 0 or end(folder) != end(whole(work, "table"))
    return Outcome("two processes in one run", 1, min(lost, 1))


def images() -> Outcome:
    """The corpus of bad images: each is an error that names it, or what it should be."""
    from tests.data import make_bad_images

    cases, lost = make_bad_images.cases(), 0
    for case in cases:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = data.decode(case.content)
            lost += case.pixels is None or bool(np.abs(found - case.pixels.astype(float)).max() > case.off)
        except data.BadImage:
            lost += case.pixels is not None
    return Outcome("images that decoders get wrong", len(cases), lost)


class _Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def weights(work: Path, tries: int = 40) -> list[Outcome]:
    """Damaged weight files are errors that name the file; what a hostile one says is not done."""
    draw, path, lost = random.Random(0), work / "weights.safetensors", 0
    variables = models.init(model := models.create("tiny_vgg", 2), jax.random.key(0), (16, 16, 3))
    del model
    pretrained.save(path, "tiny_vgg", variables, data.Preprocessing(16))
    content = path.read_bytes()
    for n in range(tries):
        changed = list(DAMAGE.values())[n % 3](content, draw)
        with damaged(path, changed):
            try:
                pretrained.load(path)
                lost += 1
            except BadFile as error:
                lost += str(path) not in str(error)
    hostile, mark, done = work / "hostile.pth", work / "mark", 0
    for protocol in range(5):
        hostile.write_bytes(pickle.dumps({"a": _Touch(mark)}, protocol=protocol))
        with contextlib.suppress(BadFile):
            pretrained.load(hostile)
            done += 1
        done += mark.exists()
    return [Outcome("weight files damaged", tries, lost), Outcome("weight files that would run a command", 5, done)]


def reading(work: Path) -> Outcome:
    """Files that are gone, are cut, or never answer, when a thread comes to read them."""
    folder, lost = work / "images" / "a", 0
    folder.mkdir(parents=True)
    from PIL import Image

    for n in range(12):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(folder / f"{n}.png")
    photos = data.scan(folder.parent, data.Preprocessing(8), ("a",))
    (folder / "7.png").unlink()
    (folder / "8.png").write_bytes(b"")
    for rows in (np.arange(10), np.array([10])):  # by name, 7.png is number 9
        try:
            list(data.batches(photos.subset(rows), 4))
            lost += 1
        except data.BadImage as error:
            lost += not any(name in str(error) for name in ("7.png", "8.png"))

    class Silent(type(photos)):  # type: ignore[misc]  # of whatever class that is: mypy wants a name
        def take(self, rows: Any) -> Any:
            time.sleep(30)

    batches = sys.modules["jaxdl.data.batches"]  # to mypy, a module of no attributes of its own
    patience, batches.PATIENCE = batches.PATIENCE, 0.5  # type: ignore[attr-defined]
    try:
        silent = Silent(**{name: getattr(photos, name) for name in photos.__dataclass_fields__})
        next(data.batches(silent, 4))
        lost += 1
    except InputError as error:
        lost += "is the disk there?" not in str(error)
    finally:
        batches.PATIENCE = patience  # type: ignore[attr-defined]
    return Outcome("files that vanish or never answer while they are read", 3, lost)


def table(work: Path) -> Iterator[Outcome]:
    """Everything."""
    for number, tries in ((signal.SIGKILL, 15), (signal.SIGTERM, 5)):
        for saving in (False, True):
            yield stopped(work, tries, number, saving)
    yield from every_file(work)
    yield from run_files(work)
    yield strange(work)
    yield from full(work)
    yield left(work)
    yield failed(work)
    yield retention(work)
    yield twice(work)
    yield images()
    yield from weights(work)
    yield reading(work)


def main() -> None:
    started, outcomes = time.perf_counter(), []
    warnings.filterwarnings("ignore", category=UserWarning)  # of what is damaged, which is counted
    print(f"{'fault':56} {'tries':>6} {'survived':>9} {'lost':>5}")
    with tempfile.TemporaryDirectory() as work:
        for each in table(Path(work)):
            outcomes.append(each)
            print(f"{each.fault:56} {each.tries:6} {each.tries - each.lost:9} {each.lost:5}  {each.note}", flush=True)
    seconds = time.perf_counter() - started
    tries, lost = (sum(getattr(each, name) for each in outcomes) for name in ("tries", "lost"))
    print(f"{'all':56} {tries:6} {tries - lost:9} {lost:5}  {seconds:.0f} s")
    record = {"command": "make faults", "seconds": seconds, "faults": [asdict(each) for each in outcomes]}
    print(write("faults", record, ("orbax-checkpoint",)))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
