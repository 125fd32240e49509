"""Labeled images that are captioned by templates: what is shown, what is refused."""

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import captions
from contrastive_jax.data.text import tokens
from contrastive_jax.errors import DataError

PROMPTS = ("a photo of the digit {}", "{}")


def load(source="digits", **settings):
    return data.load(source, **{"batch_size": 32, "prompts": PROMPTS} | settings)


def test_each_template_captions_an_image_by_the_name_of_its_class():
    loaded = load()
    for examples in (loaded.train, loaded.test):
        assert (examples["id"] == examples["label"]).all()
        assert (examples["tokens"] == examples["captions"][:, 0]).all()
        for row in (0, 77, 400):
            written = [captions.caption_of(c, loaded.vocabulary) for c in examples["captions"][row]]
            assert written == [prompt.format(examples["label"][row]) for prompt in PROMPTS]
    assert data.identity(loaded)["sha256"] != data.identity(load(prompts=PROMPTS[:1]))["sha256"]


def test_training_shows_one_of_the_templates_a_function_of_seed_epoch_and_example():
    loaded = load(limit_train=64)

    def shown(seed):
        feed = data.train_feed(loaded, seed)
        batches = [feed.assemble(feed.resident, feed.batch_at(at)) for at in range(4)]
        return [np.asarray(batch["tokens"]) for batch in batches], batches

    (first, batches), (again, _), (other, _) = shown(0), shown(0), shown(1)
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert not all((one == two).all() for one, two in zip(first, other, strict=True))
    for rows, batch in zip(first, batches, strict=True):
        known = loaded.train["captions"][np.asarray(batch["index"])]
        assert (known == rows[:, None]).all(axis=2).any(axis=1).all()
        assert len({len(np.trim_zeros(row)) for row in rows}) == 2  # both of them


def test_a_tokenizer_makes_the_tokens(tmp_path):
    trained = tokens.train(["a photo of the digit 0 1 2 3 4 5 6 7 8 9"], 60)
    (tmp_path / "tokenizer.json").write_text(trained.json)
    prompts, file = ("{} in a photo of the digit", "{}"), str(tmp_path / "tokenizer.json")
    loaded = load(tokenizer=file, context=3, prompts=prompts)
    assert loaded.tokenizer is not None
    assert loaded.train["tokens"].shape[1] == 3  # and what comes after is cut off
    assert loaded.tokenizer.decode(loaded.train["captions"][0, 1:]) == [
        str(loaded.train["label"][0])
    ]


def arrays(path, label, text=None):
    image = np.zeros((len(label), 4, 4, 1), np.uint8)
    parts = {"image": image, "label": np.array(label)} | ({} if text is None else {"text": text})
    np.savez(path, **parts, **{f"test_{name}": part[:2] for name, part in parts.items()})
    return {"source": "arrays", "data_dir": path, "batch_size": 2}


REFUSED = {
    "a template without a slot": ({"prompts": ("a photo", "{}")}, "'a photo' has no {}"),
    "captioned images": ({"source": "glyphs"}, "'glyphs' has no such key"),
    "streaming": ({"source": "tfds", "streaming": True, "image_size": 8}, "leave streaming"),
    "no room": ({"context": 0}, "context is 0; give at least 1 token"),
    "captions cut alike": ({"context": 3}, "class '1' and '0' share a caption"),
    "no prompts": ({"prompts": (), "context": 3}, "'digits' has no such key"),
    "no label": ({"label": [0, 1, -1, 1]}, "1 training images have no label"),
    "one class": ({"label": [0, 0, 0, 0]}, "caption in common"),
    "texts": ({"label": [0, 1, 0, 1], "text": np.array(list("abcd"))}, "texts of its own"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_captioned_is_refused(tmp_path, what):
    settings, message = REFUSED[what]
    settings = dict(settings)
    if "label" in settings:
        settings = arrays(tmp_path / "a.npz", settings["label"], settings.get("text"))
    with pytest.raises((ValueError, DataError), match=message) as error:
        load(**settings)
    assert len(str(error.value).splitlines()) <= 3
