"""Rows of JSON as text, whose values stay as they are written."""

from __future__ import annotations

from datapruner.rows.json_text import members, spliced, strict


def test_members_are_the_texts_of_the_values() -> None:
    row = '{ "a" : 1.00 ,"b":{"x": [ 1 ]},"c":"\\u00e9}\\"{" , "a":\t1e2}'
    assert members(row.encode()) == {"a": "1e2", "b": '{"x": [ 1 ]}', "c": '"\\u00e9}\\"{"'}
    assert members(b"{ }") == {}


def test_words_that_json_lacks_become_text_and_other_rows_stay_as_they_are() -> None:
    assert strict(b'{"a":NaN,"b":[-Infinity,1.5]}') == b'{"a":"NaN","b":["-Infinity",1.5]}'
    assert strict(b'{"a" : "NaN"}') == b'{"a" : "NaN"}'


def test_objects_are_joined_as_they_are_written() -> None:
    assert spliced(b'{ "a" : 1.0 }', b"{}", b'{"b":[2]}') == b'{ "a" : 1.0 ,"b":[2]}'
    assert spliced(b"{}", b'{"b":2}') == b'{"b":2}'
    assert spliced(b"{}", b"{ }") == b"{}"
