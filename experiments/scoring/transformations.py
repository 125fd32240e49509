"""What a representation knows of how an image was transformed: a linear probe that has to tell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import augment
from contrastive_jax.evaluation import probes
from contrastive_jax.evaluation.results import Row

PROBED = 5000  # training images, each in all its forms; and as many test images
NOISE_STD = augment.Augmentation().noise_std

Form = Callable[[jax.Array, jax.Array], jax.Array]  # (key, image [H,W,C] float32) -> image


def _plain(key: jax.Array, image: jax.Array) -> jax.Array:
    del key
    return image


def _turned(quarters: int) -> Form:
    return lambda key, image: jnp.rot90(image, quarters)


FORMS: Mapping[str, tuple[Form, ...]] = {
    "color": (_plain, lambda key, image: augment.grayscale(image)),
    "rotation": tuple(_turned(quarters) for quarters in range(4)),
    "noise": (_plain, lambda key, image: augment.add_noise(key, image, NOISE_STD)),
    "sobel": (_plain, lambda key, image: augment.sobel(image)),
}


def transformed(
    image_NHWC: np.ndarray, transformation: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every image in every form of a transformation, and which form it is.

    Args:
      image_NHWC: [N,H,W,C] uint8; square for "rotation", of three channels for "color".
      transformation: "color" (as it is, gray), "rotation" (0, 90, 180, 270 degrees), "noise" (as
        it is, with Gaussian noise) or "sobel" (as it is, its edges).
      seed: of the noise.

    Returns:
      Images [K*N,H,W,C] uint8, form after form, and the numbers of their forms [K*N] int32.

    Raises:
      ValueError: images that the transformation cannot take.

    >>> image, form = transformed(np.zeros((5, 4, 4, 3), np.uint8), "rotation", seed=0)
    >>> image.shape, form[4:7]
    ((20, 4, 4, 3), array([0, 1, 1], dtype=int32))
    """
    check(transformation, image_NHWC.shape[1:])
    forms = FORMS[transformation]
    keys_N = jax.random.split(jax.random.key(seed), len(image_NHWC))
    x_NHWC = jnp.asarray(image_NHWC, jnp.float32) / 255.0
    made = [jnp.round(255.0 * jax.vmap(form)(keys_N, x_NHWC)) for form in forms]
    labels = np.repeat(np.arange(len(forms), dtype=np.int32), len(image_NHWC))
    return np.concatenate([np.asarray(x, np.uint8) for x in made]), labels


def check(transformation: str, shape: Sequence[int]) -> None:
    """Refuse a transformation that images of this shape (H, W, C) cannot take.

    Raises:
      ValueError: naming what they need.
    """
    height, width, channels = shape
    square, color = height == width, channels == 3
    if (transformation == "rotation" and not square) or (transformation == "color" and not color):
        raise ValueError(
            f"eval.predict is {transformation!r}, but images are {height}x{width}x{channels}; "
            "rotation needs squares, color three channels"
        )


def rows(
    transformation: str,
    extract: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    train: np.ndarray,
    test: np.ndarray,
    *,
    seed: int,
    l2_grid: Sequence[float],
    max_steps: int,
    representation: str,
) -> list[Row]:
    """Accuracy of a linear probe, on each layer, at telling the forms of unseen images apart.

    Args:
      transformation: see `transformed`.
      extract: images [N,H,W,C] uint8 to {layer: features [N,F]}.
      train, test: images; a random `PROBED` of each at most.
      seed: of the choice of images, the noise, and the split that chooses the l2.
      l2_grid, max_steps: of the probe; see `probe.linear_probe`.
      representation: whose features these are.

    Chen et al. 2020 (SimCLR, arXiv:2002.05709), Table 3, which trains a small MLP in its place.
    """
    sets = [transformed(_some(image, seed), transformation, seed) for image in (train, test)]
    layers = [extract(image) for image, _ in sets]
    made = []
    for layer in layers[0]:
        result = probes.linear_probe(
            *(layers[0][layer], sets[0][1], layers[1][layer], sets[1][1]),
            n_classes=len(FORMS[transformation]),
            l2_grid=l2_grid,
            max_steps=max_steps,
            seed=seed,
        )
        row = probes.linear_row(result, representation=representation, layer=layer)
        row["protocol"] |= _protocol(transformation)
        made.append(row)
    return made


def _some(image: np.ndarray, seed: int) -> np.ndarray:
    return image[np.random.default_rng(seed).permutation(len(image))[:PROBED]]


def _protocol(transformation: str) -> dict[str, Any]:
    protocol = {"name": "transformation", "probe": "linear", "predicts": transformation}
    protocol |= {"forms": len(FORMS[transformation]), "each_image_in_all_forms": True}
    return protocol | ({"noise_std": NOISE_STD} if transformation == "noise" else {})
