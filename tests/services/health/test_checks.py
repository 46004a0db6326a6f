"""What `/api/status` says about warnings and background tasks."""

from services.health.checks import Health, PartHealth


def test_a_warning_or_a_failing_task_degrades_and_a_missing_part_makes_unavailable() -> None:
    fine, warned = PartHealth(is_ready=True), PartHealth(is_ready=True, warning="late")
    away = PartHealth(is_ready=False, message="away")
    failing = {"tokens": "KeyError"}
    assert Health({"mongodb": fine}).status == "ok"
    assert Health({"mongodb": warned}).to_json() == {
        "status": "degraded",
        "mongodb": {"status": "ok", "warning": "late"},
    }
    assert Health({"mongodb": fine}, failing).to_json() == {
        "status": "degraded",
        "mongodb": {"status": "ok"},
        "backgroundTasks": failing,
    }
    assert Health({"mongodb": fine}, failing).is_ready
    assert Health({"mongodb": away}, failing).status == "unavailable"
