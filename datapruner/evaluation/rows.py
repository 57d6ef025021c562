"""The rows of an evaluation: those of the corpus, of which every arm takes some, and those held out.

No held-out row may be among the training rows, nor its text: rows of the corpus that are the same as a
held-out row, or hold text of one (`datapruner.curation.contamination`, 13-grams), are no arm's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.curation import contamination
from datapruner.errors import InputError, NothingSurvivedError, UsageError
from datapruner.evaluation.controls import Candidates, Mask
from datapruner.evaluation.tokenised import Tokenised, lists, split
from datapruner.measuring.measure import Machine, Pass, measure
from datapruner.measuring.passes import positions
from datapruner.outputs import carrying, exports, training_rows
from datapruner.outputs.carrying import CarriedCounts
from datapruner.outputs.training_rows import IGNORED, Int32s, TrainingRows
from datapruner.progress import Progress
from datapruner.rewriting.answers import stated_answer
from datapruner.rewriting.reasoning import last_assistant
from datapruner.rows import row_files
from datapruner.runs.published import Run
from datapruner.schemas.evaluations import Carried
from datapruner.tuning.examples import Examples
from scorers.models import fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A set of held-out rows. rows: of the input, of which `rejected` could not be read. copies: of others.
    taken: rows of the corpus that are the same, or hold text of it, and are not trained on. answers: what
    each sample states as its answer, by its id; None unless all do."""

    name: str
    source: str
    corpus_hash: str
    rows: int
    rejected: int
    tokenised: Tokenised
    taken: int
    answers: dict[str, str] | None

    def first(self, number: int) -> Sequence[str]:
        """The ids of so many of its samples, drawn once and for all."""
        ids = self.tokenised.index["sample_id"]
        order = np.random.default_rng(0).permutation(len(ids))[:number]
        return [ids[row] for row in np.sort(order).tolist()]


Carry = Callable[[Run, Collection[str]], tuple[TrainingRows, CarriedCounts]]
"""These of a run's kept samples in the tokens of another model."""


Retell = Callable[[Run], Tokenised]
"""The rows of a run that rewrote as the model reads them; `row` of the index is that of the corpus."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The samples of the corpus that may be trained on, as they are read by the model; `index` is theirs.
    carry: where the runs' tokens are others, how their masks are carried over to the model's. retell: how the
    texts of a run that rewrote are read by the model."""

    tokenised: Tokenised
    index: pl.DataFrame
    carry: Carry | None
    retell: Retell
    _retold: dict[str, Tokenised] = field(default_factory=dict)
    _carried: dict[str, tuple[Candidates, Carried]] = field(default_factory=dict)

    def everything(self) -> Candidates:
        """All of them, with all of their response tokens."""
        return _candidates(self.index)

    def kept(self, run: Run) -> Candidates:
        """Those that a run kept, with the tokens that it kept of them.

        Raises UsageError when it kept none that is left here.
        """
        if run.config.rewrite is not None:
            return _candidates(self._told(run).index)
        if self.carry is not None:
            return self._carried_of(run, self.carry)[0]
        with duckdb.connect(str(run.database), read_only=True) as connection:
            kept = connection.sql(
                "SELECT row, n_kept_tokens FROM sample_scores WHERE keep AND n_kept_tokens > 0"
            ).pl()
        found = self.index.join(kept, on="row", how="inner", maintain_order="left")
        if found.is_empty():
            raise UsageError(f"run {run.run_id} kept no row that may be trained on")
        return _candidates(found.with_columns(n_counted=pl.col("n_kept_tokens").cast(pl.Int64)))

    def carried(self, run: Run) -> Carried | None:
        """What became of a run's kept samples in the tokens of the model, where those are others."""
        if self.carry is None or run.config.rewrite is not None:
            return None
        return self._carried_of(run, self.carry)[1]

    def _told(self, run: Run) -> Tokenised:
        """The rows of a run that rewrote, in its words: of those that may be trained on."""
        if run.run_id not in self._retold:
            found = self.retell(run)
            index = found.index.join(self.index.select("row"), on="row", how="semi", maintain_order="left")
            if index.is_empty():
                raise UsageError(f"run {run.run_id} kept no row that may be trained on")
            self._retold[run.run_id] = replace(found, index=index)
        return self._retold[run.run_id]

    def _carried_of(self, run: Run, carry: Carry) -> tuple[Candidates, Carried]:
        if run.run_id in self._carried:
            return self._carried[run.run_id]
        kept = training_rows.kept_rows(run)
        refused = Counter(
            self.tokenised.errors[each] for each in kept["sample_id"] if each in self.tokenised.errors
        )
        here = kept.join(self.index, on="sample_id", how="semi")["sample_id"].to_list()
        if not here:
            raise UsageError(f"run {run.run_id} kept no row that may be trained on")
        rows, counts = carry(run, here)
        ids: list[str] = []
        counted, lengths = [], []
        for batch in rows:
            ids += batch.sample_ids
            counted.append(batch.trained)
            lengths.append(batch.lengths)
        if not ids:
            raise UsageError(
                f"run {run.run_id} kept no token that the model to train has whole", field="model"
            )
        about = _about(len(ids), rows.counts.untrained, counts, refused)
        found = Candidates(pl.Series("sample_id", ids), np.concatenate(counted), np.concatenate(lengths))
        self._carried[run.run_id] = found, about
        return found, about

    def masks_tokens(self, run: Run) -> bool:
        """Whether a run masks tokens of what it kept, or weights them."""
        if run.config.rewrite is not None:
            return False
        if training_rows.has_weights(run):
            return True
        with duckdb.connect(str(run.database), read_only=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM sample_scores WHERE keep AND n_kept_tokens < n_response_tokens LIMIT 1"
            ).fetchone()
        return found is not None

    def examples_of(self, run: Run, ids: Sequence[str]) -> Examples:
        """These samples with the tokens that the run kept, and their weights; of a run that rewrote, all
        response tokens of its texts."""
        if run.config.rewrite is not None:
            return self._told(run).examples(ids)
        return _examples(*self._masked(run, ids))

    def redrawn_of(self, run: Run, ids: Sequence[str], seed: int) -> Examples:
        """These samples with as many response tokens of each as the run kept, and their weights, drawn by the
        seed. What is drawn of a sample hangs on nothing but the seed and its id."""
        tokens, masks = self._masked(run, ids)
        frame = self.tokenised.measured.cache.columns(ids, ["position", "is_end"])
        response, ends = lists(frame["position"]), split(frame["is_end"], np.bool_)
        drawn = []
        for sample_id, row, mask, places, closes in zip(ids, tokens, masks, response, ends, strict=True):
            there = places < len(row)  # where reading stopped, the row ends
            generator = np.random.default_rng([seed, *sample_id.encode()])
            drawn.append(mask.redrawn(places[there], closes[there], generator))
        return _examples(tokens, drawn)

    def _masked(self, run: Run, ids: Sequence[str]) -> tuple[list[Int32s], list[Mask]]:
        """Of these samples, the token ids and what the run trains on of them."""
        if self.carry is not None:
            rows, _ = self.carry(run, ids)
            carried: dict[str, tuple[Int32s, Mask]] = {}
            for batch in rows:
                for sample_id, row, labels, weights in batch.rows():
                    at = np.flatnonzero(labels != IGNORED)
                    carried[sample_id] = row, Mask(at, None if weights is None else weights[at])
            return [carried[each][0] for each in ids], [carried[each][1] for each in ids]
        wanted = pl.DataFrame({"sample_id": ids}).join(
            self.index, on="sample_id", how="left", maintain_order="left"
        )
        with duckdb.connect(str(run.database), read_only=True) as connection:
            connection.register("wanted", wanted.select("row").to_arrow())
            masks = connection.sql(
                "SELECT row, kept_tokens, token_weight FROM masks SEMI JOIN wanted USING (row)"
            ).pl()
        kept = wanted.join(masks, on="row", how="left", maintain_order="left")
        positions = lists(kept["kept_tokens"])
        tokens, _ = self.tokenised.tokens(ids)
        if kept["token_weight"].null_count():
            return tokens, [Mask(each) for each in positions]
        each = zip(positions, split(kept["token_weight"], np.float32), strict=True)
        return tokens, [Mask(*mask) for mask in each]


def _examples(tokens: Sequence[Int32s], masks: Sequence[Mask]) -> Examples:
    weights = [each.weights for each in masks if each.weights is not None]
    return Examples.of(tokens, [each.positions for each in masks], weights or None)


def _candidates(index: pl.DataFrame) -> Candidates:
    return Candidates(index["sample_id"], index["n_counted"].to_numpy(), index["n_tokens"].to_numpy())


def _about(trained: int, untrained: int, counts: CarriedCounts, refused: Counter[str]) -> Carried:
    """What became of kept rows. counts: of those that were carried; refused: of others, by reason."""
    refused = refused + Counter(counts.refused)
    rows = trained + untrained + refused.total()
    share = counts.on_border / max(counts.response_tokens, 1)
    said = [
        f"The model has other tokens than the proxy: masks of {trained:,} of {rows:,} kept rows were carried "
        f"over by characters; {share:.1%} of their response tokens lie across a border and are left out."
    ]
    if untrained:
        said.append(f"{untrained:,} rows have no token that was kept whole.")
    if refused:
        why, number = refused.most_common(1)[0]
        said.append(f"{refused.total():,} rows cannot be read by the model, {number:,} of them so: {why}.")
    return Carried(
        rows=rows,
        trained=trained,
        untrained=untrained,
        refused=dict(refused),
        response_tokens=counts.response_tokens,
        on_border=counts.on_border,
        said=" ".join(said),
    )


def _answers(corpus: Corpus, read: Tokenised) -> dict[str, str] | None:
    """The answer that each sample states, by its id; None unless all do."""
    found: dict[str, str] = {}
    for batch in corpus.conversations(read.index["row"].to_list()):
        for _, sample_id, conversation in batch:
            answer = stated_answer(conversation.turns[last_assistant(conversation)].content)
            if answer is None:
                return None
            found[sample_id] = answer
    return found


def tokenised(corpus: Corpus, wanted: Pass, home: Path, machine: Machine, progress: Progress) -> Tokenised:
    """The samples of a corpus as the model reads them, tokenised unless they were before."""
    return Tokenised.of(corpus, measure(corpus, wanted.tokens_only(), home, machine, progress=progress))


def prepare(
    corpus: Path,
    held_out: Mapping[str, tuple[str, Path]],
    wanted: Pass,
    measured: Pass,
    home: Path,
    machine: Machine,
    progress: Progress,
) -> tuple[Pool, list[HeldOut]]:
    """The rows to train on and those to read: held-out sets by name, with what they are called and where
    their rows are, ingested. wanted: how the model to train reads rows; measured: how the runs did.

    Raises InputError for a set without a row that can be read, NothingSurvivedError when there is nothing
    left to train on.
    """
    with Corpus(corpus) as training:
        pool = tokenised(training, wanted, home, machine, progress)
        index = pool.index
        sets = []
        taken: set[int] = set()
        for name, (source, path) in held_out.items():
            with Corpus(path) as rows:
                counts = rows.counts()
                read = tokenised(rows, wanted, home, machine, progress) if counts.unique else None
                if read is None or read.index.is_empty():
                    reasons = [] if read is None else list(read.errors.values())
                    why = next(iter([*rows.rejects()["reason"].to_list(), *reasons]), "there are none")
                    raise InputError(
                        f"held-out set {name}: no row of {source} can be read: {why}",
                        remedy="give rows with an answer each, in any shape that is read for training",
                        field="held_out",
                    )
                answers = _answers(rows, read)
                originals = pa.Table.from_batches(list(rows.originals()))
            same = pl.col("sample_id").is_in(read.index["sample_id"].to_list())
            texts = contamination.evaluation_set(name, originals, "13-gram")
            found = contamination.find(training, [texts], "13-gram", progress=progress).table
            alike = pl.col("row").is_in(found.filter(status="dropped")["row"].to_list())
            mine = index.filter(same | alike)["row"]
            taken |= set(mine)
            sets.append(
                HeldOut(
                    name=name,
                    source=source,
                    corpus_hash=rows.provenance.corpus_hash,
                    rows=counts.rows,
                    rejected=counts.rejected,
                    tokenised=read,
                    taken=len(mine),
                    answers=answers,
                )
            )
    left = index.filter(~pl.col("row").is_in(list(taken)))
    if left.is_empty():
        raise NothingSurvivedError(
            f"nothing is left to train on: {len(taken)} of {len(index)} rows hold text of held-out rows",
            remedy="hold out rows that the corpus does not have",
        )

    def carry(run: Run, ids: Collection[str]) -> tuple[TrainingRows, CarriedCounts]:
        with Corpus(corpus) as rows:
            return carrying.rows_for(run, rows, home, machine, wanted.key.model, only=ids, progress=progress)

    def retell(run: Run) -> Tokenised:
        with TemporaryDirectory(prefix="datapruner-") as folder:
            lines, texts = Path(folder) / "rows.jsonl", Path(folder) / "corpus.duckdb"
            with Corpus(corpus) as rows:
                row_files.write(lines, exports.plain(run, rows))
            ingest(lines, out=texts)
            with Corpus(texts) as rows:
                read = tokenised(rows, wanted, home, machine, progress)
        kept = training_rows.kept_rows(run)["row"]  # a line each, in order
        return replace(read, index=read.index.with_columns(row=kept.gather(read.index["row"])))

    return Pool(pool, left, None if _same_tokens(wanted, measured) else carry, retell), sets


def _same_tokens(one: Pass, other: Pass) -> bool:
    """Whether both read a text as the same tokens, and as many of them."""
    if one.key.revision == other.key.revision and one.key.template_hash == other.key.template_hash:
        return True
    first, second = (fingerprint.of_folder(each.proxy.path) for each in (one, other))
    same = first["tokenizer"] == second["tokenizer"] and first["template"] == second["template"]
    return same and positions(one.proxy.path) == positions(other.proxy.path)
