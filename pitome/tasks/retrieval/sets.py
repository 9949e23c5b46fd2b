"""The captioned sets of photographs: what each one's files are called. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CaptionSet:
    """A set with Karpathy's splits (Karpathy and Fei-Fei, CVPR 2015)."""

    # Karpathy's file with all splits.
    karpathy: str
    # Of a split, as BLIP's authors write them.
    lists: dict[str, str]
    # Of a split, as CLIP_benchmark has it; {} the split's name.
    benchmark: str
    # Captions and images of the test split in the hub's repository; empty for a set that is not there.
    table: str = ""
    archive: str = ""
    # Karpathy's names of what is trained on.
    train: tuple[str, ...] = ("train",)
    # Captions of all images without splits, which need a list of a split's images.
    raw: tuple[str, ...] = ()


SETS = {
    "flickr30k": CaptionSet(
        karpathy="dataset_flickr30k.json",
        lists={split: f"flickr30k_{split}.json" for split in ("train", "val", "test")},
        benchmark="flickr30k_{}_karpathy.txt",
        table="test_1k_flickr.csv",
        archive="images_flickr_1k_test.zip",
        raw=("results_20130124.token", "results.csv", "captions.txt"),
    ),
    "flickr8k": CaptionSet(
        karpathy="dataset_flickr8k.json",
        lists={split: f"flickr8k_{split}.json" for split in ("train", "val", "test")},
        benchmark="flickr8k_{}_karpathy.txt",
        raw=("Flickr8k.token.txt", "captions.txt"),
    ),
    "coco": CaptionSet(
        karpathy="dataset_coco.json",
        lists={split: f"coco_karpathy_{split}.json" for split in ("train", "val", "test")},
        benchmark="coco_{}_karpathy.json",
        table="test_5k_mscoco_2014.csv",
        archive="images_mscoco_2014_5k_test.zip",
        train=("train", "restval"),
    ),
}

NAMES = ("scenes", *SETS)
"""The sets with readers of their own; every other one is a table of images and captions."""
