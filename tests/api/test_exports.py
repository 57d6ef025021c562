"""Exports over a real socket: the library's own bytes, whole or in ranges, with validators and a checksum."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import mlcroissant
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from datapruner.result import Result
from tests.served import WAIT, Server

Export = dict[str, Any]


def export(server: Server, run: str, kind: str) -> Export:
    """A finished export."""
    answer = server.client.post("/v1/exports", json={"run": run, "format": kind}, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def server(server: Server) -> Iterator[Server]:
    """The service, asked by somebody of a project of this file's own."""
    token = server.new_token("read", "write", "sql", "admin", project="exports")
    mine = replace(server, token=token)
    yield mine
    mine.client.close()


@pytest.fixture(scope="module")
def run(server: Server, corpus_file: Path) -> str:
    """Id of the run that is the library's `first_run` on the service."""
    with corpus_file.open("rb") as file:
        made = server.client.post("/v1/datasets", data={"name": "motley"}, files={"file": file}, headers=WAIT)
    assert made.status_code == 201, made.text
    body = {
        "dataset": "motley",
        "method": "qtuning",
        "keep": 0.5,
        "measuring": {"model": server.model},
    }
    answer = server.client.post("/v1/runs", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def lines(server: Server, run: str) -> Export:
    return export(server, run, "plain-jsonl")


@pytest.fixture(scope="module")
def content(server: Server, lines: Export) -> bytes:
    return server.client.get(lines["download"]).raise_for_status().content


def test_plain_lines_are_the_librarys_byte_for_byte(
    content: bytes, lines: Export, first_run: Result, tmp_path: Path
) -> None:
    rows = first_run.export(tmp_path / "subset.jsonl", plain=True)
    assert content == (tmp_path / "subset.jsonl").read_bytes()
    assert (lines["state"], lines["rows"], lines["bytes"]) == ("succeeded", rows, len(content))
    assert lines["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["parquet", "plain-parquet"])
def test_parquet_is_the_librarys_table(
    server: Server, run: str, first_run: Result, kind: str, tmp_path: Path
) -> None:
    made = export(server, run, kind)
    answer = server.client.get(made["download"])
    first_run.export(tmp_path / "subset.parquet", plain=kind == "plain-parquet")
    assert pq.read_table(io.BytesIO(answer.content)).equals(pq.read_table(tmp_path / "subset.parquet"))
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == f'attachment; filename="motley-{made["id"]}.parquet"'


@pytest.mark.parametrize(
    ("kind", "media"), [("csv", "text/csv"), ("jsonl", "application/x-ndjson"), ("plain-csv", "text/csv")]
)
def test_other_files_are_the_librarys_too(
    server: Server, run: str, first_run: Result, kind: str, media: str, tmp_path: Path
) -> None:
    made = export(server, run, kind)
    answer = server.client.get(made["download"])
    path = tmp_path / f"subset.{kind.removeprefix('plain-')}"
    assert first_run.export(path, plain=kind == "plain-csv") == made["rows"]
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == media


@pytest.mark.parametrize("limit", [{}, {"max_length": 30}, {"max_length": 30, "too_long": "drop"}])
def test_rows_for_a_trainer_are_the_librarys_within_a_limit_and_with_its_counts(
    server: Server, run: str, first_run: Result, limit: dict[str, Any], tmp_path: Path
) -> None:
    body = {"run": run, "format": "trl", **limit}
    made = server.client.post("/v1/exports", json=body, headers=WAIT).raise_for_status().json()
    expected = first_run.export_for("trl", tmp_path / "rows.parquet", **limit)
    answer = server.client.get(made["download"])
    assert pq.read_table(io.BytesIO(answer.content)).equals(pq.read_table(tmp_path / "rows.parquet"))
    assert answer.headers["content-disposition"] == f'attachment; filename="motley-{made["id"]}.parquet"'
    assert made["counts"] == asdict(expected.counts)
    assert made["rows"] == made["counts"]["written"]
    assert (made["max_length"], made["too_long"]) == (limit.get("max_length"), limit.get("too_long", "cut"))


def test_a_trainers_folder_comes_as_an_archive_of_it_the_same_each_time(
    server: Server, run: str, first_run: Result, tmp_path: Path
) -> None:
    first, second = (export(server, run, "ms-swift") for _ in range(2))
    answer = server.client.get(first["download"])
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == f'attachment; filename="motley-{first["id"]}.tar"'
    assert first["sha256"] == second["sha256"] == hashlib.sha256(answer.content).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    first_run.export_for("ms-swift", tmp_path / "expected")
    ours, expected = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "subset", tmp_path / "expected")
    )
    assert ours
    assert ours.items() <= expected.items()
    of_card = {name for name in expected.keys() - ours.keys() if not name.startswith("plots/")}
    assert of_card == {"README.md", "croissant.json", "subset.run.json"}  # ours is an answer of its own


def test_without_waiting_the_answer_is_the_job(server: Server, run: str) -> None:
    answer = server.client.post("/v1/exports", json={"run": run})
    assert answer.status_code == 202
    done = server.wait(answer.headers["location"])
    assert (done["kind"], done["state"]) == ("export", "succeeded")
    assert server.client.get(done["links"]["export"]).json()["format"] == "parquet"
    assert server.client.get(done["links"]["subset"]).status_code == 200


# Downloads


def test_a_download_says_what_it_is(server: Server, lines: Export, content: bytes) -> None:
    answer = server.client.get(lines["download"])
    digest = hashlib.sha256(content)
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="motley-{lines["id"]}.jsonl"'
    published = datetime.fromisoformat(lines["published_at"]).astimezone(UTC).replace(microsecond=0)
    assert parsedate_to_datetime(answer.headers["last-modified"]) == published


def test_head_says_the_same_without_the_content(server: Server, lines: Export, content: bytes) -> None:
    whole = server.client.get(lines["download"])
    for headers in ({}, {"Range": "bytes=0-9"}):
        head = server.client.head(lines["download"], headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(content)
        for name in ("etag", "repr-digest", "content-type", "last-modified", "accept-ranges"):
            assert head.headers[name] == whole.headers[name]


def test_ranges_put_together_are_the_file(server: Server, lines: Export, content: bytes) -> None:
    step = len(content) // 7
    digest = hashlib.sha256()
    for start in range(0, len(content), step):
        part = server.client.get(
            lines["download"],
            headers={"Range": f"bytes={start}-{start + step - 1}", "If-Range": f'"{lines["sha256"]}"'},
        )
        end = min(start + step, len(content))
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(content)}"
        assert part.headers["etag"] == f'"{lines["sha256"]}"'
        digest.update(part.content)
    assert digest.hexdigest() == lines["sha256"]


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("bytes=10-", 10, None), ("bytes=-5", -5, None), ("Bytes = 3-3", 3, 4)]
)
def test_open_and_suffix_ranges(
    server: Server, lines: Export, content: bytes, asked: str, start: int, end: int | None
) -> None:
    part = server.client.get(lines["download"], headers={"Range": asked})
    assert (part.status_code, part.content) == (206, content[start:end])


def test_several_ranges_come_as_parts_and_those_beyond_the_end_do_not(
    server: Server, lines: Export, content: bytes
) -> None:
    answer = server.client.get(lines["download"], headers={"Range": "bytes=0-9, 20-29, 99999999-"})
    assert answer.status_code == 206
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    parts = {part["content-range"]: part.get_payload(decode=True) for part in message.iter_parts()}
    assert parts == {
        f"bytes 0-9/{len(content)}": content[:10],
        f"bytes 20-29/{len(content)}": content[20:30],
    }


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    server: Server, lines: Export, content: bytes, asked: str
) -> None:
    answer = server.client.get(lines["download"], headers={"Range": asked})
    assert (answer.status_code, answer.json()["type"]) == (416, "/problems/range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(content)}"


@pytest.mark.parametrize(
    "asked",
    ["lines=0-4", "bytes=9-3", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1-2", "bytes=0x1-"],
)
def test_what_is_no_range_is_ignored(server: Server, lines: Export, content: bytes, asked: str) -> None:
    answer = server.client.get(lines["download"], headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, content)


def test_a_range_of_another_file_gets_this_one_whole(server: Server, lines: Export, content: bytes) -> None:
    for validator in ('"another"', f'W/"{lines["sha256"]}"', "Thu, 01 Jan 1970 00:00:00 GMT"):
        headers = {"Range": "bytes=0-9", "If-Range": validator}
        answer = server.client.get(lines["download"], headers=headers)
        assert (answer.status_code, answer.content) == (200, content)
    whole = server.client.get(lines["download"])
    headers = {"Range": "bytes=0-9", "If-Range": whole.headers["last-modified"]}
    assert server.client.get(lines["download"], headers=headers).status_code == 206


def test_who_has_the_file_is_told_so(server: Server, lines: Export, content: bytes) -> None:
    tag = f'"{lines["sha256"]}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            answer = server.client.request(method, lines["download"], headers={"If-None-Match": known})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
    answer = server.client.get(lines["download"], headers={"If-None-Match": '"other"'})
    assert (answer.status_code, answer.content) == (200, content)


# Found, listed, deleted, refused


def test_exports_are_listed_the_newest_first_page_by_page(server: Server, run: str, lines: Export) -> None:
    whole = server.client.get("/v1/exports").json()["items"]
    assert [each["id"] for each in whole] == sorted((each["id"] for each in whole), reverse=True)
    assert lines in whole
    first = server.client.get("/v1/exports", params={"limit": 1, "run": run}).json()
    rest = server.client.get("/v1/exports", params={"run": run, "cursor": first["next"]}).json()
    assert first["items"] + rest["items"] == whole
    assert rest["next"] is None


def test_a_deleted_export_is_gone_with_its_file_and_its_run_stays(server: Server, run: str) -> None:
    made = export(server, run, "plain-jsonl")
    [folder] = server.home.glob(f"files/projects/*/exports/{made['id']}")
    answer = server.client.delete(f"/v1/exports/{made['id']}")
    assert answer.json() == {"deleted": True, "dependents": []}
    assert not folder.exists()
    for path in (f"/v1/exports/{made['id']}", made["download"]):
        assert server.client.get(path).status_code == 404
    assert server.client.get(f"/v1/runs/{run}").status_code == 200


def test_a_run_that_pruned_nothing_has_no_subset(server: Server, run: str) -> None:
    body = {"dataset": "motley", "methods": ["ppl"], "measuring": {"model": server.model}}
    scored = server.client.post("/v1/runs", json=body, headers=WAIT).json()
    answer = server.client.post("/v1/exports", json={"run": scored["id"]})
    assert (answer.status_code, answer.json()["field"]) == (409, "run")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"run": "run_none"}, 404),
        ({"run": "x", "format": "xlsx"}, 422),
        ({}, 422),
        ({"run": "a\u0000"}, 422),
        ({"run": "x", "format": "csv", "max_length": 9}, 422),
        ({"run": "x", "format": "parquet", "too_long": "drop"}, 422),
        ({"run": "x", "format": "trl", "max_length": 1}, 422),
        ({"run": "x", "format": "trl", "max_length": 2**31}, 422),
    ],
)
def test_what_cannot_be_exported_is_refused(server: Server, body: dict[str, Any], status: int) -> None:
    answer = server.client.post("/v1/exports", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_export_of_another_project_is_not_there(server: Server, run: str, lines: Export) -> None:
    with server.as_token(server.new_token("read", "write", project="elsewhere")) as stranger:
        path = f"/v1/exports/{lines['id']}"
        for method, what in [("GET", ""), ("DELETE", ""), ("GET", "/file"), ("HEAD", "/file")]:
            assert stranger.request(method, path + what).status_code == 404
        assert stranger.get("/v1/exports").json()["items"] == []
        assert stranger.post("/v1/exports", json={"run": run}).status_code == 404
        assert stranger.get("/v1/exports", params={"run": run}).status_code == 404


def test_reading_needs_the_scope_to_read_and_changing_the_one_to_write(
    server: Server, run: str, lines: Export
) -> None:
    with server.as_token(server.new_token("read", project="exports")) as reader:
        assert reader.get(lines["download"]).status_code == 200
        assert reader.post("/v1/exports", json={"run": run}).status_code == 403
        assert reader.delete(f"/v1/exports/{lines['id']}").status_code == 403
    with server.as_token(server.new_token("write", "sql", project="exports")) as writer:
        assert writer.get(lines["download"]).status_code == 403
    assert httpx.get(f"{server.url}{lines['download']}", trust_env=False).status_code == 401


# mlcroissant still calls what its own libraries have deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_card_of_an_export_describes_the_file_that_is_downloaded(
    server: Server, run: str, tmp_path: Path
) -> None:
    made = export(server, run, "parquet")
    name = f"motley-{made['id']}"
    (tmp_path / f"{name}.parquet").write_bytes(server.client.get(made["download"]).content)
    answer = server.client.get(made["card"], params={"license": "cc0-1.0"})
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}.card.tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / f"{name}.card"
    assert DatasetCard.load(folder / "README.md").data.license == "cc0-1.0"
    read = mlcroissant.Dataset(str(folder / "croissant.json"))
    found = [record["rows/sample_id"].decode() for record in read.records("rows")]
    assert found == pq.read_table(tmp_path / f"{name}.parquet")["sample_id"].to_pylist()
    [file] = json.loads((folder / "croissant.json").read_text())["distribution"]
    assert (file["sha256"], file["contentSize"]) == (made["sha256"], f"{made['bytes']} B")
    assert (folder / "subset.run.json").is_file()
    assert server.client.get(made["card"], params={"license": "My own"}).status_code == 422
