"""WADO-RS rendered resources and thumbnails (PS3.18 8.3.5, 10.4.1.1.3)."""

import math
from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Handler, Mount
from graph.dicomweb.frames import frame_indices
from graph.http.accept import choose
from graph.http.conditional import names_tag
from models import InstanceDocument
from models.thumbnail import Thumbnail
from services.dicom.display import VoiFunction
from services.errors import InvalidInput, NotFound
from services.frames.variant import MAX_SIZE_LIMIT, FrameVariant, PictureFormat

_THUMBNAIL_PIXELS = 256
_FORMATS = {"image/jpeg": PictureFormat.JPEG, "image/png": PictureFormat.PNG}
_WINDOW_PARTS = 2

_FUNCTIONS = {
    "linear": VoiFunction.LINEAR,
    "linear-exact": VoiFunction.LINEAR_EXACT,
    "sigmoid": VoiFunction.SIGMOID,
}


def rendered_routes(mount: Mount) -> list[BaseRoute]:
    """Make the routes of pictures."""
    series = "/studies/{study}/series/{series}"
    instance = f"{series}/instances/{{instance}}"
    return [
        mount.route(f"{instance}/frames/{{frames}}/rendered", _frame),
        mount.route(f"{instance}/frames/{{frames}}/thumbnail", _frame_thumbnail),
        mount.route(f"{instance}/rendered", _instance),
        mount.route(f"{instance}/thumbnail", _instance_thumbnail),
        mount.route(f"{series}/rendered", _of_series(None)),
        mount.route(f"{series}/thumbnail", _of_series(_THUMBNAIL_PIXELS)),
        mount.route("/studies/{study}/rendered", _of_study(None)),
        mount.route("/studies/{study}/thumbnail", _of_study(_THUMBNAIL_PIXELS)),
    ]


async def _instance(exchange: Exchange) -> Response:
    return await _picture(exchange, await exchange.instance(), 0)


async def _instance_thumbnail(exchange: Exchange) -> Response:
    instance = await exchange.instance()
    middle = max(0, instance.number_of_frames - 1) // 2
    return await _picture(exchange, instance, middle, max_size=_THUMBNAIL_PIXELS)


async def _frame(exchange: Exchange) -> Response:
    return await _picture(exchange, await exchange.instance(), _one_frame(exchange))


async def _frame_thumbnail(exchange: Exchange) -> Response:
    index = _one_frame(exchange)
    return await _picture(exchange, await exchange.instance(), index, max_size=_THUMBNAIL_PIXELS)


def _one_frame(exchange: Exchange) -> int:
    indices = frame_indices(exchange.path("frames"))
    if len(indices) > 1:
        raise InvalidInput("One frame is rendered at a time.")
    return indices[0]


def _of_series(max_size: int | None) -> Handler:
    async def answer(exchange: Exchange) -> Response:
        series = await exchange.series()
        return await _representative(exchange, series.thumbnail, max_size)

    return answer


def _of_study(max_size: int | None) -> Handler:
    async def answer(exchange: Exchange) -> Response:
        study = await exchange.study()
        return await _representative(exchange, study.thumbnail, max_size)

    return answer


async def _representative(
    exchange: Exchange, thumbnail: Thumbnail | None, max_size: int | None
) -> Response:
    """Answer the frame that stands for a series or a study: the middle one of its first images."""
    instance = None
    if thumbnail is not None:
        instance = await InstanceDocument.get(thumbnail.orthanc_instance_id)
    if thumbnail is None or instance is None:
        raise NotFound("There is nothing to show.")
    return await _picture(exchange, instance, thumbnail.frame_index, max_size=max_size)


async def _picture(
    exchange: Exchange, instance: InstanceDocument, index: int, *, max_size: int | None = None
) -> Response:
    media_type = choose(exchange.accepted, list(_FORMATS))
    variant = read_variant(
        dict(exchange.request.query_params),
        instance,
        picture_format=_FORMATS[media_type],
        max_size=max_size,
    )
    async with exchange.viewing(instance):
        rendered = await exchange.runtime.frames.render(instance, index, variant)
    policy = exchange.runtime.settings.frame_cross_origin_resource_policy
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": rendered.etag,
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": policy,
    }
    if names_tag(exchange.request.scope, rendered.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(rendered.content, headers=headers, media_type=media_type)


def read_variant(
    parameters: dict[str, str],
    instance: InstanceDocument,
    *,
    picture_format: PictureFormat,
    max_size: int | None,
) -> FrameVariant:
    """Read how to show a frame (PS3.18 8.3.5.1).

    Args:
        parameters: `window`, `viewport` and `quality` are read.
        instance: Its size, and the function that its windows are meant for.
        picture_format: What is answered.
        max_size: Longest side where no viewport is given.

    Raises:
        InvalidInput: A parameter makes no sense, or asks for what is not done here.
    """
    center = width = None
    if "window" in parameters:
        center, width = _window(parameters["window"], instance.voi_lut_function)
    if "viewport" in parameters:
        max_size = _viewport(parameters["viewport"], instance)
    quality = None
    if "quality" in parameters:
        quality = _number("quality", parameters["quality"])
        if not (quality.is_integer() and 1 <= quality <= 100):  # noqa: PLR2004  # per cent
            raise InvalidInput("quality is an integer of 1 to 100.")
    return FrameVariant(
        window_center=center,
        window_width=width,
        max_size=max_size,
        picture_format=picture_format,
        quality=int(quality) if quality and picture_format is PictureFormat.JPEG else None,
    )


def _window(text: str, stored_function: str | None) -> tuple[float, float]:
    center, width, *functions = text.split(",") if text.count(",") in {1, 2} else ("", "")
    values = _number("window", center), _number("window", width)
    if not functions:
        return values
    asked, stored = _FUNCTIONS.get(functions[0].lower()), VoiFunction.of(stored_function)
    if asked is None:
        raise InvalidInput("window is <center>,<width>[,linear|linear-exact|sigmoid].")
    if asked is stored:
        return values
    # The two ramps differ by their ends alone (PS3.3 C.11.2.1.2.1, C.11.2.1.3.2).
    if (asked, stored) == (VoiFunction.LINEAR_EXACT, VoiFunction.LINEAR):
        return values[0] + 0.5, values[1] + 1
    if (asked, stored) == (VoiFunction.LINEAR, VoiFunction.LINEAR_EXACT):
        return values[0] - 0.5, values[1] - 1
    raise InvalidInput(f"The windows of this image are {stored}; another function is not applied.")


def _viewport(text: str, instance: InstanceDocument) -> int:
    """Return the longest side of a picture that fits into a viewport in its own proportions."""
    parts = text.split(",")
    if len(parts) != _WINDOW_PARTS:
        raise InvalidInput("viewport is <width>,<height>; parts of an image are not cut out.")
    width, height = (_number("viewport", part) for part in parts)
    if not (1 <= width <= MAX_SIZE_LIMIT and 1 <= height <= MAX_SIZE_LIMIT):
        raise InvalidInput(f"viewport has sides of 1 to {MAX_SIZE_LIMIT} pixels.")
    rows, columns = instance.rows or 1, instance.columns or 1
    scale = min(width / columns, height / rows)
    return max(1, min(MAX_SIZE_LIMIT, round(max(rows, columns) * scale)))


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{name} is made of numbers.")
    return number
