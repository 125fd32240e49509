"""A text encoder from scratch on docstrings of installed code: no network, no file.

    python -m experiments.text --config configs/docstrings.py

Data      the first line of a docstring asks for the body of its function, whose own name is hidden:
          the standard library and the packages of requirements.txt, 19,706 pairs here, split by
          file into 13,800 to train on, 1,912 for validation and 3,994 to test on. It moves with the
          versions of the packages; every result holds its digest.
Recipe    a bag of words of 512 dimensions with idf as its first weights, a fifth of the words
          dropped in training. Chosen by nDCG@10 on the validation split, whose gains over BM25
          (0.363) were, a seed each and with dropout 0.3: on 256 tokens of a body, 0.076 with 256
          dimensions and 0.101 with 512; on 128 tokens, with 512, 0.088; with dropout 0.5 0.075,
          learning rate 4e-3 0.085, temperature 0.07 0.088, 720 steps 0.087, batch 512 in 300 steps
          0.085, info_nce 0.088. On 256 tokens each word once (repeats 0, 256 dimensions) 0.050,
          every occurrence in full (repeats 1, 512 dimensions) 0.073. Trained on 128 tokens, which
          takes two thirds of the time of 256, and searched on 256 0.098, on 400 0.104. Of that,
          learning rate 1e-3 0.094, a vocabulary of 28,000 0.065, dropout 0.2 0.107: the choice.
Result    3,994 test queries: nDCG@10 0.419, which is 0.081 (0.070 to 0.093) above BM25 and 0.106
          (0.098 to 0.115) above the encoder before training; seed 0
          (benchmarks/results/docstrings.json). With dropout 0.3, the only other recipe of this
          length that was scored on them, 0.417.
Hardware  two CPU cores, 95 seconds with all compilation and extraction.
package   split by package: what is learned of some libraries, searched in others. 3,729 test
          queries, seed 0: 0.332, which is 0.020 (0.009 to 0.032) above BM25 and 0.059 (0.052 to
          0.068) above the encoder before training (benchmarks/results/docstrings_package.json).
minilm    the standard library alone (2,968, 432 and 1,094 pairs), from a folder of
          sentence-transformers, --config.encoder.folder=DIR: 60 steps of 32 pairs, temperature 0.05
          (that of all-MiniLM-L6-v2, by its README), 64 tokens of a document in training and 128 in
          the search. benchmarks/minilm.py measures it beside sentence-transformers.
smoke     seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict, config_dict


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "", "package", "minilm" or "smoke"."""
    presets = {"": lambda config: None, "package": _package, "minilm": _minilm, "smoke": _smoke}
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is unknown; configs/docstrings.py has {[*presets]}")
    config = ConfigDict()
    config.data = ConfigDict({"source": "docstrings", "group": "file", "batch_size": 256})
    for key in ("limit_train", "limit_test"):
        config.data[key] = config_dict.placeholder(int)
    config.tokens = ConfigDict(
        {"vocabulary_size": 16_000, "query_length": 32, "document_length": 400, "train_length": 128}
    )
    config.encoder = ConfigDict({"name": "bag", "dim": 512, "word_dropout": 0.2})
    config.loss = ConfigDict({"kind": "symmetric_info_nce", "temperature": 0.1})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.0})
    config.train = ConfigDict(
        {"steps": 480, "epochs": config_dict.placeholder(float), "seed": 0, "log_every": 40}
    )
    config.checkpoint = ConfigDict({"every_steps": 240, "keep": 2})
    presets[preset](config)
    return config


def _package(config: ConfigDict) -> None:
    config.data.group = "package"


def _minilm(config: ConfigDict) -> None:
    config.data.update({"packages": ("stdlib",), "batch_size": 32})
    config.tokens = ConfigDict({"query_length": 32, "document_length": 128, "train_length": 64})
    config.encoder = ConfigDict({"name": "bert", "folder": "DIR"})
    config.loss = ConfigDict({"kind": "info_nce", "temperature": 0.05})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.01})
    config.train.update({"steps": 60, "log_every": 10})
    config.checkpoint.every_steps = 60


def _smoke(config: ConfigDict) -> None:
    config.data.update({"batch_size": 64, "limit_train": 1024, "limit_test": 200})
    config.tokens.update({"vocabulary_size": 4000, "document_length": 64, "train_length": 64})
    config.encoder.dim = 64
    config.train.update({"steps": 12, "log_every": 4})
