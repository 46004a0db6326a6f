"""`docker compose up` gives everything, and no container has a right that it does not need."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner
from compose_spec import PyCompose
from packaging.version import Version

from graph.cli import main
from services.installation.container_secrets import make_secrets
from services.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE = cast(
    "dict[str, Any]", yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("secrets", "token", "server")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SECRETS = "/run/secrets"


def test_the_file_is_valid() -> None:
    compose = PyCompose.from_json(json.dumps(COMPOSE))
    compose.validate()
    compose.validate_networks()
    compose.validate_volumes()
    compose.to_spec()


def test_nothing_has_to_be_set_or_made_before() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    # `$$` is a dollar of the container's own shell.
    assert re.findall(r"(?<!\$)\$\{?\w+", text) == []
    mounted = [volume.split(":")[0] for one in SERVICES.values() for volume in one["volumes"]]
    assert set(mounted) == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "pid", "ipc", "devices"} & service.keys()
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    user, group = service["user"].split(":")
    assert int(user) == int(group) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_named_exactly(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)
    assert ("build" in SERVICES[name]) == (name in OURS)


def test_the_images_of_the_dockerfile_are_named_exactly() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(
        re.fullmatch(r"\w+:\d+\.\d+\.\d+-(slim-bookworm|bookworm-slim)", base) for base in bases
    )


def test_orthanc_has_no_known_vulnerability() -> None:
    # 26.4.0 is the first image with Orthanc 1.12.11.
    assert Version(SERVICES["orthanc"]["image"].partition(":")[2]) >= Version("26.4.0")


def test_only_the_server_is_reachable_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"server": ["127.0.0.1:8000:8000"]}
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    networks = {name: service.get("networks") for name, service in SERVICES.items()}
    assert networks == {
        "secrets": None,
        "token": ["stores"],
        "server": ["stores", "outside"],
        "mongodb": ["stores"],
        "orthanc": ["stores"],
    }
    assert SERVICES["secrets"]["network_mode"] == "none"


def test_a_container_has_its_own_secrets_only_and_changes_none() -> None:
    for name in ("token", "server", "mongodb", "orthanc"):
        mounted = [volume for volume in SERVICES[name]["volumes"] if "secrets" in volume]
        owner = "server" if name == "token" else name
        assert mounted == [f"{owner}-secrets:{SECRETS}:ro"]


def test_the_order_of_the_first_start() -> None:
    conditions = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    made, healthy = "service_completed_successfully", "service_healthy"
    assert conditions == {
        "secrets": {},
        "mongodb": {"secrets": made},
        "orthanc": {"secrets": made},
        "token": {"secrets": made, "mongodb": healthy},
        "server": {"token": made, "mongodb": healthy, "orthanc": healthy},
    }
    assert {SERVICES[name]["restart"] for name in ("secrets", "token")} == {"no"}


@pytest.mark.parametrize("name", OURS)
def test_the_commands_exist(name: str) -> None:
    command = SERVICES[name].get("command") or json.loads(
        re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1]
    )
    program, *arguments = command
    assert program == "orthanc-graphql"
    options = [one for one in arguments if one.startswith("--")]
    names = [one for one in arguments[:2] if not one.startswith(("-", "/"))]
    shown = CliRunner().invoke(main, [*names, "--help"])
    assert shown.exit_code == 0
    assert [option for option in options if option not in shown.output] == []


def test_the_health_of_the_image_is_asked_by_our_own_command() -> None:
    (command,) = re.findall(r"HEALTHCHECK .*\\\n  CMD (.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(command) == ["orthanc-graphql", "health"]
    assert CliRunner().invoke(main, ["health", "--help"]).exit_code == 0


def environment(folder: Path) -> Mapping[str, str]:
    given = dict(SERVICES["server"]["environment"])
    assert given.pop("SECRETS_DIR") == SECRETS
    make_secrets(folder)
    return cast("Mapping[str, str]", given)


def test_the_server_gets_everything_that_it_requires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(tmp_path)
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None, _secrets_dir=tmp_path / "server")
    assert not settings.embeds_mongodb
    assert not settings.embeds_orthanc
    assert settings.mongodb_url is not None
    assert settings.frame_url_keys is not None
    url = settings.mongodb_url.get_secret_value()
    password = (tmp_path / "mongodb" / "password").read_text(encoding="utf-8")
    assert f":{password}@mongodb:27017/?replicaSet=rs0" in url
    assert "--replSet rs0 " in SERVICES["mongodb"]["entrypoint"][-1]
    orthanc = json.loads((tmp_path / "orthanc" / "orthanc.json").read_text(encoding="utf-8"))
    assert orthanc["RegisteredUsers"] == {
        settings.orthanc_username: settings.orthanc_password.get_secret_value()
    }
    assert orthanc["LuaScripts"] == [f"{SECRETS}/orthanc-events.lua"]
    script = (tmp_path / "orthanc" / "orthanc-events.lua").read_text(encoding="utf-8")
    assert settings.orthanc_events_secret is not None
    assert settings.orthanc_events_secret.get_secret_value() in script
    assert "'http://server:8000/internal/orthanc-events'" in script


def test_what_the_containers_read_from_their_secrets_is_there(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    mongodb = json.dumps(SERVICES["mongodb"])
    for name in ("username", "password", "keyfile"):
        assert (tmp_path / "mongodb" / name).exists()
        assert f"{SECRETS}/{name}" in mongodb or f'read(\\"{name}\\")' in mongodb


def test_the_image_has_the_folders_that_are_mounted() -> None:
    # A new volume gets the owner of the folder that it is mounted on; without one it is root's.
    for name in OURS:
        for volume in SERVICES[name]["volumes"]:
            target = volume.split(":")[1]
            assert target == SECRETS or target in DOCKERFILE
    user = SERVICES["server"]["user"]
    assert f"USER {user}" in DOCKERFILE
    assert f"useradd --uid {user.partition(':')[0]} " in DOCKERFILE
    # Of the image of Orthanc: it has /var/lib/orthanc, which is its user's, and nothing below.
    assert SERVICES["orthanc"]["volumes"][1] == "orthanc:/var/lib/orthanc"


def test_the_image_of_orthanc_writes_nothing_into_its_root() -> None:
    given = SERVICES["orthanc"]["environment"]
    # docker-entrypoint.sh writes /etc/hostid, and generateConfiguration.py copies these plugins.
    assert given["GENERATE_HOST_ID_IF_MISSING"] == "false"
    assert given["GDCM_PLUGIN_ENABLED"] == "false"
    assert given["ORTHANC_EXPLORER_2_ENABLED"] == "false"
    assert "/tmp" in SERVICES["orthanc"]["tmpfs"]  # noqa: S108  # where it writes its configuration
