"""Projection heads g(.): features h [B,F] to embeddings z [B,D], not used after training."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax._numerics import unit
from contrastive_jax.encoders import batch_norm as norm

KINDS = ("none", "linear", "mlp")


def make(
    kind: str = "mlp",
    hidden_dim: int = 512,
    output_dim: int = 128,
    layers: int = 2,
    batch_norm: bool = True,
    output_batch_norm: bool = False,
    dtype: str = "float32",
    norm_groups: int = 1,
    bias: bool = True,
) -> "ProjectionHead":
    """Make a projection head by the keys of the config's `head`.

    SimCLR (arXiv 2002.05709, section 4.2): z = W2 relu(BN(W1 h)), 128 dimensions.

    Args:
      kind: "none" passes h through, "linear" is one matrix, "mlp" has `layers` matrices.
      hidden_dim: width of the hidden layers of an MLP.
      output_dim: dimensions of the embedding, for "linear" and "mlp".
      layers: matrices of an MLP, at least 1; SimCLR has 2, SimCLRv2 has 3.
      batch_norm: normalize after every hidden matrix.
      output_batch_norm: normalize the embedding as well.
      dtype: "float32" or "bfloat16" for the computation; the embedding comes back as float32.
      norm_groups: parts of the batch with separate statistics; 1 is the global batch.
      bias: of matrices without a norm behind them; CLIP's projections have none.

    Raises:
      ValueError: an unknown kind or dtype, or a size below 1.

    >>> head = make(kind="mlp", hidden_dim=32, output_dim=8)
    >>> variables = head.init(jax.random.key(0), jnp.zeros((1, 16)), train=False)
    >>> head.apply(variables, jnp.zeros((4, 16)), train=False).shape
    (4, 8)
    """
    if kind not in KINDS:
        raise ValueError(f"head kind is {kind!r}; give one of {KINDS}")
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"head dtype is {dtype!r}; give 'float32' or 'bfloat16'")
    sizes = {"hidden_dim": hidden_dim, "output_dim": output_dim, "layers": layers}
    for key, size in {**sizes, "norm_groups": norm_groups}.items():
        if size < 1:
            raise ValueError(f"head {key} is {size}; give at least 1")
    hidden = {"none": (), "linear": (), "mlp": (hidden_dim,) * (layers - 1)}[kind]
    output = None if kind == "none" else output_dim
    return ProjectionHead(
        hidden, output, batch_norm, output_batch_norm, jnp.dtype(dtype), norm_groups, bias
    )


class ProjectionHead(nn.Module):
    hidden: tuple[int, ...]
    output: int | None
    batch_norm: bool
    output_batch_norm: bool
    dtype: jnp.dtype
    norm_groups: int
    bias: bool

    @nn.compact
    def __call__(self, h_BF: jax.Array, *, train: bool) -> jax.Array:
        x = h_BF
        for width in self.hidden:
            x = nn.relu(self._layer(x, width, self.batch_norm, train))
        if self.output is not None:
            x = self._layer(x, self.output, self.output_batch_norm, train)
        return x.astype(jnp.float32)

    def _layer(self, x: jax.Array, width: int, batch_norm: bool, train: bool) -> jax.Array:
        """A matrix with a norm, or with a bias where no norm has one."""
        x = nn.Dense(width, use_bias=self.bias and not batch_norm, dtype=self.dtype)(x)
        if batch_norm:
            x = norm.batch_norm(self.norm_groups, train, self.dtype)()(x)
        return x


class Prototypes(nn.Module):
    """Cosine similarities of embeddings [..., D] with learned prototypes, [..., K].

        s_k = z . c_k   of unit vectors

    >>> layer = Prototypes(3)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 4)), train=False)
    >>> layer.apply(variables, jnp.ones((2, 4)), train=False).shape
    (2, 3)
    """

    count: int

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        del train  # it has no statistics
        shape = z.shape[-1], self.count
        prototypes_DK = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        return unit(z) @ unit(prototypes_DK.T).T
