"""Random views of a batch: which operators, in which order, with which random keys."""

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.augment import color, filters, geometry
from contrastive_jax.types import Crops

# The number that an operator folds into the key of its view. New operators take new numbers: a
# changed number changes every run that uses the operator.
_BASE_CROP, _CROP, _FLIP, _ROTATE, _TRANSLATE, _JITTER = range(6)
_GRAYSCALE, _BLUR, _SOLARIZE, _SOBEL, _NOISE, _CUTOUT = range(6, 12)
_GATE = 1000  # added to an operator's number: the key that decides whether it is applied
_ALL_VIEWS = 2**31 - 1  # in place of a view's number: the key that all views of an example share

_Operator = Callable[[jax.Array, jax.Array], jax.Array]  # (key, image) -> image
_Gated = tuple[int, float, _Operator]  # number, probability, operator


class Augmentation(NamedTuple):
    """The settings of `make_views`; the operators are listed in the order they are applied."""

    base_crop_probability: float = 0.0  # one crop shared by all views (SimCLR Fig. 5), else resize
    crop_probability: float = 1.0
    crop_scale: tuple[float, float] = (0.08, 1.0)  # area, as a fraction of the image
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    flip_probability: float = 0.5
    rotate_probability: float = 0.0
    rotate_degrees: float = 15.0  # largest angle, either way
    rotate_quarters: bool = False  # by 0, 90, 180 or 270 degrees in its place
    rotate_fill: str = "zero"  # or "edge"
    translate_probability: float = 0.0
    translate_fraction: float = 0.1  # largest shift, either way, as a fraction of the side
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1  # largest turn, in turns of the color circle
    brightness_form: str = "multiplicative"  # SimCLR v2; "additive" is SimCLR v1
    grayscale_probability: float = 0.2
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    solarize_probability: float = 0.0
    solarize_threshold: float = 0.5
    sobel_probability: float = 0.0
    noise_probability: float = 0.0
    noise_std: float = 0.1  # white is 1
    cutout_probability: float = 0.0
    cutout_fraction: float = 0.5  # of the side
    n_views: int = 2
    one_branch: bool = False  # the last view gets the base crop and nothing else
    n_small_views: int = 0  # beside the views (multi-crop: SwAV, DINO)
    small_size: int = 16  # their side, in pixels
    small_crop_scale: tuple[float, float] = (0.05, 0.3)


class Views(NamedTuple):
    """Two pure functions of a batch of images [B, H, W, C] uint8.

    `train(key, image_BHWC, index_B)` is the random views [B, V, size, size, C] float32 in [0, 1] of
    the examples whose numbers in the dataset are `index_B` (int32). `evaluate(image_BHWC)` is
    [B, size, size, C] float32, the images resized, with nothing random.

    Images too large to be sent whole are cropped on the host, by `crops`; both functions then take
    [B, V, size, size, C] uint8, one crop a view, `train` to go on from and `evaluate` to show the
    first of. `crops` is None where a setting needs the whole image.

    `small` is as `train` and gives the small views [B, S, small_size, small_size, C] of multi-crop;
    it is None without them.
    """

    train: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    evaluate: Callable[[jax.Array], jax.Array]
    crops: Crops | None
    small: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


def make_views(size: int, **settings) -> Views:
    """Make the pure functions that give random views, and plain images for evaluation.

    A view of an example is a function of (key, index, view) alone: not of its place in the batch,
    the batch size or the number of devices. Each operator has its separate random key, so switching
    one on changes no other. A probability of 0 leaves the operator out of the program.

    Args:
      size: side of the views, in pixels.
      settings: any of the fields of `Augmentation`.

    Raises:
      ValueError: a setting out of its range; when traced, images that the operators cannot take.

    >>> views = make_views(16, crop_scale=(0.2, 1.0))
    >>> batch = jnp.zeros((4, 32, 32, 3), jnp.uint8), jnp.arange(4)
    >>> jax.eval_shape(views.train, jax.random.key(0), *batch).shape
    (4, 2, 16, 16, 3)
    >>> views.evaluate(batch[0]).shape
    (4, 16, 16, 3)

    Chen et al. 2020 (SimCLR), section 3 and appendix A.
    """
    chosen = Augmentation(**settings)
    _check_settings(size, chosen)
    crops = _host_crops(size, chosen)

    def train(key: jax.Array, image_BHWC: jax.Array, index_B: jax.Array) -> jax.Array:
        _check_batch(image_BHWC, index_B, chosen, crops)
        whole = image_BHWC.ndim == 4
        numbers = jnp.arange(chosen.n_views - chosen.one_branch)

        def views_of(image: jax.Array, index: jax.Array) -> jax.Array:
            example_key = jax.random.fold_in(key, index)
            if whole:
                return _views(chosen, size, example_key, image, numbers)
            return _views_of_crops(chosen, size, example_key, image)

        return jax.vmap(views_of)(_to_float(image_BHWC), index_B)

    def evaluate(image_BHWC: jax.Array) -> jax.Array:
        _check_images(image_BHWC, crops)
        plain_BHWC = image_BHWC if image_BHWC.ndim == 4 else image_BHWC[:, 0]
        return jax.vmap(lambda image: _resize(image, size))(_to_float(plain_BHWC))

    return Views(train, evaluate, crops, _small_views(chosen) if chosen.n_small_views else None)


def _small_views(settings: Augmentation) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """The small views of a batch: the same operators on smaller parts, with keys of their own."""
    small = settings._replace(crop_scale=settings.small_crop_scale)
    numbers = settings.n_views + jnp.arange(settings.n_small_views, dtype=jnp.int32)

    def views(key: jax.Array, image_BHWC: jax.Array, index_B: jax.Array) -> jax.Array:
        _check_batch(image_BHWC, index_B, settings, None)

        def views_of(image: jax.Array, index: jax.Array) -> jax.Array:
            return _views(
                small, settings.small_size, jax.random.fold_in(key, index), image, numbers
            )

        return jax.vmap(views_of)(_to_float(image_BHWC), index_B)

    return views


def _host_crops(size: int, settings: Augmentation) -> Crops | None:
    """The crops that the host can cut in place of the operator `crop`, if it can."""
    s = settings
    if s.base_crop_probability > 0 or s.crop_probability < 1 or s.one_branch or s.n_small_views:
        return None
    (smallest, largest), (narrowest, widest) = s.crop_scale, s.crop_ratio  # may come as lists
    return Crops(s.n_views, size, (smallest, largest), (narrowest, widest))


def _views_of_crops(
    settings: Augmentation, size: int, key: jax.Array, crop_VHWC: jax.Array
) -> jax.Array:
    """All views of one example whose crops were cut before; the other operators as in `_views`."""
    operators = _operators(settings, size)
    finish = lambda view_key, crop: _apply(operators, view_key, crop)  # noqa: E731
    return jax.vmap(finish)(_view_keys(key, jnp.arange(len(crop_VHWC))), crop_VHWC)


def _view_keys(key: jax.Array, number_V: jax.Array) -> jax.Array:
    return jax.vmap(lambda view: jax.random.fold_in(key, view))(number_V)


def _views(
    settings: Augmentation, size: int, key: jax.Array, image: jax.Array, number_V: jax.Array
) -> jax.Array:
    """The views of one example with these numbers, [V, size, size, C]."""
    if settings.base_crop_probability > 0:
        base = [(_BASE_CROP, settings.base_crop_probability, _crop(settings, size, image))]
        image = _apply(base, jax.random.fold_in(key, _ALL_VIEWS), _resize(image, size))
    plain = _resize(image, size)
    operators = [(_CROP, settings.crop_probability, _crop(settings, size, image))]
    operators += _operators(settings, size)
    apply = lambda view_key: _apply(operators, view_key, plain)  # noqa: E731
    views = jax.vmap(apply)(_view_keys(key, number_V))
    return jnp.concatenate([views, plain[None]]) if settings.one_branch else views


def _apply(operators: list[_Gated], key: jax.Array, image: jax.Array) -> jax.Array:
    """Apply the operators in order, each with its probability."""
    for number, probability, operator in operators:
        operator_key = jax.random.fold_in(key, number)
        if probability == 1:
            image = operator(operator_key, image)
        elif probability > 0:
            on = jax.random.bernoulli(
                jax.random.fold_in(key, _GATE + number), jnp.float32(probability)
            )
            image = jnp.where(on, operator(operator_key, image), image)
    return image


def _crop(settings: Augmentation, size: int, original: jax.Array) -> _Operator:
    """Crop from the original image, so that no pixel is resampled twice."""
    height, width, _ = original.shape
    scale, ratio = settings.crop_scale, settings.crop_ratio

    def crop(key: jax.Array, _: jax.Array) -> jax.Array:
        box = geometry.sample_crop_box(key, height, width, scale, ratio)
        return geometry.resample(original, box, size)

    return crop


def _operators(settings: Augmentation, size: int) -> list[_Gated]:
    """The operators after the crop, in order."""
    s = settings

    def rotate(key: jax.Array, image: jax.Array) -> jax.Array:
        reach = s.rotate_degrees
        degrees = jax.random.uniform(key, (), jnp.float32, -reach, reach)
        if s.rotate_quarters:
            degrees = 90.0 * jax.random.randint(key, (), 0, 4, jnp.int32)
        return geometry.rotate(image, degrees, s.rotate_fill)

    def translate(key: jax.Array, image: jax.Array) -> jax.Array:
        shift = geometry.sample_translation(key, size, s.translate_fraction)
        return geometry.translate(image, *shift)

    def jitter(key: jax.Array, image: jax.Array) -> jax.Array:
        strengths = {"brightness": s.brightness, "contrast": s.contrast}
        strengths |= {"saturation": s.saturation, "hue": s.hue}
        return color.color_jitter(key, image, brightness_form=s.brightness_form, **strengths)

    def blur(key: jax.Array, image: jax.Array) -> jax.Array:
        low, high = s.blur_sigma
        return filters.gaussian_blur(image, jax.random.uniform(key, (), jnp.float32, low, high))

    return [
        (_FLIP, s.flip_probability, lambda _, x: geometry.flip(x)),
        (_ROTATE, s.rotate_probability, rotate),
        (_TRANSLATE, s.translate_probability, translate),
        (_JITTER, s.jitter_probability, jitter),
        (_GRAYSCALE, s.grayscale_probability, lambda _, x: color.grayscale(x)),
        (_BLUR, s.blur_probability, blur),
        (_SOLARIZE, s.solarize_probability, lambda _, x: color.solarize(x, s.solarize_threshold)),
        (_SOBEL, s.sobel_probability, lambda _, x: filters.sobel(x)),
        (_NOISE, s.noise_probability, lambda key, x: filters.add_noise(key, x, s.noise_std)),
        (_CUTOUT, s.cutout_probability, lambda key, x: filters.cutout(key, x, s.cutout_fraction)),
    ]


def _resize(image: jax.Array, size: int) -> jax.Array:
    height, width, _ = image.shape
    if (height, width) == (size, size):
        return image
    return geometry.resample(image, geometry.Box(0, 0, height, width), size)


def _to_float(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255.0


def _check_settings(size: int, settings: Augmentation) -> None:
    s = settings
    for name, value in s._asdict().items():
        if name.endswith("_probability"):
            _check_number(name, value, 0, 1)
    for name in ("brightness", "contrast", "saturation", "noise_std"):
        _check_number(name, getattr(s, name), 0, math.inf)
    for name in ("solarize_threshold", "translate_fraction", "cutout_fraction"):
        _check_number(name, getattr(s, name), 0, 1)
    _check_number("hue", s.hue, 0, 0.5)
    _check_number("rotate_degrees", s.rotate_degrees, 0, 180)
    _check_range("crop_scale", s.crop_scale, 1)
    _check_range("small_crop_scale", s.small_crop_scale, 1)
    _check_range("crop_ratio", s.crop_ratio, math.inf)
    _check_range("blur_sigma", s.blur_sigma, math.inf)
    _check_choice("brightness_form", s.brightness_form, ("multiplicative", "additive"))
    _check_choice("rotate_fill", s.rotate_fill, ("zero", "edge"))
    _check_count("size", size, 1)
    _check_count("small_size", s.small_size, 1)
    _check_count("n_small_views", s.n_small_views, 0)
    if s.one_branch and s.n_small_views:
        raise ValueError(
            f"augment: n_small_views={s.n_small_views!r} and one_branch=True; use one of the two"
        )
    _check_count("n_views", s.n_views, 2 if s.one_branch else 1)


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, Real) and low <= float(value) <= high and math.isfinite(value):
        return
    allowed = f"a number from {low} to {high}" if high < math.inf else f"a finite number >= {low}"
    raise ValueError(f"augment: {name}={value!r} is out of range; use {allowed}")


def _check_range(name: str, value: tuple[float, float], high: float) -> None:
    try:
        first, last = (float(v) for v in value)
    except (TypeError, ValueError):
        first = last = math.nan
    if not (0 < first <= last <= high and math.isfinite(last)):
        limit = f" <= {high}" if high < math.inf else ""
        raise ValueError(
            f"augment: {name}={value!r} is no range; use two numbers, 0 < low <= high{limit}"
        )


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"augment: {name}={value!r} is unknown; use one of {allowed}")


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"augment: {name}={value!r} is too small; use a whole number >= {least}")


def _check_images(image_BHWC: jax.Array, crops: Crops | None) -> None:
    shape, dtype = image_BHWC.shape, image_BHWC.dtype
    if dtype == jnp.uint8 and len(shape) == 4:
        return
    side = crops and (crops.n_views, crops.size, crops.size)
    if dtype != jnp.uint8 or len(shape) != 5 or shape[1:4] != side:
        ways = "uint8 [B, H, W, C]" + (f" or crops uint8 [B, {str(side)[1:-1]}, C]" if side else "")
        raise ValueError(f"images are {dtype}{list(shape)}; give {ways}")


def _check_batch(
    image_BHWC: jax.Array, index_B: jax.Array, settings: Augmentation, crops: Crops | None
) -> None:
    _check_images(image_BHWC, crops)
    batch, channels = image_BHWC.shape[0], image_BHWC.shape[-1]
    if index_B.shape != (batch,) or not jnp.issubdtype(index_B.dtype, jnp.integer):
        raise ValueError(
            f"index is {index_B.dtype}{list(index_B.shape)} and image is "
            f"{list(image_BHWC.shape)}; give one integer an example"
        )
    needs_rgb = {"grayscale_probability": settings.grayscale_probability}
    if settings.jitter_probability > 0:
        needs_rgb |= {"saturation": settings.saturation, "hue": settings.hue}
    on = {name: value for name, value in needs_rgb.items() if value > 0}
    if on and channels != 3:
        given = ", ".join(f"{name}={value}" for name, value in on.items())
        raise ValueError(f"augment: images have {channels} channels, and {given} needs 3; set to 0")
