"""The loss of a dual encoder equals a loop over pairs; on any devices, in tiles, in chunks."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import parallel
from contrastive_jax.encoders import heads, text
from contrastive_jax.objectives import dual, mined
from contrastive_jax.objectives import temperature as scale
from experiments.run import text_losses as command
from tests.devices import COUNTS

B, K, T, L = 8, 2, 17, 5
IDS = np.array([0, 1, 2, 3, 4, 5, 6, 0], np.int32)
MASK = np.arange(B * K).reshape(B, K) % 3 > 0
NEGATIVE_IDS = np.where(
    np.arange(B * K).reshape(B, K) == 4, 1, 100 + np.arange(B * K).reshape(B, K)
)
START = 0.2


def make(
    kind,
    devices=1,
    chunk_size=None,
    towers="shared",
    matryoshka=None,
    dropout=0.0,
    output_dim=5,
    longest=(),
    **options,
):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    loss = command.pair_loss(kind, matryoshka, **options)
    return dual.make(
        text.make("bag", T, dim=6, word_dropout=dropout),
        heads.make(kind="linear", output_dim=output_dim, batch_norm=False),
        parallel.shard_loss(loss, mesh, n_sharded=1),
        towers=towers,
        temperature=scale.make("learned", START) if _is_tempered(kind) else None,
        bias=-3.0 if kind == "siglip" else None,
        chunk_size=chunk_size,
        longest=longest,
    )


def _is_tempered(kind):
    return "temperature" in inspect.signature(command.KINDS[kind]).parameters


def batch(negatives=False):
    rng = np.random.default_rng(0)

    def side(*shape):
        length = rng.integers(1, L + 1, shape).astype(np.int32)
        return rng.integers(1, T, (*shape, L)).astype(np.uint16), length

    arrays = {"id": IDS, "index": np.arange(B, dtype=np.int32)}
    for name, shape in {"query": (B,), "document": (B,), "negatives": (B, K)}.items():
        if name != "negatives" or negatives:
            arrays[name], arrays[f"{name}_length"] = side(*shape)
    if negatives:
        arrays |= {"negatives_mask": MASK, "negatives_id": NEGATIVE_IDS.astype(np.int32)}
    return jax.tree.map(jnp.asarray, arrays)


def value_and_gradient(objective, given):
    params, state = objective.init(jax.random.key(0), given)
    run = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    (_, out), gradient = run(params, state, given, jax.random.key(1), jnp.int32(0))
    return params, out.metrics, gradient


def vectors(objective, params, given):
    """Unit embeddings of queries, documents and negatives, by the evaluation mode."""
    found = [np.float64(objective.embed[s](params, {}, given)["embedding"]) for s in dual.SIDES]
    if "negatives" in given:
        rows = {
            "document": given["negatives"].reshape(B * K, L),
            "document_length": given["negatives_length"].reshape(-1),
        }
        embedded = objective.embed["document"](params, {}, rows)["embedding"]
        found.append(np.float64(embedded).reshape(B, K, -1))
    return found


def slow(kind, q, d, n=None):
    """Per query, from the definition; explicit negatives only of `info_nce` and `per_query`."""
    losses = []
    for i in range(B):
        s = lambda a, b: a @ b / START  # noqa: E731
        others = [j for j in range(B) if j != i and IDS[j] != IDS[i]]
        own = s(q[i], d[i])
        given = []
        for row in range(B) if n is not None else ():
            if kind == "per_query_info_nce" and row != i:
                continue
            given += [
                s(q[i], n[row, k])
                for k in range(K)
                if MASK[row, k] and NEGATIVE_IDS[row, k] != IDS[i]
            ]
        forward = [s(q[i], d[j]) for j in others]
        backward = [s(q[j], d[i]) for j in others]
        z = lambda *parts: np.log(sum(np.exp(x) for part in parts for x in part))  # noqa: E731
        if kind == "info_nce":
            losses.append(z([own], forward, given) - own)
        elif kind == "per_query_info_nce":
            losses.append(z([own], given) - own)
        elif kind == "symmetric_info_nce":
            losses.append((z([own], forward) + z([own], backward)) / 2 - own)
        elif kind == "joint_info_nce":
            inner = [s(q[i], q[j]) for j in others], [s(d[i], d[j]) for j in others]
            losses.append(z([own, own], forward, backward, *inner) - own)
        elif kind == "multi_positive_info_nce":
            every = [s(q[i], d[j]) for j in range(B)]
            right = [every[j] for j in range(B) if IDS[j] == IDS[i]]
            losses.append(z(every) - np.mean(right))
        else:
            terms = [np.log1p(np.exp(-own + 3.0))]
            losses.append(sum(terms + [np.log1p(np.exp(x - 3.0)) for x in forward]))
    return np.mean(losses)


def close(found, wanted):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6), found, wanted)


IN_BATCH = ("info_nce", "symmetric_info_nce", "joint_info_nce", "multi_positive_info_nce", "siglip")
CASES = [
    *((kind, False) for kind in IN_BATCH),
    ("info_nce", True),
    ("per_query_info_nce", True),
]


@pytest.mark.parametrize(("kind", "negatives"), CASES)
def test_the_loss_is_that_of_all_pairs_on_any_devices_in_tiles_and_in_chunks(kind, negatives):
    given = batch(negatives)
    objective = make(kind)
    params, metrics, gradient = value_and_gradient(objective, given)
    want = slow(kind, *vectors(objective, params, given))
    np.testing.assert_allclose(metrics["loss"], want, rtol=2e-5)
    assert set(gradient) == {"encoder", "head", "loss"}
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    tiles = {} if kind == "per_query_info_nce" else {"block_size": 1}
    for other in (make(kind, devices=8, **tiles), make(kind, devices=2, chunk_size=4)):
        _, again, same_gradient = value_and_gradient(other, given)
        np.testing.assert_allclose(again["loss"], want, rtol=2e-5)
        close(same_gradient, gradient)


@pytest.mark.parametrize("kind", sorted({*command.KINDS} - {*IN_BATCH, "per_query_info_nce"}))
def test_losses_of_scores_and_guides_are_the_same_on_two_devices_in_chunks(kind):
    rng, negatives = np.random.default_rng(1), kind not in command.GRADED
    given = batch(negatives) | {
        "score": jnp.asarray(rng.random(B, np.float32)),
        "scores": jnp.asarray(rng.random((B, 1 + K), np.float32)),
        "query_guide": jnp.asarray(rng.normal(size=(B, 3)).astype(np.float32)),
        "document_guide": jnp.asarray(rng.normal(size=(B, 3)).astype(np.float32)),
        "negatives_guide": jnp.asarray(rng.normal(size=(B, K, 3)).astype(np.float32)),
    }
    of = functools.partial(make, kind, output_dim=6)
    _, metrics, gradient = value_and_gradient(of(), given)
    assert np.abs(gradient["encoder"]["weight"]).max() > 0
    _, again, same_gradient = value_and_gradient(of(devices=2, chunk_size=4), given)
    np.testing.assert_allclose(again["loss"], metrics["loss"], rtol=2e-5)
    close(same_gradient, gradient)


@pytest.mark.parametrize("longest", [(2, L), (2, 2, 4, L)])
def test_documents_in_parts_by_length_are_those_padded_alike(longest):
    given = batch(negatives=True)
    most_B = np.tile(longest, B // len(longest)).astype(np.int32)
    given["document_length"] = jnp.minimum(given["document_length"], most_B)
    _, metrics, gradient = value_and_gradient(make("info_nce"), given)
    sizes = [(1, None), (2, None), (2 if len(longest) == 2 else 1, 4)]
    for devices, chunk_size in sizes:
        other = make("info_nce", devices, chunk_size, longest=longest)
        _, again, same_gradient = value_and_gradient(other, given)
        np.testing.assert_allclose(again["loss"], metrics["loss"], rtol=2e-5)
        close(same_gradient, gradient)


def test_dropout_is_the_same_on_any_devices_and_repeated_by_chunks():
    given = batch()
    plain, sharded = (make("info_nce", devices=n, dropout=0.4) for n in (1, 8))
    _, metrics, gradient = value_and_gradient(plain, given)
    _, same, same_gradient = value_and_gradient(sharded, given)
    np.testing.assert_allclose(same["loss"], metrics["loss"], rtol=1e-5)
    close(same_gradient, gradient)
    _, dry, _ = value_and_gradient(make("info_nce"), given)
    assert abs(dry["loss"] - metrics["loss"]) > 1e-3
    chunked = [make("info_nce", devices=n, chunk_size=4, dropout=0.4) for n in (1, 4)]
    (_, first, one), (_, second, two) = (value_and_gradient(x, given) for x in chunked)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-5)
    close(two, one)


def test_the_gradient_in_chunks_is_that_of_its_own_dropout():
    given, objective = batch(), make("info_nce", chunk_size=4, dropout=0.1)
    params, _, gradient = value_and_gradient(objective, given)
    value = jax.jit(lambda p: objective.loss(p, {}, given, jax.random.key(1), jnp.int32(0))[0])
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    ends = [jax.tree.map(lambda x, d, e=e: x + e * d, params, direction) for e in (2e-3, -2e-3)]
    along = (value(ends[0]) - value(ends[1])) / 4e-3
    leaves = map(jax.tree.leaves, (gradient, direction))
    exact = sum(jnp.vdot(g, d) for g, d in zip(*leaves, strict=True))
    np.testing.assert_allclose(along, exact, rtol=2e-2)


SMALL = {"layers": 1, "dim": 8, "heads": 2, "hidden_dim": 8, "positions": L}
SMALL |= {"dropout": 0.0, "attention_dropout": 0.0}  # chunks have keys of their own


@functools.cache
def transformer(devices, chunk_size=None, table=False):
    """Value and gradient of masks, ids, negatives and a learned temperature, with 2 B pairs."""
    mesh = parallel.make_mesh(jax.devices()[:devices])
    loss = command.pair_loss("info_nce", None)
    objective = dual.make(
        text.make("bert", T, **SMALL),
        heads.make(kind="none", batch_norm=False),
        parallel.shard_loss(loss, mesh, n_sharded=1),
        temperature=scale.make("learned", START),
        chunk_size=chunk_size,
    )
    given = jax.tree.map(lambda x: jnp.concatenate([x, x[::-1]]), batch(negatives=True))
    given |= {"index": jnp.arange(2 * B, dtype=jnp.int32)}
    if table:
        place_NK = np.arange(2 * B * K).reshape(2 * B, K)
        objective = mined.from_table(objective, np.where(given["negatives_mask"], place_NK, -1))
        names = {"negatives": "corpus", "negatives_length": "corpus_length"}
        for old, new in (names | {"negatives_id": "corpus_id"}).items():
            given[new] = given.pop(old).reshape(2 * B * K, *([L] if new == "corpus" else []))
        del given["negatives_mask"]
    params, state = objective.init(jax.random.key(0), given)
    placed = parallel.put_batch({k: v for k, v in given.items() if "corpus" not in k}, mesh)
    whole = {k: v for k, v in given.items() if "corpus" in k}
    placed |= parallel.put_replicated(whole, mesh)
    params, state = (parallel.put_replicated(x, mesh) for x in (params, state))
    run = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    (value, _), gradient = run(params, state, placed, jax.random.key(1), jnp.int32(0))
    return value, jax.device_get(gradient)


@pytest.mark.parametrize(("chunk_size", "table"), [(None, False), (8, False), (8, True)])
@pytest.mark.parametrize("devices", COUNTS)
def test_the_encoders_gradient_is_the_same_on_1_2_4_and_8_devices(devices, chunk_size, table):
    value, gradient = transformer(1)
    assert set(gradient) == {"encoder", "head", "loss"}
    assert len(jax.tree.leaves(gradient["encoder"])) > 10
    same, same_gradient = transformer(devices, chunk_size, table)
    np.testing.assert_allclose(same, value, rtol=2e-5)
    close(same_gradient, gradient)


def test_two_towers_and_prefixes():
    given = batch()
    objective = make("info_nce", towers="two", matryoshka=(2, 5))
    params, metrics, gradient = value_and_gradient(objective, given)
    assert set(params) == {"encoder", "head", "document_encoder", "document_head", "loss"}
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    heads_only = make("info_nce", towers="two")
    q, d = (np.float64(heads_only.embed[s](params, {}, given)["embedding"]) for s in dual.SIDES)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    want = slow("info_nce", q, d) + slow("info_nce", unit(q[:, :2]), unit(d[:, :2]))
    np.testing.assert_allclose(metrics["loss"], want, rtol=2e-5)


def test_what_a_loss_does_not_read_is_refused():
    with pytest.raises(ValueError, match="reads no negatives"):
        command.check_negatives("siglip", 2)
    with pytest.raises(ValueError, match="contrasts with negatives alone"):
        command.check_negatives("per_query_info_nce", 0)
    with pytest.raises(ValueError, match=r"dual\.towers is 'three'"):
        make("info_nce", towers="three")
    normed = dual.make(text.make("bag", T), heads.make(batch_norm=True), lambda *x: 0.0)
    with pytest.raises(ValueError, match=r"head\.batch_norm=False"):
        normed.init(jax.random.key(0), batch())
