"""One frame to one picture: decoding, display and encoding, without I/O.

Runs in threads and in renderer processes alike, so it imports no database and no network.
"""

from dataclasses import dataclass

import cv2

from services.dicom.display import FrameDisplay, PixelDescription
from services.frames import decoding
from services.frames.decoding import DecodedFrame, decode_frame, sample_bytes
from services.frames.encoding import encode_jpeg, encode_png
from services.frames.pixels import picture
from services.frames.variant import FrameVariant, PictureFormat


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """All that the picture of a frame depends on.

    Attributes:
        content: The bytes of the frame as they are in the file, encapsulation removed and fragments
            joined.
        description: How the instance stores its frames.
        display: The display attributes of the frame.
        variant: How to show it.
        bit_offset: Bits at the beginning of the content that belong to the frame before
            (`PixelDescription.frame_span`).
        as_samples: Answer the decoded samples instead of a picture.
    """

    content: bytes
    description: PixelDescription
    display: FrameDisplay
    variant: FrameVariant
    bit_offset: int = 0
    as_samples: bool = False


def render_frame(request: RenderRequest) -> bytes:
    """Render a frame.

    Returns:
        A PNG or a JPEG, as the variant says.

    Raises:
        FrameNotRenderable: The content is damaged or contradicts the description, with a sentence.
    """
    return show(decode(request), request)


def decode(request: RenderRequest) -> DecodedFrame:
    """Return what every variant of a frame is shown from, so that it can be kept.

    Raises:
        FrameNotRenderable: As `render_frame`.
    """
    return decode_frame(request.content, request.description, request.bit_offset)


def show(decoded: DecodedFrame, request: RenderRequest) -> bytes:
    """Show and encode what `decode` returned, as the variant of the request wants it.

    Raises:
        FrameNotRenderable: Its palette is missing.
    """
    if request.as_samples:
        return sample_bytes(decoded, request.description)
    shown = picture(decoded, request.description, request.display, request.variant)
    if request.variant.picture_format is PictureFormat.JPEG:
        return encode_jpeg(shown, request.variant.quality)
    return encode_png(shown)


def load_codecs() -> None:
    """Import every codec and keep OpenCV to one thread: once in a process that renders."""
    cv2.setNumThreads(1)
    decoding.preload()
