"""Contrastive losses as pure functions: one float32 number per anchor, never reduced.

softmax.py   nt_xent, info_nce, symmetric_info_nce, sup_con
margin.py    margin_contrastive, triplet
"""

from contrastive_jax.losses.margin import margin_contrastive, triplet
from contrastive_jax.losses.softmax import info_nce, nt_xent, sup_con, symmetric_info_nce

__all__ = [
    "info_nce",
    "margin_contrastive",
    "nt_xent",
    "sup_con",
    "symmetric_info_nce",
    "triplet",
]
