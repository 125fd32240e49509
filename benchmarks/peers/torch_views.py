"""Make random views in PyTorch: of a whole batch, or by torchvision and lightly on PIL images.

All by the keys of a config's `augment`: crop, flip, jitter, grayscale. The batched form is what a
plain torch loop does best: every image has its own box, flip and colors; the four adjustments of
the jitter come in one fixed order, where ours and torchvision's sample an order for each image.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional


def batched(images: torch.Tensor, augment: dict[str, Any]) -> torch.Tensor:
    """Make one random view of each image: uint8 [B,C,H,W] to float [B,C,size,size] in [0,1]."""
    x = crop_and_flip(images.float() / 255, augment)
    jittered = jitter(x, augment)
    x = torch.where(chance(len(x), augment["jitter_probability"], x.device), jittered, x)
    is_gray = chance(len(x), augment["grayscale_probability"], x.device)
    return torch.where(is_gray, gray(x), x)


def chance(n: int, probability: float, device: torch.device) -> torch.Tensor:
    return (torch.rand(n, device=device) < probability)[:, None, None, None]


def uniform(n: int, low: float, high: float, device: torch.device) -> torch.Tensor:
    return (low + (high - low) * torch.rand(n, device=device))[:, None, None, None]


def crop_and_flip(x: torch.Tensor, augment: dict[str, Any]) -> torch.Tensor:
    """Cut a box of random area and shape, resampled by one bilinear `grid_sample`."""
    n, device, size = len(x), x.device, augment["size"]
    area = uniform(n, *augment["crop_scale"], device).flatten()
    ratio = uniform(n, *map(math.log, augment["crop_ratio"]), device).flatten().exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    sign = 1 - 2 * (torch.rand(n, device=device) < augment["flip_probability"]).float()
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width * sign, height
    theta[:, 0, 2] = (1 - width) * (2 * torch.rand(n, device=device) - 1)
    theta[:, 1, 2] = (1 - height) * (2 * torch.rand(n, device=device) - 1)
    grid = functional.affine_grid(theta, [n, x.shape[1], size, size], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def jitter(x: torch.Tensor, augment: dict[str, Any]) -> torch.Tensor:
    """Adjust brightness, contrast, saturation and hue, in this order."""
    n, device = len(x), x.device
    factors = {
        name: uniform(n, max(0.0, 1 - augment[name]), 1 + augment[name], device)
        for name in ("brightness", "contrast", "saturation")
    }
    x = (x * factors["brightness"]).clamp_(0, 1)
    mean = gray(x).mean((1, 2, 3), keepdim=True)
    x = torch.lerp(mean.expand_as(x), x, factors["contrast"]).clamp_(0, 1)
    x = torch.lerp(gray(x).expand_as(x), x, factors["saturation"]).clamp_(0, 1)
    return turn_hue(x, uniform(n, -augment["hue"], augment["hue"], device))


def gray(x: torch.Tensor) -> torch.Tensor:
    red, green, blue = x.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def turn_hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Convert RGB to hue, saturation and value, turn the hue, and convert back."""
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    red, green, blue = ((value[:, None] - x) / chroma.clamp(min=1e-8)[:, None]).unbind(1)
    is_red, is_green = x[:, 0] == value, x[:, 1] == value
    sixth = torch.where(
        is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red)
    )
    sixth = sixth + 6 * turn[:, 0]
    shift = torch.tensor([5.0, 3.0, 1.0], device=x.device)[None, :, None, None]
    k = (shift + sixth[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def torchvision_transform(augment: dict[str, Any]):
    """Make torchvision's transform of one PIL image."""
    from torchvision import transforms as T

    colors = (augment[name] for name in ("brightness", "contrast", "saturation", "hue"))
    return T.Compose(
        [
            T.RandomResizedCrop(augment["size"], augment["crop_scale"], augment["crop_ratio"]),
            T.RandomHorizontalFlip(augment["flip_probability"]),
            T.RandomApply([T.ColorJitter(*colors)], augment["jitter_probability"]),
            T.RandomGrayscale(augment["grayscale_probability"]),
            T.ToTensor(),
        ]
    )


def lightly_transform(augment: dict[str, Any]):
    """Make lightly's SimCLRTransform of one PIL image: a list of two views."""
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(
        input_size=augment["size"],
        cj_prob=augment["jitter_probability"],
        cj_bright=augment["brightness"],
        cj_contrast=augment["contrast"],
        cj_sat=augment["saturation"],
        cj_hue=augment["hue"],
        min_scale=augment["crop_scale"][0],
        random_gray_scale=augment["grayscale_probability"],
        gaussian_blur=0.0,
        hf_prob=augment["flip_probability"],
        normalize=None,
    )


class Pictures(torch.utils.data.Dataset):
    """Two random views of PIL images, as the datasets of torchvision would give them."""

    def __init__(self, images: np.ndarray, augment: dict[str, Any], library: str):
        self.images, self.makes_both = images, library == "lightly"
        make = lightly_transform if self.makes_both else torchvision_transform
        self.transform = make(augment)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        from PIL import Image

        image = Image.fromarray(self.images[index])
        if self.makes_both:
            return self.transform(image)
        return [self.transform(image), self.transform(image)]


def loader(
    images: np.ndarray, augment: dict[str, Any], library: str, batch_size: int, workers: int
) -> torch.utils.data.DataLoader:
    """Load shuffled batches [view, view] of "lightly" or "torchvision", by so many processes."""
    return torch.utils.data.DataLoader(
        Pictures(images, augment, library),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
