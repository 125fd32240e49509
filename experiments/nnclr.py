"""Train an image encoder with NNCLR, score it, draw it.

python -m experiments.nnclr --config configs/nnclr.py:digits
python -m experiments.nnclr --config configs/nnclr.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import nnclr
from experiments.run import image_method

EXPERIMENT = image_method.experiment("nnclr", __doc__, nnclr.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
