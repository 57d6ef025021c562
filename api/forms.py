"""Forms with a file: the fields beside it. The same names as in the JSON bodies, all of them text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.uploads import JsonMapping, JsonObject, valid
from datapruner.request.config import DEFAULT_MODEL, Measuring
from datapruner.request.keep import DESCRIPTION, LARGEST, Amount
from datapruner.request.settings import Names
from datapruner.schemas.common import Name, Request
from datapruner.schemas.datasets import NewDataset, Retention
from datapruner.schemas.runs import RunRequest
from datapruner.validation import matching

Sha256 = Annotated[str, *matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits")]
_SHA256: Any = Field(None, description="of the file, in hex; what arrives otherwise is refused")
_MAPPING: Any = Field({}, description="columns by role, as a JSON object, when they are not recognised")


class DatasetForm(Retention):
    name: Name
    mapping: JsonMapping = _MAPPING
    sha256: Sha256 | None = _SHA256

    def document(self) -> NewDataset:
        """The request that a JSON body would be, but for the rows."""
        return NewDataset(**self.model_dump(exclude={"sha256"}, exclude_unset=True))


class VersionForm(Request):
    only_new: bool = Field(False, description="leave out rows that the dataset already has")
    sha256: Sha256 | None = _SHA256


class PruneForm(Request):
    """What `schemas.prune.NewPrune` has, with the fields of `measuring` beside the others."""

    method: Names | None = None
    methods: Names | None = None
    keep: Amount | None = Field(None, description=DESCRIPTION)
    keep_tokens: int | None = Field(None, ge=1, le=LARGEST, description="or: a budget of trained tokens")
    token_keep: float | None = Field(None, description="share of the response tokens to keep")
    preset: str | None = None
    options: JsonObject = Field({}, description="of the method, as a JSON object")
    seed: int = Field(0, ge=0, le=LARGEST)
    name: Name | None = Field(None, description="of the dataset that is made; without, no listing shows it")
    mapping: JsonMapping = _MAPPING
    sha256: Sha256 | None = _SHA256
    model: str = Field(DEFAULT_MODEL, description="the proxy model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_length: int | None = Field(None, ge=2, le=2**31 - 1, description="tokens; longer samples are cut")
    overflow: Literal["truncate", "error"] = "truncate"
    train_on: Literal["all", "last"] = "all"
    reference: str | None = Field(None, description="a second model, for methods that compare the two")
    embedder: str | None = Field(
        None, description="sentence-embedding model, for methods that read its vectors"
    )
    target: str | None = Field(None, max_length=200, description="dataset to select towards, or dataset@3")
    recipe: str | None = Field(None, description="instead of all these but name and mapping: a recipe, YAML")

    def run(self) -> RunRequest:
        """The request that a JSON body would be. Raises RequestValidationError."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        measuring = {name: value for name, value in given.items() if name in Measuring.model_fields}
        wanted = {name: value for name, value in given.items() if name in RunRequest.model_fields}
        return valid(RunRequest, wanted | ({"measuring": measuring} if measuring else {}))
