"""Every figure is a readable PNG whose words are all on the sheet and apart from one another."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from contrastive_jax import figures

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


def evaluations(n_protocols: int, **more) -> list[dict]:
    pairs = itertools.product(KINDS, PROTOCOLS[:n_protocols])
    return [
        {"representation": kind[0], "layer": kind[1], "protocol": protocol}
        | {"accuracy": 0.987 - 0.03 * i, **more}
        for i, (kind, protocol) in enumerate(pairs)
    ]


def history(n: int) -> list[dict]:
    names = ("loss", "contrastive_accuracy", "contrastive_entropy", "online_accuracy")
    return [{"step": 10 * i} | {name: 1 / (i + 1) for name in names} for i in range(1, n + 1)]


def history_with_gaps() -> list[dict]:
    rows = [{"step": i, "loss": 1.0} for i in range(1, 9)]
    rows[3] |= {"loss": None}
    rows[4] |= {"knn_validation": 0.5}
    return rows


def draw_views(path: Path, shape=(32, 32, 3), n=8):
    views = rng().random((n, 2, *shape))
    return figures.views_grid(path, images(n, *shape), views, CIFAR[:n])


def draw_map(path: Path, n=40, n_classes=10, names=CIFAR):
    labels = np.arange(n) % n_classes
    features = rng().normal(size=(n, 5)) + 3 * np.eye(5)[labels % 5]
    return figures.embedding_map(path, features, labels, names, seed=0)


def draw_neighbours(path: Path, n=12, near=6, shape=(32, 32, 3), similarity=True):
    labels, near_labels = np.arange(n) % 10, np.arange(n * near).reshape(n, near) % 10
    cosine = np.linspace(1, -1, n * near).reshape(n, near) if similarity else None
    pictures = images(n, *shape), images(n, near, *shape)
    return figures.neighbours(path, *pictures, labels, near_labels, CIFAR, cosine)


def draw_cosines(path: Path):
    positive, negative = np.full(50, 1.0000001), rng().uniform(-1, 1, 500)
    return figures.cosine_histogram(path, positive, negative)


def draw_overlaid(path: Path, n: int):
    gauges = {"alignment": 0.1, "uniformity": -2.0, "knn_validation": 0.5}
    histories = {
        f"digits-loss.temperature=0.{i}": [row | gauges for row in history(70 - i)]
        for i in range(n)
    }
    return figures.overlaid_curves(path, histories)


def draw_confusion(path: Path, names=CIFAR):
    counts = rng().integers(0, 1001, (len(names), len(names)))
    return figures.confusion_matrix(path, counts, names)


def draw_pairs(path: Path, n=12, shape=(32, 32, 3)):
    labels = np.stack([np.arange(n) % 10, (np.arange(n) + 1) % 10], axis=1)
    cosine = np.linspace(1, -1, n)
    return figures.image_pairs(path, images(n, 2, *shape), labels, cosine, CIFAR, "Hardest pairs")


def draw_ablation(path: Path, points, **how):
    title = "losses-cpu-data.data_dir=/somewhere/else: mean and standard error, seeds: 3"
    return figures.ablation(path, points, title=title, unit="linear, %", **how)


def draw_losses(path: Path):
    names = ("NT-Xent", "NT-Logistic", "NT-Logistic, semi-hard", "margin", "margin, semi-hard")
    return draw_ablation(path, {(name,): (93.0 + i, 0.4) for i, name in enumerate(names)})


def draw_grouped(path: Path, form: str):
    sizes, epochs = ("256", "512", "1024", "2048"), ("50", "100", "200", "400", "800")
    points = {(b, e): (60.0 + i, 0.5) for i, (b, e) in enumerate(itertools.product(sizes, epochs))}
    return draw_ablation(path, points, form=form, axis="batch size; a colour for each length")


def draw_matrix(path: Path, *names: str):
    pairs = itertools.product(names, repeat=2)
    points = {pair: (10.0 * i, 0.5) for i, pair in enumerate(pairs) if len(set(pair)) > 1}
    return draw_ablation(path, points, form="matrix")


DRAWINGS = {
    "ablation of losses": draw_losses,
    "ablation of two axes as bars": lambda path: draw_grouped(path, "bars"),
    "ablation of two axes as lines": lambda path: draw_grouped(path, "lines"),
    "ablation of one cell": lambda path: draw_ablation(path, {("0.1",): (50.0, 0.0)}),
    "matrix of two": lambda path: draw_matrix(path, "crop", "colour"),
    "matrix of seven": lambda path: draw_matrix(
        path, "crop", "colour", "cutout", "Sobel", "noise", "blur", "rotate"
    ),
    "views": draw_views,
    "views of one gray 8x8 digit": lambda path: draw_views(path, (8, 8, 1), n=1),
    "curves": lambda path: figures.curves(path, history(200)),
    "curves of a short run": lambda path: figures.curves(path, history(2)),
    "curves with gaps and few columns": lambda path: figures.curves(path, history_with_gaps()),
    "curves of one row": lambda path: figures.curves(path, history(1)),
    "curves of nothing": lambda path: figures.curves(path, []),
    "scores": lambda path: figures.score_bars(path, evaluations(5, ci95=[0.6, 0.7])),
    "scores of one protocol": lambda path: figures.score_bars(path, evaluations(1)),
    "scores of an unknown kind": lambda path: figures.score_bars(
        path,
        [{"representation": "x", "layer": "y", "protocol": {"name": "new"}, "accuracy": 0.0}],
    ),
    "map": draw_map,
    "map of one class": lambda path: draw_map(path, n_classes=1),
    "map of 30 classes": lambda path: draw_map(path, 60, 30, [f"class {i}" for i in range(30)]),
    "map of unlabelled images": lambda path: draw_map(path, names=[]),
    "map of a collapsed encoder": lambda path: figures.embedding_map(
        path, np.ones((20, 4)), np.arange(20) % 2, ["even", "odd"], seed=0
    ),
    "map of three rows in one dimension": lambda path: figures.embedding_map(
        path, np.array([[1.0], [-1.0], [2.0]]), np.zeros(3, int), ["one"], seed=0
    ),
    "neighbours": draw_neighbours,
    "neighbours of gray 8x8 digits": lambda path: draw_neighbours(path, 5, 2, (8, 8, 1)),
    "neighbours of one image": lambda path: draw_neighbours(path, 1, 1, similarity=False),
    "cosines": draw_cosines,
    "curves of one run over one another": lambda path: draw_overlaid(path, 1),
    "curves of three runs": lambda path: draw_overlaid(path, 3),
    "curves of twelve runs with long names": lambda path: draw_overlaid(path, 12),
    "curves of runs that logged nothing": lambda path: figures.overlaid_curves(path, {"a": []}),
    "confusion": draw_confusion,
    "confusion of digits": lambda path: draw_confusion(path, [str(i) for i in range(10)]),
    "confusion of 30 classes": lambda path: draw_confusion(path, ["class"] * 30),
    "confusion of two classes": lambda path: draw_confusion(path, ["cat", "dog"]),
    "pairs": draw_pairs,
    "pairs of gray 8x8 digits": lambda path: draw_pairs(path, 12, (8, 8, 1)),
    "one pair": lambda path: draw_pairs(path, 1),
}


@pytest.fixture
def sheets(monkeypatch) -> list[Figure]:
    """The figures that are written during a test."""
    written = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        written.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return written


@pytest.fixture
def words(monkeypatch) -> dict[int, tuple[str, Bbox]]:
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
def test_a_figure_is_a_png_with_all_its_words_inside_and_apart(name, tmp_path, sheets, words):
    path = DRAWINGS[name](tmp_path / "new folder" / "figure.png")
    assert path == tmp_path / "new folder" / "figure.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 150 <= min(picture.size)
        assert max(picture.size) <= 2600
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2  # not blank
    (figure,) = sheets
    for text, box in words.values():
        within = Bbox.intersection(box, figure.bbox)
        assert within is not None, text
        assert within.width * within.height > 0.99 * box.width * box.height, f"{text!r} is cut"
    for (text, box), (other, other_box) in itertools.combinations(words.values(), 2):
        shared_x = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        shared_y = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert min(shared_x, shared_y) <= 1, f"{text!r} overlaps {other!r}"


def test_score_bars_are_as_tall_as_they_say(tmp_path, sheets):
    rows = evaluations(2)
    figures.score_bars(tmp_path / "scores.png", rows)
    (axes,) = sheets[0].axes
    heights = sorted(bar.get_height() for bar in axes.patches)
    np.testing.assert_allclose(heights, sorted(100 * row["accuracy"] for row in rows))
    written = {text.get_text() for text in axes.texts}
    assert written == {f"{100 * row['accuracy']:.1f}" for row in rows}


def test_curves_draw_each_metric_at_its_own_steps(tmp_path, sheets):
    figures.curves(tmp_path / "curves.png", history_with_gaps())
    loss, accuracy = sheets[0].axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert accuracy.lines[0].get_xydata().tolist() == [[5.0, 50.0]]


def test_densities_integrate_to_one(tmp_path, sheets):
    figures.cosine_histogram(tmp_path / "c.png", np.array([0.5, 1.0]), rng().uniform(-1, 1, 99))
    (axes,) = sheets[0].axes
    for outline in axes.patches[::2]:
        x, y = outline.get_xy().T
        area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
        assert area == pytest.approx(1, abs=1e-6)


def test_the_same_seed_gives_the_same_map(tmp_path):
    first, second = (draw_map(tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert first == second


def test_a_map_of_many_rows_draws_two_thousand_of_them(tmp_path, sheets, monkeypatch):
    monkeypatch.setattr("contrastive_jax.figures.maps._tsne", lambda x, start, seed: start)
    draw_map(tmp_path / "map.png", n=2100)
    for axes in sheets[0].axes:
        assert sum(len(dots.get_offsets()) for dots in axes.collections) == 2000


def test_a_map_of_two_rows_is_refused():
    with pytest.raises(ValueError, match="2 rows.*at least 3"):
        figures.embedding_map("unused.png", np.eye(2), np.zeros(2, int), ["one"], seed=0)


def test_drawing_leaves_the_style_of_the_process_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_views(tmp_path / "views.png")
    assert dict(matplotlib.rcParams) == before
