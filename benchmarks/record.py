"""Timings, and the JSON files they are kept in."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall-clock seconds of each call, after one that is not counted."""
    jax.block_until_ready(work())
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(work())
        taken.append(time.perf_counter() - started)
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"n": len(values), "median": float(median), "q25": float(low), "q75": float(high)}


def write(name: str, results: Mapping[str, Any], peers: Sequence[str] = (), folder: Path = RESULTS) -> Path:
    """Write NAME.json, with what the machine was, which commit ran, and the versions of these packages too."""
    device = jax.devices()[0]
    path = folder / f"{name}.json"
    packages = ("jaxdl", "jax", "jaxlib", "flax", "optax", "numpy", *peers)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        **results,
    }
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def _commit() -> str:
    """The commit whose code runs; "-dirty" where files differ from it that are not records."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("diff", "--name-only", "HEAD", "--", ":/", ":/!*/results/*")
    return f"{commit}{'-dirty' if changed else ''}" if commit else "unknown"


def _git(*words: str) -> str:
    """What git says of this code; nothing where there is no git."""
    try:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
