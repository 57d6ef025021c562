"""Cards of subsets, as the readers of their formats read them: the Hub's, Croissant's, `datasets`."""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

import datapruner
from datapruner.errors import InputError, UsageError
from datapruner.input.readers import open_sources
from datapruner.reporting import card, croissant, markdown
from datapruner.reporting.croissant import Described
from datapruner.result import Result
from tests.command_line import Said
from tests.evaluations import evaluation

Command = Callable[..., Said]
HOSTILE = "a|b](http://x.example)<script>alert(1)</script>`\n---\n# \u202egone *\\"

# mlcroissant still calls what its own libraries have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def records(path: Path) -> list[dict[str, Any]]:
    """The rows as mlcroissant reads them, by the names of columns; it checks the checksums."""
    import mlcroissant

    read = mlcroissant.Dataset(str(path))
    assert not read.metadata.ctx.issues.errors
    return [
        {name.removeprefix("rows/"): value for name, value in record.items()}
        for record in read.records("rows")
    ]


def told(readme: str) -> dict[str, str]:
    """The cells of two columns in the tables of a card, by the first."""
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", readme, re.MULTILINE))


def test_a_folder_has_a_card_that_adds_up_and_describes_the_rows_in_it(
    command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    export = ("export", first_run.run.run_id, "--out", out, "--shard-rows", 5, "--license", "cc-by-4.0")
    said = command(*export, "--json", home=home)
    assert said.code == 0, said.err
    assert said.json["card"] == str(out / "README.md")
    text = (out / "README.md").read_text(encoding="utf-8")
    data = DatasetCard(text).data
    assert (data.license, data.size_categories) == ("cc-by-4.0", ["n<1K"])
    statuses, cells = Counter(first_run.scores["status"].to_list()), told(text)
    shown = [cells[name] for name in ("Kept", "Pruned", "Rejected, for they could not be read", "Failed")]
    assert shown == [str(statuses[name]) for name in ("kept", "pruned", "rejected", "error")]
    assert int(cells["Ingested"]) == sum(statuses.values()) == sum(map(int, shown))
    assert "https://arxiv.org/abs/2509.23873" in text
    assert "Not evaluated" in text
    assert str(tmp_path) not in text
    assert "datapruner replay subset.run.json motley.jsonl" in text
    for name, at in first_run.report.thresholds.items():
        assert float(cells[markdown.text(name)].replace(",", "")) == pytest.approx(at, rel=1e-3)
    drawn = re.findall(r"\]\((plots/[\w.]+)\)", text)
    assert len(drawn) > 1
    assert {ET.parse(out / name).getroot().tag for name in drawn} == {"{http://www.w3.org/2000/svg}svg"}

    parts = sorted(out.glob("*.parquet"))
    assert len(parts) > 1
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    found = records(out / "croissant.json")
    assert len(found) == table.num_rows == first_run.report.kept
    assert sorted(record["sample_id"].decode() for record in found) == sorted(table["sample_id"].to_pylist())
    by_id = {record["sample_id"].decode(): record for record in found}
    for row in table.select(["sample_id", "input_ids", "ppl"]).to_pylist():
        assert list(by_id[row["sample_id"]]["input_ids"]) == row["input_ids"]
        assert by_id[row["sample_id"]]["ppl"] == row["ppl"]
    described = json.loads((out / "croissant.json").read_text())["distribution"]
    files = {each["name"]: each for each in described if each["@type"] == "cr:FileObject"}
    assert files.keys() == {part.name for part in parts}
    for part in parts:
        assert files[part.name]["sha256"] == hashlib.sha256(part.read_bytes()).hexdigest()
        assert files[part.name]["contentSize"] == f"{part.stat().st_size} B"

    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["sample_id"][:] == table["sample_id"].to_pylist()
    assert [source.name for source in open_sources(out)] == [part.name for part in parts]


def test_a_file_has_its_card_in_a_folder_beside_it(
    command: Command, first_run: Result, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my rows.parquet"
    export = ("export", first_run.run.run_id, "--for", "trl", "--out", out)
    assert command(*export, home=home).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {out.name, "my rows.run.json", "my rows.card"}
    found = records(tmp_path / "my rows.card" / "croissant.json")
    assert [list(each["input_ids"]) for each in found] == pq.read_table(out)["input_ids"].to_pylist()
    refused = command(*export, "--license", "My Own", home=home)
    assert (refused.code, "'My Own' is no identifier of a licence" in refused.err) == (2, True)


def test_plain_rows_from_python_have_one_as_well(first_run: Result, tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    rows = first_run.export(out, plain=True, license="cc0-1.0")
    folder = tmp_path / "kept.card"
    text = (folder / "README.md").read_text()
    assert DatasetCard(text).data.license == "cc0-1.0"
    assert f"The files have {rows} rows: the rows as they came." in text
    [file] = json.loads((folder / "croissant.json").read_text())["distribution"]
    assert (file["contentUrl"], file["sha256"]) == (
        "../kept.jsonl",
        hashlib.sha256(out.read_bytes()).hexdigest(),
    )
    with pytest.raises(UsageError, match="no identifier of a licence"):
        first_run.export(tmp_path / "other.jsonl", plain=True, license="My Own")
    assert not (tmp_path / "other.jsonl").exists()


def test_a_card_goes_through_an_archive_and_what_is_none_is_refused() -> None:
    files = {"README.md": b"# Rows\n", "plots/1.svg": b"<svg/>", "croissant.json": b"{}"}
    archive = card.packed(files, "rows.card", datetime(2026, 1, 2, tzinfo=UTC))
    assert card.unpacked(archive) == files
    for name in ("../README.md", "/etc/passwd", "plots/../../x", ".ssh"):
        with pytest.raises(InputError, match="which no card has"):
            card.unpacked(card.packed({name: b""}, "rows.card", datetime(2026, 1, 2, tzinfo=UTC)))
    with pytest.raises(InputError, match="no tar archive"):
        card.unpacked(b"<html>")


def test_the_verdict_and_what_names_say_are_words_and_nothing_more(first_run: Result, tmp_path: Path) -> None:
    report = datapruner.report(first_run)
    document = json.loads((first_run.run.folder / "run.json").read_text())
    told = evaluation(run=report.run, said=f"Better than {HOSTILE}")
    report = report.model_copy(
        update={
            "config": report.config | {"source": f"/home/me/{HOSTILE}"},
            "evaluations": [told],
            "warnings": [HOSTILE],
            "truncated_sources": {HOSTILE: HOSTILE},
        }
    )
    rows = tmp_path / "r.parquet"
    pq.write_table(pa.table({"text": ["a"]}), rows)
    made = card.made(card.Exported(report, document, {"r.parquet": Described(rows)}, 1, "rows"))
    text = made["README.md"].decode()
    assert DatasetCard(text).data.to_dict()["tags"] == ["datapruner", "data-pruning", "croissant"]
    body = DatasetCard(text).text
    assert "Better than a\\|b\\]" in body
    assert "<script" not in body
    assert "\u202e" not in text
    assert "](http://x.example)" not in re.sub(r"```+sh\n.*\n```+", "", body)
    headings = re.findall(r"^#+ .*", body, re.MULTILINE)
    assert len(headings) == 6
    assert "/home/me" not in text
    fence = re.search(r"^(`{3,})sh\n(.*)\n\1$", body, re.MULTILINE)
    assert fence is not None
    assert "datapruner replay subset.run.json '" in fence[2]


def test_the_licence_and_language_of_a_source_on_the_hub_are_those_of_its_card(
    first_run: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "datasets--org--rows" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: odc-by\nlanguage:\n- en\n- fr\n---\n# Rows\n")
    refs = tmp_path / "datasets--org--rows" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = datapruner.report(first_run)
    report = found.model_copy(update={"config": found.config | {"source": "org/rows"}})
    document = json.loads((first_run.run.folder / "run.json").read_text())
    data = DatasetCard(card.made(card.Exported(report, document, {}, 1, "rows"))["README.md"].decode()).data
    assert (data.license, data.language) == ("odc-by", ["en", "fr"])
    assert data.to_dict()["source_datasets"] == ["org/rows"]


def test_columns_of_any_type_are_described_or_said_to_be_left_out(tmp_path: Path) -> None:
    table = pa.table(
        {
            'a/"b" %': [1, None],
            "turns": [[{"role": "user", "n": 1}, {"role": "tool", "n": None}], []],
            "about": [{"x": 1.5}, None],
            "flags": [[True, None], None],
            "bytes": [b"a", b"b"],
            "odd": [{"a b": 1}, {"a b": 2}],
        }
    )
    path = tmp_path / "odd names [1].parquet"
    pq.write_table(table, path)
    about = {"name": "n", "description": "d"}
    described = croissant.document(about, {path.name: Described(path)})
    (tmp_path / "croissant.json").write_text(json.dumps(described))
    assert described["recordSet"][0]["description"].endswith("no type in Croissant: bytes, odd.")
    one, two = records(tmp_path / "croissant.json")
    assert (one["column/0"], two["column/0"]) == (1, None)
    turns = [
        {"rows/turns/role": b"user", "rows/turns/n": 1},
        {"rows/turns/role": b"tool", "rows/turns/n": None},
    ]
    assert one["turns"] == turns
    assert one["about"] == {"rows/about/x": 1.5}
    assert one["flags"] == [True, None]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(Exception, match="operation Download") as refused:
        records(tmp_path / "croissant.json")
    assert "is not identical with the reference" in str(refused.value.__cause__)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("12.5 % of ppl_low: a-b", r"12.5 % of ppl\_low: a-b"),
        ("- a\n# b", r"\- a \# b"),
        ("---", r"\---"),
        ("1. http://x.example and www.x.example", r"1\. http\://x.example and www\.x.example"),
        ("<b>&amp;</b> me@x", "&lt;b&gt;&amp;amp;&lt;/b&gt; me&#64;x"),
        ("![a](b) | `c` *d* \\", r"\!\[a\]\(b\) \| \`c\` \*d\* \\"),
    ],
)
def test_texts_are_markdown_that_only_says_them(said: str, written: str) -> None:
    assert markdown.text(said) == written


def test_a_licence_is_an_identifier() -> None:
    card.check_license("apache-2.0")
    with pytest.raises(UsageError, match=r"as in apache-2\.0"):
        card.check_license("a: b")


def test_a_run_that_rewrote_says_by_what(
    command: Command, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    think = "<think>\nFirst {0}.\n\nThen {0} again. So it is {0}.\n</think>\n{0}"
    rows = [{"prompt": f"What is {n}?", "response": think.format(n)} for n in range(4)]
    made = datapruner.rewrite(rows, "asap", max_token_ratio=0.5, home=home, **options)
    out = tmp_path / "rewritten.parquet"
    assert command("export", made.run.run_id, "--out", out, home=home).code == 0
    folder = tmp_path / "rewritten.card"
    text = (folder / "README.md").read_text()
    assert "of their first token (arXiv [2508.05988](https://arxiv.org/abs/2508.05988))" in text
    assert r"  - max\_token\_ratio: 0.5" in text
    assert "The files have 4 rows: the conversations with their reasoning rewritten." in text
    assert "datapruner replay subset.run.json SOURCE" in text
    turns = [
        [turn["rows/messages/content"] for turn in record["messages"]]
        for record in records(folder / "croissant.json")
    ]
    expected = pq.read_table(out)["messages"].to_pylist()
    assert turns == [[turn["content"].encode() for turn in row] for row in expected]
