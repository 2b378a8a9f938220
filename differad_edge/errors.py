"""Every error that differad-edge raises on purpose.

    DifferadError                          error
     ├ ImageError                          bad-image
     │  ├ ImageDecodeError                 undecodable-image
     │  ├ ImageFormatError                 unsupported-image-format
     │  ├ ImageSizeError                   image-size
     │  └ ImageQualityError                image-quality
     ├ BoxError                            invalid-box
     ├ RegionError                         invalid-region
     ├ ResultError                         invalid-result
     ├ ReferenceStoreError                 reference-store
     │  ├ ProductIdError                   invalid-product-id
     │  ├ UnknownProductError              unknown-product
     │  ├ DuplicateReferenceError          duplicate-reference
     │  ├ IncompatibleReferenceError       incompatible-reference
     │  └ CorruptReferenceError            corrupt-reference
     ├ CalibrationError                    calibration
     ├ ConfigError                         invalid-config
     ├ PairsError                          invalid-pairs
     ├ AnswerError                         unparsable-answer
     ├ TrainingError                       training
     │  └ DatasetError                     dataset
     ├ ExportError                         export
     ├ EngineError                         engine
     │  ├ UnknownEngineError               unknown-engine
     │  ├ EngineServerError                engine-server
     │  ├ ModelIntegrityError              model-integrity
     │  ├ SmokeTestError                   smoke-test
     │  └ DeadlineExceeded                 deadline
     ├ CameraError                         camera
     │  ├ CameraNotFoundError              camera-not-found
     │  ├ CameraTimeoutError               camera-timeout
     │  ├ CameraLostError                  camera-lost
     │  ├ CameraEndedError                 camera-ended
     │  └ TornFrameError                   torn-frame
     ├ JournalError                        journal
     │  └ JournalInUseError                journal-in-use
     ├ OutputError                         output
     │  └ OutputRefusedError               output-refused
     ├ WireError                           wire
     │  ├ AddressInUseError                address-in-use
     │  ├ MessageError                     invalid-message
     │  ├ NoAnswerError                    no-answer
     │  └ RefusedError                     refused (or the code that the server gave)
     ├ MissingExtraError                   missing-extra
     └ MissingSystemPackageError           missing-system-package

``code`` is stable: programs may branch on it, journals store it. The message is for people: it names the field,
the value that was given and what is allowed, and may be reworded at any time.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressInUseError",
    "AnswerError",
    "BoxError",
    "CalibrationError",
    "CameraEndedError",
    "CameraError",
    "CameraLostError",
    "CameraNotFoundError",
    "CameraTimeoutError",
    "ConfigError",
    "CorruptReferenceError",
    "DatasetError",
    "DeadlineExceeded",
    "DifferadError",
    "DuplicateReferenceError",
    "EngineError",
    "EngineServerError",
    "ExportError",
    "ImageDecodeError",
    "ImageError",
    "ImageFormatError",
    "ImageQualityError",
    "ImageSizeError",
    "IncompatibleReferenceError",
    "JournalError",
    "JournalInUseError",
    "MessageError",
    "MissingExtraError",
    "MissingSystemPackageError",
    "ModelIntegrityError",
    "NoAnswerError",
    "OutputError",
    "OutputRefusedError",
    "PairsError",
    "ProductIdError",
    "ReferenceStoreError",
    "RefusedError",
    "RegionError",
    "ResultError",
    "SmokeTestError",
    "TornFrameError",
    "TrainingError",
    "UnknownEngineError",
    "UnknownProductError",
    "WireError",
]


class DifferadError(Exception):
    """Base of every error of this package; ``except DifferadError`` catches them all."""

    code: ClassVar[str] = "error"


class ImageError(DifferadError):
    """An image cannot be inspected."""

    code: ClassVar[str] = "bad-image"


class ImageDecodeError(ImageError):
    """The file is missing, truncated, damaged or not an image."""

    code: ClassVar[str] = "undecodable-image"


class ImageFormatError(ImageError):
    """The dtype, bit depth, channel count, shape or file format is not one that is inspected."""

    code: ClassVar[str] = "unsupported-image-format"


class ImageSizeError(ImageError):
    """The image is empty, too small, or larger than the limits allow."""

    code: ClassVar[str] = "image-size"


class ImageQualityError(ImageError):
    """The image is black, saturated, blank or blurred where it may not be."""

    code: ClassVar[str] = "image-quality"


class BoxError(DifferadError):
    """A box is reversed, empty, not finite, or outside the image that it belongs to."""

    code: ClassVar[str] = "invalid-box"


class RegionError(DifferadError):
    """A region of interest or an ignore mask is empty, outside the image, or of another shape."""

    code: ClassVar[str] = "invalid-region"


class ResultError(DifferadError):
    """A result contradicts itself (OK with findings, NG without), or a stored one cannot be read back."""

    code: ClassVar[str] = "invalid-result"


class ReferenceStoreError(DifferadError):
    """The reference store cannot be read or written."""

    code: ClassVar[str] = "reference-store"


class ProductIdError(ReferenceStoreError):
    """The product id is not one that is safe as a folder name on every platform."""

    code: ClassVar[str] = "invalid-product-id"


class UnknownProductError(ReferenceStoreError):
    """No product of this id is registered."""

    code: ClassVar[str] = "unknown-product"


class DuplicateReferenceError(ReferenceStoreError):
    """The same reference image was given twice for one product."""

    code: ClassVar[str] = "duplicate-reference"


class IncompatibleReferenceError(ReferenceStoreError):
    """A reference has another size or aspect than its sisters, or cannot be aligned with them."""

    code: ClassVar[str] = "incompatible-reference"


class CorruptReferenceError(ReferenceStoreError):
    """A stored reference does not match its hash, or its manifest is broken."""

    code: ClassVar[str] = "corrupt-reference"


class CalibrationError(DifferadError):
    """No honest threshold follows from the scores that were given."""

    code: ClassVar[str] = "calibration"


class ConfigError(DifferadError):
    """A setting is unknown, missing, or outside what is allowed."""

    code: ClassVar[str] = "invalid-config"


class PairsError(DifferadError):
    """A pair data set breaks its format."""

    code: ClassVar[str] = "invalid-pairs"


class AnswerError(DifferadError):
    """A language model's answer does not follow the grammar of ``differad_edge.grounding``.

    ``reason``: which rule it breaks, one of ``grounding.AnswerFault``.
    """

    code: ClassVar[str] = "unparsable-answer"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AnswerError], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class TrainingError(DifferadError):
    """A training run cannot start or go on: a recipe, a checkpoint or a machine does not fit."""

    code: ClassVar[str] = "training"


class DatasetError(TrainingError):
    """A source data set has not the layout that its converter reads, or too many of its samples are bad."""

    code: ClassVar[str] = "dataset"


class ExportError(DifferadError):
    """A model cannot be exported or compiled, or what came out does not agree with it."""

    code: ClassVar[str] = "export"


class EngineError(DifferadError):
    """An engine failed."""

    code: ClassVar[str] = "engine"


class UnknownEngineError(EngineError):
    """No engine of this name exists."""

    code: ClassVar[str] = "unknown-engine"


class EngineServerError(EngineError):
    """A model server cannot be reached, refuses, or answers something that is not its protocol."""

    code: ClassVar[str] = "engine-server"


class ModelIntegrityError(EngineError):
    """A model file does not match its SHA-256, or is not the kind of model it is said to be."""

    code: ClassVar[str] = "model-integrity"


class SmokeTestError(EngineError):
    """What was loaded gives another verdict on a part whose verdict is known: nothing is inspected with it."""

    code: ClassVar[str] = "smoke-test"


class DeadlineExceeded(EngineError):
    """The time that was given for one part is over."""

    code: ClassVar[str] = "deadline"


class CameraError(DifferadError):
    """A camera cannot be used."""

    code: ClassVar[str] = "camera"


class CameraNotFoundError(CameraError):
    """No such camera, file or folder, or another camera than the one that was asked for."""

    code: ClassVar[str] = "camera-not-found"


class CameraTimeoutError(CameraError):
    """No frame came within the time that was given; the camera may still be alive."""

    code: ClassVar[str] = "camera-timeout"


class CameraLostError(CameraError):
    """The camera was unplugged or its stream broke off: it must be opened again."""

    code: ClassVar[str] = "camera-lost"


class CameraEndedError(CameraError):
    """A file or folder has no more frames: the end that was expected, no fault."""

    code: ClassVar[str] = "camera-ended"


class TornFrameError(CameraError):
    """A frame arrived incomplete or cannot be decoded; the next one may be sound.

    ``sequence``: the number that the camera counted it as, None when it counts only frames that it delivers.
    """

    code: ClassVar[str] = "torn-frame"

    def __init__(self, message: str, sequence: int | None = None) -> None:
        super().__init__(message)
        self.sequence = sequence

    def __reduce__(self) -> tuple[type[TornFrameError], tuple[str, int | None]]:
        return type(self), (str(self), self.sequence)


class JournalError(DifferadError):
    """The journal cannot be opened, read or written."""

    code: ClassVar[str] = "journal"


class JournalInUseError(JournalError):
    """Another server writes this journal."""

    code: ClassVar[str] = "journal-in-use"


class OutputError(DifferadError):
    """What an output sends to cannot be reached, or does not confirm; it may later."""

    code: ClassVar[str] = "output"


class OutputRefusedError(OutputError):
    """The other side has understood a result and will not take it, however often it is sent."""

    code: ClassVar[str] = "output-refused"


class WireError(DifferadError):
    """Something between a server and its clients failed."""

    code: ClassVar[str] = "wire"


class AddressInUseError(WireError):
    """An address is taken, or cannot be bound."""

    code: ClassVar[str] = "address-in-use"


class MessageError(WireError):
    """A message is malformed, too large, or of another schema version."""

    code: ClassVar[str] = "invalid-message"


class NoAnswerError(WireError):
    """The server did not answer in time: it is not there, it is stuck, or the keys are wrong."""

    code: ClassVar[str] = "no-answer"


class RefusedError(WireError):
    """The server answered that it will not do what it was asked.

    ``RefusedError("busy", "a part is being inspected")``: ``code`` is the server's, so that programs may branch on it.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # each refusal has its own

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str]]:
        return type(self), (self.code, str(self))


class MissingExtraError(DifferadError):
    """An optional package is needed and not installed.

    ``MissingExtraError("vlm", "transformers")`` says which ``pip install`` mends it.
    """

    code: ClassVar[str] = "missing-extra"

    def __init__(self, extra: str, package: str) -> None:
        self.extra = extra
        self.package = package
        super().__init__(f"{package!r} is not installed; install it with: pip install 'differad-edge[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        # The default would call __init__ with the finished message as its only argument.
        return type(self), (self.extra, self.package)


class MissingSystemPackageError(DifferadError):
    """Something is needed that no Python package brings.

    ``MissingSystemPackageError("Aravis", "apt-get install gir1.2-aravis-0.8")`` says which command mends it.
    """

    code: ClassVar[str] = "missing-system-package"

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what} is not installed; install it with: {remedy}")

    def __reduce__(self) -> tuple[type[MissingSystemPackageError], tuple[str, str]]:
        return type(self), (self.what, self.remedy)
