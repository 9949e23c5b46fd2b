"""The class that lmms-eval's registry loads; importing it needs lmms-eval."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm

from pitome.cli.lmms import NAME, chunks, cut, options_of
from pitome.cli.lmms_answers import Answerer
from pitome.errors import UsageError


class PitomeLlava(lmms):  # type: ignore[misc]  # lmms-eval is installed elsewhere
    """`--model pitome_llava --model_args model=llava_7b,merge=pitome,ratio=0.9`: keys and values as on
    run.py's command line, without commas."""

    is_simple = True

    def __init__(self, batch_size: int | str = 1, device: str | None = None, **settings: Any) -> None:
        super().__init__()
        settings.pop("max_batch_size", None)
        self.batch_size = int(batch_size)
        self.answerer = Answerer({"device": device} | settings)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers, in the order of the requests."""
        out: list[str] = []
        bar = tqdm(total=len(requests), desc=NAME)
        for _, group in itertools.groupby(requests, key=lambda request: repr(request.args[1])):
            for chunk in chunks(list(group), self.batch_size):
                tokens, until = options_of(chunk[0].args[1])
                asked = [self._asked(request.args) for request in chunk]
                answers = [cut(text, until) for text in self.answerer.answer(asked, tokens)]
                for request, answer in zip(chunk, answers, strict=True):
                    self.cache_hook.add_partial("generate_until", request.args[:2], answer)
                out += answers
                bar.update(len(chunk))
        bar.close()
        return out

    def _asked(self, arguments: tuple[Any, ...]) -> tuple[str, list[Any]]:
        context, _, visuals_of, document, task, split = arguments
        return context, list(visuals_of(self.task_dict[task][split][document]) or [])

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise UsageError(f"{NAME} generates answers; tasks that compare likelihoods are not for it")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise UsageError(f"{NAME} answers one question at a time; tasks of several rounds are not for it")
