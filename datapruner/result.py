"""What a run came to, for Python: its report, its tables, its subset, and the files written of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.measuring.measure import Machine
from datapruner.outputs import carrying, exports, learner, training_rows
from datapruner.outputs.carrying import CarriedCounts, Characters
from datapruner.outputs.trainers import registry, writing
from datapruner.outputs.training_rows import Counts
from datapruner.progress import Progress, Silent
from datapruner.rows import row_files, shards
from datapruner.rows.formats import TooLong
from datapruner.runs import folders, forecasts, published
from datapruner.system import files
from datapruner.system.panics import contained

if TYPE_CHECKING:
    import datasets

    from datapruner.schemas.plans import Settled


@dataclass(frozen=True, slots=True)
class TrainerExport:
    """What was written for a trainer, and the configuration to train on it, ready to copy. `carried`: what
    became of the rows on their way to another tokenizer, where they went to one. `warnings`: what is to be
    known of the model that it belongs to."""

    counts: Counts
    configuration: str
    carried: CarriedCounts | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class Result:
    """A published run, and everything that came of it. Tables are read when asked for."""

    run: published.Run
    home: Path

    def __repr__(self) -> str:
        return repr(self.run).replace("Run", "Result", 1)

    @property
    def report(self) -> published.Report:
        """Counts, thresholds, reasons, and under `stages` what rewriting did; ingested = kept + pruned +
        rejected + errored."""
        return self.run.report

    @property
    def corpus_file(self) -> Path:
        """The corpus that the run read."""
        return published.corpus_path(self.run, self.home)

    @cached_property
    def forecast(self) -> Settled | None:
        """How far the forecast of this request was off, by `datapruner.plan`; None where there was none."""
        return forecasts.read(self.run.folder)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One line per ingested row: scores, keep, reason, status (`datapruner.runs.columns.COLUMNS`)."""
        return self._table("SELECT * FROM sample_scores ORDER BY row")

    @cached_property
    def masks(self) -> pl.DataFrame:
        """One line per kept sample: kept_tokens (indices into input_ids) and kept_spans (characters).

        Raises UsageError when the run selected nothing.
        """
        self._check_subset()
        if self.run.config.keep is None:
            raise UsageError("this run selected nothing, so it has no masks", remedy="prune")
        return self._table("SELECT * FROM masks ORDER BY row")

    @property
    def pruned_tokens(self) -> int:
        """Response tokens of kept samples that are not to be trained on: what rows with texts alone, which
        have no masks, would train on as well. 0 where nothing counted tokens."""
        kept = self.scores.filter("keep")
        return int((kept["n_response_tokens"] - kept["n_kept_tokens"]).sum())

    @cached_property
    def token_scores(self) -> pl.DataFrame:
        """One line per response token of every measured sample."""
        return pl.read_parquet(self.run.tokens, glob=False)

    @cached_property
    def rewrites(self) -> pl.DataFrame:
        """One line per row that came to be rewritten (`datapruner.rewriting.tables.COLUMNS`).

        Raises UsageError when the run rewrote nothing.
        """
        if self.run.config.rewrite is None:
            raise UsageError("this run rewrote nothing", remedy="rewrite, or name `rewrite` in a recipe")
        return self._table("SELECT * FROM rewrites ORDER BY row")

    @cached_property
    @contained()
    def subset(self) -> datasets.Dataset:
        """The kept samples with all columns of the canonical Parquet. Raises UsageError when the run only
        scored."""
        self._check_subset()
        with self._corpus() as corpus:
            return exports.as_dataset(exports.canonical(self.run, corpus, self.home))

    def export(
        self,
        path: str | Path,
        *,
        plain: bool = False,
        shard_rows: int | None = None,
        license: str | None = None,  # noqa: A002 (the argument is called so)
    ) -> int:
        """Write the subset, or with `plain` the original rows alone, in the format of its suffix.

        `shard_rows`: a folder of Parquet files with as many rows each, whatever its name. The run's
        configuration and lineage go beside it as `<name>.run.json`, its dataset card into the folder or, of
        a file, into `<name>.card` beside it (`datapruner.reporting.card`). `license` is what that says, by
        default that of the source, if it is known. Returns the number of rows.
        Raises UsageError when it cannot be written, or when the run only scored.
        """
        self._check_license(license)
        target = Path(path)
        if shard_rows is None:
            row_files.check_target(target)
        else:
            shards.check_folder(target)
        self._check_subset()
        with self._corpus() as corpus:
            if plain:
                rows = exports.plain(self.run, corpus)
            else:
                rows = exports.canonical(self.run, corpus, self.home)
            count = (
                row_files.write(target, rows)
                if shard_rows is None
                else shards.write(target, rows, shard_rows)
            )
        document = folders.read_document(self.run.folder / folders.DOCUMENT)
        files.write_json(folders.beside(target), document)
        self._put_card(target, document, count, None, plain=plain, license=license)
        return count

    def export_for(
        self,
        trainer: str,
        path: str | Path,
        *,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        shard_rows: int | None = None,
        tokenizer: str | None = None,
        characters: Characters = "all",
        progress: Progress | None = None,
        license: str | None = None,  # noqa: A002
    ) -> TrainerExport:
        """Write the subset as a trainer takes it: `trainer` is one of `datapruner.outputs.trainers.registry`.

        `max_length`: tokens that a row may have; of longer ones the end goes, or with `too_long="drop"` all
        of them. Rows without a token to train on are left out. `shard_rows`: a folder of files with as many
        rows each. `tokenizer`: the model that will be trained, where it is not the one that measured; a token
        of its is trained on when `characters`, "all" or "any", of those it covers are of kept tokens. The
        run's configuration and lineage, and its dataset card, go where `export` puts them. Raises UsageError
        when it cannot be written, when the run only scored, when it rewrote and so has no token ids, or when
        it weights tokens, which the trainer cannot take; ModelError when the other tokenizer cannot be used,
        and NothingSurvivedError when no row is left.
        """
        self._check_license(license)
        target, kind = Path(path), registry.find(trainer)
        writing.check_target(kind, target, shard_rows, max_length)
        writing.check_weights(kind, training_rows.has_weights(self.run))
        counts: CarriedCounts | None = None
        warnings: list[str] = []
        if tokenizer is None:
            rows = training_rows.of_run(self.run, self.home, max_length=max_length, too_long=too_long)
        else:
            warnings = learner.warnings(tokenizer, self.home)
            with self._corpus() as corpus:
                rows, counts = carrying.rows_for(
                    self.run,
                    corpus,
                    self.home,
                    Machine(("cpu",)),
                    tokenizer,
                    characters=characters,
                    max_length=max_length,
                    too_long=too_long,
                    progress=progress or Silent(),
                )
        writing.write(kind, target, rows, shard_rows)
        document = folders.read_document(self.run.folder / folders.DOCUMENT)
        if counts is not None:
            document["carried"] = rows.about["carried"] | asdict(counts)
        files.write_json(folders.beside(target), document)
        self._put_card(target, document, rows.counts.written, trainer, plain=False, license=license)
        return TrainerExport(rows.counts, kind.note(target, rows), counts, warnings)

    def export_scores(self, path: str | Path) -> int:
        """Write the score table in the format of the suffix, with `<name>.run.json` beside it."""
        target = Path(path)
        count = row_files.write(target, exports.scores_of(self.scores))
        files.write_json(folders.beside(target), folders.read_document(self.run.folder / "run.json"))
        return count

    def write(self, files: Mapping[str, Path]) -> dict[str, int]:
        """Export to several files: "subset", "plain" and "scores" of them; the number of rows in each.

        Raises UsageError as the exports do.
        """
        return {
            what: self.export_scores(path) if what == "scores" else self.export(path, plain=what == "plain")
            for what, path in files.items()
        }

    def write_cards(self, files: Mapping[str, Path], rows: Mapping[str, int]) -> None:
        """The cards of what `write` wrote, as it returned the rows, anew: with the verdict that there is now.

        Raises UsageError when they cannot be written.
        """
        for what in files.keys() - {"scores"}:
            document = folders.read_document(folders.beside(files[what]))
            self._put_card(files[what], document, rows[what], None, plain=what == "plain", license=None)

    def _check_license(self, given: str | None) -> None:
        if given is not None:
            from datapruner.reporting import card

            card.check_license(given)

    def _put_card(
        self,
        target: Path,
        document: Mapping[str, Any],
        rows: int,
        trainer: str | None,
        *,
        plain: bool,
        license: str | None,  # noqa: A002
    ) -> None:
        from datapruner.reporting import card
        from datapruner.reporting.document import report  # with libraries that only exports need

        form = card.form(trainer, plain=plain, rewritten=self.run.config.rewrite is not None)
        card.put(target, report(self.run.run_id, self.home), document, rows, form, license)

    def _check_subset(self) -> None:
        if not self.run.config.has_subset:
            raise UsageError("this run scored and did not prune", remedy="use its scores, or prune")

    def _corpus(self) -> Corpus:
        return Corpus(self.corpus_file)

    def _table(self, query: str) -> pl.DataFrame:
        with duckdb.connect(str(self.run.database), read_only=True) as connection:
            frame = pl.from_arrow(connection.sql(query).to_arrow_table())
        assert isinstance(frame, pl.DataFrame), type(frame)
        return frame
