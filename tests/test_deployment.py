"""What is deployed: the image, the compose file, the wheel, and its services working together as processes.

No container engine runs here: the compose file is checked against the published schema, and the services' own
commands are run with their own environment against a real PostgreSQL and a real S3 server.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import polars as pl
import pytest
import typer

from datapruner.cli import app
from datapruner.settings import Settings
from tests import compose
from tests.compose import ROOT
from tests.served import WAIT
from tests.tiny_model import LINES, MEASURED, REJECTED
from tests.waiting import PATIENCE

SECRETS = {
    "POSTGRES_PASSWORD": "p" * 64,
    "S3_ACCESS_KEY": "a" * 20,
    "S3_SECRET_KEY": "s" * 40,
    "DATAPRUNER_SECRET": "d" * 64,
}
OURS = ("api", "worker", "worker-gpu", "migrate", "bucket")
COMMANDS = ("api", "worker", "worker-gpu", "migrate")
_PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*(@sha256:[0-9a-f]{64})?")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compose.read(SECRETS)


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    return document["services"]


class TestCompose:
    def test_the_file_follows_the_published_schema(self, document):
        schema = json.loads((ROOT / "tests/vendor/compose-spec.json").read_text(encoding="utf-8"))
        validator = jsonschema.validators.validator_for(schema)(schema)
        assert [error.message for error in validator.iter_errors(document)] == []
        document = document | {"services": {"api": {"imag": "x"}}}
        assert not validator.is_valid(document), "the schema accepts anything"

    def test_every_image_has_a_version(self, services):
        images = {name: service["image"] for name, service in services.items()}
        assert [image for image in images.values() if not _PINNED.fullmatch(image)] == []

    def test_our_images_have_the_version_of_the_package(self, services):
        version = importlib.metadata.version("datapruner")
        found = {services[name]["image"] for name in OURS}
        assert found == {f"datapruner:{version}-cpu", f"datapruner:{version}-gpu"}

    def test_every_variable_of_ours_is_a_setting(self, services):
        names = {name for service in services.values() for name in service["environment"]}
        names |= set(compose.image_environment())
        ours = {name for name in names if name.startswith("DATAPRUNER_")}
        assert ours - {f"DATAPRUNER_{field.upper()}" for field in Settings.model_fields} == set()
        assert {"DATAPRUNER_DATABASE_URL", "DATAPRUNER_STORAGE", "DATAPRUNER_HOME"} <= ours

    @pytest.mark.parametrize("name", COMMANDS)
    def test_each_command_is_one_that_the_command_line_has(self, services, name):
        command: Any = typer.main.get_command(app)
        words = list(services[name]["command"])
        while hasattr(command, "commands"):
            word = words.pop(0)
            assert word in command.commands, f"{name}: no such command: {word}"
            command = command.commands[word]
        command.make_context(name, words)  # raises for an option that there is not

    def test_no_secret_has_a_default(self, services):
        for name in SECRETS:
            with pytest.raises(KeyError, match=name):
                compose.read({**SECRETS, name: ""})
        secret = re.compile(r"(PASSWORD|SECRET|ACCESS_KEY)")
        raw = compose.source()
        for match in compose.VARIABLE.finditer(raw):
            if secret.search(match["name"]):
                assert match["kind"] == "?", match[0]
        for service in services.values():
            for name, value in service["environment"].items():
                if secret.search(name):
                    assert value in SECRETS.values(), f"{name} is written in the file"

    def test_the_example_of_settings_names_exactly_what_the_file_reads(self):
        lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
        listed = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        read = {match["name"]: match["rest"] for match in compose.VARIABLE.finditer(compose.source())}
        assert listed.keys() == read.keys()
        assert {name for name, value in listed.items() if not value} == SECRETS.keys()
        assert {name: listed[name] for name in listed.keys() - SECRETS.keys()} == {
            name: read[name] for name in read.keys() - SECRETS.keys()
        }

    def test_every_container_is_confined(self, services):
        for name, service in services.items():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert "memory" in service["deploy"]["resources"]["limits"], name
            assert "pids" in service["deploy"]["resources"]["limits"], name
            assert not service.get("privileged"), name

    def test_only_the_api_is_published_and_only_on_loopback(self, services):
        published = {name: service["ports"] for name, service in services.items() if "ports" in service}
        assert published == {"api": ["127.0.0.1:8000:8000"]}

    def test_what_starts_waits_for_what_it_needs(self, services):
        for name in ("api", "worker", "worker-gpu"):
            waits = {other: how["condition"] for other, how in services[name]["depends_on"].items()}
            assert waits == {
                "migrate": "service_completed_successfully",
                "bucket": "service_completed_successfully",
                "postgres": "service_healthy",
                "s3": "service_healthy",
            }
        for name in ("postgres", "s3"):
            assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services["worker-gpu"]["profiles"] == ["gpu"]

    def test_volumes_hold_what_must_stay_and_each_is_declared(self, document, services):
        used = {volume for service in services.values() for volume in service.get("volumes", [])}
        assert {volume.split(":")[0] for volume in used} == document["volumes"].keys()
        for name in ("api", "worker", "worker-gpu"):
            assert [volume.split(":")[1] for volume in services[name]["volumes"]] == ["/data"]
        for name in ("migrate", "bucket"):
            assert services[name]["tmpfs"][0].startswith("/data:")


class TestImage:
    def test_the_base_has_a_version_and_is_the_same_for_build_and_use(self):
        [(_, base)] = [each for each in compose.instructions() if each[1].startswith("PYTHON_IMAGE=")]
        assert _PINNED.fullmatch(base.removeprefix("PYTHON_IMAGE="))
        stages = [rest.split(" AS ") for name, rest in compose.instructions() if name == "FROM"]
        known = {"${PYTHON_IMAGE}", *(name for _, name in stages)}
        assert {origin for origin, _ in stages} <= known

    def test_it_runs_as_a_fixed_user_without_rights(self):
        users = [rest for name, rest in compose.instructions() if name == "USER"]
        assert users == ["10001:10001"]

    def test_it_starts_our_command_and_asks_it_for_its_health(self):
        found = dict(compose.instructions())
        assert json.loads(found["ENTRYPOINT"]) == ["datapruner"]
        assert json.loads(found["CMD"]) == ["serve"]
        check = json.loads(found["HEALTHCHECK"].split(" CMD ")[1])
        assert check[:3] == ["python", "-P", "-c"]
        compile(check[3], "HEALTHCHECK", "exec")
        assert "/v1/ready" in check[3]

    def test_whatever_is_written_goes_to_the_volume(self):
        folders = {
            name: value for name, value in compose.image_environment().items() if value.startswith("/")
        }
        assert folders.keys() == {"HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "DATAPRUNER_HOME"}
        assert [name for name, value in folders.items() if not f"{value}/".startswith("/data/")] == []
        assert ("VOLUME", "/data") in compose.instructions()

    def test_it_is_built_of_what_the_ignore_file_lets_through(self):
        lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        assert "*" in lines
        kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
        assert [name for name in kept if not (ROOT / name).exists()] == []
        packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
        assert packages <= kept
        copied = [rest.split()[:-1] for name, rest in compose.instructions() if name == "COPY"]
        plain = {part for parts in copied if not "".join(parts).startswith("-") for part in parts}
        assert plain - {"."} <= kept

    def test_nothing_is_fetched_but_by_pip(self):
        assert "ADD" not in dict(compose.instructions())
        runs = " ".join(rest for name, rest in compose.instructions() if name == "RUN")
        assert not re.search(r"\b(curl|wget|apt-get|sudo|--break-system-packages)\b", runs)

    def test_the_extras_that_it_installs_exist(self):
        with (ROOT / "pyproject.toml").open("rb") as file:
            extras = tomllib.load(file)["project"]["optional-dependencies"]
        wanted = re.findall(r'extras\["(\w+)"\]', (ROOT / "Dockerfile").read_text(encoding="utf-8"))
        assert wanted == ["postgres", "s3"]
        assert set(wanted) <= extras.keys()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the image builds it: of what the ignore file lets through."""
    source = tmp_path_factory.mktemp("source")
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            path = ROOT / line.removeprefix("!")
            if path.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, source / path.name, ignore=ignore)
            else:
                shutil.copy(path, source)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(out), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [built] = out.iterdir()
    return built


@pytest.mark.slow
class TestWheel:
    def test_it_holds_every_file_of_every_package(self, wheel):
        tracked = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", *_packages()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        held = set(zipfile.ZipFile(wheel).namelist())
        assert [name for name in tracked if name not in held and (ROOT / name).exists()] == []

    def test_installed_elsewhere_it_finds_its_own_files(self, wheel, tmp_path):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        code = (
            "import api.app, datapruner.cli, scorers.methods.registry\n"
            "from datapruner.catalog import migrations\n"
            "print(migrations.newest(), api.app.__file__)\n"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        revision, where = done.stdout.split()
        assert revision != "None"
        assert Path(where).is_relative_to(tmp_path)


def _packages() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


@dataclass
class Stack:
    """The compose file's services as processes: only the two addresses, the port and /data are other ones."""

    services: dict[str, Any]
    addresses: dict[str, str]
    folder: Path
    model: Path

    def environment(self, service: str, data: str) -> dict[str, str]:
        """What a container of `service` with the volume `data` would have."""
        home = self.folder / data
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        image = {
            name: value.replace("/data", str(home), 1) for name, value in compose.image_environment().items()
        }
        here = {
            "PATH": os.environ["PATH"],
            "DATAPRUNER_HOST": "127.0.0.1",
            "DATAPRUNER_PORT": "0",
            "DATAPRUNER_DEVICES": "cpu",
            "DATAPRUNER_THREADS": "1",
            "DATAPRUNER_IMPORT_ROOTS": str(self.model.parent),
        }
        return image | self.services[service]["environment"] | self.addresses | here

    def command(self, service: str) -> list[str]:
        entrypoint = self.services[service].get("entrypoint", ["python", "-m", "datapruner"])
        assert entrypoint[0] == "python"
        return [sys.executable, *entrypoint[1:], *self.services[service]["command"]]

    def run(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run a service that ends by itself."""
        return subprocess.run(
            self.command(service),
            env=self.environment(service, service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, service: str, data: str) -> Iterator[subprocess.Popen[str]]:
        """Run a service that goes on, and see that it ends well when it is told to."""
        log = self.folder / f"{data}.log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                self.command(service),
                env=self.environment(service, data),
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                yield process
                process.terminate()
                assert process.wait(PATIENCE) == 0, log.read_text()[-3000:]
            finally:
                process.kill()


@pytest.fixture
def stack(
    services: dict[str, Any], s3_server: str, postgres_url: str, tiny_folder: Path, tmp_path: Path
) -> Stack:
    addresses = {"DATAPRUNER_DATABASE_URL": postgres_url, "AWS_ENDPOINT_URL": s3_server}
    for name in addresses:
        assert name in services["api"]["environment"]
    return Stack(services, addresses, tmp_path, tiny_folder)


@pytest.mark.slow
class TestServicesTogether:
    def test_a_service_says_what_to_do_about_a_database_that_was_not_upgraded(self, stack):
        done = stack.run("api")
        assert done.returncode == 2
        assert "run `datapruner db upgrade`" in done.stderr

    def test_rows_go_in_at_one_end_and_the_subset_comes_out(self, stack, corpus_file, first_run):
        for _ in range(2):  # each time that the services are started
            for once in ("bucket", "migrate"):
                done = stack.run(once)
                assert done.returncode == 0, done.stderr
        with stack.running("api", "api-data") as api, _client(api, stack.folder / "api-data") as client:
            _healthy(client.base_url.port)
            with stack.running("worker", "worker-data"):
                first = _prune(client, corpus_file, stack.model, "qtuning")
            own = stack.folder / "own.parquet"
            first_run.export(own)
            assert pl.read_parquet(io.BytesIO(first)).equals(pl.read_parquet(own))

            # A worker on another machine finds what the first one measured, in the bucket.
            with stack.running("worker", "other-data"):
                _prune(client, corpus_file, stack.model, "ppl")
            runs = client.get("/v1/runs").json()["items"]
            tried = len(MEASURED) + 1  # with the row that turns out to have no response left
            assert sorted(run["measured"] for run in runs) == [0, tried]

            # The API reads from the bucket what the workers wrote.
            dataset = client.get("/v1/datasets?unnamed=true").json()["items"][0]["name"]
            sql = f"SELECT count(*) FROM {dataset}.samples"
            answer = client.post("/v1/sql", json={"sql": sql})
            assert answer.status_code == 200, answer.text
            assert answer.json()["rows"] == [[len(LINES) - len(REJECTED)]]

        kept = _keys("datapruner/files")
        assert {key.split("/")[4] for key in kept} >= {"corpora", "runs", "exports", "signals"}
        for data in ("api-data", "worker-data", "other-data"):
            assert not (stack.folder / data / "files").exists()
            assert list((stack.folder / data).glob("*.sqlite*")) == []


def _client(api: subprocess.Popen[str], data: Path) -> httpx.Client:
    assert api.stdout is not None
    line = next(line for line in api.stdout if "listens on " in line)
    url = line.split("listens on ")[1].split()[0]
    token = (data / "admin-token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=2 * PATIENCE, trust_env=False)


def _healthy(port: int | None) -> None:
    """The image's own health check."""
    check = json.loads(dict(compose.instructions())["HEALTHCHECK"].split(" CMD ")[1])
    code = check[3].replace(":8000", f":{port}")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def _prune(client: httpx.Client, path: Path, model: Path, method: str) -> bytes:
    with path.open("rb") as file:
        answer = client.post(
            "/v1/prune",
            files={"file": (path.name, file)},
            data={"method": method, "keep": "0.5", "model": str(model)},
            headers=WAIT,
        )
    assert answer.status_code == 200, answer.text
    return answer.content


def _keys(prefix: str) -> list[str]:
    import s3fs

    found: list[str] = s3fs.S3FileSystem(use_listings_cache=False).find(prefix)
    return found
