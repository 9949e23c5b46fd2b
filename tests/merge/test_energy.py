"""The energy by blocks is the energy of the whole matrix."""

from __future__ import annotations

import math

import pytest
import torch

from pitome.merge import registry
from pitome.merge.energy import SMALLEST, Similarity, energy
from pitome.merge.fast_path import reference_path
from pitome.merge.methods.pitome import PitomeOptions
from pitome.merge.plan import cosine
from tests.merge.support import make_tokens


@pytest.mark.parametrize("tokens", [1, 2, SMALLEST, SMALLEST + 1, 197, 700])
@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("kind", ["paper", "elu", "gaussian"])
def test_blocks_and_matrix_agree(kind: str, batch: int, tokens: int) -> None:
    # Clusters, so that there are cosines on both sides of the margin.
    metric = torch.randn(batch, tokens // 4 + 1, 16, dtype=torch.float64).repeat_interleave(4, 1)[:, :tokens]
    unit = cosine(metric + 0.3 * torch.randn_like(metric))
    similarity = Similarity(unit)
    assert similarity.matrix is None
    with reference_path():
        whole = Similarity(unit)
    assert whole.matrix is not None
    want = energy(whole.matrix, kind, 0.6, 0.7)
    torch.testing.assert_close(similarity.energy(kind, 0.6, 0.7), want)
    torch.testing.assert_close(whole.energy(kind, 0.6, 0.7), want)
    a, b = torch.arange(tokens).flip(0).expand(batch, -1)[:, ::2], torch.arange(tokens).expand(batch, -1)
    torch.testing.assert_close(similarity.between(a, b), whole.between(a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cosine_at_the_margin_is_above_it(dtype: torch.dtype) -> None:
    """Eq. 4 jumps there, so the last bit counts: on either way and in either type."""
    unit = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]], dtype=dtype)
    margin = float((unit[0, 0] * unit[0, 1]).sum())
    at = (1 + margin) / 2
    for beside, want in ((margin, at), (margin + 1e-6, (1 + math.expm1(-1e-6)) / 2)):
        similarity = Similarity(unit)
        with reference_path():
            plain = Similarity(unit).energy("paper", beside, 1.0)
        torch.testing.assert_close(plain, torch.full_like(plain, want))
        torch.testing.assert_close(similarity.energy("paper", beside, 1.0), plain)


@pytest.mark.parametrize("protect", ["all", "none"])
def test_both_ways_make_the_same_plan(protect: str) -> None:
    tokens = make_tokens(300)
    options = PitomeOptions(protect=protect)  # type: ignore[arg-type]
    plan = registry.get("pitome").plan
    ours = plan(tokens, 40, options)
    with reference_path():
        theirs = plan(tokens, 40, options)
    assert torch.equal(ours.kept, theirs.kept)
    assert torch.equal(ours.source, theirs.source) and torch.equal(ours.target, theirs.target)
