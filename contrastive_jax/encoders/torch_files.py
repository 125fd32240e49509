"""Read the tensors of a file that torch.save wrote, without torch and without running it.

Such a file is a zip: `data.pkl`, a pickle that says how the tensors lie, and a file for each
storage. Unpickling can run code, so the pickle is not unpickled: its opcodes are read one by one,
and only those that describe dicts, numbers, texts and tensors mean anything here.
"""

import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
INSIDE = ("state_dict", "model")  # where training scripts keep the weights


class _Name(NamedTuple):
    """What the pickle would import; nothing is imported."""

    text: str


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read tensors by name: of a state dict, or of the one under "state_dict" or "model".

    Raises:
      ValueError: no zip of torch.save, broken, or with anything but tensors and plain values.
      OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [pickled] = [name for name in archive.namelist() if name.endswith("data.pkl")]
            root = pickled.removesuffix("data.pkl")
            found = interpret(archive.read(pickled), lambda key: archive.read(f"{root}data/{key}"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"no whole file of torch.save since version 1.6: {error}") from error
    for key in INSIDE:
        found = found.get(key, found) if isinstance(found, dict) else {}
    tensors = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    if not tensors:
        raise ValueError("no tensors by name; save model.state_dict()")
    return tensors


def interpret(pickled: bytes, storage: Callable[[str], bytes]) -> Any:
    """Follow the opcodes of a pickle as far as they describe tensors and plain values.

    Args:
      pickled: the bytes of `data.pkl`.
      storage: the bytes of a storage by its key.

    Raises:
      ValueError: an opcode or a name that weights do not need, or a broken pickle.

    >>> interpret(b"\\x80\\x02}X\\x01\\x00\\x00\\x00aK\\x05s.", lambda key: b"")
    {'a': 5}
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            _step(opcode.name, argument, stack, marks, memo, storage)
        [value] = stack
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"a broken pickle: {type(error).__name__}: {error}") from error
    return value


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSHED = "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING".split()
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _step(
    name: str,
    argument: Any,
    stack: list[Any],
    marks: list[int],
    memo: dict[int, Any],
    storage: Callable[[str], bytes],
) -> None:
    """Do what one opcode says."""
    if name in _PUSHED:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        marks.append(len(stack))
    elif name == "TUPLE":
        stack.append(tuple(_since(stack, marks.pop())))
    elif name in _TUPLES:
        stack.append(tuple(_since(stack, len(stack) - _TUPLES[name])))
    elif name in ("SETITEM", "SETITEMS"):
        items = _since(stack, len(stack) - 2 if name == "SETITEM" else marks.pop())
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ("APPEND", "APPENDS"):
        items = _since(stack, len(stack) - 1 if name == "APPEND" else marks.pop())
        stack[-1].extend(items)
    elif name == "GLOBAL":
        stack.append(_Name(argument.replace(" ", ".")))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop(), storage))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_made(function, arguments))
    elif name == "BUILD":  # attributes of a dict of torch: versions of its modules
        stack.pop()
    elif name not in ("PROTO", "STOP"):
        raise ValueError(f"the opcode {name}, which no weights need")


def _since(stack: list[Any], start: int) -> list[Any]:
    """Take from the stack what stands there from a place on."""
    taken = stack[start:]
    del stack[start:]
    return taken


def _storage(described: tuple, storage: Callable[[str], bytes]) -> np.ndarray:
    """Read the numbers of a storage: ("storage", type, key, device, count)."""
    _, kind, key, _, count = described
    dtype = DTYPES.get(kind.text.removeprefix("torch.").removesuffix("Storage"))
    if dtype is None:
        raise ValueError(f"numbers of the type {kind.text}")
    content = storage(key)
    if len(content) != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{len(content)} bytes for {count} numbers of the type {kind.text}")
    return np.frombuffer(content, dtype)


def _made(function: Any, arguments: tuple) -> Any:
    """Make what a pickle calls a function for: an ordered dict, a tensor or a parameter."""
    name = function.text if isinstance(function, _Name) else function
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name == "torch._utils._rebuild_parameter":
        return arguments[0]
    if name == "torch._utils._rebuild_tensor_v2":
        return _tensor(*arguments[:4])
    raise ValueError(f"a call of {name}, which no weights need")


def _tensor(
    numbers: np.ndarray, first: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    """Cut a tensor out of its storage."""
    last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if min((first, *shape, *strides), default=0) < 0 or (math.prod(shape) and last >= numbers.size):
        raise ValueError(f"a tensor {shape} beyond the {numbers.size} numbers of its storage")
    steps = tuple(step * numbers.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[first:], shape, steps).copy()
