"""Runs by graded pairs, a teacher's scores, triplets and a guide; what they need of the data."""

import json

import numpy as np
import pytest
import scipy.stats

from contrastive_jax import losses, sentence_folder
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.objectives import mined
from contrastive_jax.storage import jsonl, workdir
from experiments import evaluate, report
from experiments.run import build, restore
from experiments.scoring import texts
from tests.experiments import tiny
from tests.experiments.test_text_run import THINGS, config, train
from tests.test_sentence_folder import random_model

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
N = len(THINGS)
DRY = {"name": "bag", "dim": 8, "word_dropout": 0.0}


def write(path, **columns):
    """Pairs with further columns, which are functions of their number."""
    rows = [
        {"query": f"home of {thing}", "pos": [f"{thing} lives in part {i % 7}"]}
        | {name: value(i) for name, value in columns.items()}
        for i, thing in enumerate(THINGS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def built(folder):
    """A run as it was trained, with all that its guide said."""
    opened = restore.open_run(folder)
    return build.build(opened.experiment, opened.config)


def negatives(i):
    return [f"{THINGS[(i + k) % N]} lives in part {(i + k) % 7}" for k in (1, 2)]


TAUGHT = {
    "neg": negatives,
    "pos_scores": lambda i: [5.0 + i / N],
    "neg_scores": lambda i: [i / N, -1.0],
}


def losses_of(folder):
    return [row["loss"] for row in jsonl.read_jsonl(folder / "metrics.jsonl")]


def quick(path, kind, n=0, **changed):
    loss = {"kind": kind, **changed}
    values = config(path, data={"n_negatives": n}, eval={"figures": False}, train={"steps": 2})
    return {**values, "loss": loss}


@pytest.mark.parametrize("kind", ["cosent", "angle", "cosine_regression"])
def test_graded_pairs_are_learned_by_their_scores_and_scored_by_correlation(tmp_path, kind):
    path = write(tmp_path / "graded.jsonl", score=lambda i: i / N)
    folder = tmp_path / "run"
    assert train(folder, quick(path, kind)) == 0
    loaded = restore.open_run(folder).load()
    run, first = loaded.run, loaded.run.fresh_state()
    index = run.feed.batch_at(0)["index"]
    rows = {name: values[index] for name, values in run.dataset.train.items()}
    z = [
        np.asarray(run.objective.embed[side](first.params, {}, rows)["embedding"])
        for side in ("query", "document")
    ]
    dry = {**quick(path, kind), "encoder": DRY}
    assert train(tmp_path / "dry", dry) == 0  # without dropout, as `embed` is
    want = getattr(losses, kind)(*z, rows["score"]).mean()
    np.testing.assert_allclose(losses_of(tmp_path / "dry")[0], want, rtol=1e-5)

    summary = workdir.read_json(folder / "results" / "summary.json")
    pairs = texts.texts_of(run).graded
    sides = [pair.query for pair in pairs], [pair.positives[0] for pair in pairs]
    tokenizer = texts.texts_of(run).tokenizer
    q, d = (
        texts.embed(run, loaded.trained, tokenizer, side, found)
        for side, found in zip(("query", "document"), sides, strict=True)
    )
    values = {(r["representation"], r["measure"]): r for r in summary["evaluations"]}
    assert set(values) == {
        (s, m) for s in ("trained", "untrained") for m in ("Spearman", "Pearson")
    }
    row = values["trained", "Spearman"]
    want = scipy.stats.spearmanr((q * d).sum(1), [pair.score for pair in pairs]).statistic
    assert row["value"] == pytest.approx(want)
    assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    assert row["n"] == 8
    assert tiny.main_of(evaluate.main, folder) == 0
    again = workdir.read_json(folder / "results" / "evaluation.json")
    assert again["evaluations"] == summary["evaluations"]
    assert tiny.main_of(report.main, folder, "--to", tmp_path / "report.html") == 0
    assert "Spearman" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("kind", ["margin_mse", "kl_distillation", "triplet"])
def test_a_teachers_scores_and_triplets_reach_the_loss(tmp_path, kind):
    path = write(tmp_path / "taught.jsonl", **TAUGHT)
    values = {**quick(path, kind, n=3), "encoder": DRY}
    assert train(tmp_path / "run", values) == 0
    run = restore.open_run(tmp_path / "run").load().run
    rows = {name: x[run.feed.batch_at(0)["index"]] for name, x in run.dataset.train.items()}
    first = run.fresh_state()
    of = lambda side, names, n: np.asarray(  # noqa: E731
        run.objective.embed[side](
            first.params,
            {},
            {
                side: rows[names].reshape(n, -1),
                f"{side}_length": rows[f"{names}_length"].reshape(n),
            },
        )["features"]
    )
    B, K = rows["negatives_mask"].shape
    assert (B, K) == (8, 3)
    assert not rows["negatives_mask"][:, 2].any()  # padding
    q, d, n = (
        of("query", "query", B),
        of("document", "document", B),
        of("document", "negatives", B * K),
    )
    n = n.reshape(B, K, -1)
    if kind == "triplet":
        far = [np.linalg.norm(q - n[:, k], axis=1) for k in range(2)]
        near = np.linalg.norm(q - d, axis=1)
        want = np.mean([np.maximum(near - each + 1.0, 0) for each in far])
    else:
        given = {"negatives_mask_BK": rows["negatives_mask"]}
        want = np.mean(getattr(losses, kind)(q, d, n, rows["scores"], **given))
        index = run.feed.batch_at(0)["index"]
        assert len(np.unique(rows["scores"][:, 0])) == len(index)
    np.testing.assert_allclose(losses_of(tmp_path / "run")[0], want, rtol=1e-4)


def test_a_guide_says_which_texts_are_no_negatives(tmp_path):
    path = write(tmp_path / "pairs.jsonl", neg=negatives)
    guide = tmp_path / "guide"
    sentence_folder.write(guide, random_model(layers=1), card="")
    values = quick(path, "guided_info_nce", n=2, guide=str(guide), temperature=0.1)
    assert train(tmp_path / "run", values) == 0
    loaded = built(tmp_path / "run").dataset
    model = sentence_folder.load(guide)
    queries = {
        tuple(row) for row in model.encode([f"home of {t}" for t in THINGS], "query").round(4)
    }
    assert {tuple(row) for row in loaded.train["query_guide"].round(4)} <= queries
    assert loaded.train["negatives_guide"].shape == (32, 2, loaded.train["query_guide"].shape[1])
    assert restore.open_run(tmp_path / "run").load_without_data().step == 2
    loose = {**values, "loss": {**values["loss"], "margin": -3.0}}
    plain = {**values, "loss": {**values["loss"], "margin": 3.0}}
    found = []
    for name, each in (("loose", loose), ("strict", plain)):
        assert train(tmp_path / name, each) == 0
        found.append(losses_of(tmp_path / name)[0])
    assert found[1] == 0.0  # nothing is unlike enough to be a negative
    assert found[0] > losses_of(tmp_path / "run")[0] > 0
    guide.rename(tmp_path / "elsewhere")  # no later command needs it
    assert tiny.main_of(evaluate.main, tmp_path / "run") == 0
    scores = [
        workdir.read_json(tmp_path / "run" / "results" / f"{name}.json")["evaluations"]
        for name in ("summary", "evaluation")
    ]
    assert scores[0] == scores[1]


def test_a_guide_speaks_of_the_negatives_that_are_mined(tmp_path):
    path = write(tmp_path / "pairs.jsonl", neg=negatives)
    guide = tmp_path / "guide"
    sentence_folder.write(guide, random_model(layers=1), card="")
    values = quick(path, "guided_info_nce", n=2, guide=str(guide), temperature=0.1)
    values["mine"] = {"every_steps": 1, "ranks": (0, 9)}
    assert train(tmp_path / "run", values) == 0
    run = built(tmp_path / "run")
    batch = run.feed.assemble(run.feed.resident, run.feed.batch_at(0))
    table_NK = np.asarray(texts.texts_of(run).mineable.first_NK)
    given = mined.negatives_at(table_NK, {k: np.asarray(x) for k, x in batch.items()})
    rows = run.dataset.train
    for document, vector in zip(rows["document"], rows["document_guide"], strict=True):
        same = (np.asarray(given["negatives"]) == document).all(axis=-1)
        np.testing.assert_array_equal(
            np.asarray(given["negatives_guide"])[same],
            np.broadcast_to(vector, (same.sum(), vector.size)),
        )
    assert restore.open_run(tmp_path / "run").load_without_data().step == 2


@pytest.mark.parametrize(
    ("kind", "n", "message"),
    [
        ("cosent", 0, "needs a number 'score' in every row"),
        ("angle", 0, "needs a number 'score' in every row"),
        ("margin_mse", 1, "needs 'pos_scores' and 'neg_scores' in every row"),
        ("triplet", 0, "contrasts with negatives alone"),
        ("guided_info_nce", 0, "needs loss.guide"),
        ("guided_info_nce --config.loss.guide_dim=16", 0, "guide_dim is read from the folder"),
        ("cosent", 1, "reads no negatives"),
    ],
)
def test_data_that_lacks_what_a_loss_reads_is_refused_before_training(tmp_path, kind, n, message):
    path = write(tmp_path / "pairs.jsonl", neg=negatives)
    kind, *words = kind.split()
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", quick(path, kind, n), *words)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", "high", "'score' holds 'high', which is no finite number"),
        ("score", float("nan"), "no finite number"),
        ("score", True, "no finite number"),
        ("neg_scores", [1.0], "1 'neg_scores' of 2 texts in 'neg'"),
    ],
)
def test_broken_scores_are_named_by_their_line(tmp_path, column, value, message):
    path = write(tmp_path / "pairs.jsonl", neg=negatives, **{column: lambda i: value})
    with pytest.raises(DataError, match=f"line 1 .*{message}"):
        train(tmp_path / "run", quick(path, "info_nce"))


def test_scores_that_are_all_equal_and_losses_that_do_not_read_them(tmp_path, capsys):
    same = write(tmp_path / "same.jsonl", score=lambda i: 1)
    with pytest.raises(ConfigError, match="one and the same score"):
        train(tmp_path / "run", quick(same, "cosent"))
    mostly = write(tmp_path / "mostly.jsonl", score=lambda i: int(i == 0))
    with pytest.raises(ConfigError, match="raise data.test_fraction or data.limit_test"):
        train(tmp_path / "run", quick(mostly, "cosent"), "--config.data.limit_test=2")
    path = write(tmp_path / "graded.jsonl", score=lambda i: i)
    assert train(tmp_path / "plain", quick(path, "info_nce")) == 0
    assert "takes all for positives" in capsys.readouterr().err
