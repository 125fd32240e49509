"""Captioned images by a list: what is read, split and joined, what is shown, what breaks."""

import json

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.augment import make_views
from contrastive_jax.data import caption_feed, captioned, captions
from contrastive_jax.data.text import tokens
from contrastive_jax.errors import DataError
from contrastive_jax.training import step

N = 12


def write(folder, ending=".jsonl", rows=None, n=N):
    """Write images of one shade each, and a list of them whose captions are their numbers."""
    (folder / "photos").mkdir(exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full((9, 10, 3), 10 * i, np.uint8)).save(folder / f"photos/{i}.png")
    if rows is None:
        rows = [(f"photos/{i}.png", [f"number {i}", f"a {i} again"][: 1 + i % 2]) for i in range(n)]
    path = folder / f"list{ending}"
    if ending == ".jsonl":
        path.write_text("".join(json.dumps({"image": i, "texts": t}) + "\n" for i, t in rows))
    else:
        mark = "\t" if ending == ".tsv" else ","
        lines = [mark.join(("filepath", "title"))]
        lines += [mark.join((image, text)) for image, texts in rows for text in texts]
        path.write_text("\n".join(lines))
    return path


def load(path, **settings):
    return data.load("captions", **{"batch_size": 4, "path": path, "image_size": 8} | settings)


def shades(loaded, examples):
    """The number of each image, read off its pixels and off each of its captions."""
    image_N = np.asarray(examples["image"][np.arange(len(examples["image"]))])
    of_image = (image_N[:, 4, 4, 0] // 10).tolist()
    of_text = []
    for row, count in zip(examples["captions"], examples["n_captions"], strict=True):
        written = [captions.caption_of(each, loaded.vocabulary) for each in row[:count]]
        of_text.append({int("".join(filter(str.isdigit, each)) or -1) for each in written})
    return of_image, of_text


def concepts(examples):
    return dict(zip(examples["image"][:, 4, 4, 0] // 10, examples["id"], strict=True))


@pytest.mark.parametrize("ending", [".jsonl", ".tsv", ".csv"])
def test_images_keep_their_captions_in_both_splits(tmp_path, ending):
    rows = [(f"photos/{i}.png", [f"number {i % 10} of {i % 10}"]) for i in range(10)]
    rows.append(("photos/0.png", ["again 0 0"]))  # another caption of the first
    loaded = load(write(tmp_path, ending, rows), test_fraction=0.2)
    assert len(loaded.train["id"]), len(loaded.test["id"]) == (8, 2)
    seen = []
    for examples in (loaded.train, loaded.test):
        assert (examples["tokens"] == examples["captions"][:, 0]).all()
        seen += (examples["image"][:, 4, 4, 0] // 10).tolist()
    assert sorted(seen) == list(range(10))
    words = {str(i) for i in (loaded.train["image"][:, 4, 4, 0] // 10).tolist()}
    for row, image in zip(loaded.train["captions"], loaded.train["image"], strict=True):
        assert str(image[4, 4, 0] // 10) in captions.caption_of(row[0], loaded.vocabulary)
    assert words <= set(loaded.vocabulary)  # of training alone
    counts = np.concatenate([loaded.train["n_captions"], loaded.test["n_captions"]])
    assert sorted(counts.tolist()) == [1] * 9 + [2]


def test_the_split_is_that_of_its_seed_or_of_a_second_list(tmp_path):
    path = write(tmp_path)
    first, again, other = load(path), load(path), load(path, split_seed=1)
    digests = [data.identity(each)["sha256"] for each in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "other").mkdir()
    test = load(path, test_path=write(tmp_path / "other", n=3)).test
    assert sorted((test["image"][:, 4, 4, 0] // 10).tolist()) == [0, 1, 2]


def test_images_that_share_a_caption_are_one_concept(tmp_path):
    texts = [["A cat", "one"], ["a  CAT"], ["a dog"], ["one"], ["a bird"], ["a dog", "wet"]]
    rows = [(f"photos/{i}.png", each) for i, each in enumerate(texts)]
    loaded = load(write(tmp_path, rows=rows), test_path=write(tmp_path, ".tsv", rows))
    by_image = concepts(loaded.train)
    groups = [by_image[i] for i in range(6)]
    assert groups[0] == groups[1] == groups[3]
    assert groups[2] == groups[5]
    assert len(set(groups)) == 3
    assert concepts(loaded.test) == by_image


def test_one_of_the_captions_is_a_function_of_seed_epoch_and_example(tmp_path):
    rows = [(f"photos/{i}.png", [f"text {j}" for j in range(i, i + 3)]) for i in range(6)]
    distinct = [(path, [f"{path[7]} {j}" for j in range(3)]) for path, _ in rows]
    loaded = load(write(tmp_path, rows=distinct), batch_size=2)

    def shown(seed):
        feed = data.train_feed(loaded, seed)
        steps = 12 * (loaded.n_train // 2)
        batches = [feed.assemble(feed.resident, feed.batch_at(at)) for at in range(steps)]
        assert "captions" not in batches[0]
        return {
            (at // (loaded.n_train // 2), int(i)): row.tolist()
            for at, batch in enumerate(batches)
            for i, row in zip(batch["index"], np.asarray(batch["tokens"]), strict=True)
        }

    first, again, other = shown(0), shown(0), shown(1)
    assert first == again != other
    for (_, index), row in first.items():
        assert row in loaded.train["captions"][index].tolist()
    assert len({str(row) for (_, index), row in first.items() if index == 0}) == 3


def test_streamed_images_come_with_the_captions_of_memory(tmp_path):
    path = write(tmp_path)
    whole, streamed = load(path), load(path, streaming=True)
    assert streamed.n_train == whole.n_train
    for one, other in ((whole.train, streamed.train), (whole.test, streamed.test)):
        assert (one["tokens"] == other["tokens"]).all()
        assert (one["id"] == other["id"]).all()
    assert shades(streamed, streamed.train)[0] == shades(whole, whole.train)[0]
    views = make_views(size=8, n_views=1, jitter_probability=0.0, grayscale_probability=0.0)
    feed, in_memory = data.train_feed(streamed, 0, views.crops), data.train_feed(whole, 0)
    try:
        for at in (0, 3):
            one, other = (f.assemble(f.resident, f.batch_at(at)) for f in (feed, in_memory))
            assert (one["tokens"] == other["tokens"]).all()
            assert (one["id"] == other["id"]).all()
            shade = np.asarray(one["image"])[:, 0, 4, 4, 0]
            assert (shade == np.asarray(other["image"])[:, 4, 4, 0]).all()
        spec = step.batch_spec(feed)
        assert {name: s.shape for name, s in spec.items()} == {n: x.shape for n, x in one.items()}
    finally:
        feed.close()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_or_broken_image_is_named_with_its_line_or_skipped(tmp_path, streaming, caplog):
    path = write(tmp_path)
    (tmp_path / "photos/3.png").unlink()
    (tmp_path / "photos/7.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"photos/[37].png \(line [48] of list.jsonl\)") as error:
        load(path, streaming=streaming)
    assert len(str(error.value).splitlines()) <= 3
    loaded = load(path, streaming=streaming, on_corrupt="skip")
    assert "line 4 of list.jsonl" in caplog.text
    assert "line 8 of list.jsonl" in caplog.text
    left = [shades(loaded, part) for part in (loaded.train, loaded.test)]
    assert sorted(i for of_image, _ in left for i in of_image) == [
        i for i in range(N) if i not in (3, 7)
    ]


def test_empty_and_long_captions_are_counted(tmp_path, caplog):
    rows = [(f"photos/{i}.png", [f"a {i}"]) for i in range(8)]
    rows[2] = ("photos/2.png", ["", "one two three four five"])
    rows[5] = ("photos/5.png", [" "])
    loaded = load(write(tmp_path, rows=rows), context=3, test_fraction=0.2)
    for note in ("2 empty captions", "1 images without a caption", "captions are cut off behind 3"):
        assert note in caplog.text
    assert max(part["tokens"].shape[1] for part in (loaded.train, loaded.test)) == 3
    assert len(loaded.train["id"]) + len(loaded.test["id"]) == 7


def test_a_tokenizer_of_a_file_makes_the_tokens(tmp_path):
    trained = tokens.train(["number again a 0 1 2 3 4 5 6 7 8 9"], 60)
    (tmp_path / "tokenizer.json").write_text(trained.json)
    loaded = load(write(tmp_path), tokenizer=str(tmp_path / "tokenizer.json"), context=5)
    text = captions.caption_of(loaded.train["tokens"][0], loaded.vocabulary)
    assert text.startswith(("number", "a "))
    language = captions.Language(loaded.vocabulary, loaded.tokenizer)
    assert (captions.encode([text], language)[0] == loaded.train["tokens"][0][:2]).all()


FAULTS = {
    "one caption": ([(f"photos/{i}.png", ["a", f"{i}"]) for i in range(6)], "caption in common"),
    "few concepts": (
        [(f"photos/{i}.png", ["a cat" if i > 2 else "a dog"]) for i in range(11)],
        "hold one concept",
    ),
    "no caption": ([("photos/0.png", [""])], "has no caption"),
    "one image": ([("photos/0.png", ["a"])], "lists one image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_lists_that_teach_nothing_are_refused(tmp_path, fault):
    rows, message = FAULTS[fault]
    with pytest.raises(DataError, match=message) as error:
        load(write(tmp_path, rows=rows), batch_size=2)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("batch_size", [1, 2, 512, 2999])
def test_many_images_with_captions_of_their_own_are_fine(batch_size):
    captioned.refuse_few_concepts(np.arange(3000), batch_size, "a.jsonl")


def test_broken_lines_and_wrong_keys_are_refused(tmp_path):
    path = write(tmp_path)
    path.write_text('{"image": "a.png"}\n{"image": "", "text": "a"}\nno json\n')
    with pytest.raises(DataError, match=r"3 broken lines: line 1 .*line 2 .*line 3"):
        load(path)
    with pytest.raises(DataError, match="no list of captioned images"):
        load(tmp_path / "photos")
    with pytest.raises(ValueError, match="needs data.path"):
        load(None)
    with pytest.raises(ValueError, match="Leave them unset"):
        load(path, data_dir=tmp_path)
    with pytest.raises(ValueError, match="leave one out"):
        load(path, test_path=path, test_fraction=0.5)
    with pytest.raises(ValueError, match="'digits' has no such key"):
        data.load("digits", batch_size=4, path=path)


def test_captions_are_drawn_evenly():
    numbers = caption_feed._numbers(0, 0, 30_000) % 3
    assert np.abs(np.bincount(numbers) / 10_000 - 1).max() < 0.05
