"""What is stored in MongoDB and how: one Beanie document per DICOM level.

Stored field names are the names of the public API (`models.names`); `_id` is Orthanc's own
deterministic identifier, so writing the same object twice is writing it once.
"""

from models.anonymization import AnonymizationDocument
from models.audit_record import AuditRecord
from models.compared_study import ComparedStudyDocument
from models.deleted_study import DELETIONS_KEPT_DAYS, DeletedStudyDocument, FormerLabel
from models.dicom_error import DicomErrorRecord
from models.export_part import ExportPartDocument
from models.feed_cursor import FeedCursorDocument
from models.forwarding import (
    ForwardedStudyDocument,
    ForwardingRuleDocument,
    RetrievedStudyDocument,
    StudyCopyDocument,
)
from models.index_fault import IndexFaultDocument
from models.instance import InstanceDocument
from models.job import JobDocument, JobFailureRecord, JobKind, JobState
from models.lease import LeaseDocument
from models.modality import ModalityDocument
from models.patient import PatientDocument
from models.quarantine import SuspectFrameDocument
from models.replacement import REPLACEMENT_COLLECTIONS, REPLACEMENTS
from models.secret import SecretDocument
from models.series import SeriesDocument
from models.series_headers import SeriesHeadersDocument
from models.share import ShareDocument
from models.stored import NamedDocument, StoredDocument
from models.study import StudyDocument
from models.study_cursor import StudyCursorDocument
from models.thumbnail import Thumbnail
from models.token import TokenDocument
from models.upload_progress import UploadProgressDocument
from models.webhook import WebhookDeliveryDocument
from models.worklist import WorklistEntryDocument

DOCUMENTS: tuple[type[NamedDocument], ...] = (
    PatientDocument,
    StudyDocument,
    SeriesDocument,
    InstanceDocument,
    LeaseDocument,
    FeedCursorDocument,
    ComparedStudyDocument,
    IndexFaultDocument,
    SuspectFrameDocument,
    AuditRecord,
    TokenDocument,
    SeriesHeadersDocument,
    ShareDocument,
    JobDocument,
    SecretDocument,
    ExportPartDocument,
    AnonymizationDocument,
    WorklistEntryDocument,
    ModalityDocument,
    ForwardingRuleDocument,
    ForwardedStudyDocument,
    RetrievedStudyDocument,
    StudyCopyDocument,
    DeletedStudyDocument,
    WebhookDeliveryDocument,
    StudyCursorDocument,
    UploadProgressDocument,
)

__all__ = [
    "DELETIONS_KEPT_DAYS",
    "DOCUMENTS",
    "REPLACEMENTS",
    "REPLACEMENT_COLLECTIONS",
    "AnonymizationDocument",
    "AuditRecord",
    "ComparedStudyDocument",
    "DeletedStudyDocument",
    "DicomErrorRecord",
    "ExportPartDocument",
    "FeedCursorDocument",
    "FormerLabel",
    "ForwardedStudyDocument",
    "ForwardingRuleDocument",
    "IndexFaultDocument",
    "InstanceDocument",
    "JobDocument",
    "JobFailureRecord",
    "JobKind",
    "JobState",
    "LeaseDocument",
    "ModalityDocument",
    "NamedDocument",
    "PatientDocument",
    "RetrievedStudyDocument",
    "SecretDocument",
    "SeriesDocument",
    "SeriesHeadersDocument",
    "ShareDocument",
    "StoredDocument",
    "StudyCopyDocument",
    "StudyCursorDocument",
    "StudyDocument",
    "SuspectFrameDocument",
    "Thumbnail",
    "TokenDocument",
    "UploadProgressDocument",
    "WebhookDeliveryDocument",
    "WorklistEntryDocument",
]
