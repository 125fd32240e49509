"""modules.json and the folders behind it: word vectors, or pooling, Dense and normalization."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.sentence_folder import _files
from contrastive_jax.sentence_folder._files import refuse

DENSE = "2_Dense"  # its folder, where there is one
_TYPE = "sentence_transformers.models."  # every version so far reads these names
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
_STATIC = ("StaticEmbedding", "Normalize")
_LEGACY_POOLS = {  # what 2.0 writes, and newer versions read
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_POOLS = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
_ACTIVATIONS = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "identity": "torch.nn.modules.linear.Identity",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}


class Modules(NamedTuple):
    """What a folder has around its first module."""

    encoder: str  # "bert", or "bag" of a StaticEmbedding
    first: Path  # its folder
    dense: Path | None  # the folder of a Dense
    settings: dict[str, Any]  # those of `bert.make` from the pooling on; of a bag "normalize"


def read(root: Path) -> Modules:
    """Read the modules; a folder without modules.json is a transformer under mean pooling.

    Raises:
      DataError: a file is missing or broken, or the modules are others than
        transformer, pooling, Dense (at most one), normalization (optional), in this order,
        or StaticEmbedding and normalization (optional).
    """
    path = root / "modules.json"
    if not path.is_file():
        return Modules("bert", root, None, {"pooling": "mean", "normalize": False})
    folders = _folders(root, path, _files.parsed_json(path))
    normalize = "Normalize" in folders
    if "StaticEmbedding" in folders:
        return Modules("bag", folders["StaticEmbedding"], None, {"normalize": normalize})
    dense = folders.get("Dense")
    settings = {} if dense is None else _dense(dense / "config.json")
    settings["pooling"] = _pooling(folders["Pooling"] / "config.json")
    settings["normalize"] = normalize
    return Modules("bert", folders["Transformer"], dense, settings)


def _folders(root: Path, path: Path, modules: Any) -> dict[str, Path]:
    """Each kind of module with its folder."""
    try:
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        folders = [root / module["path"] for module in modules]
    except (TypeError, KeyError, AttributeError):
        refuse(path, "it is not a list of modules with 'type' and 'path'")
    expected = [kind for kind in _ORDER if kind in kinds]
    is_transformer = kinds == expected and kinds[:2] == ["Transformer", "Pooling"]
    if not is_transformer and kinds not in (list(_STATIC[:1]), list(_STATIC)):
        order = (
            "Supported are Transformer, Pooling, then Dense, then Normalize, the last two or not; "
            "or StaticEmbedding, then Normalize or not."
        )
        refuse(path, f"its modules are {', '.join(kinds)}", order)
    return dict(zip(kinds, folders, strict=True))


def _pooling(path: Path) -> str:
    config = _files.json_object(path)
    legacy = [m for m, key in _LEGACY_POOLS.items() if _files.value(path, config, key, bool)]
    given = config.get("pooling_mode") or legacy or "mean"
    modes = given if isinstance(given, list) else [given]
    if len(modes) != 1 or modes[0] not in tuple(_POOLS):
        named = ", ".join(map(str, modes))
        refuse(path, f"it pools by {named}", f"Supported is one of {', '.join(_POOLS)}.")
    if not _files.value(path, config, "include_prompt", bool, True):
        refuse(path, "include_prompt is false", "Supported is pooling over all tokens.")
    return _POOLS[modes[0]]


def _dense(path: Path) -> dict[str, Any]:
    config = _files.json_object(path)
    named = _files.value(path, config, "activation_function", str, _ACTIVATIONS["tanh"])
    named = named.rpartition(".")[2]
    short = {full.rpartition(".")[2]: name for name, full in _ACTIVATIONS.items()}
    if named not in short or _files.value(path, config, "use_residual", bool):
        supported = f"Supported are {', '.join(short)}, without a residual."
        refuse(path, f"it is {named}{' with a residual' * bool(named in short)}", supported)
    size = _files.value(path, config, "out_features", int)
    if size is None or size < 1:
        refuse(path, "it lacks out_features" if size is None else f"out_features is {size}")
    bias = _files.value(path, config, "bias", bool, True)
    return {"dense_dim": size, "dense_activation": short[named], "dense_bias": bias}


def written(settings: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """List the modules of settings, and the config.json of each folder, in the keys of 2.0.

    >>> modules, configs = written({"dim": 8, "pooling": "cls", "normalize": True})
    >>> [module["path"] for module in modules], configs["1_Pooling"]["pooling_mode_cls_token"]
    (['', '1_Pooling', '2_Normalize'], True)
    """
    if "pooling" not in settings:  # of a bag
        kinds = _STATIC if settings["scale"] == "unit" else _STATIC[:1]
        return _listed({f"{i}_{kind}": kind for i, kind in enumerate(kinds)}), {}
    pooling = _pooling_config(settings["dim"], settings["pooling"])
    configs = {"": {}, "Pooling": pooling}
    if settings.get("dense_dim"):
        activation = _ACTIVATIONS[settings["dense_activation"]]
        configs["Dense"] = {"in_features": settings["dim"], "out_features": settings["dense_dim"]}
        configs["Dense"] |= {"bias": settings["dense_bias"], "activation_function": activation}
    if settings["normalize"]:
        configs["Normalize"] = {}
    paths = {f"{i}_{kind}" if kind else "": kind for i, kind in enumerate(configs)}
    return _listed(paths), {path: configs[kind] for path, kind in paths.items() if configs[kind]}


def _listed(kind_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of modules.json, by the path of each module."""
    return [
        {"idx": i, "name": str(i), "path": path, "type": _TYPE + (kind or "Transformer")}
        for i, (path, kind) in enumerate(kind_of.items())
    ]


def _pooling_config(dim: int, pooling: str) -> dict[str, Any]:
    kept = ("cls", "mean", "max", "mean_sqrt_len")
    modes = {_LEGACY_POOLS[mode]: _POOLS.get(mode) == pooling for mode in kept}
    if pooling == "last":  # a key that 2.0 does not know
        modes[_LEGACY_POOLS["lasttoken"]] = True
    return {"word_embedding_dimension": dim, **modes}
