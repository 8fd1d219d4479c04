"""Several things at once: the first (`select`, `race`), all (`join`, `try_join`, `gather`), one by one (`task_set`).

What these calls start is theirs: it has ended when they return, whatever happens. Futures, tasks and join handles that
are passed in belong to whoever made them.
"""

from yamanote.futures._amass import amass as amass
from yamanote.futures._as_completed import Completions as Completions
from yamanote.futures._as_completed import as_completed_safe as as_completed_safe
from yamanote.futures._blocking_select import blocking_select as blocking_select
from yamanote.futures._completion import CompletionQueue as CompletionQueue
from yamanote.futures._failed_branch import failed_branch as failed_branch
from yamanote.futures._gather import gather as gather
from yamanote.futures._gather import gather_safe as gather_safe
from yamanote.futures._gather import join as join
from yamanote.futures._gather import try_join as try_join
from yamanote.futures._lazy import lazy as lazy
from yamanote.futures._race import race as race
from yamanote.futures._race import race_ok as race_ok
from yamanote.futures._ready import pending as pending
from yamanote.futures._ready import ready as ready
from yamanote.futures._select import select as select
from yamanote.futures._shared import Shared as Shared
from yamanote.futures._shared import shared as shared
from yamanote.futures._single_flight import SingleFlight as SingleFlight
from yamanote.futures._single_flight import single_flight as single_flight
from yamanote.futures._task_set import TaskSet as TaskSet
from yamanote.futures._task_set import task_set as task_set

__all__ = [
    "CompletionQueue",
    "Completions",
    "Shared",
    "SingleFlight",
    "TaskSet",
    "amass",
    "as_completed_safe",
    "blocking_select",
    "failed_branch",
    "gather",
    "gather_safe",
    "join",
    "lazy",
    "pending",
    "race",
    "race_ok",
    "ready",
    "select",
    "shared",
    "single_flight",
    "task_set",
    "try_join",
]
