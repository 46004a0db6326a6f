"""What instances without pictures hold: documents and structured reports."""

from datetime import datetime

import strawberry


@strawberry.type(
    description="What a DICOM file holds besides pictures: a document (PS3.3 A.45), such as a PDF "
    "or a CDA report, or a video."
)
class EncapsulatedDocument:
    """A document."""

    media_type: str = strawberry.field(
        description="By the SOP class `application/pdf`, `text/xml` (CDA), `model/stl`, "
        "`model/obj` or `model/mtl`; by the transfer syntax `video/mp4` or `video/mpeg`."
    )
    url: str = strawberry.field(
        description="A signed URL of the document; it works in a link, with no header and no "
        "cookie, and answers ranges. A PDF is answered for showing in a frame of a page of this "
        "server, an MP4 for a `<video>`, everything else for saving."
    )
    url_expires_at: datetime = strawberry.field(description="When `url` stops working.")


@strawberry.type(description="A content item of a structured report.")
class ReportLine:
    """One line."""

    depth: int = strawberry.field(description="How far it is indented; 0 for the first level.")
    name: str | None = strawberry.field(
        description="Its concept name, such as `Finding`; null when it has none."
    )
    value: str | None = strawberry.field(
        description="Its value; null for a heading, `(no value)` where the file has none."
    )


@strawberry.type(
    description="A structured report (PS3.3 C.17.3) as text. Every content item has a line; items "
    "that text can't express, such as coordinates, say what they are."
)
class Report:
    """A structured report."""

    title: str | None = strawberry.field(description="Its title, such as `Radiology Report`.")
    completion_flag: str | None = strawberry.field(
        description="CompletionFlag (0040,A491): `COMPLETE` or `PARTIAL`."
    )
    verification_flag: str | None = strawberry.field(
        description="VerificationFlag (0040,A493): `VERIFIED` or `UNVERIFIED`."
    )
    verified_by: list[str] = strawberry.field(
        description="Who verified it: VerifyingObserverName (0040,A075), for people."
    )
    lines: list[ReportLine] = strawberry.field(description="Its content items in their order.")
    is_cut: bool = strawberry.field(
        description="Whether lines are missing: a report has at most 5,000 here."
    )
    text: str = strawberry.field(description="The lines as plain text, indented by two blanks.")
