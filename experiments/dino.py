"""Train an image encoder with DINO, score it, draw it.

python -m experiments.dino --config configs/dino.py:digits
python -m experiments.dino --config configs/dino.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import dino
from experiments.run import image_method

EXPERIMENT = image_method.experiment("dino", __doc__, dino.make, multi_crop=True)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
