"""Programs: ``python -m tools.NAME``."""

import utils  # noqa: F401 - first, because it configures OpenMP before torch is imported
