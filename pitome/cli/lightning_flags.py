"""The flags of Lightning's Trainer, given as `trainer.FLAG=`: what they are called here, and which are not.

Those that TrainerConfig has under the same name are passed on to Lightning (`pitome.tasks.devices.flags`).
"""

from __future__ import annotations

from collections.abc import Sequence

from pitome.errors import UsageError

RENAMED = {
    "accelerator": "device",
    "devices": "devices",
    "gradient_clip_val": "trainer.clip",
    "max_epochs": "trainer.epochs",
    "precision": "precision",
}
TRANSLATED = ("fast_dev_run", "strategy")
_DRY_RUN = ("limit=100", "limit_train=512", "trainer.epochs=1", "logger=none", "overwrite=all")
_REASONS = {
    "every sample is counted; give limit=SAMPLES": (
        "limit_predict_batches",
        "limit_test_batches",
        "limit_val_batches",
    ),
    "give limit_train=SAMPLES": ("limit_train_batches", "overfit_batches"),
    "give trainer.epochs=N": ("max_steps", "max_time", "min_epochs", "min_steps"),
    "every epoch is validated, and the best one is kept": (
        "check_val_every_n_epoch",
        "num_sanity_val_steps",
        "val_check_interval",
    ),
    "devices=N counts every sample once": ("reload_dataloaders_every_n_epochs", "use_distributed_sampler"),
    "a run has one machine; several share a sweep, hydra/launcher=submitit_slurm": ("num_nodes",),
    "give logger=wandb, csv or none": ("enable_autolog_hparams", "logger"),
    "give results=FOLDER": ("default_root_dir",),
    "give trainer.clip=NORM": ("gradient_clip_algorithm",),
    "give trainer.save_every=MINUTES": ("enable_checkpointing", "model_registry"),
    "this project sets it": (
        "barebones",
        "benchmark",
        "callbacks",
        "enable_model_summary",
        "enable_progress_bar",
        "inference_mode",
        "log_every_n_steps",
        "plugins",
        "sync_batchnorm",
    ),
}
REFUSED = {flag: reason for reason, flags in _REASONS.items() for flag in flags}


def translated(words: Sequence[str]) -> list[str]:
    """The words of a command line, with this project's keys for Lightning's flags. Raises UsageError for a
    flag with which not every sample would be counted, or that this project sets itself."""
    out: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        group, _, flag = key.lstrip("+").partition(".")
        if group != "trainer" or not equals:
            out.append(word)
        elif flag in REFUSED:
            raise UsageError(f"trainer.{flag} is not passed on to Lightning: {REFUSED[flag]}")
        elif flag == "strategy":
            if value not in ("auto", "ddp"):
                raise UsageError(f"{word}: several devices share a run by ddp; give devices=N alone")
        elif flag == "fast_dev_run":
            if value.lower() not in ("true", "false"):
                raise UsageError(f"{word}: give true or false; limit= and limit_train= say how many samples")
            given = {other.partition("=")[0] for other in words}
            dry = [new for new in _DRY_RUN if new.partition("=")[0] not in given]
            out += dry if value.lower() == "true" else []
        elif flag in RENAMED:
            out.append(f"{RENAMED[flag]}={'cuda' if value == 'gpu' else value}")
        else:
            out.append(word)
    return out
