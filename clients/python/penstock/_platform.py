"""Where Penstock runs."""

from __future__ import annotations

import sys

from .errors import PlatformError


def require_linux() -> None:
    """Raise PlatformError anywhere but on Linux."""
    if not sys.platform.startswith("linux"):
        raise PlatformError(
            f"Penstock's daemon runs on Linux only, this is {sys.platform}; "
            "use torch.utils.data.DataLoader here"
        )
