"""A grammar of command lines, right and wrong ones, for Hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from hypothesis import strategies as st

from pitome.config import GROUPS, Config, PreprocessConfig, choices, defaults
from pitome.fields import parts, types_of
from pitome.paper.experiments import experiment_names

Line = tuple[str, list[str]]
"""A command and its words."""

_LONG = "n" * 3000


def _dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _keys() -> list[str]:
    """Every key of conf/, nested ones with dots."""
    out = {*types_of(Config), *_dotted(defaults(Config))}
    for part, kind in types_of(Config).items():
        out |= {f"{part}.{key}" for key in getattr(kind, "__dataclass_fields__", ())}
    out |= {f"model.preprocess.{key}" for key in types_of(PreprocessConfig)}
    out |= {f"model.args.{key}" for key in ("depth", "embed_dim", "patch_size", "num_heads", "nonsense")}
    out |= {f"merge.options.{key}" for key in ("alpha", "margin", "prop_attn", "schedule_file", "nonsense")}
    return sorted(out)


KEYS = _keys()
HYDRA = [
    "hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name", "hydra.job.chdir",
    "hydra.job.num", "hydra.job.id", "hydra.job.env_set.X", "hydra.job.override_dirname", "hydra.verbose",
    "hydra.sweeper", "hydra.sweeper.params", "hydra.sweeper.params.ratio", "hydra.sweeper.max_batch_size",
    "hydra.sweeper._target_", "hydra.launcher", "hydra.launcher._target_", "hydra.launcher.n_jobs",
    "hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/hydra_logging", "hydra/output",
    "hydra/help", "hydra/env", "hydra.mode", "hydra.output_subdir", "hydra.searchpath", "hydra.runtime.cwd",
    "hydra.job_logging", "hydra.hydra_logging.root.level", "hydra.callbacks", "hydra.callbacks.x._target_",
    "hydra.help.template", "hydra.nonsense", "hydra.overrides.task", "hydra.env",
    "hydra.job.config.override_dirname.kv_sep",
]  # fmt: skip
_JUNK = [
    "rato", "", "=", ".", "..", "a..b", ".ratio", "ratio.", "ratio.x", "model@x", "model@_global_", "a b",
    "merge@merge.options", "experiment", "schema", "defaults", "_self_", "_target_", "model/sub", "/model",
    "conf", "größe", "模型", "a-b", "a[0]", "a:b", "model.args[depth]", "trainer.stages.0.lr", "$x",
    "${model}", "trainer.stages[0].lr", "~", "+", "++", "'ratio'", '"ratio"', "ratio\n", "r\tb", "r\udcff",
    _LONG, "*", "?", "model.*",
]  # fmt: skip
_VALUES = [
    # words and numbers
    "", "null", "None", "~", "true", "false", "TRUE", "yes", "no", "on", "0", "1", "-1", "16", "0.9", "0.925",
    "1.0", "1.5", "-0.0", "1e-400", "1e400", "inf", "-inf", "nan", "1_000", "0x10", "0o7", "1e5", "10000000",
    "9" * 26, "9" * 299, "9" * 400, "9" * 5000, "-" + "9" * 400, "abc", "größe", "模型", "\u202e", "\udcff",
    "1:3", "first3", "last3", "every2", "every0", "first-1", "first" + "9" * 40,
    # quotes, lists, mappings
    "a b", "'a b'", '"a"', "'",
    '"', "\\", "\\'", "'a", "a'b", "{", "}", "[", "]", "(", ")", "[]", "{}", "[[]]",
    "{a:1}", "{a:{b:[1]}}", "{a:1,a:2}", "{1:2}", "{null:1}", "{x:[1]}", "{[1]:2}", "{a}", "[1,2]", "[1,[2]]",
    "[null]", "[true]", "[a,b]", "[0.9,0.8]", "[1,]", "[,]",
    # interpolations
    "${ratio}", "${model.name}", "${model}", "${nonsense}", "${now:%Y}", "${oc.env:HOME}",
    "${oc.env:NOTTHERE}",
    "${oc.decode:1}", "${", "${}", "$${x}", "???", "${data.root}", "${hydra.job.name}", "${hydra:job.name}",
    "${r}", "${.name}", "${..ratio}", "${oc.create:{a:1}}", "${oc.dict.keys:model}",
    # functions of Hydra's grammar, sweeps among them
    "int(1)", "float(a)", "str(1)", "bool(x)", "json_str([1])", "int(9e9)", "glob(*)", "glob([a*],exclude=b)",
    "glob(**)", "glob()", "sort(1,2)", "shuffle(1,2)", "tag(a,1)", "extend_list(a)", "extend_list(1,2)",
    "choice(a,b)", "choice()", "interval(0,1)", "interval(1,0)", "interval(0,inf)", "sort(1,a)", "range(1,3)",
    "range(3)", "range(1,10,0)", "range(0,10,0.0)", "range(0,inf)", "range(0,1e12)", "range(0,1000000000000)",
    "range(0,10,1e-9)", "range(nan,1)", "range(0,1,inf)", "range(-inf,0)", "range(a,b)", "range(0,0)",
    "range(1,0)", "range(1,3),", "sort(range(0,100000000))", "shuffle(range(0,1e11))", "range(0,1,-1)",
    "sort(range(0,inf))", "sort(3,2,1,reverse=true)", "tag(range(0,1e10))", "int(range(1,3))",
    "range(0,9e15)", "range(0,3,1.5)", "a,b", "1,2", "1,2,", ",", ",1", "null,1", "0.9,0.8", "[1],[2]",
    "{a:1},{b:2}", "none,pitome", "'a,b'", ",".join(map(str, range(1, 40))),
    # paths and addresses: none that would be made outside the current directory
    _LONG, _LONG + ".pth", "/".join("abc" * 30), "no/such", ".", "..", "~/x", "~nobody/x", "/dev/null",
    "fifo",
    "/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/shadow", "hub:a/b", "hub:a/b@c", "file:///x",
    "http://[",
    "http://x:y", "https://user:pw@host/x.pth", "a\nb", "a\tb", "a\rb", "*", "?", "[a-z]*", "a#b", "a;b",
    "a|b", "$HOME", "`id`", "$(id)", "%s", "%(name)s", "{0}", "\\n", "\x1b[31mred",
]  # fmt: skip
_FITTING = [
    "null", "true", "false", "1", "2", "16", "0.9", "[1]", "[0.9]", "[a]", "[]", "{}", "random", "pretrained",
    "auto", "none", "a,b", "1,2", "0.9,0.8", "true,false", "range(1,3)", "choice(1,2)",
]  # fmt: skip
_FLAGS = [
    ["-m"], ["--multirun"], ["-m", "-m"], ["--multirun=true"], ["-s"], ["-mx"], ["--"], ["-"], ["---"],
    ["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "all"], ["--cfg"], ["--cfg=job"], ["--cfg", "nonsense"],
    ["-c", "job"], ["-cjob"], ["--cfg", "job", "--resolve"], ["--resolve"], ["--cfg", "job", "-p", "model"],
    ["--cfg", "job", "--package", "nonsense"], ["-p", "x"], ["-p"], ["--package"], ["--info"], ["-i"],
    ["--info", "all"], ["--info", "defaults"], ["--info", "defaults-tree"], ["--info", "plugins"],
    ["--info", "searchpath"], ["--info", "config"], ["--info", "nonsense"], ["-i", "all"],
    ["--config-dir", "x"], ["--config-dir=x"], ["-cd", "x"], ["--config-path", "x"], ["-cp", "x"],
    ["--config-name", "x"], ["-cn", "x"], ["--run"], ["-r"], ["--version"], ["--shell-completion"],
    ["-sc", "install=bash"], ["--hydra-help"], ["--experimental-rerun", "x"], ["--help"], ["-h"], ["--halp"],
    ["--" + _LONG], ["--cfg", "job", "--cfg", "hydra"], ["--cfg", "job", "--info"],
]  # fmt: skip
_RUNNING = [
    [], ["logger=none", "weights=random"], ["-m", "merge=none,tome", "ratio=0.9,0.8"], ["mode=train"],
    ["-m", "experiment=table5_offline"], ["-m", "experiment=table5_offline,table6"], ["task.head=knn"],
    ["task=text", "model=minilm", "data=rotten_tomatoes"], ["-m", "seed=range(0,5)"], ["-m",
    "merge=glob(t*)"],
    ["task=text", "model=bert_base", "data=sst2", "weights=random"], ["merge=diffrate", "flops=0.7"],
    ["task=retrieval", "model=clip_scenes", "data=scenes"], ["merge=tome", "r=8", "inflection=-1"],
    ["task=vqa", "model=llava_easyvqa", "data=easy_vqa"], ["mode=train", "merge=tome",
    "trainer=fashion_mnist"],
    ["control=resize", "measure=full"], ["model=deit_s", "weights=random", "source=local", "data=imagenet"],
]  # fmt: skip
"""Lines of run.py that run."""
_OWN = ["image", "out", "after", "max_pixels", "merge", "ratio", "weights", "model"]
_REPORTS = [
    "status", "offline", "page", "plan", "seal", "table5", "table5_offline", "results=", "results=none", ".",
    "./x", "--x",
]  # fmt: skip
_OPTIONS = [
    "--parts", "--models", "--methods", "--ratio", "--batch", "--device", "--dtype", "--minutes", "--pairs",
    "--reference", "--quick", "--results", "--nonsense", "-x", "-h",
]  # fmt: skip
_MEASURED = ["speed", "export", "deit_small_patch16_224", "pitome", "none", "cpu", "cuda:0", "float16"]


def _fitting(key: str) -> list[str]:
    """Values that a key may take: those that its type names, and simple ones."""
    kind, name = Config, key
    if "." in key:
        part, _, name = key.partition(".")
        kind = types_of(Config)[part]
    hint = types_of(kind).get(name) if hasattr(kind, "__dataclass_fields__") else None
    words = [str(word) for choice in parts(hint) for word in get_args(choice) if isinstance(word, str | int)]
    return [*words, *words, *_FITTING]


def _nested() -> st.SearchStrategy[str]:
    """Lists, mappings, functions and sweeps of values, free text among them."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
    leaves = st.sampled_from(_VALUES) | text | st.floats().map(str) | st.integers().map(str)
    keys = st.sampled_from(["a", "name", "size", "1", "null", "_target_", "epochs", ""])
    functions = [
        "sort",
        "range",
        "choice",
        "glob",
        "int",
        "shuffle",
        "tag",
        "interval",
        "json_str",
        "nonsense",
    ]

    def around(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        several = st.lists(inner, max_size=3)
        pairs = st.lists(st.tuples(keys, inner).map(":".join), max_size=3)
        calls = st.tuples(st.sampled_from(functions), several)
        return (
            several.map(lambda items: f"[{','.join(items)}]")
            | pairs.map(lambda items: "{" + ",".join(items) + "}")
            | calls.map(lambda call: f"{call[0]}({','.join(call[1])})")
            | st.lists(inner, min_size=2, max_size=3).map(",".join)
        )

    return st.recursive(leaves, around, max_leaves=5)


@st.composite
def _override(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 19))
    if kind < 6:
        key = draw(st.sampled_from(GROUPS))
        names = experiment_names(skip_broken=True) if key == "experiment" else choices(key)
        several = draw(st.sampled_from([1, 1, 1, 3]))
        value = ",".join(draw(st.lists(st.sampled_from(names), min_size=1, max_size=several)))
        value = draw(st.sampled_from([value] * 9 + ["?"])).replace("?", draw(st.sampled_from(_VALUES)))
    elif kind < 11:
        key = draw(st.sampled_from(KEYS))
        value = draw(st.sampled_from(_fitting(key)))
    elif kind < 18:
        key = draw(st.sampled_from(KEYS if kind < 14 else HYDRA if kind < 17 else _JUNK))
        value = draw(st.sampled_from(_VALUES))
    else:
        key, value = draw(st.sampled_from([*KEYS, *HYDRA])), draw(_nested())
    sign = draw(st.sampled_from([""] * 12 + ["+", "++", "~", "~~", "+++", "+~"]))
    equals = draw(st.sampled_from(["="] * 20 + ["", "==", " = ", ":="]))
    return sign + key + (equals + value if equals else "")


@st.composite
def _run(draw: st.DrawFn) -> list[str]:
    if draw(st.booleans()):
        return [*draw(st.sampled_from(_RUNNING)), *draw(st.lists(_override(), min_size=1, max_size=2))]
    words = draw(st.lists(_override(), max_size=4))
    flags = draw(st.sampled_from([[]] * 60 + [["-m"]] * 60 + _FLAGS))
    place = draw(st.integers(0, len(words)))
    return [*words[:place], *flags, *words[place:]]


def _show_tokens() -> st.SearchStrategy[list[str]]:
    own = st.tuples(st.sampled_from(_OWN), st.sampled_from(_VALUES)).map("=".join)
    return st.lists(own | _override(), min_size=1, max_size=4)


def _report() -> st.SearchStrategy[list[str]]:
    value = st.sampled_from(_VALUES)
    return st.lists(
        st.sampled_from(_REPORTS) | value | value.map("results={}".format) | _override(), max_size=3
    )


def _bench() -> st.SearchStrategy[list[str]]:
    option, value = st.sampled_from(_OPTIONS), st.sampled_from([*_MEASURED, *_VALUES])
    pair = st.tuples(option, value)
    words = pair.map(list) | option.map(lambda word: [word]) | pair.map(lambda two: ["=".join(two)])
    return st.lists(words, max_size=4).map(lambda lists: [word for words in lists for word in words])


def lines() -> st.SearchStrategy[Line]:
    """Command lines, three of four of run.py."""
    others = {"report": _report(), "show_tokens": _show_tokens(), "bench": _bench()}
    commands = ["run"] * 9 + list(others)
    return st.sampled_from(commands).flatmap(lambda name: st.tuples(st.just(name), others.get(name, _run())))
