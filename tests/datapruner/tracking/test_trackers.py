"""Runs in the stores of MLflow, Weights & Biases and trackio: the real libraries, without a network."""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datapruner.errors import UsageError
from datapruner.progress import Silent
from datapruner.result import Result
from datapruner.tracking import following
from tests.command_line import Said
from tests.evaluations import evaluation
from tests.pipeline import Prune

# What these libraries warn of at their import is theirs.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
Command = Callable[..., Said]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all three keep their entries in, by their own settings."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "corpora")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_DATA_DIR", str(folder))
        patch.setenv("WANDB_CACHE_DIR", str(folder))
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
            patch.delitem(sys.modules, name)  # which read that setting when trl, say, imported them
        patch.chdir(folder)  # MLflow keeps artifacts in the folder that it runs in
        yield folder


@pytest.fixture(scope="module")
def logged(stores: Path, prune: Prune) -> Result:
    """A run that all three were told of."""
    return prune("qtuning", 0.5, log_to=["mlflow", "wandb", "trackio", "mlflow"])


def counts_of(metrics: dict[str, Any]) -> dict[str, Any]:
    names = ("ingested", "kept", "pruned", "rejected", "errored", "kept_tokens")
    return {name: metrics[name] for name in names}


def expected(result: Result) -> dict[str, Any]:
    report = result.report
    return {
        "ingested": report.ingested,
        "kept": report.kept,
        "pruned": report.pruned,
        "rejected": report.rejected,
        "errored": report.errored,
        "kept_tokens": report.kept_tokens,
    }


FILES = {"report.html", "README.md", "croissant.json", "subset.run.json"}


def test_mlflow_has_the_request_the_counts_the_lineage_and_the_files(logged: Result, stores: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("corpora")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], "tags.`datapruner.kind` = 'run'")
    assert run.info.status == "FINISHED"
    assert counts_of(run.data.metrics) == expected(logged)
    reasons = {name: n for name, n in run.data.metrics.items() if name.startswith("reasons/")}
    assert sum(reasons.values()) == sum(logged.report.reasons.values())
    assert run.data.metrics["thresholds/ppl_low"] == logged.report.thresholds["ppl_low"]
    assert run.data.params["keep.share"] == "0.5"
    assert run.data.params["measuring.model"] == logged.run.config.measuring.model
    assert run.data.tags["datapruner.run"] == logged.run.run_id
    assert run.data.tags["lineage.corpus"] == logged.run.lineage["corpus"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files >= FILES
    place = Path(client.download_artifacts(run.info.run_id, "subset.run.json"))
    assert json.loads(place.read_text())["run"] == logged.run.run_id


def test_wandb_offline_has_them_in_its_run_file_and_nothing_of_the_machine(
    logged: Result, stores: Path
) -> None:
    [file] = stores.glob("wandb/offline-run-*/*.wandb")
    records = list(records_of(file))
    [run] = [record.run for record in records if record.HasField("run")][:1]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.run_group, run.job_type) == ("datapruner", logged.run.run_id, "run")
    assert config["request"]["keep.share"] == "0.5"
    assert config["lineage"]["lineage.corpus"] == logged.run.lineage["corpus"]
    [row] = [record.history for record in records if record.HasField("history")]
    metrics = {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in row.item}
    assert counts_of(metrics) == expected(logged)
    artifacts = [record.request.log_artifact.artifact for record in records if record.HasField("request")]
    artifacts += [record.artifact for record in records if record.HasField("artifact")]
    names = {entry.path for artifact in artifacts for entry in artifact.manifest.contents}
    assert names >= FILES
    assert not [record for record in records if record.HasField("stats")]
    assert not list(file.parent.glob("files/*"))  # no packages, code, or machine
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def records_of(file: Path) -> Iterator[Any]:
    """The records of a run file: a log of blocks of 32 KiB, with the record's parts in them, as LevelDB's."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (1 << 15) - place % (1 << 15) < 7:
            place += (1 << 15) - place % (1 << 15)
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_trackio_has_them_in_its_own_store(logged: Result, stores: Path) -> None:
    with sqlite3.connect(stores / "trackio" / "datapruner.db") as store:
        [(metrics,)] = store.execute("SELECT metrics FROM metrics").fetchall()
        [(config,)] = store.execute("SELECT config FROM configs").fetchall()
    store.close()
    assert counts_of(json.loads(metrics)) == expected(logged)
    assert json.loads(config)["keep.share"] == "0.5"
    assert json.loads(config)["datapruner.run"] == logged.run.run_id


def test_an_evaluation_is_an_entry_beside_that_of_its_run(logged: Result, stores: Path) -> None:
    from mlflow import MlflowClient

    found = evaluation(run=logged.run.run_id)
    following.log_evaluations(["mlflow", "openlineage"], [found], pytest.fail)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("corpora")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], "tags.`datapruner.kind` = 'evaluation'")
    assert run.data.tags["datapruner.run"] == logged.run.run_id
    assert run.data.tags["verdict"] == found.verdict
    [against] = [each for each in found.overall if each.control == "random"]
    difference = run.data.metrics["against/random/nats_per_token/difference"]
    assert difference == against.nats_per_token.difference


class Recorder(Silent):
    """Remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self.stages.append(name)


def test_a_tracker_that_fails_is_warned_of_and_the_run_stands(
    stores: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch, logged: Result
) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "nowhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:s3cret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    heard = Recorder()
    with pytest.warns(UserWarning, match="not logged to") as said:
        again = prune("qtuning", 0.5, log_to=["trackio", "mlflow"], progress=heard)
    trackio, mlflow = [str(each.message) for each in said]
    assert trackio.startswith("not logged to trackio: ValueError: `server_url` must be")
    assert mlflow.startswith("not logged to mlflow: MlflowException: API request to http://127.0.0.1:1/")
    assert heard.stages[-2:] == ["logging to trackio", "logging to mlflow"]
    assert again.report == logged.report


def test_the_command_line_logs_and_its_output_is_the_document_alone(
    stores: Path, command: Command, home: Path, corpus_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {corpus_file}\nmeasuring: {{model: {tiny_folder}}}\nmethods: [length]\nlog_to: [trackio]\n"
        f"keep: 0.5\nexport: {{subset: kept.parquet}}\n"
    )
    said = command("run", recipe, "--device", "cpu", "--json", home=home)
    assert said.code == 0, said.err
    assert said.json["report"]["kept"] > 0
    with sqlite3.connect(stores / "trackio" / "datapruner.db") as store:
        configs = [json.loads(each) for (each,) in store.execute("SELECT config FROM configs")]
    store.close()
    assert said.json["run"] in {config["datapruner.run"] for config in configs}


def test_an_unknown_tracker_and_a_missing_extra_are_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, prune: Prune, command: Command, corpus_file: Path
) -> None:
    with pytest.raises(UsageError, match="no tracker is called 'neptune'") as unknown:
        prune("qtuning", 0.5, log_to=["neptune"])
    assert "mlflow" in str(unknown.value.remedy)
    monkeypatch.setattr(following, "find_spec", lambda name: None)
    said = command("prune", corpus_file, "--keep", "0.5", "--log-to", "wandb")
    assert said.code == 2
    assert "wandb is not installed (pip install 'datapruner[wandb]')" in said.err
    away = command("prune", corpus_file, "--keep", "0.5", "--log-to", "wandb", "--url", "http://127.0.0.1:1")
    assert "--log-to is not for a service" in away.err


def test_names_of_metrics_are_what_every_tracker_takes() -> None:
    from datapruner.tracking.entry import named

    assert named("2 < 3: a/b\n'c' é") == "2 _ 3_ a_b_c"
    assert named("///") == "_"
