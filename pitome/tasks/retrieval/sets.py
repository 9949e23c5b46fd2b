"""The captioned sets of photographs: what each one's files are called. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CaptionSet:
    """A set with Karpathy's splits (Karpathy and Fei-Fei, CVPR 2015).

    karpathy: his file with all splits; lists: of a split, as BLIP's authors write them; table,
    archive: captions and images of the test split in the hub's repository; train: Karpathy's names
    of what is trained on.
    """

    karpathy: str
    lists: dict[str, str]
    table: str
    archive: str
    train: tuple[str, ...] = ("train",)


SETS = {
    "flickr30k": CaptionSet(
        karpathy="dataset_flickr30k.json",
        lists={split: f"flickr30k_{split}.json" for split in ("train", "val", "test")},
        table="test_1k_flickr.csv",
        archive="images_flickr_1k_test.zip",
    ),
    "coco": CaptionSet(
        karpathy="dataset_coco.json",
        lists={split: f"coco_karpathy_{split}.json" for split in ("train", "val", "test")},
        table="test_5k_mscoco_2014.csv",
        archive="images_mscoco_2014_5k_test.zip",
        train=("train", "restval"),
    ),
}
