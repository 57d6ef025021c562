"""Datasets over a real socket: uploads honest and not, versions, what is shown of them, and their end."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from tests.served import WAIT, Server, serving
from tests.waiting import PATIENCE

LIMIT = 1 << 20
GOOD = [
    {"instruction": f"What is {n} plus {n}?", "output": f"{2 * n}, which is {n} twice."} for n in range(6)
]
BAD = [{"instruction": "An empty answer.", "output": ""}, {"colour": "blue"}]


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imports")


@pytest.fixture(scope="module")
def server(tiny_folder: Path, imports: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes little at once, and reads from one folder."""
    given = {"max_upload_bytes": LIMIT, "allow_hub": 0, "import_roots": f"{imports}:{tiny_folder.parent}"}
    with serving(tmp_path_factory.mktemp("service") / "home", tiny_folder, **given) as running:
        yield running


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _upload(
    client: httpx.Client, name: str, content: bytes, filename: str = "rows.jsonl", **more: str
) -> httpx.Response:
    form = {"name": name} | more
    return client.post("/v1/datasets", data=form, files={"file": (filename, content)}, headers=WAIT)


def _uploads(server: Server) -> set[Path]:
    """Uploaded files. Those of other tests go as their jobs end."""
    return set((server.home / "files").rglob("uploads/*"))


def test_a_file_becomes_a_dataset_that_says_what_is_in_it(client: httpx.Client) -> None:
    answer = _upload(client, "sums", _lines([*GOOD, *BAD, GOOD[0]]))
    assert answer.status_code == 201, answer.text
    assert answer.json() == client.get("/v1/datasets/sums").json()
    assert client.get(f"/v1/datasets/{answer.json()['id']}").json()["name"] == "sums"
    latest = answer.json()["latest"]
    counts = {name: latest[name] for name in ("number", "rows", "accepted", "rejected", "duplicates")}
    assert counts == {"number": 1, "rows": 9, "accepted": 7, "rejected": 2, "duplicates": 1}
    assert latest["report"]["shapes"] == {"alpaca": 7}
    assert sum(latest["report"]["rejects"].values()) == 2
    assert client.get("/v1/datasets/sums/versions/1").json() == latest


@pytest.mark.parametrize("suffix", [".gz", ".zst", ""])
@pytest.mark.parametrize("by", ["upload", "path"])
def test_a_truncated_file_becomes_a_dataset_of_its_whole_rows_that_says_so(
    suffix: str, by: str, client: httpx.Client, imports: Path
) -> None:
    rows = [{"instruction": f"Name {n}.", "output": f"{n * 7919**3:x}" * 20} for n in range(1000)]
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    packed = pack.get(suffix, bytes)(_lines(rows))
    content, name = packed[: len(packed) * 9 // 10 + 3], f"cut.jsonl{suffix}"
    dataset = f"cut_{by}{suffix.replace('.', '_')}"
    if by == "upload":
        answer = _upload(client, dataset, content, name)
    else:
        (imports / name).write_bytes(content)
        source = {"kind": "path", "path": name}
        answer = client.post("/v1/datasets", json={"name": dataset, "source": source}, headers=WAIT)
    assert answer.status_code == 201, answer.text
    latest = answer.json()["latest"]
    assert latest["rows"] == latest["accepted"] + 1
    assert 100 < latest["accepted"] < len(rows)
    assert latest["report"]["rejects"] == {"truncated_stream": 1}
    [(source_name, where)] = latest["report"]["truncated_sources"].items()
    assert source_name == name
    assert where.startswith(f"line {latest['rows']}: ")
    [reject] = client.get(f"/v1/datasets/{dataset}/versions/1/rejects").json()["items"]
    assert where.endswith(reject["reason"])


def test_rejected_rows_are_listed_with_reasons(client: httpx.Client) -> None:
    _upload(client, "rejects", _lines([BAD[0], *GOOD, BAD[1], BAD[0]]))
    path = "/v1/datasets/rejects/versions/1/rejects"
    first = client.get(path, params={"limit": 2}).json()
    assert [reject["row"] for reject in first["items"]] == [0, 7]
    assert all(reject["reason"] and reject["remedy"] and reject["code"] for reject in first["items"])
    assert first["items"][1]["line"] == 8
    assert first["items"][1]["source"] == "rows.jsonl"
    last = client.get(path, params={"limit": 2, "cursor": first["next"]}).json()
    assert [reject["row"] for reject in last["items"]] == [8]
    assert last["next"] is None


def test_samples_are_shown_as_they_were_understood_and_long_ones_cut(client: httpx.Client) -> None:
    talk = [{"role": role, "content": "Go on."} for _ in range(40) for role in ("user", "assistant")]
    rows = [BAD[0], {"instruction": "Count.", "output": "one " * 1000}, {"messages": talk}, *GOOD]
    _upload(client, "samples", _lines(rows))
    path = "/v1/datasets/samples/versions/1/samples"
    first = client.get(path, params={"limit": 2}).json()
    long, chat = first["items"]
    assert [turn["role"] for turn in long["turns"]] == ["user", "assistant"]
    assert long["turns"][1]["content"].startswith("one one")
    assert long["turns"][1]["content"].endswith("… (2,000 more characters)")
    assert len(chat["turns"]) == 51
    assert chat["turns"][-1]["content"] == "… (30 more turns)"
    rest = client.get(path, params={"cursor": first["next"]}).json()
    assert [sample["row"] for sample in rest["items"]] == [3, 4, 5, 6, 7, 8]
    assert client.get(path, params={"limit": 101}).status_code == 422


def test_added_rows_are_a_new_version_and_the_old_one_stays(client: httpx.Client) -> None:
    made = client.post("/v1/datasets", json={"name": "grows", "rows": GOOD[:3]}, headers=WAIT)
    assert made.status_code == 201, made.text
    path = "/v1/datasets/grows/versions"
    second = client.post(path, json={"rows": GOOD[2:5]}, headers=WAIT)
    assert second.status_code == 201, second.text
    files = {"file": ("more.jsonl", _lines(GOOD))}
    third = client.post(path, data={"only_new": "true"}, files=files, headers=WAIT)
    assert third.status_code == 201, third.text
    nothing_new = client.post(path, json={"rows": GOOD, "only_new": True}, headers=WAIT)
    assert nothing_new.json() == third.json()
    listed = client.get(path).json()["items"]
    counts = [(each["number"], each["rows"], each["duplicates"], each["new_rows"]) for each in listed]
    assert counts == [(3, 7, 1, 1), (2, 6, 1, 3), (1, 3, 0, 3)]
    page = client.get(path, params={"limit": 1}).json()
    assert page["items"] == listed[:1]
    assert client.get(path, params={"limit": 5, "cursor": page["next"]}).json()["items"] == listed[1:]


def test_a_dataset_reads_its_own_source_again(client: httpx.Client, imports: Path) -> None:
    file = imports / "nightly.jsonl"
    file.write_bytes(_lines(GOOD[:4]))
    body = {"name": "nightly", "source": {"kind": "path", "path": "nightly.jsonl"}}
    assert client.post("/v1/datasets", json=body, headers=WAIT).json()["latest"]["rows"] == 4
    file.write_bytes(_lines(GOOD))
    second = client.post("/v1/datasets/nightly/versions", json={"only_new": True}, headers=WAIT)
    assert (second.json()["number"], second.json()["rows"], second.json()["new_rows"]) == (2, 6, 2)


def test_without_a_source_there_is_nothing_to_read_again(client: httpx.Client) -> None:
    _upload(client, "closed", _lines(GOOD))
    assert client.post("/v1/datasets/closed/versions", json={}).status_code == 422


@pytest.mark.parametrize(
    ("source", "setting"),
    [
        ({"kind": "path", "path": "/etc/passwd"}, "IMPORT_ROOTS"),
        ({"kind": "path", "path": "../../../etc/passwd"}, "IMPORT_ROOTS"),
        ({"kind": "path", "path": "link"}, "IMPORT_ROOTS"),
        ({"kind": "path", "path": "*ink"}, "IMPORT_ROOTS"),
        ({"kind": "url", "url": "s3://elsewhere/rows"}, "IMPORT_URLS"),
        ({"kind": "hub", "name": "org/data"}, "ALLOW_HUB"),
    ],
)
def test_what_the_service_may_not_read_is_refused_with_the_setting_that_allows_it(
    client: httpx.Client, imports: Path, source: dict[str, str], setting: str
) -> None:
    link = imports / "link"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    answer = client.post("/v1/datasets", json={"name": "denied", "source": source})
    assert answer.status_code == 403
    assert f"DATAPRUNER_{setting}" in answer.json()["remedy"]
    assert client.get("/v1/datasets/denied").status_code == 404


def test_a_taken_name_is_a_conflict_and_nothing_is_left(client: httpx.Client, server: Server) -> None:
    _upload(client, "taken", _lines(GOOD))
    before = _uploads(server)
    answer = _upload(client, "taken", _lines(GOOD))
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/conflict"
    assert _uploads(server) <= before


@pytest.mark.parametrize(
    "filename",
    ["../../../../escape.jsonl", "/etc/escape.jsonl", "..\\escape.jsonl", "\x1b[2J\u202eescape.jsonl"],
)
def test_a_hostile_file_name_is_only_ever_shown(client: httpx.Client, server: Server, filename: str) -> None:
    name = f"hostile_{hashlib.sha256(filename.encode()).hexdigest()[:8]}"
    disposition = f'form-data; name="file"; filename="{filename}"'.encode()
    body = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name.encode()
    body += (
        b"\r\n--x\r\nContent-Disposition: "
        + disposition
        + b"\r\n\r\n"
        + _lines([*GOOD, *BAD])
        + b"\r\n--x--\r\n"
    )
    headers = WAIT | {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/datasets", content=body, headers=headers)
    assert answer.status_code == 201, answer.text
    rejects = client.get(f"/v1/datasets/{name}/versions/1/rejects").json()["items"]
    assert {reject["source"] for reject in rejects} <= {"escape.jsonl", "[2Jescape.jsonl"}
    assert not list(server.home.parent.rglob("*escape*"))


def test_a_file_is_taken_only_with_the_digest_that_was_announced(
    client: httpx.Client, server: Server
) -> None:
    content = _lines(GOOD)
    digest = hashlib.sha256(content)
    before = _uploads(server)
    wrong = _upload(client, "digest", content, sha256="0" * 64)
    assert (wrong.status_code, wrong.json()["field"]) == (422, "sha256")
    files, header = {"file": content}, "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"
    wrong = client.post("/v1/datasets", data={"name": "digest"}, files=files, headers={"Repr-Digest": header})
    assert wrong.status_code == 422
    assert _uploads(server) <= before
    header = "sha-256=:" + base64.b64encode(digest.digest()).decode() + ":"
    right = client.post(
        "/v1/datasets",
        data={"name": "digest", "sha256": digest.hexdigest().upper()},
        files=files,
        headers={"Repr-Digest": header},
    )
    assert right.status_code == 202


def test_too_much_is_refused_whether_announced_or_not(client: httpx.Client, server: Server) -> None:
    before = _uploads(server)
    large = _upload(client, "large", b"x" * (LIMIT + 1))
    assert large.status_code == 413
    assert large.headers["content-type"] == "application/problem+json"
    body = io.BytesIO(b'{"name": "large", "rows": [{"a": "' + b"x" * 3 * LIMIT + b'"}]}')
    headers = {"Content-Type": "application/json"}
    chunked = client.post("/v1/datasets", content=iter(lambda: body.read(65536), b""), headers=headers)
    assert chunked.status_code == 413
    assert _uploads(server) <= before
    assert client.get("/v1/datasets/large").status_code == 404


def _raw(server: Server, announced: int, content: bytes) -> bytes:
    """What the service answers to a form of which `announced` bytes are said to come, if it answers."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {announced}\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + content)
        if announced > len(content):
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_a_content_length_that_lies_gets_no_dataset(client: httpx.Client, server: Server) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nliar\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + _lines(GOOD)
        + b"\r\n--x--\r\n"
    )
    before = _uploads(server)
    for announced in (len(form) - 40, len(form) - 5, len(form) + 1000, 1 << 40):
        answer = _raw(server, announced, form)
        assert b" 20" not in answer[:20], answer
        assert b" 50" not in answer[:20], answer
    assert client.get("/v1/datasets/liar").status_code == 404
    assert _uploads(server) <= before
    assert b" 202 " in _raw(server, len(form), form)[:20]


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/csv", b"instruction,output\na,b\n", 415),
        ("", b"{}", 415),
        ("multipart/form-data", b"--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"no form", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("application/json", b"{", 400),
        ("application/json", b'{"name": "odd", "rows": [{"a": NaN}]}', 400),
        ("application/json", b'{"name": "odd", "rows": ' + b"[" * 100_000, 400),
        ("application/json", b'{"name": "odd"}', 422),
        ("application/json", b'{"name": "odd", "rows": []}', 422),
        ("application/json", b'{"name": "Odd", "rows": [{"a": 1}]}', 422),
        ("application/json", b'{"name": "odd", "rows": [{"a": 1}], "colour": "blue"}', 422),
        ("application/json", b'{"name": "odd", "rows": [{"a": 1}], "mapping": {"prompt": "\\u0000"}}', 422),
    ],
)
def test_what_is_no_upload_is_refused(
    client: httpx.Client, content_type: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post("/v1/datasets", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("fields", "files", "named"),
    [
        ({"name": "odd", "colour": "blue"}, {"file": b"{}"}, "colour"),
        ({"name": ["odd", "odder"]}, {"file": b"{}"}, "name"),
        ({"name": "odd", "file": "text"}, {"other": b"{}"}, "file"),
        ({"name": "odd"}, {"name": b"odd"}, "name"),
        ({"name": "odd"}, {"file": b""}, "file"),
        ({"name": "odd", "mapping": "[]"}, {"file": b"{}"}, "mapping"),
    ],
)
def test_a_form_that_is_wrong_says_in_which_field(
    client: httpx.Client, fields: dict[str, Any], files: dict[str, bytes], named: str
) -> None:
    answer = client.post("/v1/datasets", data=fields, files=files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == named


def test_rows_of_unknown_columns_are_told_with_what_to_do(client: httpx.Client) -> None:
    answer = _upload(client, "unknown", b'{"colour": "blue", "size": 3}\n')
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-input"
    assert "mapping" in answer.json()["remedy"]
    assert client.get("/v1/datasets/unknown").json()["latest"] is None
    mapped = _upload(
        client,
        "known",
        b'{"q": "Say hi.", "a": "Hello there."}\n',
        mapping='{"prompt": "q", "response": "a"}',
    )
    assert mapped.status_code == 201, mapped.text


def test_retention_is_set_field_by_field(client: httpx.Client) -> None:
    _upload(client, "kept", _lines(GOOD), keep_versions="3")
    changed = client.patch("/v1/datasets/kept", json={"keep_runs": 2}).json()
    assert (changed["keep_versions"], changed["keep_runs"]) == (3, 2)
    changed = client.patch("/v1/datasets/kept", json={"keep_versions": None}).json()
    assert (changed["keep_versions"], changed["keep_runs"]) == (None, 2)
    assert client.patch("/v1/datasets/kept", json={"keep_runs": 0}).status_code == 422
    assert client.patch("/v1/datasets/kept", json={"name": "other"}).status_code == 422


def test_versions_alone_are_no_reason_to_keep_a_dataset(client: httpx.Client) -> None:
    _upload(client, "lonely", _lines(GOOD))
    assert client.delete("/v1/datasets/lonely").json()["deleted"]
    assert client.get("/v1/datasets/lonely").status_code == 404


def test_of_another_projects_dataset_nothing_is_told(client: httpx.Client, server: Server) -> None:
    _upload(client, "ours", _lines(GOOD))
    dataset = client.get("/v1/datasets/ours").json()["id"]
    with server.as_token(server.new_token("read", "write", project="other")) as stranger:
        for name in ("ours", dataset):
            path = f"/v1/datasets/{name}"
            for method, below in (
                ("GET", ""),
                ("PATCH", ""),
                ("DELETE", ""),
                ("GET", "/versions"),
                ("POST", "/versions"),
                ("GET", "/versions/1"),
                ("GET", "/versions/1/rejects"),
                ("GET", "/versions/1/samples"),
            ):
                body = {"rows": GOOD} if method == "POST" else {"keep_runs": 1} if method == "PATCH" else None
                assert stranger.request(method, path + below, json=body).status_code == 404, (method, below)
        assert stranger.get("/v1/datasets").json()["items"] == []
        assert stranger.post("/v1/datasets", json={"name": "ours", "rows": GOOD}).status_code == 202
    assert client.get("/v1/datasets/ours").json()["latest"]["number"] == 1


def test_a_full_project_takes_no_more(client: httpx.Client, server: Server) -> None:
    token = server.new_token("read", "write", project="small")
    quota = client.patch("/v1/projects/small", json={"quota_rows": 5, "quota_bytes": 100_000})
    assert quota.status_code == 200, quota.text
    before = _uploads(server)
    with server.as_token(token) as member:
        rows = member.post("/v1/datasets", json={"name": "full", "rows": GOOD})
        assert (rows.status_code, rows.json()["type"]) == (429, "/problems/quota-exceeded")
        files = {"file": b"x" * 100_001}
        assert member.post("/v1/datasets", data={"name": "full"}, files=files).status_code == 429
        assert member.get("/v1/datasets/full").status_code == 404
    assert _uploads(server) <= before


def test_datasets_are_listed_the_newest_first(client: httpx.Client) -> None:
    for number in range(3):
        client.post("/v1/datasets", json={"name": f"listed_{number}", "rows": GOOD}, headers=WAIT)
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [each["name"] for each in first["items"]] == ["listed_2", "listed_1"]
    assert all(each["latest"]["rows"] == 6 for each in first["items"])
    rest = client.get("/v1/datasets", params={"limit": 2, "cursor": first["next"]}).json()
    assert rest["items"][0]["name"] == "listed_0"


@pytest.mark.parametrize("path", ["%00", "versions", "x'--", "ds_0/versions/99999999999999999999"])
def test_odd_paths_are_no_datasets(client: httpx.Client, path: str) -> None:
    assert client.get(f"/v1/datasets/{path}").status_code in (404, 422)


def test_the_contract_documents_both_bodies(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/v1/datasets", "/v1/datasets/{dataset}/versions", "/v1/prune"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        assert content["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
        assert "$ref" not in json.dumps(content)
