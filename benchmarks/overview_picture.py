"""Draw docs/images/overview.png: random views beside a map of what was learned from them.

python -m experiments.simclr --config configs/digits.py --workdir runs/digits
python -m experiments.export runs/digits --to runs/digits-encoder
python -m benchmarks.overview_picture runs/digits-encoder
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrastive_jax import augment, data, export

ROOT = Path(__file__).parents[1]
SHOWN = 5  # images, each in two views
INK, FAINT = "#22262B", "#D9DCE1"


def draw(exported: export.Exported, path: Path) -> None:
    """Draw the views of five training images, an arrow, and t-SNE of the test features."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    digits = data.load("digits", batch_size=256)
    settings = exported.card["config"]["augment"]
    image, index = digits.train["image"][:SHOWN], np.arange(SHOWN, dtype=np.int32)
    views = np.asarray(augment.make_views(**settings).train(jax.random.key(1), image, index))
    xy = tsne(np.asarray(exported.embed(digits.test["image"])))

    figure = Figure(figsize=(8.8, 3.6), dpi=150)
    show_images(figure, image, views)
    axes = figure.add_axes((0.58, 0.04, 0.41, 0.84))
    for label, color in enumerate(colormaps["tab10"].colors):  # type: ignore
        of = digits.test["label"] == label
        axes.scatter(*xy[of].T, s=9, color=color, linewidths=0)
        x, y = np.median(xy[of], axis=0)
        style: dict[str, Any] = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": color}
        axes.text(x, y, str(label), ha="center", va="center", weight="bold", bbox=style)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FAINT)
    title(figure, 0.58, "Test images, by features learned without labels")
    figure.savefig(path)


def show_images(figure: Any, image_BHWC: np.ndarray, view_BVHWC: np.ndarray) -> None:
    """Show a row of images and a row for each of their views."""
    rows = ("image", image_BHWC), ("view 1", view_BVHWC[:, 0]), ("view 2", view_BVHWC[:, 1])
    for i, (name, pictures) in enumerate(rows):
        bottom = 0.63 - 0.295 * i
        figure.text(0.055, bottom + 0.12, name, ha="right", va="center", color=INK, fontsize=9)
        for j, picture in enumerate(pictures):
            axes = figure.add_axes((0.065 + 0.0955 * j, bottom, 0.088, 0.25))
            axes.imshow(picture[..., 0], cmap="gray")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(FAINT)
    title(figure, 0.065, "Training images and two random views of each")


def title(figure: Any, x: float, text: str) -> None:
    figure.text(x, 0.93, text, weight="bold", color=INK, fontsize=9.5)


def tsne(features_NF: np.ndarray) -> np.ndarray:
    """Map features to two dimensions by t-SNE on their cosine distances."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return TSNE(metric="cosine", init="random", random_state=0).fit_transform(features_NF)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="the folder of an exported encoder")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images" / "overview.png")
    arguments = parser.parse_args()
    draw(export.load(arguments.encoder), arguments.to)
    print(arguments.to)


if __name__ == "__main__":
    main()
