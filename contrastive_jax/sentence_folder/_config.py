"""The config.json of a transformer as settings of `encoders.bert.make`, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_jax.sentence_folder import _files
from contrastive_jax.sentence_folder._files import refuse

_OFFSET = {"bert": False, "distilbert": False, "roberta": True, "xlm-roberta": True}
_OFFSET["camembert"] = True  # whether positions start behind the row of the padding
MODEL_TYPES = tuple(_OFFSET)
_BERT = {  # setting -> key
    "n_tokens": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "epsilon": "layer_norm_eps",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_DISTILBERT = {
    "n_tokens": "vocab_size",
    "dim": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "hidden_dim": "hidden_dim",
    "positions": "max_position_embeddings",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
}
_KINDS: Mapping[str, type] = {  # of settings; all others are integers
    **{"epsilon": float, "activation": str, "dropout": float, "attention_dropout": float},
}
_DEFAULTS = {  # of both classes of Hugging Face, where a file leaves a key out
    **{"positions": 512, "token_types": 2, "epsilon": 1e-12, "activation": "gelu"},
    **{"dropout": 0.1, "attention_dropout": 0.1},
}
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu"}
_ACTIVATIONS |= dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh")
_ACTIVATION_KEYS = {"gelu": "gelu", "relu": "relu", "gelu_tanh": "gelu_new"}
_ONLY = {"position_embedding_type": "absolute", "is_decoder": False}  # what else is refused


def read(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a config.json to settings of the transformer.

    Raises:
      DataError: another architecture, or a key that is missing or not supported.
    """
    kind = _files.value(path, config, "model_type", str)
    if kind not in MODEL_TYPES:
        known = f"Give a folder of one of {', '.join(MODEL_TYPES)}."
        refuse(path, f"its model_type is {kind!r}, another architecture", known)
    keys = _DISTILBERT if kind == "distilbert" else _BERT
    settings = {
        name: _files.value(path, config, key, _KINDS.get(name, int), _DEFAULTS.get(name))
        for name, key in keys.items()
    }
    missing = [keys[name] for name, value in settings.items() if value is None]
    if missing:
        refuse(path, f"it lacks {', '.join(missing)}")
    if settings["activation"] not in _ACTIVATIONS:
        supported = f"Supported are {', '.join(_ACTIVATIONS)}."
        refuse(path, f"{keys['activation']} is {settings['activation']!r}", supported)
    for key, value in _ONLY.items():
        if config.get(key) not in (None, value):
            refuse(path, f"{key} is {config[key]!r}", f"Only {value!r} is supported.")
    settings["activation"] = _ACTIVATIONS[settings["activation"]]
    padding = _files.value(path, config, "pad_token_id", int, 1)
    settings["position_offset"] = padding + 1 if _OFFSET[kind] else 0
    return {"epsilon": 1e-12, "token_types": 0, **settings}


def written(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate settings to a config.json.

    Args:
      settings: all that `read` gives.
      config: of the folder that the weights came from, whose other keys stay; {} for none.
    """
    kind = config.get("model_type", _kind(settings))
    keys = _DISTILBERT if kind == "distilbert" else _BERT
    known = {key: settings[name] for name, key in keys.items()}
    activation = config.get(keys["activation"], "")
    if _ACTIVATIONS.get(activation) != settings["activation"]:  # several names for one function
        activation = _ACTIVATION_KEYS[settings["activation"]]
    known[keys["activation"]] = activation
    known |= {key: "float32" for key in ("dtype", "torch_dtype") if key in config}
    if _OFFSET[kind]:
        known["pad_token_id"] = settings["position_offset"] - 1
    architecture = {"bert": "BertModel", "distilbert": "DistilBertModel", "roberta": "RobertaModel"}
    architecture |= {"xlm-roberta": "XLMRobertaModel", "camembert": "CamembertModel"}
    return {**config, "model_type": kind, "architectures": [architecture[kind]], **known}


def _kind(settings: Mapping[str, Any]) -> str:
    if settings["position_offset"]:
        return "roberta"
    return "bert" if settings["token_types"] else "distilbert"
