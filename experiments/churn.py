"""Which customers leave: a table of words and numbers, and why accuracy is not enough.

Words become columns of 0 and 1, numbers are scaled by the training rows. Three of four customers stay, so a network
that always says so is right on 73 %; the report of precision, recall and F1 says what it finds of those who leave.

The table is customer_churn.csv of https://github.com/codebasics/deep-learning-keras-tf-tutorial, for `--csv`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome
from jaxdl import Phase, data, evaluate, metrics, report

SOURCE = "codebasics 11_churn_prediction"
ANSWERS = ("OnlineSecurity", "OnlineBackup", "DeviceProtection", "TechSupport", "StreamingTV", "StreamingMovies")
HEADER = (
    *("customerID", "gender", "SeniorCitizen", "Partner", "Dependents", "tenure", "PhoneService", "MultipleLines"),
    *("InternetService", *ANSWERS, "Contract", "PaperlessBilling", "PaymentMethod", "MonthlyCharges", "TotalCharges"),
    "Churn",
)


@dataclass(frozen=True)
class Options(chapter.Options):
    """Which customers leave: precision, recall and F1 beside accuracy."""

    csv: Path | None = None
    """The columns of customer_churn.csv; None for customers who are made up."""
    hidden: tuple[int, ...] = (26, 15)
    epochs: int = 30
    learning_rate: float = 1e-3
    batch_size: int = 32


def made_up(count: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """Customers, of whom those leave most often who are new, pay much, and are not bound by a contract."""
    draw = np.random.default_rng(seed)

    def one(*words: str) -> str:
        return words[draw.integers(len(words))]

    for number in range(count):
        tenure, internet = int(draw.integers(1, 73)), one("DSL", "Fiber optic", "No")
        monthly = round(float({"DSL": 50, "Fiber optic": 85, "No": 20}[internet] + draw.normal(scale=5)), 2)
        contract = one("Month-to-month", "Month-to-month", "One year", "Two year")
        extras = [one("Yes", "No") if internet != "No" else "No internet service" for _ in ANSWERS]
        score = 1.5 * (contract == "Month-to-month") - tenure / 20 + monthly / 40 - 1.5
        leaves = "Yes" if draw.random() < 1 / (1 + np.exp(-2 * score)) else "No"
        person = [one("Female", "Male"), int(draw.random() < 0.2), one("Yes", "No"), one("Yes", "No"), tenure]
        payment = [one("Yes", "No"), one("Electronic check", "Mailed check", "Credit card (automatic)")]
        total = round(monthly * tenure, 2)
        yield number, *person, "Yes", one("Yes", "No"), internet, *extras, contract, *payment, monthly, total, leaves


def load(options: Any, out: Path, seed: int, random_state: int, stratify: str | None) -> tuple[str, data.Splits, Any]:
    """What the table is, its rows and their preprocessing. The test rows are the course's; the 11 rows that it leaves
    out, as charges are missing, are trained on here, with the median for it."""
    table = options.csv or chapter.write_table(out / "made-up.csv", HEADER, made_up(1000, seed))
    held_out = chapter.published_split(table, 0.2, random_state, stratify=stratify)
    *parts, preprocessing = data.from_csv(table, "Churn", drop=("customerID",), test=held_out, seed=seed)
    splits = data.Splits(*parts)
    return f"{table.name}, {sum(map(len, splits))} rows", splits, preprocessing


def train(
    options: Any, out: Path, splits: data.Splits, preprocessing: Any, seed: int, **how: Any
) -> tuple[chapter.Trained, metrics.Report, np.ndarray]:
    """A dense network, and of the test rows its scores by class and its confusion."""
    trained = chapter.train(
        out,
        "dense",
        splits,
        preprocessing,
        Phase(10, 1e-2) if options.smoke else Phase(options.epochs, options.learning_rate),
        options={"hidden": options.hidden},
        batch_size=options.batch_size,
        seed=seed,
        progress=False,
        **how,
    )
    confusion = {"confusion": metrics.confusion()}
    matrix = evaluate(trained.model, trained.variables, splits.test, metrics=confusion)["confusion"]
    return trained, metrics.classification_report(matrix, splits.train.classes), matrix


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Train, report by class."""
    what, splits, preprocessing = load(options, out, seed, random_state=5, stratify=None)
    trained, scores, matrix = train(options, out / "train", splits, preprocessing, seed)
    print(scores)
    report.confusion_matrix(matrix, splits.train.classes).savefig(out / "confusion.png", dpi=120)
    report.curves(trained.history).savefig(out / "curves.png", dpi=120)
    accuracy = trained.figures["accuracy"]
    if options.csv and not options.smoke:
        figures = [Figure("accuracy", accuracy, at_least=0.775, source=SOURCE)]
    else:
        commonest = float(matrix.sum(1).max() / matrix.sum())
        figures = [Figure("accuracy", accuracy, at_least=commonest, source="always the commonest class")]
    leaving = scores.classes[splits.train.classes[1]]
    numbers = {"precision": leaving.precision, "recall": leaving.recall, "F1": leaving.f1}
    figures += [Figure(f"{name} of those who leave", value) for name, value in numbers.items()]
    return Outcome(what, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("churn", Options, run, arguments)


if __name__ == "__main__":
    main()
