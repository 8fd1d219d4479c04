"""Who waits for whom, for ``python -m asyncio pstree`` and `asyncio.print_call_graph`: from Python 3.14 on.

Awaiting a future directly is reported by asyncio itself; these two functions are for waits that it does not see. They
are None where Python keeps no such records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["add_awaiter", "discard_awaiter"]

_Report = Callable[[Any, Any], object] | None

add_awaiter: _Report = getattr(asyncio, "future_add_to_awaited_by", None)
discard_awaiter: _Report = getattr(asyncio, "future_discard_from_awaited_by", None)
