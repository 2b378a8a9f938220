"""All figures of merit, in one place: what an inspector answered against what is true.

``Outcome`` is one image; ``summarise`` turns many into a report with 95 % intervals; ``one_box`` holds the protocol of
the paper (one anomaly per image, IoU >= 0.3), ``detection`` counts every box (DeepPCB's rule, IoU > 0.33).
"""

from __future__ import annotations

from differad_edge.scoring.detection import DETECTION_FIGURES, DETECTION_IOU, detection
from differad_edge.scoring.one_box import ONE_BOX_FIGURES, ONE_BOX_IOU, Judgement, judge, one_box
from differad_edge.scoring.outcome import Outcome
from differad_edge.scoring.summary import summarise

__all__ = [
    "DETECTION_FIGURES",
    "DETECTION_IOU",
    "ONE_BOX_FIGURES",
    "ONE_BOX_IOU",
    "Judgement",
    "Outcome",
    "detection",
    "judge",
    "one_box",
    "summarise",
]
