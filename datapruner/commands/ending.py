"""What a run says at its end: what was read, what became of it and why, where it was written, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from datapruner.commands import display, plan
from datapruner.corpora.corpus import Corpus
from datapruner.measuring.signal_cache import NO_MODEL
from datapruner.outputs import training_rows
from datapruner.request.config import RunConfig
from datapruner.request.keep import Keep
from datapruner.request.parts import Rewrite
from datapruner.result import Result
from datapruner.runs import folders, published

_EXAMPLES = 5
_REASONS = 10
_QUADRANTS = {
    "Q1": "harmful noise",
    "Q2": "valuable misconception",
    "Q3": "redundant knowledge",
    "Q4": "calibration data",
}
# Score columns worth a summary; the others are counts, names or both.
_SUMMARISED = (pl.Float32, pl.Float64)

Written = Mapping[str, tuple[Path, int]]


def document(result: Result, written: Written) -> dict[str, Any]:
    """The result for scripts."""
    run = result.run
    return {
        "run": run.run_id,
        "database": str(run.database),
        "config": run.config.model_dump(mode="json"),
        "lineage": run.lineage,
        "report": asdict(run.report),
        "measured": run.measured,
        "seconds": run.seconds,
        "forecast": None if result.forecast is None else result.forecast.model_dump(mode="json"),
        "written": {what: {"path": str(path), "rows": rows} for what, (path, rows) in written.items()},
    }


def sections(result: Result, written: Written, width: int | None) -> Iterator[RenderableType]:
    """The result for people, part by part, for a terminal of `width` characters if there is one."""
    run, scores = result.run, result.scores
    yield display.pairs(_heading(result))
    yield balance(run.report, run.config)
    if run.report.warnings:
        yield display.warnings(run.report.warnings)
    if run.report.truncated_sources:
        yield truncated(run.report.truncated_sources)
    if not run.config.has_subset:
        yield _summary(scores)
    else:
        if run.config.methods:
            yield tokens(run.report)
        if {"ppl_low", "ppl_high", "entropy_low", "entropy_high"} <= set(run.report.thresholds):
            yield _plane(run.report, scores)
        if run.report.stages:
            yield stages(run.report)
        if run.report.thresholds:
            cuts = (f"{name} {display.number(cut)}" for name, cut in run.report.thresholds.items())
            yield listed("Thresholds", [", ".join(cuts)])
        yield reasons(run.report)
    for status, title in (("rejected", "Rejected rows"), ("error", "Rows that failed")):
        found = scores.filter(pl.col("status") == status)
        if len(found):
            yield _examples(found, title)
    if result.forecast is not None:
        yield plan.settled(result.forecast)
    if written:
        yield listed("Written", files(written))
    if "plain rows" in written:
        yield from lost_masks(result)
    yield listed("Next", _next(result, written, width))


def listed(title: str, lines: Iterable[str]) -> Group:
    return Group(
        Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines)
    )


def lost_masks(result: Result) -> Iterator[Text]:
    """What plain rows lose of a run that pruned tokens, or weighted them."""
    if training_rows.has_weights(result.run):
        yield display.warnings(["plain rows have no weights: all tokens are trained on alike (export --for)"])
    if lost := result.pruned_tokens:
        tokens = display.plural(lost, "pruned token")
        yield display.warnings(
            [f"plain rows have no token masks: {tokens} will be trained on (export --for)"]
        )


def files(written: Written) -> Iterator[str]:
    from datapruner.reporting import card as cards  # with libraries that a run without files does without

    for what, (path, rows) in written.items():
        yield f"{display.clean(str(path))}: {what}, {display.plural(rows, 'row')}"
    for beside in sorted({str(folders.beside(path)) for path, _ in written.values()}):
        yield f"{display.clean(beside)}: settings and lineage, for `datapruner replay`"
    for card in sorted({cards.place(path) / cards.README for path, _ in written.values()}):
        if card.is_file():  # scores have none
            yield f"{display.clean(str(card))}: dataset card, with plots and croissant.json"


def _heading(result: Result) -> dict[str, Any]:
    run = result.run
    with Corpus(published.corpus_path(run, result.home)) as corpus:
        columns = corpus.provenance.columns
    read = "; ".join(
        f"{display.plural(count, 'row')} of shape {shape} ({', '.join(columns.get(shape, []))})"
        for shape, count in run.report.shapes.items()
    )
    proxy = run.lineage["proxy"]
    if run.measured:
        taken = f"{display.plural(run.measured, 'sample')} measured in {display.duration(run.seconds)}"
    elif run.config.methods or run.report.response_tokens:
        taken = "all there already, nothing measured"
    else:
        taken = "none needed, nothing measured"
    return {
        "Read": read,
        "Signals": f"{taken}; {_read_by(proxy)}",
        **asked(run.config),
        "Run": run.run_id,
    }


def _read_by(proxy: Mapping[str, Any]) -> str:
    """The proxy model of a run's lineage, and what of it read the samples."""
    if proxy["dtype"] == NO_MODEL:
        return f"the tokenizer of {proxy['model']} alone, as nothing here asks the model"
    return f"{proxy['model']} in {proxy['dtype']}"


def asked(config: RunConfig) -> dict[str, str]:
    """What a run was asked to do, under headings."""
    found = {}
    if config.methods:
        found["Method"] = methods(config)
    if config.rewrite is not None:
        found["Rewriting"] = rewriting(config.rewrite)
    return found


def methods(config: RunConfig) -> str:
    """The methods with their options, and how much they keep."""
    return ", ".join(f"{each.name}{settings(each.options)}" for each in config.methods) + keep_text(
        config.keep
    )


def rewriting(wanted: Rewrite) -> str:
    """What rewrites, with its options, and which stage of its paper that is."""
    from datapruner.rewriting.methods import find  # few runs rewrite, and its libraries take time

    return f"{wanted.method}{settings(wanted.options)}: {find(wanted.method).stage}"


def settings(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else ""


def keep_text(keep: Keep | None) -> str:
    """`, keeping 25 % of the samples`, or nothing."""
    if keep is None:
        return ""
    if keep.share is not None:
        return f", keeping {100 * keep.share:.6g} % of the samples"
    if keep.count is not None:
        return f", keeping {display.plural(keep.count, 'sample')}"
    return f", keeping {display.plural(keep.tokens or 0, 'trained token')}"


def balance(report: published.Report, config: RunConfig) -> Table:
    made = display.table("rows", "", "share", right=("", "share"))
    parts = {"kept" if config.has_subset else "scored": report.kept, "pruned": report.pruned}
    parts |= {"rejected": report.rejected, "errored": report.errored}
    made.add_row("ingested", f"{report.ingested:,}", "100.0 %", style="bold")
    for name, count in parts.items():
        made.add_row(f"  {name}", f"{count:,}", display.share(count, report.ingested))
    if report.duplicates:
        made.add_row(
            f"{display.plural(report.duplicates, 'exact duplicate')} among them", "", "", style="dim"
        )
    return made


def truncated(sources: Mapping[str, str]) -> Group:
    """The sources that broke off: what is missing of them is in none of the counts."""
    return listed("Truncated sources", [display.clean(f"{name}, {where}") for name, where in sources.items()])


def stages(report: published.Report) -> Group:
    """What the stages around the methods did: the rows that each dropped, and what else it counted."""
    lines = []
    for stage, found in report.stages.items():
        others = [f"{display.clean(name)} {n:,}" for name, n in found.items() if n and name != "dropped"]
        dropped = f"{display.plural(found['dropped'], 'row')} dropped" if "dropped" in found else ""
        lines.append(f"{stage}: {'; '.join(filter(None, (dropped, ', '.join(others))))}")
    return listed("Stages", lines)


def tokens(report: published.Report) -> Text:
    cut = report.truncated_tokens
    text = (
        f"Trained tokens: {report.response_tokens:,} before, {report.kept_tokens:,} after "
        f"({display.share(report.kept_tokens, report.response_tokens)})"
    )
    return Text(text + (f"; {cut:,} more lost to the length limit" if cut else ""))


def _plane(report: published.Report, scores: pl.DataFrame) -> Table:
    """The error-uncertainty plane: perplexity upwards, entropy to the right, kept of all in each corner."""
    first = scores.unique("sample_id", keep="first", maintain_order=True).filter(
        pl.col("quadrant").is_not_null() & pl.col("status").is_in(["kept", "pruned"])
    )
    found = first.group_by("quadrant").agg(pl.len().alias("all"), pl.col("keep").sum())
    counts = {quadrant: (kept, total) for quadrant, total, kept in found.iter_rows()}
    cut = {name: display.number(value) for name, value in report.thresholds.items()}
    filled = {name: kept for name, (kept, _) in counts.items() if kept and name not in ("Q2", "Q4")}
    places = ", ".join(f"{count:,} from {name}" for name, count in sorted(filled.items()))
    caption = f"fill, kept to reach the target: {sum(filled.values()):,} of {report.kept:,}"
    made = Table(
        box=box.SQUARE,
        show_lines=True,
        show_header=False,
        title=display.whole("The error-uncertainty plane: samples kept of all"),
        title_justify="left",
        title_style="bold",
        caption=display.whole(f"{caption} ({places})" if places else "no fill: all kept are in Q2 and Q4"),
        caption_justify="left",
    )
    for _ in range(3):
        made.add_column(overflow="fold")
    made.add_row(
        Text(f"perplexity\n> {cut['ppl_high']}", style="dim"), *(_corner(counts, q) for q in ("Q2", "Q1"))
    )
    made.add_row(
        Text(f"perplexity\n≤ {cut['ppl_low']}", style="dim"), *(_corner(counts, q) for q in ("Q3", "Q4"))
    )
    made.add_row(
        "",
        Text(f"entropy ≤ {cut['entropy_low']}", style="dim"),
        Text(f"entropy > {cut['entropy_high']}", style="dim"),
    )
    return made


def _corner(counts: Mapping[str, tuple[int, int]], quadrant: str) -> Text:
    kept, total = counts.get(quadrant, (0, 0))
    return Text(f"{quadrant} {_QUADRANTS[quadrant]}\n{kept:,} of {total:,}", style="green" if kept else "")


def reasons(report: published.Report) -> Table:
    made = display.table("reason", "rows", title="Reasons", right=("rows",))
    reasons = list(report.reasons.items())
    for reason, count in reasons[:_REASONS]:
        made.add_row(display.clean(reason), f"{count:,}")
    if len(reasons) > _REASONS:
        rest = sum(count for _, count in reasons[_REASONS:])
        made.add_row(Text(f"{len(reasons) - _REASONS} other reasons", style="dim"), f"{rest:,}")
    return made


def _summary(scores: pl.DataFrame) -> Table:
    names = ("lowest", "quarter", "median", "three quarters", "highest")
    made = display.table("score", *names, title="Scores", right=names)
    for column in scores.columns:
        if scores[column].dtype in _SUMMARISED and scores[column].count():
            cuts = [scores[column].quantile(q, "linear") for q in (0, 0.25, 0.5, 0.75, 1)]
            made.add_row(column, *map(display.number, cuts))
    return made


def _examples(found: pl.DataFrame, title: str) -> Table:
    made = display.table("row", "reason", title=title, right=("row",))
    for row, reason in found.select("row", "reason").head(_EXAMPLES).iter_rows():
        made.add_row(f"{row:,}", display.clean(reason))
    if len(found) > _EXAMPLES:
        made.add_row("", Text(f"{len(found) - _EXAMPLES:,} more", style="dim"))
    return made


def _next(result: Result, written: Written, width: int | None) -> Iterator[str]:
    """Commands with which to go on, each with a sample that shows something."""
    scores, run = result.scores, result.run
    short = display.short_ids(scores["sample_id"])
    measured = scores.filter(pl.col("status").is_in(["kept", "scored"]))
    if run.config.rewrite is not None:
        cut = measured.join(result.rewrites.filter(status="rewritten"), on="row", how="semi")
    else:
        cut = measured.filter(pl.col("n_kept_tokens") < pl.col("n_response_tokens"))
    sample = short[(cut if len(cut) else measured)["sample_id"][0]]
    subset = (
        f"datapruner explain {shlex.quote(str(written['subset'][0]))} {sample}" if "subset" in written else ""
    )
    fits = bool(subset) and (width is None or len(subset) < width - 2)
    yield subset if fits else f"datapruner explain {run.run_id[:12]} {sample}"
    if scores["quadrant"].count() and run.config.keep is not None:
        yield 'datapruner sql "select quadrant, avg(ppl) from sample_scores group by 1"'
    elif not run.config.methods:
        yield 'datapruner sql "select row, tokens_before, tokens_after from rewrites limit 9"'
    else:
        shown = "ppl" if scores["ppl"].count() else "n_response_tokens"
        yield f'datapruner sql "select row, {shown} from sample_scores order by {shown} desc limit 9"'  # noqa: S608
    if run.config.has_subset and not written:
        yield "the same command with --out subset.parquet writes the subset; nothing is measured again"
