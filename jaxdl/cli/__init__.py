"""The command line: `jaxdl COMMAND`, one class for each."""

import contextlib
import importlib
import io
import shlex
import sys
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import tyro

import jaxdl
from jaxdl import parallel
from jaxdl.cli.doctor import Doctor
from jaxdl.cli.folders import DataTools
from jaxdl.cli.networks import Models, Phases, Plan, Show, Weights
from jaxdl.cli.results import Classify, Compare, Evaluate, Predict, Report
from jaxdl.cli.training import FineTune, LrFind, Train
from jaxdl.errors import InputError, Interrupted, nearest

COMMANDS: dict[str, Any] = {
    "fine-tune": FineTune,
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "classify": Classify,
    "phases": Phases,
    "plan": Plan,
    "lr-find": LrFind,
    "models": Models,
    "show": Show,
    "report": Report,
    "compare": Compare,
    "weights": Weights,
    "data": DataTools,
    "doctor": Doctor,
}


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `jaxdl`. Exit code 2 and one line on standard error for whatever the user can put right."""
    parallel.configure()
    try:
        _main(sys.argv[1:] if arguments is None else arguments)
    except BaseException as error:
        parallel.end(error)
        raise


def _main(arguments: list[str]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"jaxdl: {message}", file=sys.stderr)
            if not _chapter(arguments):
                _parse(arguments).run()
    except InputError as error:
        print("; ".join([f"jaxdl: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"jaxdl: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, AssertionError) as error:
        if _starts():
            raise
        reason = (str(error) or "no such device").splitlines()[0]
        print(f"jaxdl: JAX does not start: {reason}; `jaxdl doctor` says more", file=sys.stderr)
        sys.exit(2)
    except Interrupted as told:
        again = arguments if "--resume" in arguments else [*arguments, "--resume"]
        keeps = arguments[0] in ("train", "fine-tune")  # the others train in passing
        print(f"jaxdl: {told}: {shlex.join(['jaxdl', *again])}" if keeps else "jaxdl: stopped", file=sys.stderr)
        sys.exit(128 + told.signal)
    except KeyboardInterrupt:
        print("jaxdl: stopped", file=sys.stderr)
        sys.exit(130)


def _starts() -> bool:
    """Whether JAX has devices: not where it is told to use a platform that is not there, or a driver fails."""
    try:
        return bool(jax.devices())
    except (RuntimeError, AssertionError):
        return False


def _chapter(arguments: list[str]) -> bool:
    """Run the chapter of experiments/ whose name stands where a folder would: `jaxdl train churn`, in a checkout."""
    command, name = (*arguments, "", "")[:2]
    script = Path(jaxdl.__file__).parents[1] / "experiments" / f"{name}.py"
    if command != "train" or not name.isidentifier() or Path(name).exists() or not script.exists():
        return False
    chapter = importlib.import_module(f"experiments.{name}")
    if not hasattr(chapter, "run"):
        return False
    chapter.main(arguments[2:])
    return True


def _parse(arguments: list[str]) -> Any:
    """The command with its options; tyro's explanation of a wrong one, a box, becomes one line."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise InputError(f"no command is called {arguments[0]!r}{nearest(arguments[0], COMMANDS)}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="jaxdl", description=jaxdl.__doc__, args=arguments
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    # A title; the message; where something is near to what was meant, a rule and that; a rule and a hint. Lines and
    # rules are drawn with other characters where the terminal has no more than ASCII.
    lines = [line.strip(" │") for line in errors.getvalue().splitlines()[1:]]
    parts = [list(part) for rule, part in groupby(lines, lambda line: not line.strip("─-╰╯")) if not rule]
    message = " ".join(parts[0])
    close = [line.split()[0] for line in sum(parts[1:], []) if line.startswith("--")]
    near = f"; the nearest: {close[0]}" if close and close[0] not in arguments else ""
    name = " ".join(["jaxdl", *arguments[:1]]) if arguments and arguments[0] in COMMANDS else "jaxdl"
    raise InputError(f"{message.rstrip('.')}{near}; see {name} --help")
