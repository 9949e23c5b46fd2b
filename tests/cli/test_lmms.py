"""What lmms-eval's plugin does, without lmms-eval, and its class where lmms-eval is installed."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pitome.cli.lmms import NAME, chunks, cut, options_of, register
from pitome.errors import UsageError
from tests import ROOT


def test_a_tasks_generation_settings():
    assert options_of({"max_new_tokens": 16, "temperature": 0, "num_beams": 1, "do_sample": False}) == (
        16,
        [],
    )
    assert options_of({"until": "ASSISTANT:"}) == (128, ["ASSISTANT:"])
    assert options_of({"until": ["\n\n"], "temperature": None}) == (128, ["\n\n"])
    for asked in ({"temperature": 0.7}, {"num_beams": 3}, {"do_sample": True}):
        with pytest.raises(UsageError, match="answers greedily"):
            options_of(asked)


def test_an_answer_ends_at_the_first_of_the_words():
    assert cut(" a dog\n\nUSER: and", ["\n\n", "USER"]) == "a dog"
    assert cut("\n\na dog ", ["\n\n"]) == "a dog" and cut("a dog", [""]) == "a dog"


def test_chunks():
    assert chunks([1, 2, 3], 2) == [[1, 2], [3]] and chunks([], 2) == []


def test_without_lmms_eval_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[experiments,lmms\]'") as error:
        register()
    assert "\n" not in str(error.value)


def test_the_command_without_lmms_eval(tmp_path):
    (tmp_path / "lmms_eval.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "lmms.py", "--tasks", "gqa"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: lmms-eval >= 0.7 is needed") and done.stderr.count("\n") == 1


def answerer(**settings):
    from pitome.cli.lmms_answers import Answerer

    return Answerer({"model": "llava_easyvqa", "weights": "random", "device": "cpu", **settings})


def test_prompts_with_any_number_of_images():
    from pitome.cli.lmms_answers import with_images

    assert with_images("USER: <image>\nwhat? ASSISTANT:", 2) == "USER: <image> <image>\nwhat? ASSISTANT:"
    assert with_images("USER: <image>\nwhat? ASSISTANT:", 0) == "USER: what? ASSISTANT:"


def test_a_patched_model_answers_a_batch():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    first, second = map(Image.fromarray, pixels)  # no two tokens alike, whose order rounding would decide
    asked = [("what color is the shape?", [first]), ("is there a circle?", [first, second])]
    merged, plain = answerer(merge="pitome", ratio=0.9), answerer(merge="none")
    assert merged.patched is not None and plain.patched is None
    assert merged.model.image_rows < plain.model.image_rows
    answers = merged.answer(asked, 3)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    one = [merged.answer([question], 3)[0] for question in asked]
    assert one == answers, "whatever the batch"


def test_what_does_not_fit_is_one_line():
    for settings, says in [
        ({"model": "llava_8b"}, "llava_7b"),
        ({"merge": "pitone"}, "did you mean"),
        ({"precision": "bf16-mixed"}, "precision=bf16-mixed is for run.py"),
        ({"ratio": 2}, "ratio"),
    ]:
        with pytest.raises(UsageError, match=says) as error:
            answerer(**settings)
        assert "\n" not in str(error.value)


def test_the_class_in_lmms_eval():
    pytest.importorskip("lmms_eval")
    register()
    from lmms_eval.models import get_model

    kind = get_model(NAME)
    model = kind.create_from_arg_string(
        "model=llava_easyvqa,weights=random,merge=pitome,ratio=0.9", {"batch_size": 2, "device": "cpu"}
    )
    model.task_dict = {"task": {"test": [{"image": Image.new("RGB", (64, 64), c)} for c in ("red", "blue")]}}
    asked = [
        SimpleNamespace(args=(text, {"max_new_tokens": 2}, lambda doc: [doc["image"]], at, "task", "test"))
        for at, text in enumerate(["what color is the shape?", "is there a circle?"])
    ]
    answers = model.generate_until(asked)
    direct = answerer(merge="pitome", ratio=0.9).answer
    assert answers == [
        direct([(request.args[0], [model.task_dict["task"]["test"][at]["image"]])], 2)[0]
        for at, request in enumerate(asked)
    ]
