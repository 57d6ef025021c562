"""When a process of ours looks for garbage."""

from __future__ import annotations

import gc
from contextlib import suppress

from datapruner.system import garbage


def test_none_is_looked_for_in_the_block_and_never_again_among_what_it_leaves() -> None:
    before = gc.get_freeze_count()
    with suppress(KeyError), garbage.put_off():
        assert not gc.isenabled()
        made = [[at] for at in range(1000)]
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= 1000
    assert not any(each is made for each in gc.get_objects())
