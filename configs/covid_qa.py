"""Questions on articles about the coronavirus: a small set of a domain, from a folder.

    python -m experiments.text --config configs/covid_qa.py

Data      a folder in the layout of BEIR, made of COVID-QA (deepset, release of 2020-04-23,
          Apache-2.0): 1,380 questions over 5,307 passages of 98 articles, one relevant passage
          each, split by article into train (963), dev (63) and test (354). It is not part of
          this repository: `data.path` says where it lies.
Recipe    the bag of words of configs/pairs.py. From scratch, 963 questions teach nothing that
          helps with other articles: nDCG@10 of the 354 test questions is 0.248 trained, 0.261
          untrained and 0.637 by BM25 (one seed). A pretrained encoder is what this set asks for.
minilm    what it asks for: from a folder of sentence-transformers, --config.encoder.folder=DIR. 60
          steps of 32 pairs, two epochs, the recipe of configs/docstrings.py:minilm with 96 tokens
          of a passage in training. benchmarks/minilm.py measures it beside sentence-transformers.
Hardware  two CPU cores, half a minute.
"""

from ml_collections import ConfigDict

from configs import docstrings, pairs


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "", "minilm" or "smoke"."""
    if preset not in ("", "minilm", "smoke"):
        raise ValueError(
            f"preset {preset!r} is unknown; configs/covid_qa.py has '', minilm and smoke"
        )
    config = pairs.get_config()
    config.data = ConfigDict(
        {"source": "beir", "path": "../shared/covid_qa", "validation_split": "dev"}
    )
    config.data.batch_size = 64
    config.tokens = ConfigDict({"query_length": 32, "document_length": 128})
    config.train.update({"epochs": 20.0, "log_every": 20})
    config.eval = ConfigDict({"every_steps": 60})
    if preset == "minilm":
        _minilm(config)
    if preset == "smoke":
        config.train.epochs = 1.0
        config.eval.every_steps = 0
    return config


def _minilm(config: ConfigDict) -> None:
    recipe = docstrings.get_config("minilm")
    for section in ("encoder", "loss", "optimizer", "train", "checkpoint"):
        config[section] = recipe[section]
    config.data.batch_size = 32
    config.tokens = ConfigDict({"query_length": 64, "document_length": 128, "train_length": 96})
    config.eval.every_steps = 0
