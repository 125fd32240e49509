"""Measure the memory of mining hard negatives, and compare it with an exhaustive search.

    python -m benchmarks.miner_memory        # 5,000 queries x 200,000 documents x 384: some minutes

Random vectors stand for embeddings, a positive and two further excluded documents for each query.
In a process of its own (Linux) the miner's resident memory is measured beyond the vectors that it
is given, compilation and result included. The search that it is compared with ranks all scores
of a part of the queries in NumPy, in float64. Two documents may change places where their scores
are closer than float32 can tell, which is counted. Exits with 1 where memory is above the limit
or a negative is another.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.shared import harness
from contrastive_jax import mining

LIMIT_MEGABYTES = 1000
RANKS = (0, 50)
NEGATIVES = 5
TOLERANCE = 1e-5  # between scores of float32 and of float64, of vectors of length one
PACKAGES = ("jax", "numpy")


def vectors(queries: int, documents: int, dim: int) -> tuple[np.ndarray, ...]:
    """Make query [Q,D], document [M,D], positives [Q,1] and excluded [Q,3]."""
    rng = np.random.default_rng(0)
    query_QD, document_MD = (
        rng.standard_normal((n, dim), np.float32) for n in (queries, documents)
    )
    excluded_QE = rng.integers(0, documents, (queries, 3)).astype(np.int32)
    return query_QD, document_MD, excluded_QE[:, :1], excluded_QE


def mined(given: tuple[np.ndarray, ...]) -> mining.Negatives:
    return mining.mine_in_blocks(*given, n_negatives=NEGATIVES, ranks=RANKS)


def measure(args: argparse.Namespace) -> None:
    """Print how far mining raises the resident set, megabytes, and keep what was found."""
    given = vectors(args.queries, args.documents, args.dim)
    found: list[mining.Negatives] = []
    risen = harness.risen_megabytes(lambda: found.append(mined(given)))
    np.savez(args.measure, index=found[0].index, score=found[0].score, valid=found[0].valid)
    print(risen)


def differences(given: tuple[np.ndarray, ...], found: dict[str, np.ndarray], n: int) -> dict:
    """Compare n queries, spread over all, with an exhaustive search in float64."""
    query_QD, document_MD, _, excluded_QE = given
    rows = np.linspace(0, len(query_QD) - 1, n).astype(int)
    score_NM = unit(query_QD[rows]) @ unit(document_MD).T
    score_NM[np.arange(n)[:, None], excluded_QE[rows]] = -np.inf
    best_NK = np.argsort(-score_NM, axis=1, kind="stable")[:, :NEGATIVES]
    index_NK = found["index"][rows]
    own_NK, best = (np.take_along_axis(score_NM, x, axis=1) for x in (index_NK, best_NK))
    return {
        "queries": n,
        "all_found": bool(found["valid"].all()),
        "other_documents": int((index_NK != best_NK).sum()),
        "largest_loss_of_score": float((best - own_NK).max()),
        "largest_error_of_score": float(np.abs(found["score"][rows] - own_NK).max()),
    }


def unit(x_ND: np.ndarray) -> np.ndarray:
    x_ND = x_ND.astype(np.float64)
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--compared", type=int, default=500, help="queries searched exhaustively")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "miner_memory.json")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = harness.parse(parser, queries=64, documents=500, dim=8, compared=32)
    if args.measure:
        return measure(args)
    sizes = {"queries": args.queries, "documents": args.documents, "dim": args.dim}
    flags = [word for name, size in sizes.items() for word in (f"--{name}", size)]
    kept = args.out.with_suffix(".npz")
    risen = float(harness.in_own_process("benchmarks.miner_memory", *flags, "--measure", kept))
    given = vectors(**sizes)
    with np.load(kept, allow_pickle=False) as file:
        compared = differences(given, dict(file), args.compared)
    kept.unlink()
    holds = {
        "memory": risen < LIMIT_MEGABYTES,
        "equal": compared["all_found"]
        and max(compared["largest_loss_of_score"], compared["largest_error_of_score"]) < TOLERANCE,
    }
    record = {
        **harness.circumstances(PACKAGES),
        **sizes,
        "negatives": NEGATIVES,
        "ranks": RANKS,
        "vectors_megabytes": sum(x.nbytes for x in given[:2]) / 2**20,
        "megabytes_beyond_the_vectors": risen,
        "limit_megabytes": LIMIT_MEGABYTES,
        "compared": {**compared, "tolerance": TOLERANCE},
        "holds": holds,
    }
    harness.write(args.out, record)
    raise SystemExit(0 if all(holds.values()) else f"does not hold: {holds}")


if __name__ == "__main__":
    main()
