"""Lookup tables of the Modality LUT and VOI LUT modules (PS3.3 C.11.1.1 and C.11.2.1.1)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_ENTRIES_FOR_ZERO = 65_536
"""PS3.3 C.11.1.1.1: zero entries stand for 2^16, which 16 bits can't say."""

_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One LUT: hashable, so that what is built from it can be cached.

    Attributes:
        first_mapped: Input value of the first entry.
        bits: Bits of an entry, 8 to 16: the output range is 0 to 2^bits - 1.
        entries: Output values, as bytes of little-endian unsigned 16-bit numbers.
    """

    first_mapped: int
    bits: int
    entries: bytes

    def apply(self, values: FloatArray) -> FloatArray:
        """Map values; those outside take the first or last entry (PS3.3 C.11.2.1.1)."""
        table = np.frombuffer(self.entries, dtype="<u2").astype(np.float64)
        index = np.clip(np.rint(values) - self.first_mapped, 0, table.size - 1)
        mapped: FloatArray = table[index.astype(np.int64)]
        return mapped


def read_lookup_table(
    descriptor: tuple[int, int, int], data: bytes | list[int], *, is_signed: bool
) -> LookupTable | None:
    """Read LUTDescriptor and LUTData.

    Args:
        descriptor: Number of entries, first mapped value, bits of an entry.
        data: LUTData as OW bytes (little-endian) or as numbers.
        is_signed: The input values are signed: so is the first mapped value.

    Returns:
        The table; None when it is empty or shorter than its descriptor says.
    """
    declared, first_mapped, bits = descriptor
    count = declared or _ENTRIES_FOR_ZERO
    entries = _entries(data, count)
    if entries.size < count or not _BYTE_BITS <= bits <= 2 * _BYTE_BITS:
        return None
    if is_signed and first_mapped >= _ENTRIES_FOR_ZERO // 2:
        first_mapped -= _ENTRIES_FOR_ZERO
    return LookupTable(first_mapped, bits, entries[:count].astype("<u2").tobytes())


def _entries(data: bytes | list[int], count: int) -> npt.NDArray[np.uint16]:
    if not isinstance(data, bytes):
        return np.asarray([number & 0xFFFF for number in data], dtype=np.uint16)
    # Two 8-bit entries may share one 16-bit word (PS3.3 C.11.1.1.1).
    is_packed = len(data) < 2 * count
    return np.frombuffer(data, dtype="u1" if is_packed else "<u2").astype(np.uint16)
