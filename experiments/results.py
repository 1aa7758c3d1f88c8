"""Write the tables of RESULTS.md from `results/`: `python -m experiments.results`."""

import json
import re
from pathlib import Path
from typing import Any

from experiments.chapter import RESULTS, said

PAGE = Path(__file__).parent / "RESULTS.md"
MARKS = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)


def section(record: dict[str, Any]) -> list[str]:
    """One record: a row for each figure, and how they were made."""
    n = len(record["seeds"])
    lines = [f"### {record['chapter']}", "", f"| {record['data']} | n = {n} | reference | source |", "|---" * 4 + "|"]
    for figure in record["figures"]:
        value, reference = said(figure["mean"], figure["spread"]), figure["reference"] or "–"
        if not figure["reached"]:
            value += " (missed)"
        elif figure["reference"]:
            value = f"**{value}**"
        lines.append(f"| {figure['name']} | {value} | {reference} | {figure['source'] or '–'} |")
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("python", "jax", "flax", "optax"))
    made = f"`{record['command']}`, {record['seconds']:.0f} s; commit {record['commit']}, {record['date']}."
    return [*lines, "", made, f"{record['machine']}, {record['device']}; {versions}.", ""]


def page(text: str) -> str:
    """The page with the tables of all records between its marks."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return MARKS.sub(lambda _: "\n" + "\n".join(line for record in records for line in section(record)), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
