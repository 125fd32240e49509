"""Mine pairs: positives and negatives within a batch, hard negatives from a corpus.

batch.py   hardest_negative, hardest_positive, easy_positive, semi_hard_negative,
           distance_weighted_negative
corpus.py  mine_corpus, report

Everything is a pure function of arrays with static shapes: entries that could not
be found are marked as not valid.
"""

from contrastive_jax.mining.batch import (
    Mined,
    distance_weighted_negative,
    easy_positive,
    hardest_negative,
    hardest_positive,
    semi_hard_negative,
)
from contrastive_jax.mining.corpus import Negatives, mine_corpus, report
from contrastive_jax.mining.in_blocks import mine_in_blocks

__all__ = [
    "Mined",
    "Negatives",
    "distance_weighted_negative",
    "easy_positive",
    "hardest_negative",
    "hardest_positive",
    "mine_corpus",
    "mine_in_blocks",
    "report",
    "semi_hard_negative",
]
