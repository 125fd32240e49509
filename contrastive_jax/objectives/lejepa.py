"""LeJEPA: views agree, and embeddings are standard normal (Balestriero and LeCun 2025, 2511.08544).

    z_v = g(f(x_v)),   center = mean of the large views' z
    loss: (1 - lambda) mean_v |center - z_v|^2 / D + lambda mean_v SIGReg(z_v)

as in the paper's algorithm 2 (section 5.1), whose equations 5 to 7 sum the distance over D. v is
any view, large or small. SIGReg is of one view at a time, and both weights count: implementations
that mix the views of an image in one test, leave the large ones out, or add lambda SIGReg to the
whole distance, train with another loss.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.objectives import image_model, multi_crop, parts
from contrastive_jax.objectives.multi_crop import Crops
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params

_DIRECTIONS = 1  # folded into the key of a step
_REACH, _POINTS = 5.0, 9  # of the integral from 0; with its mirror image 17 points from -5 to 5


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Crops,
    *,
    n_classes: int,
    weight: float = 0.05,
    n_directions: int = 1024,
) -> Objective:
    """Make LeJEPA's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of at least two large views, and of small ones; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      weight: lambda, between 0 and 1.
      n_directions: M, sampled anew in each step, the same for all views; section 6.1 recommends
        1024 (and 0.05 for the weight).

    Raises:
      ValueError: a number out of range; when traced, fewer than two large views.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"lejepa weight is {weight}; give a number from 0 to 1")
    if n_directions < 1:
        raise ValueError(f"lejepa n_directions is {n_directions}; give at least 1")
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        return image_model.init(model, key, views.evaluate(batch["image"][:1]))

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        _, h_BTF, z_BVD, state = multi_crop.encode(model, params, model_state, views, batch, key)
        large = h_BTF.shape[1]
        center_BD = z_BVD[:, :large].mean(axis=1)
        prediction = jnp.mean((center_BD[:, None] - z_BVD) ** 2)
        directions_key = jax.random.fold_in(key, _DIRECTIONS)
        direction_DM = jax.random.normal(directions_key, (z_BVD.shape[-1], n_directions))
        of_view = [sigreg(z_BVD[:, v], direction_DM) for v in range(z_BVD.shape[1])]
        gaussian = jnp.stack(of_view).mean()
        total = (1 - weight) * prediction + weight * gaussian
        terms = {"prediction": prediction, "sigreg": gaussian}
        return parts.output(model, params, batch, h_BTF, z_BVD[:, :large], total, state, terms)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)


def sigreg(z_BD: jax.Array, direction_DM: jax.Array) -> jax.Array:
    """Compute how far embeddings are from N(0, I), along random directions (Epps and Pulley).

        mean_m B integral_{-5}^{5} |mean_i exp(i t a_m . z_i) - exp(-t^2/2)|^2 exp(-t^2/2) dt

    by the trapezoidal rule on 17 points; a_m are the directions at length one. Range and number of
    points are those of algorithm 1, which section 6.1 recommends; the authors' package integrates
    from -3 to 3 on 33 points.

    >>> z_BD = jax.random.normal(jax.random.key(0), (512, 4))
    >>> far, near = (sigreg(scale * z_BD, jnp.eye(4)) for scale in (3.0, 1.0))
    >>> bool(far > 50 * near)
    True

    Balestriero and LeCun 2025 (arXiv 2511.08544), section 4.2.3 and algorithm 1.
    """
    direction_DM /= jnp.linalg.norm(direction_DM, axis=0, keepdims=True)
    t_T = jnp.linspace(0.0, _REACH, _POINTS, dtype=jnp.float32)
    normal_T = jnp.exp(-(t_T**2) / 2)
    angle_BMT = (z_BD @ direction_DM)[:, :, None] * t_T[None, None]
    real_MT, imaginary_MT = jnp.cos(angle_BMT).mean(axis=0), jnp.sin(angle_BMT).mean(axis=0)
    error_MT = ((real_MT - normal_T[None]) ** 2 + imaginary_MT**2) * normal_T[None]
    return len(z_BD) * 2 * jnp.trapezoid(error_MT, dx=_REACH / (_POINTS - 1), axis=-1).mean()
