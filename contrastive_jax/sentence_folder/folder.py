"""What a folder holds, read and written."""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax.data.text import tokens
from contrastive_jax.encoders import bert, bert_names, text
from contrastive_jax.sentence_folder import _config, _files, _modules, _static, _tokenizer
from contrastive_jax.storage import workdir

TENSORS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
USE = "config_sentence_transformers.json"
_VERSION = {"sentence_transformers": "3.0.0"}  # which introduced the keys of USE


class SentenceFolder(NamedTuple):
    """A sentence encoder with its tokenizer; config to companions are for other programs."""

    settings: Mapping[str, Any]  # keywords of `encoders.text.make`
    params: Any  # of that encoder, float32
    tokenizer_json: str
    max_length: int  # tokens of a text, with those of the ends
    prompts: Mapping[str, str] = {}  # name -> what is set before a text
    default_prompt: str | None = None
    config: Mapping[str, Any] = {}  # config.json as it was read
    pooler: Mapping[str, np.ndarray] = {}  # tensors that no sentence needs
    companions: Mapping[str, bytes] = {}  # further files of the tokenizer
    encoder: str = "bert"  # the name of the encoder; "bag" is a StaticEmbedding


def describe(folder: str | os.PathLike[str]) -> SentenceFolder:
    """Read everything but the tensors: a folder whose `params` are None.

    Raises:
      DataError: as `read`, but for the tensors.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        _files.refuse(root, "there is no such folder", "Check the path; nothing is downloaded.")
    modules = _modules.read(root)
    inner = modules.first
    if modules.encoder == "bag":
        return _describe_static(root, modules)
    config = _files.json_object(path := inner / CONFIG)
    settings = _checked(path, {**_config.read(path, config), **modules.settings})
    prompts, default_prompt = _prompts(root / USE)
    said = _tokenizer.settings(inner)
    files = {name: inner / name for name in _tokenizer.COMPANIONS}
    return SentenceFolder(
        settings,
        None,
        _tokenizer_json(inner, settings["n_tokens"], CONFIG, bool(said.get("do_lower_case"))),
        _tokenizer.max_length(inner, said, settings["positions"] - settings["position_offset"]),
        prompts,
        default_prompt,
        config,
        {},
        {name: path.read_bytes() for name, path in files.items() if path.is_file()},
    )


def read(folder: str | os.PathLike[str]) -> SentenceFolder:
    """Read a folder of sentence-transformers, or of Hugging Face alone, which is pooled by mean.

    Raises:
      DataError: a file is missing or broken; another architecture; tensors are missing, too many
        or of another shape; a tokenizer with more tokens than the encoder.

    For an example see `write`.
    """
    described, modules = describe(folder), _modules.read(Path(folder).expanduser())
    path = modules.first / TENSORS
    if modules.encoder == "bag":
        return described._replace(params=_static.params(path))
    given = _files.tensors(path)
    like = _shapes(described.settings)
    try:
        transformer, pooler = bert_names.from_tensors(given, like["transformer"])
    except ValueError as error:
        _files.refuse(path, f"its tensors do not fit {CONFIG}: {error}")
    params = {"transformer": transformer}
    if modules.dense is not None:
        params["dense"] = _dense(modules.dense / TENSORS, like["dense"])
    return described._replace(params=params, pooler=pooler)


def _describe_static(root: Path, modules: _modules.Modules) -> SentenceFolder:
    path = modules.first / TENSORS
    settings = _static.settings(path, modules.settings["normalize"])
    words = _tokenizer_json(modules.first, settings["n_tokens"], TENSORS, lowercase=False)
    prompts, default_prompt = _prompts(root / USE)
    length, words = _static.max_length(words), _static.without_special_tokens(words)
    given = settings, None, words, length, prompts, default_prompt
    return SentenceFolder(*given, encoder=modules.encoder)


def _checked(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, of which an encoder can be made."""
    try:
        bert.make(**settings)
    except ValueError as error:
        _files.refuse(path, error)
    return settings


def _prompts(path: Path) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of that which is always used."""
    use = _files.json_object(path, {})
    if _files.value(path, use, "truncate_dim", int):
        _files.refuse(path, "it has a truncate_dim", "Only whole vectors are supported.")
    prompts = _files.value(path, use, "prompts", dict, {})
    texts = {name: _files.value(path, prompts, name, str, "") for name in prompts}
    name = _files.value(path, use, "default_prompt_name", str)
    if name is not None and name not in texts:
        known = ", ".join(texts) or "nothing"
        why = f"default_prompt_name is {name!r}, and prompts has {known}"
        _files.refuse(path, why, "Name one of prompts, or null.")
    return texts, name


def digest(folder: str | os.PathLike[str]) -> str:
    """Digest the files of a folder's tensors, SHA-256.

    Raises:
      DataError: a file is missing.
    """
    modules = _modules.read(Path(folder).expanduser())
    found = hashlib.sha256()
    for part in filter(None, (modules.first, modules.dense)):
        path = part / TENSORS
        try:
            found.update(path.read_bytes())
        except OSError as error:
            _files.refuse(path, error.strerror or error)
    return found.hexdigest()


def _dense(path: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters of a Dense, whose matrix is [out, in] in the file."""
    given = _files.tensors(path)
    names = {f"linear.{'weight' if leaf == 'kernel' else leaf}": leaf for leaf in like}
    shapes = {name: like[leaf].shape[::-1] for name, leaf in names.items()}
    found = {name: tensor.shape for name, tensor in given.items()}
    if found != shapes:
        _files.refuse(path, f"its tensors are {found}, and by the config.json files {shapes}")
    return {leaf: np.ascontiguousarray(given[name].T, np.float32) for name, leaf in names.items()}


def _shapes(settings: Mapping[str, Any]) -> Any:
    """The shapes of the parameters; nothing is computed."""
    one = jax.ShapeDtypeStruct((1, 1), np.int32), jax.ShapeDtypeStruct((1,), np.int32)
    encoder = bert.make(**settings)
    init = lambda key, *text: encoder.init(key, *text, train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0), *one)["params"]


def _tokenizer_json(folder: Path, n_tokens: int, source: str, lowercase: bool) -> str:
    path = folder / TOKENIZER
    content, size = _files.text(path), tokens.read(path).size
    if size > n_tokens:
        why = f"it has {size} tokens, and {source} {n_tokens}"
        _files.refuse(path, why, "Take both files from the same model.")
    return _tokenizer.lowercased(content) if lowercase else content


def write(folder: str | os.PathLike[str], model: SentenceFolder, card: str) -> None:
    """Write a folder that sentence-transformers loads; files of an older one in it are replaced.

    Args:
      folder: made if missing.
      model: what `read` gave, or one of your own training.
      card: the text of README.md.

    Raises:
      OSError: the folder cannot be written.

    >>> import tempfile
    >>> settings = {"n_tokens": 5, "dim": 8, "layers": 1, "heads": 2, "hidden_dim": 16}
    >>> one = np.ones((1, 1), np.int32)
    >>> params = bert.make(**settings).init(jax.random.key(0), one, one[0], train=False)["params"]
    >>> words = '{"model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder, SentenceFolder(settings, params, words, max_length=64), card="# Mine")
    ...     read(folder).settings["dim"]
    8
    """
    root = Path(folder).expanduser()
    for name, content in {**_texts(model), "README.md": card.encode()}.items():
        _replace(root / name, content)
    if model.encoder == "bag":
        table = _in_safetensors(_static.tensors(model.params))
        return _replace(root / _static.FOLDER / TENSORS, table)
    transformer = bert_names.to_tensors(model.params["transformer"])
    _replace(root / TENSORS, _in_safetensors({**transformer, **model.pooler}))
    if "dense" in model.params:
        kernel, bias = model.params["dense"]["kernel"], model.params["dense"].get("bias")
        linear = {"linear.weight": np.asarray(kernel).T}
        linear |= {} if bias is None else {"linear.bias": np.asarray(bias)}
        _replace(root / _modules.DENSE / TENSORS, _in_safetensors(linear))


def _texts(model: SentenceFolder) -> dict[str, bytes]:
    """Every file but the tensors."""
    settings = _with_defaults(model)
    modules, configs = _modules.written(settings)
    use = {"prompts": dict(model.prompts), "default_prompt_name": model.default_prompt}
    values = {
        USE: {"__version__": _VERSION, **use, "similarity_fn_name": "cosine"},
        "modules.json": modules,
    }
    if model.encoder == "bag":
        tokenizer = _static.cut_at(model.tokenizer_json, model.max_length)
        return {**_as_json(values), f"{_static.FOLDER}/{TOKENIZER}": tokenizer.encode()}
    values |= {
        CONFIG: _config.written(settings, model.config),
        "tokenizer_config.json": _tokenizer.new_config(model.tokenizer_json, model.max_length),
        "sentence_bert_config.json": {"max_seq_length": model.max_length, "do_lower_case": False},
        **{f"{path}/config.json": config for path, config in configs.items()},
    }
    return {**_as_json(values), TOKENIZER: model.tokenizer_json.encode(), **model.companions}


def _as_json(values: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in values.items()}


def _with_defaults(model: SentenceFolder) -> dict[str, Any]:
    bound = inspect.signature(text.TEXT_ENCODERS[model.encoder]).bind(**model.settings)
    bound.apply_defaults()
    return dict(bound.arguments)


def _in_safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    import safetensors.numpy

    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return safetensors.numpy.save(whole, metadata={"format": "pt"})


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.replace_file(path, lambda temporary: temporary.write_bytes(content))
