"""Rows of a run by a score, against its table sorted by polars."""

from __future__ import annotations

from datapruner.reporting.ranking import ranked
from datapruner.result import Result
from datapruner.schemas.ranking import Ranking


def test_rows_by_a_score_are_those_of_the_table(first_run: Result) -> None:
    table = first_run.scores
    for status in ("kept", "pruned"):
        found = ranked(first_run.run, first_run.corpus_file, Ranking(by="entropy", status=status, limit=50))
        wanted = table.filter((table["status"] == status) & table["entropy"].is_finite()).sort(
            ["entropy", "row"]
        )
        assert [row.row for row in found.rows] == wanted["row"].to_list()
        assert [row.scores["entropy"] for row in found.rows] == wanted["entropy"].to_list()
        assert found.total == len(wanted)
    copies = ranked(first_run.run, first_run.corpus_file, Ranking(by="n_response_tokens", reason="DUPLICATE"))
    assert {row.reason for row in copies.rows} == {
        reason for reason in table["reason"].drop_nulls() if "duplicate" in reason.lower()
    }
