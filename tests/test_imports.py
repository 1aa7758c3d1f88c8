"""Imports point one way, and importing the library is light."""

import ast
import subprocess
import sys
from pathlib import Path

import jaxdl

ROOT = Path(jaxdl.__file__).parent

# For each part, the parts it may import. docs/architecture.md draws the same.
ALLOWED = {
    "errors": set(),
    "trees": {"errors"},
    "ops": {"errors"},
    "models": {"trees", "ops", "errors"},
    "data": {"errors"},
    "pretrained": {"trees", "models", "data", "errors"},
    "augment": {"errors"},
    "losses": {"errors"},
    "metrics": {"losses", "errors"},
    "optim": {"trees", "models", "errors"},
    "train": {"trees", "ops", "models", "augment", "losses", "metrics", "errors"},
    "parallel": {"errors"},
    "transfer": {"trees", "models", "optim", "errors"},
    "features": {"trees", "models", "data", "augment", "optim", "train", "parallel", "errors"},
    "rates": {"data", "losses", "optim", "features", "train", "errors"},
    "report": {"trees", "models", "data", "metrics", "optim", "errors"},
    "history": {"report", "errors"},
    "checkpoint": {"trees", "train", "parallel", "errors"},
    "callbacks": {"trees", "optim", "train", "parallel", "history", "checkpoint", "errors"},
    "loop": {
        *("trees", "models", "data", "augment", "losses", "metrics", "optim", "train", "parallel", "transfer"),
        *("features", "history", "checkpoint", "callbacks", "errors"),
    },
    "explain": {"trees", "models", "data", "losses", "train", "errors"},
    "plan": {"trees", "models", "data", "optim", "train", "parallel", "errors"},
    "runs": {"models", "data", "pretrained", "parallel", "history", "checkpoint", "callbacks", "errors"},
    "page": {
        *("trees", "data", "metrics", "optim", "transfer", "explain", "report", "history", "loop", "runs", "errors"),
    },
}


def imported(path: Path) -> set[str]:
    """The parts of jaxdl that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxdl":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            parts |= set(names)
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxdl.")}
    return parts


def test_imports_point_one_way():
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in ("__init__", "cli"):  # the front doors see everything
            continue
        assert part in ALLOWED, f"{path} belongs to no part that the architecture knows"
        wrong = imported(path) - ALLOWED[part] - {part}
        assert not wrong, f"{path} imports {wrong}; allowed: {ALLOWED[part]}"


def test_the_arrows_make_no_circle():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {part for part, needs in ALLOWED.items() if part not in done and needs <= done}
        assert ready, f"a circle among {set(ALLOWED) - done}"
        done |= ready


def test_only_the_right_files_know_flax_and_orbax():
    for package, homes in (("flax", {"models"}), ("orbax", {"checkpoint"}), ("tensorflow_datasets", {"data"})):
        for path in ROOT.rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text())))
            names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
            names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
            roots = {name.split(".")[0] for name in names}
            if package in roots:
                assert path.relative_to(ROOT).parts[0].removesuffix(".py") in homes, f"{path} imports {package}"


def test_import_is_light():
    heavy = ("orbax", "tensorflow_datasets", "matplotlib", "torch", "tensorflow", "tyro", "pandas")
    code = f"import sys, jaxdl; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
