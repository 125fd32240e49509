"""Linear-memory sums over pairs with a custom gradient, on one device or around a ring.

The forward pass keeps a few numbers per row. The backward pass visits the tiles again and
recomputes them, so that memory is O(N D + block^2) and no matrix of pairs is ever held. Where
pairs count from both sides, one visit of a tile serves its rows and its columns; of a symmetric
matrix only the upper triangle is visited.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses._engine.sweep import (
    Operands,
    Outcome,
    Plan,
    empty_terms,
    merge,
    sweep,
    sweep_back,
    vary_like,
)
from contrastive_jax.losses._engine.tile import Terms


def reduce_blockwise(plan: Plan, operands: Operands) -> tuple[Terms, Terms]:
    """Reduce to the terms of the rows of q and, where the plan serves columns, of the rows of k.

    Without columns, and in a triangle, where the rows have everything, the second is `Terms()`.
    Reverse-mode only.
    """
    rows, cols = lax.stop_gradient((operands.rows, operands.cols))
    operands = operands._replace(rows=rows, cols=cols)
    return _reduce(plan, vary_like(operands, operands))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(plan: Plan, operands: Operands) -> tuple[Terms, Terms]:
    row_terms, col_terms = empty_terms(plan, operands)

    def visit(plan: Plan, row_terms: Terms, travel: Any) -> tuple[Terms, Any]:
        k, cols, col_terms = travel
        by_row, by_col = sweep(plan, operands._replace(k_MD=k, cols=cols))
        if plan.columns:
            col_terms = merge(col_terms, by_col)
        return merge(row_terms, by_row), (k, cols, col_terms)

    travel = (operands.k_MD, operands.cols, col_terms)
    row_terms, (_, _, col_terms), hops = _around_ring(plan, visit, row_terms, travel)
    col_terms = _pass_on(plan.axis_name, col_terms, -hops)
    return (merge(row_terms, col_terms), Terms()) if plan.triangle else (row_terms, col_terms)


def _reduce_forward(plan: Plan, operands: Operands) -> tuple[Any, Any]:
    out = _reduce(plan, operands)
    return out, (operands, out)


def _reduce_backward(plan: Plan, residuals: Any, cotangents: Any) -> tuple[Operands]:
    operands, terms = residuals
    by_row, by_col = map(Outcome, terms, cotangents)
    if plan.triangle:
        by_col = by_row

    def visit(plan: Plan, stay: Any, travel: Any) -> tuple[Any, Any]:
        k, cols, by_col, dk = travel
        dq_, dk_, dparams_ = sweep_back(plan, operands._replace(k_MD=k, cols=cols), by_row, by_col)
        return jax.tree.map(jnp.add, stay, (dq_, dparams_)), (k, cols, by_col, dk + dk_)

    primals = (operands.q_ND, operands.params), operands.k_MD
    stay, dk = vary_like(operands, jax.tree.map(jnp.zeros_like, primals))
    travel = (operands.k_MD, operands.cols, by_col, dk)
    (dq, dparams), (*_, dk), hops = _around_ring(plan, visit, stay, travel)
    return (Operands(dq, _pass_on(plan.axis_name, dk, -hops), None, None, dparams),)


_reduce.defvjp(_reduce_forward, _reduce_backward)


def _around_ring(plan: Plan, visit: Callable, stay: Any, travel: Any) -> tuple[Any, Any, int]:
    """Pass `travel` around the ring, visiting each device; return also the hops that it has made.

    In a triangle each pair of devices meets once: half of the ring is enough, and two devices
    that are opposite on the ring serve their rows only.
    """
    stay, travel = visit(plan, stay, travel)
    if plan.axis_name is None:
        return stay, travel, 0
    n = lax.axis_size(plan.axis_name)
    away = plan._replace(triangle=False)
    hops = (n - 1) // 2 if plan.triangle else n - 1

    def meet(carry: Any, _: None) -> tuple[Any, None]:
        stay, travel = carry
        return visit(away, stay, _pass_on(plan.axis_name, travel, 1)), None

    (stay, travel), _ = lax.scan(meet, (stay, travel), None, length=hops)
    if plan.triangle and n % 2 == 0:
        travel = _pass_on(plan.axis_name, travel, 1)
        stay, travel = visit(away._replace(columns=False), stay, travel)
        hops += 1
    return stay, travel, hops


def _pass_on(axis_name: str | None, tree: Any, hops: int) -> Any:
    if axis_name is None or hops == 0:
        return tree
    n = lax.axis_size(axis_name)
    ring = [(source, (source + hops) % n) for source in range(n)]
    return jax.tree.map(lambda x: lax.ppermute(x, axis_name, ring), tree)
