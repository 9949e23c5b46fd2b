"""BLIP's losses, its queue and its slow model, against sums written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pitome
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.blip import Blip
from pitome.tasks.retrieval.blip_training import BlipTraining
from tests.adapters.tiny_vision import blip_retrieval, images
from tests.tasks.text.tiny_text import tokenizer

CAPTIONS = ["a good film", "the bad film", "a b", "good"]
STEPS = 10  # in an epoch


def training(queue: int = 6, step: int = 0) -> Any:
    torch.manual_seed(0)
    model = Blip(blip_retrieval(), tokenizer())
    recipe = Recipe(epochs=3, batch_size=4, lr=0.1)
    module: Any = BlipTraining(model, lambda: None, recipe, queue)  # type: ignore[arg-type, return-value]
    module.log = lambda *args, **kwargs: None
    module._trainer = SimpleNamespace(num_training_batches=STEPS, global_step=step)
    return module.eval()  # no dropout


def batch(same: list[int]) -> tuple[Tensor, list[str], Tensor]:
    return images(len(same)), CAPTIONS[: len(same)], torch.tensor(same)


def features(count: int, seed: int, width: int) -> Tensor:
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(noise, dim=-1)


@pytest.mark.parametrize(("step", "soft"), [(0, 0.0), (STEPS, 0.2), (2 * STEPS, 0.4), (5 * STEPS, 0.4)])
def test_the_contrast_is_with_batch_and_queue(step: int, soft: float) -> None:
    """Of two images that are the same, either caption counts for both, the queued one as well."""
    module, width = training(step=step), 8
    module.queued_images, module.queued_texts = features(6, 5, width), features(6, 6, width)
    module.queued = torch.tensor([7, -1, -1, 3, -1, -1])
    seen, read, slow_seen, slow_read = (features(3, seed, width) for seed in range(4))
    numbers, temperature = [7, 3, 7], module.temperature.item()
    expected = 0.0
    for own, slow, others in (
        (seen, slow_seen, torch.cat([slow_read, module.queued_texts])),
        (read, slow_read, torch.cat([slow_seen, module.queued_images])),
    ):
        for row in range(3):
            hits = [float(numbers[row] == other) for other in [*numbers, *module.queued.tolist()]]
            taught = (others @ slow[row] / temperature).softmax(0)
            target = soft * taught + (1 - soft) * torch.tensor(hits) / sum(hits)
            expected -= float((target * (others @ own[row] / temperature).log_softmax(0)).sum()) / 6
    loss = module._contrast(seen, read, slow_seen, slow_read, torch.tensor(numbers))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_matching_head_sees_pairs_and_negatives_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions of the same image are never negatives of each other; the more similar the likelier."""
    module = training()
    pixels, captions, same = batch([1, 1, 2, 3])
    states = module.model.image_states(pixels)
    similar = torch.zeros(4, 4)
    similar[0, 2] = similar[3, 0] = 50.0  # image 0 and caption 2, image 3 and caption 0
    chosen: list[tuple[int, str]] = []
    whole = module.model.match_classes

    def listen(some: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        words = module.model.tokenizer.batch_decode(ids, skip_special_tokens=True)
        numbers = [[bool(torch.equal(row, one)) for one in states].index(True) for row in some]
        chosen.extend(zip(numbers, words, strict=True))
        return whole(some, ids, mask)

    monkeypatch.setattr(module.model, "match_classes", listen)
    loss = module._matching(states, captions, similar, same)
    pairs = [(image, captions.index(text)) for image, text in chosen]
    assert pairs[:4] == [(0, 0), (1, 1), (2, 2), (3, 3)] and len(pairs) == 12
    negatives = pairs[4:]
    assert [image for image, _ in negatives[:4]] == [text for _, text in negatives[4:]] == [0, 1, 2, 3]
    assert all(same[image] != same[text] for image, text in negatives)
    assert negatives[0] == (0, 2) and negatives[4] == (3, 0), "the most similar"
    labels = torch.tensor([1] * 4 + [0] * 8)
    logits = torch.cat(
        [whole(states[[image]], *module.model.tokens([captions[text]])) for image, text in pairs]
    )
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_a_batch_of_one_image_has_no_negatives() -> None:
    module = training()
    pixels, captions, same = batch([4, 4])
    states = module.model.image_states(pixels)
    assert module._matching(states, captions, torch.zeros(2, 2), same).isfinite()


def test_the_queue_is_a_ring_and_the_slow_model_follows() -> None:
    module = training(queue=6)
    with pitome.patch(module.model, "tome", ratio=0.7):
        before = [parameter.clone() for parameter in module.slow.parameters()]
        with torch.no_grad():
            for parameter in module.model.parameters():
                parameter += 1
        for numbers in ([1, 2, 3, 4], [5, 6, 7, 8]):
            module.training_step(batch(numbers), 0).backward()
    assert module.queued.tolist() == [7, 8, 3, 4, 5, 6] and int(module.place) == 2
    moved = 1 - 0.995**2
    for old, slow in zip(before, module.slow.parameters(), strict=True):
        torch.testing.assert_close(slow, old + moved, atol=1e-5, rtol=0)
        assert slow.grad is None
    assert module.temperature.grad is not None
    unused = [name for name, p in module.model.named_parameters() if p.grad is None]
    assert not [name for name in unused if "pooler" not in name and "decoder" not in name], unused
