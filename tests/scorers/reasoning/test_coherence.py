"""What a step announces and refers to, in the words that models use, and what is left hanging without it."""

from __future__ import annotations

import numpy as np
import pytest

from scorers.reasoning.coherence import hanging, needs, references


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        # by number: the last step before that begins so
        (["Step 1: add.", "Step 2: halve.", "Then, as in step 1, add."], {0}),
        (["**Step 2** is to add.", "### Step 2. Again.", "By Step 2 it holds."], {1}),
        (["1. Add.", "2. Halve.", "The sum of steps 2 is 4."], {1}),
        (["Case 1: even.", "Case 2: odd.", "In cases 1 it is even, in case 2 odd."], {0, 1}),
        (["x = 1 \\tag{3}", "y = 2", "By equation (3) it is 1."], {0}),
        (["x = 1  (3)", "y = 2", "By Eq. 3 it is 1."], {0}),
        (["We do step 4.", "so", "As in step 4."], set()),  # no step begins with it
        (["Step 1: a", "b", "Step 1: as in step 1"], set()),  # its own number
        # by place: the nearest with the word, or the block, or the step before
        (["An approximation is 3.", "So it is.", "The approximation above is good."], {0}),
        (["The results are 3.", "So it is.", "From the previous result, 3."], {0}),
        (["\\[ x = 1 \\]", "So it is.", "With the above equation, 1."], {0}),
        (["def f():\n    return 1", "So it is.", "The function above returns 1."], {0}),
        (["|a|b|\n|--|--|", "So it is.", "The table above has b."], {0}),
        (["One.", "Two.", "As above, three."], {1}),
        (["One.", "Two.", "From the above, three."], {1}),
        (["One.", "Two.", "The lemma above says three."], {1}),
        # no reference
        (["One.", "Two.", "The previous year was above zero."], set()),
        (["One.", "Two.", "It rises above the line, x above 5."], set()),
    ],
)
def test_a_step_refers_to_what_its_words_mean(steps: list[str], last: set[int]) -> None:
    assert references(steps)[-1] == last


def test_the_first_step_refers_to_nothing() -> None:
    assert references(["As above, in step 1."]) == [set()]


def test_a_step_needs_what_it_announces_and_what_it_refers_to() -> None:
    steps = ["Step 1: a", "So **here**:", "b", "By step 1, we have:"]
    assert needs(steps) == {1: {2}, 3: {0}}


def test_steps_hang_where_what_they_need_is_gone() -> None:
    steps = ["Step 1: a", "So:", "b", "By step 1, c.", "By step 1 and the result above:", "d"]
    assert hanging(steps, np.array([True] * 6)) == {}
    assert hanging(steps, np.array([False, True, False, True, False, False])) == {
        1: (True, set()),
        3: (False, {0}),
    }
    assert hanging(steps, np.array([False, False, False, False, True, False])) == {4: (True, {0, 3})}
    assert hanging(steps, np.array([False] * 6)) == {}
