"""A dataset: what was read of it, how rows look, and a run to start, step by step."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.service import datasets, guided, runs

router = APIRouter(route_class=PageRoute, include_in_schema=False)

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
        choices=choices,
        first=_FIRST,
        model=guided.MODEL,
        targets=[each.name for each in others if each.id != found.id and each.latest is not None],
        guide={
            "dataset": found.id,
            "methods": {
                each.about.name: {
                    "options": each.about.options["properties"],
                    "presets": each.about.presets,
                    "target": each.target,
                }
                for each in choices.offered
            },
        },
    )
