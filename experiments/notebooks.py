"""Run the teaching notebooks and keep what they show: `make notebooks`, in two or three minutes.

A notebook is a pair. `notebooks/NN_NAME.py` is what people write, a script with cells between `# %%`, jupytext's
percent format. `notebooks/NN_NAME.ipynb` is made from it here, with the outputs of its cells. It says neither when nor
where it was made, so running it again changes no more than rounding does. `python -m experiments.notebooks 02_neuron`
runs one.
"""

import base64
import hashlib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
import numpy as np
from PIL import Image

from jaxdl.errors import nearest

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS = 300  # that a cell may take, on a busy machine
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
# Whatever warns is mended, not shown; but for what ipykernel says of itself when it ends.
STRICT = "import warnings\nwarnings.simplefilter('error')\nwarnings.simplefilter('ignore', PendingDeprecationWarning)"


def sources() -> list[Path]:
    """The scripts of the notebooks, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def read(path: Path) -> Any:
    """A script as a notebook without outputs."""
    notebook = jupytext.read(path, fmt="py:percent")
    cells = [nbformat.from_dict({**cell, "metadata": {}, "id": name(cell["source"])}) for cell in notebook.cells]
    return nbformat.v4.new_notebook(cells=cells, metadata={**KERNEL, "language_info": {"name": "python"}})


def name(source: str) -> str:
    """A cell's id: it stays while the cell does, wherever that is moved."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def execute(notebook: Any) -> Any:
    """The notebook with its outputs, from a fresh kernel in the notebooks' folder, in which warnings are errors.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell fails.
    """
    first = nbformat.v4.new_code_cell(STRICT)
    run = nbformat.v4.new_notebook(cells=[first, *notebook.cells])
    client = nbclient.NotebookClient(
        run,
        timeout=SECONDS,
        resources={"metadata": {"path": FOLDER}},
        record_timing=False,
        coalesce_streams=True,  # the kernel cuts what is printed where the clock says so
        extra_arguments=["--log-level=ERROR"],  # it warns that it talks to this process without encryption
    )
    client.execute()
    del run.cells[0]
    for count, cell in enumerate((cell for cell in run.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    run.metadata = notebook.metadata  # in the place of what the kernel tells of itself
    return run


def small(png: str) -> str:
    """A picture, base64, of 256 dithered colours, one of them white, which takes half the room or less."""
    drawn, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    palette = picture.quantize(255, kmeans=1)
    dithered = picture.quantize(palette=palette)
    colours = (palette.getpalette() or [])[: 3 * 255]
    dithered.putpalette([*colours, *[255] * (3 * 256 - len(colours))])
    dithered.paste(255, mask=Image.fromarray((np.asarray(picture) == 255).all(-1)))
    dithered.save(drawn, "png", optimize=True)
    return base64.b64encode(drawn.getvalue()).decode()


def written(notebook: Any) -> str:
    """The text of an .ipynb, with small pictures."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = small(output.data["image/png"])
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def main(names: Sequence[str]) -> None:
    """Run the notebooks of these names, or all."""
    known = {path.stem: path for path in sources()}
    for each in names:
        if each not in known:
            sys.exit(f"there is no notebook {each!r}{nearest(each, known)}")
    print(f"running {len(names) or len(known)} notebooks, to write what they show to {FOLDER.name}/*.ipynb", flush=True)
    for path in (known[each] for each in names or known):
        started = time.perf_counter()
        text = written(execute(read(path)))
        path.with_suffix(".ipynb").write_text(text, encoding="utf-8")
        print(f"{path.stem}: {time.perf_counter() - started:.0f} s, {len(text) / 1000:.0f} KB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
