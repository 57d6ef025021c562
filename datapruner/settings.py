"""Every setting of datapruner: one environment variable each, with a default that works on one machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from datapruner.errors import UsageError
from datapruner.home import home_folder
from datapruner.validation import wording

_PREFIX = "DATAPRUNER_"


class Settings(BaseSettings):
    """The service's settings; `DATAPRUNER_` and the name in capitals is the variable."""

    # An error that quoted its input could quote a password.
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(
        default_factory=home_folder,
        description="folder of models, caches, default database; default: ~/.datapruner",
    )
    database_url: str = Field(
        "", repr=False, description="metadata database; default: SQLite in the home folder"
    )
    storage: str = Field("", description="folder or object-store URL of published files; default: home/files")
    cache_bytes: int = Field(
        100 << 30, ge=0, description="most that copies of files in an object store take here"
    )
    secret: SecretStr = Field(SecretStr(""), description="key of token hashes; default: a file made in home")
    host: str = Field("127.0.0.1", description="address that the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="port that the API listens on; 0: any free one")
    drain_seconds: float = Field(
        0.0, ge=0, description="after SIGTERM, seconds of serving on while `/v1/ready` says no"
    )
    finish_seconds: int = Field(5, ge=0, description="seconds in which requests under way then have to end")
    workers: int = Field(1, ge=0, description="worker processes that `serve` starts; 0: run them elsewhere")
    devices: str = Field("auto", description="where workers measure: auto, cpu, or cuda:0,cuda:1")
    engine: Literal["local", "ray"] = Field(
        "local", description="what workers measure by, where a run does not say: local, or ray, a Ray cluster"
    )
    ray_address: str = Field(
        "", description="that cluster, auto or HOST:PORT; default: one on the worker's machine for each job"
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a measuring process; default: its share"
    )
    token_budget: int | None = Field(None, ge=1, description="padded tokens in a batch; default: by device")
    lease_seconds: float = Field(30.0, gt=0, description="a job is taken from a worker silent for so long")
    max_attempts: int = Field(3, ge=1, description="how often a failing job is tried")
    max_upload_bytes: int = Field(2 << 30, ge=1, description="largest request body")
    max_unpacked_bytes: int = Field(16 << 30, ge=1, description="most that an input may unpack to")
    ingest_memory_bytes: int = Field(4 << 30, ge=1 << 28, description="memory that reading an input may take")
    max_row_bytes: int = Field(16 << 20, ge=1, description="longest row; longer ones are rejected")
    max_turns: int = Field(
        1000,
        ge=1,
        description="most turns of a conversation; those of more are rejected, as the time to render one "
        "grows with the square of its turns (1.5 s at 1,000)",
    )
    evaluation_seconds: float = Field(
        3600.0, gt=0, description="longest evaluation of a run, and how long one without a limit takes"
    )
    import_roots: Annotated[list[Path], NoDecode] = Field(
        [], description="folders that datasets may be read from, separated by colons"
    )
    import_urls: Annotated[list[str], NoDecode] = Field(
        [], description="object-store prefixes that datasets may be read from, separated by spaces"
    )
    allow_hub: bool = Field(True, description="whether datasets and models may come from the Hub")
    webhook_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="hosts that webhooks may reach at private addresses, separated by spaces"
    )
    log_to: Annotated[list[str], NoDecode] = Field(
        [], description="where workers log runs: mlflow, wandb, trackio, openlineage, separated by spaces"
    )
    sql_warm: int = Field(2, ge=0, description="SQL processes kept ready")
    sql_concurrent: int = Field(4, ge=1, description="SQL statements that run at the same time")
    sql_seconds: float = Field(10.0, gt=0, description="longest SQL statement")
    sql_rows: int = Field(10_000, ge=1, description="most rows of an SQL answer")
    sql_bytes: int = Field(64 << 20, ge=1, description="most bytes of an SQL answer")
    sql_memory_bytes: int = Field(1 << 30, ge=1, description="memory of an SQL statement")
    sql_spill_bytes: int = Field(
        16 << 30, ge=1, description="disk of temporary files of an SQL statement that needs more memory"
    )
    log_format: Literal["json", "text"] = Field("text", description="how log lines look")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")

    @field_validator("home")
    @classmethod
    def _whole(cls, value: Path) -> Path:
        return value.expanduser().absolute()  # for processes that start elsewhere

    @field_validator("import_roots", mode="before")
    @classmethod
    def _by_colons(cls, value: Any) -> Any:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("import_urls", "webhook_hosts", "log_to", mode="before")
    @classmethod
    def _by_spaces(cls, value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the metadata database."""
        return self.database_url or f"sqlite:///{self.home / 'catalog.sqlite'}"

    @property
    def files(self) -> str:
        """Path or URL of the storage root."""
        return self.storage or str(self.home / "files")


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return f"{_PREFIX}{name.upper()}"


def load(**given: Any) -> Settings:
    """The settings of the environment; `given` ones win. Raises UsageError naming the variable at fault."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = variable(str(first["loc"][0]))
        raise UsageError(f"{name}: {wording(first)}", remedy="see docs/settings.md", field=name) from error
