"""Train an image encoder with SimSiam, score it, draw it.

python -m experiments.simsiam --config configs/simsiam.py:digits
python -m experiments.simsiam --config configs/simsiam.py:cpu --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import simsiam
from experiments.run import image_method

EXPERIMENT = image_method.experiment("simsiam", __doc__, simsiam.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
