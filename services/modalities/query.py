"""Queries at modalities (C-FIND, PS3.4 C.4.1): patients, studies with their series, worklists."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TypeVar

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from services.dicom.person_names import clean_person_name
from services.dicom.values import (
    clean_identifier,
    is_valid_uid,
    parse_date,
    parse_int,
    parse_time,
    split_values,
)
from services.errors import InvalidInput, ModalityError
from services.modalities import faults
from services.modalities.association import (
    CANCELLED,
    SUCCESS,
    Link,
    associated,
    is_pending,
)
from services.modalities.attributes import Answer, Keys, answer_of, identifier_of

PATIENTS = PatientRootQueryRetrieveInformationModelFind
STUDIES = StudyRootQueryRetrieveInformationModelFind
WORKLIST = ModalityWorklistInformationFind

_MESSAGE_ID = 1
_AFTER_CANCEL_MAX = 100
"""Answers that may still come after a C-CANCEL: those that were on their way."""

_VALUE_MAX_CHARACTERS = 324
"""PN has 64 characters in each of five components; all other keys are shorter (PS3.5 6.2)."""

_STUDY_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyDescription",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_PATIENT_KEYS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "NumberOfPatientRelatedStudies",
)
_SERIES_KEYS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
)
_WORKLIST_KEYS = (
    "AccessionNumber",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "ReferringPhysicianName",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)
_STEP_KEYS = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
    "ScheduledPerformingPhysicianName",
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCriteria:
    """What is searched for; what is None does not narrow. Texts may hold `*` and `?`."""

    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    study_instance_uid: str | None = None
    study_date_from: date | None = None
    study_date_to: date | None = None
    modalities: Sequence[str] | None = None
    study_description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePatientRecord:
    """A patient, as a modality answers."""

    patient_id: str
    patient_name: str | None
    patient_birth_date: str | None
    patient_sex: str | None
    number_of_studies: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStudyRecord:
    """A study, as a modality answers; dates and times in ISO 8601."""

    study_instance_uid: str
    patient_id: str | None
    patient_name: str | None
    patient_birth_date: str | None
    patient_sex: str | None
    study_date: str | None
    study_time: str | None
    accession_number: str | None
    study_description: str | None
    modalities_in_study: list[str]
    number_of_series: int | None
    number_of_instances: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSeriesRecord:
    """A series, as a modality answers."""

    series_instance_uid: str
    series_number: int | None
    modality: str | None
    series_description: str | None
    body_part_examined: str | None
    number_of_instances: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistQuery:
    """Which planned examinations; what is None does not narrow."""

    patient_id: str | None = None
    accession_number: str | None = None
    modalities: Sequence[str] | None = None
    station_ae_title: str | None = None
    date_from: date | None = None
    date_to: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWorklistRecord:
    """A planned examination, as a modality answers; `tags` is all of it, by keyword."""

    accession_number: str | None
    patient_id: str | None
    patient_name: str | None
    study_instance_uid: str | None
    modality: str | None
    station_ae_title: str | None
    start_date: str | None
    start_time: str | None
    description: str | None
    tags: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteInstance:
    """An instance, by the UIDs that fetch it."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStudy:
    """A study with all that a modality has of it.

    Attributes:
        patient_id: Without padding; None when the modality does not say.
    """

    study_instance_uid: str
    patient_id: str | None
    instances: Sequence[RemoteInstance]

    @property
    def sop_classes(self) -> set[str]:
        """The SOP classes of the instances; empty when one is unknown."""
        classes = {one.sop_class_uid for one in self.instances}
        return set() if None in classes else {uid for uid in classes if uid is not None}


@dataclass(frozen=True, slots=True)
class Found:
    """Answers in their order.

    Attributes:
        is_incomplete: More was there: the limit or the time was reached, or the modality failed.
        fault: Why it failed in the middle; None when it did not.
    """

    answers: list[Answer]
    is_incomplete: bool = False
    fault: ModalityError | None = None


def study_keys(criteria: RemoteCriteria) -> Keys:
    """Return the keys of a query for studies.

    Raises:
        InvalidInput: A value can't be searched for, or there is none at all.
    """
    return {"QueryRetrieveLevel": "STUDY", **dict.fromkeys(_STUDY_KEYS, ""), **_matching(criteria)}


def patient_keys(criteria: RemoteCriteria) -> Keys:
    """Return the keys of a query for patients: by PatientID and PatientName.

    Raises:
        InvalidInput: A value can't be searched for, there is none, or one is of studies.
    """
    matching = _matching(criteria)
    if not matching.keys() <= {"PatientID", "PatientName"}:
        message = "filter: patients are searched by patientID and patientName alone."
        raise InvalidInput(message, argument="filter")
    return {"QueryRetrieveLevel": "PATIENT", **dict.fromkeys(_PATIENT_KEYS, ""), **matching}


def _matching(criteria: RemoteCriteria) -> dict[str, str]:
    texts = {
        "PatientID": ("patientID", criteria.patient_id),
        "PatientName": ("patientName", criteria.patient_name),
        "AccessionNumber": ("accessionNumber", criteria.accession_number),
        "StudyDescription": ("studyDescription", criteria.study_description),
    }
    keys = {
        keyword: searchable(argument, text)
        for keyword, (argument, text) in texts.items()
        if text is not None and text.strip()
    }
    if criteria.study_instance_uid is not None:
        keys["StudyInstanceUID"] = require_uid("studyInstanceUID", criteria.study_instance_uid)
    if criteria.study_date_from or criteria.study_date_to:
        keys["StudyDate"] = date_range(criteria.study_date_from, criteria.study_date_to)
    if criteria.modalities:
        values = [searchable("modalities", one).upper() for one in criteria.modalities]
        keys["ModalitiesInStudy"] = "\\".join(values)
    if not keys:
        raise InvalidInput("filter: at least one key must be given.", argument="filter")
    return keys


def searchable(argument: str, text: str) -> str:
    r"""Check a text that is searched for: a `\` would separate several values.

    Raises:
        InvalidInput: It can't be searched for.
    """
    cleaned = text.strip()
    if not cleaned.isprintable() or "\\" in cleaned or len(cleaned) > _VALUE_MAX_CHARACTERS:
        message = f"{argument}: printable characters without a backslash, at most 324."
        raise InvalidInput(message, argument=f"filter.{argument}")
    return cleaned


def require_uid(argument: str, uid: str) -> str:
    """Check a UID.

    Raises:
        InvalidInput: It is none.
    """
    if not is_valid_uid(uid.strip()):
        raise InvalidInput(f"{argument}: digits and dots, at most 64.", argument=argument)
    return uid.strip()


def date_range(first: date | None, last: date | None) -> str:
    """Write a range of days for matching (PS3.4 C.2.2.2.5); a missing end is open."""
    begin, end = (f"{day:%Y%m%d}" if day else "" for day in (first, last))
    return begin if begin and begin == end else f"{begin}-{end}"


def worklist_keys(criteria: WorklistQuery) -> Keys:
    """Return the keys of a query for planned examinations (PS3.4 K.6.1.2.2).

    Raises:
        InvalidInput: A value can't be searched for.
    """
    step = dict.fromkeys(_STEP_KEYS, "")
    if criteria.modalities:
        values = [searchable("modalities", one).upper() for one in criteria.modalities]
        step["Modality"] = "\\".join(values)
    if criteria.station_ae_title:
        title = searchable("scheduledStationAETitle", criteria.station_ae_title)
        step["ScheduledStationAETitle"] = title
    if criteria.date_from or criteria.date_to:
        days = date_range(criteria.date_from, criteria.date_to)
        step["ScheduledProcedureStepStartDate"] = days
    keys: dict[str, str | Keys] = dict(dict.fromkeys(_WORKLIST_KEYS, ""))
    if criteria.patient_id:
        keys["PatientID"] = searchable("patientID", criteria.patient_id)
    if criteria.accession_number:
        keys["AccessionNumber"] = searchable("accessionNumber", criteria.accession_number)
    return {**keys, "ScheduledProcedureStepSequence": step}


def worklist_record(answer: Answer) -> RemoteWorklistRecord:
    """Read a planned examination."""
    steps = answer.get("ScheduledProcedureStepSequence") or [{}]
    step: Answer = steps[0]
    return RemoteWorklistRecord(
        accession_number=answer.get("AccessionNumber"),
        patient_id=clean_identifier(answer.get("PatientID")) or None,
        patient_name=clean_person_name(answer.get("PatientName")),
        study_instance_uid=answer.get("StudyInstanceUID"),
        modality=step.get("Modality"),
        station_ae_title=step.get("ScheduledStationAETitle"),
        start_date=parse_date(step.get("ScheduledProcedureStepStartDate")),
        start_time=parse_time(step.get("ScheduledProcedureStepStartTime")),
        description=step.get("ScheduledProcedureStepDescription"),
        tags=answer,
    )


def series_keys(study_instance_uid: str) -> Keys:
    """Return the keys of a query for the series of a study."""
    asked = dict.fromkeys(_SERIES_KEYS, "")
    return {"QueryRetrieveLevel": "SERIES", **asked, "StudyInstanceUID": study_instance_uid}


def instance_keys(study_instance_uid: str, series_instance_uid: str) -> Keys:
    """Return the keys of a query for the instances of a series."""
    return {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": study_instance_uid,
        "SeriesInstanceUID": series_instance_uid,
        "SOPInstanceUID": "",
        "SOPClassUID": "",
    }


def context_of(model: str) -> PresentationContext:
    """Propose a query model in both encodings without compression."""
    context = PresentationContext()
    context.abstract_syntax = model
    context.transfer_syntax = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return context


def find(link: Link, model: str, keys: Keys, limit: int) -> Found:
    """Search in an association of its own; blocks.

    Args:
        link: With whom.
        model: SOP class of the query.
        keys: What is searched for, and what is asked for.
        limit: Most answers; at one more the query is cancelled at the modality.

    Raises:
        ModalityError: It answered nothing, and why.
    """
    with associated(link, [context_of(model)], what="C-FIND for this") as association:
        return find_in(link, association, model, keys, limit)


def find_in(link: Link, association: Association, model: str, keys: Keys, limit: int) -> Found:
    """Search in an association that is open; otherwise as `find`."""
    [context] = [one for one in association.accepted_contexts if one.abstract_syntax == model]
    wanted = _wanted(keys)
    answers: list[Answer] = []
    late = 0
    is_cancelled = False
    with link.operation(_MESSAGE_ID, context.context_id or 0):
        responses = association.send_c_find(
            identifier_of(keys), query_model=model, msg_id=_MESSAGE_ID
        )
        for response, identifier in responses:
            try:
                status = link.status(response)
            except ModalityError as exc:
                return _ended(link, answers, exc)
            if not is_pending(status):
                is_cut = is_cancelled or link.is_expired or status == CANCELLED
                if status in (SUCCESS, CANCELLED) or is_cut:
                    return Found(answers, is_incomplete=is_cut)
                return _ended(link, answers, faults.refused(link.peer.name, status))
            if identifier is None:
                # It could not be read.
                continue
            if len(answers) < limit:
                answers.append(answer_of(identifier, wanted))
                continue
            if not is_cancelled:
                is_cancelled = True
                link.cancel()
            late += 1
            if late > _AFTER_CANCEL_MAX:
                association.abort()
                return Found(answers, is_incomplete=True)
    return _ended(link, answers, link.fault())


def _ended(link: Link, answers: list[Answer], fault: ModalityError) -> Found:
    if link.is_expired and answers:
        return Found(answers, is_incomplete=True)
    if not answers:
        raise fault
    return Found(answers, is_incomplete=True, fault=fault)


def _wanted(keys: Keys) -> list[str]:
    return [keyword for keyword in keys if keyword != "QueryRetrieveLevel"]


def find_series(
    link: Link, study_instance_uids: Sequence[str], limit: int
) -> dict[str, list[RemoteSeriesRecord]]:
    """Search the series of studies, in one association; blocks.

    Args:
        link: With whom.
        study_instance_uids: Whose.
        limit: Most series of one study.

    Raises:
        ModalityError: They are not all there, and why.
    """
    series: dict[str, list[RemoteSeriesRecord]] = {}
    with associated(link, [context_of(STUDIES)], what="C-FIND for series") as association:
        for uid in study_instance_uids:
            found = find_in(link, association, STUDIES, series_keys(uid), limit)
            if found.fault is not None:
                raise found.fault
            if link.is_expired:
                raise faults.silent(link.peer.name, link.peer.silence_seconds)
            series[uid] = records(found.answers, series_record)
    return series


def list_studies(
    link: Link,
    study_instance_uids: Sequence[str],
    series_instance_uids: Collection[str],
    limit: int,
) -> dict[str, ListedStudy]:
    """List the instances of studies, series by series, in one association; blocks.

    Args:
        link: With whom.
        study_instance_uids: Which studies; those that it does not have are left out.
        series_instance_uids: Only these series; empty: all.
        limit: Most instances of one series.

    Raises:
        ModalityError: They are not all there, and why.
    """
    listed: dict[str, ListedStudy] = {}
    with associated(link, [context_of(STUDIES)], what="C-FIND for studies") as association:
        search = partial(find_in, link, association, STUDIES)
        for study_uid in study_instance_uids:
            studies = _complete(link, search(_one_study(study_uid), limit), study_record)
            patient_ids = {one.patient_id for one in studies if one.study_instance_uid == study_uid}
            if not patient_ids:
                continue
            instances: list[RemoteInstance] = []
            for series in _complete(link, search(series_keys(study_uid), limit), series_record):
                uid = series.series_instance_uid
                if series_instance_uids and uid not in series_instance_uids:
                    continue
                found = search(instance_keys(study_uid, uid), limit)
                instances += _complete(link, found, partial(_instance_record, uid))
            listed[study_uid] = ListedStudy(
                study_instance_uid=study_uid,
                patient_id=patient_ids.pop() if len(patient_ids) == 1 else None,
                instances=instances,
            )
    return listed


def _one_study(study_instance_uid: str) -> Keys:
    return {
        "QueryRetrieveLevel": "STUDY",
        "PatientID": "",
        "StudyInstanceUID": study_instance_uid,
    }


def _complete(link: Link, found: Found, read: Callable[[Answer], _T | None]) -> list[_T]:
    if found.fault is not None:
        raise found.fault
    if found.is_incomplete:
        raise faults.too_many(link.peer.name, len(found.answers))
    return records(found.answers, read)


def records(answers: Iterable[Answer], read: Callable[[Answer], _T | None]) -> list[_T]:
    """Read answers; those without the identifier of their level are left out."""
    return [record for record in map(read, answers) if record is not None]


def study_record(answer: Answer) -> RemoteStudyRecord | None:
    """Read a study; None when it has no valid StudyInstanceUID."""
    uid = answer.get("StudyInstanceUID")
    if not is_valid_uid(uid):
        return None
    modalities = [one.strip() for one in split_values(answer.get("ModalitiesInStudy"))]
    return RemoteStudyRecord(
        study_instance_uid=str(uid),
        study_date=parse_date(answer.get("StudyDate")),
        study_time=parse_time(answer.get("StudyTime")),
        accession_number=answer.get("AccessionNumber"),
        study_description=answer.get("StudyDescription"),
        modalities_in_study=[one for one in dict.fromkeys(modalities) if one],
        number_of_series=parse_int(answer.get("NumberOfStudyRelatedSeries")),
        number_of_instances=parse_int(answer.get("NumberOfStudyRelatedInstances")),
        patient_id=clean_identifier(answer.get("PatientID")) or None,
        **_person(answer),
    )


def patient_record(answer: Answer) -> RemotePatientRecord | None:
    """Read a patient; None when it has no PatientID."""
    patient_id = clean_identifier(answer.get("PatientID"))
    if not patient_id:
        return None
    return RemotePatientRecord(
        patient_id=patient_id,
        number_of_studies=parse_int(answer.get("NumberOfPatientRelatedStudies")),
        **_person(answer),
    )


def _person(answer: Answer) -> Mapping[str, str | None]:
    return {
        "patient_name": clean_person_name(answer.get("PatientName")),
        "patient_birth_date": parse_date(answer.get("PatientBirthDate")),
        "patient_sex": answer.get("PatientSex"),
    }


def series_record(answer: Answer) -> RemoteSeriesRecord | None:
    """Read a series; None when it has no valid SeriesInstanceUID."""
    uid = answer.get("SeriesInstanceUID")
    if not is_valid_uid(uid):
        return None
    return RemoteSeriesRecord(
        series_instance_uid=str(uid),
        series_number=parse_int(answer.get("SeriesNumber")),
        modality=answer.get("Modality"),
        series_description=answer.get("SeriesDescription"),
        body_part_examined=answer.get("BodyPartExamined"),
        number_of_instances=parse_int(answer.get("NumberOfSeriesRelatedInstances")),
    )


def _instance_record(series_instance_uid: str, answer: Answer) -> RemoteInstance | None:
    uid = answer.get("SOPInstanceUID")
    if not is_valid_uid(uid):
        return None
    sop_class = answer.get("SOPClassUID")
    return RemoteInstance(
        series_instance_uid=series_instance_uid,
        sop_instance_uid=str(uid),
        sop_class_uid=str(sop_class) if is_valid_uid(sop_class) else None,
    )
