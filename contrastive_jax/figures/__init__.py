"""The pictures of a run as PNG files: NumPy arrays in, the path of the picture out.

Color-blind readers can distinguish the colors (Okabe and Ito 2008; Tol 2021), and no picture
says by color alone what it has to say. Matplotlib and scikit-learn are imported when first needed.
"""

from contrastive_jax.figures.ablation import ablation
from contrastive_jax.figures.bars import cosine_histogram, cosine_histograms, score_bars
from contrastive_jax.figures.captions import nearest_captions
from contrastive_jax.figures.confusion import confusion_matrix
from contrastive_jax.figures.curves import curves
from contrastive_jax.figures.grid import image_grid
from contrastive_jax.figures.images import image_pairs, neighbors, views_grid
from contrastive_jax.figures.maps import embedding_map, image_map, modality_map
from contrastive_jax.figures.rankings import gains

__all__ = [
    "ablation",
    "confusion_matrix",
    "cosine_histogram",
    "cosine_histograms",
    "curves",
    "embedding_map",
    "gains",
    "image_grid",
    "image_map",
    "image_pairs",
    "modality_map",
    "nearest_captions",
    "neighbors",
    "score_bars",
    "views_grid",
]
