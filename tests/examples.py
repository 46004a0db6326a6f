"""How many examples Hypothesis makes: few in each run, for each run makes others."""

import os

_TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> int:
    """Return `count`, times the variable EXAMPLES where that is set."""
    return count * _TIMES
