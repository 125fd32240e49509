"""Fit ridge regression on one-hot classes in closed form, all strengths from one decomposition.

The objective of one fit, on standardized features x and one-hot classes t, with the bias free:

    1 / (2 N) sum_n ||W x_n + b - t_n||^2  +  l2 / 2 ||W||^2

which is scikit-learn's Ridge(alpha=N l2). With the Gram matrix X'X / N = V diag(v) V' the optimum
for any l2 is W' = V diag(1 / (v + l2)) V' X'T / N.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax._numerics import dot
from contrastive_jax.evaluation.logistic import LinearProbe, as_set, standardize, strengths


class Spectrum(NamedTuple):
    """The quantities of a training set that all strengths need."""

    variance_F: jax.Array  # eigenvalues of the Gram matrix
    axes_FF: jax.Array  # its eigenvectors, in columns
    product_FC: jax.Array  # V' X'T / N
    frequency_C: jax.Array  # the fraction of the examples in each class: the bias
    mean_F: jax.Array
    std_F: jax.Array


def fit_ridge(
    x_NF: np.ndarray, y_N: np.ndarray, *, n_classes: int, l2_grid: Sequence[float]
) -> LinearProbe:
    """Fit a ridge classifier for each l2, stacked on a leading axis; see the module's docstring.

    Directions whose variance is below float32's rounding of the largest get no weight. The fits
    are `logistic.LinearProbe`s: `logistic.predict` takes one of them, by `logistic.select`.

    Args:
      x_NF: features, float32 or any dtype that converts to it, not yet standardized.
      y_N: classes, integers in [0, n_classes).
      n_classes: C.
      l2_grid: S penalties, positive.

    Raises:
      ValueError: for values that are not finite, labels out of range, or an l2 that is not > 0.

    >>> from contrastive_jax.evaluation.logistic import predict, select
    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> predict(select(fit_ridge(x, y, n_classes=2, l2_grid=(0.1, 1.0)), 1), x)
    array([0, 0, 1, 1])

    Hoerl & Kennard 1970 (Technometrics 12).
    """
    x_NF, y_N = as_set("train", x_NF, y_N, n_classes)
    sent = jax.device_put((x_NF, y_N.astype(np.int32), strengths(l2_grid)))
    return jax.device_get(_fit_all(*sent, n_classes=n_classes))


@partial(jax.jit, static_argnames="n_classes")
def _fit_all(x_NF: jax.Array, y_N: jax.Array, l2_S: jax.Array, *, n_classes: int) -> LinearProbe:
    spectrum = _decompose(x_NF, jax.nn.one_hot(y_N, n_classes, dtype=jnp.float32))
    return jax.lax.map(partial(_solve, spectrum), l2_S)


def _decompose(x_NF: jax.Array, hit_NC: jax.Array) -> Spectrum:
    x_NF, mean_F, std_F = standardize(x_NF)
    variance_F, axes_FF = jnp.linalg.eigh(dot(x_NF.T, x_NF) / len(x_NF))
    product_FC = dot(axes_FF.T, dot(x_NF.T, hit_NC) / len(x_NF))
    return Spectrum(variance_F, axes_FF, product_FC, jnp.mean(hit_NC, axis=0), mean_F, std_F)


def _solve(spectrum: Spectrum, l2: jax.Array) -> LinearProbe:
    variance_F, product_FC = spectrum.variance_F, spectrum.product_FC
    rounding = len(variance_F) * jnp.finfo(jnp.float32).eps * jnp.max(variance_F)
    gain_F = jnp.where(variance_F > rounding, 1 / (jnp.maximum(variance_F, 0.0) + l2), 0.0)
    weight_FC = dot(spectrum.axes_FF, gain_F[:, None] * product_FC)
    # The objective at the optimum needs no other pass over the features.
    spread = jnp.sum(spectrum.frequency_C * (1 - spectrum.frequency_C))
    explained = jnp.sum(gain_F[:, None] * product_FC**2)
    return LinearProbe(
        weight=weight_FC,
        bias=spectrum.frequency_C,
        mean=spectrum.mean_F,
        std=spectrum.std_F,
        objective=0.5 * (spread - explained),
        steps=jnp.ones((), jnp.int32),
        converged=jnp.ones((), bool),
    )
