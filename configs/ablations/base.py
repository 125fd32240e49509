"""Base configs of the ablations: the data, the encoder, the length of a run.

`full` is configs/cifar.py: ResNet-18 on CIFAR-10, 100 epochs, one GPU. `cpu` is what two cores do
in a minute or less: digits with a small encoder, or a part of CIFAR-10 for claims on color.
"""

from ml_collections import ConfigDict

from configs import cifar, digits

LINEAR = {"layer": "features", "name": "linear"}
COLUMNS = {
    "linear": LINEAR,
    "kNN": {"layer": "features", "name": "knn", "k": 10},
    "validation": {"logged": "knn_validation"},  # within the training set
    "contrastive accuracy": {"logged": "contrastive_accuracy"},
    "entropy": {"logged": "contrastive_entropy"},
}
SUPERVISED = {"loss.kind": "cross_entropy", "head.kind": "linear", "head.output_dim": 10}
ONLY_AT_THE_END = 10**6


def with_digits(preset: str) -> ConfigDict:
    """CIFAR-10 at full, digits elsewhere."""
    if preset == "full":
        return _quiet(cifar.get_config("full"))
    config = digits.get_config("smoke" if check(preset) == "smoke" else "")
    if preset == "cpu":
        config.train.epochs = 24.0
    return _quiet(config)


def with_cifar(preset: str) -> ConfigDict:
    """CIFAR-10 at every preset: 10,000 of its images for `cpu`."""
    if preset == "full":
        return _quiet(cifar.get_config("full"))
    config = cifar.get_config(check(preset))
    if preset == "cpu":
        config.data.update({"batch_size": 128, "limit_train": 10000, "limit_test": 5000})
        config.encoder.width = 0.25
        config.train.update({"epochs": 3.0, "log_every": 50})
    return _quiet(config)


def check(preset: str) -> str:
    """Return the preset, if there is one of this name."""
    if preset not in ("full", "cpu", "smoke"):
        raise ValueError(f"preset {preset!r} is unknown; the ablations have full, cpu and smoke")
    return preset


def pick(preset: str, *, full, cpu, smoke):
    """Return the value of the preset."""
    return {"full": full, "cpu": cpu, "smoke": smoke}[check(preset)]


def quiet(config: ConfigDict, **others) -> ConfigDict:
    """One checkpoint and one evaluation during training, at the end; no pictures, no baselines."""
    config.checkpoint.update({"every_steps": ONLY_AT_THE_END, "keep": 1})
    with config.unlocked():
        config.eval = config.get("eval") or ConfigDict()
        config.eval.update({"figures": False, "baselines": False, **others})
    return config


def _quiet(config: ConfigDict) -> ConfigDict:
    return quiet(config, every_steps=ONLY_AT_THE_END, labels_per_class=0)
