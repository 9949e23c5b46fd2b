"""Every setting of a recipe reaches the loss, the optimizer or the file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pitome
from pitome.config import StageConfig, TrainerConfig
from pitome.merge.schedule import Reduction
from pitome.runs.validate import validate
from pitome.tasks.base import task_class
from pitome.tasks.classification.module import Classification
from pitome.tasks.optimizers import Trainable, adamw
from pitome.tasks.recipe import Recipe, recipes
from pitome.tasks.text.module import TextClassification
from pitome.tasks.training import EPOCHS, EpochLog, Merging, key_of, train
from tests.test_conf import config_of

STEPS = 8  # in an epoch


class Probe(Trainable):
    """Trains two weights and a bias; notes the rate and the gradient of every step. `scores` are what its
    validation finds, epoch by epoch."""

    monitor = "val_score"
    scores: ClassVar[list[float]] = []

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.states: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return 1000 * self.model(batch[0]).square().mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        super().configure_gradient_clipping(*args, **kwargs)
        gradients = [
            parameter.grad.norm() for parameter in self.model.parameters() if parameter.grad is not None
        ]
        self.norms.append(float(torch.stack(gradients).norm()))

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.states.append({key: value.clone() for key, value in self.model.state_dict().items()})
            self.log("val_score", self.scores[self.current_epoch])


class Noise(lightning.LightningDataModule):
    """`STEPS` batches of noise."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.randn(2 * STEPS, 2)), batch_size=2)

    val_dataloader = train_dataloader


def probe(
    folder: Path, scores: list[float], stages: int = 1, **settings: Any
) -> tuple[list[Probe], dict[str, Tensor]]:
    """What the stages of a training with these settings noted, and the weights it wrote."""
    own = {key: settings.pop(key) for key in ("lr", "min_lr", "warmup") if key in settings}
    stage = StageConfig(**{"epochs": len(scores), "batch_size": 2, "lr": 0.01} | own)
    trainer = TrainerConfig(stages=[stage] * stages, **settings)
    config = dataclasses.replace(config_of("logger=none"), trainer=trainer)
    probes: list[Probe] = []
    Probe.scores = scores

    def build(patch_size: int | None) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))

    def module(model: nn.Module, recipe: Recipe) -> Probe:
        probes.append(Probe(model, recipe))
        return probes[-1]

    path = train(
        config,
        Reduction(ratio=1.0),
        torch.device("cpu"),
        folder / "weights.safetensors",
        build=build,
        data=lambda number, recipe, model: Noise(),
        module=module,
    )
    return probes, load_file(path)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_best_epoch_is_written_and_not_the_last(tmp_path: Path) -> None:
    """The first of equally good ones; of each stage, so that the next one starts from it."""
    (first, second), written = probe(tmp_path, [0.2, 0.9, 0.9, 0.1], stages=2)
    assert [same(state, written) for state in second.states] == [False, True, False, False]
    between = load_file(tmp_path / "stage0.safetensors")
    assert [same(state, between) for state in first.states] == [False, True, False, False]


@pytest.mark.parametrize("scores", [[math.nan, 0.1, 0.0], [0.1, 0.2, math.nan]], ids=["first", "last"])
def test_a_score_that_is_no_number_is_not_the_best(tmp_path: Path, scores: list[float]) -> None:
    (noted,), written = probe(tmp_path, scores)
    assert [same(state, written) for state in noted.states] == [False, True, False]


@pytest.mark.parametrize("clip", [0.5, 3.0])
def test_the_gradient_is_clipped(tmp_path: Path, clip: float) -> None:
    (noted,), _ = probe(tmp_path, [0.0], clip=clip)
    assert len(noted.norms) == STEPS and noted.norms == pytest.approx([clip] * STEPS, rel=1e-3)


def test_the_rate_warms_up_and_falls(tmp_path: Path) -> None:
    """An epoch of warm-up, in equal steps, then half a cosine; written out here once more."""
    (noted,), _ = probe(tmp_path, [0.0] * 3, lr=0.01, min_lr=0.001, warmup=1.0)
    down = [(1 + math.cos(math.pi * step / (2 * STEPS))) / 2 for step in range(2 * STEPS)]
    expected = [0.01 * (step + 1) / STEPS for step in range(STEPS)]
    expected += [0.001 + 0.009 * share for share in down]
    assert noted.rates == pytest.approx(expected)


def test_a_linear_schedule_falls_to_its_end(tmp_path: Path) -> None:
    (noted,), _ = probe(tmp_path, [0.0] * 2, schedule="linear", warmup=0.5)
    left = [(2 * STEPS - step) / (2 * STEPS - 4) for step in range(4, 2 * STEPS)]
    assert noted.rates == pytest.approx([0.01 * x for x in [0.25, 0.5, 0.75, 1, *left]])


def test_a_plateau_divides_the_rate_by_ten(tmp_path: Path) -> None:
    (noted,), _ = probe(tmp_path, [0.5, 0.6, 0.6, 0.7], schedule="plateau")
    assert noted.rates[::STEPS] == pytest.approx([0.01, 0.01, 0.01, 0.001])


def tower(task: str) -> nn.Module:
    """A model of the task, with every kind of parameter that it has."""
    if task == "classification":
        from pitome.tasks.classification.models import build_timm

        return build_timm(
            "vision_transformer", {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
        )
    if task == "text":
        from pitome.tasks.text.models import from_args
        from tests.configs import model_of
        from tests.tasks.text.tiny_text import CONFIG

        return from_args(model_of(CONFIG), classes=2)
    if task == "retrieval":
        from tests.tasks.retrieval.test_retrieval import tiny

        return tiny()
    from tests.tasks.vqa.tiny_llava import llava

    return llava().requires_grad_(True)


@pytest.mark.parametrize("task", ["classification", "text", "retrieval", "vqa"])
def test_weights_decay_and_biases_and_norms_do_not(task: str) -> None:
    """With a gradient of zero a step changes what is decayed, and nothing else."""
    model = tower(task)
    found: Any = adamw(model, Recipe(epochs=1, batch_size=1, lr=0.1, weight_decay=0.5), 10, "val_score")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data += 1  # zeros would not show that they are decayed
        parameter.grad = torch.zeros_like(parameter)
    found["optimizer"].step()
    after = dict(model.named_parameters())
    ratio = {name: ((after[name] / (before[name] + 1)).nanmean()).item() for name in before}
    flat = {name for name in before if before[name].ndim <= 1 or name.endswith(".bias")}
    assert any("norm" in name.lower() or "ln" in name for name in flat) and flat != set(before)
    assert all(ratio[name] == pytest.approx(1) for name in flat)
    decayed = {name for name in before if ratio[name] == pytest.approx(0.95, rel=1e-3)}
    assert decayed == set(before) - flat


def test_rates_fall_from_block_to_block() -> None:
    """From the head's rate on, each block back has half the rate of the one after it; the embedding the
    least."""
    from tests.adapters.tiny import vit

    model = vit(depth=3)
    made: Any = adamw(model, Recipe(epochs=1, batch_size=1, lr=0.8, layer_decay=0.5), 10, "val_score")
    rate = {id(p): group["initial_lr"] for group in made["optimizer"].param_groups for p in group["params"]}
    named = {name: rate[id(parameter)] for name, parameter in model.named_parameters()}
    blocks = [{named[name] for name in named if name.startswith(f"blocks.{number}.")} for number in range(3)]
    assert blocks == [{0.1}, {0.2}, {0.4}]
    assert named["head.weight"] == 0.8 and named["patch_embed.proj.weight"] == 0.05


def test_merging_grows_over_the_epochs() -> None:
    """From nothing; validated with all of it, as is trained once it has grown."""
    from tests.adapters.tiny import images, vit

    model, tokens = vit(), []
    recipe = Recipe(epochs=4, batch_size=1, lr=0.1, curriculum=0.5)
    merging = Merging(model, config_of("merge=tome"), Reduction(ratio=0.6), recipe, None)

    def left() -> int:
        model(images(model))
        handle = pitome.patched(model)
        assert handle is not None
        return handle.tokens[1]

    whole = left()
    for epoch in range(4):
        trainer: Any = SimpleNamespace(current_epoch=epoch)
        (merging.on_train_start if epoch == 1 else merging.on_train_epoch_start)(trainer, None)  # type: ignore[arg-type]
        tokens.append(left())
        merging.on_validation_start(trainer, None)  # type: ignore[arg-type]
        assert left() == whole
    assert tokens == [16, 13, whole, whole] and whole == 10


@pytest.mark.parametrize(
    ("asked", "half"),
    [
        ({"ratio": 0.6}, {"ratio": 0.8}),
        ({"ratio": [0.6, 1.0]}, {"ratio": [0.8, 1.0]}),
        ({"r": 5}, {"r": 2}),
        ({"r": [4, 0]}, {"r": [2, 0]}),
        ({"flops": 0.5}, {"flops": 0.75}),
    ],
    ids=str,
)
def test_half_of_an_amount(asked: dict[str, Any], half: dict[str, Any]) -> None:
    amount = Reduction(**asked, layers="first3")
    assert amount.grown(0.5).asked() == half | {"layers": "first3"}
    assert amount.grown(1.0) == amount


def recipe_of(**settings: float) -> Recipe:
    """As from the command line."""
    stages = "trainer.stages=[{epochs: 1, batch_size: 4, lr: 0.1}]"
    (recipe,) = recipes(config_of(stages, *(f"trainer.{k}={v}" for k, v in settings.items())).trainer)
    return recipe


LOGITS = torch.tensor(
    [[2.0, 0.0, -1.0, 0.5], [0.0, 3.0, 1.0, -2.0], [1.0, 1.5, 0.0, 0.0], [-1.0, 0.0, 0.5, 2.0]]
)


class Echo(nn.Module):
    """Notes its images; logits that depend on the place in the batch alone, another in every place: else the
    mean of the loss would not show what is done with the labels."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return LOGITS[: len(images)]


def loss_of(module: Any, images: Tensor, labels: Tensor) -> float:
    module.log = lambda *args, **kwargs: None
    return float(module.training_step((images, labels, labels), 0))


def cross_entropy(weights: Tensor) -> float:
    """Of `weights` [4, 4], the share of each class, by hand."""
    return float(-(weights * LOGITS.log_softmax(1)).sum(1).mean())


def smoothed(labels: Tensor, smoothing: float) -> Tensor:
    return nn.functional.one_hot(labels, 4) * (1 - smoothing) + smoothing / 4


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed(smoothing: float) -> None:
    recipe, labels = recipe_of(smoothing=smoothing, mixup=0, cutmix=0), torch.arange(4)
    module = Classification(Echo(), 4, recipe)
    expected = cross_entropy(smoothed(labels, smoothing))
    assert loss_of(module, torch.rand(4, 1, 8, 8), labels) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_of_texts_are_smoothed(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = TextClassification(nn.Identity(), 4, recipe_of(smoothing=smoothing))
    monkeypatch.setattr(TextClassification, "forward", lambda self, batch: Echo()(batch["labels"]))
    module.log = lambda *args, **kwargs: None
    labels = torch.arange(4)
    found = float(module.training_step({"labels": labels}, 0))
    assert found == pytest.approx(cross_entropy(smoothed(labels, smoothing)))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_teacher_has_its_share_of_the_loss(smoothing: float) -> None:
    """The cross entropy with what the teacher answers to the same images; nothing flows into it."""

    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor([0.0, 1.0, 2.0, 3.0]))

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3))[:, None] * self.shift

    teacher, images, labels = Teacher(), torch.rand(4, 1, 8, 8), torch.arange(4)
    module = Classification(Echo(), 4, recipe_of(smoothing=smoothing, mixup=0, cutmix=0, distill=0.25))
    module.learn_from(teacher)
    taught = teacher(images).softmax(1).detach()
    expected = 0.75 * cross_entropy(smoothed(labels, smoothing)) + 0.25 * cross_entropy(taught)
    assert loss_of(module, images, labels) == pytest.approx(expected)
    assert not teacher.shift.requires_grad and not list(module.parameters()) and not teacher.training


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0), (0, 1.0)], ids=["mixup", "cutmix"])
def test_images_and_labels_are_mixed(mixup: float, cutmix: float) -> None:
    """Image i is all i: mixed, a value in between; cut, some of both. The labels by the same share."""
    module, labels = (
        Classification(Echo(), 4, recipe_of(mixup=mixup, cutmix=cutmix, smoothing=0.1)),
        torch.arange(4),
    )
    images = torch.arange(4.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    shares = []
    for seed in range(8):
        np.random.seed(seed)
        loss = loss_of(module, images.clone(), labels)
        seen: Tensor = module.model.seen[0]  # type: ignore[assignment, index]
        shares.append(1 - seen.mean().item() / 3)  # of image 0; the rest is of image 3
        targets = shares[-1] * smoothed(labels, 0.1) + (1 - shares[-1]) * smoothed(labels.flip(0), 0.1)
        assert loss == pytest.approx(cross_entropy(targets), rel=1e-4)
        values = set(seen.unique().tolist())
        assert values <= {0.0, 3.0} if cutmix else len(values) == 1
    assert sum(0.01 < share < 0.99 for share in shares) > 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_lost_an_image_is_mixed(count: int) -> None:
    """timm mixes pairs and refuses an odd number."""
    module, labels = Classification(Echo(), 4, recipe_of(mixup=0.8)), torch.arange(count)
    assert math.isfinite(loss_of(module, torch.rand(count, 1, 8, 8), labels))
    assert len(module.model.seen) == count + 1  # type: ignore[arg-type]


def test_drop_path_reaches_the_blocks(tmp_path: Path, images: Path) -> None:
    from pitome.tasks.classification import training

    built: list[nn.Module] = []

    def stop(*args: Any, build: Any, **kwargs: Any) -> Path:
        built.append(build(None))
        return args[3]

    for rate in (0.0, 0.2):
        config = config_of(
            f"trainer.drop_path={rate}",
            "model.args.depth=3",
            f"results={tmp_path}/runs",
            f"data.root={images}",
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "train", stop)
            training.train_from_config(config, Reduction(ratio=1.0), torch.device("cpu"), lambda: None)
    plain, dropped = ([getattr(b.drop_path1, "drop_prob", 0.0) for b in model.blocks] for model in built)  # type: ignore[union-attr]
    assert plain == [0, 0, 0] and dropped == pytest.approx([0, 0.1, 0.2])


def test_an_epoch_that_is_repeated_has_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the line of an epoch and before its checkpoint, and in the middle of a line."""
    log = tmp_path / EPOCHS
    original = EpochLog.on_train_epoch_end

    def cut(self: EpochLog, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("power failure")

    monkeypatch.setattr(EpochLog, "on_train_epoch_end", cut)
    with pytest.raises(RuntimeError, match="power"):
        probe(tmp_path, [0.9, 0.3, 0.1])
    monkeypatch.undo()
    with log.open("a") as file:
        file.write('{"stage": 0, "epo')
    assert (tmp_path / "stage0.ckpt").exists() and not list(tmp_path.glob("*.safetensors"))
    (noted,), written = probe(tmp_path, [0.9, 0.3, 0.1])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert len(noted.states) == 2 and not any(same(state, written) for state in noted.states), (
        "epoch 0 is best"
    )
    assert [path.name for path in sorted(tmp_path.iterdir())] == [EPOCHS, "weights.safetensors"]


def test_every_setting_reaches_the_recipe() -> None:
    first = StageConfig(epochs=7, batch_size=9, lr=0.5, min_lr=0.1, warmup=2.0, patch_size=8)
    shared = TrainerConfig(
        stages=[first, StageConfig(epochs=1, batch_size=2, lr=0.1)], smoothing=0.2, clip=5.0
    )
    for recipe, stage in zip(recipes(shared), shared.stages, strict=True):
        assert vars(recipe) == vars(shared) | vars(stage)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["merge=none"], "b5418e7e"),
        (["merge=pitome", "ratio=0.9"], "59c0c972"),
        (["task=retrieval", "merge=none"], "0558be37"),
        (["task=vqa", "merge=none"], "7f2b9e39"),
        (["task=text", "merge=none"], "801307f9"),
        (["task=text", "data=sst2", "model=bert_base", "merge=tome", "ratio=0.8"], "858b7a23"),
    ],
    ids=" ".join,
)
def test_what_was_trained_is_found_again(words: list[str], key: str) -> None:
    """The key of a training says where its weights lie; it stays when the code is changed."""
    config = config_of("mode=train", *words)
    kind = task_class(config.task.name)
    assert key_of(config, validate(config), kind.train_split(config)) == key
