"""What the benchmarks say of themselves; what they measure is never asserted."""

from collections.abc import Mapping

import pytest

from models import (
    InstanceDocument,
    PatientDocument,
    SeriesDocument,
    StoredDocument,
    StudyDocument,
)
from models.names import contract_name
from tests.benchmarks import synthetic_index
from tests.benchmarks.measurement import Bound, Line, Row
from tests.benchmarks.report import (
    PAGE,
    Report,
    cells,
    merged,
    page_section,
    read_report,
    section_of,
)
from tests.benchmarks.synthetic_index import IndexSize

ROW = Row(case="tree", ours_seconds=0.0705, rival="REST", rival_seconds=0.0632, goal=0.5)
BOUND = Bound(case="memory", value=70.125, unit="MB", at_most=64)


def test_the_page_shows_what_benchmarks_json_says() -> None:
    assert section_of(PAGE.read_text(encoding="utf-8")) == page_section(read_report())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ROW, ("tree", "70.5 ms", "REST", "63.2 ms", "0.896", "0.5", "met")),
        (BOUND, ("memory", "70.12 MB", "", "", "", "at most 64 MB", "missed")),
        (
            Bound(case="start", value=1.5, unit="s", at_most=1.5),
            ("start", "1.5 s", "", "", "", "at most 1.5 s", "met"),
        ),
        (
            Bound(case="commands", value=2, unit="", at_most=3),
            ("commands", "2", "", "", "", "at most 3", "met"),
        ),
    ],
)
def test_a_line_says_whether_its_goal_is_met(line: Line, expected: tuple[str, ...]) -> None:
    assert cells(line.to_json()) == expected


def test_suites_that_were_measured_again_replace_their_rows() -> None:
    here = {"processor": "A"}
    old = merged({"machine": {}, "rows": []}, here, {"tree": [ROW.to_json()], "lists": []})
    both = merged(old, here, {"memory": [BOUND.to_json()], "tree": []})
    assert cases(old) == [("tree", "tree")]
    assert cases(both) == [("memory", "memory")]


def test_figures_of_another_machine_are_dropped() -> None:
    old = {"machine": {"processor": "A"}, "rows": [{"suite": "tree", **ROW.to_json()}]}
    new = merged(old, {"processor": "B"}, {"memory": [BOUND.to_json()]})
    assert new["machine"] == {"processor": "B"}
    assert cases(new) == [("memory", "memory")]


def test_the_page_names_the_machine() -> None:
    report = {
        "machine": {"processor": "A (2 cores)", "memory": "24 GiB"},
        "rows": [{"suite": "tree", **ROW.to_json()}],
    }
    assert page_section(report).splitlines() == [
        "Measured on A (2 cores), 24 GiB.",
        "",
        "| case | this server | beside | its time | times as fast | goal |  |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| tree | 70.5 ms | REST | 63.2 ms | 0.896 | 0.5 | met |",
    ]


@pytest.mark.parametrize(
    ("document", "made"),
    [
        (PatientDocument, synthetic_index.patient(0)),
        (StudyDocument, synthetic_index.study(0, IndexSize(1))),
        (SeriesDocument, synthetic_index.series(0, 0, IndexSize(1))),
        (InstanceDocument, synthetic_index.instance(0, 0, 0)),
    ],
)
def test_made_documents_are_those_of_the_models(
    document: type[StoredDocument], made: Mapping[str, object]
) -> None:
    fields = document.model_fields
    names = {name: "_id" if name == "id" else contract_name(name) for name in fields}
    required = {names[name] for name, field in fields.items() if field.is_required()}
    assert required <= set(made) <= set(names.values())


def cases(report: Report) -> list[tuple[str, str]]:
    return [(row["suite"], row["case"]) for row in report["rows"]]
