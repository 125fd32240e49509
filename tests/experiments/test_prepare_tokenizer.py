"""CLIP's tokenizer of a tiny vocabulary; the tokens are those of open_clip's SimpleTokenizer."""

import gzip

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.data.text import tokens
from contrastive_jax.errors import DataError
from contrastive_jax.objectives import two_towers
from experiments import prepare
from experiments.preparing import clip_tokenizer

PAIRS = ("c a", "ca t</w>", "p h", "ph o", "t s</w>", "ca ts</w>", "' s</w>", "2 4</w>", "a n")
CONTEXT = 9
TOKENS = {  # of at most CONTEXT; the last one is cut off
    "A cat\u2019s photo": [521, 320, 513, 518, 515, 83, 334, 522],
    "CATS,  cats\t24!?\n": [521, 517, 267, 517, 273, 275, 0, 286, 522],
    "\u00dcn cafe\u0301": [521, 127, 120, 333, 512, 69, 127, 358, 522],
    "\U0001f600 24 and 2": [521, 172, 253, 246, 478, 273, 275, 520, 522],
    "": [521, 522],
    "don't": [521, 67, 78, 333, 6, 339, 522],
    "one two three four": [521, 78, 77, 324, 83, 86, 334, 83, 522],
}


def write(path, lines):
    with gzip.open(path, "wb") as file:
        file.write("\n".join(lines).encode())
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    path = write(folder / "bpe.txt.gz", ("#version", *PAIRS))
    command = ["prepare", "clip_tokenizer", f"--data_dir={folder}", f"--archive={path}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_tokenizer, "PAIRS", len(PAIRS))
        assert prepare.main(command) == 0
    return tokens.read(folder / "clip_tokenizer.json")


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_are_those_of_open_clip(made, text):
    found = made.encode([text], CONTEXT).tokens_NL[0]
    assert found.tolist() == TOKENS[text]
    assert made.size == 2 * 256 + len(PAIRS) + 2


def test_features_are_those_of_the_end_of_the_text(made):
    """As CLIP's, which are those of the largest token."""
    tokens_NL = made.encode([*TOKENS, "!?! cat"], CONTEXT).tokens_NL
    assert 0 in tokens_NL[-1][:-1].tolist()  # a token like others, and the padding
    length_N = np.asarray(two_towers.lengths(jnp.asarray(tokens_NL.astype(np.int32)))[1])
    np.testing.assert_array_equal(length_N - 1, tokens_NL.argmax(axis=1))


def test_texts_are_written_out(made):
    tokens_NL = made.encode(["A cat, caf\u00e9"], 77).tokens_NL
    assert made.decode(tokens_NL) == ["a cat , caf\u00e9"]


def test_what_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "plain.txt").write_text("#version\na b")
    for path, message in {
        write(tmp_path / "words.gz", ("#version", "a b c")): "not 48,894 pairs",
        write(tmp_path / "empty.gz", ()): "not 48,894 pairs",
        write(tmp_path / "of GPT-2.gz", ("#version", *PAIRS)): "not 48,894 pairs",
        tmp_path / "plain.txt": "gzip",
        tmp_path / "gone.gz": "No such file",
    }.items():
        command = ["prepare", "clip_tokenizer", f"--data_dir={tmp_path}", f"--archive={path}"]
        with pytest.raises(DataError, match=message) as error:
            prepare.main(command)
        assert len(str(error.value).splitlines()) <= 3
    with pytest.raises(DataError, match="Give --archive FILE"):
        prepare.main(["prepare", "clip_tokenizer", f"--data_dir={tmp_path}"])
