"""Train an image encoder with MoCo v3, score it, draw it.

python -m experiments.moco_v3 --config configs/moco_v3.py:digits
python -m experiments.moco_v3 --config configs/moco_v3.py:vit --config.data.data_dir=DIR
"""

from contrastive_jax.objectives import moco_v3
from experiments.run import image_method

EXPERIMENT = image_method.experiment("moco_v3", __doc__, moco_v3.make)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
