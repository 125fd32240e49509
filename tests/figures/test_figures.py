"""Every figure is a readable PNG whose texts are all inside and do not overlap."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from contrastive_jax import figures
from contrastive_jax.figures import canvas

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PROTOCOLS = [
    {"name": "knn", "k": 10, "temperature": None},
    {"name": "knn", "k": 20, "temperature": 0.07},
    {"name": "knn", "k": 200, "temperature": 0.1},
    {"name": "linear"},
    {"name": "few-label", "labels_per_class": 10},
]
KINDS = [
    ("trained", "features"),
    ("trained", "embedding"),
    ("untrained", "features"),
    ("untrained", "embedding"),
    ("pixels", "pixels"),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def images(*shape: int) -> np.ndarray:
    return rng().integers(0, 256, shape, dtype=np.uint8)


def evaluations(n_protocols: int, key="value", **more) -> list[dict]:
    pairs = itertools.product(KINDS, PROTOCOLS[:n_protocols])
    return [
        {"representation": kind[0], "layer": kind[1], "protocol": protocol}
        | {key: 0.987 - 0.03 * i, **more}
        for i, (kind, protocol) in enumerate(pairs)
    ]


def label(protocol: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items())


def history(n: int) -> list[dict]:
    names = ("loss", "contrastive_accuracy", "contrastive_entropy", "online_accuracy")
    return [{"step": 10 * i} | {name: 1 / (i + 1) for name in names} for i in range(1, n + 1)]


def history_with_gaps() -> list[dict]:
    rows = [{"step": i, "loss": 1.0} for i in range(1, 9)]
    rows[3] |= {"loss": None}
    rows[6] |= {"loss": float("nan")}
    rows[4] |= {"knn_validation": 0.5}
    return rows


def draw_views(path: Path, shape=(32, 32, 3), n=8, names=CIFAR):
    views = rng().random((n, 2, *shape))
    return figures.views_grid(path, images(n, *shape), views, names and names[:n])


def draw_map(path: Path, n=40, n_classes=10, names=CIFAR, labeled=True):
    labels = np.arange(n) % n_classes
    features = rng().normal(size=(n, 5)) + 3 * np.eye(5)[labels % 5]
    return figures.embedding_map(path, features, labels if labeled else None, names, seed=0)


def draw_partly_labeled_map(path: Path):
    labels = np.where(np.arange(40) % 3, -1, np.arange(40) % 10)
    return figures.embedding_map(path, rng().normal(size=(40, 5)), labels, CIFAR, seed=0)


def draw_neighbors(path: Path, n=12, near=6, shape=(32, 32, 3), similarity=True, names=CIFAR):
    labels, near_labels = np.arange(n) % 10, np.arange(n * near).reshape(n, near) % 10
    cosine = np.linspace(1, -1, n * near).reshape(n, near) if similarity else None
    pictures = images(n, *shape), images(n, near, *shape)
    return figures.neighbors(path, *pictures, labels, near_labels, names, cosine)


def draw_unlabeled_neighbors(path: Path):
    return figures.neighbors(path, images(4, 8, 8, 1), images(4, 3, 8, 8, 1))


def draw_cosines(path: Path, n_negatives=500):
    positive, negative = np.full(50, 1.0000001), rng().uniform(-1, 1, n_negatives)
    return figures.cosine_histogram(path, positive, negative)


def draw_gains(path: Path, n=200):
    gain = np.clip(rng().normal(0.1, 0.4, n), -1, 1)
    return figures.gains(path, {"trained - BM25": gain, "trained - untrained": 0 * gain})


def draw_runs(path: Path, n: int):
    diagnostics = {"alignment": 0.1, "uniformity": -2.0, "knn_validation": 0.5}
    histories = {
        f"digits-loss.temperature=0.{i}": [row | diagnostics for row in history(70 - i)]
        for i in range(n)
    }
    return figures.curves(path, histories)


def draw_confusion(path: Path, names=CIFAR):
    counts = rng().integers(0, 1001, (len(names), len(names)))
    return figures.confusion_matrix(path, counts, names)


def draw_pairs(path: Path, n=12, shape=(32, 32, 3), names=CIFAR, labeled=True):
    labels = np.stack([np.arange(n) % 10, (np.arange(n) + 1) % 10], axis=1) if labeled else None
    cosine = np.linspace(1, -1, n)
    return figures.image_pairs(path, images(n, 2, *shape), labels, cosine, names, "Hardest pairs")


def draw_grid(path: Path, columns=("Serif Bold Italic (unseen)", "Sans", "Mono"), names=CIFAR):
    cells = [[*images(2, 8, 8, 1), None] for _ in names]
    judged = [[True, False, None] for _ in names]
    return figures.image_grid(path, cells, names, columns, judged, "Pairs\n✓ the nearest: 3 of 6")


def draw_modalities(path: Path, n=40, names=CIFAR):
    z = rng().normal(size=(n, 5))
    return figures.modality_map(path, z, z + 0.1, np.arange(n) % 12 - 1, names, seed=0)


def draw_ablation(path: Path, points, **how):
    title = "losses-cpu-data.data_dir=/somewhere/else, which is a long name of an ablation"
    spread = "mean ± 2 standard errors, 3 seeds"
    return figures.ablation(path, points, title=title, unit="linear, %", spread=spread, **how)


def draw_losses(path: Path):
    names = ("NT-Xent", "NT-Logistic", "NT-Logistic, semi-hard", "margin", "margin, semi-hard")
    return draw_ablation(path, {(name,): (93.0 + i, 0.4) for i, name in enumerate(names)})


def draw_grouped(path: Path, form: str):
    sizes, epochs = ("256", "512", "1024", "2048"), ("50", "100", "200", "400", "800")
    points = {(b, e): (60.0 + i, 0.5) for i, (b, e) in enumerate(itertools.product(sizes, epochs))}
    return draw_ablation(path, points, form=form, axis="batch size; a color for each length")


def draw_matrix(path: Path, *names: str):
    pairs = itertools.product(names, repeat=2)
    points = {pair: (10.0 * i, 0.5) for i, pair in enumerate(pairs) if len(set(pair)) > 1}
    return draw_ablation(path, points, form="matrix")


DRAW_IMAGES = {"views": draw_views, "neighbors": draw_neighbors, "pairs": draw_pairs}
ODD_NAMES = ["", "$\\frac", "_hidden", "鳥", "a\nb", "Ünïcode ß", "x" * 60, "100 %", "{}", "<b>"]

DRAWINGS = {
    **{
        f"{name} of {channels} channels": lambda path, draw=draw, channels=channels: draw(
            path, n=2, shape=(8, 8, channels)
        )
        for name, draw in DRAW_IMAGES.items()
        for channels in (1, 2, 3, 4, 5, 12)
    },
    **{
        f"{name} of one image": lambda path, draw=draw: draw(path, n=1)
        for name, draw in DRAW_IMAGES.items()
    },
    **{
        f"{name} with odd names": lambda path, draw=draw: draw(path, names=ODD_NAMES)
        for name, draw in DRAW_IMAGES.items()
    },
    **{f"map of {n} rows": lambda path, n=n: draw_map(path, n) for n in (1, 2, 4, 5, 8)},
    "views without names": lambda path: draw_views(path, names=None),
    "neighbors without labels": draw_unlabeled_neighbors,
    "pairs without labels": lambda path: draw_pairs(path, labeled=False),
    "map without labels": lambda path: draw_map(path, labeled=False),
    "map of partly labeled images": draw_partly_labeled_map,
    "map with odd names": lambda path: draw_map(path, names=ODD_NAMES),
    "grid": draw_grid,
    "grid without columns": lambda path: draw_grid(path, columns=()),
    "grid of letters": lambda path: draw_grid(path, columns="abc", names=["a"]),
    "grid with odd names": lambda path: draw_grid(path, columns=ODD_NAMES[:3], names=ODD_NAMES),
    "modalities": draw_modalities,
    "modalities of one pair": lambda path: draw_modalities(path, n=1),
    "modalities with odd names": lambda path: draw_modalities(path, names=ODD_NAMES),
    "confusion with odd names": lambda path: draw_confusion(path, ODD_NAMES),
    "confusion of one class": lambda path: draw_confusion(path, ["cat"]),
    "cosines of a single image": lambda path: draw_cosines(path, n_negatives=0),
    "curves of runs with odd names": lambda path: figures.curves(
        path, {name: history(3) for name in ODD_NAMES}
    ),
    "ablation of losses": draw_losses,
    "ablation of two axes as points": lambda path: draw_grouped(path, "points"),
    "ablation of two axes as lines": lambda path: draw_grouped(path, "lines"),
    "ablation of one cell": lambda path: draw_ablation(path, {("0.1",): (50.0, 0.0)}),
    "matrix of two": lambda path: draw_matrix(path, "crop", "color"),
    "matrix of seven": lambda path: draw_matrix(
        path, "crop", "color", "cutout", "Sobel", "noise", "blur", "rotate"
    ),
    "views": draw_views,
    "curves": lambda path: figures.curves(path, {"run": history(200)}),
    "curves of a short run": lambda path: figures.curves(path, {"run": history(2)}),
    "curves with gaps": lambda path: figures.curves(path, {"run": history_with_gaps()}),
    "curves of one row": lambda path: figures.curves(path, {"run": history(1)}),
    "curves of nothing": lambda path: figures.curves(path, {}),
    "scores": lambda path: figures.score_bars(path, evaluations(5, ci95=[0.6, 0.7]), label),
    "scores of a single image": lambda path: figures.score_bars(
        path, evaluations(3, ci95=[0.0, 1.0])
    ),
    "scores of nothing": lambda path: figures.score_bars(path, []),
    "scores below zero": lambda path: figures.score_bars(
        path, [row | {"value": -0.2, "measure": "ARI"} for row in evaluations(1)]
    ),
    "scores of one protocol": lambda path: figures.score_bars(path, evaluations(1)),
    "scores of an unknown kind": lambda path: figures.score_bars(
        path,
        [{"representation": "x", "layer": "y", "protocol": {"name": "new"}, "value": 0.0}],
    ),
    "map": draw_map,
    "map of one class": lambda path: draw_map(path, n_classes=1),
    "map of 30 classes": lambda path: draw_map(path, 60, 30, [f"class {i}" for i in range(30)]),
    "map of unlabeled images": lambda path: draw_map(path, names=[]),
    "map of a collapsed encoder": lambda path: figures.embedding_map(
        path, np.ones((20, 4)), np.arange(20) % 2, ["even", "odd"], seed=0
    ),
    "map of three rows in one dimension": lambda path: figures.embedding_map(
        path, np.array([[1.0], [-1.0], [2.0]]), np.zeros(3, int), ["one"], seed=0
    ),
    "neighbors": draw_neighbors,
    "cosines": draw_cosines,
    "gains": draw_gains,
    "cosines of three kinds": lambda path: figures.cosine_histograms(
        path, {name: rng().uniform(-1, 1, 99) for name in ("relevant", "nearest", "other")}
    ),
    "neighbors of one neighbor": lambda path: draw_neighbors(path, 1, 1, similarity=False),
    "curves of three runs": lambda path: draw_runs(path, 3),
    "curves of twelve runs with long names": lambda path: draw_runs(path, 12),
    "curves of runs that logged nothing": lambda path: figures.curves(path, {"a": []}),
    "confusion": draw_confusion,
    "confusion of digits": lambda path: draw_confusion(path, [str(i) for i in range(10)]),
    "confusion of 30 classes": lambda path: draw_confusion(path, ["class"] * 30),
    "confusion of two classes": lambda path: draw_confusion(path, ["cat", "dog"]),
    "pairs": draw_pairs,
}


@pytest.fixture
def written_figures(monkeypatch) -> list[Figure]:
    """The figures that are written during a test."""
    written = []
    print_figure = FigureCanvasAgg.print_figure

    def spy(canvas, *args, **kwargs):
        print_figure(canvas, *args, **kwargs)
        written.append(canvas.figure)

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", spy)
    return written


@pytest.fixture
def texts(monkeypatch) -> dict[int, tuple[str, Bbox]]:
    """The texts that are drawn during a test and where, in pixels."""
    drawn = {}
    draw = Text.draw

    def spy(text, renderer, *args, **kwargs):
        draw(text, renderer, *args, **kwargs)
        if text.get_visible() and text.get_text().strip():
            drawn[id(text)] = text.get_text(), text.get_window_extent(renderer)

    monkeypatch.setattr(Text, "draw", spy)
    return drawn


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_a_png_with_whole_texts(name, tmp_path, written_figures, texts):
    path = DRAWINGS[name](tmp_path / "new folder" / "figure.png")
    assert path == tmp_path / "new folder" / "figure.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 150 <= min(picture.size)
        assert max(picture.size) <= 2600
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2  # not blank
    (figure,) = written_figures
    for text, box in texts.values():
        within = Bbox.intersection(box, figure.bbox)
        assert within is not None, text
        assert within.width * within.height > 0.99 * box.width * box.height, f"{text!r} is cut"
    for (text, box), (other, other_box) in itertools.combinations(texts.values(), 2):
        shared_x = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        shared_y = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert min(shared_x, shared_y) <= 1, f"{text!r} overlaps {other!r}"


@pytest.mark.parametrize("key", ["value", "accuracy"])
def test_score_bars_are_as_tall_as_they_say(tmp_path, written_figures, key):
    rows = evaluations(2, key)
    figures.score_bars(tmp_path / "scores.png", rows, label)
    (axes,) = written_figures[0].axes
    heights = sorted(bar.get_height() for bar in axes.patches)
    np.testing.assert_allclose(heights, sorted(100 * row[key] for row in rows))
    written = {text.get_text() for text in axes.texts}
    assert written == {f"{100 * row[key]:.1f}" for row in rows}


def test_curves_draw_each_metric_at_its_own_steps(tmp_path, written_figures):
    figures.curves(tmp_path / "curves.png", {"run": history_with_gaps()})
    loss, accuracy = written_figures[0].axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3, 5, 6, 8]
    assert accuracy.lines[0].get_xydata().tolist() == [[5.0, 50.0]]


def test_several_runs_have_a_line_each_and_a_legend(tmp_path, written_figures):
    draw_runs(tmp_path / "curves.png", 3)
    (figure,) = written_figures
    assert [len({line.get_color() for line in axes.lines}) for axes in figure.axes[:7]] == [3] * 7
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3


def test_no_two_classes_have_colors_that_look_alike():
    """Ten of them, none gray: apart by more than a fifth of the range in red, green and blue."""
    colors = np.array([to_rgb(color) for color in canvas.palette(10)])
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(colors, 2)]
    assert min(apart) > 0.2
    assert sum(color.max() - color.min() < 0.15 for color in colors) <= 1  # black alone


def test_an_ablation_says_what_its_error_bars_are_and_exaggerates_no_tenth(
    tmp_path, written_figures
):
    draw_ablation(tmp_path / "a.png", {("0.1",): (93.0, 0.1), ("0.2",): (93.2, 0.1)})
    (axes,) = written_figures[0].axes
    assert "2 standard errors" in axes.get_ylabel()
    assert np.ptp(axes.get_ylim()) >= 4
    assert not axes.patches  # no bar whose length would mean nothing on a cut axis


def test_densities_integrate_to_one(tmp_path, written_figures):
    figures.cosine_histogram(tmp_path / "c.png", np.array([0.5, 1.0]), rng().uniform(-1, 1, 99))
    (axes,) = written_figures[0].axes
    for outline in axes.patches[::2]:
        x, y = outline.get_xy().T
        area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
        assert area == pytest.approx(1, abs=1e-6)


def test_the_same_seed_gives_the_same_map(tmp_path):
    first, second = (draw_map(tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert first == second


def test_a_map_of_many_rows_draws_two_thousand_of_them(tmp_path, written_figures, monkeypatch):
    monkeypatch.setattr("contrastive_jax.figures.maps._tsne", lambda x, start, seed: start)
    draw_map(tmp_path / "map.png", n=2100)
    for axes in written_figures[0].axes:
        assert sum(len(dots.get_offsets()) for dots in axes.collections) == 2000


@pytest.mark.parametrize("features", [np.zeros((0, 4)), np.full((3, 2), np.nan)])
def test_a_map_of_no_finite_rows_is_refused(features, tmp_path):
    with pytest.raises(ValueError, match="rows of finite features"):
        figures.embedding_map(tmp_path / "map.png", features, None, [], seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("query", "near", "colors"), [(1, [1, 2], 2), (-1, [-1, 2], 0)])
def test_a_frame_judges_only_labeled_neighbors(tmp_path, written_figures, query, near, colors):
    pictures = images(1, 8, 8, 3), images(1, 2, 8, 8, 3)
    figures.neighbors(tmp_path / "n.png", *pictures, np.array([query]), np.array([near]), CIFAR)
    (axes,) = written_figures[0].axes
    edges = {frame.get_edgecolor() for frame in axes.patches}
    assert len(edges) == 1 + colors


def test_the_mean_of_two_channels_is_drawn_and_the_title_says_so(tmp_path, written_figures):
    image = np.stack([np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)], axis=-1)
    figures.views_grid(tmp_path / "v.png", image[None], image[None, None] / 255)
    (axes,) = written_figures[0].axes
    for drawn in axes.images:
        np.testing.assert_allclose(drawn.get_array(), 0.5)
    assert "mean of 2 channels" in axes.get_title(loc="left")


@pytest.mark.parametrize("backend", ["no-such-backend", "module://matplotlib_inline.no_backend"])
def test_the_backend_of_the_environment_does_not_matter(tmp_path, backend):
    code = """
import os, sys
from contrastive_jax import figures
figures.curves(sys.argv[1], {"run": [{"step": 1, "loss": 1.0}]})
assert os.environ["MPLBACKEND"] == sys.argv[2]
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
assert (matplotlib.rcParams["backend"] == sys.argv[2]) == sys.argv[2].startswith("module")
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "curves.png"), backend]
    ended = subprocess.run(
        argv, env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_drawing_leaves_the_style_of_the_process_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_views(tmp_path / "views.png")
    assert dict(matplotlib.rcParams) == before
