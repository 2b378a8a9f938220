"""What a grounding model is asked; the texts have one version together. The grammar of the answer: grounding."""

from __future__ import annotations

PROMPT_VERSION = "1"
"""Names the texts below, all together: a model is asked with the version that it was trained with."""

BOX_RULE = "(x1,y1),(x2,y2) with integers from 0 to 1000"
EVALUATION_PROMPT = (
    "The first image is a good reference, the second is the target. Compare them, describe the target and explain "
    f"where it differs inside <think></think>. Then give the box of the difference as {BOX_RULE} inside "
    "<answer></answer>, or (0,0),(0,0) if nothing differs."
)
BASELINE_PROMPT = (
    "You are an industrial visual inspector. You are given two images of the same product. The first is the reference "
    "and shows a good part. The second is the target and may have one defect. Small changes of light, position and "
    "noise are no defects. First reason about what differs, inside <think> and </think>. Then write the answer inside "
    "<answer> and </answer>, and nothing else: the box around the defect in the target as (x1,y1),(x2,y2), where x "
    "runs from 0 at the left edge to 1000 at the right edge, y from 0 at the top to 1000 at the bottom, (x1,y1) is the "
    "upper left and (x2,y2) the lower right corner, all integers. If there is no defect, answer (0,0),(0,0). Example: "
    "<think>The pin at the lower left is bent.</think><answer>(105,640),(198,790)</answer>"
)
STUDENT_PROMPT = (
    "The first image is a good part, the second is the part to inspect. Answer OK or NG, for NG with the box of the "
    f"difference in the second image as {BOX_RULE}, inside <answer></answer>, then describe it inside <think></think>."
)
"""Of the student, which answers first. It stands before the images: what the camera has yet to see comes last."""
TRAINING_PROMPTS = tuple(
    f"{opening} {thinking} {answering}"
    for opening, thinking, answering in (
        (
            "Here are a good reference and then a target.",
            "Say inside <think></think> how the target differs.",
            f"Put its box as {BOX_RULE} inside <answer></answer>; (0,0),(0,0) means no difference.",
        ),
        (
            "Image one is the golden sample, image two is the part under test.",
            "Reason inside <think></think> about every change.",
            f"Answer inside <answer></answer> with {BOX_RULE}, or (0,0),(0,0) for a good part.",
        ),
        (
            "Inspect the second image against the first, which is normal.",
            "Explain what you see inside <think></think>.",
            f"Locate the anomaly inside <answer></answer> as {BOX_RULE}; use (0,0),(0,0) when there is none.",
        ),
        (
            "A normal reference comes first, the image to check second.",
            "Think aloud inside <think></think> about where they disagree.",
            f"Report one box inside <answer></answer>, {BOX_RULE}, and (0,0),(0,0) if they agree.",
        ),
        (
            "Find the defect of the second image; the first shows the same product without one.",
            "Describe it inside <think></think>.",
            f"Write its corners inside <answer></answer> as {BOX_RULE}. Without a defect write (0,0),(0,0).",
        ),
        (
            "Compare reference (first) and target (second).",
            "Put your reasoning between <think> and </think>.",
            f"Put the differing region between <answer> and </answer> as {BOX_RULE}; no difference is (0,0),(0,0).",
        ),
        (
            "You see a reference image, then a target image of the same product.",
            "Inside <think></think>, describe the target and what is wrong with it.",
            f"Inside <answer></answer>, box it as {BOX_RULE}, or give (0,0),(0,0) if all is well.",
        ),
        (
            "Look for what changed between the first image and the second.",
            "Note your observations inside <think></think>.",
            f"Then box the change inside <answer></answer>: {BOX_RULE}, or (0,0),(0,0) if nothing changed.",
        ),
        (
            "The second photograph may show a flaw that the first one does not have.",
            "Discuss it inside <think></think>.",
            f"Mark it inside <answer></answer> by {BOX_RULE}; (0,0),(0,0) says there is no flaw.",
        ),
        (
            "Check the target, which is the second image, against the reference, which is the first.",
            "Give your analysis inside <think></think>.",
            f"Give the anomalous box inside <answer></answer> as {BOX_RULE}, (0,0),(0,0) for none.",
        ),
        (
            "Two views of one product: the first is known to be good.",
            "Explain inside <think></think> how the second one deviates.",
            f"State where inside <answer></answer>, {BOX_RULE}; if it does not deviate, (0,0),(0,0).",
        ),
        (
            "Act as a quality inspector with a reference first and a part second.",
            "Write your judgement inside <think></think>.",
            f"Write the faulty area inside <answer></answer> as {BOX_RULE}. A part without fault is (0,0),(0,0).",
        ),
        (
            "Using the first image as the standard, examine the second.",
            "List the deviations inside <think></think>.",
            f"Enclose the largest one inside <answer></answer>: {BOX_RULE}, or (0,0),(0,0) if you find none.",
        ),
        (
            "Decide whether the second image matches the first, normal one.",
            "Justify it inside <think></think>.",
            f"Where it does not, box the place inside <answer></answer> as {BOX_RULE}; where it does, (0,0),(0,0).",
        ),
        (
            "Here is how the product should look, and here is how this part looks.",
            "Compare both inside <think></think>.",
            f"Point at the difference inside <answer></answer> with {BOX_RULE}, or (0,0),(0,0) for no difference.",
        ),
        (
            "Given a defect-free reference and a target in this order, ground the difference.",
            "Your reasoning goes inside <think></think>.",
            f"Your box goes inside <answer></answer>, {BOX_RULE}; identical images get (0,0),(0,0).",
        ),
        (
            "Study the reference, then the target.",
            "Tell inside <think></think> what is extra, missing or altered in the target.",
            f"Tell where inside <answer></answer>: {BOX_RULE}, and (0,0),(0,0) if nothing is.",
        ),
        (
            "Is the second image still like the first?",
            "Examine it inside <think></think> and explain any difference.",
            f"Localise that difference inside <answer></answer> as {BOX_RULE}, or answer (0,0),(0,0).",
        ),
        (
            "The camera saw the second image; the first is the registered sample.",
            "Inside <think></think>, explain which region is not as registered.",
            f"Inside <answer></answer>, give that region as {BOX_RULE}; give (0,0),(0,0) if every region is.",
        ),
        (
            "Spot the anomaly in the latter image with the former as the normal example.",
            "Reason step by step inside <think></think>.",
            f"Finish with its box inside <answer></answer>, {BOX_RULE}, or with (0,0),(0,0) if it is normal.",
        ),
    )
)
