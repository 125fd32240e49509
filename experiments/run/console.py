"""Print what a run is, how far it is, and its scores."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from contrastive_jax.evaluation import protocols
from contrastive_jax.evaluation.results import value_of

SHOWN = {  # metric -> label of the progress line
    "loss": "loss",
    "contrastive_accuracy": "contrastive",
    "online_accuracy": "online",
    "knn_validation": "kNN",
    "nDCG_validation": "nDCG",
}


def banner(summary: Mapping[str, Any]) -> None:
    """Print a summary of the run that starts, one entry a line.

    >>> banner({"config": "digits, seed 0", "steps": "150"})
    config  digits, seed 0
     steps  150
    """
    width = max(map(len, summary))
    lines = [f"{name:>{width}}  {value}" for name, value in summary.items()]
    print("\n".join(lines), flush=True)


class Progress:
    """Show progress: a tqdm bar on a terminal, a line for each row of metrics elsewhere.

    Args:
      start: the step that training starts from.
      steps: the last one.
      batch_size: examples a step.
      unit: what the examples are, in the plural.
    """

    def __init__(self, start: int, steps: int, batch_size: int, unit: str = "images"):
        self._steps, self._batch_size, self._unit = steps, batch_size, unit
        self._since: tuple[int, float] | None = None
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def on_step(self, step: int) -> None:
        """Count a finished step."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if self._since is None:  # the first step also compiles: it says nothing about speed
            self._since = (step, time.perf_counter())

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Show the metrics of a logged step, the speed and the time left."""
        shown = {label: row[name] for name, label in SHOWN.items() if name in row}
        text = "  ".join(f"{label} {value:.3f}" for label, value in shown.items())
        speed = self._speed(step)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{text}  {speed}")
        else:
            print(f"step {step}/{self._steps}  {text}  {speed}".rstrip(), flush=True)

    def _speed(self, step: int) -> str:
        if self._since is None or step <= self._since[0]:
            return ""
        rate = (step - self._since[0]) / (time.perf_counter() - self._since[1])
        left = round((self._steps - step) / rate)
        examples = f"{rate * self._batch_size:,.0f} {self._unit}/s"
        return f"{examples}  ETA {left // 60}:{left % 60:02d}"

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the evaluations as a text table, one line for each protocol and layer, if any.

    Args:
      rows: {"representation", "layer", "protocol", "value"}, with "ci95" or without; rows of older
        results have "accuracy" in place of "value".

    >>> protocol = {"name": "knn", "k": 20, "temperature": 0.07}
    >>> row = {"representation": "pixels", "layer": "pixels", "protocol": protocol}
    >>> newer, older = {"value": 0.5, "ci95": [0.49, 0.51]}, {"accuracy": 0.25}
    >>> print(table([{**row, **newer}, {**row, **older}]))
    representation  layer   protocol         value  95 % interval
    pixels          pixels  kNN k=20 T=0.07  50.0 %  49.0 to 51.0
    pixels          pixels  kNN k=20 T=0.07  25.0 %
    """
    if not rows:
        return "no protocol could score this data; diagnostics are in the results"
    lines = [("representation", "layer", "protocol", "value", "95 % interval")]
    lines += [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = (str.ljust, str.ljust, str.ljust, str.rjust, str.ljust)
    texts = [
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True))
        for line in lines
    ]
    return "\n".join(text.rstrip() for text in texts)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = row.get("ci95") or (None, None)
    interval = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
    value = f"{100 * value_of(row):.1f} %"
    name = protocols.label(row["protocol"])
    return row["representation"], row["layer"], name, value, interval
