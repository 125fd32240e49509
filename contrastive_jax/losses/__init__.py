"""Contrastive losses as pure functions: one float32 number per anchor, never reduced.

softmax.py             nt_xent, info_nce, symmetric_info_nce, sup_con
negatives.py           per_query_info_nce, queue_info_nce, joint_info_nce, guided_info_nce
reweighted.py          decoupled, debiased_nt_xent, hardness_info_nce
positives.py           multi_positive_info_nce, soft_info_nce, n_pair, angular
labeled.py             labeled_nt_xent
sigmoid.py             siglip, nt_logistic
margin.py              margin_contrastive, triplet, nt_margin
online_contrastive.py  online_contrastive
triplet_in_batch.py    batch_all_triplet, batch_hard_triplet, batch_semi_hard_triplet
metric_learning.py     lifted_structure, multi_similarity, circle, ranked_list
proxies.py             arc_face, cos_face, proxy_nca, soft_triple, proxy_anchor
text_similarity.py     cosine_regression, cosent, angle
distillation.py        margin_mse, kl_distillation
non_contrastive.py     alignment, uniformity, barlow_twins, vicreg, negative_cosine, spread_out
nearest_neighbor.py    koleo
wrappers.py            matryoshka, learned_temperature

Losses that describe or rank a batch as a whole (cosent, angle, proxy_anchor, uniformity,
barlow_twins, vicreg, spread_out) are scalars. Sums over pairs are computed by `_engine/`: reduce.py
(dense, tiled, ring), tile.py (what a loss asks of one tile), sweep.py (all tiles on one device),
blockwise.py (custom gradient, ring of devices).

From finite embeddings of any size a loss and its gradients are finite. Where rows are normalized,
one without an entry above 1e-30 counts as zero; where they are taken as they come, one with an
entry beyond 1e15 (barlow_twins, vicreg: 1e8) is shrunk to that, since its square would leave
float32. Labels and ids are compared exactly: integers beyond int32 are refused, but under `jax.jit`
JAX has cut them before a loss sees them. Lists are taken for arrays.
"""

from contrastive_jax.losses.distillation import kl_distillation, margin_mse
from contrastive_jax.losses.labeled import labeled_nt_xent
from contrastive_jax.losses.margin import margin_contrastive, nt_margin, triplet
from contrastive_jax.losses.metric_learning import (
    circle,
    lifted_structure,
    multi_similarity,
    ranked_list,
)
from contrastive_jax.losses.nearest_neighbor import koleo
from contrastive_jax.losses.negatives import (
    guided_info_nce,
    joint_info_nce,
    per_query_info_nce,
    queue_info_nce,
)
from contrastive_jax.losses.non_contrastive import (
    alignment,
    barlow_twins,
    negative_cosine,
    spread_out,
    uniformity,
    vicreg,
)
from contrastive_jax.losses.online_contrastive import online_contrastive
from contrastive_jax.losses.positives import (
    angular,
    multi_positive_info_nce,
    n_pair,
    soft_info_nce,
)
from contrastive_jax.losses.proxies import (
    arc_face,
    cos_face,
    proxy_anchor,
    proxy_nca,
    soft_triple,
)
from contrastive_jax.losses.reweighted import debiased_nt_xent, decoupled, hardness_info_nce
from contrastive_jax.losses.sigmoid import nt_logistic, siglip
from contrastive_jax.losses.softmax import info_nce, nt_xent, sup_con, symmetric_info_nce
from contrastive_jax.losses.text_similarity import angle, cosent, cosine_regression
from contrastive_jax.losses.triplet_in_batch import (
    batch_all_triplet,
    batch_hard_triplet,
    batch_semi_hard_triplet,
)
from contrastive_jax.losses.wrappers import learned_temperature, matryoshka

__all__ = [
    "alignment",
    "angle",
    "angular",
    "arc_face",
    "barlow_twins",
    "batch_all_triplet",
    "batch_hard_triplet",
    "batch_semi_hard_triplet",
    "circle",
    "cos_face",
    "cosent",
    "cosine_regression",
    "debiased_nt_xent",
    "decoupled",
    "guided_info_nce",
    "hardness_info_nce",
    "info_nce",
    "joint_info_nce",
    "kl_distillation",
    "koleo",
    "labeled_nt_xent",
    "learned_temperature",
    "lifted_structure",
    "margin_contrastive",
    "margin_mse",
    "matryoshka",
    "multi_positive_info_nce",
    "multi_similarity",
    "n_pair",
    "negative_cosine",
    "nt_logistic",
    "nt_margin",
    "nt_xent",
    "online_contrastive",
    "per_query_info_nce",
    "proxy_anchor",
    "proxy_nca",
    "queue_info_nce",
    "ranked_list",
    "siglip",
    "soft_info_nce",
    "soft_triple",
    "spread_out",
    "sup_con",
    "symmetric_info_nce",
    "triplet",
    "uniformity",
    "vicreg",
]
