"""Compare the losses of two towers with open_clip's, normalization inside both.

    python -m benchmarks.peers.open_clip_equal                 values and gradients
    python -m benchmarks.peers.open_clip_equal --frozen FILE   the arrays of the tests

ClipLoss and SigLipLoss are given unit vectors and 1 / temperature, as open_clip's models give them.
Exits with 1 where a difference is above its limit. Needs torch and open_clip_torch.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from contrastive_jax import losses

LIMIT = 1e-5
Arrays = dict[str, np.ndarray]


def inputs(n: int, dim: int, seed: int = 0) -> Arrays:
    """Embeddings that are not of length one, float32."""
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, n, dim)).astype(np.float32)
    return {"image": image, "text": text + image / 2, "temperature": np.float32(0.07)}


def theirs(kind: str, given: Arrays, bias: float) -> Arrays:
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


def ours(kind: str, given: Arrays, bias: float) -> Arrays:
    """Loss and gradients of this library."""
    loss = losses.symmetric_info_nce
    if kind == "siglip":
        loss = functools.partial(losses.siglip, bias=bias)
    mean = lambda x, y: loss(x, y, temperature=given["temperature"]).mean()  # noqa: E731
    run = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
    value, (image, text) = run(jnp.asarray(given["image"]), jnp.asarray(given["text"]))
    return {"loss": np.asarray(value), "image": np.asarray(image), "text": np.asarray(text)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frozen", help="write the arrays of the tests here")
    frozen = parser.parse_args().frozen
    if frozen:
        given = inputs(6, 5)
        found = {
            f"{kind}_{name}": value
            for kind in ("clip", "siglip")
            for name, value in theirs(kind, given, -10.0).items()
        }
        np.savez_compressed(frozen, **given, **found)
        return 0
    worst = 0.0
    for kind in ("clip", "siglip"):
        for n, dim in ((6, 5), (256, 64), (1024, 512)):
            given = inputs(n, dim)
            pair = ours(kind, given, -10.0), theirs(kind, given, -10.0)
            found = [float(np.abs(pair[0][name] - pair[1][name]).max()) for name in pair[0]]
            print(f"{kind:7} {n:5} x {dim:3}   loss, gradients: {found}")
            worst = max(worst, *found)
    print(f"largest difference {worst:.1e}, limit {LIMIT:g}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
