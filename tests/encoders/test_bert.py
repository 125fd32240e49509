"""BERT: the paper's equations in numpy, padding, pooling, dropout, gradients on any devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import encoders, losses, parallel
from contrastive_jax.encoders import bert, bert_names

TINY = {"n_tokens": 30, "dim": 16, "layers": 2, "heads": 4, "hidden_dim": 24, "positions": 14}
ONE_LAYER = {**TINY, "layers": 1}
KINDS = {
    "BERT": {},
    "RoBERTa": {"position_offset": 2, "token_types": 1, "epsilon": 1e-5},
    "DistilBERT": {"token_types": 0, "activation": "gelu_tanh"},
    "ReLU": {"activation": "relu"},
}
LENGTHS = [5, 1, 12, 9]


def texts(key=0, width=12):
    tokens = jax.random.randint(jax.random.key(key), (len(LENGTHS), width), 0, 30)
    return tokens, jnp.array(LENGTHS)


def random_params(encoder, seed=1):
    """Every parameter away from its first value, so that none can be mixed up."""
    init = lambda key, *text: encoder.init(key, *text, train=False)["params"]  # noqa: E731
    shapes, rng = jax.eval_shape(init, jax.random.key(0), *texts()), np.random.default_rng(seed)

    def sample(path, x):
        return np.float32((path[-1].key == "scale") + 0.3 * rng.normal(size=x.shape))

    return jax.tree_util.tree_map_with_path(sample, shapes)


def embed(encoder, params, *text, train=False, key=3):
    call = lambda p, *text: encoder.apply(  # noqa: E731
        {"params": p}, *text, train=train, rngs={"dropout": jax.random.key(key)}
    )
    return jax.jit(call)(params, *text)


def by_token(encoder, *text):
    return encoder.embed_tokens(*text, train=False)


def oracle(tensors, tokens, settings):
    """Token embeddings [L,dim] of one text without padding, in float64, head by head."""
    t = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    activation = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": lambda x: np.maximum(x, 0)}
    activation = activation[settings.get("activation", "gelu")]
    epsilon, first = settings.get("epsilon", 1e-12), settings.get("position_offset", 0)

    def norm(x, name):
        centered = x - x.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centered**2).mean(axis=1, keepdims=True) + epsilon)
        return t[f"{name}.weight"] * centered / deviation + t[f"{name}.bias"]

    def affine(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    x = t["embeddings.word_embeddings.weight"][tokens]
    x = x + t["embeddings.position_embeddings.weight"][first : first + len(tokens)]
    if settings.get("token_types", 2):
        x = x + t["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    names = bert_names._BERT if settings.get("token_types", 2) else bert_names._DISTILBERT
    for i in range(settings["layers"]):
        at = {key: f"{names['layer']}{i}.{name}" for key, name in names.items()}
        q, k, v = (affine(x, at[key]) for key in ("query", "key", "value"))
        heads, size = [], settings["dim"] // settings["heads"]
        for head in range(settings["heads"]):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, part])
        x = norm(x + affine(np.concatenate(heads, 1), at["attention_output"]), at["attention_norm"])
        hidden = activation(affine(x, at["mlp_input"]))
        x = norm(x + affine(hidden, at["mlp_output"]), at["mlp_norm"])
    return x


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("kind", KINDS)
def test_token_embeddings_are_those_of_the_equations(kind):
    settings = {**TINY, **KINDS[kind]}
    encoder = bert.make(**settings)
    params, (tokens, length) = random_params(encoder), texts()
    found = jax.jit(lambda p: encoder.apply({"params": p}, tokens, length, method=by_token))(params)
    tensors = bert_names.to_tensors(params["transformer"])
    for row, n in enumerate(LENGTHS):
        expected = oracle(tensors, np.asarray(tokens[row, :n]), settings)
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(found[row, :n], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", bert.POOLS)
def test_pooling_is_over_the_text_alone(pooling):
    x = jax.random.normal(jax.random.key(0), (4, 12, 3))
    rows = [np.asarray(x[row, :n]) for row, n in enumerate(LENGTHS)]
    expected = {"mean": [r.mean(0) for r in rows], "cls": [r[0] for r in rows]}
    expected |= {"last": [r[-1] for r in rows], "max": [r.max(0) for r in rows]}
    found = bert.pool(x, jnp.array(LENGTHS), pooling)
    np.testing.assert_allclose(found, np.stack(expected[pooling]), atol=1e-6)


@pytest.mark.parametrize("pooling", bert.POOLS)
def test_padding_changes_nothing(pooling):
    encoder = bert.make(**ONE_LAYER, pooling=pooling)
    params, (tokens, length) = random_params(encoder), texts()
    other = jnp.where(jnp.arange(12)[None] < length[:, None], tokens, 7)  # what padding holds
    wider = jnp.pad(other, [(0, 0), (0, 2)], constant_values=3)
    first, second, third = (embed(encoder, params, t, length) for t in (tokens, other, wider))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, third, atol=1e-5)


def test_dense_and_normalization_stand_behind_the_pooling():
    plain, behind = (
        bert.make(**TINY, **more) for more in ({}, {"dense_dim": 5, "normalize": True})
    )
    params, text = random_params(behind), texts()
    z = embed(plain, {"transformer": params["transformer"]}, *text)
    expected = np.tanh(z @ params["dense"]["kernel"] + params["dense"]["bias"][None])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(behind, params, *text), expected, atol=1e-5)


def test_bfloat16_is_near_and_its_parameters_are_float32():
    exact, rounded = (bert.make(**TINY, dtype=dtype) for dtype in ("float32", "bfloat16"))
    params, text = random_params(exact), texts()
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    near, far = (embed(encoder, params, *text) for encoder in (rounded, exact))
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, far, atol=0.1)
    assert not np.array_equal(near, far)


def test_dropout_is_of_training_alone_and_a_function_of_the_key():
    encoder, text = bert.make(**ONE_LAYER), texts()
    params = random_params(encoder)
    first, again, other = (embed(encoder, params, *text, train=True, key=k) for k in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    still = bert.make(**ONE_LAYER, dropout=0.0, attention_dropout=0.0)
    np.testing.assert_array_equal(
        embed(still, params, *text, train=True), embed(encoder, params, *text)
    )


def loss_fn(encoder, mesh):
    pair_loss = parallel.shard_loss(losses.info_nce, mesh)

    def loss(params, tokens, length):
        z = encoder.apply({"params": params}, tokens, length, train=False)
        return pair_loss(z, z[::-1]).mean()

    return jax.jit(jax.value_and_grad(loss))


def test_gradients_are_finite_and_equal_on_any_number_of_devices():
    encoder = bert.make(**ONE_LAYER, dense_dim=5, normalize=True)
    params = random_params(encoder)
    tokens = jax.random.randint(jax.random.key(0), (16, 12), 0, 30)
    text = {"tokens": tokens, "length": jnp.tile(jnp.array(LENGTHS), 4)}
    found = {}
    for n in (1, 4):
        mesh = parallel.make_mesh(jax.devices()[:n])
        placed = parallel.put_batch(text, mesh)
        found[n] = loss_fn(encoder, mesh)(parallel.put_replicated(params, mesh), **placed)
    for one, many in zip(*map(jax.tree.leaves, found.values()), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, many, atol=1e-5)
    sizes = jax.tree.map(lambda g: float(jnp.abs(g).max()), found[1][1])
    trained = sizes["transformer"]
    assert min(jax.tree.leaves(trained["layer0"]["mlp_input"])) > 1e-4
    assert trained["word_embedding"]["embedding"] > 1e-4


def test_gradients_of_the_rows_equal_finite_differences():
    encoder = bert.make(**ONE_LAYER)
    params, text = random_params(encoder), texts()
    loss = jax.jit(lambda p: jnp.sin(encoder.apply({"params": p}, *text, train=False)).sum())
    gradient = jax.jit(jax.grad(loss))(params)
    direction = random_params(encoder, seed=5)
    along = sum(
        float((g * d).sum())
        for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    )
    step = 3e-4
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, s=s: p + s * step * d, params, direction)) for s in (1, -1)
    )
    assert along == pytest.approx(float(ahead - behind) / (2 * step), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 18}, "dim is 18; give a multiple of heads, 4"),
        ({"pooling": "first"}, "pooling is 'first'; give one of"),
        ({"activation": "swish"}, "activation is 'swish'; give one of"),
        ({"dropout": 1.0}, "dropout is 1.0; give a probability"),
        ({"layers": 0}, "layers is 0; give at least 1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bert.make(**{**TINY, **settings})


def test_texts_longer_than_the_table_of_positions_are_refused():
    encoder = bert.make(**TINY, position_offset=2)
    with pytest.raises(ValueError, match="texts have 13 tokens and the encoder has 12 places"):
        encoder.init(jax.random.key(0), jnp.ones((1, 13), int), jnp.array([13]), train=False)


def test_its_tensors_have_the_names_that_hugging_face_gives_them():
    names = set(bert_names.to_tensors(random_params(bert.make(**TINY))["transformer"]))
    assert len(names) == 5 + 2 * 16
    assert "encoder.layer.1.attention.output.LayerNorm.weight" in names
    assert "embeddings.token_type_embeddings.weight" in names


def test_images_do_not_go_through_a_text_encoder():
    with pytest.raises(ValueError, match="encoder name is 'bert'"):
        encoders.make("bert")
