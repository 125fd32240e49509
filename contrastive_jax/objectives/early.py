"""Two objectives in turn: one for the first steps of a training, another for the rest.

Smaller views, larger crops or another temperature early on are all this: the same parameters under
other settings.
"""

from typing import Any

import jax

from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(early: Objective, late: Objective, steps: int) -> Objective:
    """`early` for the first steps of the training and `late` from then on, in one program.

        loss_t = early.loss if t < steps else late.loss

    Only the one whose turn it is is computed, its gradient too.

    Args:
      early, late: objectives of the same parameters, model state and metrics, such as one method
        with two sizes of views.
      steps: how many steps `early` has; they are counted by the batch's "step".

    Returns:
      An objective that begins and embeds as `late` does.

    >>> import jax.numpy as jnp
    >>> def power(n):
    ...     loss = lambda w, state, batch, key: (w**n, LossOutput(state, {}))
    ...     return Objective(lambda key, batch: (jnp.ones(()), ()), loss, lambda *_: {})
    >>> both = make(power(2), power(3), steps=10)
    >>> slope = jax.grad(both.loss, has_aux=True)
    >>> [float(slope(jnp.ones(()), (), {"step": t}, None)[0]) for t in (9, 10)]
    [2.0, 3.0]
    """

    # Left to itself, the gradient of a `cond` keeps what either branch would need, the other's as
    # zeros: so the gradient is taken within the branch, and kept in place of all that.
    @jax.custom_vjp
    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        return forward(params, model_state, batch, key)[0]

    def forward(*args: Any) -> tuple[tuple[jax.Array, LossOutput], Params]:
        gradients = [jax.value_and_grad(which.loss, has_aux=True) for which in (early, late)]
        return jax.lax.cond(args[2]["step"] < steps, *gradients, *args)

    def backward(gradient: Params, cotangent: tuple[jax.Array, LossOutput]) -> tuple[Any, ...]:
        return jax.tree.map(lambda g: cotangent[0] * g, gradient), None, None, None

    loss.defvjp(forward, backward)
    return Objective(late.init, loss, late.embed)
