"""Pixels of every stored depth come out as 8 bits, or are refused by name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.shared import photos
from contrastive_jax import data
from contrastive_jax.data import decode
from contrastive_jax.data.features import choose_features
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops
from tests.data import sets
from tests.data.sets import encoded

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
WHOLE = Crops(n_views=1, size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))


def png_of_16_bits(pixels_HWC):
    """A color PNG of 16 bits, which Pillow cannot write."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width, channels = pixels_HWC.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels_HWC)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_keep_their_high_byte_in_views_and_squares(channels):
    pixels = np.stack([np.roll(RAMP, shift) for shift in range(channels)], axis=-1)
    stored, mode = png_of_16_bits(pixels), decode.MODES[channels]
    expected = (pixels >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode.cut_square(stored, mode, None), expected)
    np.testing.assert_array_equal(decode.cut_views(stored, mode, WHOLE, 0, 0, 0)[0], expected)
    eight_bits = png_of_16_bits(257 * (pixels % 256))
    np.testing.assert_array_equal(decode.cut_square(eight_bits, mode, None), pixels % 256)


def test_gray_of_16_bits_fills_three_channels():
    got = decode.cut_square(encoded(RAMP), "RGB", None)
    np.testing.assert_array_equal(got, np.repeat((RAMP >> 8)[..., None], 3, axis=-1))


COLORS = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
RGB = Image.fromarray(COLORS[..., :3])
PALETTE = RGB.quantize(16)
ONE_BIT = Image.fromarray(COLORS[..., 0] > 99)
CASES = {
    "one bit": (ONE_BIT, "PNG", "L", 255 * (COLORS[..., :1] > 99)),
    "a palette": (PALETTE, "PNG", "RGB", np.asarray(PALETTE.convert("RGB"))),
    "a palette of a GIF": (PALETTE, "GIF", "RGB", np.asarray(PALETTE.convert("RGB"))),
    "alpha that the set lacks": (Image.fromarray(COLORS), "PNG", "RGB", COLORS[..., :3]),
    "alpha beside gray": (Image.fromarray(COLORS[..., :2], "LA"), "PNG", "L", COLORS[..., :1]),
    "no alpha": (RGB, "PNG", "RGBA", np.dstack([COLORS[..., :3], np.full((8, 8), 255)])),
    "color in a gray set": (RGB, "BMP", "L", np.asarray(RGB.convert("L"))[..., None]),
}


@pytest.mark.parametrize("what", CASES)
def test_pixels_that_8_bits_hold_are_converted(what):
    image, file_format, mode, expected = CASES[what]
    np.testing.assert_array_equal(
        decode.cut_square(encoded(image, file_format), mode, None), expected
    )


def test_a_cmyk_jpeg_becomes_its_colors():
    flat = Image.new("RGB", (8, 8), (200, 40, 90))
    got = decode.cut_square(encoded(flat.convert("CMYK"), "JPEG"), "RGB", None)
    np.testing.assert_allclose(got, np.asarray(flat), atol=4)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("size", "shrink"), [(40, 4), (80, 2), (200, 1)])
def test_the_center_of_a_large_jpeg_is_that_of_the_same_image_in_another_format(
    size, shrink, orientation, monkeypatch
):
    """Within what a smaller decoding rounds; a size of which two sides fit shrinks no more."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.open(io.BytesIO(photos.photo(np.random.default_rng(0), 350, 471)))
    jpeg, png = (io.BytesIO(), io.BytesIO())
    photo.save(jpeg, "JPEG", quality=95, exif=exif)
    Image.open(jpeg).save(png, "PNG", exif=exif)
    found, real = [], decode._decode_smaller
    monkeypatch.setattr(
        decode, "_decode_smaller", lambda *args: found.append(real(*args)) or found[-1]
    )
    squares = [
        decode.cut_square(file.getvalue(), "RGB", size, share=0.95, upright=True)
        for file in (jpeg, png)
    ]
    assert found == [shrink, 1]
    difference = np.abs(squares[0].astype(int) - squares[1])
    assert difference.mean() < 1.5  # 5.9 when it is a pixel of the file off
    assert difference.max() <= (20 if shrink > 1 else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_cut_of_a_turned_image_is_that_of_the_image_turned_before(orientation):
    """The same boxes, and the centers, as of a file that is stored upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.open(io.BytesIO(photos.photo(np.random.default_rng(0), 60, 91)))
    turned, upright = io.BytesIO(), io.BytesIO()
    smooth.save(turned, "PNG", exif=exif)
    ImageOps.exif_transpose(Image.open(turned)).save(upright, "PNG")
    crops = Crops(n_views=2, size=16, scale=(0.2, 0.9), ratio=(0.7, 1.4))
    for cut in (
        lambda file: decode.cut_views(file.getvalue(), "RGB", crops, 0, 0, 3, upright=True),
        lambda file: decode.cut_square(file.getvalue(), "RGB", 32, share=0.875, upright=True),
        lambda file: decode.cut_square(file.getvalue(), "RGB", None, upright=True),
    ):
        np.testing.assert_allclose(cut(turned).astype(int), cut(upright), atol=1)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_scale_are_refused_by_name(mode):
    with pytest.raises(ValueError, match=f"mode {mode} have no scale"):
        decode._as_mode(Image.new(mode, (2, 2)), "L")


@pytest.mark.parametrize("declared", [np.uint8, np.uint16])
def test_a_set_of_16_bit_images_is_scaled_in_memory_and_streamed(tmp_path, declared):
    import tensorflow_datasets as tfds

    stored = encoded(RAMP)
    features = {
        "image": tfds.features.Image(shape=(8, 8, 1), dtype=declared, encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    splits = {split: [{"image": stored, "label": 1}] * 2 for split in ("train", "test")}
    sets.write(tmp_path, "deep", "1.0.0", features, splits)
    expected = (RAMP >> 8).astype(np.uint8)[..., None]
    loaded = data.load("tfds", name="deep", data_dir=tmp_path, batch_size=2)
    for split in (loaded.train, loaded.test):
        np.testing.assert_array_equal(split["image"], np.stack([expected] * 2))
    streamed = data.load(
        "tfds", name="deep", data_dir=tmp_path, batch_size=2, streaming=True, image_size=8
    )
    feed = data.train_feed(streamed, 0, WHOLE)
    np.testing.assert_array_equal(feed.batch_at(0)["image"][:, 0], np.stack([expected] * 2))
    feed.close()
    assert len(np.unique(streamed.test["image"][:])) > 16


def test_a_set_of_floats_is_refused_by_name():
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(8, 8, 1), dtype=np.float32, encoding_format="png")
    with pytest.raises(DataError, match="floats: feature 'image' is float32"):
        choose_features({"image": image}, None, None, Path("floats"))
