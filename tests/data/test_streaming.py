"""Sets on disk: the order, the crops and the features are those of the rule, whoever reads them."""

import contextlib
import functools
import io
import multiprocessing
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from benchmarks.shared import photos
from contrastive_jax import augment, data, parallel, training
from contrastive_jax.augment.geometry import sample_crop_box
from contrastive_jax.data import decode
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops, LossOutput, Objective

N_TRAIN, N_TEST, BATCH, SIZE = 40, 12, 16, 16
CROPS = Crops(n_views=2, size=SIZE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))


def jpegs(n, seed):
    return photos.photos(n, (24, 64), (24, 64), seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    photos.write_set(root, {"train": jpegs(N_TRAIN, 0), "validation": jpegs(N_TEST, 1)})
    return root


def load(root, **arguments):
    arguments = {"batch_size": BATCH, "image_size": SIZE, "streaming": True, **arguments}
    return data.load("tfds", name="snapshots", data_dir=root, test_split="validation", **arguments)


@contextlib.contextmanager
def streaming(root, seed=3, **arguments):
    feed = data.train_feed(load(root, **arguments), seed, CROPS)
    with contextlib.closing(feed):
        yield feed


def stored(root, split="train"):
    """The records themselves, in order."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(root / "snapshots" / "1.0.0"))
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# boxes and crops


@pytest.mark.parametrize("shape", [(375, 500), (500, 60)])
def test_boxes_on_the_host_are_those_of_the_device_for_the_same_numbers(shape):
    keys = jax.random.split(jax.random.key(0), 500)

    @jax.jit
    @jax.vmap
    def sample(key):
        return sample_crop_box(key, *shape), jax.random.uniform(key, (decode.UNIFORMS,))

    device, uniform = sample(keys)
    host = [decode.crop_box(u, *shape, CROPS.scale, CROPS.ratio) for u in np.asarray(uniform)]
    left, top, right, bottom = np.array(host, np.float32).T
    expected = np.stack([device.left, device.top, device.width, device.height])
    difference = np.abs(np.stack([left, top, right - left, bottom - top]) - expected)
    assert difference.max() <= 1  # float32 may round a half otherwise
    assert np.mean(difference > 0) < 0.005


def test_crops_are_pillows_and_of_one_box_each():
    encoded = jpegs(1, 5)[0]
    views = decode.cut_views(encoded, "RGB", CROPS, seed=1, epoch=2, index=3)
    whole = Image.open(io.BytesIO(encoded))
    for view, pixels in enumerate(views):
        uniform = decode._uniform(1, 2, 3, view)
        box = decode.crop_box(uniform, whole.height, whole.width, CROPS.scale, CROPS.ratio)
        expected = whole.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert not np.array_equal(*views)


def test_a_large_jpeg_decoded_small_gives_nearly_the_same_crops(monkeypatch):
    encoded = photos.photo(np.random.default_rng(0), 600, 803)
    large = CROPS._replace(scale=(0.6, 1.0))
    cut = functools.partial(decode.cut_views, encoded, "RGB", large, 0, 0)
    fast = [cut(i).astype(int) for i in range(4)]
    assert decode._decode_smaller(Image.open(io.BytesIO(encoded)), [(0, 0, 512, 512)], SIZE) == 8
    monkeypatch.setattr(decode, "_decode_smaller", lambda *args: 1)
    exact = [cut(i).astype(int) for i in range(4)]
    assert np.abs(np.array(fast) - exact).mean() < 1
    assert np.abs(np.array(fast) - exact).max() <= 12


# the feed


def test_an_epoch_visits_every_image_once_in_the_order_of_the_feed_in_memory(root):
    dataset = load(root, limit_train=36)
    in_memory = data.feed(
        {"image": np.zeros((36, 1, 1, 1), np.uint8), "label": np.zeros(36)}, 12, 3
    )
    records = stored(root)
    with streaming(root, batch_size=12, limit_train=36) as feed:
        epochs = [[feed.batch_at(step) for step in range(e, e + 3)] for e in (0, 3)]
    for batch, step in zip(sum(epochs, []), range(6), strict=True):
        np.testing.assert_array_equal(batch["index"], in_memory.batch_at(step)["index"])
        assert batch["label"].tolist() == [records[int(i)]["label"] for i in batch["index"]]
    for epoch in epochs:
        assert sorted(np.concatenate([batch["index"] for batch in epoch])) == list(range(36))
    assert dataset.n_train == 36


def test_a_crop_is_a_function_of_seed_epoch_index_and_view(root):
    records = stored(root)
    with streaming(root, seed=4) as feed:
        batch = feed.batch_at(2)  # 40 images in batches of 16: the first of epoch 1
    for place, index in enumerate(batch["index"].tolist()):
        views = decode.cut_views(records[index]["image"], "RGB", CROPS, 4, 1, index)
        np.testing.assert_array_equal(batch["image"][place], views)


def test_the_stream_after_a_resume_equals_the_uninterrupted_one_with_any_number_of_workers(root):
    with streaming(root, batch_size=18) as uninterrupted:  # two chunks each, two batches an epoch
        batches = [uninterrupted.batch_at(step) for step in range(5)]
        assert_same(uninterrupted.batch_at(1), batches[1])
        assert_same(uninterrupted.batch_at(2), batches[2])
    with streaming(root, batch_size=18, workers=2) as resumed:
        for step in (1, 2, 3, 4):
            assert_same(resumed.batch_at(step), batches[step])
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_the_spec_of_a_feed_is_that_of_its_batches(root):
    with streaming(root) as feed:
        batch = feed.batch_at(0)
        assert {k: (x.shape, x.dtype) for k, x in batch.items()} == {
            k: (s.shape, s.dtype) for k, s in feed.spec.items()
        }


# the device's part


def test_the_device_continues_from_crops_as_from_its_own():
    rng, key = np.random.default_rng(0), jax.random.key(7)
    image, index = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8), np.arange(3)
    others = {"jitter_probability": 0.0, "noise_probability": 0.5}
    whole = augment.make_views(SIZE, crop_probability=0.0, **others)
    cut = augment.make_views(SIZE, crop_scale=CROPS.scale, **others)
    assert cut.crops == CROPS
    twice = np.stack([image, image], axis=1)
    expected = jax.jit(whole.train)(key, image, index)
    np.testing.assert_allclose(jax.jit(cut.train)(key, twice, index), expected, atol=1e-6)
    np.testing.assert_array_equal(cut.evaluate(twice), cut.evaluate(image))


@pytest.mark.parametrize(
    "setting", [{"base_crop_probability": 0.5}, {"crop_probability": 0.5}, {"one_branch": True}]
)
def test_settings_that_need_the_whole_image_are_refused(root, setting):
    views = augment.make_views(SIZE, **setting)
    with pytest.raises(ValueError, match="crop_probability 1"):
        data.train_feed(load(root), 0, views.crops)
    with pytest.raises(ValueError, match="give uint8"):
        views.train(jax.random.key(0), np.zeros((1, 2, SIZE, SIZE, 3), np.uint8), np.arange(1))


def test_crops_of_another_size_or_number_are_refused():
    views = augment.make_views(SIZE)
    with pytest.raises(ValueError, match="crops uint8 .B, 2, 16, 16, C."):
        views.train(jax.random.key(0), np.zeros((1, 3, SIZE, SIZE, 3), np.uint8), np.arange(1))


def test_training_continues_bit_for_bit_after_a_stop(root):
    mesh = parallel.make_mesh()
    views = augment.make_views(SIZE, jitter_probability=0.0, grayscale_probability=0.0)

    def loss(w_HWC, model_state, batch, key, step):
        view_BVHWC = views.train(key, batch["image"], batch["index"])
        return jnp.tanh(view_BVHWC * w_HWC[None, None]).mean(), LossOutput(model_state, {})

    init = lambda key, batch: (jnp.ones((SIZE, SIZE, 3)), {})  # noqa: E731
    objective, optimizer = Objective(init, loss, lambda *_: {}), optax.sgd(0.1)

    def run(state, **stopping):
        rows = []
        with contextlib.closing(data.train_feed(load(root), 0, views.crops)) as feed:
            state = state or training.make_init(objective, optimizer, feed, mesh)(0)
            plan, write = training.Plan(4, 0, 1), lambda step, row: rows.append((step, row))
            options = {"plan": plan, "mesh": mesh, "write": write, **stopping}
            return training.run(objective, optimizer, feed, state, **options).state, rows

    uninterrupted, rows = run(None)
    asked = iter([False, True])
    stopped, before = run(None, stop=lambda: next(asked))
    resumed, after = run(stopped)
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert before + after == rows
    np.testing.assert_array_equal(resumed.params, uninterrupted.params)


# what evaluation sees


def test_evaluation_sees_the_center_of_each_image(root):
    dataset, records = load(root, limit_test=5), stored(root, "validation")
    assert dataset.test["image"].shape == (5, SIZE, SIZE, 3)
    assert dataset.test["label"].tolist() == [records[i]["label"] for i in range(5)]
    for i, seen in enumerate(dataset.test["image"][:]):
        whole = Image.open(io.BytesIO(records[i]["image"]))
        side = min(whole.size) * 7 / 8
        left, top = (whole.width - side) / 2, (whole.height - side) / 2
        box = (left, top, left + side, top + side)
        expected = whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
        np.testing.assert_array_equal(seen, expected)


def test_images_on_disk_are_indexed_like_an_array(root):
    image = load(root).test["image"]
    whole = image[:]
    assert len(image) == len(whole) == N_TEST
    for chosen in (3, slice(2, 9, 3), np.array([[4, 4], [0, 11]]), np.arange(N_TEST) % 2 == 0, []):
        chosen = np.array(chosen, int) if isinstance(chosen, list) else chosen
        np.testing.assert_array_equal(image[chosen], whole[chosen])


def test_the_bank_is_a_fixed_sample_of_the_training_images(root):
    bank, whole = load(root, bank=10).train, load(root).train
    assert len(bank["label"]) == len(bank["image"]) == 10
    assert len(whole["label"]) == N_TRAIN
    again = load(root, bank=10, batch_size=8).train
    np.testing.assert_array_equal(bank["image"][:], again["image"][:])
    in_whole = {x.tobytes() for x in whole["image"][:]}
    assert {x.tobytes() for x in bank["image"][:]} <= in_whole


# faults


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """One of the JPEGs ends early, one is none at all."""
    root, encoded = tmp_path_factory.mktemp("damaged"), jpegs(N_TRAIN, 0)
    encoded[17] = encoded[17][:200]  # its place in the set is where the writer's shuffle put it
    photos.write_set(root, {"train": encoded, "validation": [b"nothing", *jpegs(2, 1)]})
    return root


def shortest(root, split):
    """The place of the smallest record."""
    records = stored(root, split)
    return min(range(len(records)), key=lambda i: len(records[i]["image"]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_jpeg_is_named_and_ends_the_reading(damaged, workers):
    named = f"example {shortest(damaged, 'train')} of split 'train'"
    with streaming(damaged, batch_size=N_TRAIN, workers=workers) as feed:
        with pytest.raises(DataError, match=named) as error:
            feed.batch_at(0)
        assert multiprocessing.active_children() == []
    assert len(str(error.value).splitlines()) <= 3
    images = load(damaged).test["image"]
    with pytest.raises(DataError, match=f"{shortest(damaged, 'validation')} of split 'validation'"):
        images[:]


@pytest.mark.parametrize("workers", [0, 1])
def test_with_skip_the_next_image_is_shown_in_place_of_a_broken_one(damaged, root, workers):
    """`root` holds the same images, all of them whole."""
    bad = shortest(damaged, "train")
    settings = {"batch_size": N_TRAIN, "workers": workers}
    with streaming(damaged, on_corrupt="skip", **settings) as feed:
        skipping = [feed.batch_at(step) for step in (0, 1)]
    with streaming(root, **settings) as feed:
        whole = [feed.batch_at(step) for step in (0, 1)]
    for epoch, (seen, wanted) in enumerate(zip(skipping, whole, strict=True)):
        place = wanted["index"].tolist().index(bad)
        instead = wanted["index"].tolist().index((bad + 1) % N_TRAIN)
        others = np.arange(N_TRAIN) != place
        for name in ("image", "label", "index"):
            np.testing.assert_array_equal(seen[name][others], wanted[name][others], err_msg=epoch)
            np.testing.assert_array_equal(seen[name][place], wanted[name][instead])


def test_with_skip_what_evaluation_reads_still_has_to_be_whole(damaged):
    with pytest.raises(DataError, match="of split 'validation'"):
        load(damaged, on_corrupt="skip").test["image"][:]


def test_a_worker_that_is_killed_ends_the_reading_with_its_examples(root):
    with streaming(root, workers=2) as feed:
        feed.batch_at(0)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(DataError, match="exit code -9") as error:
            [feed.batch_at(step) for step in range(1, 20)]
        assert multiprocessing.active_children() == []
        lines = str(error.value).splitlines()
        assert len(lines) == 3
        assert re.fullmatch(r"It was at examples (\d+, ){15}\d+ of split 'train'", lines[1])


def test_without_grain_the_remedy_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(DataError, match="pip install grain"):
        load(root)


def test_a_set_that_is_not_there_names_the_command_that_builds_it(tmp_path):
    with pytest.raises(DataError, match="tfds build imagenet2012 --file_format=array_record"):
        data.load(
            "tfds",
            name="imagenet2012",
            data_dir=tmp_path,
            batch_size=4,
            image_size=8,
            streaming=True,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"streaming": False, "workers": 2}, "workers=2.*streaming=True only"),
        ({"image_size": None}, "needs image_size and a source of tfds"),
        ({"workers": -1}, "workers is -1"),
        ({"bank": 0}, "bank is 0"),
        ({"batch_size": N_TRAIN + 1}, f"has {N_TRAIN} examples"),
    ],
)
def test_arguments_that_cannot_be_meant_are_value_errors(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(root, **arguments)
