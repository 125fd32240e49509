"""What a person sees of a run: a banner, progress, a table."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = {  # metric -> label of the progress line
    "loss": "loss",
    "contrastive_accuracy": "contrastive",
    "online_accuracy": "online",
    "knn_validation": "kNN",
}


def banner(facts: Mapping[str, Any]) -> None:
    """Print what is about to run, one fact a line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:>{width}}  {value}")
    sys.stdout.flush()


class Progress:
    """A tqdm bar on a terminal, a line for each row of metrics elsewhere."""

    def __init__(self, start: int, steps: int, batch_size: int):
        self._steps, self._batch_size = steps, batch_size
        self._since: tuple[int, float] | None = None
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def on_step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if self._since is None:  # the first step also compiles: it says nothing about speed
            self._since = (step, time.perf_counter())

    def on_row(self, step: int, row: Mapping[str, float]) -> None:
        shown = {label: row[name] for name, label in SHOWN.items() if name in row}
        text = "  ".join(f"{label} {value:.3f}" for label, value in shown.items())
        speed = self._speed(step)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{text}  {speed}")
        else:
            print(f"step {step}/{self._steps}  {text}  {speed}", flush=True)

    def _speed(self, step: int) -> str:
        if self._since is None or step <= self._since[0]:
            return ""
        rate = (step - self._since[0]) / (time.perf_counter() - self._since[1])
        left = round((self._steps - step) / rate)
        return f"{rate * self._batch_size:,.0f} images/s  ETA {left // 60}:{left % 60:02d}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The evaluations as a text table, one line for each protocol and layer.

    >>> protocol = {"name": "knn", "k": 20, "temperature": 0.07}
    >>> row = {"representation": "pixels", "layer": "pixels", "protocol": protocol}
    >>> print(table([{**row, "accuracy": 0.5, "ci95": [0.49, 0.51]}]))
    representation  layer      protocol                      accuracy  95 % interval
    pixels          pixels     kNN k=20 T=0.07                  50.0 %  49.0 to 51.0
    """
    lines = [f"{'representation':<15} {'layer':<10} {'protocol':<29} accuracy  95 % interval"]
    for row in rows:
        low, high = row.get("ci95", (None, None))
        interval = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f}"
        name = protocol_name(row["protocol"])
        accuracy = f"{100 * row['accuracy']:.1f} %"
        line = (
            f"{row['representation']:<15} {row['layer']:<10} {name:<29} {accuracy:>8}  {interval}"
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def protocol_name(protocol: Mapping[str, Any]) -> str:
    """A short name of a protocol; the JSON has all of it.

    >>> protocol_name({"name": "few-label", "labels_per_class": 10, "draws": 5})
    'linear, 10 labels/class x 5'
    """
    if protocol["name"] == "knn":
        temperature = protocol.get("temperature")
        weights = "unweighted" if temperature is None else f"T={temperature:g}"
        metric = "" if protocol.get("metric", "cosine") == "cosine" else f" {protocol['metric']}"
        chosen = ", chosen" if "selection" in protocol else ""
        return f"kNN k={protocol['k']} {weights}{metric}{chosen}"
    if protocol["name"] == "few-label":
        fraction = protocol.get("fraction")
        labels = f"{protocol['labels_per_class']} labels/class"
        labels = f"{100 * fraction:g} % of labels" if fraction else labels
        return f"linear, {labels} x {protocol['draws']}"
    if protocol["name"] in ("retrieval", "clusters"):
        return f"{protocol['name']}, {protocol['measure']}"
    if protocol["name"] in ("sgd", "finetune"):
        share = protocol.get("label_fraction", 1)
        labels = "" if share == 1 else f", {100 * share:g} % of labels"
        return f"{protocol['name']}, {protocol['epochs']:g} epochs{labels}"
    if protocol["name"] == "transformation":
        return f"linear, predicts {protocol['predicts']}"
    return "linear, L-BFGS" if protocol["name"] == "linear" else str(protocol["name"])
