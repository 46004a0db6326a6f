"""QIDO-RS: searches for studies, series and instances (PS3.18 10.6)."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Handler, Mount
from graph.execution.audit import describe_parameters, recorded
from services.audit import Action
from services.dicomweb.attributes import Fields, Level, write_model
from services.dicomweb.request import parse_search
from services.dicomweb.search import search
from services.query.turns import CooperativeExecution


def search_routes(mount: Mount) -> list[BaseRoute]:
    """Make the routes of searches."""
    study, series = "/studies/{study}", "/studies/{study}/series/{series}"
    return [
        mount.route(path, _searching(level))
        for path, level in (
            ("/studies", Level.STUDY),
            ("/series", Level.SERIES),
            (f"{study}/series", Level.SERIES),
            ("/instances", Level.INSTANCE),
            (f"{study}/instances", Level.INSTANCE),
            (f"{series}/instances", Level.INSTANCE),
        )
    ]


def _searching(level: Level) -> Handler:
    async def answer(exchange: Exchange) -> Response:
        return await _search(exchange, level)

    return answer


async def _search(exchange: Exchange, level: Level) -> Response:
    exchange.json_type()
    path, parameters = exchange.request.path_params, exchange.request.query_params.multi_items()
    request = parse_search(
        level, parameters, study_uid=path.get("study"), series_uid=path.get("series")
    )
    async with recorded(
        exchange.runtime.audit, Action.VIEW, exchange.principal, detail=exchange.detail
    ) as event:
        event.searched = describe_parameters(exchange.detail, [*path.items(), *parameters])
        found = await search(
            request,
            exchange.principal.scope,
            max_seconds=exchange.runtime.settings.operation_seconds,
            is_one_study="study" in path,
        )
        event.number_of_objects = len(found.results)
        for result in found.results:
            event.study_ids.add(result[Level.STUDY]["_id"])
            event.patient_ids.add(result[Level.STUDY]["orthancPatientId"])
    exchange.warnings.extend(request.warnings)
    if found.has_more and "limit" not in exchange.request.query_params:
        exchange.warnings.append("There are additional results that can be requested")
    turns = CooperativeExecution()
    models = []
    for result in found.results:
        address = _address(exchange.root, result)
        # Written one by one: together they would be counted before, in half of the time again.
        model = write_model(result, request.attributes, address=address)
        models.append(orjson.Fragment(orjson.dumps(model)))
        await turns.yield_to_loop()
    return await exchange.json(models)


def _address(root: str, result: Mapping[Level, Fields]) -> str:
    address = root
    for level, name, field in _STEPS:
        if level in result:
            address += f"/{name}/{result[level][field]}"
    return address


_STEPS = (
    (Level.STUDY, "studies", "studyInstanceUID"),
    (Level.SERIES, "series", "seriesInstanceUID"),
    (Level.INSTANCE, "instances", "sopInstanceUID"),
)
