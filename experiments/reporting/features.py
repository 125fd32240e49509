"""What a report computes from a run's checkpoint: closest pairs, and the linear probe's errors."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from contrastive_jax import data, figures
from contrastive_jax.evaluation import logistic
from contrastive_jax.evaluation.results import value_of
from experiments.reporting import folders, render, scores
from experiments.reporting.render import Drawn
from experiments.run import restore
from experiments.run.build import Run
from experiments.run.methods import METHODS
from experiments.scoring import images
from experiments.scoring.kinds import IMAGES

Findings = dict[str, Drawn | str]  # by name a picture, or why there is none
Embed = Callable[[np.ndarray], Mapping[str, np.ndarray]]
NAMES = ("negatives", "false negatives", "confusion")
SAMPLE, PAIRS = 2000, 12
_CANDIDATES = 50  # pairs considered for each one that is shown


def draw(run: folders.Run, out: Path) -> Findings:
    """Draw the pictures of a run into `out`, from its latest checkpoint and its data.

    Returns:
      For each of NAMES a picture, or why it is absent: no checkpoint, no data, no labels, ...
      A run on texts has none.
    """
    if METHODS[run.method].kind.unit != IMAGES.unit:
        return {}
    try:
        opened, step, embed = _open(run)
        row = _linear_row(run, step)
        bank = _bank(opened, row)
        if bank["label"].size == 0:
            return dict.fromkeys(NAMES, "not shown: the training images have no labels.")
        layers = embed(bank["image"])
    except Exception as error:  # without data or checkpoint, the rest of the report is still made
        return dict.fromkeys(NAMES, f"could not be computed. {render.reason(error)}")
    names = opened.dataset.class_names
    sample = {**data.take(bank, slice(SAMPLE)), "z": layers["embedding"][:SAMPLE]}
    train = layers["features"], bank["label"]
    makers = {
        "negatives": partial(_pairs, sample, names, out / "negatives.png", same=False),
        "false negatives": partial(_pairs, sample, names, out / "false_negatives.png", same=True),
        "confusion": partial(_confusion, opened, embed, row, train, out / "confusion.png"),
    }
    return {name: render.attempt(makers[name]) for name in NAMES}


def _bank(opened: Run, row: scores.Row | None) -> data.Examples:
    """Select labeled training images in the probe's order: all that it was fitted on, or more."""
    labeled = data.labeled(opened.dataset.train)
    order = np.random.default_rng(opened.plan.seed).permutation(len(labeled["label"]))
    return data.take(labeled, order[: max(SAMPLE, row["protocol"]["train_size"] if row else 0)])


def _open(run: folders.Run) -> tuple[Run, int, Embed]:
    """Restore the latest checkpoint: the run with its data, the step, and how to embed images."""
    opened, step, trained = restore.open_run(run.folder).load()
    return opened, step, partial(images.extract, opened, trained)


def closest_pairs(
    z_ND: np.ndarray, label_N: np.ndarray, n_pairs: int, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of rows with the highest cosines, closest first; no row is in two of them.

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


def _pairs(sample: data.Examples, names: Sequence[str], path: Path, *, same: bool) -> Drawn | str:
    rows_P2, cosine_P = closest_pairs(sample["z"], sample["label"], PAIRS, same=same)
    n, kind = len(sample["z"]), "one class" if same else "two classes"
    if len(cosine_P) == 0:
        return f"among {n:,} training images there is no pair of {kind}."
    title = "Likely false negatives" if same else "Hardest negatives"
    image_P2, label_P2 = sample["image"][rows_P2], sample["label"][rows_P2]
    figures.image_pairs(path, image_P2, label_P2, cosine_P, names, title)
    kind = "the same class, which the loss pushes apart" if same else "different classes"
    return path, (
        f"{title}: pairs of {kind}, with the highest cosines of z among {n:,} training images "
        "without augmentation; each image is in one pair at most."
    )


def _linear_row(run: folders.Run, step: int) -> scores.Row | None:
    """Find the score of the linear probe on the features of this step."""
    for name in folders.SCORED_FILES:
        result = run.results.get(name, {})
        for row in result["evaluations"] if result.get("step") == step else ():
            found = row.get("representation"), row.get("layer"), row.get("protocol", {}).get("name")
            if found == ("trained", "features", "linear"):
                return row
    return None


def _confusion(
    opened: Run,
    embed: Embed,
    row: scores.Row | None,
    bank: tuple[np.ndarray, np.ndarray],
    path: Path,
) -> Drawn | str:
    """Repeat the final fit of the scored probe, and count its errors on the test set."""
    names, test = opened.dataset.class_names, data.labeled(opened.dataset.test)
    if row is None or test["label"].size == 0:
        missing = "scored linear probe" if row is None else "labeled test images"
        return f"no confusion matrix: the latest checkpoint has no {missing}."
    l2, train = row["protocol"]["l2"], [part[: row["protocol"]["train_size"]] for part in bank]
    max_steps = row["protocol"].get(
        "max_steps", images.of_run(opened).protocols.probe_steps
    )  # older runs lack it
    probe = logistic.fit_logistic(*train, n_classes=len(names), l2=l2, max_steps=max_steps)
    predicted = logistic.predict(probe, embed(test["image"])["features"])
    count = np.zeros((len(names), len(names)), int)
    np.add.at(count, (test["label"], predicted), 1)
    figures.confusion_matrix(path, count, names)
    accuracy, scored = float(np.mean(predicted == test["label"])), value_of(row)
    return path, (
        f"Linear probe on h, fitted again with the L2 strength of the table ({l2:g}) on "
        f"{len(train[1]):,} training images: {100 * accuracy:.1f} % of {len(predicted):,} test "
        f"images (the table has {100 * scored:.1f} %). {_commonest(count, names)}"
    )


def _commonest(count_CC: np.ndarray, names: Sequence[str]) -> str:
    """Name the three most frequent errors."""
    wrong = np.where(np.eye(len(count_CC), dtype=bool), 0, count_CC)
    flat = np.argsort(-wrong, axis=None, kind="stable")[:3]
    places = [np.unravel_index(i, wrong.shape) for i in flat]
    errors = [f"{names[r]} taken for {names[c]} ({wrong[r, c]})" for r, c in places if wrong[r, c]]
    return f"Most often {', '.join(errors)}." if errors else "It makes no error."
