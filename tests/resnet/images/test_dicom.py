"""DICOM images against pydicom's own rescaling and windowing, and what is refused, each with what to do."""

import contextlib
import io
import sys
import time
from typing import Any

import numpy as np
import pytest

from resnet.images.checks import image_kinds
from resnet.images.checks.image_limits import LIMITS, CorruptImage, RefusedKind, TooLarge
from resnet.images.decode import decode, grey_levels, size_of
from resnet.images.grey_range import GreyRange

SHAPE = 33, 21
META = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"  # explicit, little endian


def test_without_pydicom_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for function in (decode, size_of, grey_levels):
        with pytest.raises(RefusedKind, match="needs pydicom, which is not installed: the extra dicom"):
            function(bytes(128) + b"DICM" + META + bytes(60))


def needs_pydicom() -> Any:
    return pytest.importorskip("pydicom", reason="pydicom is not installed: the extra dicom", minversion="3")


def dataset(levels: np.ndarray, stored: int | None = None, **changes: Any) -> Any:
    """An image as a scanner writes it: grey unless the levels have three colours. changes: of its header."""
    pydicom = needs_pydicom()
    bits = 8 * levels.dtype.itemsize
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.PatientName = "Doe^Jane"
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.Rows, found.Columns = levels.shape[:2]
    found.SamplesPerPixel = 3 if levels.ndim == 3 else 1
    found.PhotometricInterpretation = "RGB" if levels.ndim == 3 else "MONOCHROME2"
    if levels.ndim == 3:
        found.PlanarConfiguration = 0
    found.BitsAllocated, found.BitsStored = bits, stored or bits
    found.HighBit, found.PixelRepresentation = found.BitsStored - 1, int(levels.dtype.kind == "i")
    found.PixelData = levels.tobytes() + bytes(levels.nbytes % 2)
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def written(found: Any, syntax: str = "ExplicitVRLittleEndian") -> bytes:
    pydicom = needs_pydicom()
    found.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, found, enforce_file_format=True)
    return stream.getvalue()


def random_levels(dtype: Any, low: int, high: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(low + high).integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("dtype", "stored", "low", "high"), [(np.uint16, 12, 0, 4096), (np.int16, 16, -2000, 3000)])
def test_a_windowed_image_is_as_pydicom_shows_it(
    function: str | None, syntax: str, photometric: str, dtype: Any, stored: int, low: int, high: int
) -> None:
    """Slope 2, intercept -1024, the first of two windows; the output range of pydicom is that of all stored levels."""
    needs_pydicom()
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing  # pyright: ignore[reportMissingImports]

    levels = random_levels(dtype, low, high)
    window = {"WindowCenter": [40.0, 300.0], "WindowWidth": [700.0, 1500.0]}
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    found = dataset(levels, stored, PhotometricInterpretation=photometric, **window, **rescale)
    if function is not None:
        found.VOILUTFunction = function
    data = written(found, syntax)
    lowest = -(2 ** (stored - 1)) if found.PixelRepresentation else 0
    ends = np.array([lowest, lowest + 2**stored - 1]) * 2.0 - 1024
    shown = apply_windowing(apply_modality_lut(levels, found), found)
    expected = 255 * (shown - ends[0]) / (ends[1] - ends[0])
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    pixels = decode(data)
    assert pixels.shape == (*SHAPE, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0] - expected).max() <= 0.5 + 1e-6, "rounded to the nearest of 256"
    assert len(np.unique(pixels)) > 20
    assert size_of(data) == SHAPE
    assert grey_levels(data) is None, "no range of grey levels is wanted"
    assert np.array_equal(decode(data, GreyRange(0, 10)), pixels), "the window goes before a range"


@pytest.mark.parametrize(("dtype", "stored", "lowest"), [(np.uint16, 12, 0), (np.int16, 12, -2048), (np.uint16, 16, 0)])
def test_without_a_window_the_range_of_grey_levels_decides(dtype: Any, stored: int, lowest: int) -> None:
    levels = random_levels(dtype, lowest, lowest + 2**stored)
    data = written(dataset(levels, stored))
    from_zero = levels.astype(np.int64) - lowest
    assert np.array_equal(grey_levels(data), from_zero)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(decode(data)[..., 0], from_zero * 256 // 2**stored), "all stored bits by default"
    assert np.array_equal(decode(data, GreyRange(100, 1000))[..., 0], GreyRange(100, 1000).apply(from_zero))
    inverted = written(dataset(levels, stored, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(decode(inverted), 255 - decode(data))


def test_bits_outside_of_those_stored_are_no_levels() -> None:
    """Overlays were kept in the upper bits once; some store in the upper bits."""
    levels = random_levels(np.uint16, 0, 4096)
    plain = decode(written(dataset(levels, 12)))
    assert np.array_equal(decode(written(dataset(levels | 0x8000, 12))), plain)
    assert np.array_equal(decode(written(dataset((levels << 4) | 3, 12, HighBit=15))), plain)


def test_eight_bits_and_colours_are_as_stored() -> None:
    grey, rgb = random_levels(np.uint8, 0, 256), random_levels(np.uint8, 0, 256, (*SHAPE, 3))
    assert np.array_equal(decode(written(dataset(grey)))[..., 1], grey)
    assert np.array_equal(decode(written(dataset(rgb))), rgb)
    planes = dataset(np.ascontiguousarray(rgb.transpose(2, 0, 1)), PlanarConfiguration=1)
    planes.Rows, planes.Columns = SHAPE
    assert np.array_equal(decode(written(planes)), rgb)
    assert image_kinds.kind_of(written(dataset(grey))).media_type == "application/dicom"


def test_what_is_not_decoded_is_refused_by_name() -> None:
    pydicom = needs_pydicom()
    levels = random_levels(np.uint16, 0, 4096)
    compressed = dataset(levels, 12)
    compressed.compress(pydicom.uid.RLELossless)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, compressed, enforce_file_format=True)
    refused = {
        "compressed, or big endian": stream.getvalue(),
        "several frames": written(dataset(levels, 12, NumberOfFrames=2)),
        "palette, YBR or other colours": written(dataset(levels, 12, PhotometricInterpretation="PALETTE COLOR")),
        "1 bit, more than 16 bits, or colour of more than 8": written(
            dataset(levels, 12, BitsAllocated=32, BitsStored=32, HighBit=31)
        ),
    }
    named = {v.name for v in image_kinds.VARIANTS if v.kind == "DICOM" and not v.decoded}
    assert set(refused) == named
    for name, data in refused.items():
        with pytest.raises(RefusedKind, match=f"a DICOM of this variant is not decoded, got {name}"):
            decode(data)
    with pytest.raises(RefusedKind, match="got compressed, or big endian"):
        decode(written(dataset(levels, 12), "DeflatedExplicitVRLittleEndian"))


def test_a_damaged_or_hostile_file_is_one_sentence_and_takes_no_time() -> None:
    data = written(dataset(random_levels(np.uint16, 0, 4096), 12, WindowCenter=40, WindowWidth=400))
    for cut in range(132, len(data) - 1, 7):
        with pytest.raises(CorruptImage):
            decode(data[:cut])
    rng = np.random.default_rng(0)
    for _ in range(300):
        hurt = bytearray(data)
        hurt[int(rng.integers(132, 700))] = int(rng.integers(0, 256))
        with contextlib.suppress(CorruptImage):
            decode(bytes(hurt))
    large = written(dataset(random_levels(np.uint16, 0, 4096), 12, Rows=60_000, Columns=60_000))
    with pytest.raises(TooLarge):
        decode(large)
    many = data[:132] + META + b"\x09\0\x01\x10LO\0\0" * (LIMITS.bytes // 64)
    began = time.perf_counter()
    with pytest.raises(CorruptImage, match=r"its pixels in its first 1,048,576 bytes"):
        decode(many)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WindowWidth": 0}, "a DICOM window must have a width of at least 1, got 0"),
        ({"RescaleSlope": "nan"}, "must have a finite RescaleSlope"),
        ({"VOILUTFunction": "CUBIC"}, "a DICOM window must be one of LINEAR, LINEAR_EXACT, SIGMOID, got CUBIC"),
        ({"BitsStored": 14, "HighBit": 11}, "must store its bits in those allocated, got 14 up to 11"),
        ({"Rows": 0}, "must have rows and columns"),
    ],
)
def test_a_wrong_header_says_which_field(changes: dict[str, Any], words: str) -> None:
    window = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": 0}
    data = written(dataset(random_levels(np.uint16, 0, 4096), 12, **(window | changes)))
    with pytest.raises(CorruptImage, match=words):
        decode(data)
