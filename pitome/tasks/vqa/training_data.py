"""Questions and answers packed for training: all questions of an image in one sequence after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from pitome.errors import DataError
from pitome.tasks.data import Preprocess
from pitome.tasks.images import normalise, prepare
from pitome.tasks.loading import TrainingData
from pitome.tasks.vqa.data import VqaData
from pitome.tasks.vqa.questions import Question

Turn = tuple[list[int], list[int]]  # ids of what follows the image, ids of the answer with its end

IGNORED = -100  # no target
_PAD = 0
_UNSEEN = ("yes", "no")  # answers that name nothing in the image


class Packed(NamedTuple):
    """A training batch of sequences, the turns of each image packed after it."""

    images: Tensor  # [B, C, H, W]
    ids: Tensor  # [B, N]
    targets: Tensor  # [B, N] the token itself where it is to be predicted, else IGNORED
    positions: Tensor  # [K, N] of K kinds
    allowed: Tensor  # [B or 1, N, N] which tokens (columns) a token (row) attends to
    words: Tensor  # [B, W] ids of what is to be seen in each image, then IGNORED
    at: Tensor  # [B, W] the row of its image that is to show a word; IGNORED: the mean of all of them

    def of_rows(self, rows: slice) -> Packed:
        """Of some of the images."""
        return self._replace(
            images=self.images[rows],
            ids=self.ids[rows],
            targets=self.targets[rows],
            words=self.words[rows],
            at=self.at[rows],
            allowed=self.allowed[rows] if len(self.allowed) > 1 else self.allowed,
        )


def pack(
    images: Tensor,
    prefix: Sequence[int],
    places: Tensor,
    turns: Sequence[Sequence[Turn]],
    words: Sequence[Sequence[tuple[int, int]]],
    hidden: Tensor | None = None,
) -> Packed:
    """Sequences of a prefix, the same for all, at its `places` [K, N], and then the turns of each image,
    equally many. words: of each image, ids and rows of what is to be seen in it, see `Packed`.
    hidden [B, P]: which tokens of the prefix nothing but themselves attends to; None: none.

    Every turn sees the prefix and itself, at the positions right after the prefix: as if it stood there
    alone, so that the prefix, which holds the image, is computed once for all of them.
    """
    width = max(len(ask) + len(answer) for turns_of_image in turns for ask, answer in turns_of_image)
    count, start = len(turns[0]), len(prefix)
    length = start + count * width
    ids = torch.full((len(turns), length), _PAD)
    targets = torch.full_like(ids, IGNORED)
    ids[:, :start] = torch.tensor(prefix)
    for row, turns_of_image in enumerate(turns):
        for number, (ask, answer) in enumerate(turns_of_image):
            at = start + number * width
            ids[row, at : at + len(ask) + len(answer)] = torch.tensor(ask + answer)
            targets[row, at + len(ask) : at + len(ask) + len(answer)] = torch.tensor(answer)
    turn = torch.cat(
        [torch.zeros(start, dtype=torch.long), torch.arange(1, count + 1).repeat_interleave(width)]
    )
    after = int(places.max()) + 1 + torch.arange(width).repeat(count)
    positions = torch.cat([places, after.expand(len(places), -1)], dim=1)
    same = (turn[None, :] == 0) | (turn[None, :] == turn[:, None])
    seen = torch.full((len(words), max(map(len, words)), 2), IGNORED)
    for row, some in enumerate(words):
        seen[row, : len(some)] = torch.tensor(some, dtype=torch.long).view(-1, 2)
    allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
    allowed = allowed[None]
    if hidden is not None:
        shown = functional.pad(~hidden, (0, length - start), value=True)
        allowed = allowed & (shown[:, None] | torch.eye(length, dtype=torch.bool))
    return Packed(images, ids, targets, positions, allowed, *seen.unbind(-1))


class PackedBatches(Dataset[Packed]):
    """Item n: the n-th batch of `data`, some questions of each of `batch_size` images; their order, the
    questions and which images are mirrored follow from the seed.

    prefix: ids of a prompt up to its image; places: their positions [K, N]; turn: what follows of a question,
    and its answer; word: the id of a word; rows: of an image; hidden: the share of
    images of which a random part is hidden, the last so many ids of the prefix.
    """

    def __init__(
        self,
        data: VqaData,
        preprocess: Preprocess,
        prefix: Sequence[int],
        places: Tensor,
        turn: Callable[[Question], Turn],
        word: Callable[[str], int],
        *,
        rows: int,
        batch_size: int,
        questions: int,
        flip: bool,
        hidden: float,
        seed: int,
    ) -> None:
        self.preprocess, self.prefix, self.places, self.turn = preprocess, prefix, places, turn
        self.word, self.rows, self.hidden = word, rows, hidden
        self.batch_size, self.questions, self.flip, self.seed = batch_size, questions, flip, seed
        self.groups: list[list[Question]] = []
        self.pixels: list[np.ndarray] = []
        self.words: list[list[tuple[int, int]]] = []
        by_image: dict[str, list[Question]] = {}
        for question in data.questions:
            by_image.setdefault(question.image, []).append(question)
        for group in by_image.values():
            image = data.image(group[0])
            if image is not None:  # training goes on without those that cannot be read
                self.groups.append(group)
                self.pixels.append(prepare(image, preprocess))
                self.words.append(self._seen(data, group))
        if len(self.groups) < batch_size:
            raise DataError(
                f"{len(self.groups)} images are too few for batches of {batch_size}; give more data"
            )

    def __len__(self) -> int:
        return len(self.groups) // self.batch_size

    def __getitem__(self, number: int) -> Packed:
        epoch, step = divmod(number, len(self))
        order = np.random.RandomState([self.seed, epoch]).permutation(len(self.groups))
        random = np.random.RandomState([self.seed, epoch, step])
        images, turns, words = [], [], []
        for index in order[step * self.batch_size : (step + 1) * self.batch_size]:
            image, group = self.pixels[index], self.groups[index]
            images.append(image[:, :, ::-1] if self.flip and random.randint(2) else image)
            few = len(group) < self.questions
            chosen = random.choice(len(group), self.questions, replace=few)
            turns.append([self.turn(group[at]) for at in chosen])
            words.append(self.words[index])
        pixels = normalise(np.stack(images), self.preprocess)
        hidden = self._hidden(len(images), random) if self.hidden else None
        return pack(pixels, self.prefix, self.places, turns, words, hidden)

    def _hidden(self, images: int, random: np.random.RandomState) -> Tensor:
        """Of every token of the prefix of some images whether it is hidden: one row of an image at least is
        not, and every number of them is as likely."""
        hidden = np.zeros((images, len(self.prefix)), dtype=bool)
        for image in np.flatnonzero(random.rand(images) < self.hidden):
            gone = random.permutation(self.rows)[: random.randint(self.rows)]
            hidden[image, len(self.prefix) - self.rows + gone] = True
        return torch.from_numpy(hidden)

    def _seen(self, data: VqaData, group: Sequence[Question]) -> list[tuple[int, int]]:
        """Words that name what is in an image and the rows that are to show them; where it is not known where
        they are, the first words of answers but yes and no, and the mean of all rows."""
        sights = data.sights(group[0])
        if sights is None:
            naming = [question for question in group if question.answers[0] not in _UNSEEN]
            return sorted({(self.turn(question)[1][0], IGNORED) for question in naming})
        side = round(self.rows**0.5)
        return [
            (self.word(word), int(sight.row * side) * side + int(sight.column * side))
            for sight in sights
            for word in sight.words
        ]


class VqaTrainingData(TrainingData):
    """Packed batches of the `train` questions and of those held out for validation."""

    def __init__(self, train: PackedBatches, validation: PackedBatches, workers: int = 0) -> None:
        super().__init__()
        self.train, self.validation, self.workers = train, validation, workers

    def train_dataloader(self) -> DataLoader[Packed]:
        return self.step_loader(self.train, self.workers)

    def val_dataloader(self) -> DataLoader[Packed]:
        # The same questions after every epoch.
        return DataLoader(self.validation, batch_size=None, sampler=range(len(self.validation)))
