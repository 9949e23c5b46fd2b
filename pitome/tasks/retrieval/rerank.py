"""Re-ranking: of the candidates with the highest contrastive scores, the matching head decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pitome.tasks.memory import Parts
from pitome.tasks.retrieval.recall import Retrieval, chunks, rank, scores_of

# A candidate that the matching head did not score ranks after all that it scored, as in the authors' code.
_UNSEEN = -torch.inf

Match = Callable[[Tensor, Sequence[int]], Tensor]
"""How well one image, states [N, C], matches some captions, by their numbers: logits, one for each."""


class Reranking:
    """Short lists of `k` candidates for every image and every caption, and the matching scores of
    these pairs, filled image by image, so that no image's states are kept.

    images [I, D] or [I, Q, D] and texts [T, D]: features of unit length. A pair's final score is the
    sum of its contrastive score and its matching logit (BLIP, arXiv 2201.12086, and its code).
    """

    def __init__(self, images: Tensor, texts: Tensor, k: int) -> None:
        by_image, by_text = scores_of(images, texts)
        self.texts_of = _shortlist(by_image, len(images), len(texts), k)  # (scores, indices) [I, k]
        self.images_of = _shortlist(by_text, len(texts), len(images), k)  # (scores, indices) [T, k]
        # Captions whose short list holds an image, image by image, and where in that list it stands.
        flat = self.images_of[1].flatten()
        self._order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(images))
        self._ends = counts.cumsum(0).tolist()
        self._starts = [0, *self._ends[:-1]]
        self._filled = 0

    @torch.no_grad()
    def logits(self, image: int, state: Tensor, match: Match, parts: Parts) -> Tensor:
        """Match an image, states [N, C], with all captions of the pairs it is in: what `fill` takes."""
        numbers = self._captions(image).tolist()
        return torch.cat(parts(len(numbers), lambda rows: match(state, numbers[rows]))).float().cpu()

    def fill(self, image: int, logits: Tensor) -> None:
        """Add the matching logits of the pairs of an image."""
        self._filled += 1
        captions = self._captions(image)
        scores, texts = self.texts_of
        scores[image] += logits[torch.searchsorted(captions, texts[image])]
        places = self._places(image)
        scores, images = self.images_of
        scores.view(-1)[places] += logits[torch.searchsorted(captions, places // images.shape[1])]

    def ranks(self, owner: Tensor) -> Retrieval:
        """Ranks once every image was added; owner [T]: the image that each caption belongs to."""
        images, texts = len(self.texts_of[0]), len(self.images_of[0])
        assert self._filled == images, f"the matching head has seen {self._filled} of {images} images"
        return rank(
            lambda rows: _spread(self.texts_of, rows, texts),
            lambda rows: _spread(self.images_of, rows, images),
            owner,
            images,
        )

    def _places(self, image: int) -> Tensor:
        return self._order[self._starts[image] : self._ends[image]]

    def _captions(self, image: int) -> Tensor:
        """The captions that the matching head has to see with `image`, ascending."""
        k = self.images_of[1].shape[1]
        seen: Tensor = torch.cat([self.texts_of[1][image], self._places(image) // k]).unique()
        return seen


def _shortlist(
    scores: Callable[[slice], Tensor], rows: int, candidates: int, k: int
) -> tuple[Tensor, Tensor]:
    """The k highest scores of every row and their columns, ties in favour of the first: [rows, k]."""
    k = min(k, candidates)
    best, index = torch.empty(rows, k), torch.empty(rows, k, dtype=torch.long)
    for part in chunks(rows, candidates):
        ordered, order = scores(part).sort(dim=1, descending=True, stable=True)
        best[part], index[part] = ordered[:, :k], order[:, :k]
    return best, index


def _spread(shortlist: tuple[Tensor, Tensor], rows: slice, candidates: int) -> Tensor:
    scores, index = shortlist[0][rows], shortlist[1][rows]
    whole = torch.full((len(scores), candidates), _UNSEEN)
    return whole.scatter(1, index, scores)
