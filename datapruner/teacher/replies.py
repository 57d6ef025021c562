"""Reading what a service sends back: an answer, a failure that may pass, or one that will not.

Notable choices:
- what the service says about a failure is shown, cut to one line and without the key, which some echo;
- OpenAI's 429 for an account without money is told from the one for too many requests: it does not pass.
"""

from __future__ import annotations

import httpx
from pydantic import BaseModel, Field, ValidationError

from datapruner.http.retries import retry_after
from datapruner.teacher.errors import Reason, TeacherError, TeacherUnavailableError
from datapruner.teacher.settings import TeacherSettings, variable

_MAX_SAID = 300
_PASSING = (408, 425, 429)  # and every 5xx
_LASTING_CODES = {"insufficient_quota", "billing_hard_limit_reached"}
_PARAMETER_CODES = {"unsupported_parameter", "unsupported_value"}


class PassingError(Exception):
    """An attempt failed, and another may not.

    `error` is for when there are no more attempts, `told` how many seconds the service asks to wait, `billed`
    whether it may have done the work.
    """

    def __init__(self, error: TeacherError, *, told: float | None = None, billed: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.told = told
        self.billed = billed


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Used(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class Reply(BaseModel):
    """A chat completion, as far as it is used. Services add much to it."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Used | None = None

    @property
    def text(self) -> str:
        return self.choices[0].message.content or ""

    @property
    def finish(self) -> str:
        return self.choices[0].finish_reason or "unknown"


class _Error(BaseModel):
    message: str = ""
    code: str | int | None = None


class _Failure(BaseModel):
    error: _Error | str | None = None
    detail: str | None = None


def read_reply(response: httpx.Response, body: bytes, settings: TeacherSettings) -> Reply:
    """The completion. Raises PassingError, TeacherError for this question, or TeacherUnavailableError."""
    if not response.is_success:
        raise _failure(response, body, settings)
    try:
        return Reply.model_validate_json(body)
    except ValidationError:
        about = _failure_of(body)  # some services say so with a 200
        said = _said(about.message if about else "", settings)
        raise PassingError(
            TeacherError(
                f"the teacher's reply is no chat completion{said}",
                reason="malformed",
                remedy=f"does {variable('base_url')} end as the service's documentation says, often in /v1?",
            ),
            billed=True,
        ) from None  # it holds the reply


def _failure(response: httpx.Response, body: bytes, settings: TeacherSettings) -> Exception:
    status, about = response.status_code, _failure_of(body)
    code = about.code if about else None
    said = about.message if about else body.decode(errors="replace")
    message = f"the teacher answered {status}{_said(said, settings)}"
    if status == 401 or (status == 403 and not settings.api_key.get_secret_value()):
        return TeacherUnavailableError(message, remedy=f"check {variable('api_key')}")
    if status == 402 or code in _LASTING_CODES:
        return TeacherUnavailableError(message, remedy="the account has no money or quota left")
    if status in (404, 405) or response.is_redirect:
        remedy = f"check {variable('base_url')} and {variable('model')}"
        return TeacherUnavailableError(message, remedy=remedy)
    if code in _PARAMETER_CODES:
        remedy = f"see {variable('max_tokens_name')} and {variable('send_temperature')}"
        return TeacherUnavailableError(message, remedy=remedy)
    if status in _PASSING or response.is_server_error:
        reason: Reason = "rate" if status == 429 else "server"
        return PassingError(TeacherError(message, reason=reason), told=retry_after(response))
    return TeacherError(message, reason="refused")


def _failure_of(body: bytes) -> _Error | None:
    try:
        found = _Failure.model_validate_json(body)
    except ValidationError:
        return None
    if isinstance(found.error, _Error):
        return found.error
    said = found.error or found.detail
    return None if said is None else _Error(message=said)


def _said(text: str, settings: TeacherSettings) -> str:
    if key := settings.api_key.get_secret_value():
        text = text.replace(key, "[key]")
    # Printable, for it may end in a terminal.
    line = "".join(c if c.isprintable() else " " for c in text[:_MAX_SAID]).strip()
    return f": {line}" if line else ""
