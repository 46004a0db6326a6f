"""The files of `deploy/` are accepted by the programs that read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from graph.http.client_slots import ClientSlots
from graph.routes.archives import archive_routes
from graph.routes.files import file_routes
from graph.routes.frames import routes as frame_routes
from graph.routes.shares import routes as share_routes
from services.sync.orthanc_script import EVENTS_PATH
from tests.deployment import (
    DEPLOY,
    caddy_configuration,
    haproxy_configuration,
    make_certificate,
    nginx_configuration,
)

UNIT = DEPLOY / "orthanc-graphql@.service"

_OF_THE_TEST = ("no OCSP stapling for [localhost", "HTTP->HTTPS redirects are disabled")
"""Warnings of Caddy about the certificate and the options of the test."""

_EXPOSURE = 20
"""Tenths of the figure of `systemd-analyze security`, from 0 (confined) to 100."""


def program(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def check(*command: object) -> str:
    done = subprocess.run(  # noqa: S603  # programs of this machine
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


PROXIES = {
    "nginx": (nginx_configuration, ("-t", "-c")),
    "haproxy": (haproxy_configuration, ("-c", "-V", "-f")),
    "caddy": (caddy_configuration, ("validate", "--adapter", "caddyfile", "--config")),
}


@pytest.mark.parametrize("name", PROXIES)
def test_the_proxy_accepts_its_configuration(name: str, tmp_path: Path) -> None:
    executable = program(name)
    configure, arguments = PROXIES[name]
    certificate = make_certificate(tmp_path)
    path = configure(tmp_path, certificate, port=8443, processes=(8001, 8002))
    said = check(executable, *arguments, path)
    warnings = [line for line in said.splitlines() if "warn" in line.lower()]
    warnings = [line for line in warnings if not any(known in line for known in _OF_THE_TEST)]
    assert warnings == []


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg", "Caddyfile"])
def test_the_proxies_know_the_routes(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    (frames,) = frame_routes
    prefix = frames.path.partition("{")[0]
    assert prefix in text
    assert f"/{EVENTS_PATH.split('/')[1]}/" in text
    if name == "nginx.conf":
        unbuffered = re.search(r"location ~ (\S+) \{\s+proxy_pass \S+;\s+proxy_buffering off", text)
        assert unbuffered is not None
        slots = ClientSlots("downloads", 1, setting="")
        for route in (*archive_routes(slots), *file_routes(slots), *share_routes):
            assert re.match(unbuffered[1], route.path), route.path


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit of process 1 with a program that is here."""
    text = UNIT.read_text(encoding="utf-8")
    program_path = "/opt/orthanc-graphql/bin/orthanc-graphql"
    assert program_path in text
    path = tmp_path / "orthanc-graphql@1.service"
    path.write_text(text.replace(program_path, "/bin/true"), encoding="utf-8")
    return path


def test_systemd_accepts_the_unit(unit: Path) -> None:
    said = check(program("systemd-analyze"), "verify", "--man=no", unit)
    assert said == ""


def test_the_unit_confines_the_server(unit: Path) -> None:
    command = (program("systemd-analyze"), "security", "--offline=true", "--no-pager")
    check(*command, f"--threshold={_EXPOSURE}", unit)
    settings = [line for line in unit.read_text(encoding="utf-8").splitlines() if "=" in line]
    for setting in ("MemoryMax=4G", "LimitNOFILE=65536", "OOMPolicy=continue", "Restart=always"):
        assert setting in settings


def test_the_documentation_names_every_file() -> None:
    text = (DEPLOY.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert [path.name for path in DEPLOY.iterdir() if f"deploy/{path.name}" not in text] == []
