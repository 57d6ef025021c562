"""Every error of the tree as a problem document."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from datapruner import errors
from datapruner.catalog.database import Database
from datapruner.service.problems import OF_THE_DATABASE, of_request, problem


def every_error() -> list[type[errors.DataprunerError]]:
    found, left = [], [errors.DataprunerError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += [each for each in kind.__subclasses__() if each.__module__ == "datapruner.errors"]
    return found


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_type_of_its_own_and_a_status_that_fits(kind: type[errors.DataprunerError]) -> None:
    about = problem(kind("no such thing", remedy="look", field="run"))
    assert about["type"].startswith("/problems/")
    assert (about["detail"], about["field"], about["remedy"]) == ("no such thing", "run", "look")
    others = [problem(each("x"))["type"] for each in every_error() if each is not kind]
    assert about["type"] not in others
    ours = about["status"] >= 500
    assert ours == (kind.exit_code == 1), "exit code 1 and 5xx both say that it is our fault"


def test_a_subclass_is_told_as_its_base() -> None:
    class Special(errors.NotFoundError):
        pass

    assert problem(Special("gone"))["status"] == 404


@pytest.mark.parametrize("kind", every_error())
def test_no_error_tells_where_files_lie(kind: type[errors.DataprunerError]) -> None:
    place = "/srv/private/files/projects/prj_1/x.duckdb"
    error = kind(f"{place}: cannot be used: IO Error: '{place}' is damaged", remedy=f"look at {place}")
    about = problem(error)
    assert about["detail"] == "x.duckdb: cannot be used: IO Error: 'x.duckdb' is damaged"
    assert about["remedy"] == "look at x.duckdb"
    assert place in str(error), "whoever runs it finds it in the log"


def test_what_the_client_named_is_quoted() -> None:
    about = problem(errors.DeniedError("/etc/some/file: outside of the import roots", field="source.path"))
    assert about["detail"] == "/etc/some/file: outside of the import roots"


def test_want_of_space_is_told_whatever_it_is_wrapped_in() -> None:
    for kind in every_error():
        error = kind("/srv/private/x.parquet cannot be written")
        error.__cause__ = OSError(28, "No space left on device", "/srv/private/x.parquet")
        about = problem(error)
        assert (about["type"], about["status"]) == ("/problems/storage-unavailable", 503)
        assert about["detail"] == "x.parquet cannot be written: No space left on device"
    about = problem(OSError(28, "No space left on device", "/srv/private/x.parquet"))
    assert (about["type"], about["detail"]) == (
        "/problems/storage-unavailable",
        "files cannot be written: No space left on device",
    )


def test_other_errors_do_not_tell_their_message() -> None:
    about = problem(KeyError("SECRET"))
    assert about["status"] == 500
    assert "SECRET" not in str(about)


def test_what_the_database_raises_is_told_in_words_of_ours(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/no_tables.sqlite")
    for statement, value, kind in (
        ("SELECT * FROM nothing", 0, errors.NotReadyError),
        ("SELECT :value", 2**70, errors.UsageError),
    ):
        with db.read() as session, pytest.raises(OF_THE_DATABASE) as caught:
            session.execute(text(statement), {"value": value})
        assert type(of_request(caught.value)) is kind
    db.close()
    other = errors.ConflictError("no error of a database")
    assert of_request(other) is other
