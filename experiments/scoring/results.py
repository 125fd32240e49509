"""Rows of results with the names of their predictions, and the file that holds these."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.evaluation import protocols
from contrastive_jax.evaluation.results import Scored
from contrastive_jax.storage import workdir
from experiments.run import console


def named(
    scored: Sequence[Scored], dataset: str, label_N: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Name the data set in each row, and its predictions as the file of them does.

    Args:
      scored: of `protocols.score` or of training.
      dataset: whose test examples were predicted.
      label_N: their classes.
    """
    rows, kept = [], {"label": label_N}
    for row, predictions in scored:
        row = {"dataset": dataset, **row}
        if predictions is not None:
            label = protocols.label(row["protocol"])
            key = f"{row['representation']}/{row['layer']}/{label}"
            row = {**row, "predictions": key}
            kept[key] = predictions.astype(np.int32)
        rows.append(row)
    return rows, kept


def show(rows: Sequence[Mapping[str, Any]], diagnosed: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the rows that a table shows, or where there is none the diagnostics.

    Args:
      rows: evaluations.
      diagnosed: "representation/layer" -> diagnostics by name, of which the numbers are shown.
    """
    print(console.table([row for row in rows if protocols.is_quoted(row["protocol"])]))
    for what, measured in diagnosed.items() if not rows else ():
        numbers = (f"{k} {v:.3g}" for k, v in measured.items() if isinstance(v, float))
        print(f"{what}: {', '.join(numbers)}")


def write_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Write predictions as a compressed .npz, whole or not at all."""

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **predictions)

    workdir.replace_file(path, save)
