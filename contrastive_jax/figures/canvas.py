"""The paper that every picture is drawn on: size, fonts, colours, tiles."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

_DPI = 150
BLUE, RED, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#8A8F98"
INK, FAINT = "#22262B", "#D9DCE1"
_STYLE: dict[Any, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK},
    **{"axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left"},
    **{"axes.edgecolor": INK, "axes.linewidth": 0.8, "axes.labelcolor": INK},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "grid.linewidth": 0.6},
    **{
        "legend.frameon": False,
        "legend.fontsize": 8,
        "savefig.facecolor": "white",
        "savefig.dpi": "figure",
    },
}


@contextmanager
def sheet(
    path: PathLike, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> Iterator[list[Any]]:
    """The axes of a figure of `size` inches in the house style, written to `path` at the end."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = Figure(
            figsize=size, dpi=_DPI, layout=layout
        )  # not pyplot: nothing global to close
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


@contextmanager
def mosaic(path: PathLike, size: tuple[float, float], title: str) -> Iterator[Any]:
    """Bare axes to lay tiles on: y points down, a tile is 1 wide."""
    with sheet(path, (max(size[0], 4.6), size[1])) as (axes,):  # the title needs its width
        yield axes
        axes.set_title(title, pad=8)
        axes.set_aspect("equal", anchor="W")
        axes.set_axis_off()


def tile(axes: Any, image: np.ndarray, x: float, y: float, frame: str = FAINT) -> None:
    from matplotlib.patches import Rectangle

    image = image / 255 if image.dtype == np.uint8 else image
    pixels = np.clip(image[..., 0] if image.shape[-1] == 1 else image, 0, 1)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y))
    width = 0.6 if frame == FAINT else 2.2
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=frame, linewidth=width))


def class_name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else "unlabelled"
