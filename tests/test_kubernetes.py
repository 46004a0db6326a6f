"""The manifests are valid Kubernetes, and name settings, ports and routes that exist."""

from typing import Any, cast

import kubernetes_validate
import pytest
import yaml

from graph.routes.frames import routes as frame_routes
from graph.routes.health import health_routes
from services.settings import Settings
from tests.deployment import DEPLOY

MANIFESTS = cast(
    "list[dict[str, Any]]",
    list(
        yaml.safe_load_all(
            (DEPLOY / "kubernetes" / "orthanc-graphql.yaml").read_text(encoding="utf-8")
        )
    ),
)
VERSIONS = ("1.28", kubernetes_validate.latest_version())


def manifest(kind: str, name: str = "orthanc-graphql") -> dict[str, Any]:
    (found,) = [one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


POD: dict[str, Any] = manifest("Deployment")["spec"]["template"]
SERVER: dict[str, Any] = POD["spec"]["containers"][0]
CONFIGURATION: dict[str, str] = manifest("ConfigMap")["data"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", range(len(MANIFESTS)))
def test_a_manifest_is_valid(number: int, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[number], version, strict=True)


def test_the_settings_exist_and_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: value for name, value in CONFIGURATION.items() if name != "SECRETS_DIR"}
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MONGODB_URL", "mongodb://mongodb/?replicaSet=rs0")
    monkeypatch.setenv("FRAME_URL_KEYS", f"k1:{'A' * 43}")
    settings = Settings(_env_file=None)
    assert settings.metrics_port == port("metrics")
    grace = POD["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.shutdown_delay_seconds + settings.shutdown_seconds + 15
    (mounted,) = [one for one in SERVER["volumeMounts"] if one["name"] == "secrets"]
    assert mounted["mountPath"] == CONFIGURATION["SECRETS_DIR"]


def port(name: str) -> int:
    (found,) = [one["containerPort"] for one in SERVER["ports"] if one["name"] == name]
    return int(found)


def test_a_pod_is_confined() -> None:
    assert SERVER["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert "memory" in SERVER["resources"]["limits"]
    volumes = {volume["name"] for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in SERVER["volumeMounts"]} == volumes


def test_probes_ask_routes_that_exist() -> None:
    paths = {route.path for route in health_routes()}
    probes = [SERVER[f"{name}Probe"] for name in ("readiness", "liveness", "startup")]
    assert [probe["httpGet"]["path"] for probe in probes] == ["/readyz", "/healthz", "/healthz"]
    assert {probe["httpGet"]["path"] for probe in probes} <= paths


def test_everything_selects_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    spec = {one["kind"]: one["spec"] for one in MANIFESTS if "spec" in one}
    assert spec["Deployment"]["selector"]["matchLabels"] == labels
    assert spec["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    assert spec["NetworkPolicy"]["podSelector"]["matchLabels"] == labels
    assert spec["PodDisruptionBudget"]["minAvailable"] < spec["Deployment"]["replicas"]
    for name in ("orthanc-graphql", "orthanc-graphql-frames"):
        assert manifest("Service", name)["spec"]["selector"] == labels


def test_pictures_have_a_service_of_their_own() -> None:
    (rule,) = manifest("Ingress")["spec"]["rules"]
    backends = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert backends == {"/frames/": "orthanc-graphql-frames", "/": "orthanc-graphql"}
    (frames,) = frame_routes
    assert frames.path.startswith("/frames/")
    annotations = manifest("Service", "orthanc-graphql-frames")["metadata"]["annotations"]
    # One slash before each of frames, v2, the signature and the instance.
    assert annotations["haproxy.org/load-balance"] == "uri depth 4"
    assert CONFIGURATION["PUBLIC_URL"] == f"https://{rule['host']}"
