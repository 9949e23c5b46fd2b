"""scripts/dense.py: patches of scenes and the classifier that reads them."""

from __future__ import annotations

import numpy as np
import torch

from pitome.tasks.retrieval.scenes_make import Scenes
from scripts import dense


def test_patches_are_of_the_item_in_their_quarter_and_the_middle_does_not_count() -> None:
    images = np.zeros((1, 56, 56), dtype=np.uint8)
    images[0, :28, 28:] = 200  # the upper right, of kind 4
    kinds = dense.labels(Scenes(np.array([[-1, 4, -1, -1]]), images)).view(14, 14)
    assert kinds[:6, 8:].unique().tolist() == [5] and kinds[8:, :6].unique().tolist() == [0]
    assert (kinds[6:8] == dense.UNCOUNTED).all() and (kinds[:, 6:8] == dense.UNCOUNTED).all()


def test_a_classifier_of_what_is_linear_is_right_everywhere_and_zeros_cost() -> None:
    truth = torch.randint(0, dense.CLASSES, (4, 50), generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.one_hot(truth, dense.CLASSES).double()
    truth[:, 0] = dense.UNCOUNTED
    classifier = dense.fit(x, truth)
    assert dense.score(x, truth, classifier) == {"miou": 1.0, "right": [1.0] * 4}
    x[0, 1:] = 0
    found = dense.score(x, truth, classifier)
    assert found["right"][0] < 0.5 and found["right"][1:] == [1.0] * 3 and found["miou"] < 1
