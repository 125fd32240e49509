"""CLIP on emoji and their names, in two drawn styles.

    python -m experiments.prepare emoji --data_dir DIR
    python -m experiments.clip --config configs/emoji.py --config.data.data_dir=DIR/emoji.npz

Data      6,131 training pictures of 32x32 of 3,128 emoji, drawn by OpenMoji (CC BY-SA 4.0) and by
          Twitter (CC BY 4.0), with their names: "woman judge: light skin tone". One in five emoji
          is held out by a hash of its code points and tested on, where every word of its name is in
          three names of the training set. Most of these are people: it tests how parts are put
          together.
Recipe    that of configs/glyphs.py, with half the batch and half the steps; the two pictures of an
          emoji have one caption, and are no negatives of one another.
Hardware  two CPU cores, a few minutes.
smoke     seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict, config_dict

from configs import glyphs


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "" or "smoke"."""
    if preset not in ("", "smoke"):
        raise ValueError(f"preset {preset!r} is unknown; configs/emoji.py has '' and smoke")
    config = glyphs.get_config(preset)  # "left arrow", "red heart": neither mirrored nor recolored
    with config.unlocked():
        config.data.update({"source": "arrays", "data_dir": config_dict.placeholder(str)})
    config.augment.size = 32
    if not preset:
        config.data.batch_size = 256
        config.train.steps = 300
        config.checkpoint.every_steps = 100
    return config
