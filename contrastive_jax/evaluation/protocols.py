"""Score cached features by named protocols: what each needs of the data, its scores, its label."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.evaluation import clustering, few_labels, knn, probes, retrieval
from contrastive_jax.evaluation.knn import KnnProtocol
from contrastive_jax.evaluation.results import LabeledFeatures, Scored, stratified_split

SUMMARY = ("knn", "linear", "few")  # what a training run is scored by at its end
VALIDATION_FRACTION = 0.1


class Settings(NamedTuple):
    """How the protocols score; the defaults are those at the end of a training run."""

    knn: tuple[KnnProtocol, ...] = knn.KNN_PROTOCOLS
    metrics: tuple[str, ...] = ("cosine",)
    choose_knn: bool = False  # also the member of `knn` x `metrics` that a held-out part chooses
    l2_grid: tuple[float, ...] = probes.L2_GRID
    probe_train: int | None = None  # fit probes on so many, the first in a fixed shuffle
    probe_steps: int = 200  # of L-BFGS, at most
    labels_per_class: tuple[int, ...] = (10,)  # of the few-label probes
    label_fractions: tuple[float, ...] = ()
    draws: int = 10  # samples of a few labels
    seed: int = 0

    def whole_grids(self) -> "Settings":
        """Widen every grid that is at its default, as `experiments.evaluate` scores.

        >>> len(Settings().whole_grids().l2_grid), Settings(l2_grid=(1.0,)).whole_grids().l2_grid
        (45, (1.0,))
        """
        default = Settings()
        wide = {
            "knn": knn.KNN_GRID,
            "metrics": ("cosine", "euclidean"),
            "l2_grid": probes.FINE_L2_GRID,
            "labels_per_class": (1, 5, 10, 100),
            "label_fractions": (0.01, 0.1),
        }
        widened = {k: v for k, v in wide.items() if getattr(self, k) == getattr(default, k)}
        return self._replace(**widened, choose_knn=True)


class Sets(NamedTuple):
    """Features and labels of a training and a test set."""

    train: LabeledFeatures
    test: LabeledFeatures
    n_classes: int


class Labels(NamedTuple):
    """The labels, which decide before any training which protocols can score."""

    train: np.ndarray  # [N], of the labeled examples
    test: np.ndarray  # [M]
    n_classes: int


class Protocol(NamedTuple):
    """A way to score, and the reasons why a set cannot be scored so, by part of the protocol."""

    score: Callable[[Sets, Settings, Mapping[str, Any]], list[Scored]]
    problems: Callable[[Labels, Settings], dict[str, str]]
    needs: tuple[str, ...] = ("training", "test")  # splits with labels


def left_out(names: Sequence[str], labels: Labels, settings: Settings) -> dict[str, str]:
    """Name what of the protocols these labels cannot support, and why.

    >>> few = Labels(np.repeat(np.arange(3), 20), np.arange(3), 3)
    >>> left_out(["few", "retrieval"], few, Settings(labels_per_class=(10, 50)))
    {'few, 50 labels a class': 'class 0 has 20', 'retrieval': 'no class has two test examples'}
    """
    reasons: dict[str, str] = {}
    for name in names:
        reasons |= _unlabeled(name, labels) or PROTOCOLS[name].problems(labels, settings)
    return reasons


def score(
    names: Sequence[str], sets: Sets, settings: Settings, *, representation: str, layer: str
) -> Iterator[Scored]:
    """Score features by each of the named protocols, but for what `left_out` names.

    Args:
      names: of `PROTOCOLS`.
      sets: features and labels.
      settings: how to score.
      representation, layer: what the features are, for the record.

    >>> rng = np.random.default_rng(0)
    >>> both = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    >>> sets = Sets(both, both, 2)
    >>> scored = score(["ridge"], sets, Settings(), representation="noise", layer="x")
    >>> [label(row["protocol"]) for row, predictions in scored]
    ['ridge']
    """
    labels = Labels(sets.train[1], sets.test[1], sets.n_classes)
    for name in names:
        if name not in left_out([name], labels, settings):
            record = {"representation": representation, "layer": layer}
            yield from PROTOCOLS[name].score(sets, settings, record)


def _unlabeled(name: str, labels: Labels) -> dict[str, str]:
    for split, label in (("training", labels.train), ("test", labels.test)):
        if split in PROTOCOLS[name].needs and not len(label):
            return {name: f"no {split} example has a label"}
    return {}


def _knn(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    grid = {"protocols": settings.knn, "metrics": settings.metrics}
    scored = knn.knn_scores(sets.train, sets.test, **record, **grid)
    labels = Labels(sets.train[1], sets.test[1], sets.n_classes)
    if settings.choose_knn and not _knn_problems(labels, settings):
        scored.append(knn.knn_chosen(sets.train, sets.test, **record, **grid, seed=settings.seed))
    return scored


def _knn_problems(labels: Labels, settings: Settings) -> dict[str, str]:
    reason = _held_out_problem(labels.train, settings.seed) if settings.choose_knn else None
    return {"knn, chosen": reason} if reason else {}


def _linear(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    result = probes.linear_probe(
        *_probed(sets, settings),
        *sets.test,
        n_classes=sets.n_classes,
        l2_grid=settings.l2_grid,
        max_steps=settings.probe_steps,
        seed=settings.seed,
    )
    return [Scored(probes.linear_row(result, **record), result.predictions)]


def _ridge(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    grid = {"l2_grid": settings.l2_grid, "seed": settings.seed}
    probed = _probed(sets, settings)
    result = probes.ridge_probe(*probed, *sets.test, n_classes=sets.n_classes, **grid)
    return [Scored(probes.linear_row(result, **record), result.predictions)]


def probe_rows(n: int, settings: Settings) -> np.ndarray:
    """Choose which of n labeled training examples probes see: [P], shuffled.

    >>> len(probe_rows(20, Settings(probe_train=8)))
    8
    """
    return np.random.default_rng(settings.seed).permutation(n)[: settings.probe_train]


def _probed(sets: Sets, settings: Settings) -> LabeledFeatures:
    rows = probe_rows(len(sets.train[1]), settings)
    return sets.train[0][rows], sets.train[1][rows]


def _held_out_problems(name: str) -> Callable[[Labels, Settings], dict[str, str]]:
    def problems(labels: Labels, settings: Settings) -> dict[str, str]:
        probed = labels.train[probe_rows(len(labels.train), settings)]
        reason = _held_out_problem(probed, settings.seed)
        return {name: reason} if reason else {}

    return problems


def _held_out_problem(label_N: np.ndarray, seed: int) -> str | None:
    try:
        stratified_split(label_N, VALIDATION_FRACTION, seed)
    except ValueError:
        return f"{len(label_N)} labeled training examples leave none to choose by"
    return None


def _few(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    """Fit few-label probes: for each number of labels that every class has, and each fraction."""
    labels = Labels(sets.train[1], sets.test[1], sets.n_classes)
    impossible, probed = _few_problems(labels, settings), _probed(sets, settings)
    amounts: list[dict[str, Any]] = [
        {"per_class": n} for n in settings.labels_per_class if _few_name(n) not in impossible
    ]
    amounts += [{"fraction": fraction} for fraction in settings.label_fractions]
    common = {"n_classes": sets.n_classes, "draws": settings.draws, "seed": settings.seed}
    results = [
        few_labels.few_label_probe(
            *probed, *sets.test, max_steps=settings.probe_steps, **few, **common
        )
        for few in amounts
    ]
    return [Scored(few_labels.few_label_row(result, **record), None) for result in results]


def _few_problems(labels: Labels, settings: Settings) -> dict[str, str]:
    probed = labels.train[probe_rows(len(labels.train), settings)]
    count_C = np.bincount(probed, minlength=labels.n_classes)
    rarest = int(count_C.argmin())
    return {
        _few_name(n): f"class {rarest} has {count_C[rarest]}"
        for n in settings.labels_per_class
        if n > count_C[rarest]
    }


def _few_name(per_class: int) -> str:
    return f"few, {per_class} labels a class"


def _retrieval(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    rows = retrieval.retrieval_rows(retrieval.retrieve(sets.test), **record, seed=settings.seed)
    return [Scored(row, None) for row in rows]


def _retrieval_problems(labels: Labels, settings: Settings) -> dict[str, str]:
    alone = np.bincount(labels.test).max() < 2
    return {"retrieval": "no class has two test examples"} if alone else {}


def _clusters(sets: Sets, settings: Settings, record: Mapping[str, Any]) -> list[Scored]:
    found = clustering.cluster(*sets.test, n_clusters=sets.n_classes, seed=settings.seed)
    return [Scored(row, None) for row in clustering.cluster_rows(found, **record)]


def _clusters_problems(labels: Labels, settings: Settings) -> dict[str, str]:
    n = len(labels.test)
    too_few = n < labels.n_classes
    return {"clusters": f"{labels.n_classes} clusters of {n} examples"} if too_few else {}


PROTOCOLS: Mapping[str, Protocol] = {
    "knn": Protocol(_knn, _knn_problems),
    "linear": Protocol(_linear, _held_out_problems("linear")),
    "ridge": Protocol(_ridge, _held_out_problems("ridge")),
    "few": Protocol(_few, _few_problems),
    "retrieval": Protocol(_retrieval, _retrieval_problems, needs=("test",)),
    "clusters": Protocol(_clusters, _clusters_problems, needs=("test",)),
}


def label(protocol: Mapping[str, Any]) -> str:
    """Name a protocol for tables, pictures and files of predictions.

    Two runs whose protocols differ only in what was chosen on held-out data have the same label.

    >>> label({"name": "few-label", "labels_per_class": 10, "draws": 5})
    'linear, 10 labels/class x 5'
    >>> label({"name": "knn", "k": 20, "temperature": 0.07, "metric": "cosine"})
    'kNN k=20 T=0.07'
    """
    name = protocol["name"]
    if name == "knn":
        return _knn_label(protocol)
    if name == "few-label":
        fraction = protocol.get("fraction")
        labels = f"{protocol['labels_per_class']} labels/class"
        labels = f"{100 * fraction:g} % of labels" if fraction else labels
        return f"linear, {labels} x {protocol['draws']}"
    if name in ("retrieval", "clusters"):
        return f"{name}, {protocol['measure']}"
    if name in ("sgd", "finetune"):
        part = protocol.get("label_fraction", 1)
        labels = "" if part == 1 else f", {100 * part:g} % of labels"
        return f"{name}, {protocol['epochs']:g} epochs{labels}"
    if name in ("ranking", "similarity"):
        return protocol.get("measure", name)
    if name == "cross-modal":
        return f"{protocol['task']}, {protocol['measure']}"
    if name == "zero-shot":
        task = protocol.get("task", f"{protocol['classes']} classes")
        return f"zero-shot, {task} by {protocol['by']}"
    if name == "transformation":
        return f"linear, predicts {protocol['predicts']}"
    if name == "linear":
        whole = len(protocol.get("l2_grid", ())) > len(probes.L2_GRID)
        return "linear, L-BFGS" + ", fine grid" * whole
    return str(name)


def _knn_label(protocol: Mapping[str, Any]) -> str:
    if "selection" in protocol:
        return "kNN, chosen"
    temperature, metric = protocol.get("temperature"), protocol.get("metric", "cosine")
    weights = "unweighted" if temperature is None else f"T={temperature:g}"
    return f"kNN k={protocol['k']} {weights}" + ("" if metric == "cosine" else f" {metric}")


def is_quoted(protocol: Mapping[str, Any]) -> bool:
    """Say whether a table shows it: of the kNN grid what papers quote and what was chosen.

    Of retrieval across modalities it is the recalls: the mean reciprocal rank is in the file alone.

    >>> is_quoted({"name": "knn", "k_requested": 5, "temperature": None, "metric": "cosine"})
    False
    """
    if protocol["name"] == "cross-modal":
        return protocol["measure"] != "MRR"
    if protocol["name"] != "knn" or "selection" in protocol:
        return True
    setting = KnnProtocol(protocol["k_requested"], protocol["temperature"])
    return protocol["metric"] == "cosine" and setting in knn.KNN_PROTOCOLS
