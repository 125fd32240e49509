"""docs/faults.md says what the tests are."""

from tests.faults import sabotage, table
from tests.faults.rows import ROWS


def test_the_page_is_made_from_the_tests_as_they_are():
    assert table.PAGE.read_text() == table.page(), "python -m benchmarks.publish --write"


def test_every_row_has_a_test():
    proven = {number for proof in table.proofs() for number in proof.rows}
    assert proven == set(ROWS)


def test_every_test_has_a_way_to_fail():
    assert {proof.broken for proof in table.proofs()} == set(sabotage.BREAKS)
