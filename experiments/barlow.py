"""Train an image encoder with Barlow Twins, score it, draw it.

python -m experiments.barlow --config configs/barlow.py:digits
python -m experiments.barlow --config configs/barlow.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import barlow
from experiments.run import image_method

EXPERIMENT = image_method.experiment("barlow", __doc__, barlow.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
