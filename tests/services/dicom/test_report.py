"""Structured reports as text: real ones of pydicom and dcmtk's habits, and every value type."""

import io
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from services.dicom.json_model import header_json
from services.dicom.report import Report, is_report, read_report


def code(meaning: str, value: str = "1", scheme: str = "DCM") -> dict[str, Any]:
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [meaning]},
    }


def item(kind: str, name: str, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "0040A010": {"vr": "CS", "Value": [more.pop("relationship", "CONTAINS")]},
        "0040A040": {"vr": "CS", "Value": [kind]},
        "0040A043": {"vr": "SQ", "Value": [code(name)]},
    }
    for tag, values in more.items():
        made[tag.removeprefix("t")] = {"Value": values}
    if children:
        made["0040A730"] = {"vr": "SQ", "Value": list(children)}
    return made


def report(*children: dict[str, Any], **more: Any) -> Report:
    root = item("CONTAINER", "Report", *children, **more)
    del root["0040A010"]
    return read_report(root)


def text(found: Report) -> list[str]:
    return [line.text for line in found.lines]


def test_every_value_type_has_a_line() -> None:
    mm = {"0040A30A": {"Value": [12.5]}, "004008EA": {"Value": [code("millimeter", "mm", "UCUM")]}}
    ratio = {"0040A30A": {"Value": [2]}, "004008EA": {"Value": [code("per lung", "{l}", "UCUM")]}}
    plain = {"0040A30A": {"Value": [3]}, "004008EA": {"Value": [code("no units", "1", "UCUM")]}}
    image = {
        "00081150": {"Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00081155": {"Value": ["1.2.3"]},
        "00081160": {"Value": [1, 2]},
    }
    found = report(
        item("CONTAINER", "Findings", item("TEXT", "Finding", t0040A160=["Nodule\\left"])),
        item("CODE", "Laterality", t0040A168=[code("Left")]),
        item("CODE", "Without meaning", t0040A168=[{"00080100": {"Value": ["X"]}}]),
        item("NUM", "Diameter", t0040A300=[mm]),
        item("NUM", "Ratio", t0040A300=[ratio]),
        item("NUM", "Count", t0040A300=[plain]),
        item("NUM", "Failed", t0040A301=[code("Measurement failure")]),
        item("NUM", "Nothing"),
        item("DATE", "Day", t0040A121=["20260102"]),
        item("TIME", "Time", t0040A122=["0304"]),
        item("DATETIME", "Moment", t0040A120=["20260102030405.5+0100"]),
        item("PNAME", "Reader", t0040A123=[{"Alphabetic": "Huber^Maria"}]),
        item("UIDREF", "Object", t0040A124=["1.2.4"]),
        item("IMAGE", "Source", t00081199=[image]),
        item("SCOORD", "Point", t00700023=["POINT"], t00700022=[1.5, 2]),
        item("TCOORD", "Beat", t0040A130=["POINT"], t0040A138=[0.5]),
        item("TABLE", "New"),
    )
    assert found.title == "Report"
    assert text(found) == [
        "Findings",
        "  Finding: Nodule\\left",
        "Laterality: Left",
        "Without meaning: code X (unknown scheme)",
        "Diameter: 12.5 mm",
        "Ratio: 2 per lung",
        "Count: 3",
        "Failed: Measurement failure",
        "Nothing: (no value)",
        "Day: 2026-01-02",
        "Time: 03:04",
        "Moment: 2026-01-02 03:04:05.5 +0100",
        "Reader: Maria Huber",
        "Object: 1.2.4",
        "Source: CT Image Storage, frames 1 2 (1.2.3)",
        "Point: POINT at 1.5 2",
        "Beat: POINT 0.5",
        "New: (TABLE, not shown as text)",
    ]


def test_what_changes_the_meaning_of_a_line_is_said() -> None:
    found = report(
        item(
            "CODE",
            "Finding",
            item("CODE", "Certainty", relationship="HAS CONCEPT MOD", t0040A168=[code("Absent")]),
            item("NUM", "Size", relationship="INFERRED FROM"),
            t0040A168=[code("Fracture")],
            t0040A032=["20260102"],
        ),
        {
            "0040A010": {"Value": ["INFERRED FROM"]},
            "0040DB73": {"Value": [1, 1]},
        },
        {"0040A010": {"Value": ["CONTAINS"]}, "0040DB73": {"Value": [1, 9]}},
    )
    assert text(found) == [
        "Finding: Fracture (observed 2026-01-02)",
        "  modifier: Certainty: Absent",
        "  inferred from: Size: (no value)",
        "inferred from: see Finding: Fracture (observed 2026-01-02)",
        "(item 1.9 of this report)",
    ]


def test_flags_and_observers_are_read() -> None:
    found = report(
        t0040A491=["COMPLETE"],
        t0040A493=["VERIFIED"],
        t0040A073=[{"0040A075": {"Value": [{"Alphabetic": "Huber^Maria"}]}}, {}],
    )
    assert (found.completion, found.verification, found.verified_by) == (
        "COMPLETE",
        "VERIFIED",
        ["Maria Huber"],
    )


@pytest.mark.no_cover
def test_a_report_of_too_many_items_says_that_it_is_cut() -> None:
    line = item("TEXT", "Finding", t0040A160=["x"])
    assert not report(*[line] * 5_000).is_cut
    found = report(*[line] * 5_001)
    assert found.is_cut
    assert len(found.lines) == 5_000


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"0040A730": {"Value": [None, "x", {}, {"0040A040": {"Value": ["NUM"]}}]}},
        {"0040A730": {"Value": [{"0040DB73": {"Value": []}}, {"0040DB73": {"Value": ["x", 0]}}]}},
        {"0040A730": {"Value": [{"0040A040": {"Value": ["IMAGE"]}, "00081199": {"Value": [{}]}}]}},
        {"0040A730": "x", "0040A073": {"Value": "abc"}},
    ],
)
def test_malformed_reports_are_no_error(model: dict[str, Any]) -> None:
    assert all(isinstance(line.text, str) for line in read_report(model).lines)


def test_a_real_report_is_read_with_everything_in_it() -> None:
    path = get_testdata_file("test-SR.dcm", download=False)
    content = Path(str(path)).read_bytes()
    found = read_report(header_json(io.BytesIO(content)))
    assert (found.title, found.completion, found.verification) == (
        "Diagnosis",
        "COMPLETE",
        "VERIFIED",
    )
    assert found.verified_by == ["Jörg Riesmeier", "Verifying Observer"]
    assert text(found) == [
        "Some UID: 1.2.3.4.5",
        "(section)",
        "  Text Code: A mass of",
        "    modifier: Code: Sample Code 1",
        "    modifier: Code: Sample Code 2",
        "  Diameter: 3.0 Length Unit",
        "    modifier: Code: Sample Code",
        "  Text Code: was detected.",
        "  (section)",
        "    Text Code: A mass of",
        "    Diameter: 3.0 Length Unit",
        "    Text Code: was detected.",
        "Code: Sample Text\nA\nB\nC",
        '  inferred from: Code: Inferred Sample Text\n  New line.\n  &%$§"!()<>{}/;',
        "  SCoord Code: CIRCLE at 0.0 0.0 255.0 255.0",
        "  TCoord Code: SEGMENT 1.0 2.5",
        "    selected from: see SCoord Code: CIRCLE at 0.0 0.0 255.0 255.0",
        "Basic Text SR Storage (9.8.7.6)",
        "  Date: 2000-12-06",
        "  Time: 12:00:00",
        "  DateTime: 2000-12-06 12:00:00",
        "CT Image Storage, frames 5 2 (1.2.3.4.5.0) (observed 2001-02-13 18:47:46)",
        "  modifier: Code: Sample Code 3",
        "    modifier: Code: Sample Code 2",
        "      inferred from: see modifier: Code: Sample Code",
        "  modifier: Code: Sample Text 2 (observed 2001-02-13 18:47:46)",
        "    Key Image: MR Image Storage (1.2.3.4.0.1)",
        "    Hemodynamic Waveform Storage, channels 5 3 2 0 (1.2.3.4.5)",
    ]


def test_reports_are_known_by_their_sop_class() -> None:
    assert is_report("1.2.840.10008.5.1.4.1.1.88.11")
    assert is_report("1.2.840.10008.5.1.4.1.1.88.59")
    assert not is_report("1.2.840.10008.5.1.4.1.1.104.1")
    assert not is_report(None)
