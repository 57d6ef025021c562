"""How much to keep is read by one rule, and what may mean two things is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from datapruner.errors import UsageError
from datapruner.request.keep import Amount, Keep, parse_keep


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.25, Keep(share=0.25)),
        ("0.25", Keep(share=0.25)),
        ("25%", Keep(share=0.25)),
        (" 12.5 % ", Keep(share=0.125)),
        ("1%", Keep(share=0.01)),
        (1.0, Keep(share=1.0)),
        ("1.0", Keep(share=1.0)),
        ("1.", Keep(share=1.0)),
        ("100%", Keep(share=1.0)),
        ("1e-2", Keep(share=0.01)),
        (np.float32(0.5), Keep(share=0.5)),
        (Fraction(1, 4), Keep(share=0.25)),
        (2, Keep(count=2)),
        (500, Keep(count=500)),
        (" 500 ", Keep(count=500)),
        (np.int64(500), Keep(count=500)),
    ],
)
def test_a_point_or_a_per_cent_sign_makes_a_share_and_a_whole_number_is_a_count(
    value: Any, kept: Keep
) -> None:
    assert parse_keep(value) == kept


@pytest.mark.parametrize("value", [1, "1", " 1 ", "+1", "01", np.int64(1)])
def test_a_plain_one_is_refused_with_how_to_write_one_sample_and_all(value: Any) -> None:
    with pytest.raises(UsageError, match="1 may mean one sample or all of them") as caught:
        parse_keep(value)
    assert caught.value.field == "keep"
    assert caught.value.remedy is not None
    for form in ("count=1", '{"count": 1}', "100%", '{"share": 1}'):
        assert form in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("count=1", Keep(count=1)),
        ("share=1", Keep(share=1.0)),
        (" share = 25 % ", Keep(share=0.25)),
        ("tokens=90000", Keep(tokens=90000)),
        ({"count": 1}, Keep(count=1)),
        ({"share": 1}, Keep(share=1.0)),
        ({"share": "25%"}, Keep(share=0.25)),
        ({"tokens": 9}, Keep(tokens=9)),
        ({"share": 0.5, "count": None, "tokens": None}, Keep(share=0.5)),
        ('{"count": 1}', Keep(count=1)),
        (Keep(count=1), Keep(count=1)),
    ],
)
def test_by_name_every_amount_can_be_said(value: Any, kept: Keep) -> None:
    assert parse_keep(value) == kept


def test_a_token_budget_is_neither_share_nor_count() -> None:
    assert parse_keep(tokens=1000) == Keep(tokens=1000)


@pytest.mark.parametrize(
    "value",
    [
        0,
        0.0,
        -1,
        -0.5,
        1.01,
        2.0,
        "500.0",
        "0%",
        "101%",
        float("nan"),
        float("inf"),
        True,
        [0.5],
        "count=0",
        "",
        "half",
        "25 percent",
        "%",
        "0,25",
        "1/4",
        "--5",
        "nan",
        "²",
        "1_000",
        "{",
        "count=many",
        "count=1.0",
        10**400,
        -(10**400),
        2**63,
        "9" * 30,
        "9" * 5000,
        {"count": True},
        {"share": 2},
    ],
)
def test_anything_else_is_refused_in_words_that_say_what_is_possible(value: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^keep: a share over 0 and at most 1, .*, or a count of "
    ) as caught:
        parse_keep(value)
    assert caught.value.field == "keep"
    assert len(str(caught.value)) < 300
    assert caught.value.remedy == "a share is of the measured samples and rounds up"


@pytest.mark.parametrize("value", [{}, {"size": 3}, {"share": 0.5, "count": 3}, "size=3"])
def test_a_name_is_one_of_three(value: Any) -> None:
    with pytest.raises(UsageError, match="keep: by name, one of share, count and tokens"):
        parse_keep(value)


def test_nothing_says_that_it_is_missing() -> None:
    with pytest.raises(UsageError, match="how much to keep is missing"):
        parse_keep(None)


def test_both_an_amount_and_a_token_budget_are_refused() -> None:
    with pytest.raises(UsageError, match="a share or count, or a token budget, not both"):
        parse_keep(0.5, tokens=100)


@pytest.mark.parametrize("tokens", [0, -5, 2**63])
def test_a_token_budget_of_nothing_is_refused(tokens: int) -> None:
    with pytest.raises(UsageError, match="keep: a token budget is a whole number from 1 on"):
        parse_keep(tokens=tokens)


@given(st.text(max_size=8))
def test_any_text_is_an_amount_or_a_usage_error(text: str) -> None:
    try:
        keep = parse_keep(text)
    except UsageError:
        return
    assert sum(each is not None for each in (keep.count, keep.share, keep.tokens)) == 1
    assert keep.share is None or 0 < keep.share <= 1


@given(st.floats(0, 1, exclude_min=True))
def test_a_share_survives_being_written_as_text(share: float) -> None:
    assert parse_keep(repr(share)) == parse_keep(share) == Keep(share=share)


@given(
    st.one_of(
        st.builds(lambda share: Keep(share=share), st.floats(0, 1, exclude_min=True)),
        st.builds(lambda count: Keep(count=count), st.integers(1, 2**63 - 1)),
        st.builds(lambda tokens: Keep(tokens=tokens), st.integers(1, 2**63 - 1)),
    )
)
def test_an_amount_survives_the_way_to_a_service(keep: Keep) -> None:
    field = TypeAdapter(Amount)
    sent = field.dump_python(keep, mode="json")
    assert field.validate_python(sent) == keep


def test_a_share_and_a_count_together_are_no_keep() -> None:
    with pytest.raises(ValidationError, match="exactly one of"):
        Keep(share=0.5, count=3)
