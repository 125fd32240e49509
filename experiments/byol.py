"""Train an image encoder with BYOL, score it, draw it.

python -m experiments.byol --config configs/byol.py:digits
python -m experiments.byol --config configs/byol.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import byol
from experiments.run import image_method

EXPERIMENT = image_method.experiment("byol", __doc__, byol.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
