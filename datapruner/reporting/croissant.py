"""A subset described to machines: Croissant 1.1 (MLCommons), in JSON-LD.

Notable choices:
- the columns of Parquet files are one record set; several such files are one file set besides. Other files
  are listed with their sizes and checksums;
- a column is left out where the format has no words for its type: binary values, maps, and what is nested
  more deeply than a list of objects.
"""

from __future__ import annotations

import glob
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from datapruner.rows.formats import FORMATS

Json = dict[str, Any]

NAME = "croissant.json"
PARQUET = "application/x-parquet"
"""As readers of Croissant call it."""
_ROWS = "rows"
_SET = "parquet-files"
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)

_WORDS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty "
    "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet "
    "references regex repeated replace samplingRate separator source subField transform"
)
"""Of Croissant, each under its own name."""
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}


@dataclass(frozen=True, slots=True)
class Described:
    """A file: where it is here, and its SHA-256 where that is known already."""

    path: Path
    sha256: str | None = None


def document(about: Mapping[str, Any], files: Mapping[str, Described]) -> Json:
    """The description of files, each under its address from where the description will lie.

    about: what schema.org says of a data set, such as its name. The Parquet files have the same columns.
    Raises OSError when one cannot be read.
    """
    parquet = [name for name, file in files.items() if file.path.suffix == FORMATS["parquet"].suffix]
    ids = {name: f"file-{at}" for at, name in enumerate(files)}
    distribution = [_file(ids[name], name, file) for name, file in files.items()]
    described: Json = {
        "@context": {**_CONTEXT, **{word: f"cr:{word}" for word in _WORDS.split()}},
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        **about,
        "distribution": distribution,
    }
    if parquet:
        source = {"fileObject": {"@id": ids[parquet[0]]}}
        if len(parquet) > 1:
            source = {"fileSet": {"@id": _SET}}
            patterns = [glob.escape(name) for name in parquet]
            distribution.append(
                {
                    "@type": "cr:FileSet",
                    "@id": _SET,
                    "name": _SET,
                    "encodingFormat": PARQUET,
                    "includes": patterns,
                }
            )
        described["recordSet"] = [_records(pq.read_schema(files[parquet[0]].path), source)]
    return described


def _file(identity: str, name: str, file: Described) -> Json:
    kind = PARQUET if file.path.suffix == FORMATS["parquet"].suffix else mimetypes.guess_type(name)[0]
    return {
        "@type": "cr:FileObject",
        "@id": identity,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{file.path.stat().st_size} B",
        "encodingFormat": kind or "application/octet-stream",
        "sha256": file.sha256 or _digest(file.path),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _records(schema: pa.Schema, source: Json) -> Json:
    found = {column.name: _field(at, column, source) for at, column in enumerate(schema)}
    missing = [name for name, field in found.items() if field is None]
    said = f" Columns that have no type in Croissant: {', '.join(missing)}." if missing else ""
    return {
        "@type": "cr:RecordSet",
        "@id": _ROWS,
        "name": _ROWS,
        "description": f"The rows to train on, one a record.{said}",
        "field": [field for field in found.values() if field is not None],
    }


def _field(at: int, column: pa.Field, source: Json) -> Json | None:
    """A column, None where there are no words for its type."""
    inner, shape = column.type, {}
    if types.is_list(inner) or types.is_large_list(inner):
        inner, shape = inner.value_type, {"isArray": True, "arrayShape": "-1"}
    # Identifiers may hold few letters; what has others is called by its number.
    name = f"{_ROWS}/{column.name if _NAME.fullmatch(column.name) else f'column/{at}'}"
    field: Json = {"@type": "cr:Field", "@id": name, "name": column.name, **shape}
    origin = source | {"extract": {"column": column.name}}
    if types.is_struct(inner):
        parts = [inner.field(at) for at in range(inner.num_fields)]
        if not parts or any(_type(part.type) is None or not _PLAIN.fullmatch(part.name) for part in parts):
            return None
        return field | {
            "subField": [
                {
                    "@type": "cr:Field",
                    "@id": f"{name}/{part.name}",
                    "name": part.name,
                    "dataType": _type(part.type),
                    "source": origin | {"transform": {"jsonPath": part.name}},
                }
                for part in parts
            ]
        }
    kind = _type(inner)
    return None if kind is None else field | {"dataType": kind, "source": origin}


def _type(kind: pa.DataType) -> str | None:
    """The type of one value by Croissant's name, None where it has none."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_integer(kind):
        return f"cr:{'UInt' if types.is_unsigned_integer(kind) else 'Int'}{kind.bit_width}"
    if types.is_floating(kind):
        return f"cr:Float{kind.bit_width}"
    if types.is_decimal(kind):
        return "sc:Float"
    if types.is_boolean(kind):
        return "sc:Boolean"
    if types.is_timestamp(kind):
        return "sc:DateTime"
    if types.is_date(kind):
        return "sc:Date"
    return "sc:Text" if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) else None
