"""Near-duplicates against a brute-force search, on made-up and on real rows."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from datapruner.corpora import store, texts
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.texts import Ragged
from datapruner.curation import duplicates
from datapruner.curation.duplicates import deduplicate, find
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.measuring import spool
from datapruner.progress import Silent
from datapruner.request.parts import Dedup

TOOLFORMER = Path(__file__).parents[3] / ".." / "shared/data/dedup/gpteacher_toolformer_7673.parquet"

Row = dict[str, str]


def row(prompt: str, response: str) -> Row:
    return {"instruction": prompt, "output": response}


SEA = "The sea is salty because rivers carry dissolved minerals from rocks into it, year after year."
ROWS = [
    row("Why is the sea salty?", SEA),
    row("Add: 2 + 2", "4"),
    row("Why is the sea salty?", SEA.replace("after year", "after decade")),
    row("Why is the sea salty?", SEA),
    row("Add: 2 - 2", "4"),
    row("Say nothing.", ""),
    row("Why is the sea salty?", SEA.replace("after year", "after decade")),
    row("why IS the sea  salty?", SEA),
]


def shingles(rows: list[str], n: int = 3) -> Ragged:
    return texts.ngrams(texts.hashed(texts.split(rows, symbols=True)), n, short=True)


def exact(a: Ragged, i: int, j: int) -> float:
    left, right = set(a[i].tolist()), set(a[j].tolist())
    return len(left & right) / len(left | right) if left | right else 0.0


def variants(count: int, seed: int, words: int = 30) -> list[str]:
    """Texts of which many are others with a few words replaced."""
    rng = random.Random(seed)
    made: list[list[str]] = []
    for _ in range(count):
        if made and rng.random() < 0.6:
            source = rng.choice(made)
            made.append([f"w{rng.randrange(500)}" if rng.random() < 0.06 else word for word in source])
        else:
            made.append([f"w{rng.randrange(500)}" for _ in range(rng.randint(1, words))])
    return [" ".join(each) for each in made]


def near_duplicates(shingles: Ragged, threshold: float, folder: Path | None = None) -> duplicates.Near:
    """Those of few texts, which need no disk."""
    return duplicates.near_duplicates(shingles, threshold, folder or Path("nowhere"))


def test_a_dropped_row_names_its_original_and_how_alike_they_are(tmp_path: Path) -> None:
    table = deduplicate(ROWS, home=tmp_path).table
    assert table["status"].to_list() == [
        "kept",
        "kept",
        "dropped",
        "dropped",
        "kept",
        "rejected",
        "dropped",
        "dropped",
    ]
    jaccard = exact(shingles([f"{r['instruction']}\n{r['output']}" for r in ROWS]), 0, 2)
    assert 0.7 <= jaccard < 1
    assert table["jaccard"][2] == pytest.approx(jaccard)
    near = f"duplicate of row 0 at Jaccard {round(jaccard, 3)}"
    assert table["reason"].to_list()[2:4] == [near, "exact duplicate of row 0"]
    assert table["reason"][6] == near, "an exact copy of a near-duplicate goes with it"
    assert table["reason"][7] == "duplicate of row 0 at Jaccard 1.0"
    assert "output" in table["reason"][5]


def test_the_rows_add_up_and_the_kept_ones_are_written_as_they_came(tmp_path: Path) -> None:
    result = deduplicate(ROWS, home=tmp_path)
    assert result.counts == {"ingested": 8, "kept": 3, "dropped": 4, "rejected": 1}
    assert result.notes["exact duplicates"] == 1
    assert result.notes["near duplicates"] == 2
    assert result.notes["copies of near duplicates"] == 1
    assert result.export(tmp_path / "kept.jsonl") == 3
    assert pl.read_ndjson(tmp_path / "kept.jsonl").to_dicts() == [ROWS[0], ROWS[1], ROWS[4]]
    assert result.export(tmp_path / "kept.parquet") == 3
    assert pl.read_parquet(tmp_path / "kept.parquet").to_dicts() == [ROWS[0], ROWS[1], ROWS[4]]
    assert result.export_table(tmp_path / "verdicts.parquet") == 8
    assert pl.read_parquet(tmp_path / "verdicts.parquet").equals(result.table)


def test_nothing_is_written_when_nothing_is_kept(tmp_path: Path) -> None:
    result = deduplicate(ROWS[:1], home=tmp_path)
    empty = result.__class__(
        "dedup", result.corpus, result.table.with_columns(status=pl.lit("dropped")), {}, {}
    )
    with pytest.raises(NothingSurvivedError, match="left none of 1 rows"):
        empty.export(tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()


def test_nothing_is_a_duplicate_of_a_sample_that_is_gone(tmp_path: Path) -> None:
    result = deduplicate(ROWS, home=tmp_path)
    with Corpus(result.corpus) as corpus:
        first = corpus.sample_index()["sample_id"][0]
        table = find(corpus, Dedup(), progress=Silent(), without={first}).table
    assert table["duplicate_of"].to_list() == [None, None, None, 0, None, None, 2, 2]


def test_only_the_part_that_is_asked_for_is_compared(tmp_path: Path) -> None:
    rows = [row("Name a colour.", "Blue, as the sky is."), row("Name a colour.", "Red like the evening sun.")]
    assert deduplicate(rows, part="prompt", home=tmp_path).counts["dropped"] == 1
    assert deduplicate(rows, part="response", home=tmp_path).counts["dropped"] == 0


def test_a_system_prompt_that_all_samples_share_makes_no_duplicates(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "You are a helpful assistant of few but kind words. " * 20},
                {"role": "user", "content": question},
                {"role": "assistant", "content": "Certainly."},
            ]
        }
        for question in ("How far is the moon from here?", "Which tree has white bark?")
    ]
    assert deduplicate(rows, home=tmp_path).counts["dropped"] == 0


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.7, 0.9, 1.0]))
def test_each_dropped_text_has_a_kept_one_at_the_threshold(seed: int, threshold: float) -> None:
    made = shingles(variants(60, seed))
    found = near_duplicates(made, threshold)
    for at in np.flatnonzero(found.of >= 0).tolist():
        original = int(found.of[at])
        assert original < at
        assert found.of[original] == -1
        assert found.jaccard[at] == pytest.approx(exact(made, at, original))
        assert found.jaccard[at] >= threshold


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_few_pairs_that_brute_force_finds_are_missed(threshold: float) -> None:
    made = shingles(variants(500, seed=3))
    found = near_duplicates(made, threshold)
    kept = np.flatnonzero(found.of < 0).tolist()
    sets = [set(made[at].tolist()) for at in kept]
    missed = sum(
        any(len(mine & other) >= threshold * len(mine | other) for other in sets[:position])
        for position, mine in enumerate(sets)
    )
    dropped = 500 - len(kept)
    assert dropped > 60
    assert missed <= 0.02 * dropped, f"{missed} of {dropped + missed} duplicates stayed"


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7, 0.9, 1.0])
def test_bands_miss_at_most_one_pair_in_a_hundred_at_the_threshold(threshold: float) -> None:
    count, slots = duplicates.bands(threshold)
    assert count * slots <= 128
    assert (1 - threshold**slots) ** count <= 0.01


def test_what_lies_on_disk_is_found_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shingles(variants(400, seed=9))
    expected = near_duplicates(made, 0.7)
    monkeypatch.setattr(spool, "_HELD_BYTES", 0)
    monkeypatch.setattr(duplicates, "_SIGNED_ROWS", 50)
    on_disk = Ragged(spool.gathered(tmp_path, np.array_split(made.values, 7), np.uint64), made.offsets)
    found = near_duplicates(on_disk, 0.7, tmp_path)
    assert (expected.of >= 0).sum() > 50
    assert np.array_equal(found.of, expected.of)
    assert np.array_equal(found.jaccard, expected.jaccard, equal_nan=True)
    assert list(tmp_path.iterdir()) == []


def test_texts_without_words_are_nobody_s_duplicates() -> None:
    found = near_duplicates(shingles(["", " ", "\n"]), 0.7)
    assert found.of.tolist() == [-1, -1, -1]
    assert near_duplicates(shingles([]), 0.7).of.tolist() == []


def test_thousands_of_variants_of_one_template_are_counted_as_not_compared_with_all() -> None:
    template = "classify the mood of this short message from a reader of our daily paper as good or bad :"
    made = shingles([f"{template} {' '.join(f'x{at}y{k}' for k in range(9))}" for at in range(400)])
    found = near_duplicates(made, 0.7)
    assert (found.of < 0).all()
    assert found.crowded > 0


def test_the_result_does_not_depend_on_how_rows_are_cut_into_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("Tell me.", text) for text in variants(150, seed=5)]
    whole = deduplicate(rows, home=tmp_path).table
    monkeypatch.setattr(texts, "CHUNK_SAMPLES", 7)
    monkeypatch.setattr(duplicates, "_SIGNED_ROWS", 11)
    assert deduplicate(rows, home=tmp_path).table.equals(whole)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"threshold": 0.0}, "threshold"), ({"threshold": 1.1}, "threshold"), ({"shingle": 0}, "shingle")],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, float], field: str) -> None:
    with pytest.raises(UsageError, match=field) as caught:
        deduplicate(ROWS, home=tmp_path, **wrong)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.slow
@pytest.mark.skipif(not TOOLFORMER.is_file(), reason="needs the real rows in ../shared/data")
def test_most_of_the_toolformer_rows_are_near_duplicates(tmp_path: Path) -> None:
    """Its authors' own filter, by a ROUGE-like similarity of 0.6, took 70 % of the rows away."""
    result = deduplicate(pl.read_parquet(TOOLFORMER).drop("id"), threshold=0.6, home=tmp_path)
    counts = result.counts
    assert counts["ingested"] == 7673 == counts["kept"] + counts["dropped"]
    assert 0.5 < counts["dropped"] / counts["ingested"] < 0.85


@pytest.mark.slow
@pytest.mark.skipif(not TOOLFORMER.is_file(), reason="needs the real rows in ../shared/data")
def test_of_the_toolformer_rows_those_fall_that_a_search_of_all_pairs_drops(tmp_path: Path) -> None:
    with Corpus(store.ingest_to(pl.read_parquet(TOOLFORMER).drop("id"), {}, tmp_path, Silent())) as corpus:
        found = shingles([text for _, _, chunk in texts.sample_texts(corpus, "all") for text in chunk])
    lists = [np.unique(found[at]) for at in range(len(found))]
    _, columns = np.unique(np.concatenate(lists), return_inverse=True)
    sizes = np.array([len(each) for each in lists])
    table = csr_array((np.ones(len(columns), np.int32), (np.repeat(np.arange(len(lists)), sizes), columns)))
    kept = np.ones(len(lists), dtype=np.bool_)
    for start in range(0, len(lists), 512):
        common = (table[start : start + 512] @ table.T).tocoo()
        at, other = common.row + start, common.col
        alike = common.data / (sizes[at] + sizes[other] - common.data) >= 0.7
        for one, before in sorted(zip(at[alike].tolist(), other[alike].tolist(), strict=True)):
            kept[one] &= not (before < one and kept[before])
    dropped = near_duplicates(found, 0.7).of >= 0
    assert (~kept).sum() > 2500
    assert (dropped != ~kept).sum() <= 0.005 * len(kept)
