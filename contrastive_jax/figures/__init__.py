"""The pictures of a run as PNG files: NumPy arrays in, the path of the picture out.

Colours are told apart by colour-blind readers (Okabe and Ito 2008; Petroff 2021), and no picture
says by colour alone what it has to say. Matplotlib and scikit-learn are imported when first needed.
"""

from contrastive_jax.figures.ablation import ablation
from contrastive_jax.figures.comparisons import confusion_matrix, image_pairs, overlaid_curves
from contrastive_jax.figures.images import neighbours, views_grid
from contrastive_jax.figures.maps import embedding_map
from contrastive_jax.figures.plots import cosine_histogram, curves, score_bars

__all__ = [
    "ablation",
    "confusion_matrix",
    "cosine_histogram",
    "curves",
    "embedding_map",
    "image_pairs",
    "neighbours",
    "overlaid_curves",
    "score_bars",
    "views_grid",
]
