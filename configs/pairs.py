"""A text encoder on pairs of your own: questions and answers, titles and texts.

    python -m experiments.text --config configs/pairs.py --config.data.path=mine.jsonl

Data      a file of pairs: `query`, `pos`, `neg` or `anchor`, `positive`, `negative`, as .jsonl,
          .tsv or .csv; a tenth of the queries, by a hash of their text, is kept to score. Several
          of them with weights: data.source=mix, docs/text.md.
Recipe    the bag of words of configs/docstrings.py, from scratch. It learns what the words of your
          texts mean to each other, so it wants thousands of pairs.
bert      a transformer of four layers from scratch, for tens of thousands of pairs. Not measured.
minilm    from a folder of sentence-transformers, --config.encoder.folder=DIR. Temperature 0.05,
          learning rate 2e-5, 128 tokens: what all-MiniLM-L6-v2 was trained with, by its README;
          weight decay 0.01 is the default of sentence-transformers' `fit`, the 2 epochs and the
          batch of 32 are a choice. Not measured on a set of its own.
e5        the same from an E5: its temperature 0.01 and its prompts "query: " and "passage: " (Wang
          et al. 2022, arXiv 2212.03533, and the model card). How E5 itself was trained is not
          published as code; the learning rate 2e-5, the 3 epochs and no weight decay are of the
          bi-encoders of the same authors (microsoft/unilm, simlm/scripts/train_biencoder_marco.sh,
          which has warm-up, 1,000 steps, too). Not measured.
bge       the same from a BGE: the temperature 0.02, the learning rate 1e-5, 2 epochs of which the
          first tenth is warm-up, and the prompt of queries of FlagEmbedding's example
          (examples/finetune/embedder/README.md), which has no weight decay; documents have no
          prompt. There each query has 7 mined negatives, data.n_negatives=7 here, 512 tokens are
          kept, and the rate falls in a line, here in a cosine. Not measured.
static    from a folder of a StaticEmbedding, whose text vector is the mean of word vectors; else
          the recipe of the bag. Not measured.
smoke     seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict

from configs import docstrings


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "", "bert", "minilm", "e5", "bge", "static" or "smoke"."""
    presets = {"": lambda config: None, "smoke": _smoke}
    presets |= {"static": _static, "bert": _bert, "minilm": _minilm, "e5": _e5, "bge": _bge}
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is unknown; configs/pairs.py has {[*presets]}")
    config = docstrings.get_config()
    config.data = ConfigDict(
        {"source": "pairs", "path": "mine.jsonl", "batch_size": 32, "test_fraction": 0.1}
    )
    config.tokens = ConfigDict({"query_length": 32, "document_length": 128})
    config.loss = ConfigDict({"kind": "info_nce", "temperature": 0.1})
    del config.train.steps
    config.train.update({"epochs": 10.0, "log_every": 20})
    config.checkpoint.every_steps = 500
    presets[preset](config)
    return config


def _static(config: ConfigDict) -> None:
    config.encoder = ConfigDict({"name": "bag", "folder": "DIR", "word_dropout": 0.2})


def _bert(config: ConfigDict) -> None:
    config.encoder = ConfigDict(
        {"name": "bert", "layers": 4, "dim": 256, "heads": 4, "hidden_dim": 1024}
    )
    config.optimizer = ConfigDict(
        {"name": "adamw", "learning_rate": 5e-4, "weight_decay": 0.01, "warmup_epochs": 1.0}
    )


def _smoke(config: ConfigDict) -> None:
    config.data.batch_size = 8
    config.encoder.dim = 32
    config.train.epochs = 1.0


def _minilm(config: ConfigDict) -> None:
    config.encoder = ConfigDict({"name": "bert", "folder": "DIR"})
    config.tokens = ConfigDict({"query_length": 64, "document_length": 128})
    config.loss.temperature = 0.05
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-5, "weight_decay": 0.01})
    config.train.epochs = 2.0


def _e5(config: ConfigDict) -> None:
    _minilm(config)
    config.tokens.update({"query_prompt": "query: ", "document_prompt": "passage: "})
    config.loss.temperature = 0.01
    config.optimizer.weight_decay = 0.0
    config.train.epochs = 3.0


def _bge(config: ConfigDict) -> None:
    _minilm(config)
    config.tokens.query_prompt = "Represent this sentence for searching relevant passages: "
    config.loss.temperature = 0.02
    config.optimizer.update({"learning_rate": 1e-5, "weight_decay": 0.0, "warmup_epochs": 0.2})
