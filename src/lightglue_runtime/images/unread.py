"""Files that look like an image or a video and are not read: known, so that nobody has to wonder where they went."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightglue_runtime.images.headers import format_of

__all__ = ["Unread", "unread_kind"]

_CONVERT = "convert it to PNG or JPEG"
_DEVELOP = "develop it to JPEG or 16-bit TIFF, such as with darktable-cli"
_FILM = "`lightglue sfm FILE -o MAP` maps a video, `lightglue map frames FILE -o DIR` writes its frames as images"


@dataclass(frozen=True)
class Unread:
    """A kind of file that looks like an image or a video and is not read."""

    name: str
    remedy: str = _CONVERT  # an imperative clause

    @property
    def is_video(self) -> bool:
        """Whether it is a film and no image."""
        return self.remedy == _FILM


_RAW, _VIDEO = Unread("raw", _DEVELOP), Unread("video", _FILM)

# How they begin. A box of QuickTime or MP4 begins with its length; MPEG's transport stream has packets of 188 bytes.
_STARTS = (
    (rb".{4}ftypcrx |FUJIFILMCCD-RAW|II\x1a\0\0\0HEAPCCDR|FOVb|\0MRM|IIU\0|IIR[OS]|MMOR", _RAW),
    (rb"(?:II\*\0|MM\0\*).{4}CR", _RAW),
    (rb".{4}ftyp(?!M4[AB] )|\0.{3}(?:moov|mdat|wide|skip)", _VIDEO),
    (rb"\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xba\xb3]|\x30\x26\xb2\x75\x8e\x66\xcf\x11|FLV\x01", _VIDEO),
    (rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47", _VIDEO),
    (rb"\0\0\0\x0cJXL |\xff\x0a", Unread("JPEG XL")),
    (rb"II\xbc[\0\x01]", Unread("JPEG XR")),
    (rb"8BP[SB]", Unread("Photoshop")),
    (rb"v/1\x01", Unread("OpenEXR")),
    (rb"#\?(?:RADIANCE|RGBE)", Unread("Radiance HDR")),
    (rb"P[Ff]\s+\d+\s+\d+\s", Unread("PFM")),
    (rb"P7\s+WIDTH", Unread("PAM")),
    (rb"DDS \x7c\0\0\0", Unread("DDS")),
    (rb"qoif", Unread("QOI")),
    (rb"BPG\xfb", Unread("BPG")),
    (rb"gimp xcf ", Unread("GIMP")),
    (rb"\x59\xa6\x6a\x95", Unread("Sun raster")),
    (rb"SIMPLE  =  ", Unread("FITS", "convert it to 16-bit TIFF")),
    (rb".{128}DICM", Unread("DICOM", "convert it to 16-bit TIFF")),
)
_PATTERNS = tuple((re.compile(start, re.DOTALL), kind) for start, kind in _STARTS)
# What only the name tells: formats without a mark, and raw files that begin as TIFF does.
_NAMES = {
    "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f": _RAW,
    "360 3g2 3gp avi flv insv lrv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv vob webm wmv": _VIDEO,
    "tga icb vda": Unread("TGA"),
    "heic heif hif": Unread("HEIC"),
    "avif": Unread("AVIF"),
    "psd": Unread("Photoshop"),
    "exr": Unread("OpenEXR"),
    "hdr": Unread("Radiance HDR"),
    "jxl": Unread("JPEG XL"),
    "pcx": Unread("PCX"),
    "sgi": Unread("SGI"),
}
_ENDINGS = {ending: kind for endings, kind in _NAMES.items() for ending in endings.split()}


def unread_kind(head: bytes, name: str = "") -> Unread | None:
    """What a file that is not read is, by its first `HEAD` bytes and its name; None where it looks like no picture."""
    by_name = _ENDINGS.get(name.rpartition(".")[2].lower()) if "." in name else None
    if format_of(head) is not None:  # raw files of TIFF's structure hold a thumbnail first
        return _RAW if by_name is _RAW and head[:2] in (b"II", b"MM") else None
    return next((kind for pattern, kind in _PATTERNS if pattern.match(head)), by_name)
