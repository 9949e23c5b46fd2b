"""BLIP and BLIP-2 for retrieval, from transformers: contrastive features, and a head that says of an
image and a caption together whether they match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pitome.config import ModelConfig
from pitome.errors import CheckpointError, UsageError, nearest
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.hub import fetch_folder
from pitome.sources.minilm import fetch_minilm
from pitome.sources.weights import fetch_weights, find_weights
from pitome.tasks.built import Built, preprocess_of
from pitome.tasks.retrieval.checks import BLIP_ARCHS
from pitome.tasks.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ELSE = "give the file with weights=PATH, or use weights=random"
WORDS_OF = ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594")


class ImageTextMatching(nn.Module):
    """Images and captions to features of unit length, and the matching head.

    `states` are the tokens that leave the image tower, [B, N, C]: all that the features and the
    matching head see of an image. Every one of them counts once in cross attention, however many
    patches it stands for, as in the authors' code.
    """

    context: int  # tokens a caption may have

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer

    @property
    def image_tower(self) -> nn.Module:
        """Images [B, C, H, W] -> transformers' output with the states."""
        tower: nn.Module = self.model.vision_model
        return tower

    def image_states(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> states [B, N, C]."""
        states: Tensor = self.model.vision_model(images).last_hidden_state
        return states

    def encode_states(self, states: Tensor) -> Tensor:
        """States [B, N, C] -> features [B, D] or, where an image has several, [B, Q, D]; the score of
        a caption is that of the one most similar to it."""
        raise NotImplementedError

    def encode_image(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> features, as `encode_states`."""
        return self.encode_states(self.image_states(images))

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> features [T, D] of unit length."""
        return self.encode_tokens(*self.tokens(captions))

    def encode_tokens(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token ids [T, N], mask [T, N] of ones at tokens -> features [T, D] of unit length."""
        raise NotImplementedError

    def match(self, states: Tensor, captions: Sequence[str]) -> Tensor:
        """How well states [B, N, C] and B captions match, pair by pair: logits [B]."""
        return self.match_tokens(states, *self.tokens(captions))

    def match_tokens(self, states: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `match`, of token ids [B, N] and their mask [B, N]."""
        raise NotImplementedError

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask [T, context] on the model's device; longer captions are cut."""
        device = next(self.model.parameters()).device
        encoded = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return encoded["input_ids"].to(device), encoded["attention_mask"].to(device)

    def count_truncated(self, captions: Sequence[str]) -> int:
        """How many of the captions are longer than the text encoder reads."""
        return sum(len(ids) > self.context for ids in self.tokenizer(list(captions))["input_ids"])

    def text_macs(self) -> int:
        """Multiply-accumulates of one caption's features: always those of the whole context."""
        return self._count("encode_tokens", ids=self._ids())

    def feature_macs(self, tokens: int) -> int:
        """Multiply-accumulates from the states of an image, so many tokens, to its features: the closed
        form of what `encode_states` costs."""
        raise NotImplementedError

    def match_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the matching head for a pair: states of so many tokens, and a caption of
        the whole context."""
        width = self.model.config.vision_config.hidden_size
        states = torch.zeros(1, tokens, width, device="meta")
        return self._count("match_tokens", states=states, ids=self._ids())

    def _ids(self) -> Tensor:
        return torch.zeros(1, self.context, dtype=torch.long, device="meta")

    def _count(self, method: str, **inputs: Tensor) -> int:
        return count_flops(meta_copy(_Part(self, method)), inputs).macs

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_image(images)


class Blip(ImageTextMatching):
    """transformers' `BlipForImageTextRetrieval` (Li et al., ICML 2022)."""

    context = 35  # as its authors evaluate

    def encode_states(self, states: Tensor) -> Tensor:
        return functional.normalize(self.model.vision_proj(states[:, 0]), dim=-1)

    def feature_macs(self, tokens: int) -> int:
        return int(self.model.vision_proj.weight.numel())

    def encode_tokens(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(self.model.text_proj(states[:, 0]), dim=-1)

    def match_tokens(self, states: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.match_classes(states, ids, mask)[:, 1]

    def match_classes(self, states: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `match_tokens`, logits [B, 2] of no and yes."""
        # Its authors begin a caption that looks at an image with [ENC], the last word of the vocabulary.
        ids[:, 0] = self.model.config.text_config.vocab_size - 1
        output = self.model.text_encoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=states)
        logits: Tensor = self.model.itm_head(output.last_hidden_state[:, 0])
        return logits


class Blip2(ImageTextMatching):
    """transformers' `Blip2ForImageTextRetrieval` (Li et al., ICML 2023)."""

    context = 32  # as its authors evaluate

    def encode_states(self, states: Tensor) -> Tensor:
        query = self.model.query_tokens.expand(len(states), -1, -1)
        queries = self.model.qformer(query_embeds=query, encoder_hidden_states=states).last_hidden_state
        return functional.normalize(self.model.vision_projection(queries), dim=-1)

    def feature_macs(self, tokens: int) -> int:
        # Q queries of width C attend to each other in every layer, and to the N states in some.
        config, (_, queries, width) = self.model.config.qformer_config, self.model.query_tokens.shape
        each = (
            4 * queries * width**2 + 2 * queries**2 * width + 2 * queries * width * config.intermediate_size
        )
        crossing = 2 * queries * width**2 + 2 * queries * tokens * width
        crossing += 2 * tokens * width * config.encoder_hidden_size  # keys and values
        crossings = -(-config.num_hidden_layers // config.cross_attention_frequency)
        projection = queries * self.model.vision_projection.weight.numel()
        return int(config.num_hidden_layers * each + crossings * crossing + projection)

    def encode_tokens(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        words = self.model.embeddings(input_ids=ids)
        output = self.model.qformer(query_embeds=words, query_length=0, attention_mask=mask)
        return functional.normalize(self.model.text_projection(output.last_hidden_state[:, 0]), dim=-1)

    def match_tokens(self, states: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        query = self.model.query_tokens.expand(len(states), -1, -1)
        n = query.shape[1]
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), n), mask], dim=1)
        output = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids, query_embeds=query),
            query_length=n,
            attention_mask=mask,
            encoder_hidden_states=states,
        ).last_hidden_state
        logits: Tensor = self.model.itm_head(output[:, :n]).mean(dim=1)[:, 1]
        return logits


class _Part(nn.Module):
    """A method of a model as a module of its own, to count what it costs."""

    def __init__(self, model: ImageTextMatching, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, **inputs: Tensor) -> Tensor:
        output: Tensor = getattr(self.model, self.method)(**inputs)
        return output


def build_blip(
    config: ModelConfig, weights: str = "pretrained", key: str | None = None
) -> Built[ImageTextMatching]:
    """Build the model of a BLIP file of conf/model, an `ImageTextMatching` in eval mode.

    key: of the file, see `load_checkpoint`.
    config: name, arch (`blip`, `blip-2`), args (transformers' settings), preprocess, checkpoint;
    weights: pretrained, random (drawn from torch's global generator) or a file with transformers'
    names. The words are those of uncased BERT: from the hub with weights of the hub, else from the
    package that models of texts use. Raises CheckpointError when weights or words are missing,
    damaged, unsafe or of other shapes, UsageError for an `arch` that cannot be built.
    """
    origin, digest = fetch_weights(find_weights(config.name, config.checkpoint, weights, config.task)), None
    model = build_model(config)
    if origin.path is not None:
        checkpoint = load_checkpoint(origin.path, model, key)
        load_into(model, checkpoint)
        digest = checkpoint.sha256
    if origin.source == "hub":
        repo, revision = WORDS_OF
        folder = fetch_folder(repo, "*.json", revision=revision, error=CheckpointError, otherwise=_ELSE)
    else:
        folder = fetch_minilm()
    kind = Blip if config.arch == "blip" else Blip2
    whole = kind(model, load_tokenizer(folder)).eval()
    return Built(whole, preprocess_of(whole, config.preprocess), origin, digest)


def build_model(config: ModelConfig) -> nn.Module:
    """transformers' model of a configuration, with random weights, in training mode. Raises UsageError."""
    import transformers

    arch, args = config.arch, config.args
    model: nn.Module
    if arch == "blip":
        settings: Any = transformers.BlipConfig(**args)
        model = transformers.BlipForImageTextRetrieval(settings)
    elif arch == "blip-2":
        model = transformers.Blip2ForImageTextRetrieval(transformers.Blip2Config(**args))
    else:
        raise UsageError(f"model.arch={arch} is not known; {nearest(arch, BLIP_ARCHS)}")
    return model
