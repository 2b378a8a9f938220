"""The sentences of the model card; :mod:`distill.lite.card` puts the facts between them."""

from __future__ import annotations

HEAD = """
# Model card: `lite`, the embedded student

<!-- Written by `python -m distill.lite.card`; a change by hand is lost with the next model. -->
"""

MODEL = """
## Model

A Siamese difference network of 3x3 convolutions, {parameters:,} parameters, in fp32. It takes a golden sample and a
part of the same size, 8-bit BGR, and gives a heat map of their difference at half that size, in [0, 1]. Backbone:
none; all weights were trained from scratch for this task. Code: `distill/lite/network.py`. Licence of the weights:
Apache-2.0.
"""

USE = """
## Intended use

Comparing a manufactured part with one or several golden samples of the same product, seen by the same camera under the
same light, and pointing at what differs. It is the default engine of `differad-edge`, which aligns the part first and
decides afterwards. It finds differences; whether one matters is for the product's threshold, ignore mask and people to
say. It is not made for recognising people or scenes, for medical images, or as the only barrier where a missed defect
endangers somebody.
"""

LIMITS = """
## Limits

- Parts must be aligned up to a few pixels. The package's alignment follows small motions of a rigid part; what lies
  beyond its limits is `UNDECIDED "misaligned"`, and motion that it cannot undo (bending, pieces that turn in
  themselves) looks like a defect.
- Good parts that differ among themselves (grain of wood, cloth, castings, loose cables) need several references and
  calibration. With a single one every natural difference is reported.
- Camera, lens, exposure and lighting must stay as they were at registration. Training covers small drifts of light,
  white balance, focus and noise; a new lamp or a cleaned lens wants a new reference.
- Defects of fewer than {smallest} pixels, or fainter than about {faint} grey levels, were never demanded in training.
- Reflections that move with the part, transparent parts, and height that casts no shadow: not covered.
- A difference in both pictures is none: a defect of the golden sample is taken for good.
"""

DATA = """
## Training data

Every {pair} is generated (`distill/lite/generate.py`) from a seed: a scene, planted defects, then for each picture its
own position, light, lens and sensor. {good} of the pairs are planted with nothing; in {exchanged} the two pictures
change places; {binarised} are offered a two-tone camera, which most scenes do not suit.
"""

UNSEEN = """
**No image of any evaluation set was used in training, in validation or to set the default threshold.** Figures on the
sets named under *Evaluation* were looked at while the generator was developed, so they say what the model does on
products of those kinds, and not quite what it does on a kind that nobody has looked at.
"""

LABELLED = """
The labelled pairs are crops of these sets' photographs (`distill/lite/labelled.py`). Where a set gives no mask, a
defect is labelled where something visibly changes inside its box, and the rest of the box does not count.
"""

LABELLED_UNKNOWN = """
A set's SHA-256 is that of its `pairs.jsonl`; of several in one stage, of all in this order (and of the usable ids,
where pairs were left out). Whose the images are, under which licence, and whether one belongs to an evaluation set, is
not in these files, so this card claims nothing of it: figures on a set named here are figures on what was learnt.
The default threshold was set on generated pairs alone. Figures under *Evaluation* were looked at while the generator
was developed.
"""

PHOTOGRAPHS = """
The photographs are those of the scikit-image package; author and licence are quoted from its documentation, and two
show a person (`astronaut`, `camera`). It states no licence of `moon`. `rocket` was released in public by SpaceX's
owner, while the page it came from said CC BY-NC 2.0 in 2020 (scikit-image issue 5095).
"""

TRAINING = """
## Training

Loss: cross-entropy per cell, Dice per image, and the peaks that decide the verdict. Optimiser: AdamW, linear warm-up,
cosine decay; what ships is the exponential average of the weights.
"""

VALIDATION = """
Validation on {pairs} generated pairs whose seeds training never reaches, at 0.5: {figures}. These pairs are meant to be
hard, faint and tiny defects included; no product line looks like them.
"""

OPERATING_POINT = """
## Default threshold

{threshold}, read off {pairs} generated pairs and off nothing else. There, with boxes matched at IoU > 0.33: {figures}.
A product's own threshold comes from calibration with its good parts.
"""

EVALUATION = """
## Evaluation

`differad-edge evaluate`, one-shot (one reference a pair), at the default threshold, with 95 % bootstrap intervals.
F1, Acc@0.3 and true-normal rate follow the one-box protocol (a find counts at IoU ≥ 0.3); box figures count every box,
without classes, at IoU > 0.33.
"""

MARGIN = """
These sets' annotators drew their boxes outside the defect. Predicted boxes are grown by as much before matching, in the
report only: {margins}.
"""

NOT_MEASURED = """
## Not measured

- Any set or product that the table above does not name.
- How long a registration stays good: lamps age, lenses gather dust, fixtures wear.
- Other precisions and execution providers: the figures are of fp32 on the CPU.
- Agreement with human inspectors, and the cost of a miss or a false alarm on a real line.
"""

COMMANDS = """
## How it was made

```console
pip install -e '.[train]'
{commands}
```

Pair number i follows from the seed and i alone, so another machine generates the same pairs where its OpenCV and NumPy
draw alike; weights agree up to rounding.
"""
