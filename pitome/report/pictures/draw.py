"""From configurations to the bytes of a PNG: the model and its samples, every method, the page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pitome.config import Config, model_label
from pitome.merge import registry
from pitome.merge.schedule import Reduction
from pitome.report.pictures.groups import Followed, follow
from pitome.report.pictures.page import render
from pitome.report.pictures.sheet import Shown, lay_out
from pitome.report.pictures.text_sheet import lay_out_texts
from pitome.sources.images import Picture
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.models import build_vision_model
from pitome.tasks.data import Preprocess
from pitome.tasks.subject import Samples, Subject, class_names, from_data, from_file, join, one_per_class

_MOST, _FEW = 20, 10  # with more classes than a page holds: so many images


def draw(
    methods: Sequence[tuple[Config, Reduction]],
    device: torch.device,
    images: Sequence[Picture | int] | None = None,
    after: Sequence[int] | None = None,
) -> bytes:
    """A PNG of what `methods`, which share model, data and seed, do to the same images of a classifier.

    images: files, or indices of test samples; None: one test image per class, or ten test images
    where there are more than 20 classes. after: how many layers have passed in the pictures shown.
    Raises PitomeError for what does not fit.
    """
    config = methods[0][0]
    torch.manual_seed(config.seed)  # random weights
    built = build_vision_model(config.model, config.weights or "pretrained", config.weights_key)
    samples = _samples(config, built.preprocess, images)
    return draw_subject(Subject(built.model, samples, built.weights, built.sha256), methods, device, after)


def draw_subject(
    subject: Subject,
    methods: Sequence[tuple[Config, Reduction]],
    device: torch.device,
    after: Sequence[int] | None = None,
) -> bytes:
    """A PNG of what `methods` do to the samples of `subject`, whose model is patched meanwhile.

    after: as `draw` has it, of images alone. Raises PitomeError for what does not fit.
    """
    config, samples = methods[0][0], subject.samples
    model = subject.model.to(device)
    weight = next(model.parameters())

    def run(inputs: Tensor, method: str, asked: dict[str, Any], options: dict[str, Any]) -> Followed:
        torch.manual_seed(config.seed)  # a method's draw does not depend on the ones before it
        given = inputs.to(device, weight.dtype if inputs.is_floating_point() else None)
        followed = follow(model, given, method, asked, options, run=subject.run)
        # Predictions of random weights mean nothing.
        return followed if subject.sha256 is not None else dataclasses.replace(followed, probabilities=None)

    def unmerged(inputs: Tensor) -> Followed:
        return run(inputs, "none", {"ratio": 1.0}, {})

    def merged(inputs: Tensor) -> list[Shown]:
        return [
            Shown(
                run(inputs, each.merge.name, _asked(each, amount), each.merge.options), _setting(each, amount)
            )
            for each, amount in methods
        ]

    caption = _caption(config, subject)
    if isinstance(samples, Samples):
        plain = unmerged(samples.inputs)
        # Whether a prediction is right can be said where model and data know the same classes.
        classes = 0 if plain.probabilities is None else plain.probabilities.shape[-1]
        if classes != samples.classes:
            samples = dataclasses.replace(samples, labels=[None] * len(samples.labels))
        names = class_names(config.data.name, classes) if classes else []
        page = lay_out(samples, plain, merged(samples.inputs), names, caption, after)
    else:  # a text is shown as it leaves the last layer
        inputs = [sample.ids for sample in samples]
        whole = [unmerged(ids) for ids in inputs]
        page = lay_out_texts(samples, whole, [merged(ids) for ids in inputs], subject.classes, caption)
    content = io.BytesIO()
    render(page).save(content, format="png", compress_level=0)  # it is compressed with its labels
    return labelled(content.getvalue(), _labels(config, methods, page.title))


def labelled(png: bytes, words: Mapping[str, str]) -> bytes:
    """The same PNG with text chunks that say what it is, besides those it has."""
    image, info, content = Image.open(io.BytesIO(png)), PngInfo(), io.BytesIO()
    for key, text in (image.text | dict(words)).items():  # type: ignore[attr-defined]
        info.add_text(key, text)
    image.save(content, format="png", optimize=True, pnginfo=info)
    return content.getvalue()


def _labels(config: Config, methods: Sequence[tuple[Config, Reduction]], title: str) -> dict[str, str]:
    names = ", ".join(dict.fromkeys(each.merge.name for each, _ in methods))
    model = model_label(config.model)
    alt = f"{title}: test samples of {config.data.name} in {model}, one row for each of {names}"
    return {"Title": title, "Model": model, "Description": alt}


def _samples(config: Config, preprocess: Preprocess, images: Sequence[Picture | int] | None) -> Samples:
    def data(limit: int | None) -> Any:
        return build_image_data(
            config.data, preprocess, batch_size=1, source=config.source, limit=limit, workers=0
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


def _asked(config: Config, amount: Reduction) -> dict[str, Any]:
    return {"ratio": 1.0} if config.merge.name == "none" else amount.asked()


def _setting(config: Config, amount: Reduction) -> tuple[str, ...]:
    """How much was asked for, and the options that are not the method's own."""
    if config.merge.name == "none":
        return ()
    defaults = vars(registry.get(config.merge.name).options())
    changed = {key: value for key, value in config.merge.options.items() if value != defaults.get(key)}
    return tuple(f"{key} {value}" for key, value in (amount.asked() | changed).items())


def _caption(config: Config, subject: Subject) -> list[str]:
    weights, samples = f"{subject.weights.source} weights", subject.samples
    if subject.sha256 is not None:
        weights = f"{weights} {subject.weights.name} (sha256 {subject.sha256[:12]})"
    model = f"Model {model_label(config.model)}, {weights}"
    if not isinstance(samples, Samples):
        return [
            f"{model}, seed {config.seed}.",
            f"Test samples of {config.data.name}, by index.",
            *subject.lines,
        ]
    size = samples.preprocess.size
    model = f"{model}, input {size}x{size}, seed {config.seed}."
    tested = [
        name
        for name, title in zip(samples.names, samples.titles, strict=True)
        if title is not None or subject.run is not None
    ]
    if len(samples.names) == 1:
        image = f"Image: {config.data.name} {tested[0]}." if tested else f"Image: {samples.names[0]}."
        return [model, image, *subject.lines]
    # With several images, each column is headed by its own name.
    lines = [model, f"Test samples of {config.data.name}, by index."] if tested else [model]
    return [*lines, *subject.lines]
