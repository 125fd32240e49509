"""Losses as slow loops in float64, written from the papers' equations and from nothing else."""

import math

import numpy as np


def normalised(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_mean_exp(values):
    peak = max(values)
    return peak + math.log(sum(math.exp(v - peak) for v in values) / len(values))


def log_sum(values):
    return log_mean_exp(values) + math.log(len(values))


def nt_xent(z_BVD, temperature):
    z = normalised(z_BVD)
    B, V, _ = z.shape
    loss = np.zeros((B, V))
    for b in range(B):
        for v in range(V):
            every = [
                z[b, v] @ z[c, w] / temperature
                for c in range(B)
                for w in range(V)
                if (c, w) != (b, v)
            ]
            own = [z[b, v] @ z[b, w] / temperature for w in range(V) if w != v]
            loss[b, v] = np.mean([log_sum(every) - s for s in own])
    return loss


def info_nce(query_BD, key_BD, temperature, negatives_BKD=None, ids_B=None):
    query, key = normalised(query_BD), normalised(key_BD)
    B = len(query)
    extra = (
        [] if negatives_BKD is None else list(normalised(negatives_BKD).reshape(-1, key.shape[1]))
    )
    loss = np.zeros(B)
    for i in range(B):
        kept = [j for j in range(B) if j == i or ids_B is None or ids_B[j] != ids_B[i]]
        every = [query[i] @ key[j] / temperature for j in kept]
        every += [query[i] @ k / temperature for k in extra]
        loss[i] = log_sum(every) - query[i] @ key[i] / temperature
    return loss


def symmetric_info_nce(a_BD, b_BD, temperature, ids_B=None):
    there = info_nce(a_BD, b_BD, temperature, ids_B=ids_B)
    back = info_nce(b_BD, a_BD, temperature, ids_B=ids_B)
    return (there + back) / 2


def sup_con(z_BVD, labels_B, temperature, positives="outside"):
    z = normalised(z_BVD)
    B, V, _ = z.shape
    z, labels = z.reshape(B * V, -1), np.repeat(labels_B, V)
    loss = np.zeros(B * V)
    for i in range(B * V):
        others = [a for a in range(B * V) if a != i]
        own = [z[i] @ z[p] / temperature for p in others if labels[p] == labels[i]]
        if not own:
            continue
        every = log_sum([z[i] @ z[a] / temperature for a in others])
        inside_or_out = np.mean(own) if positives == "outside" else log_mean_exp(own)
        loss[i] = every - inside_or_out
    return loss.reshape(B, V)


def margin_contrastive(x_BD, y_BD, dissimilar_B, margin):
    loss = np.zeros(len(x_BD))
    for i, (x, y, dissimilar) in enumerate(zip(x_BD, y_BD, dissimilar_B, strict=True)):
        d = math.dist(x, y)
        loss[i] = 0.5 * max(0.0, margin - d) ** 2 if dissimilar else 0.5 * d**2
    return loss


def distance(x, y, kind):
    if kind == "euclidean":
        return math.dist(x, y)
    if kind == "squared":
        return math.dist(x, y) ** 2
    return 1.0 - normalised(x) @ normalised(y)


def triplet(anchor_BD, positive_BD, negative_BD, margin, kind="euclidean"):
    return np.array(
        [
            max(0.0, distance(a, p, kind) - distance(a, n, kind) + margin)
            for a, p, n in zip(anchor_BD, positive_BD, negative_BD, strict=True)
        ]
    )
