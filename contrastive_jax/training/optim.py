"""Optimizers as the papers define them: what decays, what adapts, and how the rate scales."""

import functools
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

import jax
import optax
import optax.contrib

from contrastive_jax.frozen import mask

Mask = Callable[[Any], Any]  # params -> what is true of each
NAMES = ("sgd", "lars", "adamw", "muon")
ANNEALINGS = ("cosine", "linear")
SCALINGS = {
    "none": lambda batch_size: 1.0,
    "linear": lambda batch_size: batch_size / 256,  # LR x batch / 256
    "sqrt": lambda batch_size: batch_size**0.5,  # LR x sqrt(batch), SimCLR appendix B.1
}


def make(
    name: str = "sgd",
    learning_rate: float = 0.06,
    scaling: str = "none",
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 5e-4,
    decay_norm_and_bias: bool = False,
    warmup_epochs: float = 0.0,
    annealing: str = "cosine",
    skip_nonfinite: int = 0,
    adam_learning_rate: float | None = None,
    loss_rate: float = 1.0,
    frozen: str = "",
    *,
    batch_size: int,
    steps: int,
    steps_per_epoch: int,
    auxiliary: Collection[str] = (),
    constant_rate: Collection[str] = (),
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer and its learning-rate schedule, by the keys of the config's `optimizer`.

    The rate rises linearly over `warmup_epochs` and then falls, as `annealing` says, to zero at the
    last step. The weight decay of SGD and LARS is an L2 term, that of AdamW and Muon is decoupled.

    Args:
      name: "sgd" (momentum); "lars" (You et al. 2017, arXiv 1708.03888, in SimCLR's order: decay,
        trust ratio 0.001 |w| / |g|, rate, momentum); "adamw" (`momentum` is its first beta); "muon"
        (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of each matrix, and of
        each filter as one of [height x width x in, out], is orthogonalized; norms, biases,
        embeddings, class tokens and auxiliary parameters follow Adam.
      learning_rate: the peak rate before scaling.
      scaling: "none", "linear" (x batch / 256) or "sqrt" (x sqrt(batch)); SimCLR table B.1.
      momentum: of SGD, LARS and Muon, and beta_1 of AdamW.
      nesterov: Nesterov momentum, for "sgd", "lars" and "muon".
      weight_decay: its strength; on matrices, filters and embeddings of words only, unless
        `decay_norm_and_bias`.
      decay_norm_and_bias: also decay norm scales, biases, class tokens and position embeddings, not
        with "muon". LARS never adapts those.
      warmup_epochs: length of the warm-up in epochs.
      annealing: how the rate falls after it: "cosine" (half a period) or "linear".
      skip_nonfinite: leave out the steps whose gradient is not finite, up to so many in a row:
        `train` keeps their parameters, moments and batch statistics as they were. 0 stops at once.
      adam_learning_rate: the peak rate, before scaling, of what "muon" leaves to Adam; None for the
        same rate.
      loss_rate: factor on the learning rate of the loss's own parameters, top-level "loss": a
        learned temperature, class proxies.
      frozen: a regex; parameters whose path it matches from the start ("encoder/") have no update,
        no decay and no moments.
      batch_size: the global batch, in examples.
      steps: the length of training.
      steps_per_epoch: steps in one epoch.
      auxiliary: top-level parameters that are neither decayed nor adapted: an online probe,
        and those of the loss.
      constant_rate: top-level parameters whose rate is the peak throughout: SimSiam's predictor.

    Raises:
      ValueError: an unknown name, scaling or annealing, a number out of range, too long a warm-up.

    >>> optimizer, schedule = make("lars", 0.3, "linear", warmup_epochs=1, batch_size=512,
    ...                            steps=100, steps_per_epoch=10)
    >>> round(float(schedule(10)), 3), round(float(schedule(100)), 3)
    (0.6, 0.0)
    """
    numbers = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "adam_learning_rate": adam_learning_rate or 0.0,
        "loss_rate": loss_rate,
    }
    _check(name, scaling, annealing, numbers, decay_norm_and_bias, skip_nonfinite)
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= steps:
        raise ValueError(
            f"optimizer warmup_epochs is {warmup_epochs}, {warmup} steps of the {steps} to train; "
            "give a shorter warm-up or train longer"
        )
    peak = learning_rate * SCALINGS[scaling](batch_size)
    schedule = _schedule(peak, warmup, steps, annealing)
    adam_peak = (
        peak if adam_learning_rate is None else adam_learning_rate * SCALINGS[scaling](batch_size)
    )
    rates = schedule, _schedule(adam_peak, warmup, steps, annealing)
    settings = name, momentum, nesterov, weight_decay, decay_norm_and_bias, auxiliary
    optimizer = _transform(rates, *settings)
    if constant_rate:
        constant = optax.constant_schedule(peak), optax.constant_schedule(adam_peak)
        stays = _transform(constant, *settings)
        optimizer = optax.partition({"falls": optimizer, "stays": stays}, _labels(constant_rate))
    if loss_rate != 1.0:
        optimizer = optax.chain(optimizer, optax.stateless(_faster(loss_rate)))
    if frozen:
        parts: dict[Hashable, Any] = {True: optax.set_to_zero(), False: optimizer}
        optimizer = optax.partition(parts, functools.partial(mask, pattern=frozen))
    if skip_nonfinite:
        optimizer = optax.apply_if_finite(optimizer, skip_nonfinite)
    return optimizer, schedule


def _check(
    name: str,
    scaling: str,
    annealing: str,
    numbers: Mapping[str, float],
    decay_norm_and_bias: bool,
    skip_nonfinite: int,
) -> None:
    choices = {"name": NAMES, "scaling": tuple(SCALINGS), "annealing": ANNEALINGS}
    for key, value in {"name": name, "scaling": scaling, "annealing": annealing}.items():
        if value not in choices[key]:
            raise ValueError(f"optimizer {key} is {value!r}; give one of {choices[key]}")
    for key, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"optimizer {key} is {value}; give a finite number of 0 or more")
    if skip_nonfinite < 0:
        raise ValueError(f"optimizer skip_nonfinite is {skip_nonfinite}; give 0 or more")
    if name == "muon" and decay_norm_and_bias:
        raise ValueError(
            "optimizer muon decays matrices and filters; set decay_norm_and_bias False"
        )
    if name != "muon" and numbers["adam_learning_rate"]:
        raise ValueError(f"optimizer adam_learning_rate is of muon, not of {name}; leave it out")
    if numbers["momentum"] >= 1:
        raise ValueError(f"optimizer momentum is {numbers['momentum']}; give a number below 1")


def _transform(
    rates: tuple[optax.Schedule, optax.Schedule],
    name: str,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_norm_and_bias: bool,
    auxiliary: Collection[str],
) -> optax.GradientTransformation:
    schedule, adam_schedule = rates
    decayed = (_trained if decay_norm_and_bias else _weights)(auxiliary)
    if name == "lars":
        return optax.lars(
            schedule,
            weight_decay,
            weight_decay_mask=decayed,
            trust_ratio_mask=_weights(auxiliary),
            momentum=momentum,
            nesterov=nesterov,
        )
    if name == "adamw":
        return optax.adamw(schedule, b1=momentum, weight_decay=weight_decay, mask=decayed)
    if name == "muon":
        return optax.contrib.muon(
            schedule,
            adam_learning_rate=adam_schedule,
            beta=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=_as_matrices(auxiliary),
        )
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov),
    )


def _faster(rate: float) -> Callable[[Any, Any], Any]:
    """Multiply the updates of the loss's own parameters."""

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map_with_path(
            lambda path, u: u * rate if _is_one_of(path, ("loss",)) else u, updates
        )

    return scale


def _schedule(peak: float, warmup: int, steps: int, annealing: str) -> optax.Schedule:
    if annealing == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, steps)
    rise = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([rise, optax.linear_schedule(peak, 0.0, steps - warmup)], [warmup])


def _labels(constant_rate: Collection[str]) -> Callable[[Any], Any]:
    """Whether the rate of each parameter falls or stays."""
    return lambda params: jax.tree.map_with_path(
        lambda path, _: "stays" if _is_one_of(path, constant_rate) else "falls", params
    )


def _weights(auxiliary: Collection[str]) -> Mask:
    """True for filters, matrices and embeddings of words, which are decayed and adapted."""
    return lambda params: jax.tree.map_with_path(
        lambda path, p: _is_weight(path, p) and not _is_one_of(path, auxiliary), params
    )


def _trained(auxiliary: Collection[str]) -> Mask:
    return lambda params: jax.tree.map_with_path(
        lambda path, p: not _is_frozen(path) and not _is_one_of(path, auxiliary), params
    )


def _as_matrices(auxiliary: Collection[str]) -> Mask:
    """Which axes of a filter or matrix are its rows, the last one its columns; None elsewhere."""

    def axes(path: tuple[Any, ...], p: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        is_matrix = _is_weight(path, p) and "embedding" not in _names(path)[-1:]
        rows, column = tuple(range(p.ndim - 1)), p.ndim - 1
        numbers = optax.contrib.MuonDimensionNumbers(rows, column)
        return numbers if is_matrix and not _is_one_of(path, auxiliary) else None

    return lambda params: jax.tree.map_with_path(axes, params)


def _is_weight(path: tuple[Any, ...], p: jax.Array) -> bool:
    """Not biases, norms, class tokens and position embeddings, nor what is frozen."""
    others = {"bias", "scale", "class_token", "position_embedding"}
    return p.ndim > 1 and not others & set(_names(path)[-1:]) and not _is_frozen(path)


def _is_frozen(path: tuple[Any, ...]) -> bool:
    """Whether an encoder stops the gradient of a parameter: it names it so."""
    return any(name.startswith("frozen_") for name in _names(path))


def _names(path: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def _is_one_of(path: tuple[Any, ...], names: Collection[str]) -> bool:
    return bool(path) and jax.tree_util.keystr(path[:1], simple=True) in names
