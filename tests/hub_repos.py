"""Tiny stand-ins of every repository that conf/ names: real names of files, columns and tensors, few rows and
narrow layers. docs/data.md says where the real ones were looked up; a new source is one line in `DATA` or
`MODELS`."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save

from pitome.config import CONF, ModelConfig
from pitome.sources.yaml_files import read_yaml
from tests.configs import model_of
from tests.hub_double import Hub, Repository
from tests.tasks.text.tiny_text import WORDS, tokenizer

Files = dict[str, bytes]
_COMMON = {".gitattributes": b"*.parquet filter=lfs\n", "README.md": b"---\nlicense: other\n---\n"}
_TEN = [{"answer": "dog", "answer_confidence": "yes", "answer_id": id} for id in range(1, 11)]
_CAPTIONS = [f"a {word} film" for word in ("good", "bad", "the", "film", "b")]


def picture(n: int, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    colour = 20 * n if mode == "L" else (20 * n, 250 - 20 * n, 100)
    Image.new(mode, size, colour).save(out, "PNG" if mode == "L" else "JPEG")
    return out.getvalue()


def parquet(rows: Sequence[Mapping[str, Any]], **kinds: str) -> bytes:
    """Rows as `datasets` uploads them, with its description of the columns: string where `kinds` names no
    other, `[string]` for a list, image, or a number of classes."""
    import datasets

    def feature(kind: str) -> Any:
        if kind == "image":
            return datasets.Image()
        if kind.isdigit():
            return datasets.ClassLabel(num_classes=int(kind))
        if kind == "answers":
            return [{k: datasets.Value("int64" if k == "answer_id" else "string") for k in _TEN[0]}]
        return [datasets.Value(kind[1:-1])] if kind.startswith("[") else datasets.Value(kind)

    features = datasets.Features({name: feature(kinds.get(name, "string")) for name in rows[0]})
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), features.arrow_schema), out)
    return out.getvalue()


def _image(n: int, **options: Any) -> dict[str, Any]:
    return {"bytes": picture(n, **options), "path": f"{n}.jpg"}


def texts(path: str, splits: Sequence[str], column: str = "text", **more: str) -> Files:
    pairs = {split: [(f"a good film {split}", 1), (f"bad film {split}!", 0)] * 3 for split in splits}
    rows = {
        split: [{column: f"{text} {n}", "label": label} for n, (text, label) in enumerate(given)]
        for split, given in pairs.items()
    }
    return {path.format(split): parquet(own, label="2") for split, own in rows.items()}


def _classified(path: str, splits: Sequence[str], classes: int, images: int, **options: Any) -> Files:
    rows = [{"image": _image(n, **options), "label": n % classes} for n in range(images)]
    return {path.format(split): parquet(rows, image="image", label=str(classes)) for split in splits}


def _captions(table: str, archive: str, folder: str, name: str) -> Files:
    out, packed = io.StringIO(newline=""), io.BytesIO()
    # The columns of the table in the order of the repository; captions as JSON in a cell.
    rows = [
        [json.dumps(_CAPTIONS), json.dumps(list(range(5 * n, 5 * n + 5))), "test", name.format(n), n]
        for n in range(12)
    ]
    csv.writer(out).writerows([("raw", "sentids", "split", "filename", "img_id"), *rows])
    with zipfile.ZipFile(packed, "w") as zipped:
        for n in range(12):
            zipped.writestr(f"{folder}/{name.format(n)}", picture(n))
        zipped.writestr(f"__MACOSX/{folder}/._{name.format(0)}", b"junk")
    script = b"raise RuntimeError('a loading script is never run')\n"
    return {table: out.getvalue().encode(), archive: packed.getvalue(), f"{Path(archive).stem}.py": script}


def _questions(count: int = 2, **columns: Any) -> list[dict[str, Any]]:
    """Rows with an image each; a column may be a function of the row's number."""
    return [
        {"image": _image(n), "question": "What is good?"}
        | {name: value(n) if callable(value) else value for name, value in columns.items()}
        for n in range(count)
    ]


def _shards(path: str, rows: Sequence[Mapping[str, Any]], **kinds: str) -> Files:
    """A file for each row, numbered as the hub's; `{}` stands for `00000-of-00002`."""
    return {
        path.format(f"{n:05}-of-{len(rows):05}"): parquet([row], image="image", **kinds)
        for n, row in enumerate(rows)
    }


def _vqav2() -> Files:
    own = {"image_id": lambda n: 100 + n, "question_id": lambda n: 1000 + n, "answer_type": "other"}
    kinds = {"image_id": "int64", "question_id": "int64", "answers": "answers"}
    return _shards("data/validation-{}.parquet", _questions(answers=_TEN, **own), **kinds) | _shards(
        "data/testdev-{}.parquet", _questions(answers=None, **own), **kinds
    )


def _vizwiz() -> Files:
    kinds = {"answers": "[string]"}
    return {
        name: content
        for split, answers in (("val", ["dog"] * 10), ("test", []))
        for name, content in _shards(
            f"data/{split}-{{}}-7775fd61bc6a3d98.parquet",
            _questions(question_id=lambda n: f"VizWiz_val_{n:08}.jpg", answers=answers, category="other"),
            **kinds,
        ).items()
    }


def _textvqa() -> Files:
    own = {"image_id": "0a1b", "question_id": lambda n: 34602 + n, "ocr_tokens": ["STOP"], "set_name": "val"}
    kinds = {"question_id": "int32", "answers": "[string]", "ocr_tokens": "[string]"}
    return _shards("data/validation-{}.parquet", _questions(answers=["stop"] * 10, **own), **kinds)


def _scienceqa() -> Files:
    rows = _questions(choices=["a", "b"], answer=1, hint="", task="closed choice", lecture="", solution="")
    kinds = {"image": "image", "choices": "[string]", "answer": "int8"}
    splits = ("validation", "test")
    return {f"ScienceQA-IMG/{split}-00000-of-00001.parquet": parquet(rows, **kinds) for split in splits}


def _mme() -> Files:
    own = {"question_id": "count/1.png", "answer": lambda n: ("Yes", "No")[n], "category": "count"}
    return _shards("data/test-{}-53ae1794f93b1e35.parquet", _questions(**own))


def _gqa() -> Files:
    name = "testdev_balanced_{}/testdev-00000-of-00001.parquet"
    texts = [
        {"id": f"20{n}", "imageId": f"n{n}", "question": "What?", "answer": "dog", "isBalanced": True}
        for n in range(2)
    ]
    images = [{"id": f"n{n}", "image": _image(n)} for n in (1, 0)]
    return {
        name.format("instructions"): parquet(texts, isBalanced="bool"),
        name.format("images"): parquet(images, image="image"),
    }


_FASHION = ("fashion_mnist/{}-00000-of-00001.parquet", ("train", "test"), 10, 20)
# Of a file of conf/data: the files of its repository.
DATA: dict[str, Callable[[], Files]] = {
    "coco": lambda: _captions(
        "test_5k_mscoco_2014.csv",
        "images_mscoco_2014_5k_test.zip",
        "images_mscoco_2014_5k_test",
        "COCO_val2014_{:012}.jpg",
    ),
    "fashion_mnist": lambda: _classified(*_FASHION, mode="L", size=(28, 28)),
    "flickr30k": lambda: _captions(
        "test_1k_flickr.csv", "images_flickr_1k_test.zip", "images_flickr_1k_test", "{:010}.jpg"
    ),
    "gqa": _gqa,
    "imagenet": lambda: {
        name: content
        for shard in ("00000-of-00002", "00001-of-00002")
        for name, content in _classified(
            f"data/{{}}-{shard}.parquet", ("train", "validation"), 1000, 6
        ).items()
    },
    "imdb": lambda: texts("plain_text/{}-00000-of-00001.parquet", ("train", "test", "unsupervised")),
    "mme": _mme,
    "rotten_tomatoes": lambda: texts("{}.parquet", ("train", "validation", "test")),
    "scenes": lambda: _classified(*_FASHION, mode="L", size=(28, 28)),
    "scienceqa": _scienceqa,
    "sst2": lambda: texts("data/{}-00000-of-00001.parquet", ("train", "validation", "test"), "sentence"),
    "textvqa": _textvqa,
    "vizwiz": _vizwiz,
    "vqav2": _vqav2,
}


def conf(group: str, name: str) -> dict[str, Any]:
    return dict(read_yaml(CONF / group / f"{name}.yaml"))


def add_data(hub: Hub, name: str) -> Repository:
    own = conf("data", name)
    revision = None if own["revision"] == "main" else own["revision"]
    return hub.add("dataset", own["repository"], _COMMON | DATA[name](), commit=revision)


def small(name: str) -> ModelConfig:
    """A model of conf/model, made narrow by `MODELS`."""
    file, args = conf("model", name), MODELS[name][1]
    return model_of(file | {"args": file["args"] | args})


def words(name: str) -> list[str]:
    """The same for the command line."""
    return [f"++model.args.{key}={_hydra(value)}" for key, value in MODELS[name][1].items()]


def _hydra(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def add_model(hub: Hub, name: str, data: str = "") -> None:
    """The repositories that a model needs, for `data` if it has a checkpoint for each data set."""
    MODELS[name][0](hub, name, data)


def _add(hub: Hub, source: str, files: Files) -> None:
    name, _, revision = source.removeprefix("hub:").partition("@")
    hub.add("model", name, _COMMON | files, commit=None if revision == "main" else revision)


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone().contiguous() for name, value in model.state_dict().items()}


def _pickled(state: Mapping[str, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def _saved(*parts: Any, **options: Any) -> Files:
    """What `save_pretrained` of a model and its tokenizer writes."""
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder, **(options if isinstance(part, torch.nn.Module) else {}))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _timm(hub: Hub, name: str, _: str) -> None:
    from pitome.tasks.classification.models import build_timm

    config = small(name)
    # DINOv2's file holds the position embeddings of its last training phase, at 518 pixels.
    args = dict(config.args) | ({"img_size": 518} if "img_size" in config.args else {})
    state = _state(build_timm(config.arch, args))
    _add(hub, config.checkpoint, {"config.json": b"{}", "model.safetensors": save(state)})


def _open_clip(hub: Hub, name: str, _: str) -> None:
    from pitome.tasks.retrieval.clip import build_model

    config, files = small(name), {"open_clip_config.json": b"{}"}
    state = _state(build_model(config).model)
    if "laion" not in name:
        files |= {"open_clip_model.safetensors": save(state)}
    elif name == "clip_l_laion":
        files |= {"open_clip_pytorch_model.safetensors": save(state), "model.safetensors": b"another form"}
    files |= {"open_clip_pytorch_model.bin": _pickled(state), "vocab.json": b"{}", "merges.txt": b""}
    if "SigLIP" in config.arch:
        files["tokenizer.json"] = _pieces()
    _add(hub, config.checkpoint, files)


def _pieces() -> bytes:
    """A tokenizer.json in the form of SigLIP's: ids 0 <unk>, 1 </s>, then words, which the end follows."""
    import tokenizers

    ids = {word: index for index, word in enumerate(("<unk>", "</s>", "a", "film"))}
    file = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    file.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    file.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    file.enable_padding(pad_id=1, pad_token="</s>", length=9)
    file.enable_truncation(2)
    return file.to_str().encode()


def _blip(hub: Hub, name: str, _: str) -> None:
    from pitome.tasks.retrieval.blip import WORDS_OF, build_model

    config = small(name)
    state = _state(build_model(config))
    files = {"config.json": b"{}", "preprocessor_config.json": b"{}"}
    if name == "blip_base":  # saved before positions became a buffer that is not
        state["text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
        files["pytorch_model.bin"] = _pickled(state)
    else:
        files["model.safetensors"] = save(state)
    _add(hub, config.checkpoint, files)
    repository, revision = WORDS_OF
    _add(hub, f"{repository}@{revision}", _saved(tokenizer()) | {"coreml/Manifest.json": b"{}"})


def _text(hub: Hub, name: str, data: str) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    own = conf("model", name)
    entry = own["checkpoints"][data]
    config = AutoConfig.for_model(own["arch"], **own["args"] | MODELS[name][1], num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config)
    files = _saved(model, tokenizer(cased=entry.get("cased", False)))
    if name != "distilbert" or data != "sst2":  # of all, only this repository has safetensors
        del files["model.safetensors"]
        files["pytorch_model.bin"] = _pickled(_state(model))
    files |= {"checkpoint-4210/config.json": files["config.json"], "training_args.bin": b"\x80code"}
    _add(hub, entry["source"], files)


def _llava(hub: Hub, name: str, _: str) -> None:
    from pitome.tasks.vqa.models import build_model

    built = build_model(small(name), dtype=torch.float16)
    files = _saved(built.model, built.tokenizer, max_shard_size="60KB")
    assert "model.safetensors.index.json" in files
    _add(hub, small(name).checkpoint, files)


def add_base(hub: Hub, name: str) -> torch.Tensor:
    """The encoder that training starts from, with the parts of its pretraining and, as it was saved years
    ago, norms whose weights are called gamma and beta; the first of these is returned."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForPreTraining

    own = conf("model", name)
    kind = AutoModelForPreTraining if own["arch"] == "bert" else AutoModelForMaskedLM
    model = kind.from_config(AutoConfig.for_model(own["arch"], **own["args"] | MODELS[name][1]))
    for parameter in model.parameters():
        parameter.data.normal_()
    state = _state(model)
    norm = next(value for key, value in state.items() if key.endswith("LayerNorm.weight"))
    if own["arch"] == "bert":
        renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, old in renamed.items():
            state = {key.replace(new, old): value for key, value in state.items()}
    files = _saved(model, tokenizer()) | {"model.safetensors": save(state, {"format": "pt"})}
    _add(hub, own["base"], files | {"pytorch_model.bin": b"not needed", "rust_model.ot": b"not needed"})
    return norm


_VIT = {"depth": 2, "embed_dim": 24, "num_heads": 2}
_SIDE = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 32}
_CLIP = {
    "embed_dim": 16,
    "vision_cfg": _SIDE | {"image_size": 224},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
_SIGLIP = {
    "embed_dim": 96,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit3",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 32000,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "width": 16,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
_TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_BLIP = {
    "vision_config": _TOWER | {"image_size": 384, "patch_size": 32},
    "text_config": _TOWER
    | {"vocab_size": 50, "encoder_hidden_size": 16, "bos_token_id": 1, "sep_token_id": 2},
    "image_text_hidden_size": 8,
}
_BERT = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": len(WORDS),
}
_LLAVA = {
    "vision_config": _TOWER | {"image_size": 336, "patch_size": 28, "projection_dim": 16},
    "text_config": _TOWER
    | {"vocab_size": 288, "hidden_size": 32, "num_key_value_heads": 2, "max_position_embeddings": 1024},
}
# Of a file of conf/model that names the hub: what puts its repositories there, and what makes it narrow.
MODELS: dict[str, tuple[Callable[[Hub, str, str], None], dict[str, Any]]] = {
    "bert_base": (_text, _BERT),
    "bert_large": (_text, _BERT),
    "blip2": (
        _blip,
        {
            "vision_config": _TOWER | {"image_size": 364, "patch_size": 28},
            "qformer_config": _TOWER
            | {
                "vocab_size": 50,
                "encoder_hidden_size": 16,
                "cross_attention_frequency": 2,
                "use_qformer_text_input": True,
            },
            "num_query_tokens": 3,
            "image_text_hidden_size": 8,
        },
    ),
    "blip_base": (_blip, _BLIP),
    "blip_large": (_blip, _BLIP),
    **{
        name: (_open_clip, _CLIP)
        for name in (
            "clip_b16",
            "clip_b16_laion",
            "clip_b32",
            "clip_b32_laion",
            "clip_l",
            "clip_l_laion",
        )
    },
    "clip_l336": (_open_clip, _CLIP | {"vision_cfg": _SIDE | {"image_size": 336}}),
    "deit_b": (_timm, _VIT),
    "deit_s": (_timm, _VIT),
    "deit_t": (_timm, _VIT),
    "dinov2_s": (_timm, _VIT),
    "distilbert": (
        _text,
        {key: value for key, value in _BERT.items() if key != "intermediate_size"} | {"hidden_dim": 16},
    ),
    "llava_13b": (_llava, _LLAVA),
    "llava_7b": (_llava, _LLAVA),
    "siglip_b": (_timm, _VIT),
    "siglip_b16": (_open_clip, _SIGLIP),
    **{f"vit_{size}_augreg": (_timm, _VIT) for size in ("s", "b", "l", "l384")},
}

# Of a task: its narrow model, to read the data sets with.
READERS = {
    "classification": ["model=deit_t", *words("deit_t")],
    "text": ["task=text", "model=bert_base", *words("bert_base")],
    "retrieval": ["task=retrieval", "model=clip_b32", *words("clip_b32")],
    "vqa": ["task=vqa", "model=llava_7b", *words("llava_7b")],
}
