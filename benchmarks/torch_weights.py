"""Features of torch and of this library from the same random weights, both ways.

    python benchmarks/torch_weights.py                 ResNet-18, -50 and ViT-S/16, 224 pixels
    python benchmarks/torch_weights.py --frozen FILE   write the small arrays of the tests

Prints the largest difference of a feature after torch's weights went into the library, and after
the library's variables went back into a fresh torch model. Needs torch, torchvision and timm.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from benchmarks.shared import harness
from contrastive_jax import encoders
from contrastive_jax.encoders.torch_names import to_torch

VIT = {"name": "vit", "size": "S", "patch_size": 16}
TINY = {"dim": 16, "layers": 2, "heads": 2}


def models(tiny: bool):
    """(name, function to a torch model without its classifier, settings of our encoder)."""
    import timm
    import torchvision

    small = {"embed_dim": 16, "depth": 2, "num_heads": 2} if tiny else {}
    size, patch_size = (16, 4) if tiny else (224, 16)
    ours = {**VIT, "patch_size": patch_size, **(TINY if tiny else {})}

    def timm_vit():
        arguments = {"patch_size": patch_size, "img_size": size, "num_classes": 0}
        widths = small or {"embed_dim": 384, "depth": 12, "num_heads": 6}
        return timm.models.VisionTransformer(**arguments, **widths)

    def torchvision_vit():
        layers, heads, dim = (2, 2, 16) if tiny else (12, 6, 384)
        arguments = size, patch_size, layers, heads, dim, 4 * dim
        model = torchvision.models.VisionTransformer(*arguments)
        return without(model, "heads")

    def resnet(name):
        return without(getattr(torchvision.models, name)(), "fc")

    yield "timm ViT", timm_vit, ours, size
    yield "torchvision ViT", torchvision_vit, ours, size
    if not tiny:
        for depth in (18, 50):
            settings = {"depth": depth, "stem": "imagenet"}
            yield f"torchvision ResNet-{depth}", lambda d=depth: resnet(f"resnet{d}"), settings, 224
        yield (
            "timm ResNet-50",
            lambda: timm.create_model("resnet50", num_classes=0),
            {"depth": 50, "stem": "imagenet"},
            224,
        )


def without(model, classifier: str):
    import torch

    setattr(model, classifier, torch.nn.Identity())
    return model


def randomize(torch, model, seed: int):
    """Every parameter and statistic away from its first value, so that none can be mixed up."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
        scale = fan_in**-0.5 if tensor.ndim in (2, 4) else 0.1
        centre = float(tensor.ndim == 1 and not name.endswith(("bias", "mean")))
        tensor.copy_(centre + scale * noise if "var" not in name else 1 + 0.1 * noise.abs())


def features(torch, model, x_BHWC: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x_BHWC.transpose(0, 3, 1, 2).copy())).numpy()


def compare(
    torch, make, settings, size
) -> tuple[dict, np.ndarray, np.ndarray, float, float | None]:
    model = make()
    randomize(torch, model, 0)
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    x = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    theirs = features(torch, model, x)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, file)
        encoder = encoders.make(**settings, init=str(file))
        variables = encoder.init(jax.random.key(0), x, train=False)
    ours = jax.jit(lambda v, x: encoder.apply(v, x, train=False))(variables, x)
    back, again = to_torch(variables), make()
    difference = None
    if back.keys() == again.state_dict().keys():  # torchvision's ViT has other names
        again.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in back.items()})
        difference = float(np.abs(features(torch, again, x) - ours).max())
    return tensors, x, theirs, float(np.abs(theirs - ours).max()), difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frozen", type=Path)
    frozen = parser.parse_args().frozen
    torch = harness.import_torch()
    arrays = {}
    for name, make, settings, size in models(tiny=frozen is not None):
        tensors, x, theirs, into, back = compare(torch, make, settings, size)
        print(f"{name}: largest feature {np.abs(theirs).max():.3g}, in {into:.2g}, back {back}")
        prefix = name.replace(" ", "_")
        arrays |= {f"{prefix}/tensors/{k}": v for k, v in tensors.items()}
        arrays |= {f"{prefix}/x": x, f"{prefix}/features": theirs}
    if frozen is not None:
        np.savez_compressed(frozen, **arrays)


if __name__ == "__main__":
    main()
