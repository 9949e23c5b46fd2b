"""Checks of classification. Imports no torch."""

from __future__ import annotations

from pitome.config import Config, DataConfig, TaskConfig
from pitome.errors import UsageError, nearest
from pitome.sources.folders import check_root
from pitome.tasks.checks import Checks

DATA = {"fashion_mnist": "FashionMNIST", "imagenet": "ImageNet"}  # module of this package -> its class
"""Those with a reader of their own; every other set is files of images, with `classes`."""
_VOTE = ("k", "temperature", "bank")  # what head=knn reads
_TESTED = ("test", "validation")


class ClassificationChecks(Checks):
    options = ("head", *_VOTE)
    training = ("mixup", "cutmix", "smoothing", "drop_path", "workers", "layer_decay", "distill")
    data_options = ("split", "max_pixels", "exif")
    data_sets = DATA
    resizable = True

    def check(self, config: Config) -> None:
        data, task = config.data, config.task
        if data.name in DATA and data.split is not None:
            raise UsageError(f"data.split={data.split} is for images of your own, not for data={data.name}")
        if data.split not in (None, *_TESTED):
            raise UsageError(f"data.split={data.split} is not known; {nearest(str(data.split), _TESTED)}")
        if task.head == "knn":
            if config.mode == "train":
                raise UsageError(
                    "task.head=knn has nothing to train; leave one of task.head=knn and mode=train out"
                )
            if task.bank is not None and task.k > task.bank:
                raise UsageError(
                    f"task.k={task.k} is more than task.bank={task.bank}, the images that may vote"
                )
            return
        for key in _VOTE:
            if getattr(task, key) != getattr(TaskConfig, key):
                raise UsageError(f"task.{key} goes with task.head=knn")
        if config.mode != "train" and config.model.args.get("num_classes") == 0:
            raise UsageError(
                f"model={config.model.name} has no classifier; use task.head=knn, the vote of similar images"
            )

    def check_files(self, data: DataConfig, *, train: bool) -> None:
        if not data.classes or data.root is None:
            return
        from pitome.tasks.classification.files import check_files, custom_set

        check_files(custom_set(data.name, data.classes, data.split), check_root(data.root), train=train)


CHECKS = ClassificationChecks()
