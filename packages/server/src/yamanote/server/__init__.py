"""Keep a service running: a task per connection, and an end in order.

`serve` listens, runs a handler for each connection, and shuts down with a deadline: it stops accepting, lets what runs
finish, and ends what does not. `listen` gives the connections one by one to whoever asks.
"""

from yamanote.server._connection import Connection as Connection
from yamanote.server._listen import Listener as Listener
from yamanote.server._listen import listen as listen
from yamanote.server._serve import Server as Server
from yamanote.server._serve import serve as serve

__all__ = ["Connection", "Listener", "Server", "listen", "serve"]
