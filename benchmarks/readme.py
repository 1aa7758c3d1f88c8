"""Write the tables of what was measured, from `results/`: `python -m benchmarks.readme`.

All ratios go into this folder's README.md and some of them into that of the repository; faults and what checkpoints
cost into docs/runs.md.
"""

import json
import re
import statistics
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
    "an epoch of fit with logs, early stopping and default checkpoints; dense net, 60,000 images, batch 32": "loop",
}
"""The rows for the repository's README, and the records that they are in."""


def figure(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:.0f}"


def ratios(record: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """By what was done, then by peer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in record["rows"]:
        found.setdefault(row["what"], {})[row["peer"]] = row["ratio"]
    return found


def table(record: dict[str, Any]) -> list[str]:
    """One record: a row for each kind of work, a column for each peer."""
    peers = list(dict.fromkeys(row["peer"] for row in record["rows"]))
    usual = statistics.mode(row["ratio"]["n"] for row in record["rows"])
    lines = [f"| `{record['command']}`, n = {usual} | {' | '.join(peers)} |", "|---" * (len(peers) + 1) + "|"]
    for what, found in ratios(record).items():
        cells = [
            f"**{figure(r['median'])}** ({figure(r['q25'])}–{figure(r['q75'])})" if (r := found.get(peer)) else "–"
            for peer in peers
        ]
        repeats = {r["n"] for r in found.values()} - {usual}
        others = "".join(note for n in sorted(repeats) if (note := f" (n = {n})") not in what)
        lines.append(f"| {what}{others} | {' | '.join(cells)} |")
    versions = record["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("jax", "keras", "torch") if name in versions)
    said = f"{record['machine']}, {record['device']}; Python {versions['python']}, {packages}; {record['date']}."
    return [*lines, "", said, ""]


def headlines(records: dict[str, dict[str, Any]]) -> list[str]:
    """The medians of some rows."""
    cores = sorted({re.findall(r"(\d+) cores", records[name]["machine"])[0] for name in HEADLINES.values()}, key=int)
    lines = [f"| {' or '.join(cores)} CPU cores | {' | '.join(PEERS)} |", "|---" * (len(PEERS) + 1) + "|"]
    for what, name in HEADLINES.items():
        found = ratios(records[name])[what]
        cells = [f"{figure(found[peer]['median'])} ×" if peer in found else "–" for peer in PEERS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def faults(record: dict[str, Any]) -> list[str]:
    """What was done to trainings, and how many were lost."""
    rows = [f"| {each['fault']} | {each['tries']} | {each['lost']} |" for each in record["faults"] if each["tries"]]
    skipped = [f"{each['fault']}: {each['note']}." for each in record["faults"] if not each["tries"]]
    tries, lost = (sum(each[name] for each in record["faults"]) for name in ("tries", "lost"))
    head = ["| fault | tries | lost |", "|---|---|---|"]
    return [*head, *rows, f"| all | **{tries}** | **{lost}** |", "", *skipped, f"{where(record)}."]


def costs(record: dict[str, Any]) -> list[str]:
    """What checkpoints add to the time of training."""
    lines = [f"What checkpoints add to the time of training (`{record['command']}`; median and quartiles):", ""]
    lines += ["| | a checkpoint | a save by itself | wall time | processor's time |", "|---|---|---|---|---|"]
    for row in record["costs"]:
        cells = []
        for clock in ("", "processor_"):
            cost = {name: f"{100 * row[f'{clock}cost'][name]:+.1f}" for name in ("median", "q25", "q75")}
            seconds = row[f"{clock}without"]["median"]
            cells.append(f"{cost['median']} % ({cost['q25']} to {cost['q75']}) of {seconds:.1f} s")
        alone = f"{row['alone']['median']:.2f} s"
        lines.append(f"| {row['what']} | {row['megabytes']:.1f} MB | {alone} | {' | '.join(cells)} |")
    loads = ", ".join(f"{row['load']:.0f}" for row in record["costs"])
    return [*lines, "", f"{where(record)}; load {loads}."]


def where(record: dict[str, Any]) -> str:
    return f"{record['machine']}; jax {record['versions']['jax']}; {record['date']}"


def between(path: Path, mark: str, lines: list[str]) -> None:
    """Put lines between two marks."""
    pattern = rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)"
    path.write_text(re.sub(pattern, lambda _: "\n".join([*lines, ""]), path.read_text(), flags=re.DOTALL))


def main() -> None:
    records = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"), reverse=True)}
    tables = [line for record in records.values() if "rows" in record for line in table(record)]
    between(EVERYTHING, "results", tables[:-1])
    between(README, "results", headlines(records))
    for mark, write in (("faults", faults), ("checkpoints", costs)):
        if mark in records:
            between(README.parent / "docs" / "runs.md", mark, write(records[mark]))


if __name__ == "__main__":
    main()
