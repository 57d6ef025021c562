"""Subsets pushed to a hub on this machine: private, in one commit, nothing left of an earlier subset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from datapruner.errors import UsageError
from datapruner.outputs import hub as pushing
from datapruner.result import Result
from tests.command_line import Said
from tests.hub import TOKEN, Hub, serving

Command = Callable[..., Said]

# Its client sends a file as its HTTP library does not want any more.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, and the token for it in the environment."""
    with serving() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def is_card(name: str) -> bool:
    return name in ("README.md", "croissant.json", "subset.run.json") or name.startswith("plots/")


def rows_of(hub: Hub) -> dict[str, bytes]:
    """What was pushed but for the card, which has to be there."""
    files = hub.files["me/rows"]
    assert {"README.md", "croissant.json", "subset.run.json", "plots/rows.svg"} <= files.keys()
    return {name: content for name, content in files.items() if not is_card(name)}


def test_a_subset_is_pushed_to_a_private_dataset_and_the_next_one_replaces_it(
    hub: Hub, command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    export = ("export", first_run.run.run_id, "--for", "trl", "--push", "me/rows")
    shards = command(*export, "--out", tmp_path / "shards", "--shard-rows", 5, "--json", home=home)
    assert (shards.code, shards.err) == (0, "")
    assert shards.json["pushed"] == f"{hub.url}/datasets/me/rows"
    assert hub.private == {"me/rows": True}
    assert hub.commits == [f"The subset of run {first_run.run.run_id}"]
    local = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "shards").glob("*.parquet")}
    assert len(local) > 1
    assert rows_of(hub) == local | {".gitattributes": b""}
    assert DatasetCard(hub.files["me/rows"]["README.md"].decode()).data.to_dict()["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": sorted(local)}]}
    ]
    files = json.loads(hub.files["me/rows"]["croissant.json"])["distribution"]
    assert {each["contentUrl"] for each in files if "contentUrl" in each} == local.keys()
    out = tmp_path / "one.parquet"
    said = command(*export, "--out", out, home=home)
    assert said.out.endswith(f"{hub.url}/datasets/me/rows\n")
    assert rows_of(hub) == {
        ".gitattributes": b"",
        "data/train-00000-of-00001.parquet": out.read_bytes(),
    }
    assert pq.read_table(out).num_rows == first_run.report.kept


def test_a_trainers_folder_and_lines_of_text_are_pushed_as_they_are(
    hub: Hub, command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    export = ("export", first_run.run.run_id, "--push", "me/rows", "--out")
    assert command(*export, tmp_path / "swift", "--for", "ms-swift", home=home).code == 0
    assert command(*export, tmp_path / "all.jsonl", home=home).code == 0
    folder = {
        f"ms-swift/{path.relative_to(tmp_path / 'swift')}": path.read_bytes()
        for path in (tmp_path / "swift").rglob("*")
        if path.is_file() and not is_card(path.relative_to(tmp_path / "swift").as_posix())
    }
    lines = {"data/train-00000-of-00001.jsonl": (tmp_path / "all.jsonl").read_bytes()}
    assert rows_of(hub) == folder | lines | {".gitattributes": b""}


def test_a_readme_of_the_users_own_stays(
    hub: Hub, command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    hub.files["me/rows"], hub.private["me/rows"] = {"README.md": b"# Mine\n"}, True
    out = tmp_path / "rows.parquet"
    assert command("export", first_run.run.run_id, "--out", out, "--push", "me/rows", home=home).code == 0
    assert hub.files["me/rows"] == {
        "README.md": b"# Mine\n",
        "data/train-00000-of-00001.parquet": out.read_bytes(),
    }


def test_what_everybody_can_read_is_only_pushed_to_when_that_is_meant(
    hub: Hub, command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    export = ("export", first_run.run.run_id, "--out", tmp_path / "rows.parquet", "--push", "me/open")
    assert command(*export, "--public", home=home).code == 0
    assert hub.private == {"me/open": False}
    refused = command(*export, home=home)
    assert refused.code == 2
    assert "me/open can be read by everybody (give --public as well)" in refused.err
    assert len(hub.commits) == 1
    alone = command("export", first_run.run.run_id, "--out", tmp_path / "rows.parquet", "--public", home=home)
    assert (alone.code, "give --push as well" in alone.err) == (2, True)


def test_a_push_that_the_hub_refuses_says_why_and_where_the_rows_are(
    hub: Hub, command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    hub.refuses = True
    out = tmp_path / "rows.parquet"
    refused = command("export", first_run.run.run_id, "--out", out, "--push", "me/rows", home=home)
    assert refused.code == 2
    assert "it was not pushed to me/rows: " in refused.err
    assert "You are out of space" in refused.err
    again = f"hf upload me/rows {out} data/train-00000-of-00001.parquet --repo-type dataset --private"
    assert f"{out} is written; try again, or: {again}" in refused.err
    assert TOKEN not in refused.err
    assert hub.files["me/rows"] == {".gitattributes": b""}


@pytest.mark.parametrize(
    ("repo", "token", "said"),
    [
        ("me/rows", "", r"there is no token for the Hub \(hf auth login, or set HF_TOKEN\)"),
        ("me/../rows", TOKEN, r"'me/\.\./rows' is no repository: .*\(as in me/subset\)"),
        ("a b", TOKEN, "'a b' is no repository"),
        ("rows", TOKEN, r"'rows' does not say whose it is \(as in me/rows\)"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_anything_is_written(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, repo: str, token: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=said):
        pushing.check(repo)
