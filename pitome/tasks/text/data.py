"""Classified texts as padded batches of token ids: SST-2, IMDb, Rotten Tomatoes.

Split (`data.split`): `official` takes the hub's or the files' own, with one in ten training texts
(by hash) for validation where the data set has no such split besides the tested one; `hash` puts
every text where the SHA-256 of its letters and digits says (70 % train, 10 % validation, 20 %
test), so that no text stands on two sides, whatever copy of the data set was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pitome.config import DataConfig
from pitome.errors import DataError
from pitome.sources.checksums import checksum_of_texts
from pitome.tasks.data import DataInfo, permuted_selection
from pitome.tasks.labels import check_labels
from pitome.tasks.loading import SampleNumbers, TrainingData
from pitome.tasks.selection import stratified_selection
from pitome.tasks.text.files import Rows, assign, read_rows
from pitome.tasks.text.sets import text_set
from pitome.tasks.text.split import check_kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TextBatch = dict[str, Tensor]
"""input_ids, attention_mask [B, N]; labels, ids (sample indices) [B]."""

_POOL = 50  # batches whose texts are sorted by length together while training
_CHUNK = 1000  # texts tokenised at once


@dataclass(frozen=True)
class Encoded:
    """One sample."""

    tokens: list[int]  # ids, special ones included
    label: int
    id: int  # its row in the data set


class EncodedTexts(Dataset[Encoded]):
    """Items: `Encoded`; an index may be a number of `pitome.tasks.loading.SampleNumbers`."""

    def __init__(self, samples: Sequence[Encoded]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Encoded:
        return self.samples[index % len(self.samples)]


def length_batches(
    lengths: Sequence[int], batch_size: int, random: np.random.RandomState | None = None
) -> list[list[int]]:
    """Batches of texts of like length, longest first; for training shuffled, by `random`."""

    def cut(indices: Sequence[int]) -> list[list[int]]:
        ordered = sorted(indices, key=lambda index: -lengths[index])
        return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]

    if random is None:
        return cut(range(len(lengths)))
    order = random.permutation(len(lengths)).tolist()
    pool = _POOL * batch_size
    batches = [batch for start in range(0, len(order), pool) for batch in cut(order[start : start + pool])]
    return [batches[index] for index in random.permutation(len(batches))]


class TextData(TrainingData):
    """Batches of a text file of conf/data as `tokenizer` writes them, padded to the longest text of the
    batch; nothing is read or fetched before it is used.

    split: official or hash, see above; limit: so many test texts, drawn by a permutation seeded
    with the name; limit_train: so many training texts, every class by its share; seed: of their order;
    max_length: tokens of one text, the rest is cut off (`DataInfo.n_truncated`
    counts these texts). Texts without a token of their own are left out and named in `info`.
    Raises UsageError for an unknown name or split, DataError, when first used, for data that is missing or
    damaged, and where no text is left.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        *,
        split: str,
        source: str = "auto",
        limit: int | None = None,
        max_length: int = 512,
        limit_train: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_kind(split)
        self.config, self.source, self.set = config, source, text_set(config.name, config.classes)
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self.split, self.limit, self.max_length = split, limit, max_length
        self.limit_train, self.seed = limit_train, seed

    @property
    def classes(self) -> int:
        return len(self.set.classes)

    @cached_property
    def _rows(self) -> tuple[Rows, list[str | None]]:
        rows = read_rows(
            self.set.name,
            self.split,
            source=self.source,
            root=self.config.root,
            repository=self.config.repository,
            revision=self.config.revision,
            classes=self.set.classes,
        )
        return rows, assign(rows, self.split, self.set.name)

    def _encode(self, split: str) -> tuple[list[Encoded], DataInfo]:
        rows, splits = self._rows
        chosen = np.flatnonzero([given == split for given in splits])
        if not len(chosen):
            raise DataError(
                f"the {split} split of {self.set.name} ({self.split}) holds no text; give more data"
            )
        revision = checksum_of_texts((rows.texts[i] for i in chosen), (rows.labels[i] for i in chosen))
        limit = self.limit if split == "test" else None
        if split == "train" and self.limit_train is not None:
            labels = [rows.labels[row] for row in chosen]
            ids = chosen[stratified_selection(self.set.name, labels, self.limit_train)].tolist()
        else:
            ids = chosen[permuted_selection(self.set.name, len(chosen), limit)].tolist()
        where = (self.set.name, revision, f"{split} ({self.split})", rows.source)
        info = DataInfo.of(*where, len(ids), len(chosen), classes=self.classes)
        samples, truncated = [], 0
        # A word the tokenizer does not know is a word all the same.
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            for row, tokens in zip(part, self._tokenise([rows.texts[i] for i in part]), strict=True):
                if not set(tokens) - special:
                    blank = not rows.texts[row].strip()
                    info.skipped[row] = "empty text" if blank else "no token besides special ones"
                    continue
                if len(tokens) > self.max_length:
                    truncated += 1
                    tokens = [*tokens[: self.max_length - 1], tokens[-1]]  # the closing token stays
                samples.append(Encoded(tokens, rows.labels[row], row))
        if not samples:
            raise DataError(
                f"none of the {len(ids)} {split} texts of {self.set.name} has a token of its own, "
                f"e.g. row {ids[0]}: {info.skipped[ids[0]]}"
            )
        info.n_truncated = truncated
        return samples, info

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(
            texts, truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        return ids

    @cached_property
    def _test(self) -> tuple[list[Encoded], DataInfo]:
        return self._encode("test")

    @cached_property
    def _train(self) -> tuple[list[Encoded], DataInfo]:
        return self._encode("train")

    @cached_property
    def _validation(self) -> tuple[list[Encoded], DataInfo]:
        return self._encode("validation")

    @property
    def info(self) -> DataInfo:
        """Of the test split; skipped and truncated texts are counted already."""
        return self._test[1]

    @property
    def train_info(self) -> DataInfo:
        """Of the training split."""
        return self._train[1]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every test text, special ones included, in the order of the data set."""
        return [len(sample.tokens) for sample in self._test[0]]

    def _collate(self, samples: list[Encoded]) -> TextBatch:
        longest = max(len(sample.tokens) for sample in samples)
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.full((len(samples), longest), pad)
        mask = torch.zeros(len(samples), longest, dtype=torch.long)
        for row, sample in enumerate(samples):
            tokens[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
            mask[row, : len(sample.tokens)] = 1
        return {
            "input_ids": tokens,
            "attention_mask": mask,
            "labels": torch.tensor([sample.label for sample in samples]),
            "ids": torch.tensor([sample.id for sample in samples]),
        }

    def _loader(
        self, samples: list[Encoded], batches: SampleNumbers | list[list[int]] | None = None
    ) -> DataLoader[Encoded]:
        """batches: None for one pass, longest texts first."""
        batches = batches or length_batches([len(s.tokens) for s in samples], self.batch_size)
        return DataLoader(
            EncodedTexts(samples),
            batch_sampler=batches,
            collate_fn=self._collate,
            generator=torch.Generator(),
        )

    def held_out(self, limit: int) -> tuple[DataLoader[Encoded], DataInfo, list[int]]:
        """So many texts of the validation split: their batches, where they come from, and their lengths."""
        samples, info = self._validation
        chosen = [samples[i] for i in permuted_selection(self.set.name, len(samples), limit)]
        return self._loader(chosen), info, [len(sample.tokens) for sample in chosen]

    def train_dataloader(self) -> DataLoader[Encoded]:
        samples = self._train[0]
        check_labels([sample.label for sample in samples], self.set.classes, self.set.name)
        lengths = [len(sample.tokens) for sample in samples]

        def batches(epoch: int) -> list[list[int]]:
            return length_batches(lengths, self.batch_size, np.random.RandomState([self.seed, epoch]))

        steps = -(-len(samples) // self.batch_size)
        return self._loader(samples, SampleNumbers(len(samples), steps, batches, self._begin))

    def val_dataloader(self) -> DataLoader[Encoded]:
        return self._loader(self._validation[0])

    def test_dataloader(self) -> DataLoader[Encoded]:
        return self._loader(self._test[0])
