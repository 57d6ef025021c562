"""A dataset: what was read of it, how rows look, and a run to start, step by step."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.schemas.runs import NewRun
from datapruner.schemas.trying import Foreseen
from datapruner.service import datasets, exports, guided, runs, trying

router = APIRouter(route_class=PageRoute, include_in_schema=False)
data = APIRouter(include_in_schema=False)
"""What scripts ask for; its errors are documents."""

_SAMPLES, _REJECTS, _RUNS, _OTHERS = 5, 20, 10, 100
_FIRST = "qtuning"


@router.get("/datasets/{dataset}", operation_id="page_dataset")
def page_dataset(request: Request, service: ServiceDep, visitor: Visitor, dataset: str) -> HTMLResponse:
    """A dataset's latest version, its runs, and the form of a new one."""
    caller = visitor.caller
    found = datasets.show(service, caller, dataset)
    number = None if found.latest is None else found.latest.number
    choices = guided.choices()
    others = datasets.listing(service, caller, limit=_OTHERS)
    return page(
        request,
        "dataset.html",
        visitor,
        dataset=found,
        samples=[] if number is None else datasets.samples(service, caller, found.id, number, limit=_SAMPLES),
        rejects=[] if number is None else datasets.rejects(service, caller, found.id, number, limit=_REJECTS),
        runs=runs.listing(service, caller, limit=_RUNS, dataset=found.id),
        exports=exports.listing(service, caller, limit=_RUNS, dataset=found.id),
        choices=choices,
        first=_FIRST,
        model=guided.MODEL,
        targets=[each.name for each in others if each.id != found.id and each.latest is not None],
        guide={"dataset": found.id, "methods": {each.about.name: _about(each) for each in choices}},
    )


def _about(choice: guided.Choice) -> dict[str, Any]:
    """A method for the form's script."""
    return {
        "options": choice.about.options["properties"],
        "presets": choice.about.presets,
        "takes": sorted(choice.takes),
        "besides": {
            option: {value: sorted(more) for value, more in values.items()}
            for option, values in choice.besides.items()
        },
    }


@data.post("/foreseen.json", operation_id="page_foreseen")
def page_foreseen(service: ServiceDep, visitor: Visitor, wanted: NewRun) -> Foreseen:
    """What a run would keep; it is not started."""
    return trying.foreseen(service, visitor.caller, wanted)
