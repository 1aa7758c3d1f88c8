"""What the default recipe reaches on folders of photographs: `python -m benchmarks.recipes FOLDER... [--seeds 3]`.

For each folder, which has a `test/` inside or is split, and for each seed, the recipe is run as `jaxdl fine-tune` runs
it. The head's phase alone is feature extraction; the whole is fine-tuning; both are measured on the test images, at the
epoch with the lowest validation loss. Writes `results/recipes.json`.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

import jaxdl
from benchmarks.record import write
from jaxdl import data, models, parallel, pretrained, transfer


def trained(folder: Path, name: str, seed: int, recipe: transfer.Recipe) -> dict[str, Any]:
    """The test accuracy of the best epoch of the head's phase, and of all."""
    started = time.perf_counter()
    model, variables, preprocessing = pretrained.load(name)
    train, validation, test = map(data.decoded, data.from_folder(folder, preprocessing, seed=seed))
    best: dict[str, tuple[float, Any]] = {}

    def keep(event: jaxdl.callbacks.Event) -> None:
        loss = event.metrics["val_loss"]
        for kind in ("head", "all") if event.phase.name == "head" else ("all",):
            if kind not in best or loss < best[kind][0]:
                best[kind] = loss, jax.device_get(event.state.variables)

    options: Any = {"normalize": preprocessing.normalize}
    result = jaxdl.fine_tune(
        model, variables, train, validation, recipe, seed=seed, callbacks=[keep], progress=False, **options
    )
    seconds = time.perf_counter() - started
    chosen = {"feature_extraction": best["head"][1], "fine_tuning": best["all"][1], "last_epoch": result.variables}
    figures = {
        kind: jaxdl.evaluate(result.model, weights, test, **options)["accuracy"] for kind, weights in chosen.items()
    }
    print(folder.name, f"seed {seed}:", *(f"{k} {v:.4f}" for k, v in figures.items()), f"{seconds:.0f} s", flush=True)
    return {"seed": seed, **figures, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-stats", choices=get_args(models.BatchStats), default=transfer.Recipe.batch_stats)
    options = parser.parse_args()
    parallel.configure()
    recipe = replace(transfer.Recipe(), batch_stats=options.batch_stats)
    command = "python -m benchmarks.recipes FOLDER..."
    record: dict[str, Any] = {"command": command, "model": options.model, "recipe": asdict(recipe), "folders": {}}
    for folder in options.folders:
        runs = [trained(folder, options.model, seed, recipe) for seed in range(options.seeds)]
        summary = {}
        for kind in ("feature_extraction", "fine_tuning", "last_epoch"):
            values = [run[kind] for run in runs]
            summary[kind] = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
            print(f"{folder.name}: {kind} {np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})", flush=True)
        record["folders"][folder.name] = {"summary": summary, "runs": runs}
    name = "recipes" if recipe == transfer.Recipe() else f"recipes-{options.batch_stats}"
    print(write(name, record))


if __name__ == "__main__":
    main()
