"""Class names that torchvision lacks, or spells unlike anybody would in a sentence."""

from __future__ import annotations

import re

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAFFIC_SIGNS = (
    "speed limit 20 km/h",
    "speed limit 30 km/h",
    "speed limit 50 km/h",
    "speed limit 60 km/h",
    "speed limit 70 km/h",
    "speed limit 80 km/h",
    "end of speed limit 80 km/h",
    "speed limit 100 km/h",
    "speed limit 120 km/h",
    "no overtaking",
    "no overtaking for trucks",
    "right of way at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general caution",
    "dangerous curve to the left",
    "dangerous curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic lights",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals crossing",
    "end of all speed and overtaking limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking for trucks",
)
"""The 43 signs of GTSRB, by class number."""


def words(name: str) -> str:
    """EuroSAT's names: "AnnualCrop" is "Annual Crop"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def scene(name: str) -> str:
    """SUN397's names: "church/outdoor" is "outdoor church"."""
    return " ".join(reversed(name.split("/")))
