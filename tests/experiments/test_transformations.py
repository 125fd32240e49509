"""What a probe knows of transformations: all of it, or chance, on sets known to the pixel."""

import numpy as np
import pytest

from experiments.scoring import images as kind
from experiments.scoring import transformations


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("name", transformations.FORMS)
def test_each_image_is_there_in_each_form_and_first_as_it_is(name, images):
    made, form = transformations.transformed(images, name, seed=0)
    count = len(transformations.FORMS[name])
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(form, np.repeat(np.arange(count), len(images)))
    np.testing.assert_array_equal(made[: len(images)], images)
    assert not np.array_equal(made[len(images) : 2 * len(images)], images)


def test_turned_images_are_numpys_and_gray_ones_have_equal_channels(images):
    turned, form = transformations.transformed(images, "rotation", seed=0)
    for quarters in range(4):
        expected = np.rot90(images, quarters, axes=(1, 2))
        np.testing.assert_array_equal(turned[form == quarters], expected)
    gray = transformations.transformed(images, "color", seed=0)[0][len(images) :]
    np.testing.assert_array_equal(gray, np.repeat(gray[..., :1], 3, axis=-1))


def test_noise_has_its_standard_deviation_and_follows_the_seed():
    middle = np.full((20, 16, 16, 3), 128, np.uint8)
    first, again, other = (
        transformations.transformed(middle, "noise", seed)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_allclose(
        first[20:].std() / 255, transformations.NOISE_STD, rtol=0.02
    )  # clipped only beyond five deviations
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_layer_that_holds_the_answer_scores_1_and_one_without_it_chance(images):
    def extract(image):
        x = image / 255.0
        return {
            "features": x.std(axis=-1).mean(axis=(1, 2))[:, None].astype(np.float32),
            "embedding": np.zeros((len(image), 2), np.float32),
        }

    settings = {"seed": 0, "l2_grid": (1e-3,), "max_steps": 50, "representation": "trained"}
    sets = (images[:30], images[30:])
    h, z = transformations.rows("color", extract, *sets, **settings)
    assert (h["layer"], h["value"]) == ("features", 1.0)
    assert (z["layer"], z["value"]) == ("embedding", 0.5)
    assert h["n"] == 20
    for row in (h, z):
        assert row["protocol"]["predicts"] == "color"
        assert row["protocol"]["train_size"] == 60


def test_what_cannot_be_asked_is_refused_with_its_shape_or_name(images):
    with pytest.raises(ValueError, match=r"'rotation', but images are 8x6x3"):
        transformations.transformed(images[:, :, :6], "rotation", seed=0)
    with pytest.raises(ValueError, match=r"'color', but images are 8x8x1"):
        transformations.transformed(images[..., :1], "color", seed=0)
    with pytest.raises(ValueError, match="eval.predict is 'rotate'"):
        kind.settings(predict="rotate")
