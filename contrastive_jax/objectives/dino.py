"""DINO: predict the teacher's softmax of another view (Caron et al. 2021, arXiv 2104.14294).

    teacher: t_v = softmax((s'_v - center) / teacher_temperature), of the large views
    student: log softmax(s_v / temperature), of all views;   s = z . c_k of unit vectors
    loss: mean over large t and all v != t of -t_t . log softmax(s_v)   (equation 3)

The teacher is a moving average of the student, the center one of the teacher's scores: centering
alone would make the outputs uniform, sharpening alone one-hot.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.encoders.heads import Prototypes
from contrastive_jax.objectives import ema, image_model, multi_crop, parts
from contrastive_jax.objectives.multi_crop import Crops
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Crops,
    *,
    n_classes: int,
    steps: int,
    n_prototypes: int = 65536,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    momentum: float = 0.996,
    center_momentum: float = 0.9,
    frozen_steps: int = 0,
) -> Objective:
    """Make DINO's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of at least two large views, and of small ones; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      steps: of the whole training.
      n_prototypes: K.
      temperature, teacher_temperature: of the two softmaxes, positive.
      momentum: of the teacher in the first step; it rises to 1 as half a cosine.
      center_momentum: of the center.
      frozen_steps: first steps that leave the prototypes without a gradient.

    Returns:
      An objective whose model state has the "target" (teacher) and the "center" [K]; `embed` is
      the trained encoder.

    Raises:
      ValueError: a number out of range; when traced, fewer than two large views.
    """
    ema.check("dino", momentum)
    ema.check("dino center", center_momentum)
    for name, value in {
        "temperature": temperature,
        "teacher_temperature": teacher_temperature,
        "n_prototypes": n_prototypes,
    }.items():
        if value <= 0:
            raise ValueError(f"dino {name} is {value}; give a positive number")
    model, prototypes = image_model.make(encoder, head, n_classes), Prototypes(n_prototypes)
    moving = ("encoder", "head", "prototypes")

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, state = parts.init(model, views, key, batch, prototypes=prototypes)
        center = jnp.zeros(n_prototypes, jnp.float32)
        return params, {**state, "target": ema.copy(params, state, moving), "center": center}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BTHWC, h_BTF, z_BVD, state = multi_crop.encode(
            model, params, model_state, views, batch, key
        )
        score_BVK = multi_crop.scores(prototypes, params, z_BVD, step < frozen_steps)
        target = ema.follow(model_state["target"], params, momentum, step, steps)
        _, z_BTD, of_target = image_model.encode_jointly(
            model, target["params"], target["statistics"], x_BTHWC, key
        )
        teacher_BTK = multi_crop.scores(prototypes, target["params"], z_BTD)
        teacher_BTK, center = jax.lax.stop_gradient(teacher_BTK), state["center"]
        target_BTK = jax.nn.softmax(
            (teacher_BTK - center[None, None]) / teacher_temperature, axis=-1
        )
        distillation = multi_crop.swapped_cross_entropy(target_BTK, score_BVK / temperature)

        new_center = teacher_BTK.mean(axis=(0, 1))
        center = center_momentum * center + (1 - center_momentum) * new_center
        target = {**target, "statistics": {**target["statistics"], **of_target}}
        state = {**state, "target": target, "center": center}
        entropy = -jnp.sum(target_BTK * jnp.log(jnp.maximum(target_BTK, 1e-30)), axis=-1).mean()
        metrics = {"teacher_entropy": entropy}
        large = z_BVD[:, : h_BTF.shape[1]]
        return parts.output(model, params, batch, h_BTF, large, distillation, state, metrics)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
