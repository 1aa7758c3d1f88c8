"""HTML as text: elements that escape what they hold, and the frame of a page that needs nothing else."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 320  # pixels of a photograph on a page; smaller ones stay as they are
TINY = 64  # pixels; below, every one of them is kept, and shows as a square
DRAWING = 200_000  # bytes of SVG; a drawing that takes more, such as a scatter of many points, becomes a PNG
NARROW = 4.5  # inches; letters of 10 points are as large as the text on a screen of 375 pixels then

# The browser itself keeps the page from asking anybody for anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Html(str):
    """Markup; every other text is escaped where it becomes part of some."""


def join(*parts: str) -> Html:
    """One after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def tag(name: str, /, *content: str, **attributes: str) -> Html:
    """An element; the attributes `class_` and `http_equiv` are `class` and `http-equiv`.

    >>> tag("p", "1 < 2", class_="lead")
    '<p class="lead">1 &lt; 2</p>'
    """
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{said}>" if name in ("img", "meta", "source") else f"<{name}{said}>{join(*content)}</{name}>")


def tiles(figures: Iterable[tuple[str, str, str]]) -> Html:
    """Figures in large print: each with what it is, and a remark."""
    each = (
        tag("div", tag("dt", what), tag("dd", figure), tag("dd", remark, class_="remark"))
        for figure, what, remark in figures
    )
    return tag("dl", *each, class_="tiles")


def facts(named: Mapping[str, str]) -> Html:
    """Names and what they stand for, where there is something."""
    pairs = ((tag("dt", name), tag("dd", value)) for name, value in named.items() if value)
    return tag("dl", *(part for pair in pairs for part in pair), class_="facts")


def table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Iterable[int] = (),
    foot: Sequence[Sequence[str]] = (),
    sortable: bool = False,
) -> Html:
    """A table that scrolls in its box where it is too wide.

    Args:
      names: of the columns.
      rows, foot: cells, the first of which names the row.
      right: the numbers of the columns that hold numbers, flush right.
      sortable: by a click on the name of a column.
    """
    numeric = set(right)
    sides: list[dict[str, str]] = [{"class_": "number"} if n in numeric else {} for n in range(len(names))]

    def row(first: str, *rest: str) -> Html:
        cells = (tag("td", cell, **side) for cell, side in zip(rest, sides[1:], strict=True))
        return tag("tr", tag("th", first, scope="row", **sides[0]), *cells)

    head = tag("tr", *(tag("th", name, scope="col", **side) for name, side in zip(names, sides, strict=True)))
    parts = [tag("thead", head), tag("tbody", *(row(*cells) for cells in rows))]
    parts += [tag("tfoot", *(row(*cells) for cells in foot))] if foot else []
    whole = tag("table", *parts, class_="sortable" if sortable else "plain")
    return tag("div", whole, class_="scroll", tabindex="0")


def bar(share: float, text: str) -> Html:
    """A figure on a bar of that share of the full length."""
    return tag("span", text, class_="bar", style=f"--part: {share:.3f}")


def folded(title: str, *content: str) -> Html:
    """What shows when its title is clicked."""
    return tag("details", tag("summary", title), *content)


def listing(text: str) -> Html:
    """Lines as they are."""
    return tag("pre", text, tabindex="0")


def picture(figure: "Figure", alt: str, stacked: bool = False) -> Html:
    """A drawing that scales, with what can be seen on it in words.

    Args:
      stacked: on narrow screens its axes stand one below the other; afterwards they do in the figure too.
    """
    width = f"{96 * figure.get_figwidth():.0f}px"
    image = tag("img", src=_drawn(figure), alt=alt, style=f"--width: {width}")
    if stacked:
        count = len(figure.axes)
        grid = figure.add_gridspec(count, 1)
        for n, axis in enumerate(figure.axes):
            axis.set_subplotspec(grid[n, 0])
        figure.set_size_inches(NARROW, 0.8 * NARROW * count)
        for legend in figure.legends:
            legend.set_ncols(1)
        narrow = tag("source", media="(max-width: 40rem)", srcset=_drawn(figure))
        image = tag("picture", narrow, image)
    return tag("figure", image, class_="picture")


def photo(pixels: np.ndarray, alt: str) -> Html:
    """An image, uint8 `[H,W,C]`, one or three channels."""
    image, file = Image.fromarray(pixels.squeeze()), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    tiny = max(image.size) < TINY
    image.save(file, "png" if tiny else "jpeg", quality=85)
    source = _uri("png" if tiny else "jpeg", file.getvalue())
    size = {"width": f"{image.width}", "height": f"{image.height}"}
    return tag("img", src=source, alt=alt, class_="tiny" if tiny else "photo", **size)


def page(title: str, first: Html, sections: Mapping[str, Html]) -> str:
    """A whole page.

    Args:
      title: of its window.
      first: what stands above the list of the sections.
      sections: by their titles; those that hold nothing are left out.
    """
    held = {name: body for name, body in sections.items() if body}
    ids = {name: name.lower().replace(" ", "-") for name in held}
    style, script = (Html(Path(__file__).with_name(name).read_text()) for name in ("page.css", "page.js"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("header", first, tag("nav", *(tag("a", name, href=f"#{ids[name]}") for name in held))),
        tag("main", *(tag("section", tag("h2", name), held[name], id=ids[name]) for name in held)),
        tag("footer", f"Made by jaxdl {version('jaxdl')}."),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _drawn(figure: "Figure") -> str:
    """A drawing as SVG, or as PNG where that is smaller, as of many points."""
    files = {"svg+xml": io.BytesIO(), "png": io.BytesIO()}
    same: Any = {"transparent": True, "bbox_inches": "tight"}
    figure.savefig(files["svg+xml"], format="svg", metadata={"Date": None}, **same)
    if files["svg+xml"].tell() <= DRAWING:
        return _uri("svg+xml", files["svg+xml"].getvalue())
    figure.savefig(files["png"], format="png", dpi=120, **same)
    return _uri("png", files["png"].getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
