"""The containers of compose.yaml have no right that they do not need."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

COMPOSE = cast(
    "dict[str, Any]",
    yaml.safe_load((Path(__file__).parents[1] / "compose.yaml").read_text(encoding="utf-8")),
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert re.fullmatch(r"\d+g", service["mem_limit"])


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_built_here_or_named_exactly(name: str) -> None:
    image = SERVICES[name].get("image")
    assert image is None or re.fullmatch(r"mongo:\d+\.\d+\.\d+|\$\{ORTHANC_IMAGE:\?.*\}", image)


def test_only_the_server_is_reachable_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"server": ["127.0.0.1:8000:8000"]}


def test_mongodb_asks_for_a_password() -> None:
    environment = SERVICES["mongodb"]["environment"]
    assert environment["MONGO_INITDB_ROOT_PASSWORD"].startswith("${MONGODB_PASSWORD:?")
    assert "--keyFile" in SERVICES["mongodb"]["entrypoint"][-1]
    assert "${MONGODB_PASSWORD:?" in SERVICES["server"]["environment"]["MONGODB_URL"]


def test_no_secret_has_a_default() -> None:
    text = Path(__file__).parents[1].joinpath("compose.yaml").read_text(encoding="utf-8")
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|KEYS))([^}]*)\}", text)
    assert {name for name, _ in secrets} == {
        "MONGODB_PASSWORD",
        "ORTHANC_PASSWORD",
        "FRAME_URL_KEYS",
    }
    assert all(rest.startswith(":?") for _, rest in secrets)
