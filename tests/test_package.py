"""What the package shows of itself."""

import dbqueue


def test_the_package_lists_its_names() -> None:
    assert set(dbqueue.__all__) <= set(dir(dbqueue))
