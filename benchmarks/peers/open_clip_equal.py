"""Compare with open_clip: losses of two towers, features of the same weights, tokens of texts.

    python -m benchmarks.peers.open_clip_equal                 differences
    python -m benchmarks.peers.open_clip_equal --frozen FILE   the arrays of the tests

ClipLoss and SigLipLoss are given unit vectors and 1 / temperature, as open_clip's models give them.
A random model of open_clip is read here, and written back into a fresh one. The vocabulary of its
wheel is made a tokenizer.json; texts that differ on purpose are listed. Exits with 1 where a
difference is above its limit. Needs torch and open_clip_torch.
"""

import argparse
import functools
import random
import unicodedata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from contrastive_jax import losses
from contrastive_jax.data.text.tokens import Tokenizer
from contrastive_jax.encoders import clip_text, heads, vit
from contrastive_jax.encoders.open_clip_names import from_open_clip, to_open_clip
from contrastive_jax.objectives import two_towers
from experiments.preparing import clip_tokenizer

LIMITS = {"loss": 1e-5, "features": 1e-4, "tokens": 0.0}
Arrays = dict[str, np.ndarray]
TINY = {"side": 8, "patch": 4, "dim": 8, "layers": 2, "heads": 2, "tokens": 11, "context": 5}
SMALL = {"side": 64, "patch": 16, "dim": 128, "layers": 4, "heads": 4, "tokens": 999, "context": 77}


def inputs(n: int, dim: int, seed: int = 0) -> Arrays:
    """Embeddings that are not of length one, float32."""
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, n, dim)).astype(np.float32)
    return {"image": image, "text": text + image / 2, "temperature": np.float32(0.07)}


WORDS = """
a photo of The QUICK it's they'll I'D've don't rock'n'roll ''s ' 'S 1999 3.14 1,000,000 x2 H2O 50%
$5 #tag @you ! !! ?! ... (a) [b] {c} <d> a_b a-b a/b C++ & * ~ <|x|> café cafe\u0301 naïve STRASSE
straße İstanbul Å ’s ‘a’ “b” «c» — … ™ ² Москва Ёлка 東京 こんにちは 한국어 العربية हिन्दी ๓ ١٢ 😀
👩\u200d🚀 ❤\ufe0f 🇩🇪 supercalifragilisticexpialidocious
""".split()
SPACES = ("", " ", " ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000")
NOT_EQUAL = {  # what open_clip repairs by ftfy and html, and what Python lower-cases by context
    "entities": "salt &amp; pepper",
    "mojibake": "cafÃ©",
    "ligatures": "ﬁsh",
    "full width": "ＡＢ",
    "final sigma": "ΟΔΟΣ",
}


def texts(n: int) -> list[str]:
    """Texts of a few of these words, the words alone, and names and characters of Unicode."""
    rng, found = random.Random(0), [*WORDS, ""]
    for _ in range(n):
        chosen = rng.choices(WORDS, k=rng.randint(2, 30))
        found.append("".join(word + rng.choice(SPACES) for word in chosen))
    named = [c for c in map(chr, range(32, 0x3100)) if unicodedata.name(c, "")]
    # without those that ftfy replaces or takes out, and an iota that case alone makes a letter
    kept = [c for c in named if unicodedata.normalize("NFKC", c) == c and c != "\u0345"]
    kept = [c for c in kept if unicodedata.category(c) != "Cf"]
    return [*found, *(f"{unicodedata.name(c)} {c}" for c in rng.sample(kept, n))]


def tokenizers() -> tuple[Tokenizer, Any]:
    """That which is made here of the vocabulary in the wheel, and open_clip's."""
    file = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    return Tokenizer(clip_tokenizer.from_file(file)), open_clip.get_tokenizer("ViT-B-32")


def tokens_of(asked: list[str], context: int) -> np.ndarray:
    """The tokens of texts, [N, context]."""
    found = tokenizers()[0].encode(asked, context).tokens_NL.astype(np.int32)
    return np.pad(found, ((0, 0), (0, context - found.shape[1])))


def compare_tokens(context: int) -> tuple[int, int]:
    """Count the texts whose tokens differ, and all."""
    asked, theirs = [*texts(2000), *NOT_EQUAL.values()], tokenizers()[1]
    differs = (tokens_of(asked, context) != theirs(asked, context).numpy()).any(axis=1)
    wrong, known = np.split(differs, [-len(NOT_EQUAL)])
    print("  differ:", [asked[row] for row in np.flatnonzero(wrong)[:5]])
    print("  and on purpose:", np.array([*NOT_EQUAL])[known].tolist())
    return int(wrong.sum()), len(wrong)


def shown_texts(context: int) -> Arrays:
    """Black images, and tokens of texts."""
    asked = [" ".join(WORDS[start : start + 9]) for start in range(len(WORDS))]
    image = np.zeros((len(asked), SMALL["side"], SMALL["side"], 3), np.float32)
    return {"image": image, "tokens": tokens_of(asked, context)}


def theirs(kind: str, given: Arrays, bias: float = -10.0) -> Arrays:
    """Loss and gradients of open_clip."""
    tensors = [torch.tensor(given[name], requires_grad=True) for name in ("image", "text")]
    scale = torch.tensor(1 / given["temperature"])
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in tensors]
    if kind == "clip":
        loss = ClipLoss()(*unit, scale)
    else:
        loss = SigLipLoss()(*unit, scale, torch.tensor(bias))
    loss.backward()
    values = [loss.detach(), *(x.grad for x in tensors)]
    return dict(zip(("loss", "image", "text"), (v.numpy() for v in values), strict=True))


def ours(kind: str, given: Arrays, bias: float = -10.0) -> Arrays:
    """Loss and gradients of this library."""
    loss = losses.symmetric_info_nce
    if kind == "siglip":
        loss = functools.partial(losses.siglip, bias=bias)
    mean = lambda x, y: loss(x, y, temperature=given["temperature"]).mean()  # noqa: E731
    run = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
    value, (image, text) = run(jnp.asarray(given["image"]), jnp.asarray(given["text"]))
    return {"loss": np.asarray(value), "image": np.asarray(image), "text": np.asarray(text)}


def model(size: dict[str, int], quick: bool, seed: int) -> Any:
    """A random model of open_clip, whose biases and norms are random as well."""
    torch.manual_seed(seed)
    vision = {"image_size": size["side"], "patch_size": size["patch"], "layers": size["layers"]}
    vision |= {"width": size["dim"], "head_width": size["dim"] // size["heads"]}
    text = {"context_length": size["context"], "vocab_size": size["tokens"], "width": size["dim"]}
    text |= {"heads": size["heads"], "layers": size["layers"]}
    made = open_clip.model.CLIP(
        size["dim"] // 2,
        open_clip.model.CLIPVisionCfg(**vision),
        open_clip.model.CLIPTextCfg(**text),
        quick_gelu=quick,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def shown(size: dict[str, int], n: int) -> Arrays:
    """Images, and texts that end with the largest token, behind which there is padding."""
    rng = np.random.default_rng(0)
    image = rng.random((n, size["side"], size["side"], 3)).astype(np.float32)
    tokens = rng.integers(1, size["tokens"] - 1, (n, size["context"]))
    for row, length in zip(tokens, rng.integers(2, size["context"] + 1, n), strict=True):
        row[length - 1 :] = 0
        row[length - 1] = size["tokens"] - 1
    return {"image": image, "tokens": tokens.astype(np.int32)}


def their_features(made: Any, given: Arrays) -> Arrays:
    with torch.no_grad():
        image = made.encode_image(torch.tensor(given["image"]).permute(0, 3, 1, 2))
        text = made.encode_text(torch.tensor(given["tokens"], dtype=torch.long))
    return {"image": image.numpy(), "text": text.numpy()}


def towers(size: dict[str, int], quick: bool) -> tuple[Any, Any, Any]:
    """The image encoder, the text encoder and the projection of this library."""
    activation = "quick_gelu" if quick else "gelu"
    sizes = {"dim": size["dim"], "layers": size["layers"], "heads": size["heads"]}
    image = vit.make(patch_size=size["patch"], style="clip", activation=activation, **sizes)
    context = {"context": size["context"], "activation": activation}
    head = heads.make(kind="linear", output_dim=size["dim"] // 2, batch_norm=False, bias=False)
    return image, clip_text.make(size["tokens"], **sizes, **context), head


def our_features(size: dict[str, int], quick: bool, tensors: Arrays, given: Arrays) -> Any:
    """Features of both towers by the tensors of open_clip, and the parameters."""
    image, text, head = towers(size, quick)
    tokens, length = two_towers.lengths(jnp.asarray(given["tokens"]))
    key, h = jax.random.key(0), jnp.zeros((1, size["dim"]))
    like = {
        "encoder": image.init(key, jnp.asarray(given["image"]), train=False)["params"],
        "head": head.init(key, h, train=False)["params"],
        "text": text.init(key, tokens, length, train=False)["params"],
        "text_head": head.init(key, h, train=False)["params"],
        "loss": {"log_scale": jnp.float32(0.0)},
    }
    params = from_open_clip(tensors, like)
    h = image.apply({"params": params["encoder"]}, jnp.asarray(given["image"]), train=False)
    y = text.apply({"params": params["text"]}, tokens, length, train=False)
    found = {
        "image": head.apply({"params": params["head"]}, h, train=False),
        "text": head.apply({"params": params["text_head"]}, y, train=False),
    }
    return {name: np.asarray(x) for name, x in found.items()}, params


def compare_models(size: dict[str, int], quick: bool, given: Arrays) -> float:
    """The largest difference of a feature, read here and written back."""
    made, other = model(size, quick, 0), model(size, quick, 1)
    tensors = {name: x.numpy() for name, x in made.state_dict().items()}
    expected = their_features(made, given)
    found, params = our_features(size, quick, tensors, given)
    back = {name: torch.tensor(x) for name, x in to_open_clip(params).items()}
    other.load_state_dict(back, strict=True)
    again = their_features(other, given)
    pairs = [(expected[name], each[name]) for each in (found, again) for name in expected]
    return max(float(np.abs(x - y).max()) for x, y in pairs)


def write_frozen(file: str) -> None:
    given, made = inputs(6, 5), model(TINY, True, 0)
    found = {
        f"{kind}_{name}": value
        for kind in ("clip", "siglip")
        for name, value in theirs(kind, given).items()
    }
    batch = shown(TINY, 3)
    tensors = {f"tensor:{name}": x.numpy() for name, x in made.state_dict().items()}
    features = {f"features_{name}": x for name, x in their_features(made, batch).items()}
    batch = {f"shown_{name}": x for name, x in batch.items()}
    np.savez_compressed(file, **given, **found, **batch, **features, **tensors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frozen", help="write the arrays of the tests here")
    frozen = parser.parse_args().frozen
    if frozen:
        write_frozen(frozen)
        return 0
    worst = {"loss": 0.0, "features": 0.0, "tokens": 0.0}
    for kind in ("clip", "siglip"):
        for n, dim in ((6, 5), (256, 64), (1024, 512)):
            given = inputs(n, dim)
            pair = ours(kind, given), theirs(kind, given)
            found = [float(np.abs(pair[0][name] - pair[1][name]).max()) for name in pair[0]]
            print(f"{kind:7} {n:5} x {dim:3}   loss, gradients: {found}")
            worst["loss"] = max(worst["loss"], *found)
    for name, size in {"tiny": TINY, "small": SMALL}.items():
        for quick in (False, True):
            difference = compare_models(size, quick, shown(size, 16))
            print(f"{name:7} quick_gelu={quick!s:5}  features: {difference:.1e}")
            worst["features"] = max(worst["features"], difference)
    for context in (77, 8):  # of 8 tokens many texts are cut off
        differ, n = compare_tokens(context)
        size = SMALL | {"tokens": 49408, "context": context}
        difference = compare_models(size, True, shown_texts(context))
        print(
            f"context {context}: tokens of {differ} of {n} texts differ, features {difference:.1e}"
        )
        worst["tokens"] = max(worst["tokens"], differ)
        worst["features"] = max(worst["features"], difference)
    print(f"largest differences {worst}, limits {LIMITS}")
    return int(any(worst[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
