"""Recipes are checked before anything is read, and what is wrong with one is told by line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datapruner.errors import InputError, UsageError
from datapruner.request.config import RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.keep import Keep
from datapruner.runs import recipes
from datapruner.schemas.runs import RunRequest

GOOD = """\
data: rows.jsonl
mapping: {prompt: q, response: a}
measuring:
  model: models/tiny
  max_length: 128
seed: 7
dedup: {threshold: 0.8}
contamination:
  against: {bench: bench.jsonl, other: org/name}
methods:
  - ppl
  - name: donod
combine:
  ppl: {direction: low}
  donod.nod: {direction: high, weight: 1e-1}
coverage: {bins: 10, hard_prune: 0}
keep: 25%
rewrite:
  method: asap
  options: {max_token_ratio: 0.5}
export:
  subset: out.parquet
  plain: out.jsonl
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a recipe lies, with the files that it names."""
    for name in ("rows.jsonl", "bench.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    return tmp_path


def read(folder: Path, text: str) -> recipes.Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return recipes.read(path)


def refusal(folder: Path, text: str) -> str:
    """What is said of a recipe, without the folder."""
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    assert caught.value.field == "recipe"
    return str(caught.value).replace(f"{folder}/", "")


def test_a_recipe_is_the_configuration_of_a_run(folder: Path) -> None:
    found = read(folder, GOOD)
    config = found.config
    assert (config.source, config.seed) == (str(folder / "rows.jsonl"), 7)
    assert config.mapping == {"prompt": "q", "response": "a"}
    assert config.dedup is not None
    assert config.dedup.model_dump() == {"threshold": 0.8, "shingle": 3, "part": "all"}
    assert [choice.name for choice in config.methods] == ["ppl", "donod"]
    assert config.combine is not None
    assert config.combine["donod.nod"].weight == 0.1
    assert config.keep == Keep(share=0.25)
    assert config.rewrite is not None
    assert config.rewrite.options == {"max_token_ratio": 0.5}
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_paths_begin_where_the_recipe_lies(folder: Path) -> None:
    found = read(folder, GOOD)
    assert found.data == str(folder / "rows.jsonl")
    assert found.config.measuring.model == str(folder / "models" / "tiny")
    assert found.config.contamination is not None
    against = {"bench": str(folder / "bench.jsonl"), "other": "org/name"}
    assert found.config.contamination.against == against
    assert found.export.files() == {"subset": folder / "out.parquet", "plain": folder / "out.jsonl"}


def test_what_is_not_given_is_not_in_the_configuration(folder: Path) -> None:
    plain = read(folder, "methods: [ppl]\nkeep: 0.5\n").config
    expected = {"source", "mapping", "measuring", "methods", "keep", "seed"}
    assert set(plain.model_dump()) == expected
    assert read(folder, "methods: [ppl]\n").config.keep is None


def test_what_to_evaluate_by_is_no_part_of_the_configuration(folder: Path) -> None:
    plain = "methods: [ppl]\nkeep: 0.5\n"
    found = read(
        folder,
        plain + "evaluate: {held_out: {own: bench.jsonl, other: org/name}, model: models/tiny, seeds: 5}\n",
    )
    assert found.evaluate == EvaluationSettings(
        held_out={"own": str(folder / "bench.jsonl"), "other": "org/name"},
        model=str(folder / "models/tiny"),
        seeds=5,
    )
    assert found.config == read(folder, plain).config
    asked = recipes.as_request(found.config, found.evaluate)
    assert recipes.of_recipe(asked, {}) == found.config
    assert recipes.evaluation_of(RunRequest(recipe=asked)) == found.evaluate
    for request in (RunRequest(recipe=plain), RunRequest(method="ppl")):
        assert recipes.evaluation_of(request) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: [ppl]\nevaluate: {held_out: {a: b}}\n", ":2:11: evaluate: a run that selected nothing"),
        ("methods: [ppl]\nkeep: 0.5\nevaluate: {}\n", ":3:11: evaluate.held_out: this is missing"),
        (
            "methods: [ppl]\nkeep: 0.5\nevaluate: {held_out: {a: b}, second: 2}\n",
            ":3:30: evaluate.second: there is no such setting (did you mean seconds? known: held_out,",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_told_with_its_line(folder: Path, text: str, said: str) -> None:
    assert said in refusal(folder, text)


def test_a_recipe_that_rewrites_can_be_evaluated(folder: Path) -> None:
    assert read(folder, "rewrite: {method: dap}\nevaluate: {held_out: {a: b}}\n").evaluate is not None


def test_a_recipe_that_rewrites_needs_no_methods(folder: Path) -> None:
    config = read(folder, "dedup: {}\nrewrite: {method: dap}\n").config
    assert (config.methods, config.keep, config.has_subset) == ([], None, True)
    assert recipes.of_recipe(recipes.as_request(config), {}) == config.model_copy(update={"source": None})


@pytest.mark.parametrize(
    ("given", "keep"),
    [
        ("300", Keep(count=300)),
        ("0.5", Keep(share=0.5)),
        ("12.5%", Keep(share=0.125)),
        ("1.0", Keep(share=1.0)),
        ("count=1", Keep(count=1)),
        ("{count: 1}", Keep(count=1)),
        ("{share: 1}", Keep(share=1.0)),
        ("{tokens: 9}", Keep(tokens=9)),
    ],
)
def test_how_much_to_keep_is_a_share_a_count_or_tokens(folder: Path, given: str, keep: Keep) -> None:
    assert read(folder, f"methods: [ppl]\nkeep: {given}\n").config.keep == keep


@pytest.mark.parametrize("spelling", ["method", "methods"])
@pytest.mark.parametrize("given", ["ppl", "[ppl]", "{name: ppl}", "[{name: ppl}]"])
def test_one_method_needs_no_list_and_either_spelling_does(folder: Path, spelling: str, given: str) -> None:
    config = read(folder, f"{spelling}: {given}\nkeep: 0.5\n").config
    assert config == read(folder, "methods: [ppl]\nkeep: 0.5\n").config


def test_a_preset_brings_its_options_and_share(folder: Path) -> None:
    config = read(folder, "methods:\n  - {name: qtuning, preset: paper-25x50}\n").config
    assert config.keep == Keep(share=0.25)
    assert config.methods[0].options == {
        "token_keep": 0.5,
        "scope": "batch",
        "batch_size": 8,
        "shuffle": True,
        "budget": "plane",
        "protect_end": False,
    }


METHODS = "methods: [ppl]\nkeep: 0.5\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "recipe.yaml: it is empty"),
        ("- ppl\n", "recipe.yaml: it is no mapping"),
        ("methods: [ppl\nkeep: 1\n", "recipe.yaml:2:5: not YAML: "),
        ("keep: 0.5\n", "recipe.yaml:1:1: methods: name one method or several, or what to `rewrite` by"),
        ("rewrite: {method: asap}\nkeep: 0.5\n", "recipe.yaml:2:7: keep: this takes scores: name a method"),
        (METHODS + "dedupe: {}\n", "recipe.yaml:3:1: dedupe: there is no such setting (did you mean dedup?"),
        (
            METHODS + "dedup:\n  treshold: 0.5\n",
            "recipe.yaml:4:3: dedup.treshold: there is no such setting (did you mean threshold?",
        ),
        (METHODS + "dedup: {threshold: 2}\n", "recipe.yaml:3:20: dedup.threshold: must be at most 1, not 2"),
        (
            METHODS + "dedup: true\n",
            "recipe.yaml:3:8: dedup: must be names with values, as in {name: value}, not True",
        ),
        (METHODS + "dedup:\n", "recipe.yaml:3:1: dedup: there is no value (write {} for its defaults"),
        (METHODS + "seed: -1\n", "recipe.yaml:3:7: seed: must be at least 0, not -1"),
        (METHODS + "seed: 1\nseed: 2\n", "recipe.yaml:4:1: seed: this stands in line 3 already"),
        (METHODS + "yes: 1\n", "recipe.yaml:3:1: yes: this name is read as something else than text"),
        ("methods: [magic]\nkeep: 0.5\n", "recipe.yaml:1:11: methods.0.name: unknown method 'magic'"),
        ("methods: [ppl, ppl]\nkeep: 0.5\n", "recipe.yaml:1:16: methods.1: method ppl comes twice"),
        (
            "methods:\n  - name: qtuning\n    options:\n      token_kep: 0.5\nkeep: 0.5\n",
            "recipe.yaml:4:18: methods.0.options.token_kep: method qtuning has no option 'token_kep'",
        ),
        (
            "methods:\n  - name: qtuning\n    options: {token_keep: 7}\nkeep: 0.5\n",
            "recipe.yaml:3:27: methods.0.options.token_keep: method qtuning: option token_keep is 7",
        ),
        (
            "methods:\n  - {name: qtuning, preset: magic}\n",
            "recipe.yaml:2:29: methods.0.preset: method qtuning has no preset 'magic'",
        ),
        ("methods: [ppl]\nkeep: lots\n", "recipe.yaml:2:7: keep: a share over 0 and at most 1, "),
        ("methods: [ppl]\nkeep: [1]\n", "recipe.yaml:2:7: keep: a share over 0 and at most 1, "),
        ("methods: [ppl]\nkeep: {share: 2}\n", "recipe.yaml:2:7: keep: a share over 0 and at most 1, "),
        ("methods: [ppl]\nkeep: {size: 2}\n", "recipe.yaml:2:7: keep: by name, one of share, count"),
        ("methods: [ppl]\nkeep: 1\n", "recipe.yaml:2:7: keep: 1 may mean one sample or all of them ("),
        ("methods: [ppl]\nkeep: '1'\n", "recipe.yaml:2:7: keep: 1 may mean one sample or all of them ("),
        ("method: ppl\nmethods: [ppl]\nkeep: 0.5\n", "recipe.yaml:1:1: method: this and methods are two"),
        ("method: magic\nkeep: 0.5\n", "recipe.yaml:1:9: methods.0.name: unknown method 'magic'"),
        (
            "method:\n  name: qtuning\n  options: {token_keep: 7}\nkeep: 0.5\n",
            "recipe.yaml:3:25: methods.0.options.token_keep: method qtuning: option token_keep is 7",
        ),
        ("method: [ppl, magic]\n", "recipe.yaml:1:15: methods.1.name: unknown method 'magic'"),
        ("methods: 3\nkeep: 0.5\n", "recipe.yaml:1:10: methods.0: must be names with values"),
        ("method: []\nkeep: 0.5\n", "recipe.yaml:1:9: methods: name one method or several"),
        ("methods: [ppl, length]\nkeep: 0.5\n", "recipe.yaml:1:10: methods: pruning takes exactly one"),
        ("methods: [ppl]\ndedup: {}\n", "recipe.yaml:2:8: dedup: this is for runs that prune"),
        (
            METHODS + "combine:\n  don: {direction: low}\n",
            "recipe.yaml:4:8: combine.don: don is no score",
        ),
        (
            METHODS + "combine:\n  ppl: {direction: up}\n",
            "recipe.yaml:4:20: combine.ppl.direction: must be 'high' or",
        ),
        (METHODS + "combine:\n  ppl: {}\n", "recipe.yaml:4:8: combine.ppl.direction: this is missing"),
        (
            METHODS + "combine:\n  ppl: {direction: low, weight: .nan}\n",
            "recipe.yaml:4:33: combine.ppl.weight: ",
        ),
        (METHODS + "rewrite: {method: magic}\n", "recipe.yaml:3:19: rewrite.method: there is no method"),
        (
            METHODS + "rewrite:\n  method: asap\n  options: {max_tokens: 0}\n",
            "recipe.yaml:5:25: rewrite.options.max_tokens: asap, max_tokens: ",
        ),
        (
            METHODS + "rewrite: {method: asap, pattern: '(?P<x>.*)'}\n",
            "recipe.yaml:3:34: rewrite.pattern: reasoning pattern '(?P<x>.*)' has no group named reasoning",
        ),
        (METHODS + "target: rows.jsonl\n", "recipe.yaml:3:9: target: no target is read by ppl"),
        ("methods: [rho]\nkeep: 0.5\n", "recipe.yaml:1:1: measuring.reference: method rho needs a reference"),
        (METHODS + "export: {subset: out.xlsx}\n", "recipe.yaml:3:18: export.subset: out.xlsx: cannot write"),
        (
            METHODS + "export: {plain: no/out.jsonl}\n",
            "recipe.yaml:3:17: export.plain: no/out.jsonl: the fol",
        ),
        (
            METHODS + "export: {subset: a.parquet, plain: a.parquet}\n",
            "recipe.yaml:3:36: export.plain: another of the files has this name",
        ),
        (METHODS + "seed: &x 1\n", "recipe.yaml:3:7: there is an anchor in it"),
        (METHODS + "seed: *x\n", "recipe.yaml:3:7: there is an alias in it"),
        (METHODS + "seed: !!python/name:os.system x\n", "recipe.yaml:3:7: there is a tag in it"),
        ("methods: " + "[" * 50, "recipe.yaml:1:21: there is more than 12 levels in it"),
        (METHODS + "seed: " + "9" * 5000 + "\n", "recipe.yaml: a number in it has too many digits"),
        ("# " + "x" * (1 << 16), "recipe.yaml: longer than 65,536 characters"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_column(folder: Path, text: str, told: str) -> None:
    assert refusal(folder, text).startswith(told)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    said = refusal(folder, "methods: [ppl]\nseed: x\ndedup: {threshold: 2, part: some}\nkep: 1\n")
    places = [part.split(": ")[0] for part in said.split("; ")]
    assert sorted(places) == ["recipe.yaml:2:7", "recipe.yaml:3:20", "recipe.yaml:3:29", "recipe.yaml:4:1"]


def test_a_filter_is_parsed_before_anything_is_read(folder: Path) -> None:
    said = refusal(folder, METHODS + "filter: >\n  ppl < 3 AND\n")
    assert said.startswith("recipe.yaml:3:9: filter: the filter: syntax error")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
def test_what_is_no_text_file_is_no_recipe(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.yaml: cannot read the recipe: "):
        recipes.read(tmp_path / "recipe.yaml")


def test_other_data_goes_before_what_the_recipe_names(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(METHODS + "data: rows.jsonl\n", encoding="utf-8")
    assert recipes.read(folder / "recipe.yaml", "elsewhere.jsonl").config.source == "elsewhere.jsonl"
    from_stdin = recipes.read(folder / "recipe.yaml", "-")
    assert (from_stdin.data, from_stdin.config.source) == ("-", None)


def test_a_service_takes_the_text_or_the_same_as_an_object() -> None:
    text = "methods: [{name: qtuning, options: {token_keep: 0.5}}]\nkeep: 40%\ndedup: {part: prompt}\n"
    found = recipes.of_recipe(text, {"prompt": "q", "response": "a"})
    document = {"methods": ["qtuning"], "keep": "40%", "dedup": {"part": "prompt"}}
    assert found.mapping == {"prompt": "q", "response": "a"}
    same = recipes.of_recipe(
        document | {"methods": [{"name": "qtuning", "options": {"token_keep": 0.5}}]}, {}
    )
    assert same == found.model_copy(update={"mapping": {}})
    assert recipes.of_recipe(recipes.as_request(found), {"prompt": "q", "response": "a"}) == found


@pytest.mark.parametrize("name", ["data", "mapping", "export"])
def test_a_services_recipe_does_not_say_where_rows_are(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^recipe:3:1: {name}: a service's dataset"):
        recipes.of_recipe(METHODS + f"{name}: {{}}\n", {})
    with pytest.raises(UsageError, match=rf"^recipe: {name}: a service's dataset"):
        recipes.of_recipe({"methods": ["ppl"], "keep": 0.5, name: {}}, {})


def test_an_object_is_checked_like_a_text() -> None:
    with pytest.raises(UsageError, match=r"^recipe: dedup\.threshold: must be at most 1"):
        recipes.of_recipe(json.loads('{"methods": ["ppl"], "keep": 0.5, "dedup": {"threshold": 3}}'), {})


def test_the_example_is_a_recipe() -> None:
    found = recipes.read(Path(__file__).parents[3] / "examples" / "recipe.yaml")
    assert found.data is not None
    assert Path(found.data).name == "instructions.jsonl"
    assert found.config.coverage is not None
