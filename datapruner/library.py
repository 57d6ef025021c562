"""The Python API: `prune`, `score`, `run_recipe` and `replay`, and the `Result` they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from datapruner import settings, validation
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.measuring.measure import Machine, find_devices
from datapruner.outputs import exports
from datapruner.progress import Progress, Silent
from datapruner.request import settings as asked
from datapruner.request.config import DEFAULT_MODEL, Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.rows import row_files
from datapruner.runs import pipeline, published
from datapruner.system import files
from datapruner.system.panics import contained

if TYPE_CHECKING:
    import datasets

    from datapruner.runs.recipes import Recipe


@dataclass(frozen=True, repr=False)
class Result:
    """A published run, and everything that came of it. Tables are read when asked for."""

    run: published.Run
    home: Path

    def __repr__(self) -> str:
        return repr(self.run).replace("Run", "Result", 1)

    @property
    def report(self) -> published.Report:
        """Counts, thresholds and reasons; ingested = kept + pruned + rejected + errored."""
        return self.run.report

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One line per ingested row: scores, keep, reason, status (`datapruner.runs.columns.COLUMNS`)."""
        return self._table("SELECT * FROM sample_scores ORDER BY row")

    @cached_property
    def masks(self) -> pl.DataFrame:
        """One line per kept sample: kept_tokens (indices into input_ids) and kept_spans (characters).

        Raises UsageError when the run pruned nothing, as `subset` does.
        """
        self._check_pruned()
        return self._table("SELECT * FROM masks ORDER BY row")

    @cached_property
    def token_scores(self) -> pl.DataFrame:
        """One line per response token of every measured sample."""
        return self._table("SELECT * FROM token_scores ORDER BY row, position")

    @cached_property
    def rewrites(self) -> pl.DataFrame:
        """One line per row whose reasoning a recipe rewrote (`datapruner.rewriting.tables.COLUMNS`).

        Raises UsageError when the run rewrote nothing.
        """
        if self.run.config.rewrite is None:
            raise UsageError("this run rewrote nothing", remedy="name a method in the recipe's `rewrite`")
        return self._table("SELECT * FROM rewrites ORDER BY row")

    @cached_property
    @contained()
    def subset(self) -> datasets.Dataset:
        """The kept samples with all columns of the canonical Parquet."""
        self._check_pruned()
        with self._corpus() as corpus:
            return exports.as_dataset(exports.canonical(self.run, corpus, self.home))

    def export(self, path: str | Path, *, plain: bool = False) -> int:
        """Write the subset, or with `plain` the original rows alone, as .parquet, .csv or .jsonl.

        The run's configuration and lineage go beside it as `<name>.run.json`. Returns the number of rows.
        Raises UsageError when the file cannot be written, or when the run pruned nothing.
        """
        target = Path(path)
        row_files.check_target(target)
        self._check_pruned()
        with self._corpus() as corpus:
            if plain:
                rows = exports.plain(self.run, corpus)
            else:
                rows = exports.canonical(self.run, corpus, self.home)
            count = row_files.write(target, rows)
        files.write_json(
            target.with_suffix(".run.json"), published.read_document(self.run.folder / "run.json")
        )
        return count

    def export_scores(self, path: str | Path) -> int:
        """Write the score table as .parquet, .csv or .jsonl, with `<name>.run.json` beside it."""
        target = Path(path)
        count = row_files.write(target, exports.scores_of(self.scores))
        files.write_json(
            target.with_suffix(".run.json"), published.read_document(self.run.folder / "run.json")
        )
        return count

    def write(self, files: Mapping[str, Path]) -> dict[str, int]:
        """Export to several files: "subset", "plain" and "scores" of them; the number of rows in each.

        Raises UsageError as the exports do.
        """
        return {
            what: self.export_scores(path) if what == "scores" else self.export(path, plain=what == "plain")
            for what, path in files.items()
        }

    def _check_pruned(self) -> None:
        if self.run.config.keep is None:
            raise UsageError("this run scored and did not prune", remedy="use its scores, or prune")

    def _corpus(self) -> Corpus:
        return Corpus(published.corpus_path(self.run, self.home))

    def _table(self, query: str) -> pl.DataFrame:
        with duckdb.connect(str(self.run.database), read_only=True) as connection:
            frame = pl.from_arrow(connection.sql(query).to_arrow_table())
        assert isinstance(frame, pl.DataFrame), type(frame)
        return frame


def prune(
    source: Any,
    method: str | Sequence[str] | None = None,
    keep: float | int | str | Mapping[str, float] | Keep | None = None,
    *,
    methods: str | Sequence[str] | None = None,
    keep_tokens: int | None = None,
    token_keep: float | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    model: str = DEFAULT_MODEL,
    dtype: str = "auto",
    max_length: int | None = None,
    overflow: str = "truncate",
    train_on: str = "all",
    reference: str | None = None,
    embedder: str | None = None,
    target: Any = None,
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Keep the part of a corpus worth training on.

    `source`: path, folder, Hub name, "-", `datasets.Dataset`, table or iterable of rows. `method`, also
    spelled `methods`, is by default "qtuning". `keep`: a share (0.25, 1.0, "25%") of the measured samples,
    rounded up, or a count of them (500; one is {"count": 1}, for a plain 1 may mean either and is refused);
    or `keep_tokens`, a budget of trained tokens; a `preset` brings its own.
    `token_keep` and `options` are the method's options. `mapping` names the columns, such as
    `{"prompt": "q", "response": "a"}`, when they are not recognised. `reference` is a second model and
    `target` rows to select towards (as `source`, their columns recognised), for methods that read them.
    `device` is "auto", "cpu", "cuda:0" or a list of them; `token_budget` bounds a batch (padded tokens).
    `home` is where models, signals and runs are kept.

    Raises UsageError, InputError, ModelError, NothingSurvivedError or WorkerError (`datapruner.errors`).
    """
    names = asked.one_spelling(method, methods, default="qtuning")
    choices, share = asked.choices(names, options, token_keep=token_keep, preset=preset)
    wanted = asked.amount(keep, keep_tokens, share)
    if wanted is None:
        raise asked.how_much_is_missing()
    measuring = Measuring.of(
        model=model,
        dtype=dtype,
        max_length=max_length,
        overflow=overflow,
        train_on=train_on,
        reference=reference,
        embedder=embedder,
    )
    config = _config(source, target, mapping, measuring, choices, wanted, seed)
    return _run(config, source, target, device, token_budget, home, progress)


def score(
    source: Any,
    methods: str | Sequence[str] | None = None,
    *,
    method: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    model: str = DEFAULT_MODEL,
    dtype: str = "auto",
    max_length: int | None = None,
    overflow: str = "truncate",
    train_on: str = "all",
    reference: str | None = None,
    embedder: str | None = None,
    target: Any = None,
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score every sample by one or more methods, by default "qtuning", pruning nothing.

    `options` are those of the one method or, of several, by method name. The other arguments are those of
    `prune`, and so are the errors raised.
    """
    choices, _ = asked.choices(asked.one_spelling(method, methods, default="qtuning"), options)
    measuring = Measuring.of(
        model=model,
        dtype=dtype,
        max_length=max_length,
        overflow=overflow,
        train_on=train_on,
        reference=reference,
        embedder=embedder,
    )
    config = _config(source, target, mapping, measuring, choices, None, seed)
    return _run(config, source, target, device, token_budget, home, progress)


def run_recipe(
    recipe: str | Path,
    source: Any = None,
    *,
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Do what a recipe says (`datapruner.runs.recipes`), and write the files that its `export` names.

    `source`: rows to use instead of those it names, as for `prune`; the other arguments are those of `prune`.
    A teacher is that of the environment. Raises UsageError naming line and column of what is wrong with the
    recipe, and as `prune` does.
    """
    from datapruner.runs import recipes  # which needs more libraries than the rest

    wanted = recipes.read(recipe)
    result = carry_out(wanted, source, device=device, token_budget=token_budget, home=home, progress=progress)
    result.write(wanted.export.files())
    return result


def carry_out(
    recipe: Recipe,
    source: Any = None,
    *,
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """`run_recipe` of a recipe that was read, without its files."""
    rows = source if source is not None else recipe.data
    if rows is None:
        raise UsageError("the recipe names no data", remedy="add data: FILE, or give the rows", field="data")
    config = recipe.config.model_copy(update={"source": _named(rows)})
    return _run(config, rows, config.target, device, token_budget, home, progress)


def replay(
    run_file: str | Path,
    source: Any = None,
    *,
    target: Any = None,
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Do again what a `.run.json` says, on the source and target it names or on those given.

    Raises as `prune` does.
    """
    document = published.read_document(Path(run_file))
    config = published.replayed(document)
    rows = source if source is not None else config.source
    if rows is None:
        raise UsageError(
            f"{run_file} does not name a source: its rows came from Python or standard input",
            remedy="give the source",
        )
    aims = target if target is not None else config.target
    if aims is None and "target" in document["lineage"]:
        raise UsageError(
            f"{run_file} does not name its target set: the rows came from Python", remedy="give the target"
        )
    return _run(config, rows, aims, device, token_budget, home, progress)


def _config(
    source: Any,
    target: Any,
    mapping: Mapping[str, str] | None,
    measuring: Measuring,
    methods: list[MethodChoice],
    keep: Keep | None,
    seed: int,
) -> RunConfig:
    return validation.made(
        RunConfig,
        source=_named(source),
        target=_named(target),
        mapping=dict(mapping or {}),
        measuring=measuring,
        methods=methods,
        keep=keep,
        seed=seed,
    )


def _named(rows: Any) -> str | None:
    """The path or Hub name that rows are found by, None when they come from Python or standard input."""
    return str(rows) if isinstance(rows, str | Path) and str(rows) != "-" else None


@contained()
def _run(
    config: RunConfig,
    source: Any,
    target: Any,
    device: str,
    token_budget: int | None,
    home: str | Path | None,
    progress: Progress | None,
) -> Result:
    place = settings.made_home(home)
    machine = Machine(find_devices(device), token_budget)
    return Result(pipeline.execute(config, source, place, machine, progress or Silent(), target), place)
