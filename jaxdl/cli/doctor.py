"""`jaxdl doctor`: what this machine has, and whether it trains."""

import os
import platform
import re
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdl
from jaxdl import checkpoint, data, models, optim, pretrained, trees
from jaxdl.cli.common import all_devices, print_json
from jaxdl.errors import InputError

EXTRAS = ("cuda", "hub", "keras", "plots", "pretrained", "tensorboard", "tpu")  # those of a user, of pyproject.toml
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,-]+)\])?")  # a package and its extras, of PEP 508
NVIDIA = Path("/proc/driver/nvidia/version")  # Linux's driver is loaded


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has, train a moment on it, and say what is wrong and how to put it right."""

    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        troubles: list[str] = []
        told = f" with JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}" if "JAX_PLATFORMS" in os.environ else ""
        devices, seconds = [], None
        try:
            devices = [f"{device.device_kind} ({device.platform})" for device in jax.devices()]
        except (RuntimeError, AssertionError) as error:  # a driver, or a platform that JAX is told to use, is not there
            troubles.append(f"JAX does not start{told}: {(str(error) or 'no such device').splitlines()[0]}")
        if devices:
            try:
                seconds = _trained(troubles)
            except (RuntimeError, InputError) as error:  # of a library that it computes with; of numbers that are none
                troubles.append(f"a small network does not train here: {str(error).splitlines()[0]}")
        if NVIDIA.exists() and devices and jax.default_backend() == "cpu":
            troubles.append(f"JAX does not use the NVIDIA GPU that is here{told}: pip install 'jaxdl[cuda]'")
        missing = {extra: sorted(_missing("jaxdl", extra)) for extra in EXTRAS}
        found = {
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "versions": checkpoint.versions(),
            "devices": devices,
            "seconds_of_a_training": seconds,
            "programs": _programs(troubles),
            "weights": [name for name in pretrained.names() if pretrained.available(name)],
            "extras": [extra for extra in EXTRAS if not missing[extra]],
            "missing": {extra: packages for extra, packages in missing.items() if packages},
            "troubles": troubles,
        }
        if self.json:
            print_json(found)
        else:
            print(_text(found))
        if troubles:
            sys.exit(1)


def _trained(troubles: list[str]) -> float:
    """Seconds in which a small network learns to tell two clouds apart, on all devices, compiling included."""
    draw, started = np.random.default_rng(0), time.perf_counter()
    labels = np.arange(64) % 2
    source = data.from_arrays((draw.normal(size=(64, 4)) + 3 * labels[:, None]).astype(np.float32), labels)
    phases = optim.Phase(10, 0.05, optimizer="adam")
    trained = jaxdl.fit(models.create("dense", 2), source, phases=phases, mesh=all_devices(), progress=False)
    reached = trained.history[-1]["accuracy"]
    if reached < 0.9:
        troubles.append(f"a small network does not learn here: an accuracy of {reached:.2f} where 0.9 is easy")
    return time.perf_counter() - started


def _programs(troubles: list[str]) -> dict[str, Any]:
    """What is kept of compiled programs."""
    folder = Path(jax.config.values["jax_compilation_cache_dir"])
    files = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        troubles.append(
            f"compiled programs cannot be kept: {nearest} may not be written; set JAX_COMPILATION_CACHE_DIR"
        )
    return {"folder": str(folder), "files": len(files), "megabytes": round(sum(files) / 1e6, 1)}


def _missing(package: str, extra: str) -> set[str]:
    """The packages of an extra that are not installed, and those of the extras that it names."""
    missing = set()
    for line in metadata.requires(package) or ():
        requirement, _, condition = line.partition(";")
        found = REQUIREMENT.match(requirement)
        if found is None or not re.search(rf"extra == ['\"]{extra}['\"]", condition):
            continue
        name, inner = found.groups()
        try:
            metadata.version(name)
            missing |= set().union(*(_missing(name, each) for each in (inner or "").split(",") if each))
        except metadata.PackageNotFoundError:
            missing.add(name)
    return missing


def _text(found: dict[str, Any]) -> str:
    kept, seconds = found["programs"], found["seconds_of_a_training"]
    counted = {kind: found["devices"].count(kind) for kind in found["devices"]}
    rows = [
        ("machine", found["machine"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in found["versions"].items())),
        ("devices", ", ".join(f"{count} × {kind}" for kind, count in counted.items()) or "none"),
        ("a training", "not tried" if seconds is None else f"a small network, compiled and trained in {seconds:.1f} s"),
        ("programs", f"{kept['files']:,} files, {kept['megabytes']:,.0f} MB in {kept['folder']}"),
        ("weights", ", ".join(found["weights"]) or "none installed"),
        ("extras", ", ".join(found["extras"]) or "none"),
        *(("", f"without {extra}: pip install 'jaxdl[{extra}]'") for extra in found["missing"]),
        *(("TROUBLE", trouble) for trouble in found["troubles"]),
    ]
    return trees.columns([*rows, *([] if found["troubles"] else [("", "nothing is wrong")])])
