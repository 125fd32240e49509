"""The methods' losses, slowly: loops over float64 numpy arrays, from the papers' equations.

An oracle takes (p, q, state, x, key): parameters that are differentiated, the same ones behind a
stop-gradient, the model state, the views {"large": [B,2,H,W,C], "small": [B,1,h,w,C]}.
"""

import jax
import numpy as np

SETTINGS = {  # the keywords of each method's `make`; 10 steps where it asks
    "moco": {"temperature": 0.3, "queue_size": 12, "momentum": 0.9},
    "moco_v3": {"temperature": 0.3, "momentum": 0.9},
    "byol": {"momentum": 0.9},
    "simsiam": {},
    "barlow": {"off_diagonal": 0.02, "scale": 0.5},
    "vicreg": {"invariance": 25.0, "variance": 20.0, "covariance": 2.0},
    "nnclr": {"temperature": 0.3, "queue_size": 12},
    "lejepa": {"weight": 0.3, "n_directions": 5},
    "swav": {"n_prototypes": 3, "temperature": 0.2, "epsilon": 0.3, "queue_size": 12},
    "dino": {"n_prototypes": 3, "teacher_temperature": 0.07, "momentum": 0.9},
}
STEPS, STEP = 10, 4


def encode(p, x_NHWC):
    """The tiny encoder over one batch of views."""
    dense = p["encoder"]["Dense_0"]
    return np.tanh(x_NHWC.mean((1, 2)) @ dense["kernel"] + dense["bias"])


def project(p, h):
    """The head with batch norm over one batch of features."""
    hidden = h @ p["head"]["Dense_0"]["kernel"]
    norm = p["head"]["BatchNorm_0"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = np.maximum(hidden * norm["scale"] + norm["bias"], 0)
    return hidden @ p["head"]["Dense_1"]["kernel"] + p["head"]["Dense_1"]["bias"]


def separately(p, x):
    return [project(p, encode(p, x["large"][:, v])) for v in range(2)]


def jointly(p, *sets_of_views):
    """All views, one batch for the head whatever their sizes; in the order in which they come."""
    views = [encode(p, x[:, v]) for x in sets_of_views for v in range(x.shape[1])]
    return np.split(project(p, np.concatenate(views)), len(views))


def predict(p, z):
    return z @ p["predictor"]["Dense_0"]["kernel"] + p["predictor"]["Dense_0"]["bias"]


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rising():
    """The momentum of the last step, whose number is STEP - 1."""
    return 1 - (1 - 0.9) * (np.cos(np.pi * (STEP - 1) / STEPS) + 1) / 2


def moved(state, q, tau=None):
    """The target after the update of the last step."""
    tau = rising() if tau is None else tau
    old = state["target"]["params"]
    return jax.tree.map(lambda a, b: tau * a + (1 - tau) * b, old, {k: q[k] for k in old})


def moco(p, q, state, x, key):
    (query, _), (_, keys) = separately(p, x), separately(moved(state, q, 0.9), x)
    total = 0.0
    for row, key in zip(unit(query), unit(keys), strict=True):
        candidates = np.concatenate([key[None], state["queue"].keys_KD])
        total -= np.log(softmax(candidates @ row / 0.3)[0]) / len(query)
    return total


def moco_v3(p, q, state, x, key):
    keys = separately(moved(state, q), x)
    total = 0.0
    for v, z in enumerate(separately(p, x)):
        similarity = unit(predict(p, z)) @ unit(keys[1 - v]).T
        cross_entropy = [-np.log(softmax(row / 0.3)[i]) for i, row in enumerate(similarity)]
        total += 2 * 0.3 * np.mean(cross_entropy)
    return total


def byol(p, q, state, x, key):
    target = separately(moved(state, q), x)
    total = 0.0
    for v, z in enumerate(separately(p, x)):
        total += np.sum((unit(predict(p, z)) - unit(target[1 - v])) ** 2, axis=-1).mean()
    return total


def simsiam(p, q, state, x, key):
    z, still = separately(p, x), separately(q, x)
    cosine = [np.sum(unit(predict(p, z[v])) * unit(still[1 - v]), axis=-1).mean() for v in (0, 1)]
    return -cosine[0] / 2 - cosine[1] / 2


def barlow(p, q, state, x, key):
    a, b = separately(p, x)
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            c = np.corrcoef(a[:, i], b[:, j])[0, 1]
            total += (1 - c) ** 2 if i == j else 0.02 * c**2
    return 0.5 * total


def vicreg(p, q, state, x, key):
    a, b = separately(p, x)
    total = 25.0 * np.mean((a - b) ** 2)
    for z in (a, b):
        D = z.shape[1]
        total += 20.0 * np.mean(np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4))) / 2
        covariance = np.cov(z.T)
        total += 2.0 * sum(covariance[i, j] ** 2 for i in range(D) for j in range(D) if i != j) / D
    return total


def nnclr(p, q, state, x, key):
    supports = state["queue"].keys_KD
    z, still = separately(p, x), separately(q, x)
    total = 0.0
    for v in range(2):
        prediction = unit(predict(p, z[1 - v]))
        for i, row in enumerate(unit(still[v])):
            near = supports[np.argmax(supports @ row)]
            total -= np.log(softmax(prediction @ near / 0.3)[i]) / (2 * len(prediction))
    return total


def lejepa(p, q, state, x, key):
    views = jointly(p, x["large"], x["small"])
    center = (views[0] + views[1]) / 2
    prediction = np.mean([np.mean((center - z) ** 2) for z in views])
    direction = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (center.shape[1], 5)))
    t = np.linspace(-5, 5, 17)
    statistics = []
    for z in views:
        for a in direction.T.astype(np.float64):
            phi = np.mean([np.exp(1j * t * (row @ a / np.linalg.norm(a))) for row in z], axis=0)
            error = np.abs(phi - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
            statistics.append(len(z) * np.trapezoid(error, t))
    return (1 - 0.3) * prediction + 0.3 * np.mean(statistics)


def scores(p, z):
    return unit(z) @ unit(p["prototypes"]["kernel"].T).T


def swapped(target, views, p, temperature):
    """Each view beside the target of each other large view."""
    terms = []
    for t, probabilities in enumerate(target):
        for v, z in enumerate(views):
            if v != t:
                log_p = np.log(softmax(scores(p, z) / temperature))
                terms.append(-np.mean(np.sum(probabilities * log_p, axis=-1)))
    return np.mean(terms)


def swav(p, q, state, x, key):
    targets = []
    for z, older in zip(jointly(q, x["large"], x["small"]), state["queues"], strict=False):
        s = scores(q, np.concatenate([z, older.keys_KD]))
        Q = np.exp(s / 0.3).T
        Q /= Q.sum()
        K, N = Q.shape
        for _ in range(3):
            Q *= (1 / K / Q.sum(1))[:, None]
            Q *= (1 / N / Q.sum(0))[None]
        targets.append((Q / Q.sum(0)).T[: len(z)])
    return swapped(targets, jointly(p, x["large"], x["small"]), p, 0.2)


def dino(p, q, state, x, key):
    teacher = moved(state, q)
    targets = [
        softmax((scores(teacher, z) - state["center"]) / 0.07) for z in jointly(teacher, x["large"])
    ]
    return swapped(targets, jointly(p, x["large"], x["small"]), p, 0.1)
