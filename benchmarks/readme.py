"""Write the table of the README from `results/`: `python -m benchmarks.readme`."""

import json
import re
from pathlib import Path

from benchmarks.record import RESULTS

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = ["| what | against | times faster | command |", "|---|---|---|---|"]
    for record in records:
        for row in record["rows"]:
            ratio = row["ratio"]
            times = f"**{ratio['median']:.0f}** ({ratio['q25']:.0f}–{ratio['q75']:.0f}, n = {ratio['n']})"
            lines.append(f"| {row['what']} | {row['peer']} | {times} | `{record['command']}` |")
    last = records[-1]
    versions = f"Python {last['versions']['python']}, jax {last['versions']['jax']}"
    lines += ["", f"Medians and quartiles; {last['machine']}; {versions}."]
    text = re.sub(
        r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", "\n".join(lines) + "\n", README.read_text(), flags=re.DOTALL
    )
    README.write_text(text)


if __name__ == "__main__":
    main()
