"""Visual inspection on the edge: a part is compared with a registered golden sample of the same product.

    from differad_edge import EdgeInspector, Verdict

Everything is loaded on first use, so that ``import differad_edge`` costs nothing and pulls in neither OpenCV nor an
inference runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AddressInUseError",
    "Alignment",
    "AnswerError",
    "Box",
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
    "EdgeInspector",
    "EngineError",
    "EngineServerError",
    "ExportError",
    "Finding",
    "ImageDecodeError",
    "ImageError",
    "ImageFormatError",
    "ImageQualityError",
    "ImageSizeError",
    "IncompatibleReferenceError",
    "InspectionResult",
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
    "Reason",
    "ReferenceStoreError",
    "RefusedError",
    "RegionError",
    "ResultError",
    "SmokeTestError",
    "Timings",
    "TornFrameError",
    "TrainingError",
    "UnknownEngineError",
    "UnknownProductError",
    "Verdict",
    "WireError",
    "__version__",
]

if TYPE_CHECKING:
    from differad_edge.errors import (
        AddressInUseError,
        AnswerError,
        BoxError,
        CalibrationError,
        CameraEndedError,
        CameraError,
        CameraLostError,
        CameraNotFoundError,
        CameraTimeoutError,
        ConfigError,
        CorruptReferenceError,
        DatasetError,
        DeadlineExceeded,
        DifferadError,
        DuplicateReferenceError,
        EngineError,
        EngineServerError,
        ExportError,
        ImageDecodeError,
        ImageError,
        ImageFormatError,
        ImageQualityError,
        ImageSizeError,
        IncompatibleReferenceError,
        JournalError,
        JournalInUseError,
        MessageError,
        MissingExtraError,
        MissingSystemPackageError,
        ModelIntegrityError,
        NoAnswerError,
        OutputError,
        OutputRefusedError,
        PairsError,
        ProductIdError,
        ReferenceStoreError,
        RefusedError,
        RegionError,
        ResultError,
        SmokeTestError,
        TornFrameError,
        TrainingError,
        UnknownEngineError,
        UnknownProductError,
        WireError,
    )
    from differad_edge.inspector import EdgeInspector
    from differad_edge.results import Alignment, Box, Finding, InspectionResult, Reason, Timings, Verdict

_RESULTS = frozenset({"Alignment", "Box", "Finding", "InspectionResult", "Reason", "Timings", "Verdict"})


def _home_of(name: str) -> str:
    if name == "EdgeInspector":
        return "differad_edge.inspector"
    return "differad_edge.results" if name in _RESULTS else "differad_edge.errors"


def __getattr__(name: str) -> Any:
    # PEP 562. Submodules are not looked up here: ``import differad_edge.x`` sets them as attributes itself.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_home_of(name)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
