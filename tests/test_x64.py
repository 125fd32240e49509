"""With `jax_enable_x64` every public function gives the numbers and dtypes it gives without.

Losses and their gradients: `test_parallel.py`.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import augment, losses, mining, parallel, queue
from contrastive_jax.encoders import heads
from contrastive_jax.evaluation import (
    clustering,
    diagnostics,
    few_labels,
    intervals,
    knn,
    logistic,
    neighbors,
    probes,
    retrieval,
)
from contrastive_jax.evaluation.features import extract
from contrastive_jax.grad_cache import encode_in_chunks
from tests.test_parallel import ARGUMENTS

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
VIEWS, LABELS = X.reshape(12, 2, 4), np.arange(24) % 3
DISTANCE = np.linalg.norm(X[:, None] - X[None], axis=-1)
IMAGE = RNG.uniform(size=(8, 8, 3)).astype(np.float32)
ROWS = np.arange(4)[:, None]


def key():
    return jax.random.key(0)


def encode(params, x, key):
    return x @ params


def head():
    module = heads.make(kind="mlp", hidden_dim=4, output_dim=2)
    variables = module.init(key(), X, train=False)
    return module.apply(variables, X, train=False)


def sharded():
    return parallel.shard_loss(losses.spread_out, parallel.make_mesh(jax.devices()[:2]))(X, X)


def extracted():
    embed = lambda params, state, batch: {"features": batch["image"] * params}  # noqa: E731
    return extract(embed, jnp.float32(2), {}, {"image": X}, batch_size=16)


def mined_corpus(**options):
    return mining.mine_corpus(X[:4], X, ROWS, 2, block_size=7, **options)


def views():
    images = (255 * IMAGE[None]).astype(np.uint8)
    settings = {"rotate_probability": 0.5, "jitter_probability": 0, "cutout_probability": 0.5}
    return augment.make_views(6, **settings).train(key(), images, ROWS[:1, 0])


sets = (X[:16], LABELS[:16], X[16:], LABELS[16:])
two_classes = (X, (X[:, 0] > 0).astype(np.int64))
ON_DEVICE = {  # compiled together
    "learned_temperature": lambda: losses.learned_temperature(jnp.asarray(2.0)),
    "matryoshka": lambda: losses.matryoshka(losses.nt_xent, VIEWS[:4], dims=np.array([2, 4])),
    "hardest_negative": lambda: mining.hardest_negative(DISTANCE, LABELS),
    "hardest_positive": lambda: mining.hardest_positive(DISTANCE, LABELS),
    "easy_positive": lambda: mining.easy_positive(DISTANCE, LABELS),
    "semi_hard_negative": lambda: mining.semi_hard_negative(DISTANCE, LABELS),
    "distance_weighted_negative": lambda: mining.distance_weighted_negative(
        key(), DISTANCE, LABELS, 4, farthest=9.0
    ),
    "mine_corpus": lambda: mined_corpus(margin=0.1, excluded_QE=ROWS + 5, key=key()),
    "make_queue": lambda: queue.make_queue(key(), 5, 4),
    "push": lambda: queue.push(queue.make_queue(key(), 5, 4), X[:3]),
    "encode_in_chunks": lambda: encode_in_chunks(encode, X[:4], X, key(), chunk_size=8),
    "shard_loss": sharded,
    "head": head,
    "summary": lambda: diagnostics.summary(VIEWS, 0.5),
    **{
        f"diagnostics.{name}": functools.partial(getattr(diagnostics, name), X)
        for name in ("uniformity", "embedding_std", "effective_rank", "rankme")
    },
    "dimension_spectrum": lambda: diagnostics.dimension_spectrum(X),
    "class_separation": lambda: diagnostics.class_separation(X, LABELS),
    "grayscale": lambda: augment.grayscale(IMAGE),
    "solarize": lambda: augment.solarize(IMAGE, 0.5),
    "adjust_hue": lambda: augment.adjust_hue(IMAGE, 0.2),
    "color_jitter": lambda: augment.color_jitter(
        key(), IMAGE, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "gaussian_blur": lambda: augment.gaussian_blur(IMAGE, 0.7),
    "sobel": lambda: augment.sobel(IMAGE),
    "add_noise": lambda: augment.add_noise(key(), IMAGE, 0.1),
    "cutout": lambda: augment.cutout(key(), IMAGE, 0.5),
    "flip": lambda: augment.flip(IMAGE),
    "rotate": lambda: augment.rotate(IMAGE, 20.0),
    "translate": lambda: augment.translate(IMAGE, 1, 2),
    "sample_crop_box": lambda: augment.sample_crop_box(key(), 8, 8),
    "resample": lambda: augment.resample(IMAGE, augment.Box(1, 1, 5, 6), 4),
    "sample_translation": lambda: augment.sample_translation(key(), 8, 0.3),
    "make_views": views,
}
ON_HOST = {
    "mine_in_blocks": lambda: mining.mine_in_blocks(
        X[:4], X, ROWS, np.full((4, 1), -1), n_negatives=2, ranks=(0, 5)
    ),
    "report": lambda: mining.report(mining.Negatives(ROWS, X[:4, :1], ROWS < 3, X[:4, 0] + 1)),
    "extract": extracted,
    "knn_neighbors": lambda: neighbors.knn_neighbors(X, X, k=3, block_size=7),
    "knn_neighbors euclidean": lambda: neighbors.knn_neighbors(X, X, k=3, metric="euclidean"),
    "knn_scores": lambda: knn.knn_scores(two_classes, two_classes, representation="x", layer="x"),
    "retrieve": lambda: retrieval.retrieve((X, LABELS)),
    "ridge_probe": lambda: probes.ridge_probe(*sets, n_classes=3, l2_grid=(0.1,)).predictions,
    "cluster": lambda: clustering.cluster(X, LABELS, n_clusters=3),
    "bootstrap": lambda: intervals.bootstrap(X[:, 0], resamples=100),
}


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, part), want in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        assert np.asarray(part).dtype == np.asarray(want).dtype, path
        if not isinstance(want, str):
            np.testing.assert_allclose(part, want, rtol=2e-5, atol=1e-6, err_msg=str(path))


def test_every_other_function_of_the_device():
    def measured():
        calls = lambda: {name: call() for name, call in ON_DEVICE.items()}  # noqa: E731
        return jax.jit(calls, compiler_options=QUICK_COMPILE)()

    expected = measured()
    with jax.enable_x64(True):
        assert_same(measured(), expected)


@pytest.mark.parametrize("name", ON_HOST)
def test_every_function_of_the_host(name):
    expected = ON_HOST[name]()
    with jax.enable_x64(True):
        assert_same(ON_HOST[name](), expected)


def test_probes_fit_what_can_be_separated():
    """From lists, as well."""
    x, y = np.concatenate([np.eye(2), 2 * np.eye(2)] * 3), np.arange(12) % 2
    with jax.enable_x64(True):
        fitted = logistic.fit_logistic(x.tolist(), y.tolist(), n_classes=2, l2=0.1)
        few = few_labels.few_label_probe(
            x.tolist(), y.tolist(), x.tolist(), y.tolist(), n_classes=2, per_class=2, draws=2
        )
        assert bool(fitted.converged)
        assert fitted.weight.dtype == np.float32
        np.testing.assert_array_equal(logistic.predict(fitted, x), y)
    assert few.accuracies == (1.0, 1.0)


def test_nothing_public_is_left_out():
    functions = {
        name
        for module in (mining, augment)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    assert functions <= {*ON_DEVICE, *ON_HOST}
    assert set(losses.__all__) <= {*ARGUMENTS, *ON_DEVICE}
