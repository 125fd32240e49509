"""Figure size, fonts and colors shared by all plots.

Figures are drawn by matplotlib's Agg canvas and never through pyplot: which backend a process, a
notebook or MPLBACKEND has chosen does not matter, and nothing global is changed.
"""

import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

_DPI = 150
BLUE, RED, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#8A8F98"
INK, FAINT = "#22262B", "#D9DCE1"
_CLASS_COLORS = (  # Okabe and Ito 2008, then Tol 2021 ("muted"): no two look alike, none is gray
    *(BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9"),
    *("#332288", "#882255", "#999933", "#000000"),
)
_STYLE: dict[Any, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK},
    "text.parse_math": False,  # a $ in a name of a class or a run is no formula
    **{"axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left"},
    **{"axes.edgecolor": INK, "axes.linewidth": 0.8, "axes.labelcolor": INK},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "grid.linewidth": 0.6},
    **{"legend.frameon": False, "legend.fontsize": 8},
    **{"savefig.facecolor": "white", "savefig.dpi": "figure", "savefig.bbox": "standard"},
}


def matplotlib() -> Any:
    """Import matplotlib with what the figures use of it, whatever MPLBACKEND says."""
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import matplotlib.layout_engine
    import matplotlib.patches

    return matplotlib


def _import_matplotlib() -> None:
    """Import matplotlib without MPLBACKEND, a wrong name in which would raise; then set it."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with suppress(ValueError):  # for pyplot, where this process uses it later
            matplotlib.rcParams["backend"] = backend


@contextmanager
def subplots(
    path: PathLike, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> Iterator[list[Any]]:
    """Yield the axes of a figure of `size` inches, and write it to `path` as a PNG at the end."""
    mpl = matplotlib()
    with mpl.rc_context(_STYLE):
        layout = mpl.layout_engine.ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = mpl.figure.Figure(figsize=size, dpi=_DPI, layout=layout)
        canvas = mpl.backends.backend_agg.FigureCanvasAgg(figure)
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # a name in letters that the font lacks is drawn as boxes
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
            canvas.print_figure(path, format="png")


@contextmanager
def image_axes(path: PathLike, size: tuple[float, float], title: str) -> Iterator[Any]:
    """Yield bare axes to place images on: y points down, an image is 1 wide."""
    with subplots(path, (max(size[0], 4.6), size[1])) as (axes,):  # the title needs its width
        yield axes
        axes.set_title(title, pad=8)
        axes.set_aspect("equal", anchor="W")
        axes.set_axis_off()


def draw_image(axes: Any, image_HWC: np.ndarray, x: float, y: float, frame: str = FAINT) -> None:
    """Draw an image [H, W, C], uint8 or float in [0, 1], in a frame with its corner at (x, y)."""
    image_HWC = image_HWC / 255 if image_HWC.dtype == np.uint8 else image_HWC
    pixels = np.clip(visible(image_HWC), 0, 1)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y))
    width = 0.6 if frame == FAINT else 2.2
    rectangle = matplotlib().patches.Rectangle
    axes.add_patch(rectangle((x, y), 1, 1, fill=False, edgecolor=frame, linewidth=width))


def visible(image_HWC: np.ndarray) -> np.ndarray:
    """Return gray [H, W], RGB or RGBA [H, W, 3 or 4]; 2, 5 and more channels become their mean.

    >>> [visible(np.zeros((8, 8, channels))).shape for channels in (1, 2, 3, 4, 5)]
    [(8, 8), (8, 8), (8, 8, 3), (8, 8, 4), (8, 8)]
    """
    return image_HWC if image_HWC.shape[-1] in (3, 4) else image_HWC.mean(axis=-1)


def channels_note(n_channels: int) -> str:
    """Say in a title how images were made visible, where that is not obvious.

    >>> channels_note(3), channels_note(12)
    ('', 'gray: the mean of 12 channels')
    """
    return "" if n_channels in (1, 3, 4) else f"gray: the mean of {n_channels} channels"


def class_name(class_names: Sequence[str], label: int, limit: int = 24) -> str:
    """Return the name of a class in one line of at most `limit` characters.

    >>> [class_name(["cat", "dog"], label) for label in (1, -1, 7)]
    ['dog', 'unlabeled', 'class 7']
    """
    if label < 0:
        return "unlabeled"
    name = str(class_names[label]) if label < len(class_names) else ""
    return shortened(name, limit) or f"class {label}"


def shortened(text: str, limit: int) -> str:
    """Return a text in one line of at most `limit` characters, cut in the middle.

    >>> shortened("great northern diver", 11)
    'great…diver'
    """
    text = " ".join(text.split())
    half = limit // 2
    return text if len(text) <= limit else f"{text[: limit - half - 1]}…{text[-half:]}"


def wrapped(names: Sequence[str], width: int) -> list[str]:
    """Fold names into lines of about `width` letters; a word is never cut.

    >>> wrapped(["a nonlinear head"], 12)
    ['a nonlinear\\nhead']
    """
    return [textwrap.fill(name, width, break_long_words=False) for name in names]


def palette(n: int) -> Sequence[Any]:
    """Return at least n colors, as distinct as their number allows."""
    few = n <= len(_CLASS_COLORS)
    return _CLASS_COLORS if few else list(matplotlib().colormaps["turbo"](np.linspace(0, 1, n)))


def legend(figure: Any, handles: Sequence[Any], names: Sequence[str], columns: int) -> None:
    """Write one legend below all axes of a figure."""
    shown = [f" {name}" if name.startswith("_") else name for name in names]  # else left out
    style = {"markerscale": 2, "handletextpad": 0.4}
    figure.legend(handles, shown, loc="outside lower center", ncols=max(1, columns), **style)
