"""Write the tables of the README from `results/`: `python -m benchmarks.readme`."""

import json
import re
from pathlib import Path

from benchmarks.record import RESULTS

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    demo, depthwise = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("demo", "depthwise"))
    lines = ["| `make demo` | test accuracy | seconds |", "|---|---|---|"]
    for row in demo["rows"]:
        lines.append(f"| {row['what']} | {row['accuracy']['median']:.3f} | {row['seconds']['median']:.0f} |")
    lines += ["", "| speed | against | times faster |", "|---|---|---|"]
    for row in depthwise["rows"]:
        ratio = row["ratio"]
        lines.append(
            f"| {row['what']} | {row['peer']} | **{ratio['median']:.0f}** ({ratio['q25']:.0f}–{ratio['q75']:.0f}) |"
        )
    counts = f"Medians of {demo['rows'][0]['seconds']['n']} and {depthwise['rows'][0]['ratio']['n']} runs"
    versions = f"Python {demo['versions']['python']}, jax {demo['versions']['jax']}"
    lines += ["", f"{counts}; {demo['machine']}; {versions}. In brackets: quartiles."]
    text = re.sub(
        r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", "\n".join(lines) + "\n", README.read_text(), flags=re.DOTALL
    )
    README.write_text(text)


if __name__ == "__main__":
    main()
