"""Read the files of a folder; what is missing or broken is named, with what to do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from contrastive_jax.errors import DataError

Kind = TypeVar("Kind", str, int, float, bool, dict)

_KINDS: Mapping[type, str] = {
    **{str: "a text", int: "an integer", float: "a number"},
    **{bool: "true or false", dict: "an object"},
}
WHOLE = "Copy the folder again, whole, from where the model was published."
AS_SAFETENSORS = (
    "Only .safetensors is read, because a .bin can run code. Convert it with "
    'sentence-transformers: SentenceTransformer("DIR").save_pretrained("NEW")'
)


def refuse(path: Path, why: object, advice: str = WHOLE) -> NoReturn:
    """Stop at a file, or at the folder.

    Raises:
      DataError: in every case.
    """
    raise DataError(f"{path} cannot be used: {why}.\n{advice}")


def json_object(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
      DataError: it holds something else, or is missing and there is no default.
    """
    if default is not None and not path.is_file():
        return default
    value = parsed_json(path)
    return value if isinstance(value, dict) else refuse(path, "it is not a JSON object")


def value(
    path: Path, config: Mapping[str, Any], key: str, kind: type[Kind], default: Any = None
) -> Any:
    """Read a key of a JSON object; null is the same as a key that is not there.

    >>> value(Path("config.json"), {"hidden_size": 8}, "hidden_size", int)
    8

    Raises:
      DataError: it holds another type. An integer will do for a float, a bool for neither.
    """
    found = config.get(key)
    if found is None:
        return default
    kinds = (int, float) if kind is float else kind
    if not isinstance(found, kinds) or isinstance(found, bool) and kind is not bool:
        refuse(path, f"{key} is {_shown(found)}", f"Give {_KINDS[kind]}.")
    return found


def _shown(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:60]}..."


def parsed_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      DataError: no such file, or not JSON.
    """
    try:
        return json.loads(text(path))
    except (ValueError, RecursionError) as error:  # the second of a thousand brackets
        refuse(path, f"it is not JSON ({error})")


def text(path: Path) -> str:
    """Read a text in UTF-8.

    Raises:
      DataError: no such file, or another encoding.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        refuse(path, "it is not UTF-8")
    except (OSError, ValueError) as error:  # the second of a path with a null byte
        refuse(path, getattr(error, "strerror", None) or error)


def shapes(path: Path) -> dict[str, list[int]]:
    """Read the shapes of the tensors of a .safetensors file.

    Raises:
      DataError: as `tensors`.
    """
    import safetensors

    _check_tensors(path)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        refuse(path, f"{type(error).__name__}: {error}")


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a .safetensors file.

    Raises:
      DataError: no such file, another format, a damaged one, or numbers that are not finite.
    """
    import safetensors
    import safetensors.numpy

    _check_tensors(path)
    try:
        found = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, OSError) as error:
        refuse(path, f"{type(error).__name__}: {error}")
    broken = [name for name, tensor in found.items() if not np.isfinite(tensor).all()]
    if broken:
        refuse(path, f"{len(broken)} tensors are not finite, such as {broken[0]}")
    return found


def _check_tensors(path: Path) -> None:
    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin").is_file()
        refuse(path, "there is no such file", AS_SAFETENSORS if pickled else WHOLE)
