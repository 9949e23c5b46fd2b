"""Texts as batches: what is left out, what is cut off, how batches are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pitome.errors import DataError, UsageError
from pitome.tasks.text.data import TextData, length_batches
from pitome.tasks.text.split import hash_split
from tests.configs import data_in, data_of
from tests.tasks.text.tiny_text import tokenizer


def of_split(split: str, count: int, words: str = "good film") -> list[str]:
    """Texts that the hash puts into `split`."""
    texts = (f"{words} {i}" for i in range(100 * count))
    return [text for text in texts if hash_split(text) == split][:count]


def data(tmp_path, texts, name="imdb", *, batch_size=2, split="official", file="test.csv", **options):
    """A data module of texts whose labels alternate."""
    import csv

    with (tmp_path / file).open("w", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *((text, i % 2) for i, text in enumerate(texts))])
    config = data_in(tmp_path, name)
    return TextData(config, tokenizer(), batch_size, source="local", split=split, **options)


def test_batches_are_sorted_by_length_and_padded(tmp_path):
    texts = ["good", "a good film", "the film", "bad bad bad bad film", "a"]
    module = data(tmp_path, texts)
    batches = list(module.test_dataloader())
    assert [batch["ids"].tolist() for batch in batches] == [[3, 1], [2, 0], [4]]
    assert [list(batch["input_ids"].shape) for batch in batches] == [[2, 7], [2, 4], [1, 3]]
    assert batches[0]["attention_mask"].sum(1).tolist() == [7, 5]
    assert batches[1]["input_ids"].tolist() == [[2, 10, 9, 3], [2, 7, 3, 0]]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [1, 1, 0, 0, 0]
    assert module.lengths == [3, 5, 4, 7, 3], "in the order of the data set"
    assert module.info.record()["n_samples"] == 5 and module.info.split == "test (official)"


def test_texts_without_a_token_of_their_own_are_left_out_and_named(tmp_path):
    module = data(tmp_path, ["", " \t\n", "[PAD] [PAD]", "\u200b\x00", "good", "[SEP]"])
    assert module.info.skipped == {
        0: "empty text",
        1: "empty text",
        2: "no token besides special ones",
        3: "no token besides special ones",
        5: "no token besides special ones",
    }
    record = module.info.record()
    assert record["n_samples"] == 1 and record["n_skipped"] == 5
    (batch,) = module.test_dataloader()
    assert batch["ids"].tolist() == [4]


def test_nothing_but_empty_texts_is_an_error(tmp_path):
    with pytest.raises(DataError, match="none of the 2 test texts of imdb has a token of its own"):
        data(tmp_path, ["", "[PAD]"]).info  # noqa: B018


def test_a_split_without_texts_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"the validation split of imdb \(official\) holds no text"):
        data(tmp_path, ["good"]).val_dataloader()


def test_long_texts_are_cut_and_counted(tmp_path):
    module = data(tmp_path, ["good " * 30, "good", "a" * 100_000, "x " * 50_000], max_length=16)
    assert module.info.n_truncated == 2 and module.info.record()["n_truncated"] == 2
    assert sorted(module.lengths) == [3, 3, 16, 16], "a word without end is one unknown token"
    first = next(iter(module.test_dataloader()))["input_ids"]
    assert (first[:, 0] == 2).all() and (first[:, -1] == 3).all(), "[SEP] stays"


def test_mixed_scripts_and_emoji(tmp_path):
    module = data(tmp_path, ["🙂 good 漢字 Films مرحبا !", "ñandú"])
    tokens = module._test[0][0].tokens
    assert tokens[1:5] == [13, 7, 14, 1] and tokens[-2:] == [12, 3]
    assert module.info.n_skipped == 0


def test_a_data_set_of_one_sample(tmp_path):
    module = data(tmp_path, ["good"], batch_size=100)
    (batch,) = module.test_dataloader()
    assert batch["input_ids"].shape == (1, 3) and module.info.n_samples == 1


def test_limit_draws_from_all_and_a_smaller_one_is_part_of_a_larger(tmp_path):
    texts = [f"good {'film ' * (i % 5)}" for i in range(50)]
    few, more = (data(tmp_path, texts, limit=limit) for limit in (5, 20))
    ids = [[sample.id for sample in module._test[0]] for module in (few, more)]
    assert len(ids[0]) == 5 and set(ids[0]) < set(ids[1]) and ids[1] == sorted(ids[1])
    assert few.info.limit == 5 and few.info.revision == more.info.revision
    assert data(tmp_path, texts, limit=500).info.limit is None


def test_splits_by_hash_share_no_text(tmp_path):
    texts = [text for split in ("train", "validation", "test") for text in of_split(split, 3)]
    module = data(tmp_path, [*texts, *(text.upper() + "!" for text in texts)], split="hash", file="all.csv")
    parts = {split: module._encode(split)[1] for split in ("train", "validation", "test")}
    assert {split: info.n_selected for split, info in parts.items()} == dict.fromkeys(parts, 6)
    assert len({info.revision for info in parts.values()}) == 3


def test_training_batches_are_shuffled_and_hold_like_lengths():
    lengths = [1 + i % 40 for i in range(400)]
    random = np.random.RandomState(0)
    first, second = (length_batches(lengths, 4, random) for _ in range(2))
    assert sorted(i for batch in first for i in batch) == list(range(400)) and len(first) == 100
    assert first != second
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in first]
    assert sum(spread) / len(spread) < 3, "40 if drawn at random"
    assert length_batches(lengths, 4, np.random.RandomState(0)) == first, "the seed decides"


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("sst3", "hash", "unknown data 'sst3'; did you mean sst2"),
        ("sst2", "both", "data.split=both is not known"),
    ],
    ids=["name", "split"],
)
def test_what_does_not_exist(name, split, message):
    with pytest.raises(UsageError, match=message):
        TextData(data_of({"name": name}), None, 1, split=split)
