"""The command line. Commands live in `datapruner.commands`; here they get their names and their errors.

Notable choices:
- nothing heavy is imported before a command runs, so that `--help` is quick;
- every error is one line `error: ...` on standard error, and with --json a document on standard output; a
  traceback only with DATAPRUNER_DEBUG=1.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from datapruner.commands import (
    about,
    access,
    calibrate,
    check,
    compare,
    curate,
    datasets,
    display,
    evaluate,
    explain,
    export,
    jobs,
    mcp,
    plan,
    prune,
    query,
    recipe,
    report,
    rewrite,
    serve,
    service,
    settings,
    storage,
)
from datapruner.errors import DataprunerError, UsageError
from datapruner.system import outlets
from datapruner.system.panics import contained

INTERRUPTED = 130
_DEBUG = "DATAPRUNER_DEBUG"
_EPILOG = (
    "Exit codes: 0 fine, 1 our fault (doctor, check: something failed), 2 bad usage or input, "
    "3 nothing survived, 130 interrupted. Files are kept in DATAPRUNER_HOME (~/.datapruner)."
)
# What the system refuses and only its user can put right.
_REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)

app = typer.Typer(
    help="Find the samples, and the tokens inside them, that an SFT corpus is worth training on.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("prune", cls=settings.of_pruning())(prune.prune)
app.command("score", cls=settings.of_run("seed", "target", "task_column", "engine"))(prune.score)
app.command("plan", cls=settings.of_pruning())(plan.plan)
app.command("recommend")(recipe.recommend)
app.command("run")(recipe.run)
app.command("replay")(prune.replay)
app.add_typer(rewrite.rewrite_app, name="rewrite", help="Shorten the reasoning of a corpus.")
app.command("gate", cls=settings.of_gate())(curate.gate)
app.command("dedup", cls=settings.of_dedup())(curate.dedup)
app.command("contamination")(curate.contamination)
app.command("calibrate", cls=settings.of_calibration())(calibrate.calibrate)
app.command("export")(export.export)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("report")(report.report)
app.command("sql")(query.sql)
app.command("runs")(query.list_runs)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("methods")(about.methods)
app.add_typer(about.models_app, name="models")
app.command("doctor")(about.doctor)
app.add_typer(storage.storage_app, name="storage")
app.command("mcp")(mcp.mcp)
app.command("serve")(serve.serve)
app.command("worker")(service.worker)
app.add_typer(service.db_app, name="db")
_AT_A_SERVICE = "Commands of a service (--url or DATAPRUNER_URL; default: this machine's)"
app.add_typer(datasets.datasets_app, name="datasets", rich_help_panel=_AT_A_SERVICE)
app.add_typer(datasets.exports_app, name="exports", rich_help_panel=_AT_A_SERVICE)
app.add_typer(jobs.jobs_app, name="jobs", rich_help_panel=_AT_A_SERVICE)
app.add_typer(jobs.schedules_app, name="schedules", rich_help_panel=_AT_A_SERVICE)
app.add_typer(access.tokens_app, name="tokens", rich_help_panel=_AT_A_SERVICE)
app.add_typer(access.projects_app, name="projects", rich_help_panel=_AT_A_SERVICE)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"datapruner {version('datapruner')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. `arguments` are by default those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with outlets.outliving_readers():
        try:
            with contained():
                code = typer.main.get_command(app).main(given, prog_name="datapruner", standalone_mode=False)
            sys.stdout.flush()
        except Exception as error:
            return _failed(error, as_json="--json" in given)
        except KeyboardInterrupt:
            code = INTERRUPTED
        if code == INTERRUPTED:
            print("interrupted", file=sys.stderr)
        return code if isinstance(code, int) else 0


def _failed(error: Exception, *, as_json: bool) -> int:
    """Report `error` and return the exit code that it means."""
    if os.environ.get(_DEBUG) == "1":
        traceback.print_exception(error)
    known = _known(error)
    message = " ".join(re.sub(r"\n *\^+", "", str(known)).split())  # without DuckDB's line of carets
    print(f"error: {display.clean(message)}", file=sys.stderr)
    if as_json:
        about: dict[str, Any] = {"type": type(known).__name__, "message": str(known), "remedy": known.remedy}
        about |= {"field": known.field, "exit_code": known.exit_code}
        print(display.as_json({"error": about}))
    return known.exit_code


def _known(error: Exception) -> DataprunerError:
    """Any error as one of ours."""
    if isinstance(error, DataprunerError):
        return error
    if isinstance(error, typer.TyperException):
        return UsageError(_in_plain_words(error), remedy="see --help")
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return UsageError(f"cannot use {error.filename or 'a file'}: {error.strerror}")
    if isinstance(wanting := _want_of_space(error), DataprunerError):
        return wanting
    if isinstance(error, ModuleNotFoundError):
        return DataprunerError(str(error), remedy="see `datapruner doctor`")
    return DataprunerError(
        f"datapruner is at fault: {type(error).__name__}: {error}",
        remedy=f"please report it; {_DEBUG}=1 shows where it happened",
    )


def _want_of_space(error: Exception) -> Exception:
    from datapruner.system import space  # which needs libraries that --help does without

    return space.told(error)


def _in_plain_words(error: typer.TyperException) -> str:
    """What a wrong value of an option has to be; without the manner of the library that read it."""
    said = error.format_message()
    found = getattr(error.__cause__, "errors", None)  # those that pydantic counts up
    if found is None:
        return said
    from datapruner import validation

    first = found(include_url=False)[0]
    return said.replace(error.message, validation.wording(first) + validation.value(first)).rstrip(".")
