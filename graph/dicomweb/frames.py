"""WADO-RS frames, as they are stored or decoded (PS3.18 10.4.1.1.6, 8.7.3)."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Mount
from graph.dicomweb.streams import Multipart
from graph.http.accept import MediaRange, NotAcceptable
from graph.http.conditional import names_tag
from graph.http.streams import passed_on
from models import InstanceDocument
from services.dicom.display import NATIVE_SYNTAXES
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.errors import FrameNotFound, InvalidInput
from services.frames.pipeline import StoredFrame

OCTETS = "application/octet-stream"

_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""PS3.18 table 8.7.3-5."""

_FRAMES_MAX = 1_000
"""Frames of one request."""


@dataclass(frozen=True, slots=True)
class FrameForm:
    """How frames are answered.

    Attributes:
        media_type: Of each frame.
        transfer_syntax_uid: Of each frame.
        is_decoded: It is not the stored one.
        is_multipart: Several parts, or one alone.
    """

    media_type: str
    transfer_syntax_uid: str
    is_decoded: bool
    is_multipart: bool

    @property
    def content_type(self) -> str:
        """Of one frame."""
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


def choose_form(accepted: Sequence[MediaRange], stored_syntax: str) -> FrameForm:
    """Choose how to answer frames.

    `application/octet-stream` without a transfer syntax means uncompressed (PS3.18 8.7.3.3.2), with
    `*` as it is stored; `*/*` as well.

    Args:
        accepted: What the caller accepts, best first.
        stored_syntax: Transfer syntax of the stored file.

    Raises:
        NotAcceptable: Nothing of it.
    """
    native = EXPLICIT_VR_LITTLE_ENDIAN
    stored = native if stored_syntax in NATIVE_SYNTAXES else stored_syntax
    image_type = _MEDIA_TYPES.get(stored, OCTETS)
    for one in accepted:
        # A single frame in the open is what `*/*` asks for as little as the rest: parts it is.
        is_multipart = one.is_multipart or one.media_type == "*/*"
        matches = one.matches_parts if one.is_multipart else one.matches
        part_type = one.part_type if one.is_multipart else one.media_type
        asked = one.parameters.get("transfer-syntax")
        if matches(OCTETS):
            if asked in {"*", stored} or (asked is None and part_type == "*/*"):
                return FrameForm(OCTETS, stored, is_decoded=False, is_multipart=is_multipart)
            if asked in {None, native}:
                is_decoded = stored != native
                return FrameForm(OCTETS, native, is_decoded, is_multipart)
        elif matches(image_type) and asked in {None, "*", stored}:
            return FrameForm(image_type, stored, is_decoded=False, is_multipart=is_multipart)
    raise NotAcceptable(
        f"Frames are answered as {OCTETS} with the transfer syntax {stored} or {native}."
    )


def frame_indices(text: str) -> list[int]:
    """Read a list of frame numbers, from 1, and return indices, from 0.

    Raises:
        InvalidInput: It is no such list.
    """
    numbers = text.split(",")
    if len(numbers) > _FRAMES_MAX:
        raise InvalidInput(f"At most {_FRAMES_MAX} frames of one request.")
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in numbers):  # noqa: PLR2004
        raise InvalidInput("Frames are numbers from 1, separated by commas.")
    if "0" in {one.lstrip("0") or "0" for one in numbers}:
        raise FrameNotFound
    return [int(one) - 1 for one in numbers]


def frame_routes(mount: Mount) -> list[BaseRoute]:
    """Make the routes of frames."""
    path = "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"
    return [mount.route(path, _frames)]


async def _frames(exchange: Exchange) -> Response:
    indices = frame_indices(exchange.path("frames"))
    instance = await exchange.instance()
    if max(indices) >= instance.number_of_frames > 0:
        raise FrameNotFound
    form = choose_form(exchange.accepted, instance.transfer_syntax_uid or EXPLICIT_VR_LITTLE_ENDIAN)
    if not form.is_multipart and len(indices) > 1:
        raise NotAcceptable("Several frames are answered as multipart/related.")
    headers = {
        "ETag": f'W/"{instance.revision}-{form.transfer_syntax_uid}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
    }
    async with exchange.viewing(instance):
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if not form.is_multipart:
            frame = await _frame(exchange, instance, indices[0], form)
            return Response(frame.content, headers=headers, media_type=form.content_type)
        multipart = Multipart(form.media_type)
        if len(indices) == 1:
            frame = await _frame(exchange, instance, indices[0], form)
            part = (multipart.head(form.content_type), frame.content, multipart.end())
            return Response(b"".join(part), headers=headers, media_type=multipart.media_type)
        parts = _parts(exchange, instance, indices, form, multipart)
        return await passed_on(parts, headers=headers, media_type=multipart.media_type)


async def _parts(
    exchange: Exchange,
    instance: InstanceDocument,
    indices: Sequence[int],
    form: FrameForm,
    multipart: Multipart,
) -> AsyncGenerator[bytes, None]:
    for index in indices:
        frame = await _frame(exchange, instance, index, form)
        yield multipart.head(form.content_type) + frame.content
    yield multipart.end()


async def _frame(
    exchange: Exchange, instance: InstanceDocument, index: int, form: FrameForm
) -> StoredFrame:
    frames = exchange.runtime.frames
    if form.is_decoded:
        return await frames.decoded(instance, index)
    return await frames.stored(instance, index)
