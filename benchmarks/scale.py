"""What training EfficientNets takes on TPUs, by their compiled steps: `python -m benchmarks.scale [--again]`.

Needs no TPU, but the compiler for them: `pip install 'jaxdl[tpu]'`. Writes `results/scale.json` after each compilation,
and the tables of `docs/scale.md`. What stands in the record already is not compiled again; all of it takes hours.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, write
from jaxdl import plan
from jaxdl.errors import InputError
from jaxdl.plan import Setup

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"

B0 = Setup("efficientnet_b0")
CHIP, B4, V2S, B7 = (
    Setup(f"efficientnet_{name}", batch, batch_norm="chip")
    for name, batch in (("b0", 128), ("b4", 32), ("v2_s", 32), ("b7", 16))
)
# Tables, and what stands in their rows: a setup, a topology, and whether all of the compiler's effort is asked for, or
# the largest batch.
Row = tuple[Setup, str, str]
TABLES: dict[str, tuple[Row, ...]] = {
    "scaling": (
        *((B0, f"v5e:{shape}", "") for shape in ("2x2", "4x4", "8x8", "16x16")),
        *((replace(B0, batch_norm=16), f"v5e:{shape}", "") for shape in ("4x4", "16x16")),
        *((CHIP, f"v5e:{shape}", "") for shape in ("2x2", "16x16")),
    ),
    "networks": tuple((setup, "v5e:2x2", "largest") for setup in (CHIP, B4, V2S, B7)),
    "memory": (
        (B7, "v5e:2x2", "largest"),
        (replace(B7, remat=True), "v5e:2x2", "largest"),
        (replace(B7, accumulate=4), "v5e:2x2", ""),
    ),
    "chips": tuple((CHIP, topology, "") for topology in ("v6e:2x2", "v5p:2x2x1")),
    "effort": tuple((setup, "v5e:2x2", effort) for setup in (B0, CHIP) for effort in ("", "full")),
}


def name(row: Row) -> str:
    setup, topology, how = row
    more = [
        f"batch norm {setup.batch_norm}",
        *["remat"] * setup.remat,
        *[f"accumulate {setup.accumulate}"] * (setup.accumulate > 1),
    ]
    return ", ".join([setup.model, topology, str(setup.batch_size), *more, *[how] * bool(how)])


def measured(row: Row) -> dict[str, Any]:
    setup, topology, how = row
    try:
        report = plan.make(
            setup,
            plan.topology(topology),
            full=how == "full",
            largest=how == "largest",
            tell=lambda text: print(text, file=sys.stderr),
        )
        return report.plain()
    except InputError as error:
        return {"error": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--again", action="store_true", help="compile what stands in the record, too")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=tuple(TABLES), help="only these")
    options = parser.parse_args()
    path = RESULTS / "scale.json"
    done = {} if options.again or not path.exists() else json.loads(path.read_text())["programs"]
    for row in dict.fromkeys(row for table in options.tables for row in TABLES[table]):
        if name(row) not in done:
            done[name(row)] = measured(row)
            write("scale", {"command": "python -m benchmarks.scale", "programs": done}, peers=["libtpu"])
            print(name(row), done[name(row)].get("roofline") or done[name(row)], flush=True)


if __name__ == "__main__":
    main()
