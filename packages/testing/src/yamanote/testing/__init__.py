"""Test asyncio programs: drive them by hand, watch what they leave behind, find the schedules that break them."""

from yamanote.testing._cancellation import CancellationExploration as CancellationExploration
from yamanote.testing._cancellation import explore_cancellations as explore_cancellations
from yamanote.testing._duplex import duplex as duplex
from yamanote.testing._explore import Exploration as Exploration
from yamanote.testing._explore import explore as explore
from yamanote.testing._explore import replay as replay
from yamanote.testing._judge import Counterexample as Counterexample
from yamanote.testing._judge import NotRepeatable as NotRepeatable
from yamanote.testing._leaks import Leak as Leak
from yamanote.testing._leaks import LeakError as LeakError
from yamanote.testing._leaks import no_leaks as no_leaks
from yamanote.testing._linearizability import Call as Call
from yamanote.testing._linearizability import History as History
from yamanote.testing._linearizability import NotLinearizable as NotLinearizable
from yamanote.testing._preemption import PreemptionExploration as PreemptionExploration
from yamanote.testing._preemption import explore_preemptions as explore_preemptions
from yamanote.testing._scripted import Script as Script
from yamanote.testing._scripted import ScriptedSink as ScriptedSink
from yamanote.testing._scripted import ScriptedSource as ScriptedSource
from yamanote.testing._scripted import Waitable as Waitable
from yamanote.testing._sequencer import BrokenSequencer as BrokenSequencer
from yamanote.testing._sequencer import Sequencer as Sequencer
from yamanote.testing._step import Step as Step
from yamanote.testing._step import step as step
from yamanote.testing._strategy import PCT as PCT
from yamanote.testing._strategy import Choice as Choice
from yamanote.testing._strategy import Exhaustive as Exhaustive
from yamanote.testing._strategy import Fifo as Fifo
from yamanote.testing._strategy import RandomOrder as RandomOrder
from yamanote.testing._strategy import Schedule as Schedule
from yamanote.testing._strategy import Strategy as Strategy
from yamanote.testing._trial import LeftBehind as LeftBehind
from yamanote.testing._trial import Unhandled as Unhandled

__all__ = [
    "BrokenSequencer",
    "Call",
    "CancellationExploration",
    "Choice",
    "Counterexample",
    "Exhaustive",
    "Exploration",
    "Fifo",
    "History",
    "Leak",
    "LeakError",
    "LeftBehind",
    "NotLinearizable",
    "NotRepeatable",
    "PCT",
    "PreemptionExploration",
    "RandomOrder",
    "Schedule",
    "Script",
    "ScriptedSink",
    "ScriptedSource",
    "Sequencer",
    "Step",
    "Strategy",
    "Unhandled",
    "Waitable",
    "duplex",
    "explore",
    "explore_cancellations",
    "explore_preemptions",
    "no_leaks",
    "replay",
    "step",
]
