"""Kept rows in the tokens of the model to train, against its own renderer and the characters kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

import datapruner
from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError, NothingSurvivedError, UsageError
from datapruner.measuring.measure import Machine
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.outputs import training_rows
from datapruner.outputs.carrying import CarriedCounts, rows_for
from datapruner.outputs.training_rows import TrainingRows
from datapruner.progress import Silent
from datapruner.result import Result
from datapruner.runs import published
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.models import fingerprint, tokenizer_file
from tests import chat_templates as ct
from tests.pipeline import Prune
from tests.tiny_model import POSITIONS

Row = tuple[list[int], list[int]]
Carry = Callable[..., tuple[TrainingRows, CarriedCounts]]


def save(tokenizer: Any, folder: Path, positions: int = 4096) -> Path:
    """What there is of a model without weights."""
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=positions).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models to train: of every kind of tokenizer, with templates that trim or mark answers."""
    made = {
        "byte-level": ct.byte_level(ct.LLAMA3),
        "sentencepiece": ct.sentencepiece_like(ct.MISTRAL),
        "wordpiece": ct.word_piece(ct.CHATML_MARKED),
        "unigram": ct.unigram(None),
    }
    return {name: save(each, tmp_path_factory.mktemp("target") / name) for name, each in made.items()}


@pytest.fixture(scope="module")
def pruned(prune: Prune) -> Result:
    """A run that keeps most samples, some of them in part, one cut at the proxy's limit."""
    return prune("qtuning", 0.8, token_keep=0.4)


@pytest.fixture
def carry(pruned: Result, home: Path, idle: IdleWorkers) -> Carry:
    def made(model: Path | str, run: Result = pruned, **how: Any) -> tuple[TrainingRows, CarriedCounts]:
        machine = Machine(("cpu",), threads=1, idle=idle)
        with Corpus(published.corpus_path(run.run, home)) as corpus:
            return rows_for(run.run, corpus, home, machine, str(model), progress=Silent(), **how)

    return made


def read(rows: TrainingRows) -> dict[str, Row]:
    return {name: (ids.tolist(), labels.tolist()) for each in rows for name, ids, labels, _ in each.rows()}


def test_the_same_tokenizer_gives_the_same_rows(
    carry: Carry, pruned: Result, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "_BATCH", 7)
    rows, counts = carry(tiny_folder)
    found, expected = read(rows), read(training_rows.of_run(pruned.run, home))
    assert found == expected
    assert max(len(ids) for ids, _ in found.values()) == POSITIONS
    trained = sum(label != -100 for _, labels in found.values() for label in labels)
    assert 0 < trained < counts.response_tokens
    assert (counts.rows, counts.carried, counts.refused, counts.on_border) == (len(found), len(found), {}, 0)


def by_hand(
    encoded: Encoded, kept: set[tuple[int, int]], read: set[tuple[int, int]], some: Any
) -> dict[int, bool]:
    """Of the tokens that have characters which were read: whether all (or any) of these are kept."""
    fates = {}
    for position, turn, start, end in zip(
        encoded.position, encoded.turn, encoded.char_start, encoded.char_end, strict=True
    ):
        characters = [(int(turn), at) for at in range(start, end) if (int(turn), at) in read]
        if characters:
            fates[int(position)] = some(each in kept for each in characters)
    return fates


@pytest.mark.parametrize("characters", ["all", "any"])
@pytest.mark.parametrize("name", ["byte-level", "sentencepiece", "wordpiece", "unigram"])
def test_tokens_are_trained_on_whose_characters_were_kept(
    carry: Carry, pruned: Result, targets: dict[str, Path], home: Path, name: str, characters: Any
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(targets[name])
    renderer = ChatRenderer(tokenizer)
    rows, counts = carry(targets[name], characters=characters)
    found = read(rows)
    assert counts.carried == counts.rows == len(found) + rows.counts.untrained
    spans = {
        sample: {(s["turn"], at) for s in kept for at in range(s["start"], s["end"])}
        for sample, kept in pruned.masks.select("sample_id", "kept_spans").iter_rows()
    }
    tokens = pruned.token_scores.group_by("sample_id").agg("turn", "char_start", "char_end")
    seen = {
        sample: {(turn, at) for turn, a, b in zip(*lists, strict=True) for at in range(a, b)}
        for sample, *lists in tokens.iter_rows()
    }
    compared = 0
    with Corpus(published.corpus_path(pruned.run, home)) as corpus:
        chats = {name: chat for batch in corpus.conversations() for _, name, chat in batch}
    for sample, (ids, labels) in found.items():
        text = "".join(turn.content for turn in chats[sample].turns)
        (encoded,) = renderer.render([chats[sample]])
        assert isinstance(encoded, Encoded)
        assert encoded.input_ids[: len(ids)].tolist() == ids
        if not text.isascii() or len(ids) < len(encoded.input_ids):
            continue  # parts of a character, and rows that were cut, are told apart in other tests
        expected = by_hand(encoded, spans[sample], seen[sample], all if characters == "all" else any)
        assert {at: labels[at] != -100 for at in expected} == expected
        responses = set(encoded.position.tolist())
        trained = [at for at, label in enumerate(labels) if label != -100]
        assert responses.issuperset(trained)
        assert [labels[at] for at in trained] == [ids[at] for at in trained]
        compared += len(expected)
    assert compared > 50
    assert (counts.on_border > 0) == (name == "wordpiece")  # whose unknown words are longer than our tokens


def test_tool_calls_are_carried_by_their_letters(
    carry: Carry, home: Path, options: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    calls = [{"name": f"find_{at}", "arguments": {"city": "Lima", "days": at}} for at in range(9)]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Weather {at}?"},
                {"role": "assistant", "content": "I look.", "tool_calls": [{"function": call}]},
            ]
        }
        for at, call in enumerate(calls)
    ]
    run = datapruner.prune(chats, "qtuning", 1.0, token_keep=0.5, home=home, **options)
    target = save(ct.sentencepiece_like(ct.CHATML), tmp_path / "target")
    compared = {True: 0, False: 0}
    found = read(carry(target, run)[0])
    for sample, (ids, labels) in read(training_rows.of_run(run.run, home)).items():
        letters: list[bool | None] = []
        for folder, row in ((tiny_folder, (ids, labels)), (target, found[sample])):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            texts = [tokenizer.decode(row[0][:count]) for count in range(len(row[0]) + 1)]
            trained = [label != -100 for label in row[1]]
            spans = [(len(a), len(b)) for a, b in pairwise(texts)]
            if not letters:
                text = texts[-1]
                letters = [keeps for (a, b), keeps in zip(spans, trained, strict=True) for _ in range(a, b)]
                continue
            assert texts[-1] == text
            begins, ends = text.index("<tool_call>"), text.index("<|im_end|>", text.index("<tool_call>"))
            for (a, b), keeps in zip(spans, trained, strict=True):
                if begins < a and b < ends:
                    assert keeps == all(letters[a:b]), text[a:b]
                    compared[keeps] += 1
    assert min(compared.values()) > 20


def test_where_the_proxy_stopped_reading_the_row_ends(
    carry: Carry, prune: Prune, targets: dict[str, Path]
) -> None:
    whole = prune("random", 1.0)
    rows, counts = carry(targets["unigram"], whole)
    longest = max(read(rows).values(), key=lambda row: len(row[0]))
    assert longest[1][-1] == longest[0][-1]  # a number in mid-answer, and no end token behind it
    assert len(longest[0]) < 4096
    assert counts.cut == 0


def test_rows_over_the_other_model_s_own_limit_are_cut_and_counted(
    carry: Carry, prune: Prune, tmp_path: Path
) -> None:
    short = save(ct.byte_level(ct.CHATML), tmp_path / "short", positions=40)
    rows, counts = carry(short, prune("random", 1.0))
    found = read(rows)
    assert max(len(ids) for ids, _ in found.values()) == 40
    assert counts.cut > 0
    reasons = [reason for reason in counts.refused if "to max_length 40, all that the model reads" in reason]
    assert counts.rows == len(found) + sum(counts.refused.values())
    assert reasons


def test_rows_that_the_other_template_refuses_are_counted_with_the_reason(
    carry: Carry, prune: Prune, tmp_path: Path
) -> None:
    strict = "{%- if messages|length > 2 -%}{{ raise_exception('one turn each') }}{%- endif -%}" + ct.CHATML
    target = save(ct.byte_level(strict), tmp_path / "strict")
    rows, counts = carry(target, prune("random", 1.0))
    found = read(rows)
    [(reason, count)] = [(each, n) for each, n in counts.refused.items() if "one turn each" in each]
    assert count == 2
    assert counts.carried == len(found) == counts.rows - count, reason


def test_a_template_that_refuses_everything_says_why(carry: Carry, tmp_path: Path) -> None:
    target = save(ct.byte_level("{{ raise_exception('closed') }}"), tmp_path / "closed")
    with pytest.raises(NothingSurvivedError, match=r"can render none of \d+ rows .*closed"):
        carry(target)


def test_only_the_last_turn_is_trained_on_where_the_run_was_so(
    carry: Carry, prune: Prune, targets: dict[str, Path], home: Path
) -> None:
    last = prune("random", 1.0, train_on="last")
    rows, _ = carry(targets["wordpiece"], last)
    own = read(training_rows.of_run(last.run, home))
    found = read(rows)
    assert found.keys() == own.keys()
    full, _ = carry(targets["wordpiece"], prune("random", 1.0))
    fewer = [
        sum(label != -100 for label in found[name][1]) < sum(label != -100 for label in labels)
        for name, (_, labels) in read(full).items()
    ]
    assert sum(fewer) == 2


def test_what_is_written_of_the_rows_says_whose_tokens_they_are(
    carry: Carry, pruned: Result, targets: dict[str, Path]
) -> None:
    rows, _ = carry(targets["unigram"], characters="any")
    assert rows.model == str(targets["unigram"])
    assert rows.about["run"] == pruned.run.run_id
    assert rows.about["carried"] == {
        "model": str(targets["unigram"]),
        "tokenizer": fingerprint.of_folder(targets["unigram"]),
        "characters": "any",
    }


def test_a_second_time_nothing_is_rendered(
    carry: Carry, targets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(carry(targets["unigram"])[0])
    monkeypatch.setattr("datapruner.measuring.workers.local.measure", None)
    assert read(carry(targets["unigram"])[0]) == first


def test_a_folder_without_a_tokenizer_is_refused(carry: Carry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no tokenizer"):
        carry(tmp_path)


def test_a_run_that_only_scored_has_nothing_to_carry(
    carry: Carry, first_run: Result, corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    scored = datapruner.score(corpus_file, "ppl", home=home, **options)
    with pytest.raises(UsageError, match="scored and did not prune"):
        carry("anything", scored)


def test_rows_of_every_sort_come_through_or_say_why_not(
    carry: Carry, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    thought = "<think>\nI add.\n</think>\n\n"
    turns = {
        "a system prompt, an emoji, white space": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Ünïcode?"},
            {"role": "assistant", "content": "  yes 🙂🙂 日本\n\n"},
        ],
        "reasoning": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": f"{thought}2"}],
        "reasoning that is dropped when another turn follows": [
            {"role": "user", "content": "1+2"},
            {"role": "assistant", "content": f"{thought}3"},
            {"role": "user", "content": "and 4?"},
            {"role": "assistant", "content": f"{thought}7"},
        ],
    }
    run = datapruner.prune(
        [{"messages": each} for each in turns.values()], "random", 1.0, home=home, **options
    )
    target = save(ct.byte_level(ct.QWEN3), tmp_path / "target")
    rows, counts = carry(target, run)
    found = list(read(rows).values())
    [reason] = counts.refused
    assert "leaves out the reasoning of turn 1" in reason
    assert (counts.carried, len(found)) == (2, 2)
    tokenizer = tokenizer_file.read(target)
    texts = {
        tokenizer.decode([label for label in labels if label != -100], skip_special_tokens=False)
        for _, labels in found
    }
    assert any(text.endswith("  yes 🙂🙂 日本\n\n<|im_end|>") for text in texts)
    assert f"{thought}2<|im_end|>" in texts


def weights(rows: TrainingRows) -> dict[str, list[float]]:
    found = {}
    for batch in rows:
        assert batch.token_weights is not None
        parts = zip(batch.sample_ids, pairwise(batch.offsets.tolist()), strict=True)
        found |= {name: batch.token_weights[a:b].tolist() for name, (a, b) in parts}
    return found


def test_weights_go_with_the_masks(
    carry: Carry, weighted: Result, tiny_folder: Path, targets: dict[str, Path], home: Path
) -> None:
    own = weights(training_rows.of_run(weighted.run, home))
    rows, _ = carry(tiny_folder, weighted)
    assert rows.counts.weighted
    assert weights(rows) == own
    others, _ = carry(targets["byte-level"], weighted)
    labels = {name: row_labels for name, (_, row_labels) in read(others).items()}
    found = weights(carry(targets["byte-level"], weighted)[0])
    assert found.keys() == labels.keys()
    for name, each in found.items():
        scale = [weight for weight in own[name] if weight]
        for weight, label in zip(each, labels[name], strict=True):
            assert (weight > 0) == (label != -100)
            assert weight == 0 or min(scale) <= weight <= max(scale)
    assert found != own
