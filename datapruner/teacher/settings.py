"""The teacher's settings: `DATAPRUNER_TEACHER_` and the name in capitals is the variable.

Notable choices:
- the key comes from the environment only: no argument, recipe or request can hold one, and a dump of the
  settings leaves it out, so that what a run records never has it;
- prices are per million tokens, in whatever currency `max_cost` is in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from datapruner.errors import UsageError
from datapruner.home import home_folder
from datapruner.validation import wording

_PREFIX = "DATAPRUNER_TEACHER_"
_KEY = "api_key"


class TeacherSettings(BaseSettings):
    """Which teacher, how fast, and how much of it."""

    # An error that quoted its input would quote the key.
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    base_url: str = Field(
        "", description="address of an OpenAI-compatible service, as in http://host:8000/v1"
    )
    model: str = Field("", description="name of the teacher model, as that service knows it")
    api_key: SecretStr = Field(
        SecretStr(""), exclude=True, description="key of that service, if it wants one"
    )
    concurrency: int = Field(8, ge=1, le=1024, description="requests in flight at the same time")
    timeout_seconds: float = Field(180.0, gt=0, description="longest time for one whole answer")
    retries: int = Field(6, ge=0, description="how often a failed request is repeated")
    requests_per_minute: float | None = Field(None, gt=0, description="requests started per minute, evenly")
    tokens_per_minute: float | None = Field(None, gt=0, description="prompt and answer tokens per minute")
    max_requests: int | None = Field(None, ge=1, description="most requests of a job, repeated ones included")
    max_total_tokens: int | None = Field(None, ge=1, description="most prompt and answer tokens of a job")
    max_cost: float | None = Field(None, gt=0, description="most money of a job; needs both prices")
    prompt_price: float | None = Field(None, ge=0, description="price of a million prompt tokens")
    completion_price: float | None = Field(None, ge=0, description="price of a million answer tokens")
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the service calls the limit of an answer's tokens"
    )
    send_temperature: bool = Field(True, description="whether the service takes a temperature")

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL:
            raise ValueError("no URL; write http://host:8000/v1") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("no URL of a service; write http://host:8000/v1")
        # What is in the URL gets into logs.
        if url.userinfo or url.query or url.fragment:
            raise ValueError(f"there is more than host and path in it; the key goes in {variable(_KEY)}")
        return str(url).rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError("there are characters in it that no key has")
        return SecretStr(key)

    @model_validator(mode="after")
    def _cost_has_prices(self) -> TeacherSettings:
        if self.max_cost is not None and not self.priced:
            raise ValueError(
                f"{variable('max_cost')} needs {variable('prompt_price')} and {variable('completion_price')}"
            )
        return self

    @property
    def configured(self) -> bool:
        """Whether there is a teacher at all."""
        return bool(self.base_url and self.model)

    @property
    def priced(self) -> bool:
        return self.prompt_price is not None and self.completion_price is not None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money for so many tokens; 0 where no prices are given."""
        prompt, completion = self.prompt_price or 0.0, self.completion_price or 0.0
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return f"{_PREFIX}{name.upper()}"


def load(**given: Any) -> TeacherSettings:
    """The settings of the environment; `given` ones win. Raises UsageError naming the variable at fault."""
    if _KEY in given:
        raise UsageError(
            "the teacher's key is not given here", remedy=f"put it in {variable(_KEY)}", field=_KEY
        )
    try:
        return TeacherSettings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else None
        if name is not None and name not in TeacherSettings.model_fields:
            raise UsageError(f"there is no teacher setting {name!r}", field=name) from None
        where = f"{variable(name)}: " if name else ""
        raise UsageError(f"{where}{wording(first)}", remedy="see docs/settings.md", field=name) from None


def store_path() -> Path:
    """Where answers are kept."""
    return home_folder() / "teacher" / "answers.sqlite"
