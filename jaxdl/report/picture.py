"""The figure that all pictures are; imported when one is made, as matplotlib need not be installed."""

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that a notebook shows when a cell ends with it. A plain one is shown only once pyplot has been used."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()
