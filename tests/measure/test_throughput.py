"""Who runs when, and what is made of the times; no test asserts on a real time."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import pitome
from pitome.errors import UsageError
from pitome.measure import throughput as module
from pitome.measure.throughput import LEAST_PAIRS, alternate, median_interval, throughput
from pitome.records.schema import Throughput
from tests.adapters.tiny import images, vit


def sides(cost_a=1.0, cost_b=2.0):
    """Two callables that note their calls, and a timer that reads their costs."""
    calls = []
    costs = {"a": cost_a, "b": cost_b}

    def timer(call):
        call()
        return costs[calls[-1]]

    return (lambda: calls.append("a")), (lambda: calls.append("b")), timer, calls


def test_both_run_in_every_pair_and_take_turns_in_going_first():
    first, second, timer, calls = sides()
    a, b = alternate(first, second, pairs=4, timer=timer)
    assert "".join(calls) == "abbaabba"
    assert a.tolist() == [1.0] * 4 and b.tolist() == [2.0] * 4


def test_a_drifting_machine_does_not_favour_a_side():
    """Every call takes a little longer than the last; the two are equally fast otherwise."""
    clock = itertools.count(100)
    a, b = alternate(lambda: None, lambda: None, pairs=20, timer=lambda call: float(next(clock)))
    assert a.sum() == b.sum()
    low, high = median_interval(b / a)
    assert low < 1 < high


def test_a_budget_of_time_ends_the_timing_after_a_whole_pair():
    first, second, timer, calls = sides()
    a, b = alternate(first, second, pairs=100, seconds=25, timer=timer)
    assert len(a) == len(b) == 9  # 3 s a pair: 24 s after eight, 27 s after nine
    assert len(calls) == 18


def test_a_small_budget_still_gives_pairs_enough_for_an_interval():
    first, second, timer, _ = sides()
    assert len(alternate(first, second, pairs=100, seconds=0.0, timer=timer)[0]) == LEAST_PAIRS


def test_the_number_of_pairs_ends_the_timing_before_the_budget():
    first, second, timer, _ = sides()
    assert len(alternate(first, second, pairs=7, seconds=1e9, timer=timer)[0]) == 7


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (25, 8), (100, 40)])
def test_interval_of_the_median_has_the_tabulated_ranks(n, rank):
    """Ranks of the two-sided 95 % interval of the median from binomial tables."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert median_interval(values) == (rank, n + 1 - rank)


@pytest.mark.parametrize("n", [6, 13, 20, 50])
def test_interval_covers_the_median_at_least_as_often_as_it_says(n):
    draws = np.random.default_rng(1).lognormal(size=(2000, n))  # median 1, far from symmetric
    covered = sum(low <= 1 <= high for low, high in map(median_interval, draws)) / len(draws)
    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / len(draws))
    assert covered < 1


def test_interval_ignores_an_outlier():
    values = np.full(20, 1.5)
    values[3] = 40.0
    assert median_interval(values) == (1.5, 1.5)


def patched(method="tome", **settings):
    model = vit()
    pitome.patch(model, method, **(settings or {"ratio": 0.6}))
    return model


@pytest.fixture
def costs(monkeypatch):
    """Make the unmerged model take 3 s a batch and the merged one 2 s."""
    seen = []

    def timer(call):
        call()
        return 2.0 if seen[-1] else 3.0

    forward = torch.nn.Module.__call__

    def watch(model, *args, **kwargs):
        if isinstance(model, VisionTransformer):
            seen.append(pitome.patched(model) is not None)
        return forward(model, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", watch)
    monkeypatch.setattr(module, "_timer", lambda device: timer)
    return seen


def test_throughput_compares_the_merged_model_with_its_unmerged_copy(costs):
    model = patched()
    timing = throughput(model, images(model, batch=6), pairs=6, warmup=2, progress=False)
    assert (timing.images_per_s, timing.images_per_s_unmerged) == (3.0, 2.0)
    assert (timing.speedup_low, timing.speedup, timing.speedup_high) == (1.5, 1.5, 1.5)
    assert (timing.pairs, timing.batch, timing.device, timing.dtype) == (6, 6, "cpu", "float32")
    assert timing.threads == torch.get_num_threads()
    assert timing.peak_memory > 2**20 and timing.peak_memory_unmerged is None
    assert costs == [True] * 2 + [False] * 2 + [True, False, False, True] * 3


def test_throughput_against_a_given_model(costs):
    model, other = patched(), vit(depth=1)
    calls = []
    other.register_forward_hook(lambda *args: calls.append(1))
    throughput(model, images(model), unmerged=other, pairs=6, warmup=1, progress=False)
    assert len(calls) == 7


def test_throughput_under_autocast_and_in_the_type_of_the_weights(costs):
    model = patched()
    kinds = []
    model.head.register_forward_hook(lambda module, args, out: kinds.append(out.dtype))
    for precision in ("bf16-mixed", "32"):
        timing = throughput(model, images(model), pairs=6, warmup=0, precision=precision, progress=False)
        assert timing.dtype == str(kinds[-1]).removeprefix("torch.")
    assert set(kinds) == {torch.bfloat16, torch.float32}
    timing = throughput(model.double(), images(model), pairs=6, warmup=0, progress=False)
    assert timing.dtype == "float64"


def test_throughput_leaves_mode_gradients_and_patch_alone():
    model = patched().train()
    handle = pitome.patched(model)
    throughput(model, images(model, batch=1), pairs=6, warmup=0, progress=False)
    assert model.training and torch.is_grad_enabled() and pitome.patched(model) is handle


def test_throughput_of_a_model_without_a_patch():
    with pytest.raises(UsageError, match="is not patched"):
        throughput(vit(), images(vit()))


def test_too_few_pairs_for_an_interval():
    with pytest.raises(UsageError, match="pairs=5 is too few"):
        throughput(patched(), images(vit()), pairs=5)


def test_timing_holds_what_a_record_keeps():
    kept = {field.name for field in dataclasses.fields(Throughput)}
    kept -= {"tokens_per_s", "tokens_per_s_unmerged"}  # what the text task makes of them
    kept -= {
        f"{name}{end}"
        for name in ("first_token_s", "decode_tokens_per_s", "encoder_s", "prefill_s", "method_s")
        for end in ("", "_unmerged")
    }  # vqa
    assert kept <= {field.name for field in dataclasses.fields(module.Timing)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_throughput_on_cuda_counts_the_memory_of_both_sides():
    model = patched().cuda()
    timing = throughput(model, images(model, batch=64).cuda(), pairs=6, progress=False)
    assert timing.device == torch.cuda.get_device_name()
    assert timing.peak_memory_unmerged is not None
    assert 0 < timing.peak_memory < 2**30 and 0 < timing.peak_memory_unmerged < 2**30


def test_public_name():
    assert pitome.throughput is throughput
