"""Which files a statement may see: of the project, by name, and nobody else's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from datapruner.catalog.database import Database
from datapruner.catalog.models import Base, Dataset, Job, Project, Run, Version, new_id, utcnow
from datapruner.errors import NotFoundError, StorageError, UsageError
from datapruner.query.ending import Ending
from datapruner.query.pool import SandboxPool
from datapruner.query.sandbox import RESERVED, QueryLimits
from datapruner.result import Result
from datapruner.service.sql import MOST_LISTED, MOST_NAMED, ProjectSql, limits
from datapruner.service.sql_columns import descriptions
from datapruner.service.storage import FolderStorage
from datapruner.settings import Settings
from tests.pipeline import Prune

LIMITS = QueryLimits(memory_bytes=128 << 20, threads=1)
MADE = utcnow()


def dataset(session: Session, name: str, project: str = "prj_ours", versions: int = 1) -> Dataset:
    """A dataset whose versions are all the same corpus."""
    made = Dataset(id=new_id("ds"), project_id=project, name=name)
    session.add(made)
    session.flush()
    for number in range(1, versions + 1):
        add_version(session, made, number)
    return made


def add_version(session: Session, made: Dataset, number: int, key: str = "corpus.duckdb") -> None:
    counts = dict.fromkeys(("accepted", "rejected", "duplicates", "new_rows", "bytes"), number)
    session.add(
        Version(
            id=new_id("ver"), dataset_id=made.id, number=number, key=key, corpus_hash="", rows=10 * number,
            report={}, **counts,
        )
    )  # fmt: skip
    session.flush()


def add_run(
    session: Session, made: Dataset, result: Result, *, published: bool = True, later: int = 0
) -> Run:
    job = Job(id=new_id("job"), project_id=made.project_id, kind="run", payload={}, state="running")
    run = Run(
        id=new_id("run"),
        project_id=made.project_id,
        dataset_id=made.id,
        job_id=job.id,
        config=result.run.config.model_dump(mode="json"),
        key=f"runs/{result.run.run_id}" if published else None,
        report=asdict(result.report) if published else None,
        published_at=MADE + timedelta(seconds=later) if published else None,
    )
    session.add(job)
    session.flush()
    session.add(run)
    session.flush()
    return run


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2, 2) as pool:
        yield pool


@pytest.fixture(scope="module")
def storage(first_run: Result, home: Path) -> FolderStorage:
    """The home of a library run, with its corpus under a plain name."""
    (home / "corpus.duckdb").symlink_to(home / "corpora" / f"{first_run.run.lineage['corpus']}.duckdb")
    return FolderStorage(home)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    Base.metadata.create_all(db.engine)
    with db.write() as session:
        session.add_all([Project(id="prj_ours", name="ours"), Project(id="prj_theirs", name="theirs")])
    yield db
    db.close()


@pytest.fixture
def sql(db: Database, storage: FolderStorage, pool: SandboxPool) -> ProjectSql:
    return ProjectSql(db, storage, pool, "prj_ours")


@pytest.fixture
def rows(sql: ProjectSql) -> Callable[..., list[dict[str, Any]]]:
    def rows(statement: str, parameters: Any = None) -> list[dict[str, Any]]:
        answer = sql.run(statement, parameters, LIMITS, "arrow", Ending())
        found: list[dict[str, Any]] = answer.result().table.to_pylist()
        return found

    return rows


Rows = Callable[..., list[dict[str, Any]]]


def test_a_dataset_shows_its_rows_and_its_latest_scores_under_its_name(
    db: Database, rows: Rows, first_run: Result
) -> None:
    with db.write() as session:
        add_run(session, dataset(session, "alpaca"), first_run)
    statement = """
        SELECT s.status, count(*) AS n FROM alpaca.sample_scores s LEFT JOIN Alpaca.samples USING (row)
        LEFT JOIN "ALPACA".originals o USING (row) GROUP BY 1 ORDER BY 1
    """
    report = first_run.report
    assert rows(statement) == [
        {"status": "error", "n": report.errored},
        {"status": "kept", "n": report.kept},
        {"status": "pruned", "n": report.pruned},
        {"status": "rejected", "n": report.rejected},
    ]
    [counts] = rows(
        "SELECT (SELECT count(*) FROM alpaca.turns) AS turns,"
        " (SELECT count(*) FROM alpaca.rejects) AS rejects,"
        " (SELECT count(*) FROM alpaca.masks) AS masks,"
        " (SELECT count(*) FROM alpaca.token_scores WHERE keep) AS tokens"
    )
    assert counts["rejects"] == report.rejected
    assert counts["masks"] == report.kept
    assert counts["tokens"] == report.kept_tokens
    assert counts["turns"] > report.kept


def test_the_latest_published_run_wins_and_others_go_by_their_id(
    db: Database, rows: Rows, first_run: Result, prune: Prune
) -> None:
    other = prune("random", 0.25)
    with db.write() as session:
        made = dataset(session, "alpaca")
        latest = add_run(session, made, other, later=5)
        older = add_run(session, made, first_run)  # its id is newer: it was started later and took less
        unfinished = add_run(session, made, other, published=False)
    assert rows("SELECT latest_run_id FROM datasets") == [{"latest_run_id": latest.id}]
    statement = "SELECT count(*) AS n FROM {}.masks"
    assert rows(statement.format("alpaca")) == [{"n": other.report.kept}]
    assert rows(statement.format(older.id)) == [{"n": first_run.report.kept}]
    with pytest.raises(UsageError, match="does not exist"):
        rows(statement.format(unfinished.id))


def test_versions_go_by_their_number(db: Database, rows: Rows) -> None:
    with db.write() as session:
        dataset(session, "alpaca", versions=2)
    assert rows("SELECT count(*) > 0 AS x FROM alpaca_v1.samples, alpaca_v2.samples") == [{"x": True}]
    for missing in ("alpaca_v3", "alpaca_v0", "alpaca_v01", "alpaca_v99999999999999999999"):
        with pytest.raises(UsageError, match="does not exist"):
            rows(f"FROM {missing}.samples")


def test_the_catalog_tables_say_what_there_is(db: Database, rows: Rows, first_run: Result) -> None:
    with db.write() as session:
        made = dataset(session, "alpaca", versions=3)
        dataset(session, "empty", versions=0)
        run = add_run(session, made, first_run)
        waiting = add_run(session, made, first_run, published=False)
    known = rows("SELECT * EXCLUDE (created_at, version_created_at) FROM datasets")
    assert known == [
        {
            "dataset": "alpaca", "dataset_id": made.id, "schema": "alpaca", "version": 3, "rows": 30,
            "accepted": 3, "rejected": 3, "duplicates": 3, "new_rows": 3, "bytes": 3, "latest_run_id": run.id,
        },
        known[1],
    ]  # fmt: skip
    assert (known[1]["dataset"], known[1]["version"]) == ("empty", None)
    shown = rows(
        "SELECT run_id, dataset, state, method, keep_share, ingested, kept, published_at IS NULL AS waits"
        " FROM runs ORDER BY run_id"
    )
    assert shown == [
        {
            "run_id": run.id, "dataset": "alpaca", "state": "succeeded", "method": "qtuning",
            "keep_share": 0.5, "ingested": first_run.report.ingested, "kept": first_run.report.kept,
            "waits": False,
        },
        {
            "run_id": waiting.id, "dataset": "alpaca", "state": "running", "method": "qtuning",
            "keep_share": 0.5, "ingested": None, "kept": None, "waits": True,
        },
    ]  # fmt: skip


def test_what_belongs_to_another_project_is_not_there(
    db: Database, rows: Rows, sql: ProjectSql, first_run: Result
) -> None:
    with db.write() as session:
        theirs = dataset(session, "secret", project="prj_theirs")
        run = add_run(session, theirs, first_run)
        dataset(session, "ours")
    for schema in ("secret", "secret_v1", theirs.id, run.id, '"SECRET"'):
        with pytest.raises(UsageError, match="does not exist"):
            rows(f"FROM {schema}.samples")
        with pytest.raises(NotFoundError):
            sql.describe(schema)
    assert {row["schema"] for row in rows("SHOW ALL TABLES")} == {"main", "ours"}
    assert [row["dataset"] for row in rows("FROM datasets")] == ["ours"]
    assert rows("FROM runs") == []
    assert {table.schema_name for table in sql.describe().tables} == {"main", "ours"}


def test_two_projects_may_use_the_same_name(db: Database, rows: Rows, first_run: Result) -> None:
    with db.write() as session:
        dataset(session, "alpaca")
        add_run(session, dataset(session, "alpaca", project="prj_theirs"), first_run)
    assert len(rows("FROM alpaca.samples LIMIT 1")) == 1
    with pytest.raises(UsageError, match="does not exist"):
        rows("FROM alpaca.sample_scores")


def test_only_what_is_named_is_mounted(db: Database, rows: Rows) -> None:
    with db.write() as session:
        for name in ("alpaca", "dolly", "runs"):
            dataset(session, name)
        broken = dataset(session, "broken", versions=0)
        add_version(session, broken, 1, key="gone.duckdb")
    mounted = "SELECT count(DISTINCT database_name) AS n FROM {}() WHERE database_name LIKE 'attached%'"
    assert rows("SELECT 'dolly' AS x, (FROM alpaca.samples SELECT count(*) > 0) AS y") == [
        {"x": "dolly", "y": True}
    ]
    assert rows("SELECT count(*) AS n FROM datasets") == [{"n": 4}]
    assert rows("SELECT (SELECT count(*) FROM runs) AS t, count(*) > 0 AS s FROM runs.samples") == [
        {"t": 0, "s": True}
    ]
    with pytest.raises(StorageError, match=r"gone\.duckdb"):
        rows("FROM broken.samples")
    with pytest.raises(StorageError):
        rows(mounted.format("duckdb_tables"))


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW ALL TABLES",
        "FROM information_schema.tables",
        "FROM duckdb_views() WHERE NOT internal",
        "FROM pg_tables UNION ALL BY NAME FROM pg_views",
    ],
)
def test_listings_show_the_first_datasets(statement: str, db: Database, rows: Rows) -> None:
    with db.write() as session:
        dataset(session, "alpaca")
    text = str(rows(statement))
    assert "alpaca" in text
    assert "rejects" in text


def test_a_listing_of_many_datasets_stays_bounded(db: Database, rows: Rows) -> None:
    with db.write() as session:
        for number in range(MOST_LISTED + 1):
            dataset(session, f"d{number:03}")
    shown = {row["schema"] for row in rows("SHOW ALL TABLES")} - {"main"}
    assert shown == {f"d{number:03}" for number in range(MOST_LISTED)}
    assert rows(f"SELECT count(*) > 0 AS x FROM d{MOST_LISTED:03}.samples") == [{"x": True}]


def test_naming_too_many_schemas_is_refused(db: Database, rows: Rows) -> None:
    with db.write() as session:
        dataset(session, "a", versions=MOST_NAMED + 1)
    names = ", ".join(f"a_v{number + 1}.samples t{number}" for number in range(MOST_NAMED + 1))
    with pytest.raises(UsageError, match=f"names {MOST_NAMED + 1} schemas, at most {MOST_NAMED}"):
        rows(f"SELECT count(*) FROM {names}")


def test_a_statement_of_very_many_words_is_looked_up_all_the_same(db: Database, rows: Rows) -> None:
    with db.write() as session:
        dataset(session, "zebra")
    words = " ".join(f"w{number}" for number in range(12_000))
    assert rows(f"SELECT count(*) > 0 AS x FROM zebra.samples /* {words} */") == [{"x": True}]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_dataset_called_like_one_of_duckdbs_schemas_goes_by_its_id(
    name: str, db: Database, rows: Rows
) -> None:
    with db.write() as session:
        made = dataset(session, name)
    assert rows("SELECT schema FROM datasets") == [{"schema": made.id}]
    assert rows(f"SELECT count(*) > 0 AS x FROM {made.id}.samples, {name}_v1.samples") == [{"x": True}]
    assert rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'pg_catalog'") == []
    assert rows(f"SELECT '{name}' AS x") == [{"x": name}]
    assert made.id in str(rows("SHOW ALL TABLES"))


@pytest.mark.parametrize(
    "name", ["select", "pg_temp", "duckdb", "sqlite_master", "attached", "public", "runs"]
)
def test_a_dataset_may_be_called_like_a_word_of_sql(name: str, db: Database, rows: Rows) -> None:
    with db.write() as session:
        dataset(session, name)
    assert rows(f'SELECT count(*) > 0 AS x FROM "{name}".samples') == [{"x": True}]


def test_a_dataset_called_like_anothers_version_or_run_comes_first(
    db: Database, rows: Rows, first_run: Result
) -> None:
    with db.write() as session:
        run = add_run(session, dataset(session, "alpaca", versions=2), first_run)
        dataset(session, "alpaca_v1", versions=1)
        dataset(session, run.id, versions=1)
    assert rows(f"SELECT count(*) > 0 AS x FROM {run.id}.samples") == [{"x": True}]
    with pytest.raises(UsageError, match="does not exist"):
        rows(f"FROM {run.id}.masks")


def test_a_file_that_cannot_be_opened_is_the_storages_fault_and_shows_no_path(
    db: Database, pool: SandboxPool, tmp_path: Path
) -> None:
    (tmp_path / "broken.duckdb").write_text("no database")
    with db.write() as session:
        add_version(session, dataset(session, "alpaca", versions=0), 1, key="broken.duckdb")
    with pytest.raises(StorageError) as caught:
        ProjectSql(db, FolderStorage(tmp_path), pool, "prj_ours").run(
            "FROM alpaca.samples", None, LIMITS, "arrow", Ending()
        )
    assert str(tmp_path) not in str(caught.value)


def test_parameters_are_not_looked_at_for_names(db: Database, rows: Rows) -> None:
    with db.write() as session:
        add_version(session, dataset(session, "broken", versions=0), 1, key="gone.duckdb")
        dataset(session, "alpaca")
    assert rows("SELECT ? AS x FROM alpaca.samples LIMIT 1", ["broken.samples"]) == [{"x": "broken.samples"}]


@pytest.mark.parametrize(
    "statement",
    [
        "WITH x AS (COPY (SELECT 1) TO 'attached://0') FROM x",
        "WITH x AS (INSERT INTO alpaca.samples SELECT * FROM alpaca.samples RETURNING *) FROM x",
        'WITH x AS (DELETE FROM "attached 0".samples RETURNING *) FROM x',
        "DROP TABLE datasets",
    ],
)
def test_nothing_can_be_changed(statement: str, db: Database, rows: Rows, storage: FolderStorage) -> None:
    with db.write() as session:
        dataset(session, "alpaca")
    corpus = storage.local("corpus.duckdb")
    before = hashlib.sha256(corpus.read_bytes()).hexdigest()
    with pytest.raises(UsageError):
        rows(f"{statement} -- alpaca datasets")
    assert hashlib.sha256(corpus.read_bytes()).hexdigest() == before
    assert rows("SELECT count(*) AS n FROM datasets") == [{"n": 1}]


# The schema


def test_every_column_is_described(db: Database, sql: ProjectSql, first_run: Result) -> None:
    with db.write() as session:
        add_run(session, dataset(session, "alpaca"), first_run)
    tables = sql.describe().tables
    assert {(table.schema_name, table.table) for table in tables} == {
        *(("main", name) for name in ("datasets", "runs")),
        *(("alpaca", name) for name in ("samples", "turns", "rejects", "originals", "provenance")),
        *(("alpaca", name) for name in ("sample_scores", "masks", "scored", "token_scores")),
    }
    for table in tables:
        assert table.columns
        for column in table.columns:
            assert column.type
            assert column.description.strip()
            assert "not installed" not in column.description, (table.table, column.name)


def test_a_score_of_a_method_that_is_gone_is_said_to_be_one() -> None:
    texts = descriptions("sample_scores", ["donod", "gone"])
    assert texts["donod"].startswith("donod: ")
    assert texts["gone"] == "score of a method that is not installed here"


def test_one_schema_can_be_described_by_any_of_its_names(
    db: Database, sql: ProjectSql, first_run: Result
) -> None:
    with db.write() as session:
        made = dataset(session, "alpaca")
        run = add_run(session, made, first_run)
    for name in ("Alpaca", made.id, "alpaca_v1", run.id):
        assert {table.schema_name for table in sql.describe(name).tables} == {name.lower()}


def test_limits_come_from_the_settings_and_max_rows_only_lowers_them() -> None:
    settings = Settings(sql_rows=100, sql_seconds=2)
    assert (limits(settings).rows, limits(settings).seconds) == (100, 2)
    assert limits(settings, 7).rows == 7
    assert limits(settings, 1000).rows == 100
