"""The card of a subset: a Hugging Face dataset card, plots of its numbers, and what describes it to machines.

Notable choices:
- paths of this machine are not in the text: a file is called by its name, as cards are made to be passed on;
- the licence is that of the source where it is a dataset of the Hub whose card was fetched with its rows;
  nothing is asked of the network.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datapruner.errors import InputError, UsageError
from datapruner.outputs.hub import RUN
from datapruner.reporting import charts, croissant, markdown
from datapruner.reporting.croissant import Described
from datapruner.request.config import RunConfig, find
from datapruner.rewriting.methods import METHODS
from datapruner.schemas.exports import LICENSE
from datapruner.schemas.reports import STEPS, Distribution, RunReport
from datapruner.shown import number, plain, share
from datapruner.system.files import publishing

README = "README.md"
_PLOTS = "plots"
_FILES = Path(__file__).with_name("page_files")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LICENSE = re.compile(LICENSE)
_FILE = re.compile(r"(plots/)?\w[\w.-]*", re.ASCII)
_LENGTHS = ("n_response_tokens", "n_chars")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
_LARGEST = "n>1B"


@dataclass(frozen=True, slots=True)
class Exported:
    """A subset as it was written.

    `document`: the run file. `files`: those with its rows, each under its address from where the card will
    lie. `rows`: how many they hold. `form`: what they are. `license`: the identifier that the user gave.
    `url`: where it can be had.
    """

    report: RunReport
    document: Mapping[str, Any]
    files: Mapping[str, Described]
    rows: int
    form: str
    license: str | None = None
    url: str | None = None


def check_license(given: str) -> None:
    """Raises UsageError for what is no identifier of a licence, as the Hub has them."""
    if not _LICENSE.fullmatch(given):
        raise UsageError(
            f"{given!r} is no identifier of a licence", remedy="as in apache-2.0 or cc-by-4.0; or other"
        )


def form(trainer: str | None, *, plain: bool, rewritten: bool) -> str:
    """What the rows of an export are, in words."""
    if trainer is not None:
        return f"rows for {trainer}"
    if rewritten:
        return "the conversations with their reasoning rewritten"
    return "the rows as they came" if plain else "all columns, with masks of tokens"


def place(path: Path) -> Path:
    """The folder of the card of a subset: its own, or beside it where it is one file."""
    return path if path.is_dir() else path.with_suffix(".card")


def put(
    path: Path,
    report: RunReport,
    document: Mapping[str, Any],
    rows: int,
    form: str,
    license: str | None,  # noqa: A002
) -> None:
    """Write the card of a subset that was written to `path`; the rest as in `Exported`. Raises UsageError."""
    found = contents(path, "") if path.is_dir() else {f"../{path.name}": path}
    files = {name: Described(file) for name, file in found.items()}
    write(place(path), made(Exported(report, document, files, rows, form, license)))


def contents(folder: Path, place: str) -> dict[str, Path]:
    """The files in a folder but for its card, each under its address where the folder's is `place`."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder): path for path in found}
    return {(PurePath(place) / name).as_posix(): path for name, path in names.items() if not _is_card(name)}


def _is_card(name: PurePath) -> bool:
    return name.as_posix() in (README, croissant.NAME, RUN) or name.parts[0] == _PLOTS


def write(folder: Path, card: Mapping[str, bytes]) -> None:
    """Put a card into a folder, which is made if need be. Raises UsageError."""
    try:
        for name, content in card.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with publishing(path) as file:
                file.write(content)
    except OSError as error:
        raise UsageError(
            f"cannot write the card to {folder}: {error.strerror or error}", remedy="choose another place"
        ) from error


def packed(card: Mapping[str, bytes], folder: str, moment: datetime) -> bytes:
    """A card as a tar archive of its folder, made at `moment`."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, content in card.items():
            about = tarfile.TarInfo(f"{folder}/{name}")
            about.size, about.mtime = len(content), int(moment.timestamp())
            archive.addfile(about, io.BytesIO(content))
    return held.getvalue()


def unpacked(archive: bytes) -> dict[str, bytes]:
    """What was `packed`: the files of a card by name. Raises InputError for what is no such archive."""
    card: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            for about in files:
                _, _, name = about.name.partition("/")
                file = files.extractfile(about)
                if file is None or not _FILE.fullmatch(name):
                    raise InputError(f"the card has a file called {about.name!r}, which no card has")
                card[name] = file.read()
    except tarfile.TarError as error:
        raise InputError(f"the card is no tar archive: {error}") from error
    return card


def made(exported: Exported) -> dict[str, bytes]:
    """The files of the card by name. Raises OSError when a file of the subset cannot be read."""
    report, config = exported.report, RunConfig(**exported.report.config)
    origin = _origin(config.source)
    license_id = exported.license or origin.get("license")
    shown = _plots(report)
    name = f"{report.title} subset"
    source = None if config.source is None else _name(config.source)
    funnel = [("ingested", report.counts.ingested)]
    funnel += [(STEPS[step.step], step.removed) for step in report.funnel.steps]
    funnel.append(("kept", report.counts.kept))
    plots = {f"{_PLOTS}/rows.svg": charts.counts("What became of the rows", funnel)}
    plots |= {file: charts.histogram(found) for file, found in shown.items()}
    verdict = next((each for each in report.evaluations or () if each.verdict is not None), None)
    readme = _environment().get_template("card.md")
    text = readme.render(
        front=_front(exported, license_id, origin, config.source),
        name=f"{name} of {source}" if source else name,
        report=report,
        source=source,
        license=license_id,
        verdict=None if verdict is None else verdict.said,
        rows=exported.rows,
        lost=report.counts.kept - exported.rows if exported.rows != report.counts.kept else None,
        form=exported.form,
        steps=STEPS,
        methods=list(_methods(config)),
        keep=None if config.keep is None else _kept(config),
        model=_name(config.measuring.model) if report.tokens is not None else None,
        plots=[{"file": file, "column": found.column} for file, found in shown.items()],
        warnings=[
            *(report.warnings or ()),
            *(f"{_name(name)} broke off: {why}" for name, why in (report.truncated_sources or {}).items()),
        ],
        replay=markdown.block(_replay(exported.document, source, config.source)),
    )
    about = {
        "name": plain(name),
        "description": f"{report.counts.kept:,} of {report.counts.ingested:,} rows, kept by {report.title}.",
        "datePublished": report.published_at.date().isoformat(),
        "version": "1.0.0",
    }
    about |= {"url": exported.url} if exported.url is not None else {}
    about |= {"license": license_id} if license_id is not None else {}
    described = croissant.document(about, exported.files)
    return {
        RUN: _json(exported.document),
        **{name: drawing.encode() for name, drawing in plots.items()},
        README: text.encode(),
        croissant.NAME: _json(described),
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _front(exported: Exported, license_id: str | None, origin: Mapping[str, Any], source: str | None) -> str:
    """The YAML block that the Hub reads."""
    from huggingface_hub import DatasetCardData

    size = next((name for at, name in enumerate(_SIZES, 3) if exported.rows < 10**at), _LARGEST)
    known: dict[str, Any] = {"license": license_id, "language": origin.get("language")}
    if source is not None and _is_hub(source):
        known["source_datasets"] = [source]
    data = [
        name
        for name, file in exported.files.items()
        if file.path.suffix == ".parquet" and not name.startswith("../")
    ]
    if data:
        files = [{"split": "train", "path": data}]
        known["configs"] = [{"config_name": "default", "data_files": files}]
    made = DatasetCardData(
        **{name: value for name, value in known.items() if value is not None},
        tags=["datapruner", "data-pruning", "croissant"],
        task_categories=["text-generation"],
        size_categories=[size],
    )
    return f"---\n{made.to_yaml()}\n---\n"


def _origin(source: str | None) -> dict[str, Any]:
    """Licence and languages of a dataset of the Hub, where its card lies in the cache."""
    if source is None or not _is_hub(source):
        return {}
    from huggingface_hub import DatasetCard, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(source, README, repo_type="dataset")
        said = DatasetCard.load(found, ignore_metadata_errors=True).data if isinstance(found, str) else None
    except Exception:  # a card of others' can be anything, and is not what the user asked for
        return {}
    known: dict[str, Any] = {}
    if said is not None and isinstance(said.license, str) and _LICENSE.fullmatch(said.license):
        known["license"] = said.license
    if said is not None and said.language:
        known["language"] = said.language
    return known


def _is_hub(source: str) -> bool:
    return _HUB_NAME.fullmatch(source) is not None and not Path(source).exists()


def _name(source: str) -> str:
    """What rows or a model are called: a name on the Hub, or that of a file without its folders."""
    return source if _is_hub(source) else PurePath(source).name or source


def _plots(report: RunReport) -> dict[str, Distribution]:
    """What is drawn, by file: how long the rows are, and the scores that decided."""
    known = {each.column: each for each in report.distributions or ()}
    length = next((name for name in _LENGTHS if name in known), None)
    cut = [each.column for each in known.values() if each.thresholds]
    wanted = dict.fromkeys([*([length] if length else []), *cut])
    return {f"{_PLOTS}/{place}.svg": known[name] for place, name in enumerate(list(wanted)[:5], 1)}


def _methods(config: RunConfig) -> Iterator[dict[str, Any]]:
    """What decided, in order: the methods, how their scores were combined and covered, what rewrote."""
    for choice in config.methods:
        method = find(choice.name)
        yield _told(f"{method.name}: {method.title}", method.paper, choice.options)
    for stage in ("combine", "coverage"):
        if (settings := config.model_dump(mode="json").get(stage)) is not None:
            yield _told(stage, None, settings)
    if config.rewrite is not None:
        rewriting = METHODS[config.rewrite.method]
        yield _told(f"{rewriting.name}: {rewriting.title}", rewriting.paper, config.rewrite.options)


def _told(title: str, paper: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    linked = None if paper is None else _ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\g<0>)", paper)
    return {"title": title, "paper": linked, "options": options.items()}


def _kept(config: RunConfig) -> str:
    assert config.keep is not None
    keep = config.keep
    if keep.share is not None:
        return f"{100 * keep.share:g} % of the samples"
    return f"{keep.count:,} samples" if keep.count is not None else f"{keep.tokens:,} trained tokens"


def _replay(document: Mapping[str, Any], source: str | None, given: str | None) -> str:
    """The command that does it again where the files of the card are, and the source is."""
    command = f"datapruner replay {RUN}"
    if source is None:
        command += " SOURCE"
    elif given is None or not _is_hub(given):
        command += f" {shlex.quote(source)}"
    return command + (" --target DATA" if "target" in document["lineage"] else "")


@cache
def _environment() -> Environment:
    made = Environment(  # it makes no HTML: `markdown.text` is what makes texts harmless
        loader=FileSystemLoader(_FILES),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"md": markdown.text, "number": number, "share": share}
    return made
