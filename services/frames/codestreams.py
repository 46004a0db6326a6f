"""JPEG 2000 frames are looked at before Orthanc decodes them, whoever sent them there."""

from services.dicom.jpeg2000 import JPEG2000_SYNTAXES, read_size
from services.errors import (
    FrameQuarantined,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
)
from services.frames.instances import RenderableInstance
from services.orthanc.frames import OrthancFrames

_COMPRESSED = "raw"

_MESSAGE = (
    "This frame is quarantined: its JPEG 2000 image does not have the Rows and Columns of the "
    "instance, and decoding such a frame stopped Orthanc."
)

_NO_ANSWER = (OrthancNotFound, OrthancUnavailable, OrthancAuthenticationFailed)


async def check_codestream(
    frames: OrthancFrames, instance: RenderableInstance, frame_index: int
) -> None:
    """Refuse a JPEG 2000 frame whose own size is not that of its instance.

    Uploads are checked before they are stored; what modalities send is not. The compressed frame
    is fetched undecoded (`GET /instances/{id}/frames/{n}/raw`), in 1 to 3 ms.

    Args:
        frames: Orthanc's frames.
        instance: The instance; other transfer syntaxes cost nothing.
        frame_index: 0-based.

    Raises:
        FrameQuarantined: The sizes differ, or nothing can be read of the frame's own.
        OrthancNotFound: Orthanc has no such frame.
        OrthancUnavailable: Orthanc does not answer.
    """
    if instance.transfer_syntax_uid not in JPEG2000_SYNTAXES:
        return
    try:
        size = await frames.get(instance.id, frame_index, _COMPRESSED, read_size)
    except _NO_ANSWER:
        raise
    except OrthancError as exc:
        raise FrameQuarantined(_MESSAGE, detail=exc.detail) from exc
    if size is None or (size.rows, size.columns) != (instance.rows, instance.columns):
        raise FrameQuarantined(_MESSAGE)
