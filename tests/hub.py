"""The Hugging Face Hub as far as pushing to a dataset needs it, over a real socket on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from huggingface_hub import DatasetCard

TOKEN = "hf_ofthetests"


@dataclass
class Hub:
    """Dataset repositories by name: whether each is private, and its files. `refuses`: commits fail."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    refuses: bool = False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """What this request is answered with: a status, and a document."""
        if method == "PUT" and (found := re.fullmatch(r"/objects/(\w+)", path)):
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.objects[found[1]] = body
            return 200, {}
        if path == "/api/validate-yaml":
            wanted = json.loads(body)
            assert wanted["repoType"] == "dataset"
            DatasetCard(wanted["content"])
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            wanted = json.loads(body)["objects"]
            places = [{"upload": {"href": f"{self.url}/objects/{each['oid']}"}} for each in wanted]
            objects = [each | {"actions": place} for each, place in zip(wanted, places, strict=True)]
            return 200, {"transfer": "basic", "objects": objects}
        found = re.match(r"/api/datasets/([^/]+/[^/?]+)", path)
        assert found is not None, path
        repo, rest = found[1], path[found.end() :].partition("?")[0]
        if rest == "":
            return 200, {"id": repo, "private": self.private[repo], "siblings": []}
        if rest == "/tree/main":
            return 200, [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files[repo].items()
            ]
        if rest == "/preupload/main":
            wanted = json.loads(body)["files"]
            modes = [
                {"path": each["path"], "shouldIgnore": False, "oid": None}
                | {"uploadMode": "lfs" if each["path"].endswith(".parquet") else "regular"}
                for each in wanted
            ]
            return 200, {"files": modes}
        assert rest == "/commit/main", path
        return self._committed(repo, list(map(json.loads, body.splitlines())))

    def _created(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        assert wanted["type"] == "dataset"
        repo = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.url}/datasets/{repo}"}
        if repo in self.files:
            return 409, url
        self.files[repo] = {".gitattributes": b""}
        self.private[repo] = wanted.get("private", wanted.get("visibility") == "private")
        return 200, url

    def _committed(self, repo: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        if self.refuses:
            return 403, {"error": "You are out of space."}
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.commits.append(value["summary"])
                case "file":
                    self.files[repo][value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.files[repo][value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del self.files[repo][value["path"]]
        oid = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        return 200, {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.url}/datasets/{repo}/commit/{oid}",
        }


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub without repositories, for those with `TOKEN`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = b"".join(self.parts())
            status, document = 401, {"error": "Invalid credentials"}
            # What is stored for later has an address that nobody can guess, and no token.
            if self.path.startswith("/objects/") or self.headers.get("authorization") == f"Bearer {TOKEN}":
                status, document = hub.answer(self.command, self.path, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def parts(self) -> Iterator[bytes]:
            """The body, which may come in chunks that say how long they are."""
            if self.headers.get("transfer-encoding") != "chunked":
                yield self.rfile.read(int(self.headers.get("content-length") or 0))
                return
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_POST = do_PUT = answer  # noqa: N815 (the names that the server calls)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
