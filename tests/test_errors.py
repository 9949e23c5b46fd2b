"""What is shown of passwords and keys: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitome.errors import PitomeError, UsageError, one_line, redact
from pitome.sources.hub import say

HIDDEN = "quite-secret"
SECRETS = [
    f"https://me:{HIDDEN}@host/simple",
    f"https://{HIDDEN}@host/simple",
    f"weights=https:/me:{HIDDEN}@host/simple: no such file",
    f"cannot reach http://me:p@{HIDDEN}@proxy:8080: refused",
    f"git+ssh://me:{HIDDEN}@host/x.git and socks5h://a:{HIDDEN}@b",
    f"https://host/a?token={HIDDEN}&x=1",
    f"https://host/a?x=1&access_token={HIDDEN}",
    f"https://host/a?X-Amz-Signature={HIDDEN}&X-Amz-Credential={HIDDEN}",
    f"https://host/a?api_key={HIDDEN}#part",
    f"https://host/a?apikey={HIDDEN};password={HIDDEN}",
    f"WANDB_API_KEY={HIDDEN} python run.py",
    f"HF_TOKEN: {HIDDEN}",
    f"export HUGGING_FACE_HUB_TOKEN={HIDDEN}",
    f"{{'Authorization': 'Bearer {HIDDEN}'}}",
    f"authorization: basic {HIDDEN}",
    "hf_" + 2 * HIDDEN.replace("-", ""),
    "ghp_" + 2 * HIDDEN.replace("-", ""),
]
PLAIN = [
    "weights=hub:owner/name@0123abc",
    "https://medium.com/@somebody/post",
    "https://arxiv.org/abs/2405.16148?x=1&y=2",
    "weights_key=model_ema tokens=5 author=me",
    "merge.options.metric=keys data.root=/data/a@b:c",
    "git@github.com:owner/name.git",
    "basic block, token merging: 12 tokens",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    shown = [redact(text), one_line(ValueError(text)), str(UsageError(text)), capsys.readouterr().err]
    for line in shown:
        assert HIDDEN not in line and HIDDEN.replace("-", "") not in line and "***" in line


@pytest.mark.parametrize("text", PLAIN)
def test_everything_else_stays(text: str) -> None:
    assert redact(text) == text == str(PitomeError(text))


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "GOOGLE_APPLICATION_CREDENTIALS", "TLS_KEY"])
def test_paths_in_the_environment_are_no_secrets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    assert redact(f"{tmp_path}/results: no such folder") == f"{tmp_path}/results: no such folder"


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "PIP_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, HIDDEN)
        assert redact(f"401 for {HIDDEN}") == "401 for ***"
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN", "short")
    monkeypatch.setenv("HOME_OF_DATA", HIDDEN)
    assert redact(f"short {HIDDEN}") == f"short {HIDDEN}"
