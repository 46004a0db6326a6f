"""Why a peer, or a step of a job, failed."""

from models.stored import NamedModel


class DicomErrorRecord(NamedModel):
    """An error as it is stored: no patient data, no address, no credential."""

    code: str
    """Stable, for programs, such as `MODALITY_REJECTED`."""
    message: str
    """A sentence for a person that says what to look at."""
    dimse_status: str | None = None
    """Status of the peer (PS3.7 C), four hex digits as `A801`; None when there was none."""
