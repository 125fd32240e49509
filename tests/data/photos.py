"""A folder of small PNGs: three classes, four modes, two depths, one broken, one class empty."""

import numpy as np
from PIL import Image

PER_CLASS = 20


def write(folder, classes=("cat", "dog", "owl")):
    """Write 60 images of 12 pixels and up, one of which is cut short; returns the folder."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            noise = rng.integers(0, 64, (12, 10 + i % 5, 3)) + 60 * label
            _image(noise.astype(np.uint8), i).save(folder / name / f"{i:02}.png")
    last = folder / classes[-1] / f"{PER_CLASS - 1}.png"
    whole = last.read_bytes()
    last.unlink()
    (folder / classes[1] / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("no image")
    return folder


def _image(color, i):
    gray = Image.fromarray(color[..., 0])
    kinds = (
        Image.fromarray(color),
        gray,
        Image.fromarray(color[..., 0].astype(np.uint16) * 257),
        Image.fromarray(color).quantize(16),
        Image.fromarray(color).convert("RGBA"),
    )
    return kinds[i % len(kinds)]
