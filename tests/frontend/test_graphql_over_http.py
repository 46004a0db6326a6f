"""The audit of the package graphql-http: GraphQL over HTTP as its specification says."""

import json
from pathlib import Path

from tests.frontend.conftest import Workshop
from tests.server_process import Served

_SCRIPT = Path(__file__).with_name("audit.mjs")
_DEMANDS = 13
"""Audits of this release that say MUST; the others are advice, and are followed as well."""


async def test_every_audit_of_the_specification_is_passed(
    workshop: Workshop, served: Served
) -> None:
    printed = await workshop.run("node", str(_SCRIPT), URL=f"{served.url}/graphql")
    outcomes = {one["name"]: one.get("reason") or one["status"] for one in json.loads(printed)}
    assert sum(name.startswith("MUST ") for name in outcomes) == _DEMANDS
    assert outcomes == dict.fromkeys(outcomes, "ok")
