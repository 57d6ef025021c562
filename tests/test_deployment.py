"""What is deployed: the image, the compose file, the wheel, and its services working together as processes.

No container engine runs here: the compose file is checked against the published schema, and the services' own
commands are run with their own environment against a real PostgreSQL and a real S3 server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import polars as pl
import pytest
import typer
from sqlalchemy import URL, select, update

from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, Project, Schedule, new_id, utcnow
from datapruner.cli import app
from datapruner.settings import Settings
from tests import compose
from tests.balancer import Balancer
from tests.compose import ROOT
from tests.databases import new_postgres
from tests.served import WAIT
from tests.stack import Host, Stack
from tests.steady_load import Load
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
STEADY = 3
"""Rows that are there before the load."""
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


@pytest.fixture
def stack(
    services: dict[str, Any], s3_server: str, postgres_url: str, tiny_folder: Path, tmp_path: Path
) -> Stack:
    return _stack(services, s3_server, postgres_url, tmp_path, tiny_folder)


def _stack(services: dict[str, Any], s3_url: str, postgres_url: str, folder: Path, model: Path) -> Stack:
    addresses = {"DATAPRUNER_DATABASE_URL": postgres_url, "AWS_ENDPOINT_URL": s3_url}
    for name in addresses:
        assert name in services["api"]["environment"]
    return Stack(services, addresses, folder, model)


@dataclass
class Hosts:
    """Two services, started at the same time on an empty database, and what four workers are started with."""

    apis: list[Host]
    urls: list[str]
    workers: Callable[[int], contextlib.AbstractContextManager[Host]]
    client: httpx.Client
    """Asks the first of them."""
    database: str
    model: Path


@pytest.fixture(scope="module")
def hosts(
    services: dict[str, Any],
    s3_server: str,
    postgres_server: URL,
    tiny_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    # Who leaves is told a second time when the balancer has seen it, instead of after some seconds.
    leaving = {"drain_seconds": 10 * PATIENCE, "finish_seconds": int(PATIENCE), "sql_warm": 1}
    with contextlib.ExitStack() as running:
        database = running.enter_context(new_postgres(postgres_server))
        stack = _stack(services, s3_server, database, folder, tiny_folder)
        for _ in range(2):  # each time that the services are started
            for once in ("bucket", "migrate"):
                code, said = stack.run(once)
                assert code == 0, said
        apis = [running.enter_context(stack.running("api", f"api-{n}", **leaving)) for n in range(2)]
        urls = [api.url() for api in apis]
        [first] = [api for api in apis if (api.home / "admin-token").exists()]
        client = running.enter_context(first.client(urls[0]))
        workers = lambda number: stack.running("worker", f"worker-{number}")  # noqa: E731
        yield Hosts(apis, urls, workers, client, database, tiny_folder)
        for api in apis:  # at once, as at Ctrl-C
            api.process.send(signal.SIGINT)
        for api in apis:
            api.process.wait()


@pytest.mark.slow
class TestServicesTogether:
    def test_a_service_says_what_to_do_about_a_database_that_was_not_upgraded(self, stack):
        code, said = stack.run("api")
        assert code == 2
        assert "run `datapruner db upgrade`" in said

    def test_rows_go_in_at_one_end_and_the_subset_comes_out(self, hosts, corpus_file, first_run, tmp_path):
        client = hosts.client
        _healthy(client.base_url.port)
        with hosts.workers(0):
            first = _prune(client, corpus_file, hosts.model, "qtuning")
        own = tmp_path / "own.parquet"
        first_run.export(own)
        assert pl.read_parquet(io.BytesIO(first)).equals(pl.read_parquet(own))

        # A worker on another machine finds what the first one measured, in the bucket.
        with hosts.workers(1):
            _prune(client, corpus_file, hosts.model, "ppl")
        runs = client.get("/v1/runs").json()["items"]
        tried = len(MEASURED) + 1  # with the row that turns out to have no response left
        assert sorted(run["measured"] for run in runs) == [0, tried]

        # The other service reads from the bucket what they wrote, for whoever has a token of the first.
        client.base_url = hosts.urls[1]
        dataset = client.get("/v1/datasets?unnamed=true").json()["items"][0]["name"]
        sql = f"SELECT count(*) FROM {dataset}.samples"
        answer = client.post("/v1/sql", json={"sql": sql})
        assert answer.status_code == 200, answer.text
        assert answer.json()["rows"] == [[len(LINES) - len(REJECTED)]]

        kept = _keys("datapruner/files")
        assert {key.split("/")[4] for key in kept} >= {"corpora", "runs", "exports", "signals"}
        for home in hosts.apis[0].home.parent.iterdir():
            assert not (home / "files").exists()
            assert not home.is_dir() or list(home.glob("*.sqlite*")) == []

    def test_they_are_restarted_one_by_one_under_load_and_no_request_fails(self, hosts):
        rows = [{"instruction": f"Say {n}.", "output": f"Here is {n}."} for n in range(STEADY)]
        run = {"method": "random", "keep": 0.5, "measuring": {"model": str(hosts.model)}}
        with contextlib.ExitStack() as running:
            workers = [running.enter_context(hosts.workers(number)) for number in range(4)]
            made = hosts.client.post("/v1/datasets", json={"name": "steady", "rows": rows}, headers=WAIT)
            assert made.status_code == 201, made.text
            asked = {"dataset": "steady", "cron": "* * * * *", "timezone": "UTC", "run": run}
            made = hosts.client.post("/v1/schedules", json=asked)
            assert made.status_code == 201, made.text
            asyncio.run(_restarted_under_load(hosts, workers))
        fires = hosts.client.get("/v1/schedules/steady/fires?limit=100").json()["items"]
        assert fires
        assert len({fire["fire_at"] for fire in fires}) == len(fires)
        jobs = hosts.client.get("/v1/jobs?kind=schedule&limit=100").json()["items"]
        assert {job["id"] for job in jobs} == {fire["job_id"] for fire in fires if fire["job_id"]}


async def _restarted_under_load(hosts: Hosts, workers: list[Host]) -> None:
    """Both services and two workers are stopped and started again while clients ask through a balancer."""
    balancer = Balancer()
    balancer.upstreams |= set(hosts.urls)
    token = hosts.client.headers["Authorization"].split()[1]
    async with balancer.running() as url:
        await _until(lambda: len(balancer.ready) == 2)
        load = Load(url, token, ("/v1/jobs", "/v1/datasets/steady", "/v1/schedules"), "steady")
        at_work = asyncio.create_task(load.run())
        watcher, job = load.client(), _put_off(hosts.database)
        watching = asyncio.create_task(load.watch(watcher, job))
        for number in range(2):
            await _until(load.went_round())
            _make_due(hosts.database)
            hosts.urls[number] = await _restart(hosts.apis[number], hosts.urls[number], balancer, load)
        for worker in workers[:2]:
            await asyncio.to_thread(worker.stop)
            worker.start()
        await _until(load.went_round())
        load.over.set()
        await at_work
        (await watcher.post(f"/v1/jobs/{job}/cancel")).raise_for_status()
        assert await watching > 1  # one service, or both, ended the stream in between
        await watcher.aclose()
    assert load.failures == []
    hosts.client.base_url = hosts.urls[0]
    jobs = {job: hosts.client.get(f"/v1/jobs/{job}").json() for job in load.accepted.values()}
    assert {job["state"] for job in jobs.values()} == {"succeeded"}, jobs
    answer = hosts.client.post(
        "/v1/sql", json={"sql": "SELECT content FROM steady.turns WHERE role = 'user'"}
    )
    assert sorted(row for [row] in answer.json()["rows"]) == sorted(
        [f"Say {n}." for n in range(STEADY)] + [f"Add {n} and 1." for n in load.accepted]
    )


async def _restart(api: Host, url: str, balancer: Balancer, load: Load) -> str:
    """Restart a service with an upload under way at each of the two; its new address."""
    go_on = asyncio.Event()
    async with load.client() as client, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            begun = asyncio.Event()
            tasks.create_task(load.upload(client, begun, go_on))
            await begun.wait()
        api.process.terminate()
        await _until(lambda: url not in balancer.ready and not balancer.opening)
        async with httpx.AsyncClient(trust_env=False) as direct:  # it comes after all that the balancer sent
            assert (await direct.get(f"{url}/v1/health")).status_code == 200
        api.process.terminate()
        go_on.set()
        await asyncio.to_thread(api.stop)
    balancer.upstreams.remove(url)
    api.start()
    new = await asyncio.to_thread(api.url)
    balancer.upstreams.add(new)
    await _until(lambda: new in balancer.ready)
    return new


def _put_off(database: str) -> str:
    """The id of a job that waits for hours."""
    with contextlib.closing(Database(database)) as db, db.write() as session:
        project = session.scalars(select(Project.id)).one()
        job = Job(id=new_id("job"), project_id=project, kind="ingest", payload={})
        job.run_after = utcnow() + timedelta(hours=9)
        session.add(job)
    return job.id


def _make_due(database: str) -> None:
    """Let a minute pass for all schedules, so that both services find them due at the same time."""
    with contextlib.closing(Database(database)) as db, db.write() as session:
        session.execute(update(Schedule).values(next_fire_at=Schedule.next_fire_at - timedelta(minutes=1)))


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


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
