"""Train an image encoder with SwAV, score it, draw it.

python -m experiments.swav --config configs/swav.py:digits
python -m experiments.swav --config configs/swav.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import swav
from experiments.run import image_method

EXPERIMENT = image_method.experiment("swav", __doc__, swav.make, multi_crop=True)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
