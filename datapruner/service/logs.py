"""Log lines of the service's processes, on standard error: JSON for collectors, or text for people.

Notable choice: what libraries log by `logging` goes the same way, so every line has the same form, and the
request or job that is being worked on (`structlog.contextvars.bound_contextvars`).
"""

from __future__ import annotations

import logging
import sys

import structlog

from datapruner.settings import Settings

_NOISY = {
    "uvicorn": "warning",
    "alembic": "warning",
    "botocore": "warning",
    "httpx": "warning",
    "mcp": "warning",
}


def configure(settings: Settings) -> None:
    """Set up logging for this process, once."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.typing.Processor]
    if settings.log_format == "json":
        ending = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        ending = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(max(level.upper(), settings.log_level.upper(), key=_rank))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rank(level: str) -> int:
    return logging.getLevelNamesMapping()[level]
