"""Reasons of rows, and what they have in common where each says something of its row alone."""

from __future__ import annotations

COPY = r"^exact duplicate of row \d+$"
NEAR = r"^duplicate of row (?P<row>\d+) at Jaccard (?P<jaccard>[\d.]+)$"
DEFECT = r"(?s)^(defect: [^:]+): .*$"
CONTAMINATED = r"(?s)^(holds text of .*?) row \d+: \".*$"
DEFECTIVE, FILTERED, CALIBRATED = "defect: ", "left out by the filter: ", "calibration: "
"""What reasons begin with of rows that the gate, the filter and the calibration took away."""

TAKEN = r"^(.*: taken) at turn \d+ by (?:row \d+ of )?(.*)$"

OF_SINGLE_ROWS = (
    (COPY, "exact duplicate"),
    (NEAR, "near duplicate"),
    (CONTAMINATED, "${1}"),
    (TAKEN, "${1} in a turn of ${2}"),
    (DEFECT, "${1}"),
)
"""Of these reasons, the part that they share: a pattern for the whole of one, and what stands for it."""
