"""Seeds trained at once: each as if it had been alone, in memory and on disk, and after a crash."""

import functools
import json
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import augment, data, losses, metrics, parallel, together, train
from contrastive_jax.checkpoint import Checkpointer
from contrastive_jax.encoders import heads
from contrastive_jax.encoders.conv import Conv
from contrastive_jax.encoders.norm import batch_norm
from contrastive_jax.errors import NonFiniteError
from contrastive_jax.loop import Record
from contrastive_jax.objectives import momentum, simclr, supervised
from contrastive_jax.types import LossOutput, Objective
from experiments import ablations, at_once, cell_runs, command_line, launch
from tests.faults import toy
from tests.test_losses_sharded import QUICK_COMPILE

SEEDS = (0, 3)
EXAMPLES = data.Examples(
    np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), np.uint8),
    np.arange(24, dtype=np.int32) % 3,
)
assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)


class Encoder(nn.Module):
    """What an encoder has: a convolution with its own gradient, and batch norm."""

    @nn.compact
    def __call__(self, x_BHWC, train: bool):
        x_BHWC = batch_norm(1, train, jnp.float32)()(Conv(4)(x_BHWC))
        return nn.relu(x_BHWC).mean(axis=(1, 2))


def views():
    still = {"jitter_probability": 0.0, "grayscale_probability": 0.0, "flip_probability": 0.0}
    return augment.make_views(size=8, crop_scale=(0.5, 1.0), **still)


class NoisyViews(NamedTuple):
    """Cheaper to compile than real views, and as random."""

    @staticmethod
    def train(key, image_BHWC, index_B):
        keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(index_B)
        shape = (2, *image_BHWC.shape[1:])
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)
        return image_BHWC[:, None] / jnp.float32(255) + 0.1 * noise

    @staticmethod
    def evaluate(image_BHWC):
        return image_BHWC / jnp.float32(255)


def simclr_objective(mesh):
    sharded = parallel.shard_loss(losses.nt_xent, mesh)
    head = heads.make(kind="linear", output_dim=4)
    both = lambda z_BVD, label_B: sharded(z_BVD)  # noqa: E731
    return simclr.make(Encoder(), head, NoisyViews(), both, n_classes=3, temperature=0.5)


def moco_objective(mesh):
    del mesh
    head = heads.make(hidden_dim=8, output_dim=4)
    return momentum.make(Encoder(), head, views(), n_classes=3, queue_size=16)


def supervised_objective(mesh):
    del mesh
    return supervised.make(Encoder(), views(), n_classes=3)


def line_objective(explodes=False):
    """A least-squares fit; it may explode where the first parameter began below zero."""

    def loss(params, model_state, batch, key):
        target = batch["index"].astype(jnp.float32) + jax.random.normal(key)
        error = jnp.mean((params["w"] * batch["index"] - target) ** 2)
        seen = model_state["seen"] + 1
        if explodes:
            error = jnp.where((seen >= 4) & (model_state["first"] < 0), jnp.nan, error)
        return error, LossOutput({**model_state, "seen": seen}, {"loss": error})

    def init(key, batch):
        w = jax.random.normal(key)
        return {"w": w}, {"seen": jnp.zeros((), jnp.int32), "first": w}

    embed = lambda params, model_state, batch: {"features": params["w"] * batch["image"]}  # noqa: E731
    return Objective(init, loss, embed)


class Trained:
    """Seeds trained alone or at once, with what they leave."""

    def __init__(self, objective, mesh, seeds=SEEDS, steps=3, optimizer=None):
        self.objective, self.mesh, self.seeds = objective, mesh, seeds
        self.optimizer = optax.sgd(1e-2) if optimizer is None else optimizer
        self.feeds = [data.feed(EXAMPLES, 8, seed) for seed in seeds]
        self.plans = [train.Plan(steps, seed, log_every=1) for seed in seeds]
        self.rows = [[] for _ in seeds]

    def fresh(self):
        init = train.make_init(self.objective, self.optimizer, self.feeds[0], self.mesh)
        return [init(seed) for seed in self.seeds]

    def record(self, i, checkpointer=None):
        looks = [train.Evaluator(2, lambda state, step: {"seen": float(state.step)})]
        write = lambda step, row: self.rows[i].append({"step": step, **row})  # noqa: E731
        name = f"seed {self.seeds[i]}"
        return Record(write, checkpointer, {"seed": self.seeds[i]}, looks, name)

    def alone(self, i, state, checkpointer=None, stop=lambda: False):
        record = self.record(i, checkpointer)._asdict()
        del record["name"]
        settings = {"plan": self.plans[i], "mesh": self.mesh, "stop": stop, **record}
        return train.run(self.objective, self.optimizer, self.feeds[i], state, **settings).state

    def at_once(self, states, checkpointers=(None, None), stop=lambda: False):
        records = [self.record(i, each) for i, each in enumerate(checkpointers)]
        settings = {"plans": self.plans, "mesh": self.mesh, "records": records, "stop": stop}
        finished = together.run(self.objective, self.optimizer, self.feeds, states, **settings)
        return [each.state for each in finished]


def assert_rows_close(got, want):
    assert [row["step"] for row in got] == [row["step"] for row in want]
    for row, wanted in zip(got, want, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_close(row[name], value, err_msg=name)


def assert_states_close(got, want):
    jax.tree.map(assert_close, jax.device_get(got), jax.device_get(want))


def test_the_step_of_a_network_on_two_devices_is_that_of_each_seed_alone():
    mesh = parallel.make_mesh(jax.devices()[:2])
    objective, optimizer = simclr_objective(mesh), optax.sgd(1e-2)
    feeds = [data.feed(EXAMPLES, 8, seed) for seed in SEEDS]
    resident = parallel.put_replicated(dict(feeds[0].resident), mesh)
    keys = [train.stream_key(seed, train.AUGMENT_STREAM) for seed in SEEDS]
    init = train.make_init(objective, optimizer, feeds[0], mesh)
    want = [init(seed) for seed in SEEDS]
    quick = functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    alone = quick(train.make_step(objective, optimizer, feeds[0]))
    both = quick(together.make_step(objective, optimizer, feeds[0]))
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    got, row = stack(want), {}
    for step in range(2):
        sent = [feed.batch_at(step) for feed in feeds]
        placed = parallel.put_batch(jax.tree.map(lambda *x: np.stack(x), *sent), mesh, axis=1)
        assert {s.data.shape for s in placed["index"].addressable_shards} == {(2, 4)}
        got, row = both(got, resident, placed, stack(keys))
        for i in range(len(SEEDS)):
            own = parallel.put_batch(sent[i], mesh)
            want[i], want_row = alone(want[i], resident, own, keys[i])
            assert_states_close({k: v[i] for k, v in row.items()}, want_row)
    for i in range(len(SEEDS)):
        assert_states_close(jax.tree.map(lambda x: x[i], got), want[i])  # noqa: B023
    assert not np.allclose(row["loss"][0], row["loss"][1], rtol=1e-3)


@pytest.mark.parametrize("make", [moco_objective, supervised_objective])
def test_the_step_of_every_method_takes_several_seeds(make):
    mesh = parallel.make_mesh(jax.devices()[:1])
    objective, optimizer = make(mesh), optax.sgd(1e-2)
    feed = data.feed(EXAMPLES, 8, 0)
    state = train.abstract_state(objective, optimizer, feed, mesh)
    stacked = lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype)  # noqa: E731
    arguments = jax.tree.map(stacked, (state, dict(feed.batch_at(0)), jax.random.key(0)))
    resident = dict(feed.resident)
    step = together.make_step(objective, optimizer, feed)
    after, row = jax.eval_shape(step, arguments[0], resident, *arguments[1:])
    shapes = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]  # noqa: E731
    assert shapes(after) == shapes(arguments[0])
    assert {x.shape for x in row.values()} == {(2,)}


def _after(calls):
    count = iter(range(1, 1000))
    return lambda: next(count) >= calls


def test_a_run_goes_on_alone_and_at_once_from_either_ones_checkpoints(tmp_path):
    mesh = parallel.make_mesh(jax.devices()[:1])
    make = functools.partial(
        Trained, line_objective(), mesh, steps=5, optimizer=optax.sgd(1e-4, momentum=0.9)
    )
    straight, mixed = make(), make()
    want = [straight.alone(i, state) for i, state in enumerate(straight.fresh())]
    savers = [Checkpointer(tmp_path / str(i), every_steps=2) for i in range(2)]
    abstract = train.abstract_state(mixed.objective, mixed.optimizer, mixed.feeds[0], mesh)

    mixed.at_once(mixed.fresh(), savers, stop=_after(3))
    for i, saver in enumerate(savers):
        restored = saver.restore(abstract)
        assert (restored.step, restored.meta) == (3, {"seed": SEEDS[i]})
        mixed.alone(i, restored.state, saver, stop=_after(1))
    states = [saver.restore(abstract).state for saver in savers]
    got = mixed.at_once(states, savers)
    shardings = lambda state: [x.sharding for x in jax.tree.leaves(state)]  # noqa: E731
    for i, saver in enumerate(savers):
        assert saver.wait() == 5
        assert shardings(got[i]) == shardings(want[i])
        assert_states_close(got[i], want[i])
        assert_rows_close(mixed.rows[i], straight.rows[i])
        saver.close()


def test_a_seed_that_is_not_finite_is_named_and_the_checkpoints_are_from_before(tmp_path):
    mesh = parallel.make_mesh(jax.devices()[:1])
    objective = line_objective(explodes=True)
    first = [
        float(
            train.make_init(objective, optax.sgd(1e-4), data.feed(EXAMPLES, 8, 0), mesh)(
                seed
            ).params["w"]
        )
        for seed in range(8)
    ]
    good, bad = (next(s for s in range(8) if (first[s] < 0) == below) for below in (False, True))
    trained = Trained(objective, mesh, (good, bad), steps=6, optimizer=optax.sgd(1e-4))
    savers = [Checkpointer(tmp_path / str(i), every_steps=2) for i in range(2)]
    with pytest.raises(NonFiniteError, match=rf"of seed {bad} is not finite: .*loss = nan.*step 4"):
        trained.at_once(trained.fresh(), savers)
    assert savers[1].wait() == 2
    assert [row["step"] for row in trained.rows[0]] == [1, 2, 3, 4]
    for saver in savers:
        saver.close()


def test_seeds_that_differ_in_more_than_the_seed_are_refused():
    mesh = parallel.make_mesh(jax.devices()[:1])
    trained = Trained(line_objective(), mesh)
    states = trained.fresh()
    late = states[1]._replace(step=states[1].step + 1)
    with pytest.raises(ValueError, match=r"stand at the steps \[0, 1\]"):
        trained.at_once([states[0], late])
    trained.plans[1] = trained.plans[1]._replace(steps=9)
    with pytest.raises(ValueError, match="different plans"):
        trained.at_once(states)
    other = data.Examples(EXAMPLES.image.copy(), EXAMPLES.label)
    trained.feeds[1] = data.feed(other, 8, 3)
    with pytest.raises(ValueError, match="different images"):
        trained.at_once(states)
    trained.feeds[0] = trained.feeds[0]._replace(resident={})
    with pytest.raises(ValueError, match="Streamed"):
        trained.at_once(states)


PAGE = """
from contrastive_jax import claims
from tests.faults import toy_config

def get_config(preset=""):
    config = toy_config.get_config()
    config.train.steps = 6
    config.eval.baselines = False
    return config

def grid(preset):
    linear = {"layer": "features", "name": "linear"}
    cells = {"cold": {"loss.temperature": 0.2}}
    return {"experiment": "toy", "cells": cells, "seeds": 3, "columns": {"linear": linear}}

def claim(results):
    '''None.'''
    return claims.Verdict(claims.UNDECIDED, ("one cell",))
"""


@pytest.fixture
def command(in_the_repository, capsys, monkeypatch, tmp_path):
    """The ablation of a linear encoder: words -> (exit code, stderr)."""
    del in_the_repository
    monkeypatch.setitem(ablations.EXPERIMENTS, "toy", toy.EXPERIMENT)
    (tmp_path / "page.py").write_text(PAGE)

    def call(*words):
        argv = ["experiments/ablations.py", f"--config={tmp_path / 'page.py'}", *map(str, words)]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as exit_info:
            command_line.exit_with(ablations.main)
        return exit_info.value.code, capsys.readouterr().err

    return call


def _leaves(folder):
    """The files of a run's folder, but for the names that hold a time or a process."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"events\..*|array_metadatas.*|ocdbt.*|d/.*", "", name) for name in names}


def _summary(folder):
    return json.loads((folder / "results" / "summary.json").read_text())


def test_an_ablation_at_once_survives_a_kill_and_a_bad_seed(command, monkeypatch, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    conclude, together_run, sizes = launch.conclude, together.run, []

    def counted(*args, **settings):
        sizes.append([plan.seed for plan in settings["plans"]])
        return together_run(*args, **settings)

    def killed(begun, finished, at_once=1):
        if begun.run.plan.seed == 1:
            raise SystemExit(137)  # as if the process were gone
        return conclude(begun, finished, at_once)

    monkeypatch.setattr(together, "run", counted)
    monkeypatch.setattr(launch, "conclude", killed)
    assert command("--seeds_at_once=3", f"--workdir={whole}")[0] == 137
    monkeypatch.setattr(launch, "conclude", conclude)
    assert command("--seeds_at_once=3", f"--workdir={whole}")[0] == 0
    assert sizes == [[0, 1, 2], [1, 2]]

    fresh = launch.fresh_state

    def poisoned(run):
        state = fresh(run)
        if run.plan.seed != 1:
            return state
        return state._replace(params=jax.tree.map(lambda w: w * jnp.nan, state.params))

    monkeypatch.setattr(launch, "fresh_state", poisoned)
    code, err = command("--seeds_at_once=3", f"--workdir={broken}")
    assert code == cell_runs.INCOMPLETE
    assert "seeds [0, 1, 2] of 'cold' at once crashed: Training of seed 1 is not finite" in err
    table = (broken / "table.md").read_text()
    assert "seed 2: NonFiniteError: Training of seed 1 is not finite" in table
    assert "seed 1: NonFiniteError: Training is not finite" in table
    for seed in (0, 2):  # at once in one folder, in turn in the other
        one, other = (folder / "runs" / "cold" / f"seed{seed}" for folder in (whole, broken))
        assert _leaves(one) == _leaves(other)
        assert_rows_close(*(metrics.read_jsonl(f / "metrics.jsonl") for f in (one, other)))
        assert _summary(one).keys() == _summary(other).keys()
        assert [_summary(f)["seconds"]["seeds_at_once"] for f in (one, other)][1] == 1
    assert not (broken / "runs" / "cold" / "seed1" / "results" / "summary.json").exists()


@pytest.mark.parametrize("words", ["0", "-1", "2.5", "many"])
def test_a_number_of_seeds_that_cannot_be_is_refused(words, command, tmp_path):
    code, err = command(f"--seeds_at_once={words}", f"--workdir={tmp_path / 'out'}")
    assert code == 2
    assert f"--seeds_at_once is '{words}'" in err


def test_streamed_images_are_refused(command, monkeypatch, tmp_path):
    load = data.load
    stream = data.Stream("", "train", "L", 256, 0)

    def streamed(*args, **source):
        return load(*args, **source)._replace(stream=stream)

    monkeypatch.setattr(data, "load", streamed)
    monkeypatch.setattr(
        data, "train_feed", lambda dataset, seed, crops: data.feed(dataset.train, 32, seed)
    )
    code, err = command("--seeds_at_once=2", f"--workdir={tmp_path / 'out'}")
    assert code == 2
    assert "'cold' are streamed" in err
    assert len(err.strip().splitlines()) <= 3


def test_groups_are_of_one_cell_and_of_those_at_one_step():
    cells = [ablations.grid.Cell(name, (name,), {}) for name in "ab"]
    jobs = [cell_runs.Job(cell, seed, *[None] * 3) for cell in cells for seed in range(3)]
    split = [[(job.cell.name, job.seed) for job in g] for g in cell_runs.groups(jobs, 2)]
    assert split == [[("a", 0), ("a", 1)], [("a", 2)], [("b", 0), ("b", 1)], [("b", 2)]]
    begun = [
        launch.Begun(name, *[None] * 4, step) for name, step in zip("pqr", (0, 6, 0), strict=True)
    ]
    assert [[own.run for own in group] for group in at_once.standing_together(begun)] == [
        ["p", "r"],
        ["q"],
    ]
