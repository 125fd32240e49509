"""What a report computes from a run's checkpoint: closest pairs, and how the linear probe errs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax import data, figures
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import logistic
from contrastive_jax.training.checkpoint import Restored
from experiments.reporting import folders
from experiments.run import lifecycle, restore
from experiments.scoring import summary
from experiments.simclr import EXPERIMENT

SAMPLE, PAIRS = 2000, 12
_CANDIDATES = 50  # pairs looked at for each one that is shown


class Pictures(NamedTuple):
    """(path, caption) of each picture."""

    negatives: tuple[Path, str]
    false_negatives: tuple[Path, str]
    confusion: tuple[Path, str] | None  # None where the run has no linear probe of this step


def draw(run: folders.Run, out: Path) -> Pictures:
    """Draw the pictures of a run into `out`, from its latest checkpoint.

    Args:
      run: its folder must have checkpoints, and its data must be there.
      out: an existing folder.

    Raises:
      RunError, ValueError: the run cannot be restored; the message says why.
    """
    built, config = restore.rebuild(EXPERIMENT, run.folder)
    restored = restore.checkpoint(built, config, run.folder, "latest")
    bank = data.labeled(built.dataset.train)
    order = np.random.default_rng(built.plan.seed).permutation(len(bank["label"]))
    row = _linear_row(run, restored.step)
    n_probe = row["protocol"]["train_size"] if row else 0
    kept = order[: max(SAMPLE, n_probe)]
    layers = summary.extract(built, restored.state, bank["image"][kept])
    sample = {"image": bank["image"][kept[:SAMPLE]], "label": bank["label"][kept[:SAMPLE]]}
    names = built.dataset.class_names
    z = layers["embedding"][:SAMPLE]
    confusion = None
    if row is not None:
        train = layers["features"][:n_probe], bank["label"][kept[:n_probe]]
        confusion = _confusion(built, restored, row, train, out / "confusion.png")
    return Pictures(
        _pairs(sample, z, names, out / "negatives.png", same=False),
        _pairs(sample, z, names, out / "false_negatives.png", same=True),
        confusion,
    )


def closest_pairs(
    z_ND: np.ndarray, label_N: np.ndarray, n_pairs: int, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of rows with the highest cosines, closest first; no row is in two of them.

    Args:
      z_ND: embeddings; N x N cosines are held.
      label_N: their classes.
      n_pairs: how many at most.
      same: pairs of one class, else of two.

    Returns:
      Rows [P, 2] and cosines [P].

    >>> z = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 2.0]])
    >>> closest_pairs(z, np.array([0, 1, 1, 1]), 2, same=True)[0].tolist()
    [[2, 3]]
    """
    unit_ND = z_ND / np.maximum(np.linalg.norm(z_ND, axis=1, keepdims=True), 1e-12)
    cosine_NN = unit_ND @ unit_ND.T
    wanted_NN = np.triu((label_N[:, None] == label_N[None, :]) == same, 1)
    first, second = np.nonzero(wanted_NN)
    cosine = cosine_NN[first, second]
    best = np.argsort(-cosine, kind="stable")[: _CANDIDATES * n_pairs]
    pairs, used = [], set()
    for i in best:
        pair = {int(first[i]), int(second[i])}
        if len(pairs) < n_pairs and not pair & used:
            pairs.append(i)
            used |= pair
    chosen = np.array(pairs, int)
    return np.stack([first[chosen], second[chosen]], axis=1), cosine[chosen]


def _pairs(
    sample: data.Examples, z_ND: np.ndarray, names: Any, path: Path, *, same: bool
) -> tuple[Path, str]:
    rows_P2, cosine_P = closest_pairs(z_ND, sample["label"], PAIRS, same=same)
    if len(cosine_P) == 0:
        kind = "one class" if same else "two classes"
        raise ConfigError(f"among {len(z_ND)} training images there is no pair of {kind}.")
    title = "Likely false negatives" if same else "Hardest negatives"
    images, labels = sample["image"][rows_P2], sample["label"][rows_P2]
    figures.image_pairs(path, images, labels, cosine_P, names, title)
    kind = "the same class, which the loss pushes apart" if same else "different classes"
    return path, (
        f"{title}: pairs of {kind}, with the highest cosines of z among {len(z_ND):,} training "
        "images without augmentation; each image is in one pair at most."
    )


def _linear_row(run: folders.Run, step: int) -> Mapping[str, Any] | None:
    """The result of the linear probe on this very step's features, if it is among the scores."""
    for name in folders.OF_OWN_DATA:
        result = run.results.get(name, {})
        for row in result["evaluations"] if result.get("step") == step else ():
            found = row.get("representation"), row.get("layer"), row.get("protocol", {}).get("name")
            if found == ("trained", "features", "linear"):
                return row
    return None


def _confusion(
    built: lifecycle.Run,
    restored: Restored,
    row: Mapping[str, Any],
    train: tuple[np.ndarray, np.ndarray],
    path: Path,
) -> tuple[Path, str]:
    """The final fit of the quoted probe, made again."""
    names, test = built.dataset.class_names, built.dataset.test
    l2 = row["protocol"]["l2"]
    max_steps = row["protocol"].get("max_steps", built.eval.probe_steps)  # older runs lack it
    probe = logistic.fit_logistic(*train, n_classes=len(names), l2=l2, max_steps=max_steps)
    h_test = summary.extract(built, restored.state, test["image"])["features"]
    predicted = logistic.predict(probe, h_test)
    count = np.zeros((len(names), len(names)), int)
    np.add.at(count, (test["label"], predicted), 1)
    figures.confusion_matrix(path, count, names)
    accuracy = float(np.mean(predicted == test["label"]))
    return path, (
        f"Linear probe on h, fitted again with the L2 strength of the table ({l2:g}) on "
        f"{len(train[1]):,} training images: {100 * accuracy:.1f} % of {len(test['label']):,} test "
        f"images (the table has {100 * row['accuracy']:.1f} %). {_commonest(count, names)}"
    )


def _commonest(count_CC: np.ndarray, names: Any) -> str:
    """The three most frequent errors in words."""
    wrong = np.where(np.eye(len(count_CC), dtype=bool), 0, count_CC)
    flat = np.argsort(-wrong, axis=None, kind="stable")[:3]
    places = [np.unravel_index(i, wrong.shape) for i in flat]
    words = [f"{names[r]} taken for {names[c]} ({wrong[r, c]})" for r, c in places if wrong[r, c]]
    return f"Most often {', '.join(words)}." if words else "It makes no error."
