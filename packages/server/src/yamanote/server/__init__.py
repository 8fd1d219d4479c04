"""Keep a service running: a task per connection, children that are started again when they die, and an end in order.

`serve` listens, runs a handler for each connection, and shuts down with a deadline: it stops accepting, lets what runs
finish, and ends what does not. `listen` gives the connections one by one to whoever asks.

`Shutdown` ends a whole program: its subsystems stop one after the other, in the reverse order of their start. A
`Supervisor` runs tasks and restarts those that fail. `Health` knows which parts of the program work, and `probes` tells
it over HTTP.

`start_server` runs workers, each in a process or a thread of its own, and restarts those that die. `server` and `main`
make what it runs. `afork` calls a function in a process of its own, and is told how that ends.
"""

from yamanote.server._afork import afork as afork
from yamanote.server._child import Child as Child
from yamanote.server._child import ChildStartError as ChildStartError
from yamanote.server._connection import Connection as Connection
from yamanote.server._health import Health as Health
from yamanote.server._health import HealthPart as HealthPart
from yamanote.server._health_state import HealthState as HealthState
from yamanote.server._health_state import PartState as PartState
from yamanote.server._listen import Listener as Listener
from yamanote.server._listen import listen as listen
from yamanote.server._probes import probes as probes
from yamanote.server._runtime_collector import RuntimeCollector as RuntimeCollector
from yamanote.server._serve import Server as Server
from yamanote.server._serve import serve as serve
from yamanote.server._shutdown import Shutdown as Shutdown
from yamanote.server._start_server import start_server as start_server
from yamanote.server._subsystem import Subsystem as Subsystem
from yamanote.server._supervised_task import SupervisedTask as SupervisedTask
from yamanote.server._supervisor import Supervisor as Supervisor
from yamanote.server._supervisor import SupervisorError as SupervisorError
from yamanote.server._worker import WorkerError as WorkerError
from yamanote.server._worker_context import MainContext as MainContext
from yamanote.server._worker_context import WorkerContext as WorkerContext
from yamanote.server._worker_context import main as main
from yamanote.server._worker_context import server as server

__all__ = [
    "Child",
    "ChildStartError",
    "Connection",
    "Health",
    "HealthPart",
    "HealthState",
    "Listener",
    "MainContext",
    "PartState",
    "RuntimeCollector",
    "Server",
    "Shutdown",
    "Subsystem",
    "SupervisedTask",
    "Supervisor",
    "SupervisorError",
    "WorkerContext",
    "WorkerError",
    "afork",
    "listen",
    "main",
    "probes",
    "serve",
    "server",
    "start_server",
]
