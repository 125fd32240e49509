"""Train a linear encoder by the launcher: everything of a run but the cost of a network.

python -m tests.faults.toy --config tests/faults/toy_config.py --workdir DIR
"""

import functools
import sys

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax import losses, parallel
from contrastive_jax.types import Batch, LossOutput, Objective, RunInfo
from experiments.run import command_line, lifecycle, multihost
from experiments.run.build import Experiment
from experiments.run.sections import REQUIRED, Key
from experiments.scoring.kinds import IMAGES


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Contrast an image with a noisy copy of it by NT-Xent, on a linear map of the pixels."""
    pair_loss = functools.partial(losses.nt_xent, temperature=config.loss.temperature)
    sharded = parallel.shard_loss(pair_loss, info.mesh)

    def pixels(batch: Batch) -> jax.Array:
        return batch["image"].reshape(len(batch["image"]), -1) / jnp.float32(255)

    def init(key, batch):
        shape = [pixels(batch).shape[1], config.encoder.features]
        return {"w": jax.random.normal(key, shape) / 8}, {"seen": jnp.float32(0)}

    def loss(params, model_state, batch, key, step):
        del step
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

    return Objective(init, loss, {"image": embed})


EXPERIMENT = Experiment(
    name="toy",
    usage=__doc__ or "",
    sections={
        "encoder": {"features": Key(REQUIRED, int)},
        "loss": {"temperature": Key(0.5, float)},
        "views": {"noise": Key(0.25, float)},
    },
    build=build,
    kind=IMAGES,
)

if __name__ == "__main__":
    with command_line.exit_codes():
        multihost.leave(lifecycle.main(EXPERIMENT, sys.argv))
