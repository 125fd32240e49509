"""Groups of what belongs together: documents that share a query, images that share a caption."""

import numpy as np


def joined_groups(left_E: np.ndarray, right_E: np.ndarray, n_left: int, n: int) -> np.ndarray:
    """Number the n on the right so that those joined by a chain of shared lefts are equal.

    Args:
      left_E, right_E: the ends of each link, numbers below `n_left` and `n`.

    Returns:
      Numbers of groups, int32 [n].

    >>> joined_groups(np.array([0, 0, 1]), np.array([0, 1, 2]), n_left=2, n=3).tolist()
    [0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = n_left + n
    edges = (np.ones(len(left_E), bool), (left_E, n_left + right_E))
    _, group = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return group[n_left:].astype(np.int32)
