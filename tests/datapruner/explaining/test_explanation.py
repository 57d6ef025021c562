"""How a turn's text is cut into pieces by the fate of its tokens."""

from __future__ import annotations

from datapruner.explaining.explanation import Piece, State, pieces_of

Spans = list[tuple[int, int, bool, State]]


def test_pieces_follow_the_fate_of_their_characters() -> None:
    spans: Spans = [
        (0, 3, False, "kept"),
        (3, 5, False, "pruned"),
        (5, 9, False, "pruned"),
        (10, 10, True, "kept"),
    ]
    assert pieces_of("One two up", spans) == [
        Piece("One", "kept"),
        Piece(" two u", "pruned"),
        Piece("p", "untrained"),
        Piece("", "kept"),
    ]


def test_a_character_of_several_tokens_is_kept_if_one_of_them_is() -> None:
    spans: Spans = [(0, 1, False, "kept"), (0, 1, False, "pruned")]
    assert pieces_of("🎉", spans) == [Piece("🎉", "kept")]


def test_a_turn_that_is_not_trained_on_is_one_piece_and_an_empty_one_none() -> None:
    assert pieces_of("Hi", []) == [Piece("Hi", "untrained")]
    assert pieces_of("", []) == []
