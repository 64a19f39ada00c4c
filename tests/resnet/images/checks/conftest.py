"""A JPEG of several scans that the tests of this folder share."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def progressive(photograph: Callable[..., np.ndarray], encode: Callable[..., bytes]) -> bytes:
    """120 x 90 pixels in ten scans."""
    return encode(photograph(0, 90, 120), progressive=True)
