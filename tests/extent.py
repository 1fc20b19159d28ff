"""How much is asked: with ``GETA_WHOLE=1`` (``make test-whole``) all laws of all nets and all combinations, else some of each."""

from __future__ import annotations

import os

WHOLE = os.environ.get("GETA_WHOLE") == "1"
