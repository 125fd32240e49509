"""Mining: equality with loops over a batch and with exhaustive search over a corpus."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import mining

N, D = 9, 4
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3, 1], np.int32)
X = RNG.normal(size=(N, D)).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
DISTANCE = np.linalg.norm(X[:, None] - X[None], axis=-1).astype(np.float32)

Q, M, K = 6, 50, 4
CORPUS = RNG.normal(size=(M, D)).astype(np.float32)
CORPUS /= np.linalg.norm(CORPUS, axis=1, keepdims=True)
QUERY = (CORPUS[:Q] + 0.3 * RNG.normal(size=(Q, D))).astype(np.float32)
POSITIVES = np.array([[i, i + 20 if i % 2 else -1] for i in range(Q)], np.int32)
SCORES = QUERY @ CORPUS.T


def nearest(i, candidates):
    return min(candidates, key=lambda j: DISTANCE[i, j], default=None)


def assert_mined(mined, expected):
    for index, valid, want in zip(mined.index, mined.valid, expected, strict=True):
        assert bool(valid) == (want is not None)
        assert int(index) == (0 if want is None else want)


def test_the_hardest_negative_is_the_nearest_of_another_label():
    expected = [nearest(i, [j for j in range(N) if LABELS[j] != LABELS[i]]) for i in range(N)]
    assert_mined(mining.hardest_negative(DISTANCE, LABELS), expected)


def test_the_easy_positive_is_the_nearest_other_of_the_label():
    expected = [
        nearest(i, [j for j in range(N) if j != i and LABELS[j] == LABELS[i]]) for i in range(N)
    ]
    assert None in expected
    assert_mined(mining.easy_positive(DISTANCE, LABELS), expected)


def test_the_hardest_positive_is_the_farthest_other_of_the_label():
    positives = [[j for j in range(N) if j != i and LABELS[j] == LABELS[i]] for i in range(N)]
    expected = [max(p, key=lambda j: DISTANCE[i, j], default=None) for i, p in enumerate(positives)]
    assert None in expected
    assert_mined(mining.hardest_positive(DISTANCE, LABELS), expected)


def test_the_semi_hard_negative_is_the_nearest_beyond_the_positive():
    mined = jax.jit(mining.semi_hard_negative)(DISTANCE, LABELS)
    for i in range(N):
        expected = [None] * N
        for p in range(N):
            if p != i and LABELS[p] == LABELS[i]:
                beyond = [
                    n
                    for n in range(N)
                    if LABELS[n] != LABELS[i] and DISTANCE[i, n] > DISTANCE[i, p]
                ]
                expected[p] = nearest(i, beyond)
        assert_mined(mining.Mined(mined.index[i], mined.valid[i]), expected)


def test_distance_weighted_negatives_follow_the_inverse_density(key):
    sample = jax.jit(
        jax.vmap(
            lambda key: mining.distance_weighted_negative(key, DISTANCE, LABELS, D, farthest=1.7)
        )
    )
    mined = sample(jax.random.split(key, 4000))
    d = np.clip(np.float64(DISTANCE[0]), 0.5, None)
    density = d ** (D - 2) * (1 - d**2 / 4) ** ((D - 3) / 2)
    weight = np.where((LABELS != LABELS[0]) & (DISTANCE[0] < 1.7), 1 / density, 0)
    frequency = np.bincount(mined.index[:, 0], minlength=N) / 4000
    np.testing.assert_allclose(frequency, weight / weight.sum(), atol=0.03)


def test_without_a_negative_in_reach_nothing_is_mined(key):
    mined = mining.distance_weighted_negative(key, DISTANCE, LABELS, D, farthest=0.0)
    assert not mined.valid.any()
    same = np.zeros(N, np.int32)
    assert not mining.hardest_negative(DISTANCE, same).valid.any()
    assert not mining.semi_hard_negative(DISTANCE, same).valid.any()


def exhaustive(first, last, margin=None, relative=None, excluded=None):
    """For each query the rows that may be chosen, the best first."""
    allowed = []
    for q in range(Q):
        positives = [p for p in POSITIVES[q] if p >= 0]
        banned = set(positives) | (set() if excluded is None else set(excluded[q]))
        ranked = [r for r in np.argsort(-SCORES[q]) if r not in banned][first:last]
        worst = min(SCORES[q, p] for p in positives)
        limits = [np.inf]
        limits += [] if margin is None else [worst - margin]
        limits += [] if relative is None else [worst - abs(worst) * relative]
        allowed.append([int(r) for r in ranked if SCORES[q, r] <= min(limits)])
    return allowed


@functools.cache
def mine(block_size=7, **options):
    fn = functools.partial(mining.mine_corpus, n_negatives=K, block_size=block_size, **options)
    return jax.jit(fn)(QUERY, CORPUS, POSITIVES)


def rows(found):
    return [
        [int(r) for r, ok in zip(row, valid, strict=True) if ok]
        for row, valid in zip(found.index, found.valid, strict=True)
    ]


@pytest.mark.parametrize("block_size", [7, 10, 1000])
def test_mining_in_blocks_equals_exhaustive_search(block_size):
    found = mine(block_size)
    assert rows(found) == [r[:K] for r in exhaustive(0, 4 * K)]
    np.testing.assert_allclose(
        found.score, np.take_along_axis(SCORES, np.asarray(found.index), 1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "options",
    [
        {"ranks": (3, 12)},
        {"margin": 0.4},
        {"relative_margin": 0.5},
        {"margin": 0.1, "relative_margin": 0.3, "ranks": (1, 20)},
    ],
)
def test_rank_windows_and_margins_equal_exhaustive_search(options):
    first, last = options.get("ranks", (0, 4 * K))
    expected = exhaustive(first, last, options.get("margin"), options.get("relative_margin"))
    assert rows(mine(**options)) == [r[:K] for r in expected]


def test_negatives_score_between_the_given_limits():
    high, low = (float(np.sort(SCORES.ravel())[-n]) for n in (60, 200))
    found = mine(max_score=high, min_score=low, margin=0.1)
    ranked = exhaustive(0, 4 * K, margin=0.1)
    expected = [
        [r for r in rows if low <= SCORES[q, r] <= high][:K] for q, rows in enumerate(ranked)
    ]
    assert rows(found) == expected
    assert 0 < sum(map(len, expected)) < sum(len(r[:K]) for r in ranked)


def test_excluded_rows_are_not_mined():
    excluded = np.array([r[:2] for r in exhaustive(0, 5)], np.int32)
    found = mining.mine_corpus(QUERY, CORPUS, POSITIVES, K, excluded_QE=excluded)
    assert rows(found) == [r[:K] for r in exhaustive(0, 4 * K, excluded=excluded)]


def test_a_random_choice_is_of_the_allowed_and_repeats_with_the_key(key):
    def mine(key):
        return rows(mining.mine_corpus(QUERY, CORPUS, POSITIVES, K, key=key))

    first, again, other = mine(key), mine(key), mine(jax.random.fold_in(key, 1))
    assert first == again
    assert first != other
    for chosen, allowed in zip(first, exhaustive(0, 4 * K), strict=True):
        assert set(chosen) <= set(allowed)
        assert len(set(chosen)) == K
        assert chosen == sorted(chosen, key=allowed.index)


def test_any_number_of_devices_mines_what_one_mines_ties_included(key):
    corpus = CORPUS.copy()
    corpus[10:40] = corpus[[3, 11, 45] * 10]  # duplicates, on several devices
    kept = corpus.copy()
    excluded = np.array([[q, 12 + q, -1] for q in range(Q)], np.int32)
    options = {"n_negatives": K, "ranks": (1, 48), "margin": 0.1}

    def mine(count, **more):
        devices = jax.devices()[:count]
        return mining.mine_in_blocks(
            QUERY, corpus, POSITIVES, excluded, devices=devices, **options, **more
        )

    for more, counts in (({"block_size": 3}, (2, 4, 8)), ({"block_size": 7, "key": key}, (8,))):
        one = mine(1, **more)
        assert one.valid.any()
        for count in counts:
            for got, want in zip(mine(count, **more), one, strict=True):
                np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(corpus, kept)  # normalized in place, but not here


def test_memory_does_not_grow_with_the_corpus():
    def memory(M):
        fn = functools.partial(mining.mine_corpus, n_negatives=4, block_size=64)
        shapes = ((256, 4), jnp.float32), ((M, 4), jnp.float32), ((256, 1), jnp.int32)
        args = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
        return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes

    assert memory(20000) < memory(2000) + 20000 * 4 * 4


def test_the_report_counts_what_it_says():
    found = mining.Negatives(
        index=jnp.zeros((3, 2), jnp.int32),
        score=jnp.array([[1.2, 0.5], [0.98, 0.1], [0.0, 0.0]]),
        valid=jnp.array([[True, True], [True, False], [False, False]]),
        positive_score=jnp.array([1.0, 1.0, 1.0]),
    )
    got = mining.report(found)
    assert got == pytest.approx(
        {
            "found": 0.5,
            "queries_without": 1 / 3,
            "mean_margin": (-0.2 + 0.5 + 0.02) / 3,
            "above_positive": 1 / 3,
            "near_duplicates": 2 / 3,
        }
    )


@pytest.mark.parametrize("far", [np.inf, np.nan])
@pytest.mark.parametrize(
    "mine", [mining.hardest_negative, mining.hardest_positive, mining.easy_positive]
)
def test_a_row_at_no_finite_distance_is_not_mined(mine, far):
    distance = DISTANCE.copy()
    distance[0, 1:] = far
    mined, usual = mine(distance, LABELS), mine(DISTANCE, LABELS)
    assert not mined.valid[0]
    assert mined.index[0] == 0
    np.testing.assert_array_equal(mined.index[1:], usual.index[1:])


def test_lists_are_taken_and_labels_beyond_int32_are_refused():
    mined = mining.hardest_negative(DISTANCE.tolist(), LABELS.tolist())
    np.testing.assert_array_equal(mined.index, mining.hardest_negative(DISTANCE, LABELS).index)
    found = mining.mine_corpus(QUERY.tolist(), CORPUS.tolist(), POSITIVES.tolist(), K)
    np.testing.assert_array_equal(
        found.index, mining.mine_corpus(QUERY, CORPUS, POSITIVES, K).index
    )
    for wide in (
        lambda: mining.hardest_negative(DISTANCE, LABELS + np.int64(2**32)),
        lambda: mining.mine_corpus(QUERY, CORPUS, POSITIVES + np.int64(2**32), K),
    ):
        with pytest.raises(ValueError, match="beyond int32"):
            wide()


def test_a_traced_positive_beyond_the_corpus_satisfies_no_margin():
    beyond = POSITIVES.copy()
    beyond[2, 0] = M
    mine = functools.partial(mining.mine_corpus, n_negatives=K, block_size=7, margin=0.4)
    found = jax.jit(mine)(QUERY, CORPUS, beyond)
    assert np.isnan(found.positive_score).tolist() == [q == 2 for q in range(Q)]
    assert not found.valid[2].any()


def test_bad_input_is_refused():
    beyond = np.full((Q, 1), M)
    for call, message in [
        (lambda: mining.hardest_negative(DISTANCE[:3], LABELS), r"\(3, 9\), .*\(9, 9\)"),
        (
            lambda: mining.mine_corpus(QUERY, CORPUS[:, :2], POSITIVES, K),
            r"\(6, 4\) and .*\(50, 2\)",
        ),
        (
            lambda: mining.mine_corpus(QUERY, CORPUS, POSITIVES[:2], K),
            r"\(2, 2\), expected \(6, P\)",
        ),
        (lambda: mining.mine_corpus(QUERY, CORPUS, POSITIVES, K, ranks=(2, 4)), "widen the ranks"),
        (
            lambda: mining.mine_corpus(QUERY, CORPUS, beyond, K),
            "positives_QP holds row 50 .* of 50",
        ),
        (
            lambda: mining.mine_corpus(QUERY, CORPUS, POSITIVES, K, excluded_QE=beyond),
            "excluded_QE holds row 50",
        ),
        (
            lambda: jax.jit(mining.mine_corpus)(QUERY, CORPUS, POSITIVES, K),
            "static_argnames='n_negatives'",
        ),
        (lambda: mining.report(mine(), near_duplicate=2.0), "near_duplicate is 2.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
