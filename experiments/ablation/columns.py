"""The columns of an ablation, checked before its first run: what its runs will log and score."""

from collections.abc import Iterator
from typing import Any

from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import protocols
from experiments.ablation.grid import COSTS, Grid
from experiments.ablation.results import fits
from experiments.run.build import Run
from experiments.scoring import hard_negatives, images, summary

EACH_STEP = ("total_loss", "grad_norm", "update_norm", "learning_rate")  # the trainer's metrics
VALIDATED = {"images": "knn_validation", "pairs": "nDCG_validation"}


def check(table: Grid, run: Run) -> None:
    """Refuse columns that no run of the grid will have.

    Raises:
      ConfigError: naming the column and what there is.
    """
    logged = {*run.outputs.metrics, *EACH_STEP}
    logged |= (
        {"knn_validation", "nDCG_validation"} if run.experiment.kind.evaluators(run) else set()
    )
    mines = run.experiment.kind.refresh(run) is not None
    logged |= {f"mined_{name}" for name in hard_negatives.WRITTEN} if mines else set()
    rows = list(_rows(run))
    for name, column in table.columns.items():
        if "logged" in column:
            found, asked, known = column["logged"] in logged, column["logged"], sorted(logged)
        elif "cost" in column:
            found, asked, known = column["cost"] in COSTS, column["cost"], list(COSTS)
        else:
            found, asked = any(fits(column, row) for row in rows), dict(column)
            known = [f"{row['layer']}: {protocols.label(row['protocol'])}" for row in rows]
        if not found and known:
            raise ConfigError(f"the column {name!r} asks for {asked!r}; there is {known}.")


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """The rows that the summary of a run will have; none for a kind that scores in its own way."""
    if run.experiment.kind.score is summary.score:
        for protocol in _protocols(run):
            yield from ({"layer": layer, "protocol": protocol} for layer in run.outputs.layers)


def _protocols(run: Run) -> Iterator[dict[str, Any]]:
    """The protocols that the summary of a run will have, as far as columns can name them."""
    chosen, labels = images.of_run(run), images.labels(run)
    settings = chosen.protocols
    missing = protocols.left_out(protocols.SUMMARY, labels, settings)
    if "knn" not in missing:
        for knn in settings.knn:
            yield {"name": "knn", "k": knn.k, "temperature": knn.temperature}
    if "linear" not in missing:
        yield {"name": "linear"}
    for n in settings.labels_per_class if "few" not in missing else ():
        if f"few, {n} labels a class" not in missing:
            yield {"name": "few-label", "labels_per_class": n, "draws": settings.draws}
    if chosen.predict:
        yield {"name": "transformation", "predicts": chosen.predict}
