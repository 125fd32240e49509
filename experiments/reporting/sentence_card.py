"""The model card of a sentence encoder: how to use it, how it was trained, what it scored."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.sentence_folder import SentenceFolder

_CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
---

# {name}

A sentence encoder: texts of up to {length} tokens to vectors of {dim} dimensions and length one,
compared by cosine.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
query = model.encode(["..."], prompt_name="query")
document = model.encode(["..."], prompt_name="document")
```

Prompts: query {query!r}, document {document!r}.

## Training

| | |
|---|---|
{training}

Config, command and versions are in the config.json of the run.

## Scores

{scores}
"""
_NO_SCORES = "None of this step were recorded."
_COLUMNS = "| system | measure | value | 95 % interval | queries |\n|---|---|---|---|---|\n"


def text(
    name: str,
    description: Mapping[str, Any],
    step: int,
    model: SentenceFolder,
    scores: Mapping[str, Any] | None,
) -> str:
    """Write the README.md of an exported run.

    Args:
      name: of the folder.
      description: the config.json of the run.
      step: of the checkpoint.
      model: what is exported.
      scores: the evaluations of this step, None where there are none.
    """
    return _CARD.format(
        name=name,
        length=model.max_length,
        dim=model.settings.get("dense_dim") or model.settings["dim"],
        training="\n".join(f"| {key} | {value} |" for key, value in _facts(description, step)),
        scores=_COLUMNS + "\n".join(map(_row, scores["evaluations"])) if scores else _NO_SCORES,
        **model.prompts,
    )


def _facts(description: Mapping[str, Any], step: int) -> list[tuple[str, Any]]:
    config, data = description["config"], description["data"]
    start = config["encoder"].get("folder", "").rstrip("/").rpartition("/")[2]
    facts = {
        "data": f"{data['name']}, {data['train']:,} pairs, sha256 {data['sha256'][:16]}",
        "started from": start or "random weights",
        "steps": f"{step:,} of {config['data']['batch_size']} pairs",
        "loss": f"{config['loss']['kind']}, temperature {config['loss'].get('temperature')}",
        "learning rate": config["optimizer"]["learning_rate"],
        "code": description["code"]["commit"],
    }
    return list(facts.items())


def _row(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    cells = row["representation"], row["measure"], f"{row['value']:.4f}", f"{low:.4f} to {high:.4f}"
    return f"| {' | '.join(cells)} | {row['n']:,} |"
