"""The notebooks run, and show what is kept of them."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
import skimage.data
from nbclient.exceptions import CellExecutionError
from PIL import Image

from experiments import notebooks

SOURCES = notebooks.sources()
QUICK = ("01_tensors",)
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
ABSOLUTE = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|usr|var|opt|work|Users)/|[A-Z]:\\)")


def named(path):
    return pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])


def kept(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(output):
    return output.get("name") or sorted(output.data)


def printed(output):
    """What is printed, as words and numbers."""
    text = output.get("text", "")
    words = " ".join(NUMBER.sub(" # ", text).split())
    return words, [float(number.replace(",", "")) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("path", [*map(named, SOURCES)])
def test_a_notebook_runs_and_shows_what_is_kept(path):
    made, shown = notebooks.execute(notebooks.read(path)), kept(path)
    assert made.metadata == shown.metadata
    for now, was in zip(code(made), code(shown), strict=True):
        assert [kinds(output) for output in now.outputs] == [kinds(output) for output in was.outputs], now.source
        for new, old in zip(now.outputs, was.outputs, strict=True):
            words, numbers = printed(new)
            assert words == printed(old)[0]
            # Trainings differ from one processor to the next, by rounding at first; counts by a few, too.
            for number, before in zip(numbers, printed(old)[1], strict=True):
                assert number == pytest.approx(before, rel=0.15, abs=4 if before.is_integer() else 0.03), now.source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_has_the_cells_of_its_script_and_their_outputs(path):
    written, script, before = path.with_suffix(".ipynb").read_text("utf-8"), notebooks.read(path), kept(path)
    assert [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in before.cells] == [
        (cell.id, cell.cell_type, cell.source, {}) for cell in script.cells
    ], f"run: python -m experiments.notebooks {path.stem}"
    assert len({cell.id for cell in before.cells}) == len(before.cells)
    assert len(written) < 400_000
    assert set(before.metadata) == {"kernelspec", "language_info"}
    assert before.metadata.language_info == {"name": "python"}
    for count, cell in enumerate(code(before), 1):
        assert cell.execution_count == count
        assert all(output.get("name") != "stderr" and output.output_type != "error" for output in cell.outputs)
        assert cell.outputs or not re.search(r"print\(|plt\.show|^report\.", cell.source, re.MULTILINE)
        # Pictures aside: in base64 anything may stand.
        said = " ".join(str(output.get("text", output.get("data", {}).get("text/plain"))) for output in cell.outputs)
        assert not ABSOLUTE.search(cell.source + said)
    assert any("image/png" in output.get("data", {}) for cell in code(before) for output in cell.outputs)


@pytest.mark.parametrize("path", [*SOURCES, notebooks.FOLDER / "README.md"], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    links = LINK.findall(path.read_text("utf-8"))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_each_notebook_leads_to_the_next_and_the_page_names_all():
    page = (notebooks.FOLDER / "README.md").read_text()
    for path, following in zip(SOURCES, [*SOURCES[1:], None], strict=True):
        assert f"({path.stem}.ipynb)" in page
        last = notebooks.read(path).cells[-1].source
        assert "## Try it" in path.read_text()
        assert following is None or f"({following.stem}.ipynb)" in last
    assert {path.stem for path in notebooks.FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}


@pytest.mark.parametrize("pixels", [skimage.data.chelsea(), 16 * (skimage.data.brick()[..., None] // 16)])
def test_a_picture_takes_less_room_and_looks_the_same(pixels):
    page, drawn = np.full((600, 600, 3), 255, np.uint8), io.BytesIO()
    page[10 : 10 + pixels.shape[0], 10 : 10 + pixels.shape[1]] = pixels
    Image.fromarray(page).save(drawn, "png")
    less = base64.b64decode(notebooks.small(base64.b64encode(drawn.getvalue()).decode()))
    assert len(less) < len(drawn.getvalue())
    now = np.asarray(Image.open(io.BytesIO(less)).convert("RGB"), int)
    assert (now[(page == 255).all(-1)] == 255).all()
    assert np.abs(now - page).mean() < 4  # of 255


def test_a_warning_stops_a_notebook():
    cell = nbformat.v4.new_code_cell("import warnings\nwarnings.warn('not so')")
    with pytest.raises(CellExecutionError, match="not so"):
        notebooks.execute(nbformat.v4.new_notebook(cells=[cell]))


def test_a_name_that_is_none_is_told():
    with pytest.raises(SystemExit, match="no notebook '02_neurone'; the nearest: 02_neuron"):
        notebooks.main(["02_neurone"])
