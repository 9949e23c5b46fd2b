"""Votes of the nearest neighbours: by hand, against brute force, and from the command line."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

import pitome
from pitome.config import TaskConfig
from pitome.errors import UsageError
from pitome.measure.flops import count_flops
from pitome.records.schema import Record, from_json, to_json
from pitome.records.store import Store
from pitome.tasks.checks import checks_of
from pitome.tasks.classification import knn
from pitome.tasks.classification.fashion_mnist import FashionMNIST
from pitome.tasks.classification.knn import Bank, choose, rank, vote
from pitome.tasks.data import Preprocess
from pitome.tasks.measuring import check_classes
from tests.configs import data_in

Run = Callable[..., int]
Records = Callable[[], dict[str, Record]]
KNN = "task.head=knn"


def neighbours(queries: np.ndarray, bank: np.ndarray, k: int) -> np.ndarray:
    """Brute force, one query after the other: the k most similar rows of the bank, ascending."""

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    similarity = unit(queries) @ unit(bank).T
    return np.stack([np.sort(np.argsort(-row, kind="stable")[:k]) for row in similarity])


def elect(similarity: np.ndarray, labels: np.ndarray, classes: int, temperature: float) -> int:
    """The winner of one query's k neighbours, counted one by one; ties go to the smaller class."""
    votes = [0.0] * classes
    for s, label in zip(similarity, labels, strict=True):
        votes[int(label)] += math.exp(s / temperature)
    return votes.index(max(votes))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_of_equal_similarities_the_first_are_chosen(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    k = data.draw(st.integers(1, n))
    rows = data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=1, max_size=3))
    expected = [sorted(sorted(range(n), key=lambda i: (-row[i], i))[:k]) for row in rows]
    assert choose(torch.tensor(rows, dtype=torch.float32), k).tolist() == expected


def test_a_vote_weighs_the_exponential_of_the_similarity() -> None:
    # Class 1 has one close image, class 2 two distant ones: e^(0.9/T) against 2 e^(0.8/T).
    similarity, labels = torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[1, 2, 2]])
    for temperature, winner in ((0.07, 1), (1.0, 2)):
        votes = vote(similarity, labels, 4, temperature)[0]
        ratio = math.exp((0.9 - 0.8) / temperature) / 2
        assert votes.sum() == pytest.approx(1) and votes[0] == votes[3] == 0
        assert votes[1] / votes[2] == pytest.approx(ratio, rel=1e-5)
        assert votes.argmax() == winner


def test_ranks_by_hand() -> None:
    votes = torch.tensor([0.3, 0.0, 0.4, 0.3, 0.0, 0.0, 0.0], dtype=torch.float64)
    # Class 2 is first; 0 and 3 are equal, so 0 before 3; the others got no vote, and rank 7 is no rank.
    assert rank(votes.expand(7, 7), torch.arange(7)).tolist() == [1, 7, 0, 2, 7, 7, 7]


@pytest.mark.parametrize("rows", [3, 7, 1000])
def test_the_bank_finds_what_brute_force_finds(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of any size, smaller than k even. Features and queries of +-1 of width 64 have exact
    cosines, so that similarities tie and no processor rounds them apart."""
    monkeypatch.setattr(knn, "_ROWS", rows)
    random = np.random.default_rng(0)
    features = random.choice([-1.0, 1.0], (40, 64)).astype(np.float32)
    features[20:] = features[:20]  # every image twice, with other labels
    labels = random.integers(0, 5, 40)
    queries = random.choice([-1.0, 1.0], (9, 64)).astype(np.float32)
    bank = Bank(50)
    for part in (slice(0, 11), slice(11, 40)):
        bank.add(torch.from_numpy(features[part]), torch.from_numpy(labels[part]))
    for k in (1, 5, 40):
        similarity, found = bank.neighbours(torch.from_numpy(queries), k)
        expected = neighbours(queries, features, k)
        np.testing.assert_array_equal(found.numpy(), labels[expected])
        cosines = functional.normalize(torch.from_numpy(queries)) @ torch.from_numpy(features).T / 8
        np.testing.assert_allclose(similarity, cosines.numpy()[np.arange(9)[:, None], expected], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_type_of_features(dtype: torch.dtype) -> None:
    bank = Bank(3)
    features = torch.eye(3, 8, dtype=dtype) * 300
    bank.add(features, torch.tensor([4, 5, 6]))
    similarity, labels = bank.neighbours(features[1:2], 1)
    assert labels.tolist() == [[5]] and similarity.item() == 1
    assert bank.neighbours(torch.zeros(1, 8, dtype=dtype), 2)[0].tolist() == [[0, 0]]  # no direction


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite(value: float) -> None:
    bank = Bank(2)
    bank.add(torch.ones(1, 4), torch.tensor([0]))
    bad = torch.tensor([[1.0, value, 0.0, 0.0]])
    for use in (lambda: bank.add(bad, torch.tensor([0])), lambda: bank.neighbours(bad, 1)):
        with pytest.raises(UsageError, match="not finite"):
            use()
    assert len(bank) == 1
    with pytest.raises(UsageError, match=r"task\.k=2 is more than the 1 images"):
        bank.neighbours(torch.ones(1, 4), 2)


def tiny(kind: type[VisionTransformer] = VisionTransformer, **changes: object) -> VisionTransformer:
    torch.manual_seed(0)
    args = {"img_size": 28, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 3}
    return kind(**(args | {"num_heads": 2} | changes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (VisionTransformer, {}),
        (VisionTransformer, {"global_pool": "avg"}),
        (VisionTransformer, {"global_pool": "map", "class_token": False}),
        (VisionTransformerDistilled, {}),
    ],
    ids=["token", "avg", "map", "distilled"],
)
def test_what_is_left_without_the_classifier_are_its_inputs(
    kind: type[VisionTransformer], changes: dict[str, object]
) -> None:
    model, images = tiny(kind, **changes), torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        whole = count_flops(model, images).macs
        heads = sum(
            getattr(model, name).weight.numel() for name in ("head", "head_dist") if hasattr(model, name)
        )
        model.reset_classifier(0)
        assert torch.equal(model(images), expected)
    assert count_flops(model, images).macs == whole - heads


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Trained in name only: random, but the same in every run of a test."""
    model = tiny(patch_size=2, depth=4)
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    return f"weights={tmp_path}/tiny.safetensors"


@pytest.mark.parametrize(("merge", "ratio"), [("none", 1.0), ("pitome", 0.8)])
def test_a_run_votes_as_brute_force_does(
    run: Run, records: Records, weights: str, images: Path, tmp_path: Path, merge: str, ratio: float
) -> None:
    """The features of the bank come from the same patched model as those of the queries."""
    words = (KNN, "task.bank=60", "task.k=7", "task.temperature=0.1", f"merge={merge}", f"ratio={ratio}")
    assert run(*words, weights, "batch_size=13", "measure=none") == 0
    (record,) = records().values()
    outcomes = Store(tmp_path / "results" / "runs").outcomes(record)
    assert outcomes is not None and list(outcomes["id"]) == list(range(40))

    data = FashionMNIST(data_in(images), Preprocess(28, 1, (0.286,), (0.353,)), 200, bank=60)
    model = tiny(patch_size=2, depth=4)
    pitome.patch(model, merge, ratio=ratio)

    def features(loader: object) -> tuple[np.ndarray, np.ndarray]:
        ((batch, labels, _),) = loader  # type: ignore[misc]
        found: Tensor = model.forward_head(model.forward_features(batch), pre_logits=True)
        return found.detach().double().numpy(), labels.numpy()

    bank, labels = features(data.bank_dataloader())
    queries, own = features(data.test_dataloader())
    predictions = []
    for query, chosen in zip(queries, neighbours(queries, bank, 7), strict=True):
        cosines = bank[chosen] @ query / np.linalg.norm(bank[chosen], axis=1) / np.linalg.norm(query)
        predictions.append(elect(cosines, labels[chosen], 10, 0.1))
    assert list(outcomes["prediction"]) == predictions
    assert list(outcomes["correct"]) == [a == b for a, b in zip(own, predictions, strict=True)]
    assert record.metrics["top1"] == pytest.approx(np.mean(own == predictions), abs=1e-6)
    assert 0 < (record.metrics["top1"] or 0) <= (record.metrics["top5"] or 0) <= 1


def test_the_record_names_the_vote(run: Run, records: Records, weights: str, tmp_path: Path) -> None:
    assert run("-m", KNN, "task.bank=60", weights, "merge=none,tome", "ratio=0.9", "limit=8") == 0
    assert run("merge=none", weights, "limit=8") == 0  # the classifier: another run, another table
    found = Store(tmp_path / "results" / "runs").all()
    voted = [record for record in found if "settings" in record.identity]
    assert len(found) == 3 and len(voted) == 2
    for record in voted:
        assert record.identity["settings"] == {
            "head": "knn",
            "k": 20,
            "temperature": 0.07,
            "bank": 60,
            "bank revision": record.data.bank.revision[-12:],  # type: ignore[union-attr,index]
            "bank features": "same model",
        }
        bank = record.data.bank
        assert bank is not None and (bank.split, bank.n_samples, bank.n_skipped) == ("train", 60, 0)
        assert record.model.name.endswith("(kNN, k=20, bank 60)")
        assert from_json(to_json(record), "record") == record
        assert record.cost is not None
        assert record.cost.macs == pytest.approx(record.cost.macs_closed_form, rel=1e-3)
    plain = next(record for record in found if record not in voted)
    assert plain.data.bank is None
    unmerged = next(record for record in voted if record.method.name == "none")
    assert plain.cost is not None and unmerged.cost is not None
    assert plain.cost.macs - unmerged.cost.macs == 16 * 10  # the classifier's
    first = min((tmp_path / "results" / "sweeps").iterdir())
    assert "(kNN, k=20, bank 60) on fashion_mnist" in (first / "table.md").read_text()


def test_the_same_bank_in_other_words_is_the_same_run(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    """All images of the split, however many were asked for; random weights have no accuracy."""
    model = ("model.args.depth=1", "model.args.embed_dim=4", "model.args.patch_size=14")
    words = (KNN, "merge=none", "limit=3", "batch_size=1000")
    assert run(*words, small=model) == run(*words, "task.bank=999999", small=model) == 0
    assert "1 of 1 runs were recorded before" in capsys.readouterr().out
    (record,) = records().values()
    assert record.metrics == {"top1": None, "top5": None}
    assert record.data.bank is not None and record.data.bank.n_samples == 5_120
    assert record.data.bank.limit is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task.head=kn",), "did you mean knn"),
        (("task.k=5",), "task.k goes with task.head=knn"),
        (("task.bank=5",), "task.bank goes with task.head=knn"),
        ((KNN, "task.k=0"), "task.k=0 is not a whole number"),
        ((KNN, "task.k=1.5"), "task.k=1.5 is not a whole number"),
        ((KNN, "task.bank=-1"), "task.bank=-1 is not a whole number"),
        ((KNN, "task.bank=10"), "task.k=20 is more than task.bank=10"),
        ((KNN, "task.temperature=0"), "task.temperature=0 is not a number above 0"),
        ((KNN, "task.temperature=nan"), "task.temperature=nan is not a number above 0"),
        ((KNN, "task.temperature=warm"), "task.temperature=warm is not a number above 0"),
        ((KNN, "task.kk=1"), "did you mean task.k"),
        ((KNN, "mode=train"), "task.head=knn has nothing to train"),
        ((KNN, "task.k=6000"), "task.k=6000 is more than the 5120 images that may vote"),
        (("model.args.num_classes=0",), "has no classifier; use task.head=knn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_one_line(run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    assert run(*words, "merge=none") == 2
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 1 and message in errors and "Traceback" not in errors


def test_a_model_without_a_classifier_that_only_its_building_shows() -> None:
    with pytest.raises(UsageError, match=r"model=mine has no classifier; use task\.head=knn"):
        check_classes(0, 10, random=True, model="mine", data="fashion_mnist")


def test_a_vote_needs_a_task_with_classes() -> None:
    with pytest.raises(UsageError, match=r"task\.head=knn is for task=classification, not for task=text"):
        checks_of("text").check_options(TaskConfig(name="text", head="knn"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ImageNet of three classes: 9 training images, one of them a text file, and 3 for testing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for name in ("n01440764", "n01443537", "n15075141"):
            place = tmp_path / "imagenet" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
                (place / f"{number}.JPEG").write_bytes(buffer.getvalue())
    (tmp_path / "imagenet" / "train" / "n01443537" / "1.JPEG").write_text("not an image")
    return tmp_path / "imagenet"


def test_voters_that_cannot_be_read_are_counted(
    run: Run,
    records: Records,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pitome.tasks.classification.images.default_workers", lambda: 0)
    small = ("+model.args.depth=1", "+model.args.embed_dim=6")
    words = (
        KNN,
        "model=deit_t",
        "data=imagenet",
        "merge=none",
        "batch_size=2",
        "measure=none",
        f"data.root={folder}",
    )
    assert run(*words, "task.k=8", small=small) == 0
    (record,) = records().values()
    assert record.data.bank is not None and record.data.n_skipped == 0
    assert (record.data.bank.n_samples, record.data.bank.n_skipped) == (8, 1)
    assert (
        record.data.bank.skipped[0].id == "4"
        and "no image that can be read" in record.data.bank.skipped[0].reason
    )
    capsys.readouterr()
    assert run(*words, "task.k=9", small=small) == 2  # nine files, but only eight images
    assert "task.k=9 is more than the 8 images that may vote" in capsys.readouterr().err
