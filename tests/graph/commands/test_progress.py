"""The figures of an import add up, and its failures have names."""

from pathlib import Path

from graph.commands.progress import first_failures, summary
from services.importing.folders import FoundFile
from services.importing.outcome import FileOutcome, Refusal, Tally


def tally_of(*outcomes: FileOutcome) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally


def failed(*names: str) -> FileOutcome:
    refusals = tuple(Refusal(f"/disk/{name}", "TRUNCATED", f"{name} ends.") for name in names)
    return FileOutcome(FoundFile(Path("/disk/a")), failed=refusals)


def test_files_that_are_no_archives_are_the_whole_sum() -> None:
    stored = FileOutcome(FoundFile(Path("/disk/a")), stored=1)
    tally = tally_of(stored, failed("b"))
    assert summary(tally, is_dry=False) == (
        "2 files: 1 stored, 0 already there, 0 skipped, 1 failed"
    )
    assert summary(tally, is_dry=True) == (
        "Dry run, 2 files: 1 would be stored, 0 already there, 0 would be skipped, 1 would fail"
    )


def test_members_of_archives_are_counted_where_their_figures_are() -> None:
    readme = Refusal("/disk/more.zip/README", "NOT_DICOM", "No DICOM.")
    archive = FileOutcome(
        FoundFile(Path("/disk/more.zip")), stored=2, already_stored=3, skipped=(readme,)
    )
    assert summary(tally_of(archive, failed("b")), is_dry=False) == (
        "2 files, 7 with the members of archives: 2 stored, 3 already there, 1 skipped, 1 failed"
    )


def test_the_first_failures_are_told_with_their_reason() -> None:
    tally = tally_of(failed("1", "2"), failed("3"))
    assert first_failures(tally, None) == [
        "/disk/1: 1 ends.",
        "/disk/2: 2 ends.",
        "/disk/3: 3 ends.",
    ]
    assert first_failures(tally_of(), None) == []


def test_many_failures_are_left_to_the_report() -> None:
    tally = tally_of(failed("1", "2", "3"), failed("4", "5", "6", "7"))
    assert [line[:7] for line in first_failures(tally, None)[:-1]] == [
        f"/disk/{number}" for number in range(1, 6)
    ]
    assert first_failures(tally, None)[-1] == "and 2 more; --report FILE writes all"
    assert first_failures(tally, Path("all.jsonl"))[-1] == "and 2 more: all are in all.jsonl"


def test_a_name_can_not_command_the_terminal() -> None:
    tally = tally_of(failed("\x1b[2J\n\udcff"))
    assert first_failures(tally, None)[0].startswith("/disk/?[2J??: ")
