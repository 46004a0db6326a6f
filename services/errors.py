"""Every error that callers can act on, in one tree.

    Error                         INTERNAL_ERROR           the root: never raised itself
    ├── InvalidInput              INVALID_INPUT            an argument makes no sense
    ├── NotFound                  NOT_FOUND
    ├── Forbidden                 FORBIDDEN                known, but not allowed
    ├── Unauthenticated           UNAUTHENTICATED          no or unknown credentials
    ├── LimitExceeded             LIMIT_EXCEEDED           larger than a setting allows
    │   ├── RecordRefused         LIMIT_EXCEEDED           MongoDB does not take it
    │   └── TooManyRequests       TOO_MANY_REQUESTS        more at once than one client may have
    ├── FileRejected              (its own code)           a file that is not stored
    ├── PacsDisabled              PACS_DISABLED            ENABLE_PACS_INTEGRATION is false
    ├── JobConflict               JOB_CONFLICT             not in the state that this needs
    ├── DatabaseUnavailable       DATABASE_UNAVAILABLE     MongoDB does not answer
    ├── FrameError
    │   ├── FrameUrlInvalid       FRAME_URL_INVALID        no valid signature
    │   ├── FrameUrlExpired       FRAME_URL_EXPIRED        signed by us, and too old
    │   ├── FrameNotFound         FRAME_NOT_FOUND
    │   ├── AmbiguousStudy        AMBIGUOUS_STUDY          several patients have a study of this UID
    │   ├── FrameNotRenderable    FRAME_NOT_RENDERABLE
    │   │   └── FrameDamaged      FRAME_NOT_RENDERABLE     whatever is set or asked: its bytes are
    │   ├── FrameQuarantined      FRAME_QUARANTINED
    │   ├── RenderQueueFull       SERVER_BUSY
    │   └── RendererUnavailable   RENDERER_UNAVAILABLE     the processes that render are starting
    │       └── RendererCrashed   RENDERER_CRASHED         this frame ended its process
    ├── ModalityError             MODALITY_FAILED          a DICOM application of the network
    │   ├── ModalityUnreachable   MODALITY_UNREACHABLE     nothing listens there, or it closed
    │   ├── ModalityRejected      MODALITY_REJECTED        it refused the association
    │   ├── ModalityTimedOut      MODALITY_TIMED_OUT       it was silent for too long
    │   ├── ModalityRefused       MODALITY_REFUSED         it answered with a failure (dimseStatus)
    │   └── ModalityUnsupported   MODALITY_UNSUPPORTED     it does not offer the service
    └── OrthancError              ORTHANC_ERROR            Orthanc answered something unexpected
        ├── OrthancUnavailable    ORTHANC_UNAVAILABLE      no answer: nothing was done
        │   ├── DownloadsBusy     SERVER_BUSY              all connections for archives are taken
        │   └── OrthancOutcomeUnknown ORTHANC_OUTCOME_UNKNOWN  the answer broke off: perhaps done
        │       └── OrthancTimedOut   ORTHANC_OUTCOME_UNKNOWN  it is there and took too long
        ├── OrthancAuthenticationFailed  ORTHANC_AUTHENTICATION_FAILED
        ├── OrthancNotFound       ORTHANC_NOT_FOUND
        ├── OrthancRefused        ORTHANC_REFUSED          it does not accept this content
        └── OrthancFull           ORTHANC_FULL             no room left (507)

`message` is for the person at the other end and holds no patient data, credential or address;
`detail` is for the log. Foreign exceptions are translated where they enter, `raise ... from exc`.
"""

from typing import ClassVar


class Error(Exception):
    """The root of all errors, with two texts: `message` for the caller, `detail` for the log.

    Attributes:
        code: A stable name for programs.
        message: A sentence for users: without private data, with what to do if something can be
            done.
        detail: Further information for the log.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    default_message: ClassVar[str] = "Something went wrong in the server."

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        self.message = message or self.default_message
        self.detail = detail
        super().__init__(self.message)


class InvalidInput(Error):
    """An argument makes no sense.

    Attributes:
        argument: Its name in the API, for a field of an input object as `filter.text`; None if no
            single argument is wrong.
    """

    code = "INVALID_INPUT"

    def __init__(
        self, message: str | None = None, *, detail: str = "", argument: str | None = None
    ) -> None:
        super().__init__(message, detail=detail)
        self.argument = argument


class NotFound(Error):
    """There is no such object."""

    code = "NOT_FOUND"


class Forbidden(Error):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"
    default_message = "Your role does not allow this."


class Unauthenticated(Error):
    """No credentials, or unknown ones."""

    code = "UNAUTHENTICATED"
    default_message = "Send a valid token: Authorization: Bearer <token>."


class LimitExceeded(Error):
    """Larger, deeper or longer than a setting allows."""

    code = "LIMIT_EXCEEDED"


class RecordRefused(LimitExceeded):
    """MongoDB does not take this document, and trying again does not help."""

    default_message = "This can't be indexed: its record is larger than the database allows."


class TooManyRequests(LimitExceeded):
    """One client uses as much at once as it may, and has to wait until some of it has ended."""

    code = "TOO_MANY_REQUESTS"


class FileRejected(Error):
    """A file that is not stored; the code identifies the reason."""

    code = "NOT_DICOM"

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.code = code  # type: ignore[misc]  # one class, many reasons


class NotRequested(FileRejected):
    """Another patient, study or instance than the one that an archive was asked for."""

    code = "NOT_REQUESTED"
    default_message = (
        "The archive sent a file of another patient, study or instance than it was asked for. "
        "It was not stored."
    )

    def __init__(self) -> None:
        super().__init__(self.code, self.default_message)


class PacsDisabled(Error):
    """ENABLE_PACS_INTEGRATION is false."""

    code = "PACS_DISABLED"
    default_message = "PACS integration is off on this server (ENABLE_PACS_INTEGRATION=false)."


class JobConflict(Error):
    """A job is not in the state that this needs."""

    code = "JOB_CONFLICT"


class DatabaseUnavailable(Error):
    """MongoDB does not answer."""

    code = "DATABASE_UNAVAILABLE"
    default_message = "The database does not answer. Try again in a few seconds."


class FrameError(Error):
    """A frame that can't be shown."""


class FrameUrlInvalid(FrameError):
    """The signature of this URL is not valid; the reason is for the log only."""

    code = "FRAME_URL_INVALID"
    default_message = "This URL is not valid."


class FrameUrlExpired(FrameError):
    """The URL was signed by us and is too old."""

    code = "FRAME_URL_EXPIRED"
    default_message = "This URL has expired. Ask for a new one."


class FrameNotFound(FrameError):
    """There is no such frame, or no longer."""

    code = "FRAME_NOT_FOUND"
    default_message = "Frame not found"


class AmbiguousStudy(FrameError):
    """Several patients have a study with one StudyInstanceUID."""

    code = "AMBIGUOUS_STUDY"
    default_message = (
        "Several patients have a study with this StudyInstanceUID. Choose one by GraphQL: each "
        "frame has a `url`: { studies(first: 10, filter: {studyInstanceUIDs: [...]}) { nodes { "
        "patient { patientID } series { instances { frames { url } } } } } }"
    )


class FrameNotRenderable(FrameError):
    """The frame exists and can't be shown as a picture."""

    code = "FRAME_NOT_RENDERABLE"
    default_message = "This frame can't be shown as a picture."


class FrameDamaged(FrameNotRenderable):
    """Its bytes are no picture, whatever the settings are and whoever asks."""


class FrameQuarantined(FrameError):
    """Rendering this frame stopped its renderer before; it is not tried again."""

    code = "FRAME_QUARANTINED"
    default_message = "This frame is quarantined: decoding it stopped the renderer repeatedly."


class RenderQueueFull(FrameError):
    """Too many frames are waiting to be rendered."""

    code = "SERVER_BUSY"
    default_message = "Too many frames are waiting to be rendered. Try again in a second."


class RendererUnavailable(FrameError):
    """The processes that decode frames can't be reached; they are started again."""

    code = "RENDERER_UNAVAILABLE"
    default_message = "The renderer is being started. Try again in a second."


class RendererCrashed(RendererUnavailable):
    """A frame ended the process that decoded it, or took too long or too much memory."""

    code = "RENDERER_CRASHED"
    default_message = "The renderer stopped at this frame. Try again in a second."


class ModalityError(Error):
    """A DICOM application of the network did not perform a request.

    Attributes:
        dimse_status: Its status (PS3.7 C) as four hex digits, such as `A801`; None where it gave
            none.
        may_pass: Whether trying again later may help.
    """

    code = "MODALITY_FAILED"

    may_pass: bool = False

    def __init__(
        self, message: str | None = None, *, detail: str = "", dimse_status: str | None = None
    ) -> None:
        super().__init__(message, detail=detail)
        self.dimse_status = dimse_status


class ModalityUnreachable(ModalityError):
    """Nothing listens at its address, or it closed the connection."""

    code = "MODALITY_UNREACHABLE"
    may_pass = True


class ModalityRejected(ModalityError):
    """It refused the association: usually an AE title is not known there."""

    code = "MODALITY_REJECTED"


class ModalityTimedOut(ModalityError):
    """It was silent for too long."""

    code = "MODALITY_TIMED_OUT"
    may_pass = True


class ModalityRefused(ModalityError):
    """It answered with a status of failure."""

    code = "MODALITY_REFUSED"


class ModalityUnsupported(ModalityError):
    """It does not offer the service, or may not be asked for it."""

    code = "MODALITY_UNSUPPORTED"


class OrthancError(Error):
    """Orthanc answered something that was not expected."""

    code = "ORTHANC_ERROR"
    default_message = "Orthanc answered with an error."


class OrthancUnavailable(OrthancError):
    """Orthanc gave no answer and did nothing."""

    code = "ORTHANC_UNAVAILABLE"
    default_message = "Orthanc does not answer. Try again in a few seconds."


class DownloadsBusy(OrthancUnavailable):
    """All connections to Orthanc for archives and whole files are taken."""

    code = "SERVER_BUSY"
    default_message = "Too many archives are being downloaded. Try again in a minute."


class OrthancOutcomeUnknown(OrthancUnavailable):
    """The connection broke after the request was sent: it may have been performed."""

    code = "ORTHANC_OUTCOME_UNKNOWN"


class OrthancBusy(OrthancUnavailable):
    """Orthanc answered that it can't do this now (HTTP 503), and did nothing.

    Several Orthancs on one PostgreSQL answer so when they write the same rows at the same time.
    """


class OrthancAborted(OrthancOutcomeUnknown):
    """This server cancelled the call, because its caller was cancelled."""


class OrthancTimedOut(OrthancOutcomeUnknown):
    """Orthanc received the request and did not answer in time; it has not crashed."""


class OrthancAuthenticationFailed(OrthancError):
    """Orthanc does not accept our user name and password."""

    code = "ORTHANC_AUTHENTICATION_FAILED"
    default_message = (
        "Orthanc authentication failed. Check ORTHANC_USERNAME and ORTHANC_PASSWORD on the server."
    )


class OrthancNotFound(OrthancError):
    """Orthanc has no such resource."""

    code = "ORTHANC_NOT_FOUND"
    default_message = "Orthanc has no such object."


class OrthancRefused(OrthancError):
    """Orthanc does not accept or can't process this content."""

    code = "ORTHANC_REFUSED"
    default_message = "Orthanc refused this file."


class OrthancFull(OrthancError):
    """Orthanc has no room left (HTTP 507)."""

    code = "ORTHANC_FULL"
    default_message = "Orthanc has no room left. Ask its administrator to free or add space."
