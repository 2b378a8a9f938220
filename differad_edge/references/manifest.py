"""manifest.json of one stored version: what belongs to it, with a SHA-256 for every file and for the manifest itself.

The bytes are a function of the content: a manifest that does not re-serialise to the very bytes that were read was
changed by somebody else. A later schema therefore keeps reading version 1 with the models of version 1.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from differad_edge.errors import CalibrationError, CorruptReferenceError
from differad_edge.references.records import Calibration, Roi

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Manifest",
    "StoredCalibration",
    "StoredReference",
    "manifest_bytes",
    "parse_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION: Final = 1

_DIGEST_KEY = "manifest_sha256"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class StoredReference(_Model):
    """One reference: its files are ``<id>.png`` and, when there is an ignore mask, ``<id>.ignore.png``."""

    # The file names follow from the id, so no manifest can name a file outside its folder.
    id: Annotated[str, Field(pattern=r"^ref-[0-9]{3,6}$")]
    sha256: Sha256
    ignore_sha256: Sha256 | None
    width_px: Side
    height_px: Side
    roi_px: Roi | None
    source: str

    @property
    def image_file(self) -> str:
        """Name of the PNG (BGR8) in the version folder."""
        return f"{self.id}.png"

    @property
    def ignore_file(self) -> str:
        """Name of the PNG (one channel, 255 = ignored) in the version folder, where ``ignore_sha256`` is set."""
        return f"{self.id}.ignore.png"

    @property
    def file_hashes(self) -> dict[str, str]:
        """File name -> expected SHA-256 of its bytes, hex."""
        hashes = {self.image_file: self.sha256}
        if self.ignore_sha256 is not None:
            hashes[self.ignore_file] = self.ignore_sha256
        return hashes

    @model_validator(mode="after")
    def _roi_inside(self) -> StoredReference:
        if self.roi_px is not None:
            x1, y1, x2, y2 = self.roi_px
            if not (0 <= x1 < x2 <= self.width_px and 0 <= y1 < y2 <= self.height_px):
                raise ValueError(f"roi_px {self.roi_px} is not inside {self.width_px}x{self.height_px} px")
        return self


class StoredCalibration(_Model):
    """A ``Calibration`` as it is written."""

    threshold: float
    n: int
    false_reject_bound: float
    confidence: str
    scores: tuple[float, ...]
    engine_fingerprint: str

    @classmethod
    def of(cls, calibration: Calibration) -> StoredCalibration:
        """Return what to write for ``calibration``."""
        return cls(
            threshold=float(calibration.threshold),
            n=calibration.n,
            false_reject_bound=float(calibration.false_reject_bound),
            confidence=calibration.confidence,
            scores=tuple(float(score) for score in calibration.scores),
            engine_fingerprint=calibration.engine_fingerprint,
        )

    def to_calibration(self) -> Calibration:
        """Return the calibration; raises CalibrationError when its fields contradict each other."""
        return Calibration(
            threshold=self.threshold,
            n=self.n,
            false_reject_bound=self.false_reject_bound,
            confidence=self.confidence,
            scores=self.scores,
            engine_fingerprint=self.engine_fingerprint,
        )

    @model_validator(mode="after")
    def _consistent(self) -> StoredCalibration:
        try:
            self.to_calibration()
        except CalibrationError as exc:
            raise ValueError(str(exc)) from exc
        return self


class Manifest(_Model):
    """All of one version of one product."""

    schema_version: Literal[1] = SCHEMA_VERSION
    product: str
    version: Annotated[int, Field(ge=1)]
    created_utc: str
    references: Annotated[tuple[StoredReference, ...], Field(min_length=1)]
    calibration: StoredCalibration | None

    @model_validator(mode="after")
    def _one_size_and_own_ids(self) -> Manifest:
        ids = [reference.id for reference in self.references]
        if len(set(ids)) != len(ids):
            raise ValueError(f"reference ids repeat: {ids}")
        sizes = {(reference.width_px, reference.height_px) for reference in self.references}
        regional = any(r.roi_px is not None or r.ignore_sha256 is not None for r in self.references)
        if regional and len(sizes) != 1:
            raise ValueError(f"references of different sizes with a region or an ignore mask: {sorted(sizes)}")
        return self


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the file content: JSON in ASCII, keys in a fixed order, with the digest of all the rest in it."""
    content = manifest.model_dump(mode="json")
    content[_DIGEST_KEY] = hashlib.sha256(_serialise(content)).hexdigest()
    return _serialise(content)


def parse_manifest(data: bytes, *, product_id: str, version: int) -> Manifest:
    """Return the manifest in ``data``.

    Raises CorruptReferenceError when it is not JSON, breaks the schema, was changed after it was written, or belongs to
    another product or version.
    """
    where = f"product '{product_id}' version {version}: {MANIFEST_NAME}"
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} where an object is expected")
        content.pop(_DIGEST_KEY, None)
        without_digest = json.dumps(content)
    except (ValueError, RecursionError) as exc:
        raise CorruptReferenceError(f"{where} is not the JSON of a manifest: {exc}") from exc
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        raise CorruptReferenceError(f"{where} has schema_version {found!r}; this program reads {SCHEMA_VERSION}")
    try:
        # As JSON once more: strict mode takes a list for a tuple only there.
        manifest = Manifest.model_validate_json(without_digest)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise CorruptReferenceError(f"{where}: {field}: {first['msg']}") from exc
    if manifest_bytes(manifest) != data:
        raise CorruptReferenceError(f"{where} does not match its SHA-256: it was changed after it was written")
    if (manifest.product, manifest.version) != (product_id, version):
        raise CorruptReferenceError(f"{where} belongs to product '{manifest.product}' version {manifest.version}")
    return manifest


def _serialise(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
