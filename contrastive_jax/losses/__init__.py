"""Contrastive losses as pure functions: one float32 number per anchor, never reduced.

softmax.py      nt_xent, info_nce, symmetric_info_nce, sup_con
negatives.py    own_negatives_info_nce, queue_info_nce, joint_info_nce, guided_info_nce
reweighted.py   decoupled, debiased_nt_xent, hardness_info_nce
positives.py    multi_positive_info_nce, soft_info_nce, n_pair, angular
sigmoid.py      siglip, nt_logistic
margin.py       margin_contrastive, triplet
"""

from contrastive_jax.losses.margin import margin_contrastive, triplet
from contrastive_jax.losses.negatives import (
    guided_info_nce,
    joint_info_nce,
    own_negatives_info_nce,
    queue_info_nce,
)
from contrastive_jax.losses.positives import (
    angular,
    multi_positive_info_nce,
    n_pair,
    soft_info_nce,
)
from contrastive_jax.losses.reweighted import debiased_nt_xent, decoupled, hardness_info_nce
from contrastive_jax.losses.sigmoid import nt_logistic, siglip
from contrastive_jax.losses.softmax import info_nce, nt_xent, sup_con, symmetric_info_nce

__all__ = [
    "angular",
    "debiased_nt_xent",
    "decoupled",
    "guided_info_nce",
    "hardness_info_nce",
    "info_nce",
    "joint_info_nce",
    "margin_contrastive",
    "multi_positive_info_nce",
    "n_pair",
    "nt_logistic",
    "nt_xent",
    "own_negatives_info_nce",
    "queue_info_nce",
    "siglip",
    "soft_info_nce",
    "sup_con",
    "symmetric_info_nce",
    "triplet",
]
