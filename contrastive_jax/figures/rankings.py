"""Pictures of retrieval: which queries a training helped, and which it harmed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contrastive_jax.figures.canvas import BLUE, GRAY, INK, RED, PathLike, subplots


def gains(path: PathLike, gain_of: Mapping[str, np.ndarray], measure: str = "nDCG@10") -> Path:
    """Draw how much each query gained or lost, in falling order, a panel for each comparison.

    Args:
      path: of the PNG.
      gain_of: by what is compared, such as "trained - BM25", the differences [Q], -1 to 1.
      measure: what was measured.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gains(f"{folder}/gains.png", {"trained - BM25": np.array([0.5, 0.0, -0.1])}).name
    'gains.png'
    """
    with subplots(path, (4.6 * len(gain_of), 3.6), 1, len(gain_of)) as all_axes:
        for axes, (name, gain_Q) in zip(all_axes, gain_of.items(), strict=True):
            gain_Q = np.sort(gain_Q)[::-1]
            x = np.arange(len(gain_Q) + 1)
            up, down = np.maximum(gain_Q, 0), np.minimum(gain_Q, 0)
            for part, color in ((up, BLUE), (down, RED)):
                axes.stairs(part, x, fill=True, color=color, alpha=0.7)
            axes.axhline(0, color=INK, linewidth=0.6)
            mean = float(gain_Q.mean())
            axes.axhline(mean, color=GRAY, linestyle="--", linewidth=1)
            axes.text(len(gain_Q), mean + 0.03, f"mean {mean:+.3f}", ha="right", fontsize=8)
            better, worse = int((gain_Q > 0).sum()), int((gain_Q < 0).sum())
            equal = len(gain_Q) - better - worse
            axes.set_title(
                f"{measure}, {name}\n{better:,} queries better, {equal:,} equal, {worse:,} worse"
            )
            axes.set(xlabel="queries, in the order of their gain", ylim=(-1.05, 1.05))
            axes.set_xlim(0, len(gain_Q))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.grid(True, axis="y")
    return Path(path)
