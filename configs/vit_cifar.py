"""SimCLR with a small ViT on CIFAR-10.

    python -m experiments.prepare cifar10 --data_dir DIR
    python -m experiments.simclr --config configs/vit_cifar.py:cpu --config.data.data_dir=DIR

full   ViT-Ti with patches of 4 pixels, batch 512, 200 epochs, bfloat16, one recent GPU: AdamW at
       1e-3, decay 0.05, warm-up of 10 epochs, stochastic depth 0.1, the patch projection frozen
       (MoCo v3, arXiv 2104.02057). A starting point: not run yet, no accuracy of ours is known.
cpu    3 layers of 64 dimensions by Muon for one epoch, meant for about three minutes on two CPU
       cores (427 s beside other work). Seed 0, one try: kNN k=10 42.4 % on the test set, 29.0 %
       before training, 36.0 % on pixels; linear probe 43.8, 40.1, 38.9 %
       (benchmarks/results/vit_cifar_cpu.json).
smoke  seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict

from configs import cifar


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu" or "smoke"."""
    presets = {"full": lambda config: None, "cpu": _cpu, "smoke": _smoke}
    if preset not in presets:
        known = ", ".join(presets)
        raise ValueError(f"preset {preset!r} is unknown; configs/vit_cifar.py has {known}")
    config = cifar.get_config()
    config.encoder = ConfigDict(
        {
            "name": "vit",
            "size": "Ti",
            "patch_size": 4,
            "pool": "mean",
            "positions": "sincos",
            "stochastic_depth": 0.1,
            "freeze_patches": True,
            "dtype": "bfloat16",
        }
    )
    config.optimizer.update(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "weight_decay": 0.05,
            "decay_norm_and_bias": False,
            "warmup_epochs": 10.0,
        }
    )
    config.train.epochs = 200.0
    presets[preset](config)
    return config


def _cpu(config: ConfigDict) -> None:
    """Two CPU cores, about three minutes."""
    config.data.batch_size = 256
    config.encoder.update(
        {"dim": 64, "layers": 3, "heads": 2, "stochastic_depth": 0.0, "freeze_patches": False}
    )
    config.encoder.dtype = "float32"
    config.head.update({"hidden_dim": 256, "output_dim": 128, "batch_norm": True})
    config.loss.temperature = 0.2
    config.optimizer.update(
        {"name": "muon", "learning_rate": 5e-3, "weight_decay": 0.01, "warmup_epochs": 0.1}
    )
    config.train.update({"epochs": 1.0, "log_every": 25})
    config.checkpoint.every_steps = 97
    config.eval.update({"every_steps": 97, "probe_train": 10000})


def _smoke(config: ConfigDict) -> None:
    """The same path on few images and a few steps."""
    encoder = config.encoder.copy_and_resolve_references()
    cifar.shrink(config)
    config.encoder = encoder
    config.encoder.update({"dim": 16, "layers": 1, "heads": 2, "dtype": "float32"})
    config.optimizer.warmup_epochs = 0.5
