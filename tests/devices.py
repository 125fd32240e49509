"""On how many simulated devices a sharded test runs; what lies between 2 and 8 with `-m slow`."""

import pytest

SEVERAL = (2, pytest.param(4, marks=pytest.mark.slow), 8)
COUNTS = (1, *SEVERAL)
