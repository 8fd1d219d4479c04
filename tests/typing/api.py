"""The spellings that users have, as type checkers see them. Checked by `nox -s types`, never run."""

from typing import assert_type

import yamanote
from yamanote import channels, futures, runtime, server, sinks, streams, sync, threads, time

assert_type(yamanote.channels.__name__, str)
assert_type([area.__name__ for area in (channels, futures, runtime, server, sinks)], list[str])
assert_type([area.__name__ for area in (streams, sync, threads, time)], list[str])

_ = yamanote.chanel  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
