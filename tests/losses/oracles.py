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


def info_nce(
    query_BD,
    key_BD,
    temperature,
    negatives_BKD=None,
    ids_B=None,
    negatives_mask_BK=None,
    negatives_ids_BK=None,
    directions=("query_to_key",),
):
    query, key = normalized(query_BD), normalized(key_BD)
    B = len(query)
    others = lambda i: [  # noqa: E731
        j for j in range(B) if j != i and (ids_B is None or ids_B[j] != ids_B[i])
    ]
    given = given_negatives(negatives_BKD, negatives_mask_BK, negatives_ids_BK)
    loss = np.zeros(B)
    for i in range(B):
        allowed = [(j, n) for j, n, name in given if ids_B is None or name != ids_B[i]]
        positive = query[i] @ key[i]
        every = [positive] + [query[i] @ key[j] for j in others(i)]
        every += [query[i] @ n for _, n in allowed]
        if "key_to_query" in directions:
            every += [positive] + [query[j] @ key[i] for j in others(i)]
        if "query_to_query" in directions:
            every += [query[i] @ query[j] for j in others(i)]
        if "key_to_key" in directions:
            every += [key[i] @ key[j] for j in others(i)]
            every += [key[i] @ n for j, n in allowed if j != i]
        loss[i] = log_sum([s / temperature for s in every]) - positive / temperature
    return loss


def given_negatives(negatives_BKD, mask_BK=None, ids_BK=None):
    """(whose, unit vector, id) of each explicit negative that is no padding."""
    if negatives_BKD is None:
        return []
    return [
        (j, normalized(negatives_BKD[j, k]), None if ids_BK is None else ids_BK[j, k])
        for j in range(len(negatives_BKD))
        for k in range(len(negatives_BKD[j]))
        if mask_BK is None or mask_BK[j, k]
    ]


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


def per_query_info_nce(
    query_BD,
    key_BD,
    negatives_BKD,
    temperature,
    negatives_mask_BK=None,
    negatives_ids_BK=None,
    ids_B=None,
):
    q, k = normalized(query_BD), normalized(key_BD)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        given = given_negatives(negatives_BKD, negatives_mask_BK, negatives_ids_BK)
        own = [n for j, n, name in given if j == i and (ids_B is None or name != ids_B[i])]
        loss[i] = log_sum([matching] + [q[i] @ n / temperature for n in own]) - matching
    return loss


def queue_info_nce(query_BD, key_BD, queue_KD, temperature):
    everyone = np.broadcast_to(queue_KD, (len(query_BD), *np.shape(queue_KD)))
    return per_query_info_nce(query_BD, key_BD, everyone, temperature)


def joint_info_nce(query_BD, key_BD, temperature, ids_B=None, positive_once=False):
    q, k = normalized(query_BD), normalized(key_BD)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        every = [matching] if positive_once else [matching, matching]
        for j in range(len(q)):
            if j != i and (ids_B is None or ids_B[i] != ids_B[j]):
                pairs = q[i] @ k[j], q[j] @ k[i], q[i] @ q[j], k[j] @ k[i]
                every += [s / temperature for s in pairs]
        loss[i] = log_sum(every) - matching
    return loss


def guided_info_nce(
    query_BD,
    key_BD,
    guide_query_BF,
    guide_key_BF,
    temperature,
    margin,
    relative,
    contrast=True,
    negatives_BKD=None,
    guide_negatives_BKF=None,
    negatives_mask_BK=None,
    negatives_ids_BK=None,
    ids_B=None,
):
    q, k = normalized(query_BD), normalized(key_BD)
    guide_q, guide_k = normalized(guide_query_BF), normalized(guide_key_BF)
    given = given_negatives(negatives_BKD, negatives_mask_BK, negatives_ids_BK)
    guides = given_negatives(guide_negatives_BKF, negatives_mask_BK)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        positive = guide_q[i] @ guide_k[i]
        limit = positive - (abs(positive) * margin if relative else margin)
        others = [j for j in range(len(q)) if j != i and (ids_B is None or ids_B[j] != ids_B[i])]
        pairs = [(q[i] @ k[j], guide_q[i] @ guide_k[j]) for j in others]
        if contrast:
            pairs += [(q[i] @ q[j], guide_q[i] @ guide_q[j]) for j in others]
            pairs += [(k[i] @ k[j], guide_k[i] @ guide_k[j]) for j in others]
        for (_, n, name), (_, guide, _) in zip(given, guides, strict=True):
            if ids_B is None or name != ids_B[i]:
                pairs.append((q[i] @ n, guide_q[i] @ guide))
        matching = q[i] @ k[i] / temperature
        kept = [s / temperature for s, g in pairs if g <= limit]
        loss[i] = log_sum([matching, *kept]) - matching
    return loss


def labeled_nt_xent(z_BVD, labels_B, temperature):
    z = normalized(z_BVD)
    B, V, _ = z.shape
    z, labels = z.reshape(B * V, -1), np.repeat(labels_B, V)
    loss = np.zeros(B * V)
    for i in range(B * V):
        positives = [p for p in range(B * V) if p != i and labels[p] == labels[i]]
        negatives = [z[i] @ z[n] / temperature for n in range(B * V) if labels[n] != labels[i]]
        terms = [
            log_sum([z[i] @ z[p] / temperature, *negatives]) - z[i] @ z[p] / temperature
            for p in positives
        ]
        loss[i] = np.mean(terms) if terms else 0.0
    return loss.reshape(B, V)


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


def hardness_info_nce(
    query_BD,
    key_BD,
    temperature,
    alpha,
    weighted="in_batch",
    negatives_BKD=None,
    negatives_mask_BK=None,
):
    q, k = normalized(query_BD), normalized(key_BD)
    given = given_negatives(negatives_BKD, negatives_mask_BK)
    loss = np.zeros(len(q))
    for i in range(len(q)):
        matching = q[i] @ k[i] / temperature
        others = [(j, k[j]) for j in range(len(q)) if j != i] + [(j, n) for j, n, _ in given]
        every = [matching]
        for j, n in others:
            hard = weighted == "all" or (weighted == "explicit") == (j == i)
            every.append(q[i] @ n / temperature + (alpha * (q[i] @ n) if hard else 0.0))
        loss[i] = log_sum(every) - matching
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


def siglip(a_BD, b_BD, temperature, bias, ids_B=None, same_id="left_out"):
    a, b = normalized(a_BD), normalized(b_BD)
    loss = np.zeros(len(a))
    for i in range(len(a)):
        for j in range(len(b)):
            logit = a[i] @ b[j] / temperature + bias
            same = ids_B is not None and ids_B[i] == ids_B[j]
            if i == j or (same and same_id == "positive"):
                loss[i] += softplus(-logit)
            elif not same:
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
