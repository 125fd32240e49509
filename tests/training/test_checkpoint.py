"""Checkpoints: what comes back is bit for bit what was saved, or it does not come back."""

import json
import logging
import re
import resource
import shutil
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from contrastive_jax.errors import CheckpointError
from contrastive_jax.training import checkpoint
from contrastive_jax.training.checkpoint import Checkpointer, digest
from contrastive_jax.types import TrainState


class State(NamedTuple):
    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array


OPTIMIZER = optax.chain(
    optax.masked(optax.add_decayed_weights(0.1), {"w": True, "b": False, "e": False}),
    optax.adam(1e-3),
)
OPTIMIZER_OF_ALL = optax.chain(optax.clip(1.0), optax.adam(1e-3))


def make_state(step: int) -> State:
    """A tiny state of every kind of leaf that the library has."""
    params = {
        "w": jax.random.normal(jax.random.key(step), [64, 33]),
        "b": jnp.full([5], step, jnp.bfloat16),
        "e": jnp.zeros([0, 3], jnp.float32),
    }
    return State(jnp.int32(step), params, OPTIMIZER.init(params), jax.random.key(step, impl="rbg"))


STATES = {step: make_state(step) for step in (1, 2, 3)}
ABSTRACT = jax.eval_shape(partial(make_state, 0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with steps 1 and 2, to be copied, never changed."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, STATES[step], meta={"seed": step})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def is_weak(leaf: jax.Array) -> bool:
    return getattr(leaf, "weak_type", False)  # keys have no such thing


def assert_same(restored: Any, state: Any) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert digest(restored) == digest(state)
    for mine, other in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert isinstance(mine, jax.Array)
        assert (mine.dtype, is_weak(mine)) == (other.dtype, is_weak(other))


def restore(folder, **kwargs):
    with Checkpointer(folder) as checkpointer:
        return checkpointer.restore(ABSTRACT, **kwargs)


def test_round_trip_is_bit_equal_in_structure_dtypes_and_values(folder):
    restored = restore(folder)
    assert_same(restored.state, STATES[2])
    assert (restored.step, restored.meta, restored.skipped) == (2, {"seed": 2}, [])
    assert jax.random.key_impl(restored.state.key) == "rbg"


def test_named_step_is_the_one_restored(folder):
    assert_same(restore(folder, step=1).state, STATES[1])


def test_empty_folder_restores_none_and_a_missing_step_is_an_error(tmp_path, folder):
    assert restore(tmp_path / "new") is None
    with pytest.raises(CheckpointError, match=r"step 7 .*\[1, 2\]"):
        restore(folder, step=7)


def test_restored_state_compiles_no_second_time(folder):
    traces = []

    @jax.jit
    def train_step(state):
        traces.append(state)
        return state._replace(
            step=state.step + 1, params=jax.tree.map(lambda x: x * 2, state.params)
        )

    train_step(STATES[1])
    train_step(restore(folder).state)
    with Checkpointer(folder) as checkpointer:
        train_step(checkpointer.restore(STATES[1]).state)
    assert len(traces) == 1


def test_weakly_typed_leaves_come_back_weakly_typed(tmp_path):
    state = {"a": jnp.array(2.5), "b": jnp.full([3], 7), "c": jnp.ones([3])}
    assert state["a"].weak_type
    assert state["b"].weak_type
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, meta={})
        assert_same(checkpointer.restore(jax.eval_shape(lambda: state)).state, state)
        assert_same(checkpointer.restore(state).state, state)


def test_donating_the_state_right_after_save_does_not_change_what_is_saved(tmp_path):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {"w": jnp.arange(100_000, dtype=jnp.float32)}
    expected = digest(state)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, meta={})
        for _ in range(10):
            state = step(state)
        assert digest(checkpointer.restore(state).state) == expected


def data_mesh(n_devices):
    return jax.make_mesh(
        (n_devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n_devices]
    )


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (8, 2)])
def test_state_moves_to_another_number_of_devices(tmp_path, before, after):
    specs = {"queue": PartitionSpec("data"), "w": PartitionSpec(), "key": PartitionSpec()}

    def shardings(n_devices):
        return {name: NamedSharding(data_mesh(n_devices), spec) for name, spec in specs.items()}

    state = {"queue": jnp.arange(16.0).reshape(8, 2), "w": jnp.ones([3]), "key": jax.random.key(1)}
    state = jax.device_put(state, shardings(before))
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings(after)
    )
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, meta={})
        restored = checkpointer.restore(abstract).state
    assert_same(restored, state)
    assert jax.tree.map(lambda x: x.sharding, restored) == shardings(after)


def test_latest_two_and_the_best_are_kept(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: None, 4: 0.3, 5: 0.9, 6: 0.2, 7: 0.4}
    with Checkpointer(tmp_path, keep=2, best_metric="knn") as checkpointer:
        for step, score in scores.items():
            metrics = {} if score is None else {"knn": jnp.float32(score), "loss": 1.0}
            checkpointer.save(step, {"w": jnp.ones(2)}, meta={}, metrics=metrics)
        assert checkpointer.wait() == 7
        assert (checkpointer.steps(), checkpointer.best_step()) == ([5, 6, 7], 5)
    with Checkpointer(tmp_path, best_metric="knn") as checkpointer:
        assert checkpointer.best_step() == 5
        checkpointer.save(8, {"w": jnp.ones(2)}, meta={})
        checkpointer.wait()
        assert (checkpointer.steps(), checkpointer.best_step()) == ([5, 7, 8], 5)
    with Checkpointer(tmp_path, best_metric="knn", best_mode="min") as checkpointer:
        assert checkpointer.best_step() == 7


def test_best_is_none_without_a_metric(folder):
    with Checkpointer(folder, best_metric="knn") as checkpointer:
        assert checkpointer.best_step() is None


def test_steps_are_due_at_multiples_and_never_without_a_period(tmp_path):
    with Checkpointer(tmp_path, every_steps=3) as checkpointer:
        assert [step for step in range(1, 10) if checkpointer.due(step)] == [3, 6, 9]
    with Checkpointer(tmp_path) as checkpointer:
        assert not any(checkpointer.due(step) for step in range(1, 10))


@pytest.mark.parametrize("settings", [{"keep": 0}, {"every_steps": 0}, {"best_mode": "most"}])
def test_settings_out_of_range_are_refused(tmp_path, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        Checkpointer(tmp_path, **settings)


def data_files(step_folder):
    """The files that hold array data, the largest first."""
    files = [f for f in step_folder.glob("state/**/d/*") if f.is_file()]
    return sorted(files, key=lambda f: f.stat().st_size, reverse=True)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def garble(file):
    file.write_bytes(bytes(range(256)))


FAULTS = [
    (fault, name)
    for fault in (cut, empty, remove, garble)
    for name in ("data", "state/manifest.ocdbt", "state/_METADATA", "manifest/metadata")
] + [(remove, name) for name in ("state", "state/ocdbt.process_0", "manifest")]


@pytest.mark.parametrize(("fault", "name"), FAULTS)
def test_damaged_step_is_skipped_for_the_newest_good_one_and_stays(folder, fault, name):
    fault(data_files(folder / "2")[0] if name == "data" else folder / "2" / name)
    restored = restore(folder)
    assert_same(restored.state, STATES[1])
    assert restored.step == 1
    (reason,) = restored.skipped
    assert reason.startswith("step 2: ")
    assert len(reason) < 300
    assert "\n" not in reason
    assert (folder / "2").is_dir()


def test_one_flipped_bit_in_any_file_never_gives_wrong_values(folder):
    for file in [f for f in (folder / "2").rglob("*") if f.is_file()]:
        data = file.read_bytes()
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
        restored = restore(folder)
        assert_same(restored.state, STATES[restored.step])
        file.write_bytes(data)
    assert restore(folder).step == 2


def test_changed_manifest_is_a_damaged_step_and_not_another_architecture(folder):
    file = folder / "2" / "manifest" / "metadata"
    file.write_text(file.read_text().replace("[64, 33]", "[64, 35]"))
    restored = restore(folder)
    assert restored.step == 1
    assert "checksum" in restored.skipped[0]


@pytest.mark.parametrize("kwargs", [{"strict": True}, {"step": 2}])
def test_strict_and_named_restores_raise_rather_than_fall_back(folder, kwargs):
    empty(data_files(folder / "2")[0])
    with pytest.raises(CheckpointError, match="step 2: ") as caught:
        restore(folder, **kwargs)
    assert len(str(caught.value).splitlines()) <= 3


def test_damaged_step_is_set_aside_when_its_number_is_saved_again(folder):
    (folder / "bad-2").mkdir()
    empty(data_files(folder / "2")[0])
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.restore(ABSTRACT).step == 1
        assert (folder / "2").is_dir()  # reading changes nothing
        assert checkpointer.steps() == [1]
        checkpointer.save(2, STATES[2], meta={})
        assert checkpointer.wait() == 2
        assert_same(checkpointer.restore(ABSTRACT).state, STATES[2])
    assert {f.name for f in folder.iterdir()} == {"1", "2", "bad-2", "bad-2-2"}


def test_uncommitted_remains_are_ignored_and_cleaned_by_the_first_save(folder):
    shutil.copytree(folder / "2", folder / "3")
    (folder / "3" / "commit_success.txt").unlink()
    (folder / "notes").mkdir()
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.restore(ABSTRACT).step == 2
        assert (folder / "3").is_dir()
        checkpointer.save(4, STATES[3], meta={})
        assert checkpointer.wait() == 4
    assert {f.name for f in folder.iterdir()} == {"2", "4", "notes"}


CHANGES = {
    "params/w": (r"params/w is float32\[64, 33\] .* float32\[64, 34\]", jnp.zeros([64, 34])),
    "params/b": (r"params/b is bfloat16\[5\] .* float32\[5\]", jnp.zeros([5])),
    "params/new": (r"params/new is absent .* float32\[\] in the model", jnp.zeros([])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_architecture_raises_and_names_leaf_and_both_shapes(folder, name):
    message, leaf = CHANGES[name]
    params = ABSTRACT.params | {name.removeprefix("params/"): leaf}
    with Checkpointer(folder) as checkpointer:
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpointer.restore(ABSTRACT._replace(params=params))
    assert len(str(caught.value).splitlines()) <= 3


def test_another_kind_of_key_is_another_architecture(folder):
    with pytest.raises(CheckpointError, match=r"key is key<rbg>\[\] .* key<fry>\[\]"):
        with Checkpointer(folder) as checkpointer:
            checkpointer.restore(ABSTRACT._replace(key=jax.random.key(0)))


def test_saving_the_newest_step_again_does_nothing_for_the_same_bits_only(folder):
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(2, STATES[2], meta={})
        assert checkpointer.wait() == 2
        with pytest.raises(CheckpointError, match="Step 2 is not after step 2"):
            checkpointer.save(2, STATES[3], meta={})
        with pytest.raises(CheckpointError, match="Step 1 is not after step 2"):
            checkpointer.save(1, STATES[1], meta={})
        assert_same(checkpointer.restore(ABSTRACT).state, STATES[2])


def test_damaged_newest_step_is_not_taken_for_the_same_bits(folder):
    garble(folder / "2" / "manifest" / "metadata")
    with Checkpointer(folder, best_metric="knn") as checkpointer:
        with pytest.raises(CheckpointError, match="Step 2 is not after step 2"):
            checkpointer.save(2, STATES[2], meta={})


@pytest.mark.parametrize(
    ("leaf", "meta", "metrics", "message"),
    [
        (np.ones(2), {}, {}, "w is a ndarray"),
        (3, {}, {}, "w is a int"),
        (jnp.ones(2), {"lr": float("nan")}, {}, "JSON compliant"),
        (jnp.ones(2), {}, {"knn": jnp.nan}, "metric 'knn'"),
    ],
)
def test_what_cannot_come_back_exactly_is_refused(tmp_path, leaf, meta, metrics, message):
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(ValueError, match=message):
            checkpointer.save(1, {"w": leaf}, meta=meta, metrics=metrics)
        assert checkpointer.wait() is None


def test_leaving_the_context_completes_the_save_and_use_after_close_is_an_error(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.ones(2)}, meta={})
    assert (tmp_path / "1" / "commit_success.txt").exists()
    checkpointer.close()
    with pytest.raises(CheckpointError, match="closed"):
        checkpointer.save(2, {"w": jnp.ones(2)}, meta={})


@pytest.fixture
def small_disk():
    """No file may grow beyond 1 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("report", ["wait", "close", "save"])
def test_failure_in_the_background_is_reported_with_path_and_step(folder, small_disk, report):
    big = {"w": jax.random.normal(jax.random.key(0), [1 << 20])}
    checkpointer = Checkpointer(folder)
    checkpointer.save(3, big, meta={})
    report_with = {
        "wait": checkpointer.wait,
        "close": checkpointer.close,
        "save": partial(checkpointer.save, 4, big, meta={}),
    }
    with pytest.raises(CheckpointError, match=f"step 3 was not saved in {folder}") as caught:
        report_with[report]()
    assert len(str(caught.value).splitlines()) <= 3
    checkpointer.close()  # reports it once
    assert_same(restore(folder).state, STATES[2])
    assert restore(folder, step=1).skipped == []


def test_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="Cannot keep checkpoints"):
        Checkpointer(tmp_path / "file" / "below")


def test_orbax_is_silent_and_other_users_of_its_logger_are_not(folder, caplog, capfd):
    from absl import logging as absl_logging

    empty(data_files(folder / "2")[0])
    with caplog.at_level(logging.DEBUG):
        restore(folder)
        absl_logging.warning("mine")
    assert [r.getMessage() for r in caplog.records if r.name == "absl"] == ["mine"]
    assert "orbax" not in capfd.readouterr().err.lower()


@pytest.fixture
def unraisable(monkeypatch):
    """The exceptions in callbacks, which Python would print on stderr."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    time.sleep(0.2)  # the last of them come late


MANY = {f"layer{i}": jnp.full([64, 64], i + 1.0) for i in range(100)}
MANY["wide"] = jnp.ones([1 << 19], jnp.float32)  # no file of the small disk can hold it


def fail_to_restore_many(folder):
    with Checkpointer(folder) as checkpointer, suppress(CheckpointError):
        checkpointer.restore(MANY)


def test_many_arrays_that_cannot_be_read_print_nothing(tmp_path, unraisable, monkeypatch):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, MANY, meta={})
    empty(data_files(tmp_path / "1")[0])
    for _ in range(5):
        fail_to_restore_many(tmp_path)
    time.sleep(0.2)
    assert unraisable == []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(checkpoint, "silence_orbax", lambda: None)
    for _ in range(50):  # when this fails, Orbax waits for all, and its silencing can go
        fail_to_restore_many(tmp_path)
        if unraisable:
            break
    assert str(unraisable[0].exc_value) == "Event loop is closed"


def test_many_arrays_that_cannot_be_written_print_nothing(tmp_path, small_disk, unraisable):
    for _ in range(3):
        with pytest.raises(CheckpointError), Checkpointer(tmp_path) as checkpointer:
            checkpointer.save(1, MANY, meta={})
    time.sleep(0.2)
    assert unraisable == []


def test_other_unraisable_exceptions_are_reported(tmp_path, unraisable):
    class Broken:
        def __del__(self):
            raise RuntimeError("Event loop is closed")

    with Checkpointer(tmp_path):
        Broken()
    assert [str(args.exc_value) for args in unraisable] == ["Event loop is closed"]


CHECKPOINTS = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_orbax_alone_opens_a_step_as_the_docs_show(tmp_path):
    """In a process that cannot import the package: the current folder is elsewhere."""
    params = {"encoder": {"conv": jax.random.normal(jax.random.key(0), [3, 4])}}
    state = TrainState(jnp.int32(7), params, {"mean": jnp.ones([2])}, OPTIMIZER_OF_ALL.init(params))
    with Checkpointer(tmp_path / "runs" / "digits" / "checkpoints") as checkpointer:
        for step in (7, 12):
            checkpointer.save(step, state, meta={})
    (code,) = re.findall(r"```python\n(.*?)```", CHECKPOINTS.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    assert "contrastive_jax" not in code
    code += """
import json, sys
assert not any(name.startswith("contrastive_jax") for name in sys.modules)
conv, count = state["params"]["encoder"]["conv"], state["opt_state"][1][0]["count"]
print(json.dumps([newest, conv.tolist(), int(count), sorted(state)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    newest, conv, count, fields = json.loads(done.stdout.splitlines()[-1])
    assert (newest, count, fields) == (12, 0, sorted(TrainState._fields))
    np.testing.assert_array_equal(np.float32(conv), params["encoder"]["conv"])


def test_paths_that_orbax_would_confuse_are_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(ValueError, match="same path"):
        checkpointer.save(1, {"a.b": jnp.ones(2), "a": {"b": jnp.zeros(2)}}, meta={})


def write_first_format(folder, step, state):
    """One array of bytes, and a manifest that has the place of each leaf in it."""
    parts, leaves, start = [], {}, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        part = np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()
        entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": zlib.crc32(part)}
        entry |= {"start": start, "size": len(part)}
        entry |= {"impl": str(jax.random.key_impl(leaf))} if is_key else {}
        leaves[jax.tree_util.keystr(path, simple=True, separator="/")] = entry
        parts.append(part)
        start += len(part)
    content = {"leaves": leaves, "meta": {"seed": step}, "metrics": {"knn": 0.5}}
    text = json.dumps(content, sort_keys=True)
    sealed = {"content": content, "crc32": zlib.crc32(text.encode())}
    atomicity = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
    options = ocp.CheckpointManagerOptions(atomicity_options=atomicity)
    data = {"bytes": np.frombuffer(b"".join(parts), np.uint8)}
    args = ocp.args.Composite(state=ocp.args.StandardSave(data), manifest=ocp.args.JsonSave(sealed))
    with ocp.CheckpointManager(folder, options=options) as manager:
        manager.save(step, args=args)


def test_checkpoints_of_the_first_format_are_restored_and_continued(tmp_path):
    write_first_format(tmp_path, 1, STATES[1])
    with Checkpointer(tmp_path, best_metric="knn") as checkpointer:
        restored = checkpointer.restore(ABSTRACT)
        assert_same(restored.state, STATES[1])
        assert (restored.step, restored.meta, restored.skipped) == (1, {"seed": 1}, [])
        checkpointer.save(2, STATES[2], meta={})
        assert_same(checkpointer.restore(ABSTRACT).state, STATES[2])
        assert checkpointer.best_step() == 1


@pytest.mark.parametrize("position", [0.3, 0.5, 0.7])
def test_one_flipped_bit_in_the_first_format_is_detected(tmp_path, position):
    write_first_format(tmp_path, 1, STATES[1])
    file = data_files(tmp_path / "1")[0]
    data = bytearray(file.read_bytes())
    data[int(position * len(data))] ^= 4
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="step 1: "):
        restore(tmp_path)


def test_digest_differs_for_other_values_dtypes_shapes_and_paths():
    states = [
        {"a": jnp.zeros([4], jnp.float32)},
        {"b": jnp.zeros([4], jnp.float32)},
        {"a": jnp.zeros([4], jnp.int32)},
        {"a": jnp.zeros([2, 2], jnp.float32)},
        {"a": -jnp.zeros([4], jnp.float32)},
        {"a": jax.random.key(0)},
        {"a": jax.random.key(1)},
    ]
    assert len({digest(state) for state in states}) == len(states)
    assert digest(states[0]) == digest({"a": jnp.zeros([4])})


def test_manifest_is_json_that_names_every_leaf(folder):
    manifest = json.loads((folder / "2" / "manifest" / "metadata").read_text())
    assert manifest["content"]["leaves"]["params/w"]["shape"] == [64, 33]
