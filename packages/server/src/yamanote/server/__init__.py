"""Keep a service running: a task per connection, and an end in order.

`serve` listens, runs a handler for each connection, and shuts down with a deadline: it stops accepting, lets what runs
finish, and ends what does not.
"""

from yamanote.server._serve import Server as Server
from yamanote.server._serve import serve as serve

__all__ = ["Server", "serve"]
