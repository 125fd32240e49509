"""The smallest runs of every method: 8x8 images, a ResNet of one stage, two steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.run import lifecycle
from experiments.run.methods import METHODS

PREDICTOR = {"kind": "linear"}
METHOD_SECTIONS: dict[str, dict[str, Any]] = {  # what each method's own section says
    "simclr": {"loss": {"kind": "nt_xent", "temperature": 0.2}},
    "clip": {
        "text": {"width": 4, "hidden_dim": 4},
        "loss": {"kind": "symmetric_info_nce", "temperature_start": 0.2},
    },
    "moco": {"moco": {"temperature": 0.2, "queue_size": 32, "momentum": 0.9}},
    "moco_v3": {"predictor": PREDICTOR, "moco_v3": {"momentum": 0.9}},
    "byol": {"predictor": PREDICTOR, "byol": {"momentum": 0.9}},
    "simsiam": {"predictor": PREDICTOR, "simsiam": {"constant_rate": True}},
    "barlow": {"barlow": {"scale": 0.1}},
    "vicreg": {"vicreg": {"covariance": 1.0}},
    "nnclr": {"predictor": PREDICTOR, "nnclr": {"queue_size": 16}},
    "lejepa": {"lejepa": {"n_directions": 4}},
    "swav": {"swav": {"n_prototypes": 4, "queue_size": 16}},
    "dino": {"dino": {"n_prototypes": 4}},
}
CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({values!r})
"""


def config(method: str, data_dir: Path) -> dict[str, Any]:
    """The config of the smallest run of a method."""
    return {
        "data": {"source": "arrays", "data_dir": str(data_dir), "batch_size": 8},
        "augment": {"size": 8, "jitter_probability": 0.0, "grayscale_probability": 0.0},
        "encoder": {"depth": 10, "width": 0.0625, "stages": 1, "stem": "stride2"},
        "head": {"kind": "linear", "output_dim": 4},
        **METHOD_SECTIONS[method],
        "optimizer": {"name": "sgd", "learning_rate": 0.01},
        "train": {"steps": 2, "log_every": 1},
        "checkpoint": {"every_steps": 1, "keep": 2},
        "eval": {"labels_per_class": 2, "draws": 2, "probe_steps": 2, "l2_grid": (1.0, 0.1)},
        "log": {"tensorboard": False},
    }


def write_config(path: Path, values: dict[str, Any]) -> Path:
    """Write a config file that gives these values."""
    ConfigDict(values)  # refuses what a config cannot hold
    path.write_text(CONFIG.format(values=values))
    return path


def arrays(n: int = 40, n_test: int = 12, classes: int = 3, channels: int = 3) -> dict[str, Any]:
    """Noise around a shade for each class, captioned by it."""
    rng = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = np.arange(n) % classes
        noise = rng.integers(0, 64, (n, 8, 8, channels))
        image = (noise + 60 * label[:, None, None, None] % 190).astype(np.uint8)
        return image, label, np.array([f"shade {i % classes} of gray" for i in range(n)])

    names = ("image", "label", "text")
    train, test = part(n), part(n_test)
    return dict(zip((*names, *(f"test_{n}" for n in names)), (*train, *test), strict=True))


def write_arrays(path: Path, **changes: Any) -> Path:
    """Write an .npz for `source=arrays`; an array given as None is left out."""
    whole = {**arrays(), **changes}
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    return path


def train(folder: Path, method: str, data_dir: Path, *arguments: str) -> int:
    """Run the training command of a method; its exit code."""
    path = write_config(folder.with_suffix(".py"), config(method, data_dir))
    argv = [f"{method}.py", f"--config={path}", f"--workdir={folder}", *arguments]
    return lifecycle.main(METHODS[method], argv)


def main_of(command: Callable[..., int], *arguments: Any) -> int:
    """Run a command in this process."""
    return command(["command", *map(str, arguments)])
