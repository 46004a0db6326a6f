"""Studies made of computed shapes: bodies of known sizes, places and values; no patient's data."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)

BODY_HU, BALL_HU, AIR_HU = 40, 300, -1000
"""Values of the body, of the ball in it, and around it."""

SIDE_MM = 256.0
"""Width, depth and height of the volume; its middle is the origin."""

BALL_CENTER = (40.0, -20.0, 10.0)
"""To the left, to the front, to the head."""

BALL_RADIUS_MM = 30.0


@dataclass(frozen=True, slots=True)
class Phantom:
    """A study of a body, an ellipsoid, with a ball in it.

    Attributes:
        patient_id: Its PatientID.
        study_uid: Its StudyInstanceUID.
        frame_of_reference_uid: Of all its series.
        study_date: As in StudyDate.
    """

    patient_id: str
    patient_name: str
    study_uid: UID
    frame_of_reference_uid: UID
    study_date: str = "20240501"
    study_description: str = "CT abdomen"
    accession_number: str = "A-1"

    @classmethod
    def of(cls, patient_id: str, **attributes: str) -> "Phantom":
        """Make a study with UIDs that follow from its patient and date."""
        seed = [patient_id, *attributes.values()]
        return cls(
            patient_id=patient_id,
            patient_name=attributes.pop("patient_name", "Phantom^Paula"),
            study_uid=generate_uid(entropy_srcs=[*seed, "study"]),
            frame_of_reference_uid=generate_uid(entropy_srcs=[*seed, "frame"]),
            **attributes,
        )

    def series(
        self,
        number: int,
        description: str,
        *,
        orientation: tuple[float, ...] = AXIAL,
        slices: int = 12,
        size: int = 128,
        noise: float = 0.0,
    ) -> Iterator[bytes]:
        """Yield the files of a series: parallel slices through all of the volume.

        Args:
            number: SeriesNumber.
            description: SeriesDescription.
            orientation: ImageOrientationPatient.
            slices: How many.
            size: Rows and columns.
            noise: Its standard deviation in Hounsfield units: it makes pictures large.
        """
        uid = generate_uid(entropy_srcs=[self.study_uid, str(number)])
        for index in range(slices):
            yield self._file(uid, number, description, orientation, index, slices, size, noise)

    def _file(  # noqa: PLR0917  # the attributes of one file
        self,
        uid: UID,
        number: int,
        description: str,
        orientation: tuple[float, ...],
        index: int,
        slices: int,
        size: int,
        noise: float,
    ) -> bytes:
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        normal = np.cross(row, column)
        pixel, step = SIDE_MM / size, SIDE_MM / slices
        along = (index + 0.5) * step - SIDE_MM / 2
        position = along * normal + (row + column) * (pixel / 2 - SIDE_MM / 2)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        instance = generate_uid(entropy_srcs=[uid, str(index)])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
        dataset.PatientID, dataset.PatientName = self.patient_id, self.patient_name
        dataset.PatientBirthDate, dataset.PatientSex = "19800229", "F"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.study_uid, uid
        dataset.StudyDate, dataset.StudyTime = self.study_date, "101500"
        dataset.StudyDescription = self.study_description
        dataset.AccessionNumber = self.accession_number
        dataset.Modality, dataset.SeriesNumber = "CT", number
        dataset.SeriesDescription, dataset.InstanceNumber = description, index + 1
        dataset.FrameOfReferenceUID = self.frame_of_reference_uid
        dataset.ImageOrientationPatient = [float(value) for value in orientation]
        dataset.ImagePositionPatient = [round(float(value), 4) for value in position]
        dataset.PixelSpacing = [pixel, pixel]
        dataset.SliceThickness, dataset.SliceLocation = step, round(along, 2)
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.WindowCenter, dataset.WindowWidth = 40, 800
        if noise:
            # Time is for the tests: one slice with its noise, rolled on.
            stored = np.roll(_noisy_slice(size, noise), 7 * index)
        else:
            stored = _values(position, row * pixel, column * pixel, size) + 1024
        dataset.PixelData = stored.astype("<u2").tobytes()
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        return content.getvalue()


@cache
def _noisy_slice(size: int, noise: float) -> npt.NDArray[np.int64]:
    pixel = SIDE_MM / size
    corner = np.array([-SIDE_MM / 2, -SIDE_MM / 2, BALL_CENTER[2]])
    values = _values(corner, np.array([pixel, 0, 0]), np.array([0, pixel, 0]), size) + 1024
    random = np.random.default_rng(0).normal(0, noise, values.shape)
    return np.clip(values + random, 0, 4095).astype(np.int64)


def _values(
    position: npt.NDArray[np.float64],
    across: npt.NDArray[np.float64],
    down: npt.NDArray[np.float64],
    size: int,
) -> npt.NDArray[np.int64]:
    """Return the values of one slice, in Hounsfield units."""
    steps = np.arange(size)
    points = position + steps[None, :, None] * across + steps[:, None, None] * down
    values = np.full((size, size), AIR_HU)
    body = ((points / np.array([110.0, 80.0, 124.0])) ** 2).sum(axis=-1) < 1
    values[body] = BODY_HU
    ball = ((points - np.array(BALL_CENTER)) ** 2).sum(axis=-1) < BALL_RADIUS_MM**2
    values[ball] = BALL_HU
    # A mark at the right arm, so that a mirrored picture looks like one.
    arm = ((points[..., 0] + 112) ** 2 + (points[..., 1] - 10) ** 2) < 10**2
    values[arm] = BODY_HU + 30
    return values
