"""From configurations to the bytes of a PNG: build the model, follow every method, lay out the page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import torch

from pitome.config import Amount, Config, model_label
from pitome.data.base import Preprocess
from pitome.data.build import build as build_data
from pitome.merge import registry
from pitome.models.vision import Built, build
from pitome.pictures.groups import Followed, follow
from pitome.pictures.image import Picture
from pitome.pictures.page import render
from pitome.pictures.samples import Samples, class_names, from_data, from_file, join, one_per_class
from pitome.pictures.sheet import Shown, lay_out

_MOST, _FEW = 20, 10  # with more classes than a page holds: so many images


def draw(
    methods: Sequence[tuple[Config, Amount]],
    device: torch.device,
    images: Sequence[Picture | int] | None = None,
    after: Sequence[int] | None = None,
) -> bytes:
    """A PNG of what `methods`, which share model, data and seed, do to the same images.

    images: files, or indices of test samples; None: one test image per class, or ten test images
    where there are more than 20 classes. after: how many layers have passed in the pictures shown.
    Raises PitomeError for what does not fit.
    """
    config = methods[0][0]
    torch.manual_seed(config.seed)  # random weights
    built = build(dataclasses.asdict(config.model), config.weights or "pretrained")
    samples = _samples(config, built.preprocess, images)
    model, inputs = built.model.to(device), samples.inputs.to(device)
    shown = []
    for one, amount in methods:
        torch.manual_seed(config.seed)  # a method's draw does not depend on the ones before it
        followed = follow(model, inputs, one.merge.name, _asked(one, amount), one.merge.options)
        shown.append(Shown(_judged(followed, built), _setting(one, amount)))
    unmerged = _judged(follow(model, inputs, "none", {"ratio": 1.0}), built)
    # Whether a prediction is right can be said where model and data know the same classes.
    classes = 0 if unmerged.probabilities is None else unmerged.probabilities.shape[-1]
    if classes != samples.classes:
        samples = dataclasses.replace(samples, labels=[None] * len(samples.labels))
    page = lay_out(
        samples,
        unmerged,
        shown,
        class_names(config.data.name, classes),
        _caption(config, built, samples),
        after,
    )
    content = io.BytesIO()
    render(page).save(content, format="png")
    return content.getvalue()


def _samples(config: Config, preprocess: Preprocess, images: Sequence[Picture | int] | None) -> Samples:
    def data(limit: int | None) -> Any:
        return build_data(
            dataclasses.asdict(config.data),
            preprocess,
            batch_size=1,
            source=config.source,
            limit=limit,
            workers=0,
        )

    if images is None:
        everything = data(config.limit)
        if everything.info.classes <= _MOST:
            return one_per_class(everything)
        few = data(_FEW)
        return from_data(few, range(few.info.n_selected))
    indexed = data(None) if any(isinstance(image, int) for image in images) else None
    parts = [
        from_file(image, preprocess) if isinstance(image, Picture) else from_data(indexed, [image])
        for image in images
    ]
    return join(parts)


def _judged(followed: Followed, built: Built) -> Followed:
    """Predictions of random weights mean nothing and are left out."""
    return followed if built.sha256 is not None else dataclasses.replace(followed, probabilities=None)


def _asked(config: Config, amount: Amount) -> dict[str, Any]:
    return {"ratio": 1.0} if config.merge.name == "none" else amount.asked()


def _setting(config: Config, amount: Amount) -> tuple[str, ...]:
    """How much was asked for, and the options that are not the method's own."""
    if config.merge.name == "none":
        return ()
    own = dataclasses.asdict(registry.get(config.merge.name).options())
    changed = {key: value for key, value in config.merge.options.items() if value != own.get(key)}
    return tuple(f"{key} {value}" for key, value in (amount.asked() | changed).items())


def _caption(config: Config, built: Built, samples: Samples) -> list[str]:
    weights = f"{built.weights.source} weights"
    if built.sha256 is not None:
        weights = f"{weights} {built.weights.name} (sha256 {built.sha256[:12]})"
    size = built.preprocess.size
    model = f"Model {model_label(config.model)}, {weights}, input {size}x{size}, seed {config.seed}."
    tested = [name for name, title in zip(samples.names, samples.titles, strict=True) if title is not None]
    if len(samples.names) == 1:
        return [model, f"Image: {config.data.name} {tested[0]}." if tested else f"Image: {samples.names[0]}."]
    # With several images, each column is headed by its own name.
    return [model, f"Test samples of {config.data.name}, by index."] if tested else [model]
