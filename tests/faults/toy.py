"""The launcher with a linear encoder: everything of a run but the cost of a network.

python -m tests.faults.toy --config tests/faults/toy_config.py --workdir DIR
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax import augment, losses, parallel
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Batch, LossOutput, Objective
from experiments.run import lifecycle


def build(config: ConfigDict, mesh: Mesh, n_classes: int) -> Objective:
    """NT-Xent between an image and a noisy copy of it, on a linear map of the pixels."""
    del n_classes
    pair_loss = functools.partial(losses.nt_xent, temperature=config.loss.temperature)
    sharded = parallel.shard_loss(pair_loss, mesh)

    def pixels(batch: Batch) -> jax.Array:
        return batch["image"].reshape(len(batch["image"]), -1) / jnp.float32(255)

    def init(key, batch):
        shape = [pixels(batch).shape[1], config.encoder.features]
        return {"w": jax.random.normal(key, shape) / 8}, {"seen": jnp.float32(0)}

    def loss(params, model_state, batch, key):
        x_BF = pixels(batch)
        keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(batch["index"])
        noise_BF = jax.vmap(lambda k: jax.random.normal(k, x_BF.shape[1:]))(keys_B)
        z_BVD = jnp.stack([x_BF, x_BF + config.views.noise * noise_BF], axis=1) @ params["w"]
        value = sharded(z_BVD).mean()
        return value, LossOutput({"seen": model_state["seen"] + len(x_BF)}, {"loss": value})

    def embed(params, model_state, batch):
        del model_state
        features = pixels(batch) @ params["w"]
        return {"features": features, "embedding": features}

    return Objective(init, loss, embed)


EXPERIMENT = lifecycle.Experiment(
    usage=__doc__ or "",
    sections={"encoder": ("features",), "loss": ("temperature",), "views": ("noise",)},
    build=build,
    views=lambda config: augment.make_views(size=8),
)

if __name__ == "__main__":
    lifecycle.main(EXPERIMENT)
