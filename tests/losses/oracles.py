"""Losses as slow loops in float64, written from the papers' equations and from nothing else."""

import math

import numpy as np


def normalized(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_mean_exp(values):
    peak = max(values)
    return peak + math.log(sum(math.exp(v - peak) for v in values) / len(values))


def log_sum(values):
    return log_mean_exp(values) + math.log(len(values))


def nt_xent(z_BVD, temperature):
    z = normalized(z_BVD)
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
            matching = [z[b, v] @ z[b, w] / temperature for w in range(V) if w != v]
            loss[b, v] = np.mean([log_sum(every) - s for s in matching])
    return loss


def info_nce(query_BD, key_BD, temperature, negatives_BKD=None, ids_B=None):
    query, key = normalized(query_BD), normalized(key_BD)
    B = len(query)
    extra = (
        [] if negatives_BKD is None else list(normalized(negatives_BKD).reshape(-1, key.shape[1]))
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
    z = normalized(z_BVD)
    B, V, _ = z.shape
    z, labels = z.reshape(B * V, -1), np.repeat(labels_B, V)
    loss = np.zeros(B * V)
    for i in range(B * V):
        others = [a for a in range(B * V) if a != i]
        matching = [z[i] @ z[p] / temperature for p in others if labels[p] == labels[i]]
        if not matching:
            continue
        every = log_sum([z[i] @ z[a] / temperature for a in others])
        inside_or_out = np.mean(matching) if positives == "outside" else log_mean_exp(matching)
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
    return 1.0 - normalized(x) @ normalized(y)


def triplet(anchor_BD, positive_BD, negative_BD, margin, kind="euclidean"):
    return np.array(
        [
            max(0.0, distance(a, p, kind) - distance(a, n, kind) + margin)
            for a, p, n in zip(anchor_BD, positive_BD, negative_BD, strict=True)
        ]
    )


def per_query_info_nce(query_BD, key_BD, negatives_BKD, temperature):
    q, k, n = normalized(query_BD), normalized(key_BD), normalized(negatives_BKD)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        loss[i] = log_sum([matching] + [q[i] @ m / temperature for m in n[i]]) - matching
    return loss


def queue_info_nce(query_BD, key_BD, queue_KD, temperature):
    everyone = np.broadcast_to(queue_KD, (len(query_BD), *np.shape(queue_KD)))
    return per_query_info_nce(query_BD, key_BD, everyone, temperature)


def joint_info_nce(query_BD, key_BD, temperature, ids_B=None):
    q, k = normalized(query_BD), normalized(key_BD)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        every = [matching]
        for j in range(len(q)):
            if j != i and (ids_B is None or ids_B[i] != ids_B[j]):
                pairs = q[i] @ k[j], q[j] @ k[i], q[i] @ q[j], k[j] @ k[i]
                every += [s / temperature for s in pairs]
        loss[i] = log_sum(every) - matching
    return loss


def guided_info_nce(query_BD, key_BD, guide_query_BF, guide_key_BF, temperature, margin, relative):
    q, k = normalized(query_BD), normalized(key_BD)
    guide = normalized(guide_query_BF) @ normalized(guide_key_BF).T
    loss = np.zeros(len(q))
    for i in range(len(q)):
        limit = guide[i, i] - (abs(guide[i, i]) * margin if relative else margin)
        kept = [j for j in range(len(q)) if j == i or guide[i, j] <= limit]
        matching = q[i] @ k[i] / temperature
        loss[i] = log_sum([q[i] @ k[j] / temperature for j in kept]) - matching
    return loss


def positives_and_negatives(z_BVD, temperature):
    """For each anchor: its place, its positives' and its negatives' similarities."""
    z = normalized(z_BVD)
    B, V, _ = z.shape
    for b in range(B):
        for v in range(V):
            matching = [z[b, v] @ z[b, w] / temperature for w in range(V) if w != v]
            other = [z[b, v] @ z[c, w] / temperature for c in range(B) for w in range(V) if c != b]
            yield (b, v), np.array(matching), np.array(other)


def decoupled(z_BVD, temperature, sigma=None):
    loss = np.zeros(np.shape(z_BVD)[:2])
    every = list(positives_and_negatives(z_BVD, temperature))
    for at, matching, other in every:
        weight = 1.0
        if sigma is not None:
            width = sigma / temperature
            mean = np.mean([np.exp(positives / width) for _, positives, _ in every])
            weight = 2 - np.exp(matching / width) / mean
        loss[at] = np.mean(-weight * matching) + log_sum(other)
    return loss


def debiased_nt_xent(z_BVD, temperature, tau_plus, beta):
    loss = np.zeros(np.shape(z_BVD)[:2])
    for at, matching, other in positives_and_negatives(z_BVD, temperature):
        hard = np.sum(np.exp((1 + beta) * other)) / np.sum(np.exp(beta * other))
        g = (hard - tau_plus * np.mean(np.exp(matching))) / (1 - tau_plus)
        g = max(g, math.exp(-1 / temperature))
        loss[at] = np.mean(-np.log(np.exp(matching) / (np.exp(matching) + len(other) * g)))
    return loss


def hardness_info_nce(query_BD, key_BD, temperature, alpha):
    q, k = normalized(query_BD), normalized(key_BD)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        others = [q[i] @ k[j] for j in range(len(q)) if j != i]
        loss[i] = log_sum([matching] + [alpha * s + s / temperature for s in others]) - matching
    return loss


def multi_positive_info_nce(query_BD, key_BD, ids_B, temperature):
    same = np.asarray(ids_B)[:, None] == np.asarray(ids_B)[None, :]
    return soft_info_nce(query_BD, key_BD, same / same.sum(1, keepdims=True), temperature)


def soft_info_nce(query_BD, key_BD, targets_BM, temperature):
    s = normalized(query_BD) @ normalized(key_BD).T / temperature
    return np.array(
        [sum(t * (log_sum(row) - x) for t, x in zip(targets, row, strict=True))
         for targets, row in zip(targets_BM, s, strict=True)]
    )  # fmt: skip


def n_pair(anchor_BD, positive_BD):
    s = np.float64(anchor_BD) @ np.float64(positive_BD).T
    n = len(s)
    return np.array(
        [math.log(1 + sum(math.exp(s[i, j] - s[i, i]) for j in range(n) if j != i))
         for i in range(n)]
    )  # fmt: skip


def angular(anchor_BD, positive_BD, degrees):
    x, p = np.float64(anchor_BD), np.float64(positive_BD)
    t = math.tan(math.radians(degrees)) ** 2
    loss = np.zeros(len(x))
    for i in range(len(x)):
        f = [
            4 * t * (x[i] + p[i]) @ p[j] - 2 * (1 + t) * x[i] @ p[i]
            for j in range(len(x))
            if j != i
        ]
        loss[i] = log_sum([0.0, *f])
    return loss


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def siglip(a_BD, b_BD, temperature, bias, ids_B=None):
    a, b = normalized(a_BD), normalized(b_BD)
    loss = np.zeros(len(a))
    for i in range(len(a)):
        for j in range(len(b)):
            logit = a[i] @ b[j] / temperature + bias
            if i == j:
                loss[i] += softplus(-logit)
            elif ids_B is None or ids_B[i] != ids_B[j]:
                loss[i] += softplus(logit)
    return loss


def nt_logistic(z_BVD, temperature, semi_hard=False):
    loss = np.zeros(np.shape(z_BVD)[:2])
    for at, matching, other in positives_and_negatives(z_BVD, temperature):
        if semi_hard:
            other = other[other < matching.min()]
        loss[at] = np.mean([softplus(-s) for s in matching])
        loss[at] += np.mean([softplus(s) for s in other]) if len(other) else 0.0
    return loss
