"""A headless Chromium: in CI it must be there, elsewhere its tests are skipped without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium

BINARIES = ("chromium", "chromedriver")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests; each opens its page anew."""
    paths = {name: shutil.which(name) for name in BINARIES}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        reason = f"{' and '.join(missing)} missing: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Chromium(
        binary=Path(str(paths["chromium"])),
        driver=Path(str(paths["chromedriver"])),
        profile=tmp_path_factory.mktemp("chromium"),
    ) as browser:
        yield browser
