"""The sections of a config: which keys the functions that read them take, and their defaults."""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from contrastive_jax.errors import ConfigError

REQUIRED = inspect.Parameter.empty
_SCALARS = (bool, int, float, str)


class Key(NamedTuple):
    """A key of a section: its default, `REQUIRED` for none, and the type of its values."""

    default: Any
    type: Any


Keys = Mapping[str, Key]


class Choice(NamedTuple):
    """A section in which the value of one key decides which others there are."""

    key: str
    default: str
    common: Keys
    options: Mapping[str, Keys]


Sections = Mapping[str, Keys | Choice]


def takes(*functions: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Key]:
    """Read the keys of a section from the signatures of the functions that take it.

    >>> def make(depth: int = 18, *, stem: str, mesh): ...
    >>> takes(make, without=("mesh",))["depth"]
    Key(default=18, type=<class 'int'>)
    """
    keys = {}
    for function in functions:
        hints = typing.get_type_hints(function)
        if inspect.isclass(function):
            hints |= typing.get_type_hints(function.__init__)
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in without and parameter.kind is not parameter.VAR_KEYWORD:
                keys[name] = Key(parameter.default, hints.get(name, Any))
    return keys


def keys_of(section: Keys | Choice, values: Mapping[str, Any], name: str = "") -> Keys:
    """List the keys that a section with these values may have.

    Raises:
      ConfigError: the value that decides is none of the options.
    """
    if not isinstance(section, Choice):
        return section
    chosen = values.get(section.key, section.default)
    if chosen not in section.options:
        near = difflib.get_close_matches(str(chosen), section.options, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        options = ", ".join(sorted(section.options))
        raise ConfigError(f"{name}.{section.key} is {chosen!r}{hint}; give one of: {options}.")
    own = {section.key: Key(section.default, str)}
    return {**own, **section.common, **section.options[chosen]}


def complete(config: ConfigDict, sections: Sections) -> ConfigDict:
    """Check a config and add every key that it leaves out, with its default.

    Raises:
      ConfigError: a section or key that nothing reads, naming the nearest that exists; a key
        without a default that is missing; a number that is not finite.
    """
    check_names("section", set(config), set(sections))
    whole = config.copy_and_resolve_references()
    with whole.unlocked():
        for name, section in sections.items():
            if name not in whole:
                whole[name] = ConfigDict()
            keys = keys_of(section, whole[name], name)
            check_names(f"key of {name!r}", set(whole[name]), set(keys))
            whole[name] = _completed(name, whole[name], keys)
    for key, value in leaves(whole):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--config.{key} is {value}; give a finite number.")
    return whole


def _completed(name: str, values: ConfigDict, keys: Keys) -> ConfigDict:
    section = ConfigDict()
    for key, (default, kind) in keys.items():
        value = values.get(key)
        if value is None and default is REQUIRED:
            raise ConfigError(f"The config has no {name}.{key}, and it has no default.")
        section[key] = _typed(f"{name}.{key}", default if value is None else value, kind)
    return section


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Check a value against the type that its function takes, and give it that type.

    None remembers the type of what may take its place, an int becomes a float where one is
    expected, so that its overrides may be fractions, and a list becomes a tuple.
    """
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    scalars = [option for option in options if option in _SCALARS]
    if value is None:
        return config_dict.placeholder(scalars[0] if scalars else tuple)
    if type(value) is int and float in scalars and int not in scalars:
        return float(value)
    if isinstance(value, list | tuple):
        value = tuple(value)
        fits = any(typing.get_origin(o) is tuple or o in (tuple, Any) for o in options)
    else:
        fits = type(value) in scalars or not scalars or any(o is Any for o in options)
        fits = fits and not any(typing.get_origin(o) is tuple for o in options)
    if not fits:
        expected = " or ".join(getattr(o, "__name__", str(o)) for o in options)
        raise ConfigError(f"{name} is {value!r}; give {expected.replace('NoneType', 'None')}.")
    return value


def choose(config: ConfigDict, sections: Sections, key: str, value: str) -> bool:
    """Set the key of a `Choice`; options that only the one before it takes are left out.

    Returns:
      Whether "section.key" is such a key.
    """
    name, _, last = key.partition(".")
    section = sections.get(name)
    if not isinstance(section, Choice) or last != section.key or name not in config:
        return False
    with config.unlocked():
        config[name][last] = value
        keys = keys_of(section, config[name], name)
        for old in [k for k in config[name] if k not in keys and _known(section, k)]:
            del config[name][old]
    return True


def take_number_or_word(config: ConfigDict, sections: Sections, values: Mapping[str, Any]) -> None:
    """Set the keys that take a number or a word, "learned"; a config lets no value change its type.

    Of the others, and of those that do not exist, nothing is changed.
    """
    for key, value in values.items():
        name, _, last = key.partition(".")
        kind = (
            keys_of(sections.get(name, {}), config.get(name, {}), name).get(last, Key(0, Any)).type
        )
        if not {float, str} <= set(typing.get_args(kind)) or value in (None, "None"):
            continue
        with config.unlocked():
            del config[name][last]
            config[name][last] = _number_or_word(value)


def _number_or_word(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def set_values(
    config: ConfigDict, sections: Sections, values: Mapping[str, Any], of: str
) -> ConfigDict:
    """Copy a config with some keys set, {"section.key": value}; None gives a default back.

    Raises:
      ConfigError: a key that does not exist, or a value of another type; says that it is `of` what.
    """
    config = config.copy_and_resolve_references()
    try:
        for key, value in values.items():
            choose(config, sections, key, value)
        config = complete(config, sections)
        take_number_or_word(config, sections, values)
        for key, value in values.items():
            name, _, last = key.partition(".")
            check_names("section", {name}, set(config))
            check_names(f"key of {name!r}", {last}, set(config[name]))
            if value is None:
                unset(config, sections, key)
            else:
                config[name][last] = value
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{of}: {error}") from error
    return complete(config, sections)


def _known(section: Choice, key: str) -> bool:
    return any(key in keys for keys in section.options.values())


def unset(config: ConfigDict, sections: Sections, key: str) -> None:
    """Give a key its default back.

    Raises:
      ConfigError: it is no key, or has no default.
    """
    name, _, last = key.partition(".")
    check_names("section", {name}, set(sections))
    keys = keys_of(sections[name], config.get(name, {}), name)
    check_names(f"key of {name!r}", {last}, set(keys))
    if keys[last].default is REQUIRED:
        raise ConfigError(f"--config.{key} has no default; give it a value.")
    with config.unlocked():
        if last in config[name]:
            del config[name][last]
        config[name][last] = _typed(key, *keys[last])


def check_names(kind: str, given: set[str], known: set[str]) -> None:
    """Refuse a name that does not exist, naming the nearest one and all others.

    >>> check_names("key of 'loss'", {"knd"}, {"kind", "temperature"})
    Traceback (most recent call last):
    contrastive_jax.errors.ConfigError: 'knd' is no key of 'loss'; did you mean 'kind'?
    It has: kind, temperature.
    """
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"{name!r} is no {kind}{hint}\nIt has: {', '.join(sorted(known))}.")


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a nested config into ("section.key", value).

    >>> list(leaves({"loss": {"temperature": 0.5}}))
    [('loss.temperature', 0.5)]
    """
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", value
            yield from ((f"{prefix}{key}[{i}]", item) for i, item in enumerate(value))
        else:
            yield f"{prefix}{key}", value


def as_kwargs(config: ConfigDict, section: str) -> dict[str, Any]:
    """Turn a section into keyword arguments; lists become tuples.

    A ValueError of the function that takes them is a bad value of that section.
    """
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config[section].items()}
