"""The loop and the objective: one trace, exact across devices, bit-equal after a resume."""

import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import augment, data, losses, parallel, training
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.errors import NonFiniteError
from contrastive_jax.objectives import image_model, simclr
from contrastive_jax.training import loop, optim
from contrastive_jax.training.checkpoint import Checkpointer, digest
from contrastive_jax.types import LossOutput, Objective

BATCH = 16


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    return {"image": image, "label": rng.integers(0, 3, 40).astype(np.int32)}


def simclr_objective(mesh, temperature=0.5):
    """A tiny SimCLR with batch norm in the encoder and in the head."""
    sharded = parallel.shard_loss(functools.partial(losses.nt_xent, temperature=temperature), mesh)
    return simclr.make(
        resnet.make(depth=10, width=0.0625, stages=1),
        heads.make(hidden_dim=8, output_dim=4),
        augment.make_views(
            size=8, crop_scale=(0.5, 1.0), jitter_probability=0.0, grayscale_probability=0.0
        ),
        sharded,
        n_classes=3,
        temperature=temperature,
    )


def line_objective():
    """A least-squares fit with a random target: another objective for the same loop."""

    def loss(params, model_state, batch, key, step):
        target = batch["index"].astype(jnp.float32) + jax.random.normal(key)
        error = jnp.mean((params["w"] * batch["index"] - target) ** 2)
        return error, LossOutput({"seen": model_state["seen"] + 1}, {"loss": error})

    return Objective(
        init=lambda key, batch: ({"w": jax.random.normal(key)}, {"seen": jnp.zeros((), jnp.int32)}),
        loss=loss,
        embed={"image": lambda params, state, batch: {"features": params["w"] * batch["image"]}},
    )


def run(objective, optimizer, feed, mesh, *, steps, state=None, **settings):
    """Train and return (Finished, rows)."""
    rows = []
    plan = training.Plan(steps, seed=0, log_every=2)
    state = training.make_init(objective, optimizer, feed, mesh)(0) if state is None else state
    finished = training.run(
        objective,
        optimizer,
        feed,
        state,
        plan=plan,
        mesh=mesh,
        write=lambda step, row: rows.append({"step": step, **row}),
        **settings,
    )
    return finished, rows


@pytest.fixture(scope="module")
def after_two_steps_on_one_device(examples):
    return _after_two_steps(examples, 1)


def _after_two_steps(examples, n_devices):
    """Parameters and statistics after two plain SGD steps: they show the gradient's scale."""
    mesh = parallel.make_mesh(jax.devices()[:n_devices])
    feed = data.feed(examples, BATCH, seed=0)
    finished, rows = run(simclr_objective(mesh), optax.sgd(0.1), feed, mesh, steps=2)
    return jax.device_get((finished.state.params, finished.state.model_state)), rows


def test_views_encoded_separately_have_their_own_batch_statistics():
    parts = image_model.make(
        resnet.make(depth=10, width=0.0625, stages=1), heads.make(hidden_dim=8, output_dim=4), 3
    )
    one = jax.random.uniform(jax.random.key(0), (5, 8, 8, 3))
    x_BVHWC = jnp.stack([one, 0.2 * one + 0.5], axis=1)
    params, statistics = jax.jit(functools.partial(image_model.init, parts))(jax.random.key(1), one)
    step_key = jax.random.key(2)  # nothing here is random in training
    alone = jax.jit(lambda s, x: image_model.train_mode(parts, params, s, x, step_key))
    separately, jointly = (
        jax.jit(lambda x, encode=encode: encode(parts, params, statistics, x, step_key))
        for encode in (image_model.encode_separately, image_model.encode_jointly)
    )

    h_BVF, z_BVD, new = separately(x_BVHWC)
    for view in (0, 1):
        h, z, _ = alone(statistics, x_BVHWC[:, view])
        np.testing.assert_allclose(h_BVF[:, view], h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(z_BVD[:, view], z, rtol=1e-5, atol=1e-6)
    _, _, after_first = alone(statistics, x_BVHWC[:, 0])
    _, _, after_both = alone(after_first, x_BVHWC[:, 1])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, new, after_both)

    assert np.abs(jointly(x_BVHWC)[0] - h_BVF).max() > 1e-2  # the views are unlike each other
    twice = jnp.stack([one, one], axis=1)
    for encode in (jointly, separately):
        h_twice, _, _ = encode(twice)
        np.testing.assert_allclose(h_twice[:, 1], h_BVF[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "n_devices", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 8]
)
def test_training_is_the_same_on_any_number_of_devices(
    examples, after_two_steps_on_one_device, n_devices
):
    want, want_rows = after_two_steps_on_one_device
    got, got_rows = _after_two_steps(examples, n_devices)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)
    for row, want_row in zip(got_rows, want_rows, strict=True):
        for name, value in want_row.items():
            np.testing.assert_allclose(row[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_step_is_traced_once(examples):
    mesh = parallel.make_mesh(jax.devices()[:1])
    traces = []
    objective = line_objective()

    def counted(*args):
        traces.append(1)
        return objective.loss(*args)

    feed = data.feed(examples, BATCH, seed=0)
    step = training.make_train_step(objective._replace(loss=counted), optax.adam(0.1), feed, mesh)
    state = training.make_init(objective, optax.adam(0.1), feed, mesh)(0)
    resident = parallel.put_replicated(dict(feed.resident), mesh)
    key = parallel.put_replicated(jax.random.key(0), mesh)
    for i in range(4):
        state, _ = step(state, resident, parallel.put_batch(feed.batch_at(i), mesh), key)
    assert len(traces) == 1
    assert int(state.step) == int(state.model_state["seen"]) == 4


READS = ("__array__", "__float__", "__int__", "__bool__", "__index__", "item", "tolist")


def test_the_loop_sends_four_bytes_an_image_and_reads_only_rows_that_are_logged(
    examples, monkeypatch
):
    reads, sent, reads_after = [], [], []
    array = type(jnp.zeros(()))
    for name in READS:
        read = getattr(array, name)
        monkeypatch.setattr(array, name, lambda *a, r=read, **k: (reads.append(1), r(*a, **k))[1])
    put = parallel.put_batch

    def counted_put(host_batch, mesh):
        sent.append(sum(x.nbytes for x in host_batch.values()))
        return put(host_batch, mesh)

    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = data.feed(examples, BATCH, seed=0)
    objective, optimizer = line_objective(), optax.sgd(0.1)
    state = training.make_init(objective, optimizer, feed, mesh)(0)
    monkeypatch.setattr(parallel, "put_batch", counted_put)
    training.run(
        objective,
        optimizer,
        feed,
        state,
        plan=training.Plan(9, seed=0, log_every=4),
        mesh=mesh,
        write=lambda step, row: None,
        on_step=lambda step: reads_after.append(len(reads)),
    )
    assert sent == [4 * BATCH] * 9
    read_in = [i + 2 for i, (a, b) in enumerate(itertools.pairwise(reads_after)) if b > a]
    assert read_in == [2, 5, 9]  # one step after steps 1, 4 and 8 were logged


def test_a_step_calls_nothing_on_the_host(examples):
    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = data.feed(examples, BATCH, seed=0)
    objective, optimizer = simclr_objective(mesh), optax.sgd(0.1)
    state = training.abstract_state(objective, optimizer, feed, mesh)
    step = training.make_train_step(objective, optimizer, feed, mesh)
    arguments = (state, dict(feed.resident), dict(feed.batch_at(0)), jax.random.key(0))
    text = step.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in text
    assert not any(word in text for word in ("callback", "infeed", "outfeed", "send", "recv"))


def test_abstract_state_is_that_of_a_real_one(examples):
    mesh = parallel.make_mesh(jax.devices()[:2])
    feed = data.feed(examples, BATCH, seed=0)
    optimizer, _ = optim.make("lars", batch_size=BATCH, steps=4, steps_per_epoch=2)
    objective = simclr_objective(mesh)
    abstract = training.abstract_state(objective, optimizer, feed, mesh)
    real = training.make_init(objective, optimizer, feed, mesh)(0)
    describe = lambda x: (x.shape, x.dtype, x.sharding)  # noqa: E731
    assert jax.tree.map(describe, abstract) == jax.tree.map(describe, real)


def test_the_step_is_lowered_from_shapes_as_from_arrays(examples):
    mesh = parallel.make_mesh(jax.devices()[:2])
    feed = data.feed(examples, BATCH, seed=0)
    made = line_objective(), optax.adam(0.1), feed, mesh
    resident = parallel.put_replicated(dict(feed.resident), mesh)
    key = parallel.put_replicated(jax.random.key(0), mesh)
    arrays = training.make_init(*made)(0), resident, parallel.put_batch(feed.batch_at(0), mesh), key
    lowered = training.make_train_step(*made).lower(*arrays)
    assert training.lowered_step(*made).as_text() == lowered.as_text()


def test_resumed_equals_straight_bit_for_bit(examples, tmp_path, monkeypatch):
    mesh = parallel.make_mesh(jax.devices()[:2])
    feed = data.feed(examples, BATCH, seed=3)
    objective = simclr_objective(mesh)
    optimizer, _ = optim.make(batch_size=BATCH, steps=7, steps_per_epoch=2)
    init = training.make_init(objective, optimizer, feed, mesh)
    step = training.make_train_step(objective, optimizer, feed, mesh)
    monkeypatch.setattr(loop, "make_train_step", lambda *args: step)  # compiled once for all
    straight, rows = run(objective, optimizer, feed, mesh, steps=7, state=init(0))

    with Checkpointer(tmp_path / "c", every_steps=3) as checkpointer:
        stopped, first = run(
            objective,
            optimizer,
            feed,
            mesh,
            steps=7,
            state=init(0),
            checkpointer=checkpointer,
            stop=_after(4),
        )
        assert stopped.step == 4
    with Checkpointer(tmp_path / "c", every_steps=3) as checkpointer:
        restored = checkpointer.restore(training.abstract_state(objective, optimizer, feed, mesh))
        assert restored.step == 4
        resumed, second = run(objective, optimizer, feed, mesh, steps=7, state=restored.state)
    assert digest(resumed.state) == digest(straight.state)
    assert first + [row for row in second] == rows


def _after(calls):
    """A stop function that says yes from its n-th call on."""
    count = iter(range(1, 1000))
    return lambda: next(count) >= calls


def test_evaluators_add_to_the_row_of_their_step_and_change_nothing(examples):
    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = data.feed(examples, BATCH, seed=0)
    watch = training.Evaluator(3, lambda state, step: {"seen": float(state.model_state["seen"])})
    plain, plain_rows = run(line_objective(), optax.sgd(1e-4), feed, mesh, steps=7)
    watched, rows = run(line_objective(), optax.sgd(1e-4), feed, mesh, steps=7, evaluators=[watch])
    assert digest(plain.state) == digest(watched.state)
    assert {row["step"]: row["seen"] for row in rows if "seen" in row} == {3: 3.0, 6: 6.0, 7: 7.0}
    assert [row["step"] for row in plain_rows] == [1, 2, 4, 6, 7]


def test_the_cost_of_a_step_leaves_out_what_is_between_steps(examples):
    def measure(state, step):
        time.sleep(0.5)
        return {}

    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = data.feed(examples, BATCH, seed=0)
    evaluator = loop.Evaluator(1, measure)
    done, _ = run(line_objective(), optax.sgd(0.1), feed, mesh, steps=2, evaluators=[evaluator])
    assert 0 < 2 * done.cost.seconds <= done.train_seconds - 2 * 0.5
    assert done.cost.bytes >= sum(x.nbytes for x in jax.tree.leaves(done.state))
    again, _ = run(line_objective(), optax.sgd(0.1), feed, mesh, steps=2, state=done.state)
    assert again.cost is None


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(examples, tmp_path):
    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = data.feed(examples, BATCH, seed=0)
    objective = line_objective()

    def explode(params, model_state, batch, key, step):
        error, out = objective.loss(params, model_state, batch, key, step)
        error = jnp.where(model_state["seen"] >= 5, jnp.nan, error)
        return error, out._replace(metrics={"loss": error})

    broken = objective._replace(loss=explode)
    with Checkpointer(tmp_path / "c", every_steps=2) as checkpointer:
        with pytest.raises(NonFiniteError, match="loss = nan.*step"):
            run(broken, optax.sgd(1e-4), feed, mesh, steps=9, checkpointer=checkpointer)
        assert checkpointer.wait() == 4


def failing_at(*seen):
    """The line objective with a gradient that is NaN in the steps that have seen so many."""
    objective = line_objective()

    def loss(params, model_state, batch, key, step):
        error, out = objective.loss(params, model_state, batch, key, step)
        hit = jnp.isin(batch["step"][0], jnp.asarray(seen))
        return error + jnp.where(hit, jnp.nan, 0.0) * params["w"], out

    return objective._replace(loss=loss)


def stepping(feed):
    """A feed whose batches know their step."""

    def batch_at(step):
        return {**feed.batch_at(step), "step": np.full(BATCH, step, np.int32)}

    def assemble(resident, sent):
        return {**feed.assemble(resident, {"index": sent["index"]}), "step": sent["step"]}

    return feed._replace(batch_at=batch_at, assemble=assemble, spec=None)


def test_a_step_that_is_left_out_changes_nothing_but_its_number(examples):
    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = stepping(data.feed(examples, BATCH, seed=0))
    optimizer = optax.apply_if_finite(optax.sgd(1e-4, momentum=0.9), 2)
    failing = failing_at(3, 4)
    before, _ = run(failing, optimizer, feed, mesh, steps=3)
    before = jax.device_get(before.state)
    through, rows = run(failing, optimizer, feed, mesh, steps=5)
    assert through.state.params == before.params
    assert through.state.model_state == before.model_state
    assert_equal(through.state.opt_state.inner_state, before.opt_state.inner_state)
    assert int(through.state.step) == 5
    last = rows[-1]
    assert (last["skipped"], last["skipped_in_a_row"], last["update_norm"]) == (2, 2, 0)
    on, rows = run(failing, optimizer, feed, mesh, steps=7)
    assert (rows[-1]["skipped"], rows[-1]["skipped_in_a_row"]) == (2, 0)
    assert int(on.state.model_state["seen"]) == 5


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_too_many_steps_in_a_row_that_are_not_finite_stop_the_run(examples, tmp_path):
    mesh = parallel.make_mesh(jax.devices()[:1])
    feed = stepping(data.feed(examples, BATCH, seed=0))
    optimizer = optax.apply_if_finite(optax.sgd(1e-4), 2)
    with Checkpointer(tmp_path / "c", every_steps=1, keep=9) as checkpointer:
        with pytest.raises(NonFiniteError, match="update_norm = nan.*steps 5 to 6"):
            run(failing_at(3, 4, 5), optimizer, feed, mesh, steps=9, checkpointer=checkpointer)
        assert checkpointer.wait() == 5


@pytest.fixture(scope="module")
def one_step(examples):
    """Parameters, a batch, and (parameters, batch) -> gradient and metrics, compiled once."""
    key, objective = jax.random.key(0), simclr_objective(parallel.make_mesh(jax.devices()[:1]))
    batch = {
        "image": examples["image"][:BATCH],
        "label": examples["label"][:BATCH],
        "index": np.arange(BATCH, dtype=np.int32),
    }
    params, state = jax.jit(objective.init)(key, batch)
    gradient = jax.jit(jax.grad(objective.loss, has_aux=True))
    return params, batch, lambda params, batch: gradient(params, state, batch, key, 0)


def test_unlabeled_images_are_left_out_of_the_online_probe(one_step):
    params, batch, gradient = one_step
    grads, out = gradient(params, {**batch, "label": np.full(BATCH, -1, np.int32)})
    assert float(out.metrics["online_loss"]) == 0
    assert not any(np.any(g) for g in jax.tree.leaves(grads["probe"]))


def test_the_online_probe_sends_no_gradient_to_the_encoder(one_step, key):
    params, batch, gradient = one_step
    probe = jax.tree.map(lambda p: jax.random.normal(key, p.shape), params["probe"])
    one, _ = gradient(params, batch)
    other, _ = gradient({**params, "probe": probe}, batch)
    assert np.any(one["probe"]["kernel"] != other["probe"]["kernel"])
    for name in ("encoder", "head"):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, one[name], other[name]))


def test_plan_refuses_a_length_of_nothing():
    with pytest.raises(ValueError, match="both None"):
        training.plan(steps_per_epoch=10)
    with pytest.raises(ValueError, match="train lasts 0 steps"):
        training.plan(epochs=0.01, steps_per_epoch=10)
    assert training.plan(epochs=2, steps=3, steps_per_epoch=10).steps == 3
