"""Forms with a file: the fields beside it. The same names as in the JSON bodies, all of them text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, from_json

from datapruner.request.config import Measuring
from datapruner.request.settings import beside
from datapruner.schemas.common import Name, Request, unfit
from datapruner.schemas.datasets import NewDataset, Retention
from datapruner.schemas.runs import RunRequest
from datapruner.validation import matching


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        content = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise PydanticCustomError("not_json", "not JSON: {error}", {"error": str(error)}) from error
    for _, wrong in unfit(content):
        raise wrong
    return content


_AS_JSON = (
    BeforeValidator(_parsed),
    WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
)
JsonObject = Annotated[dict[str, Any], *_AS_JSON]
"""A field that holds a JSON document."""
JsonMapping = Annotated[dict[str, str], *_AS_JSON]
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


class PruneForm(RunRequest):
    """What `schemas.prune.NewPrune` has, with the fields of `measuring` beside the others."""

    options: JsonObject = Field({}, description="of the method, as a JSON object")
    recipe: str | None = Field(None, description="instead of all these but name and mapping: a recipe, YAML")
    name: Name | None = Field(None, description="of the dataset that is made; without, no listing shows it")
    mapping: JsonMapping = _MAPPING
    sha256: Sha256 | None = _SHA256

    @model_validator(mode="before")
    @classmethod
    def _as_in_a_body(cls, given: Any) -> Any:
        return beside(given)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        fields = dict(found["properties"])
        del fields["measuring"]
        found["properties"] = (
            fields | handler.resolve_ref_schema(handler(Measuring.__pydantic_core_schema__))["properties"]
        )
        return found
