"""One look for all plots: Matplotlib without a display, quiet axes, the classes' colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml.quiet import quiet_libraries

STYLE: dict[str, Any] = {
    "figure.dpi": 120,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.facecolor": "#fafaf8",
    "axes.facecolor": "#fafaf8",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": "#3c4048",
    "axes.edgecolor": "#b4b8c0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e0",
    "xtick.color": "#60646c",
    "ytick.color": "#60646c",
    "lines.linewidth": 2.2,
    "legend.frameon": False,
}
ALL_CLASSES = "#3c4048"


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A Matplotlib figure and its axes, ``width`` by ``height`` inches, saved as PNG at the end."""
    quiet_libraries()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot, which takes as long to import as 30 frames take to be detected, and looks for a display.
    with matplotlib.rc_context(STYLE):
        shape = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(shape)
        yield shape, shape.add_subplot()
        shape.savefig(path)
