"""Statistics of regions against pydicom: native, encoded and signed samples."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from tests.real.dicomweb_stage import file_named, store
from tests.servers import RunningServer

_QUERY = """query ($uid: String!, $ellipse: EllipseInput!) {
  instance(sopInstanceUID: $uid) { frame { statistics(ellipse: $ellipse) {
    mean standardDeviation minimum maximum numberOfPixels unit } } }
}"""
_COLUMN, _ROW, _ACROSS, _DOWN = 20.0, 25.0, 12.0, 9.0


async def _measured(server: RunningServer, content: bytes, **ellipse: float) -> Any:  # noqa: ANN401  # JSON
    await store(server, [content])
    variables = {
        "uid": str(dcmread(io.BytesIO(content)).SOPInstanceUID),
        "ellipse": {"column": _COLUMN, "row": _ROW, "radiusColumns": _ACROSS, "radiusRows": _DOWN}
        | ellipse,
    }
    response = await server.http.post("/graphql", json={"query": _QUERY, "variables": variables})
    return response.json()


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("CT_small.dcm", "HU"),
        ("MR_small_bigendian.dcm", None),
        ("MR_small_RLE.dcm", None),
        ("emri_small_RLE.dcm", None),
        ("J2K_pixelrep_mismatch.dcm", "HU"),
        ("examples_overlay.dcm", None),
    ],
)
async def test_values_are_those_that_pydicom_reads(
    server: RunningServer, name: str, unit: str | None
) -> None:
    content = file_named(name)
    answer = await _measured(server, content)
    dataset = dcmread(io.BytesIO(content))
    values = apply_modality_lut(pixel_array(dataset, index=0), dataset)
    rows, columns = np.mgrid[0 : values.shape[0], 0 : values.shape[1]] + 0.5
    inside = values[((rows - _ROW) / _DOWN) ** 2 + ((columns - _COLUMN) / _ACROSS) ** 2 <= 1]
    found = answer["data"]["instance"]["frame"]["statistics"]
    assert found == {
        "mean": pytest.approx(inside.mean()),
        "standardDeviation": pytest.approx(inside.std()),
        "minimum": inside.min(),
        "maximum": inside.max(),
        "numberOfPixels": inside.size,
        "unit": unit,
    }


async def test_colours_have_none_and_numbers_must_mean_something(server: RunningServer) -> None:
    palette = file_named("examples_palette.dcm")
    answer = await _measured(server, palette)
    assert answer["data"]["instance"]["frame"] == {"statistics": None}
    refused = await _measured(server, palette, radiusRows=-1.0)
    (error,) = refused["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["extensions"]["argument"] == "ellipse"
