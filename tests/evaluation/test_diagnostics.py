"""Diagnostics equal slow loops and closed forms, and stay finite where embeddings degenerate."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.evaluation import diagnostics

summary = jax.jit(diagnostics.summary)


@pytest.fixture(scope="module")
def z_BVD() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)


def unit(z: np.ndarray) -> np.ndarray:
    return z.astype(np.float64) / np.linalg.norm(z, axis=-1, keepdims=True)


def cross_polytope(dim: int) -> jax.Array:
    return jnp.concatenate([jnp.eye(dim), -jnp.eye(dim)])


def slow_diagnostics(z_BVD: np.ndarray, temperature: float) -> dict[str, float]:
    z = {(b, v): row for b, views in enumerate(unit(z_BVD)) for v, row in enumerate(views)}
    hits, entropy, aligned, potential = [], [], [], []
    for i, row in z.items():
        b = i[0]
        others = [j for j in z if j != i]
        similarity = np.array([row @ z[j] for j in others])
        hits.append(others[similarity.argmax()][0] == b)
        p = np.exp(similarity / temperature)
        p /= p.sum()
        entropy.append(-(p * np.log(p)).sum())
        for j in others:
            distance = ((row - z[j]) ** 2).sum()
            if j[0] == b:
                aligned.append(distance)
            else:
                potential.append(math.exp(-2 * distance))
    return {
        "contrastive_accuracy": np.mean(hits),
        "contrastive_entropy": np.mean(entropy),
        "alignment": np.mean(aligned),
        "uniformity": math.log(np.mean(potential)),
    }


def test_summary_equals_the_slow_loops(z_BVD):
    z_BVD = z_BVD + 1.5 * z_BVD[:, :1]  # views that resemble one another, so accuracy is not 0
    fast = summary(z_BVD, 0.3)
    slow = slow_diagnostics(z_BVD, 0.3)
    assert 0.1 < slow["contrastive_accuracy"] < 1.0
    for name, value in slow.items():
        np.testing.assert_allclose(fast[name], value, rtol=1e-5, err_msg=name)


def test_summary_equals_each_diagnostic(z_BVD):
    fast = summary(z_BVD, 0.3)
    rows = z_BVD.reshape(-1, 5)
    alone = {
        "contrastive_accuracy": lambda z, rows: diagnostics.contrastive_accuracy(z),
        "contrastive_entropy": lambda z, rows: diagnostics.contrastive_entropy(z, 0.3),
        "alignment": lambda z, rows: diagnostics.alignment(z),
        "embedding_std": lambda z, rows: diagnostics.embedding_std(rows),
        "effective_rank": lambda z, rows: diagnostics.effective_rank(rows, order=2),
    }
    for name, function in alone.items():
        value = jax.jit(function)(z_BVD, rows)
        np.testing.assert_allclose(fast[name], value, rtol=1e-5, err_msg=name)


def test_across_modalities_only_the_other_one_is_compared():
    rng = np.random.default_rng(0)
    own_BD, noise_BVD = rng.normal(size=(12, 6)), 0.3 * rng.normal(size=(12, 2, 6))
    gap_V = np.array([20.0, -20.0])  # each modality in a cone of its own
    z_BVD = np.pad(own_BD[:, None] + noise_BVD, ((0, 0), (0, 0), (0, 1)))
    z_BVD[:, :, -1] = gap_V
    x_BD, y_BD = np.moveaxis(z_BVD / np.linalg.norm(z_BVD, axis=-1, keepdims=True), 1, 0)
    logits_BB = x_BD @ y_BD.T / 0.001
    hits = [logits.argmax(1) == np.arange(12) for logits in (logits_BB, logits_BB.T)]
    entropies = []
    for logits in (logits_BB, logits_BB.T):
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        entropies.append(-(p * np.log(p + 1e-300)).sum(1))
    together = diagnostics.summary(jnp.asarray(z_BVD), 0.001)
    across = diagnostics.summary(jnp.asarray(z_BVD), 0.001, across=True)
    assert together["contrastive_accuracy"] == 0 < np.mean(hits)
    np.testing.assert_allclose(across["contrastive_accuracy"], np.mean(hits), atol=1e-6)
    np.testing.assert_allclose(across["contrastive_entropy"], np.mean(entropies), rtol=2e-2)
    others = set(together) - {"contrastive_accuracy", "contrastive_entropy"}
    assert all(together[name] == across[name] for name in others)


def test_summary_is_float32_scalars_for_bfloat16_embeddings(z_BVD):
    measured = summary(jnp.asarray(z_BVD, jnp.bfloat16), jnp.float32(0.3))
    assert {(value.dtype, value.shape) for value in measured.values()} == {
        (jnp.dtype("float32"), ())
    }


def test_uniformity_equals_the_slow_loop_when_rows_do_not_fill_a_block():
    z = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    pairs = itertools.permutations(unit(z), 2)
    slow = math.log(np.mean([math.exp(-3.0 * ((x - y) ** 2).sum()) for x, y in pairs]))
    np.testing.assert_allclose(
        jax.jit(functools.partial(diagnostics.uniformity, t=3.0))(z), slow, rtol=1e-5
    )


def test_a_collapsed_encoder_shows_in_every_diagnostic():
    measured = summary(jnp.tile(jnp.array([0.3, -0.4, 1.1]), (6, 2, 1)), 0.1)
    np.testing.assert_allclose(measured["contrastive_entropy"], math.log(11), rtol=1e-5)
    assert measured["contrastive_accuracy"] == 0.0
    assert measured["effective_rank"] == 0.0
    for name in ("alignment", "uniformity", "embedding_std"):
        np.testing.assert_allclose(measured[name], 0.0, atol=1e-5, err_msg=name)


def test_perfect_embeddings_have_accuracy_one_and_alignment_zero():
    measured = summary(jnp.repeat(cross_polytope(4)[:, None], 2, axis=1), 0.01)
    assert measured["contrastive_accuracy"] == 1.0
    assert measured["alignment"] == 0.0
    np.testing.assert_allclose(measured["contrastive_entropy"], 0.0, atol=1e-5)
    np.testing.assert_allclose(measured["embedding_std"], 0.5, rtol=1e-6)  # 1 / sqrt(4)
    np.testing.assert_allclose(measured["effective_rank"], 4.0, rtol=1e-5)


def test_any_of_several_positives_makes_a_hit():
    z_BVD = jnp.array([[[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0], [0.1, 1.0]]])
    np.testing.assert_allclose(diagnostics.contrastive_accuracy(z_BVD), 5 / 6, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_effective_rank_counts_the_directions_that_vary(order):
    spread = jnp.concatenate([cross_polytope(3), jnp.zeros((6, 5))], axis=1)
    np.testing.assert_allclose(diagnostics.effective_rank(spread, order=order), 3.0, rtol=1e-4)


def test_effective_rank_follows_its_formulas_on_an_uneven_spectrum(z_BVD):
    rows = z_BVD.reshape(-1, 5) * np.array([4.0, 2.0, 1.0, 0.5, 0.1], np.float32)
    spectrum = np.linalg.eigvalsh(np.cov(unit(rows).T, bias=True))
    p = spectrum / spectrum.sum()
    entropic, participation = (
        diagnostics.effective_rank(jnp.asarray(rows), order=k) for k in (1, 2)
    )
    np.testing.assert_allclose(entropic, np.exp(-(p * np.log(p)).sum()), rtol=1e-4)
    np.testing.assert_allclose(participation, 1 / (p**2).sum(), rtol=1e-4)
    assert participation < entropic


def test_rankme_is_the_rank_of_an_orthonormal_set_and_ignores_scale():
    np.testing.assert_allclose(diagnostics.rankme(jnp.eye(8)[:5]), 5.0, rtol=1e-4)
    rows = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_allclose(diagnostics.rankme(rows), diagnostics.rankme(100 * rows), rtol=1e-4)


def test_zero_vectors_are_harmless(z_BVD):
    for z in (z_BVD * 0, z_BVD * (np.arange(7) > 2)[:, None, None]):
        measured = summary(z, 0.3)
        rows = jnp.asarray(z.reshape(-1, 5))
        alone = [
            diagnostics.uniformity(rows),
            diagnostics.effective_rank(rows),
            diagnostics.rankme(rows),
        ]
        assert all(np.isfinite(value) for value in [*measured.values(), *alone])


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3)])
def test_a_batch_without_pairs_of_views_is_refused(shape):
    for function in (diagnostics.contrastive_accuracy, diagnostics.alignment):
        with pytest.raises(ValueError, match="V >= 2"):
            function(jnp.zeros(shape))


def test_values_out_of_range_are_refused(z_BVD):
    with pytest.raises(ValueError, match="positive"):
        diagnostics.contrastive_entropy(z_BVD, 0.0)
    with pytest.raises(ValueError, match="order"):
        diagnostics.effective_rank(z_BVD[:, 0], order=3)
    with pytest.raises(ValueError, match="t > 0"):
        diagnostics.uniformity(z_BVD[:, 0], t=-1.0)
    with pytest.raises(ValueError, match="N >= 2"):
        diagnostics.embedding_std(z_BVD[0, 0])
    with pytest.raises(ValueError, match="B >= 2"):
        diagnostics.summary(z_BVD[:1], 0.5)


def test_the_spectrum_equals_singular_values_and_vanishes_with_the_spread():
    z = np.random.default_rng(1).normal(size=(50, 6)) * np.arange(1, 7) + 1
    centered = unit(z) - unit(z).mean(axis=0)
    variance = np.linalg.svd(centered, compute_uv=False) ** 2
    spectrum = np.asarray(diagnostics.dimension_spectrum(z.astype(np.float32)))
    np.testing.assert_allclose(spectrum, variance / variance.sum(), rtol=1e-4)
    np.testing.assert_array_equal(diagnostics.dimension_spectrum(jnp.ones((5, 3))), np.zeros(3))


def test_class_separation_equals_loops_over_pairs():
    rng = np.random.default_rng(2)
    label = np.array([0] * 9 + [2] * 4 + [5] * 6)
    z = (rng.normal(size=(6, 4))[label] + rng.normal(size=(19, 4))).astype(np.float32)
    distance = 1 - unit(z) @ unit(z).T
    members = [np.flatnonzero(label == c) for c in (0, 2, 5)]
    within = np.mean([distance[np.ix_(m, m)].mean() for m in members])
    total = np.mean([distance[np.ix_(a, b)].mean() for a in members for b in members])
    fast = diagnostics.class_separation(z, label)
    np.testing.assert_allclose(fast, 1 - within / total, rtol=1e-5)
    assert 0.05 < float(fast) < 0.95
    assert float(diagnostics.class_separation(jnp.ones((4, 2)), np.array([0, 0, 1, 1]))) == 0.0
    with pytest.raises(ValueError, match="class >= 0"):
        diagnostics.class_separation(z, label[:3])
