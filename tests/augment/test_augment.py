"""Augmentations against PIL, torchvision's documented rules, colorsys, scipy and closed forms."""

import colorsys
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter
from sklearn.datasets import load_sample_images

from contrastive_jax import augment
from contrastive_jax.augment import color
from tests.compiled import AS_IN_TRAINING
from tests.devices import COUNTS

OFF = {
    "crop_probability": 0.0,
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
}
SIMPLE = {"jitter_probability": 0.0, "grayscale_probability": 0.0}  # quick to compile
EVERYTHING = {
    "rotate_probability": 0.5,
    "translate_probability": 0.5,
    "blur_probability": 0.5,
    "solarize_probability": 0.5,
    "sobel_probability": 0.2,
    "noise_probability": 0.5,
    "cutout_probability": 0.5,
}


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def random_floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def as_unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(255)


@functools.cache
def compiled_train(size: int, items: frozenset):
    return jax.jit(augment.make_views(size, **dict(items)).train)


def train_once(images: np.ndarray, size: int, seed=0, index=None, **settings) -> np.ndarray:
    index = np.arange(len(images), dtype=np.int32) if index is None else index
    train = compiled_train(size, frozenset(settings.items()))
    return np.asarray(train(jax.random.key(seed), images, index))


# --- resampling ---------------------------------------------------------------------------------


def slow_resample_axis(signal: np.ndarray, n_out: int) -> np.ndarray:
    """Bilinear with antialiasing along axis 0, pixel by pixel, as Pillow's manual defines it."""
    n_in = len(signal)
    scale = n_in / n_out
    support = max(scale, 1.0)
    result = []
    for i in range(n_out):
        center = (i + 0.5) * scale
        weights = [max(0.0, 1 - abs(p + 0.5 - center) / support) for p in range(n_in)]
        result.append(sum(w * s for w, s in zip(weights, signal, strict=True)) / sum(weights))
    return np.stack(result)


resample_12 = jax.jit(augment.resample, static_argnums=2)

BOXES = [(0, 0, 20, 28), (3, 5, 16, 9), (7, 2, 4, 12), (19, 27, 1, 1), (2, 4, 12, 12)]


@pytest.mark.parametrize("box", BOXES)
def test_resample_equals_slow_resampling_of_the_cropped_pixels(box):
    image = random_floats(20, 28, 3)
    top, left, height, width = box
    cropped = image[top : top + height, left : left + width].astype(np.float64)
    rows = slow_resample_axis(cropped, 12)
    expected = slow_resample_axis(rows.swapaxes(0, 1), 12).swapaxes(0, 1)
    actual = resample_12(image, augment.Box(*map(jnp.float32, box)), 12)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("box", BOXES)
def test_resample_equals_pillow_on_the_cropped_image(box):
    image = random_floats(20, 28, 1)
    top, left, height, width = box
    cropped = Image.fromarray(image[..., 0]).crop((left, top, left + width, top + height))
    expected = np.asarray(cropped.resize((12, 12), Image.Resampling.BILINEAR))
    actual = resample_12(image, augment.Box(*map(jnp.float32, box)), 12)
    np.testing.assert_allclose(actual[..., 0], expected, atol=2e-6)


def test_resample_of_the_whole_image_to_its_own_size_is_the_identity():
    image = random_floats(12, 12, 3)
    np.testing.assert_array_equal(resample_12(image, augment.Box(0.0, 0.0, 12.0, 12.0), 12), image)


def test_evaluate_resizes_like_pillow_and_leaves_the_right_size_alone():
    images = random_images(2, 20, 28, 3)
    actual = augment.make_views(12).evaluate(jnp.asarray(images))
    expected = [np.asarray(Image.fromarray(i).resize((12, 12), 2)) / 255 for i in images]
    np.testing.assert_allclose(actual, expected, atol=1 / 255)
    square = jnp.asarray(images[:, :20, :20])
    np.testing.assert_array_equal(augment.make_views(20).evaluate(square), square / 255)


# --- the box of the random resized crop -----------------------------------------------------------


def box_by_rejection(rng, height, width, scale, ratio):
    """torchvision's `RandomResizedCrop.get_params`, from its description."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def sampled_boxes(n, *args):
    keys = jax.random.split(jax.random.key(1), n)
    return np.stack(jax.jit(jax.vmap(lambda key: augment.sample_crop_box(key, *args)))(keys), -1)


# The last case seldom fits in ten tries, so that the fallback is used often.
@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (24, 40, (0.2, 1.0), (0.5, 2.0)),
        (16, 48, (0.8, 1.0), (3 / 4, 2.4)),
    ],
)
def test_crop_boxes_are_distributed_as_torchvision_draws_them(height, width, scale, ratio):
    n = 6000
    actual = sampled_boxes(n, height, width, scale, ratio)
    rng = np.random.default_rng(2)
    expected = np.array([box_by_rejection(rng, height, width, scale, ratio) for _ in range(n)])
    top, left, h, w = actual.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    np.testing.assert_array_equal(actual, np.round(actual))
    spread = np.sqrt(2 * expected.var(axis=0) / n) + 1e-9
    np.testing.assert_array_less(np.abs(actual.mean(0) - expected.mean(0)) / spread, 4.5)
    for column in range(4):
        # Two-sample Kolmogorov-Smirnov at about 1e-5, conservative for whole numbers.
        grid = np.arange(max(height, width) + 1)
        cdf_a, cdf_b = (
            np.searchsorted(np.sort(x[:, column]), grid, "right") for x in (actual, expected)
        )
        assert np.abs(cdf_a - cdf_b).max() / n < 2.47 * math.sqrt(2 / n)


def test_boxes_that_can_never_fit_fall_back_to_the_central_box():
    boxes = sampled_boxes(50, 10, 40, (0.9, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(boxes, np.tile([0, 13, 10, 13], (50, 1)))
    boxes = sampled_boxes(50, 40, 10, (0.9, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(boxes, np.tile([13, 0, 13, 10], (50, 1)))


def test_a_crop_of_the_whole_square_is_the_image():
    images = random_images(3, 12, 12, 3)
    settings = OFF | {"crop_probability": 1.0, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    views = train_once(images, 12, **settings)
    np.testing.assert_allclose(views, np.stack([images / 255] * 2, 1), atol=1e-6)


# --- geometry -------------------------------------------------------------------------------------


def test_flip_is_an_involution_that_mirrors_columns():
    image = random_floats(4, 5, 3)
    np.testing.assert_array_equal(augment.flip(image), image[:, ::-1])
    np.testing.assert_array_equal(augment.flip(augment.flip(image)), image)


rotate = jax.jit(augment.rotate, static_argnums=2)


@pytest.mark.parametrize("fill", ["zero", "edge"])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_by_quarter_turns_is_rot90_counterclockwise(fill, quarters):
    image = random_floats(9, 9, 3)
    turned = rotate(image, 90.0 * quarters, fill)
    np.testing.assert_allclose(turned, np.rot90(image, quarters), atol=1e-5)


def test_rotation_equals_pillow_inside_the_frame():
    image = random_floats(21, 21, 1)
    expected = Image.fromarray(image[..., 0]).rotate(30, Image.Resampling.BILINEAR)
    actual = rotate(image, 30.0)[..., 0]
    np.testing.assert_allclose(actual[5:-5, 5:-5], np.asarray(expected)[5:-5, 5:-5], atol=1e-4)


def test_rotation_fills_corners_with_black_or_with_the_edge():
    white = jnp.ones((9, 9, 1))
    assert float(rotate(white, 45.0)[0, 0, 0]) == 0.0
    np.testing.assert_allclose(rotate(white, 45.0, "edge"), white, atol=1e-6)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 4), (9, 0)])
def test_translation_moves_whole_pixels_and_fills_with_black(down, right):
    image = random_floats(6, 7, 2)
    expected = np.zeros_like(image)
    for y, x in itertools.product(range(6), range(7)):
        if 0 <= y - down < 6 and 0 <= x - right < 7:
            expected[y, x] = image[y - down, x - right]
    np.testing.assert_allclose(augment.translate(image, down, right), expected, atol=1e-7)


def test_translations_reach_both_ends_and_no_further():
    keys = jax.random.split(jax.random.key(0), 400)
    sample = jax.vmap(lambda key: jnp.stack(augment.sample_translation(key, 28, 0.1)))
    shifts = np.asarray(jax.jit(sample)(keys))
    assert shifts.min(axis=0).tolist() == [-3, -3]
    assert shifts.max(axis=0).tolist() == [3, 3]


# --- color -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.1, -0.25, 0.5, 1.3])
def test_hue_shift_equals_colorsys(shift):
    image = random_floats(6, 6, 3)
    image[0, :3] = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]]
    image[1, :3] = [[1, 0, 0], [0.3, 0.3, 0.8], [0.9, 0.2, 0.9]]

    def turn(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, pixel))
        return colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, value)

    expected = np.array([[turn(pixel) for pixel in row] for row in image])
    np.testing.assert_allclose(jax.jit(augment.adjust_hue)(image, shift), expected, atol=3e-6)


def adjust_slowly(image, which, amount, form):
    """One adjustment as torchvision's functional transforms describe it."""
    gray = image @ np.array([0.2989, 0.587, 0.114], np.float32)
    if which == 0:
        adjusted = image * amount if form == "multiplicative" else image + amount
    elif which == 1:
        adjusted = amount * image + (1 - amount) * gray.mean()
    elif which == 2:
        adjusted = amount * image + (1 - amount) * gray[..., None]
    else:
        adjusted = np.asarray(augment.adjust_hue(image, amount))
    return np.clip(adjusted, 0, 1)


in_order = jax.jit(color._adjust_in_order, static_argnums=(3, 4))


@pytest.mark.parametrize("form", ["multiplicative", "additive"])
def test_jitter_applies_its_adjustments_one_after_another_in_any_order(form):
    image = random_floats(5, 6, 3)
    amounts = np.array([1.4 if form == "multiplicative" else 0.3, 1.8, 0.3, 0.2], np.float32)
    for order in itertools.permutations(range(4)):
        expected = image
        for which in order:
            expected = adjust_slowly(expected, which, amounts[which], form)
        actual = in_order(image, np.array(order), amounts, form, True)
        np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=str(order))
        without = [which for which in order if which != 3]
        expected = image
        for which in without:
            expected = adjust_slowly(expected, which, amounts[which], form)
        actual = in_order(image, np.array(order), amounts, form, False)
        np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=str(without))


def draws_of_jitter(monkeypatch, n, **strengths):
    """The orders [n, 4] and amounts [n, 4] that `color_jitter` samples."""

    def spy(image, order, amounts, brightness_form, with_hue):
        return jnp.stack([order.astype(jnp.float32), amounts])

    monkeypatch.setattr(color, "_adjust_in_order", spy)
    jitter = jax.vmap(lambda key: augment.color_jitter(key, jnp.zeros((1, 1, 3)), **strengths))
    keys = jax.random.split(jax.random.key(3), n)
    orders, amounts = np.moveaxis(np.asarray(jax.jit(jitter)(keys)), 1, 0)
    return orders, amounts


def test_the_order_of_the_jitter_is_uniform_over_the_24_permutations(monkeypatch):
    n = 4800
    strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    orders, _ = draws_of_jitter(monkeypatch, n, **strengths)
    kinds, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(kinds) == 24
    chi_square = ((counts - n / 24) ** 2 / (n / 24)).sum()
    assert chi_square < 55  # 23 degrees of freedom: exceeded once in 5,000


@pytest.mark.parametrize(
    ("form", "low", "high"),
    [
        ("multiplicative", [0.6, 0.5, 0.0, -0.1], [1.4, 1.5, 3.0, 0.1]),
        ("additive", [-0.4, 0.5, 0.0, -0.1], [0.4, 1.5, 3.0, 0.1]),
    ],
)
def test_the_amounts_of_the_jitter_are_uniform_in_their_ranges(monkeypatch, form, low, high):
    n = 2000
    strengths = {"brightness": 0.4, "contrast": 0.5, "saturation": 2.0, "hue": 0.1}
    _, amounts = draws_of_jitter(monkeypatch, n, brightness_form=form, **strengths)
    unit = (amounts - low) / (np.array(high) - low)
    assert unit.min() > -1e-6
    assert unit.max() < 1 + 1e-6
    np.testing.assert_allclose(unit.mean(axis=0), 0.5, atol=4.5 / math.sqrt(12 * n))
    np.testing.assert_allclose(unit.var(axis=0), 1 / 12, atol=0.008)


def test_jitter_of_strength_zero_is_the_identity():
    image = random_floats(4, 4, 3)
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    for form in ("multiplicative", "additive"):
        jittered = augment.color_jitter(jax.random.key(0), image, brightness_form=form, **none)
        np.testing.assert_array_equal(jittered, image)


def test_grayscale_is_the_luma_in_every_channel():
    image = random_floats(4, 4, 3)
    luma = image @ np.array([0.2989, 0.587, 0.114])
    np.testing.assert_allclose(augment.grayscale(image), np.stack([luma] * 3, -1), atol=1e-6)


def test_solarize_inverts_exactly_the_pixels_at_or_above_the_threshold():
    image = jnp.array([[[0.0, 0.25, 0.75, 1.0]]])
    np.testing.assert_array_equal(augment.solarize(image, 0.75), [[[0.0, 0.25, 0.25, 0.0]]])


# --- texture ----------------------------------------------------------------------------------


blur = jax.jit(augment.gaussian_blur)


@pytest.mark.parametrize(("side", "radius"), [(8, 1), (32, 1), (64, 3)])
def test_blur_equals_scipy_with_a_kernel_of_a_tenth_of_the_side(side, radius):
    image = random_floats(side, side, 2)
    expected = gaussian_filter(image, 0.9, mode="mirror", radius=radius, axes=(0, 1))
    np.testing.assert_allclose(blur(image, 0.9), expected, atol=2e-6)


def test_blur_keeps_constants_at_any_sigma():
    flat = jnp.full((32, 32, 3), 0.7)
    for sigma in (0.1, 2.0):
        np.testing.assert_allclose(blur(flat, sigma), flat, atol=1e-6)


sobel = jax.jit(augment.sobel)


def test_sobel_of_a_ramp_is_twice_its_slope_inside():
    ramp = np.arange(10, dtype=np.float32) * 0.05
    across = np.tile(ramp[None, :, None], (10, 1, 2))
    np.testing.assert_allclose(sobel(across)[1:-1, 1:-1], 0.1, atol=1e-6)
    np.testing.assert_allclose(sobel(across.swapaxes(0, 1))[1:-1, 1:-1], 0.1, atol=1e-6)


def test_sobel_equals_scipys_gradient_magnitude():
    image = random_floats(9, 9, 1)
    smooth, slope = [0.25, 0.5, 0.25], [-1.0, 0.0, 1.0]
    gx = correlate1d(correlate1d(image, smooth, 0, mode="mirror"), slope, 1, mode="mirror")
    gy = correlate1d(correlate1d(image, smooth, 1, mode="mirror"), slope, 0, mode="mirror")
    np.testing.assert_allclose(sobel(image), np.minimum(np.hypot(gx, gy), 1), atol=1e-6)


def test_noise_has_the_standard_deviation_asked_for_and_stays_in_range():
    add_noise, gray = jax.jit(augment.add_noise), jnp.full((64, 64, 3), 0.5)
    noisy = add_noise(jax.random.key(0), gray, 0.1)
    assert abs(float(noisy.std()) - 0.1) < 0.004
    assert abs(float(noisy.mean()) - 0.5) < 0.004
    extreme = add_noise(jax.random.key(0), gray, 10.0)
    assert (float(extreme.min()), float(extreme.max())) == (0.0, 1.0)


def test_cutout_blacks_out_one_square_of_the_right_area_anywhere_inside():
    keys = jax.random.split(jax.random.key(0), 300)
    cut = jax.jit(jax.vmap(lambda key: augment.cutout(key, jnp.ones((10, 10, 3)), 0.4)))
    holes = np.asarray(cut(keys)) == 0
    assert (holes.sum(axis=(1, 2, 3)) == 4 * 4 * 3).all()
    assert (holes[..., 0].any(axis=1).sum(axis=1) == 4).all()  # 4 columns wide, so a square
    corners = {(int(h.any(1).argmax()), int(h.any(0).argmax())) for h in holes[..., 0]}
    assert len(corners) == 49


# --- gates and switches -------------------------------------------------------------------------


def test_all_probabilities_zero_gives_the_images_themselves_without_drawing():
    images = random_images(3, 8, 8, 3)
    views = augment.make_views(8, n_views=3, **OFF)
    np.testing.assert_allclose(
        views.train(jax.random.key(0), jnp.asarray(images), jnp.arange(3)),
        np.stack([as_unit(images)] * 3, 1),
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "operator",
    [
        {"flip_probability": 1.0},
        {"grayscale_probability": 1.0},
        {"solarize_probability": 1.0, "solarize_threshold": 0.4},
    ],
)
def test_a_gate_of_one_always_applies_its_operator(operator):
    images = random_images(4, 8, 8, 3)
    image = as_unit(images)
    expected = {
        "flip_probability": image[:, :, ::-1],
        "grayscale_probability": np.asarray(jax.vmap(augment.grayscale)(image)),
        "solarize_probability": np.where(image >= 0.4, 1 - image, image),
    }[next(iter(operator))]
    views = train_once(images, 8, **OFF | operator)
    np.testing.assert_allclose(views, np.stack([expected] * 2, 1), atol=1e-6)


def test_a_gate_opens_as_often_as_its_probability_says():
    n = 2000
    images = np.broadcast_to(np.array([0, 255], np.uint8)[None, None, :, None], (n, 2, 2, 1))
    flipped = train_once(images, 2, **OFF | {"flip_probability": 0.3})[:, :, 0, 0, 0]
    assert set(np.unique(flipped)) == {0.0, 1.0}
    assert abs(flipped.mean() - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / flipped.size)
    agreement = (flipped[:, 0] == flipped[:, 1]).mean()
    assert abs(agreement - (0.3**2 + 0.7**2)) < 0.06  # the two views are independent


def test_a_crop_behind_a_gate_is_a_crop_or_the_whole_image():
    images = np.repeat(random_images(1, 12, 12, 1), 200, axis=0)
    settings = OFF | {"crop_probability": 0.5, "crop_scale": (0.1, 0.5)}
    views = train_once(images, 12, **settings)
    whole = np.isclose(views, as_unit(images)[:, None]).all(axis=(2, 3, 4))
    assert 0.35 < whole.mean() < 0.65


def test_views_are_float32_in_the_unit_interval_with_every_operator_on():
    views = train_once(random_images(6, 12, 16, 3), 12, **EVERYTHING)
    assert views.dtype == np.float32
    assert views.shape == (6, 2, 12, 12, 3)
    assert views.min() >= 0
    assert views.max() <= 1 + 1e-6


def test_one_channel_images_take_every_operator_that_needs_no_color():
    settings = EVERYTHING | {"grayscale_probability": 0.0, "saturation": 0.0, "hue": 0.0}
    batch = jnp.zeros((4, 8, 8, 1), jnp.uint8), jnp.arange(4)
    views = jax.eval_shape(augment.make_views(8, **settings).train, jax.random.key(0), *batch)
    assert views.shape == (4, 2, 8, 8, 1)


def test_contrast_of_one_channel_is_about_its_mean():
    image = random_floats(5, 6, 1) * 0.2 + 0.4
    actual = in_order(image, np.arange(4), np.array([1, 1.5, 1, 0.0]), "multiplicative", False)
    np.testing.assert_allclose(actual, image.mean() + 1.5 * (image - image.mean()), atol=1e-6)


@functools.cache
def photos(n: int, side: int) -> np.ndarray:
    """Squares [n, side, side, 3] cut from the two photographs that come with scikit-learn."""
    pictures = load_sample_images().images
    rng = np.random.default_rng(0)
    tops, lefts = rng.integers(0, 427 - side, n), rng.integers(0, 640 - side, n)
    cut = [
        pictures[i % 2][top : top + side, left : left + side]
        for i, (top, left) in enumerate(zip(tops, lefts, strict=True))
    ]
    return np.stack(cut)


@pytest.mark.parametrize(
    "operators",
    [
        {"crop_probability": 1.0, "flip_probability": 0.5},
        {"rotate_probability": 1.0},
        {"rotate_probability": 1.0, "rotate_quarters": True},
        {"translate_probability": 1.0},
        {"jitter_probability": 1.0},
        {"jitter_probability": 1.0, "brightness_form": "additive"},
        {"jitter_probability": 0.0, "grayscale_probability": 1.0},
        {"blur_probability": 1.0},
        {"solarize_probability": 1.0},
        {"sobel_probability": 1.0},
        {"noise_probability": 1.0},
        {"cutout_probability": 1.0},
        {"crop_probability": 1.0, "jitter_probability": 0.8, "grayscale_probability": 0.2},
    ],
    ids=lambda operators: "-".join(name.partition("_")[0] for name in operators),
)
def test_views_as_training_compiles_them_equal_the_uncompiled_ones(operators):
    images, settings = photos(12, 24), OFF | operators
    index = np.arange(len(images), dtype=np.int32)
    train = augment.make_views(24, **settings).train
    compiled = jax.jit(train, compiler_options=AS_IN_TRAINING)(jax.random.key(0), images, index)
    with jax.disable_jit():
        plain = np.asarray(train(jax.random.key(0), images, index))
    # A crop cuts other pixels, and solarization inverts one, where a rounding crosses a threshold.
    off = np.abs(compiled - plain).max(axis=-1) > 1e-5
    assert off.mean() < 1e-4, f"{100 * off.mean():.2g} % of the pixels differ"


# --- randomness ---------------------------------------------------------------------------------


def test_a_view_depends_on_key_index_and_view_and_on_nothing_else():
    images = random_images(6, 12, 16, 3)
    index = np.arange(6, dtype=np.int32) + 100
    views = train_once(images, 12, index=index, **EVERYTHING)
    order = np.array([4, 0, 5, 3, 1, 2])
    shuffled = train_once(images[order], 12, index=index[order], **EVERYTHING)
    np.testing.assert_allclose(shuffled, views[order], atol=1e-5)
    assert not np.allclose(views[:, 0], views[:, 1])
    assert not np.allclose(views, train_once(images, 12, seed=1, index=index, **EVERYTHING))
    same_images = np.repeat(images[:1], 6, axis=0)
    by_index = train_once(same_images, 12, index=index, **EVERYTHING)
    assert len(np.unique(by_index.reshape(12, -1), axis=0)) == 12


def test_a_view_does_not_depend_on_the_size_of_the_batch():
    images = random_images(8, 12, 12, 3)
    alone = train_once(images[:3], 12, **SIMPLE)
    np.testing.assert_allclose(alone, train_once(images, 12, **SIMPLE)[:3], atol=1e-5)


def test_more_views_leave_the_first_ones_as_they_were():
    images = random_images(8, 12, 12, 3)
    two = train_once(images, 12, **SIMPLE)
    three = train_once(images, 12, n_views=3, **SIMPLE)
    np.testing.assert_allclose(three[:, :2], two, atol=1e-5)


@pytest.mark.parametrize("n_devices", COUNTS)
def test_views_are_the_same_on_any_number_of_devices(n_devices):
    images = random_images(8, 12, 12, 3)
    index = np.arange(8, dtype=np.int32)
    mesh = jax.make_mesh(
        (n_devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n_devices]
    )
    rows = NamedSharding(mesh, PartitionSpec("data"))
    train = jax.jit(
        augment.make_views(12, **SIMPLE).train,
        in_shardings=(NamedSharding(mesh, PartitionSpec()), rows, rows),
        out_shardings=rows,
    )
    views = train(jax.random.key(0), images, index)
    np.testing.assert_allclose(views, train_once(images, 12, **SIMPLE), atol=1e-5)


def test_switching_operators_on_does_not_change_the_randomness_of_another():
    images = np.repeat(random_images(1, 8, 8, 3), 64, axis=0)
    flips = OFF | {"flip_probability": 0.5}
    # Both commute with the flip, so that the flips of the two runs can be compared.
    others = {"blur_probability": 1.0, "blur_sigma": (1.0, 1.0), "solarize_probability": 1.0}
    alone, beside = train_once(images, 8, **flips), train_once(images, 8, **flips | others)
    assert not np.allclose(alone, beside)
    np.testing.assert_array_equal(is_like_the_first(alone), is_like_the_first(beside))


def is_like_the_first(views: np.ndarray) -> np.ndarray:
    """Of views that are one image or its mirror image: which are the same as the first."""
    return np.isclose(views, views[:1, :1]).all(axis=(2, 3, 4))


# --- the one-branch protocol ------------------------------------------------------------------


def test_quarter_turns_are_turns_of_the_image_by_whole_quarters():
    image = np.random.default_rng(3).integers(0, 256, (24, 8, 8, 3), np.uint8)
    settings = {"crop_probability": 0.0, "flip_probability": 0.0, "jitter_probability": 0.0}
    settings |= {"grayscale_probability": 0.0, "rotate_probability": 1.0, "rotate_quarters": True}
    views = augment.make_views(8, **settings)
    turned = views.train(jax.random.key(0), jnp.asarray(image), jnp.arange(24))[:, 0]
    forms = np.stack([np.rot90(image / 255.0, k, axes=(1, 2)) for k in range(4)])
    distance = np.abs(forms - np.asarray(turned)).max(axis=(2, 3, 4))
    assert distance.min(axis=0).max() < 1e-4
    assert set(distance.argmin(axis=0)) == {0, 1, 2, 3}


def test_one_branch_leaves_the_last_view_plain():
    images = random_images(8, 12, 12, 3)
    views = train_once(images, 12, one_branch=True, **SIMPLE)
    np.testing.assert_allclose(views[:, 1], as_unit(images), atol=1e-7)
    both = train_once(images, 12, **SIMPLE)
    np.testing.assert_allclose(views[:, 0], both[:, 0], atol=1e-5)
    assert not np.allclose(views[:, 1], both[:, 1])


def test_the_base_crop_is_one_random_crop_shared_by_all_views_of_an_example():
    images = np.repeat(random_images(1, 12, 12, 3), 4, axis=0)
    settings = {"base_crop_probability": 1.0, "flip_probability": 1.0, "one_branch": True}
    views = train_once(images, 12, **OFF | settings)
    np.testing.assert_allclose(views[:, 0], views[:, 1, :, ::-1], atol=1e-6)
    assert len(np.unique(views[:, 1].reshape(4, -1), axis=0)) == 4


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flip_probability", 1.5),
        ("jitter_probability", float("nan")),
        ("crop_probability", "always"),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.2, 1.5)),
        ("crop_scale", 0.2),
        ("crop_ratio", (0.5, float("inf"))),
        ("blur_sigma", (0.0, 2.0)),
        ("brightness", -0.1),
        ("noise_std", float("inf")),
        ("hue", 0.6),
        ("rotate_degrees", 270.0),
        ("cutout_fraction", 1.2),
        ("translate_fraction", -0.1),
        ("solarize_threshold", 2.0),
        ("brightness_form", "linear"),
        ("rotate_fill", "mirror"),
        ("n_views", 0),
        ("size", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(name, value):
    settings = {"size": 8} | {name: value}
    with pytest.raises(ValueError, match=f"{name}=") as error:
        augment.make_views(**settings)
    assert str(value) in str(error.value)
    assert "; use " in str(error.value)


def test_one_branch_needs_two_views():
    with pytest.raises(ValueError, match="n_views=1 .* >= 2"):
        augment.make_views(8, n_views=1, one_branch=True)


def test_color_operators_on_one_channel_are_refused_by_name():
    images, index = jnp.zeros((2, 8, 8, 1), jnp.uint8), jnp.arange(2)
    with pytest.raises(ValueError, match="1 channels.*grayscale.*saturation.*hue"):
        augment.make_views(8).train(jax.random.key(0), images, index)


@pytest.mark.parametrize(
    ("images", "index", "message"),
    [
        (jnp.zeros((2, 8, 8, 3)), jnp.arange(2), "float32.*give uint8"),
        (jnp.zeros((8, 8, 3), jnp.uint8), jnp.arange(8), r"\[8, 8, 3\]"),
        (jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.arange(3), "one integer an example"),
        (jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.zeros(2), "one integer an example"),
    ],
)
def test_batches_of_the_wrong_shape_or_type_are_refused(images, index, message):
    with pytest.raises(ValueError, match=message):
        augment.make_views(8).train(jax.random.key(0), images, index)


# --- multi-crop ---------------------------------------------------------------------------------


def test_small_views_are_parts_of_their_size_and_leave_the_large_ones_alone():
    images = random_images(2, 16, 16, 3)
    settings = {**SIMPLE, "crop_scale": (0.5, 1.0), "flip_probability": 0.0}
    views = augment.make_views(8, n_small_views=3, small_size=4, **settings)
    assert views.crops is None  # the host would cut one size
    assert views.small is not None
    key, index = jax.random.key(0), np.arange(2, dtype=np.int32)
    small = np.asarray(jax.jit(views.small)(key, images, index))
    assert small.shape == (2, 3, 4, 4, 3)
    alone = np.asarray(jax.jit(views.small)(key, images[1:], index[1:]))
    np.testing.assert_allclose(small[1:], alone, rtol=1e-6)  # another program may round otherwise
    assert len(np.unique(small[0].round(4), axis=0)) == 3  # keys of their own
    large = jax.jit(views.train)(key, images, index)
    np.testing.assert_array_equal(large, train_once(images, 8, **settings))


def test_a_small_view_of_the_whole_image_is_the_image_made_small():
    images = random_images(1, 8, 8, 3)
    whole = {"small_crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip_probability": 0.0}
    views = augment.make_views(8, n_small_views=1, small_size=4, **SIMPLE, **whole)
    assert views.small is not None
    small = jax.jit(views.small)(jax.random.key(0), images, np.zeros(1, np.int32))[:, 0]
    np.testing.assert_allclose(small, augment.make_views(4).evaluate(images), atol=1e-5)


def test_small_views_beside_one_branch_are_refused():
    with pytest.raises(ValueError, match="n_small_views=2 and one_branch=True"):
        augment.make_views(8, n_small_views=2, one_branch=True)
