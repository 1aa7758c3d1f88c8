"""Write the tables of what was measured, from `results/`: `python -m benchmarks.readme`.

All of it goes into this folder's README.md, some rows of it into that of the repository.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

EVERYTHING = Path(__file__).parent / "README.md"
README = Path(__file__).parent.parent / "README.md"

PEERS = ("plain Flax", "Keras 3 (JAX)", "PyTorch")
HEADLINES = {
    "training EfficientNet-B0, batch 16 @224, float32": "efficientnet",
    "inference EfficientNet-B0, batch 16 @224, float32": "efficientnet",
    "20 epochs of feature extraction, extraction included, 128 images @128 (n = 3)": "transfer",
    "an epoch of TinyVGG, 1,600 images of 64×64×3, batch 32": "cnn",
    "an epoch of fit with checkpoints, logs, early stopping and plateaus; dense net, 60,000 images, batch 32": "loop",
}
"""The rows for the repository's README, and the records that they are in."""


def figure(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def ratios(record: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """By what was done, then by peer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in record["rows"]:
        found.setdefault(row["what"], {})[row["peer"]] = row["ratio"]
    return found


def table(record: dict[str, Any]) -> list[str]:
    """One record: a row for each kind of work, a column for each peer."""
    peers = list(dict.fromkeys(row["peer"] for row in record["rows"]))
    n = record["rows"][0]["ratio"]["n"]
    lines = [f"| `{record['command']}`, n = {n} | {' | '.join(peers)} |", "|---" * (len(peers) + 1) + "|"]
    for what, found in ratios(record).items():
        cells = [
            f"**{figure(r['median'])}** ({figure(r['q25'])}–{figure(r['q75'])})" if (r := found.get(peer)) else "–"
            for peer in peers
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    versions = record["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("jax", "keras", "torch") if name in versions)
    where = f"{record['machine']}, {record['device']}; Python {versions['python']}, {packages}; {record['date']}."
    return [*lines, "", where, ""]


def headlines(records: dict[str, dict[str, Any]]) -> list[str]:
    """The medians of some rows."""
    lines = [f"| two CPU cores | {' | '.join(PEERS)} |", "|---" * (len(PEERS) + 1) + "|"]
    for what, name in HEADLINES.items():
        found = ratios(records[name])[what]
        cells = [f"{figure(found[peer]['median'])} ×" if peer in found else "–" for peer in PEERS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return [*lines, ""]


def write(path: Path, lines: list[str]) -> None:
    """Put lines between the marks of a page."""
    text = re.sub(
        r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", "\n".join(lines), path.read_text(), flags=re.DOTALL
    )
    path.write_text(text)


def main() -> None:
    records = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"), reverse=True)}
    write(EVERYTHING, [line for record in records.values() if "rows" in record for line in table(record)])
    write(README, headlines(records))


if __name__ == "__main__":
    main()
