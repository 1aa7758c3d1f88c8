"""`make demo`, three times: accuracies and seconds. `python -m benchmarks.demo`."""

from benchmarks.record import spread, write
from experiments import demo

REPEATS = 3


def main() -> None:
    tables = [demo.main() for _ in range(REPEATS)]
    rows = [
        {
            "what": parts[0]["name"],
            "accuracy": spread([part["accuracy"] for part in parts]),
            "seconds": spread([part["seconds"] for part in parts]),
        }
        for parts in zip(*tables, strict=True)
    ]
    print(write("demo", {"command": "python -m benchmarks.demo", "rows": rows}))


if __name__ == "__main__":
    main()
