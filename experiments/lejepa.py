"""Train an image encoder with LeJEPA, score it, draw it.

python -m experiments.lejepa --config configs/lejepa.py:digits
python -m experiments.lejepa --config configs/lejepa.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import lejepa
from experiments.run import image_method

EXPERIMENT = image_method.experiment("lejepa", __doc__, lejepa.make, multi_crop=True)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
