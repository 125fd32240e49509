"""A bag of words: the weighted mean of its definition, blind to order and to what is padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.encoders import bag, text

TOKENS = np.array([[3, 5, 3, 2, 0, 0], [7, 1, 4, 6, 2, 9]])
LENGTH = np.array([4, 6])


def embedded(encoder, tokens, length, **training):
    variables = encoder.init(jax.random.key(0), TOKENS, LENGTH, train=False)
    return variables["params"], encoder.apply(
        variables, jnp.array(tokens), jnp.array(length), **training
    )


@pytest.mark.parametrize("repeats", [0.0, 0.5, 1.0])
def test_it_is_the_weighted_sum_of_its_definition(repeats):
    idf = np.arange(10, dtype=np.float32)
    encoder = bag.make(10, dim=4, repeats=repeats, idf_T=idf)
    params, found = embedded(encoder, TOKENS, LENGTH, train=False)
    np.testing.assert_array_equal(params["weight"], idf)
    for row, tokens, length in zip(found, TOKENS, LENGTH, strict=True):
        words = tokens[:length].tolist()
        share = np.array([float(words.count(t)) ** (repeats - 1) for t in words])
        vectors = np.asarray(params["embedding"]["embedding"])[words]
        want = (share * idf[words]) @ vectors / np.sqrt(np.sum(share**2))
        np.testing.assert_allclose(row, want, rtol=1e-5, atol=1e-6)


def test_order_and_padding_do_not_count():
    encoder = bag.make(10, dim=4)
    _, found = embedded(encoder, TOKENS, LENGTH, train=False)
    changed = np.array([[2, 3, 3, 5, 8, 8], [9, 2, 6, 4, 1, 7]])
    _, again = embedded(encoder, changed, LENGTH, train=False)
    np.testing.assert_allclose(found, again, rtol=1e-5, atol=1e-6)


def test_a_word_is_dropped_with_all_its_occurrences_as_often_as_asked():
    tokens = jnp.array(np.tile([4, 7, 4, 9], (4000, 1)))
    kept = np.asarray(bag._kept(jax.random.key(0), tokens, 0.3))
    np.testing.assert_array_equal(kept[:, 0], kept[:, 2])
    mean = kept.mean(axis=0)
    np.testing.assert_allclose(mean, 0.7, atol=0.03)  # 4 standard errors
    together = np.mean(kept[:, 0] & kept[:, 1])
    np.testing.assert_allclose(together, 0.49, atol=0.035)
    encoder = bag.make(10, dim=4, word_dropout=0.9)
    rngs = {"dropout": jax.random.key(1)}
    _, found = embedded(encoder, TOKENS, LENGTH, train=True, rngs=rngs)
    assert np.isfinite(found).all()  # also of a text whose words are all dropped


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"word_dropout": 1.0}, {"repeats": 1.5}, {"idf_T": np.ones(3)}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        bag.make(10, **wrong)


def test_a_text_encoder_has_a_known_name():
    with pytest.raises(ValueError, match=r"encoder\.name is 'bog'"):
        text.make("bog", 10)
