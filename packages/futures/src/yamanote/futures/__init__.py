"""Several things at once: the first (`select`, `race`), all (`join`, `try_join`, `gather`), one by one (`task_set`).

What these calls start is theirs: it has ended when they return, whatever happens. Futures, tasks and join handles that
are passed in belong to whoever made them.
"""

from yamanote.futures._completion import CompletionQueue as CompletionQueue
from yamanote.futures._gather import gather as gather
from yamanote.futures._gather import join as join
from yamanote.futures._gather import try_join as try_join
from yamanote.futures._race import race as race
from yamanote.futures._select import failed_branch as failed_branch
from yamanote.futures._select import select as select
from yamanote.futures._task_set import TaskSet as TaskSet
from yamanote.futures._task_set import task_set as task_set

__all__ = [
    "CompletionQueue",
    "TaskSet",
    "failed_branch",
    "gather",
    "join",
    "race",
    "select",
    "task_set",
    "try_join",
]
