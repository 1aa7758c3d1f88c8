"""What training EfficientNets takes on TPUs, by their compiled steps: `python -m benchmarks.scale [--again]`.

Needs no TPU, but the compiler for them: `pip install 'jaxdl[tpu]'`. Writes `results/scale.json` after each compilation,
and the tables of `docs/scale.md`. What stands in the record is not compiled again; all takes 20 minutes on two cores.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, write
from jaxdl import plan
from jaxdl.errors import InputError
from jaxdl.plan import GIB, Setup

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
RECORD = RESULTS / "scale.json"

B0 = Setup("efficientnet_b0")
CHIP, B4, V2S, B7 = (
    Setup(f"efficientnet_{name}", batch, batch_norm="chip")
    for name, batch in (("b0", 128), ("b4", 32), ("v2_s", 32), ("b7", 16))
)
Row = tuple[Setup, str]
# Tables, and their rows.
TABLES: dict[str, tuple[Row, ...]] = {
    "scaling": (
        *((B0, f"v5e:{shape}") for shape in ("2x2", "4x4", "8x8", "16x16")),
        *((CHIP, f"v5e:{shape}") for shape in ("2x2", "16x16")),
        (replace(B0, batch_norm=4), "v5e:16x16"),
    ),
    "networks": tuple((setup, "v5e:2x2") for setup in (CHIP, V2S, B4, B7)),
    "memory": tuple(
        (replace(setup, **more), "v5e:2x2")
        for setup in (B0, replace(B7, batch_norm="global"))
        for more in ({}, {"remat": True}, {"accumulate": 4})
    ),
    "chips": tuple((CHIP, topology) for topology in ("v5e:2x2", "v6e:2x2", "v5p:2x2x1")),
}


def name(row: Row) -> str:
    setup, topology = row
    more = [f"batch norm {setup.batch_norm}", *["remat"] * setup.remat]
    more += [f"accumulate {setup.accumulate}"] * (setup.accumulate > 1)
    return ", ".join([setup.model, topology, str(setup.batch_size), *more])


def measured(row: Row) -> dict[str, Any]:
    setup, topology = row
    try:
        return plan.make(setup, plan.topology(topology), tell=partial(print, file=sys.stderr)).plain()
    except InputError as error:
        return {"setup": {"model": setup.model}, "error": str(error)}


def network(found: dict[str, Any]) -> str:
    return found["setup"]["model"].removeprefix("efficientnet_").replace("_", "-").upper()


def chips(found: dict[str, Any]) -> str:
    return f"{found['hardware']['name'].replace(':', ', ')}"


def sent(found: dict[str, Any]) -> str:
    each = found["program"]["collectives"]
    return f"{sum(one['count'] for one in each)}, {sum(one['count'] * one['bytes'] for one in each) / 1e6:.1f} MB"


def epoch(found: dict[str, Any], of: str = "ImageNet") -> str:
    times = plan.Times(*(found["roofline"][part] for part in ("compute", "memory", "communication")))
    seconds, hours = plan.epoch(plan.EPOCHS[of], found["setup"]["batch_size"], found["hardware"]["chips"], times)
    return f"{seconds:,.1f} s, {60 * hours:,.3g}"


def norm(found: dict[str, Any]) -> str:
    shared = found["setup"]["batch_norm"]
    return {"global": "all chips", "chip": "each chip"}.get(shared, f"{shared} chips")


def how(found: dict[str, Any]) -> str:
    setup = found["setup"]
    more = ["blocks computed again"] * setup["remat"] + ["4 batches to an update"] * (setup["accumulate"] > 1)
    return ", ".join(more) or "as it is"


def milliseconds(part: str) -> Callable[[dict[str, Any]], str]:
    return lambda found: f"{1e3 * found['roofline'][part]:.2f}"


# The cells of a row.
CELLS: dict[str, Callable[[dict[str, Any]], str]] = {
    "network": network,
    "chips": chips,
    "pixels": lambda found: str(found["setup"]["size"]),
    "batch of a chip": lambda found: str(found["setup"]["batch_size"]),
    "statistics over": norm,
    "how": how,
    "GFLOP": lambda found: f"{found['program']['flops'] / 1e9:,.0f}",
    "GB moved": lambda found: f"{found['program']['bytes_moved'] / 1e9:.1f}",
    "GiB kept": lambda found: f"{found['program']['memory'] / GIB:.2f}",
    "all-reduces": sent,
    "computing, ms": milliseconds("compute"),
    "moving, ms": milliseconds("memory"),
    "sending, ms": milliseconds("communication"),
    "step, ms": milliseconds("step"),
    "images/s": lambda found: f"{found['roofline']['images_per_second']:,.0f}",
    "ImageNet epoch, chip-minutes": epoch,
    "Food-101 epoch, chip-minutes": partial(epoch, of="Food-101"),
}
COLUMNS = {
    "networks": "network|pixels|batch of a chip|GFLOP|GB moved|GiB kept|step, ms|images/s|ImageNet epoch, chip-minutes",
    "scaling": "statistics over|chips|all-reduces|sending, ms|step, ms|images/s|efficiency|"
    "ImageNet epoch, chip-minutes|Food-101 epoch, chip-minutes",
    "memory": "network|how|batch of a chip|GFLOP|GB moved|GiB kept|all-reduces|step, ms",
    "chips": "chips|GFLOP|GB moved|computing, ms|moving, ms|sending, ms|step, ms|images/s",
}


def table(kind: str, record: dict[str, Any]) -> list[str]:
    """One table; efficiency is beside the four chips of the same kind of batch normalisation, or of chips alone."""
    names, lines = COLUMNS[kind].split("|"), []
    programs = {row: record["programs"].get(name(row)) for row in TABLES[kind]}
    for row, found in programs.items():
        if found is None:
            continue
        if "error" in found:
            lines.append([network(found), found["error"], *[""] * (len(names) - 2)])
            continue
        setup, topology = row
        same = replace(setup, batch_norm="chip") if isinstance(setup.batch_norm, int) else setup
        first = programs.get((same, f"{topology.partition(':')[0]}:2x2"))
        share = first["roofline"]["step"] / found["roofline"]["step"] if first and "error" not in first else None
        cells = CELLS | {"efficiency": lambda _, share=share: f"{share:.1%}" if share else "–"}
        lines.append([cells[column](found) for column in names])
    rows = [f"| {' | '.join(cells)} |" for cells in [names, *lines]]
    return [rows[0], "|---" * len(names) + "|", *rows[1:], ""]


def page(record: dict[str, Any]) -> None:
    """The tables of the page."""
    text = PAGE.read_text()
    for kind in TABLES:
        marks = rf"(?<=<!-- {kind} -->\n).*?(?=<!-- /{kind} -->)"
        text = re.sub(marks, "\n".join(table(kind, record)), text, flags=re.DOTALL)
    versions = ", ".join(f"{package} {record['versions'][package]}" for package in ("jax", "libtpu"))
    text = re.sub(
        r"(?<=<!-- made -->\n).*?(?=<!-- /made -->)", f"{versions}; {record['date']}.\n", text, flags=re.DOTALL
    )
    PAGE.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--again", action="store_true", help="compile what stands in the record, too")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=tuple(TABLES), help="only these")
    options = parser.parse_args()
    record = {} if options.again or not RECORD.exists() else json.loads(RECORD.read_text())
    same = all(record.get("versions", {}).get(package) == version(package) for package in ("jax", "libtpu"))
    started = record["programs"] if same else {}  # what other versions compile may be another program
    for row in dict.fromkeys(row for kind in options.tables for row in TABLES[kind]):
        if name(row) not in started:
            started[name(row)] = measured(row)
            write("scale", {"command": "python -m benchmarks.scale", "programs": started}, peers=["libtpu"])
    page(json.loads(RECORD.read_text()))


if __name__ == "__main__":
    main()
