"""One pass over the tiles of a similarity matrix on one device, forward and backward."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contrastive_jax.losses._engine.tile import Terms, Tile, reduce_terms, similarities


class Plan(NamedTuple):
    """Which tiles are visited, and whether a visit serves their columns too."""

    tile: Tile
    block_size: int
    axis_name: str | None
    columns: bool  # the columns of a tile as well as its rows
    triangle: bool  # k is q: what lies below the diagonal is what lies above it


class Operands(NamedTuple):
    """The arguments of the sums, as in `reduce.over_keys`."""

    q_ND: jax.Array
    k_MD: jax.Array
    rows: Any
    cols: Any
    params: Any


class Outcome(NamedTuple):
    """The terms of one side of the matrix, and their cotangents."""

    terms: Terms
    cotangents: Terms


class _Grid(NamedTuple):
    """The operands cut into blocks, and which blocks of rows and columns meet at each step."""

    operands: Operands
    n_row_blocks: int
    n_col_blocks: int
    row_T: jax.Array
    col_T: jax.Array
    sizes: tuple[int, int]


def sweep(plan: Plan, operands: Operands) -> tuple[Terms, Terms]:
    """The terms of the rows, and of the columns where the plan serves them (else `Terms()`)."""
    grid = _grid(plan, operands)

    def visit(t: jax.Array, out: tuple[Terms, Terms]) -> tuple[Terms, Terms]:
        by_row, by_col = out
        i, j = grid.row_T[t], grid.col_T[t]
        s = similarities(_at(grid.operands.q_ND, i), _at(grid.operands.k_MD, j))
        terms = _tile_terms(plan, grid, i, j, s, operands.params)
        by_row = _put(by_row, i, merge(_at(by_row, i), reduce_terms(terms, axis=1)))
        if plan.columns:
            added = reduce_terms(terms, axis=0)
            added = _without(added, plan.triangle & (i == j))  # the rows have had the diagonal
            by_col = _put(by_col, j, merge(_at(by_col, j), added))
        return by_row, by_col

    rows, cols = empty_terms(plan, operands)
    out = _split(rows, grid.n_row_blocks), _split(cols, grid.n_col_blocks)
    by_row, by_col = lax.fori_loop(0, len(grid.row_T), visit, out)
    return _join(by_row, grid.sizes[0]), _join(by_col, grid.sizes[1])


def sweep_back(
    plan: Plan, operands: Operands, by_row: Outcome, by_col: Outcome
) -> tuple[jax.Array, jax.Array, Any]:
    """The gradients to q, k and params, from tiles that are computed again."""
    grid = _grid(plan, operands)
    by_row, by_col = _split(by_row, grid.n_row_blocks), _split(by_col, grid.n_col_blocks)
    # dk is gathered as its transpose: a product with ds^T is three times slower than one with ds.
    q_transposed = jnp.swapaxes(grid.operands.q_ND, 1, 2)

    def visit(t: jax.Array, grads: Any) -> Any:
        dq, dk_transposed, dparams = grads
        i, j = grid.row_T[t], grid.col_T[t]
        q_i, k_j = _at(grid.operands.q_ND, i), _at(grid.operands.k_MD, j)

        def tile(s: jax.Array, params: Any) -> Terms:
            return _tile_terms(plan, grid, i, j, s, params)

        terms, pull = jax.vjp(tile, similarities(q_i, k_j), operands.params)
        weights = _weights(terms, _at(by_row, i), axis=1)
        if plan.columns:
            off_diagonal = jnp.where(plan.triangle & (i == j), 0.0, 1.0)
            more = _weights(terms, _at(by_col, j), axis=0, scale=off_diagonal)
            weights = jax.tree.map(jnp.add, weights, more)
        ds, dparams_ = pull(weights)
        dq = _put(dq, i, _at(dq, i) + ds @ k_j)
        dk_j = _at(dk_transposed, j) + _at(q_transposed, i) @ ds
        dk_transposed = _put(dk_transposed, j, dk_j)
        return dq, dk_transposed, jax.tree.map(jnp.add, dparams, dparams_)

    primals = grid.operands.q_ND, jnp.swapaxes(grid.operands.k_MD, 1, 2), operands.params
    zeros = vary_like(operands, jax.tree.map(jnp.zeros_like, primals))
    dq, dk_transposed, dparams = lax.fori_loop(0, len(grid.row_T), visit, zeros)
    dk = jnp.swapaxes(dk_transposed, 1, 2)
    return _join(dq, grid.sizes[0]), _join(dk, grid.sizes[1]), dparams


def empty_terms(plan: Plan, operands: Operands) -> tuple[Terms, Terms]:
    """The terms of rows and of columns before any pair is added."""

    def terms(operands: Operands) -> tuple[Terms, Terms]:
        q, k, rows, cols, params = operands
        terms = plan.tile(similarities(q, k), params, rows, cols)
        return reduce_terms(terms, axis=1), reduce_terms(terms, axis=0)

    by_row, by_col = jax.eval_shape(terms, operands)
    empty = _neutral(by_row), _neutral(by_col) if plan.columns else Terms()
    return vary_like(operands, empty)


def merge(terms: Terms, more: Terms) -> Terms:
    return Terms(
        tuple(map(jnp.logaddexp, terms.exponents, more.exponents)),
        tuple(map(jnp.add, terms.values, more.values)),
    )


def vary_like(reference: Any, tree: Any) -> Any:
    """The tree, varying over every mapped axis over which a leaf of the reference varies.

    A loop inside shard_map wants its carry to vary from the start as it does in the end.
    """
    zero = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(reference):
        first = leaf[(0,) * leaf.ndim]
        zero = jnp.where(first == first, zero, zero)
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), tree)


def _grid(plan: Plan, operands: Operands) -> _Grid:
    N, M = len(operands.q_ND), len(operands.k_MD)
    n, m = -(-N // plan.block_size), -(-M // plan.block_size)
    row_T, col_T = np.triu_indices(n) if plan.triangle else np.indices((n, m)).reshape(2, -1)
    blocks = Operands(
        _split(operands.q_ND, n),
        _split(operands.k_MD, m),
        _split(operands.rows, n),
        _split(operands.cols, m),
        operands.params,
    )
    meetings = jnp.asarray(row_T, jnp.int32), jnp.asarray(col_T, jnp.int32)
    return _Grid(blocks, n, m, *meetings, (N, M))


def _tile_terms(
    plan: Plan, grid: _Grid, i: jax.Array, j: jax.Array, s: jax.Array, params: Any
) -> Terms:
    """The terms of the tile of block i and block j, neutral where a row or column is padding."""
    terms = plan.tile(s, params, _at(grid.operands.rows, i), _at(grid.operands.cols, j))
    (N, M), (height, width) = grid.sizes, s.shape
    if N % grid.n_row_blocks:
        terms = _without(terms, (i * height + jnp.arange(height) >= N)[:, None])
    if M % grid.n_col_blocks:
        terms = _without(terms, (j * width + jnp.arange(width) >= M)[None, :])
    return terms


def _weights(terms: Terms, side: Outcome, axis: int, scale: jax.Array | float = 1.0) -> Terms:
    """The cotangents of a tile's terms from one side, before their reduction along `axis`."""

    def exponent(x: jax.Array, total: jax.Array, cotangent: jax.Array) -> jax.Array:
        total = jnp.where(total == -jnp.inf, 0.0, total)  # a side with no pair: e^{-inf} = 0
        total, cotangent = (jnp.expand_dims(y, axis) for y in (total, scale * cotangent))
        return cotangent * jnp.exp(x - total)

    def value(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.expand_dims(scale * cotangent, axis), x.shape)

    return Terms(
        tuple(map(exponent, terms.exponents, side.terms.exponents, side.cotangents.exponents)),
        tuple(map(value, terms.values, side.cotangents.values)),
    )


def _neutral(terms: Terms) -> Terms:
    return Terms(
        tuple(jnp.full(x.shape, -jnp.inf, x.dtype) for x in terms.exponents),
        tuple(jnp.zeros(x.shape, x.dtype) for x in terms.values),
    )


def _without(terms: Terms, hidden: jax.Array) -> Terms:
    return Terms(
        tuple(jnp.where(hidden, -jnp.inf, x) for x in terms.exponents),
        tuple(jnp.where(hidden, 0.0, x) for x in terms.values),
    )


def _split(tree: Any, n: int) -> Any:
    """Each leaf in n blocks of equal height, the last one padded: [N, ...] -> [n, height, ...]."""

    def split(x: jax.Array) -> jax.Array:
        height = -(-len(x) // n)
        padding = [(0, n * height - len(x))] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(n, height, *x.shape[1:])

    return jax.tree.map(split, tree)


def _join(tree: Any, size: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], tree)


def _at(tree: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _put(tree: Any, i: jax.Array, block: Any) -> Any:
    return jax.tree.map(lambda x, b: lax.dynamic_update_index_in_dim(x, b, i, 0), tree, block)
