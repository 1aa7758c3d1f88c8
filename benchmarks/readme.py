"""Write the tables of the README from `results/`: `python -m benchmarks.readme`."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

README = Path(__file__).parent.parent / "README.md"


def figure(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def table(record: dict[str, Any]) -> list[str]:
    """One record: a row for each kind of work, a column for each peer."""
    cells: dict[str, dict[str, str]] = {}
    for row in record["rows"]:
        ratio = row["ratio"]
        cells.setdefault(row["what"], {})[row["peer"]] = (
            f"**{figure(ratio['median'])}** ({figure(ratio['q25'])}–{figure(ratio['q75'])})"
        )
    peers = list(dict.fromkeys(row["peer"] for row in record["rows"]))
    n = record["rows"][0]["ratio"]["n"]
    return [
        f"| `{record['command']}`, n = {n} | " + " | ".join(peers) + " |",
        "|---" * (len(peers) + 1) + "|",
        *(f"| {what} | " + " | ".join(row.get(peer, "–") for peer in peers) + " |" for what, row in cells.items()),
        "",
        f"{record['machine']}, {record['device']}; Python {record['versions']['python']}, "
        + ", ".join(
            f"{name} {record['versions'][name]}" for name in ("jax", "keras", "torch") if name in record["versions"]
        )
        + f"; {record['date']}.",
        "",
    ]


def main() -> None:
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"), reverse=True)]
    lines = [line for record in records if "rows" in record for line in table(record)]
    text = re.sub(
        r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", "\n".join(lines), README.read_text(), flags=re.DOTALL
    )
    README.write_text(text)


if __name__ == "__main__":
    main()
