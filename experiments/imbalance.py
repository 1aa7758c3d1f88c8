"""Of the customers, one in four leaves; four ways to learn from rows of which most are of one class.

As they are; with a loss that counts the rarer class for more; without most of the commoner class; with the rarer class
repeated. Each is measured on the same test rows, in which one in four leaves, as in life. The course resamples before
it splits, so its test rows are half and half, and some were trained on: only its figure for the rows as they are can be
compared with.

The table is customer_churn.csv of https://github.com/codebasics/deep-learning-keras-tf-tutorial, for `--csv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, churn
from experiments.chapter import Figure, Outcome
from jaxdl import data, losses, trees

SOURCE = "codebasics 14_imbalanced, as it is"


@dataclass(frozen=True)
class Options(churn.Options):
    """Class weights, undersampling and oversampling: precision, recall and F1 of the customers who leave."""


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Four trainings, one table."""
    what, splits, preprocessing = churn.load(options, out, seed, random_state=15, stratify=churn.HEADER[-1])
    rows = splits.train
    weights = losses.balanced_weights(rows.labels, 2)
    ways = {
        "as it is": (rows, losses.cross_entropy),
        "class weights": (rows, losses.class_weighted(losses.cross_entropy, weights)),
        "undersampling": (data.undersample(rows, seed), losses.cross_entropy),
        "oversampling": (data.oversample(rows, seed), losses.cross_entropy),
    }
    found = {}
    for name, (part, loss) in ways.items():
        folder, parts = out / name.replace(" ", "-"), splits._replace(train=part)
        _, scores, _ = churn.train(options, folder, parts, preprocessing, seed, loss=loss)
        found[name] = (len(part), scores.averages["micro"].f1, *scores.classes[rows.classes[1]][:3])
    header = ("", "rows", "accuracy", "precision", "recall", "F1")
    lines = [(name, str(count), *(f"{value:.3f}" for value in values)) for name, (count, *values) in found.items()]
    print(trees.columns([header, *lines], right=range(1, 6)))

    recall, f1 = found["as it is"][3:]
    goal: Any = {"at_least": 0.57, "source": SOURCE} if options.csv and not options.smoke else {}
    figures = [Figure("F1 as it is", f1, **goal), Figure("recall as it is", recall)]
    for name in list(ways)[1:]:
        figures.append(Figure(f"F1 with {name}", found[name][4], **goal))
        more = found[name][3] - recall
        figures.append(Figure(f"recall gained by {name}", more, at_least=0.0, source="what balancing is for"))
    return Outcome(what, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("imbalance", Options, run, arguments)


if __name__ == "__main__":
    main()
