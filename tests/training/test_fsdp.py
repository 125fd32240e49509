"""A state in parts trains, is saved and restored as one that every device holds whole."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

from contrastive_jax import data, losses, parallel, training
from contrastive_jax.augment import make_views
from contrastive_jax.encoders import heads
from contrastive_jax.evaluation import features
from contrastive_jax.objectives import moco, simclr
from contrastive_jax.training import optim
from contrastive_jax.training.checkpoint import Checkpointer, digest
from tests.experiments import tiny

STEPS, SMALL = 20, 16
DEVICES = {"whole": (8, 1), "in 8 parts": (8, 8), "in 2 parts": (4, 2)}


class Flat(nn.Module):
    """The smallest encoder with matrices worth splitting."""

    @nn.compact
    def __call__(self, x_NHWC, train):
        return nn.relu(nn.Dense(32)(x_NHWC.reshape(len(x_NHWC), -1)))


@pytest.fixture(autouse=True)
def small_arrays_are_split_too(monkeypatch):
    monkeypatch.setattr(parallel, "_SMALL", SMALL)


def mesh_of(where):
    devices, parts = DEVICES[where]
    return parallel.make_mesh(jax.devices()[:devices], fsdp=parts)


def setting(method, mesh):
    arrays = tiny.arrays(n=32)
    examples = {"image": arrays["image"], "label": arrays["label"].astype(np.int32)}
    encoder, head = Flat(), heads.make(hidden_dim=16, output_dim=8)
    views = make_views(size=8, jitter_probability=0.0, grayscale_probability=0.0)
    if method == "moco":
        objective = moco.make(encoder, head, views, n_classes=3, queue_size=32)
    else:
        loss = parallel.shard_loss(functools.partial(losses.nt_xent, temperature=0.5), mesh)
        objective = simclr.make(encoder, head, views, loss, n_classes=3)
    optimizer = optim.make(
        "sgd",
        1e-3,
        batch_size=16,
        steps=STEPS,
        steps_per_epoch=2,
        auxiliary=objective.auxiliary,
    )[0]
    return objective, optimizer, data.feed(examples, 16, seed=0)


@functools.cache
def trained(method, where):
    mesh = mesh_of(where)
    objective, optimizer, feed = setting(method, mesh)
    rows = []
    plan = training.Plan(STEPS, seed=0, log_every=1)
    state = training.make_init(objective, optimizer, feed, mesh)(0)
    finished = training.run(
        objective,
        optimizer,
        feed,
        state,
        plan=plan,
        mesh=mesh,
        write=lambda step, row: rows.append(row),
    )
    return finished.state, rows


@pytest.mark.parametrize(
    ("method", "where"),
    [("simclr", "in 8 parts"), ("simclr", "in 2 parts"), ("moco", "in 8 parts")],
)
def test_a_state_in_parts_trains_as_the_whole_one(method, where):
    (_, want), (_, got) = trained(method, "whole"), trained(method, where)
    assert len(got) == len(want) == STEPS
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


def bytes_a_device(state):
    return sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(state))


def test_each_device_holds_its_part_of_what_is_large():
    state = trained("simclr", "in 8 parts")[0]
    for x in jax.tree.leaves((state.params, state.opt_state)):
        parts = len({str(shard.index) for shard in x.addressable_shards})
        split = x.size >= SMALL and any(size % 8 == 0 for size in x.shape)
        assert parts == (8 if split else 1), x.shape
    whole = trained("simclr", "whole")[0]
    assert bytes_a_device(state) < 1.1 * bytes_a_device(whole) / 8


@pytest.mark.parametrize("after", ["in 2 parts", "whole"])
def test_a_checkpoint_moves_between_parts_and_whole(tmp_path, after):
    state = trained("moco", "in 8 parts")[0]
    mesh = mesh_of(after)
    abstract = training.abstract_state(*setting("moco", mesh), mesh)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(STEPS, state, meta={})
        restored = checkpointer.restore(abstract)
    assert digest(restored.state) == digest(state)
    wanted = jax.tree.map(lambda x: x.sharding, abstract)
    assert jax.tree.map(lambda x: x.sharding, restored.state) == wanted


def test_a_number_of_parts_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(ValueError, match="parallel.fsdp is 3, and there are 8 devices"):
        parallel.make_mesh(fsdp=3)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of a TPU, as far as a mesh asks."""

    id: int
    coords: tuple[int, ...]
    core_on_chip: int = 0
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5"


@pytest.mark.parametrize("parts", [2, 4, 8, 16, 32])
def test_any_number_of_parts_lies_on_a_torus(parts):
    coords = itertools.product(range(4), repeat=3)
    mesh = parallel.make_mesh([Chip(i, each) for i, each in enumerate(coords)], fsdp=parts)
    assert dict(mesh.shape) == {"data": 64 // parts, "fsdp": parts}


def test_a_state_in_parts_embeds_as_the_whole_one():
    """What scores and pictures are made of: on all devices, and on one from a local copy."""
    mesh, image = mesh_of("in 8 parts"), tiny.arrays(n=16)["image"]
    state = trained("moco", "in 8 parts")[0]
    embed = setting("moco", mesh)[0].embed["image"]
    jointly = features.extract(
        embed,
        state.params,
        state.model_state,
        {"image": image},
        batch_size=16,
        shard=lambda batch: parallel.put_batch(batch, mesh),
    )
    alone = parallel.local_copy(state)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(alone)} == {1}
    on_one = embed(alone.params, alone.model_state, {"image": jax.numpy.asarray(image)})
    for name in ("features", "embedding"):
        np.testing.assert_allclose(jointly[name], on_one[name], rtol=1e-5, atol=1e-6)
