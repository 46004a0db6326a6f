"""The headers of a series in the DICOM JSON model, compressed, made once from its files."""

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument, NamedModel


class HeaderMember(NamedModel):
    """Where the header of one instance is in the JSON of a chunk."""

    id: str
    """Orthanc's id of the instance."""
    revision: str
    begin: int
    end: int
    """The same as `begin` when its file has no readable header."""


class SeriesHeadersDocument(NamedDocument):
    """The headers of some instances of a series; a series has as many of these as it needs.

    It belongs to the revisions of its members: when one is replaced or removed, it is no longer
    used, and all of it is removed.
    """

    orthanc_series_id: str
    members: list[HeaderMember]
    body: bytes
    """JSON objects separated by commas: raw DEFLATE that ends on a byte with a full flush, so that
    pieces can be put behind each other (RFC 1951 3.2.4, RFC 1952)."""
    json_bytes: int
    crc32: int
    """Of the JSON."""
    has_bulk_data: bool = False
    """Some addresses in it begin with `services.dicom.json_model.BULK_ROOT`."""

    class Settings:
        """Collection and indexes."""

        name = "seriesHeaders"
        indexes: ClassVar[list[IndexModel]] = [IndexModel([("orthancSeriesId", ASCENDING)])]
