"""Train an image encoder with VICReg, score it, draw it.

python -m experiments.vicreg --config configs/vicreg.py:digits
python -m experiments.vicreg --config configs/vicreg.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import vicreg
from experiments.run import image_method

EXPERIMENT = image_method.experiment("vicreg", __doc__, vicreg.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
