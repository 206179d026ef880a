"""What each verb does about its operations that somebody began and did not end: the table by which they are found.

Who does a verb registers it here; who looks after what was interrupted needs not know who that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # this is loaded before what brings a lazy restore's memory is started
    from ocickpt.model import Progress, Published
    from ocickpt.operations.journal import Journal, Record
    from ocickpt.store import Access

R = TypeVar("R", bound="Record")


class Verb(Generic[R]):
    """One verb. What is not overridden does not come up with it."""

    def goes_on(self, record: R) -> bool:  # noqa: ARG002 - what others ask
        """Whether all is well although who began it has ended."""
        return False

    def settle(self, orphan: Journal[R], mine: Callable[[Record], bool], progress: Progress) -> Sequence[Record]:
        """Put right what a dead process left; the records of those that are `mine` and had come to their end.

        Of one that had but is not `mine` the journal is left, for whoever runs that command again to be told.
        """
        raise NotImplementedError

    def tidy(self) -> None:
        """What is left to be done once all of this verb that were found are settled, or could not be."""

    def waits(self, record: R) -> bool:  # noqa: ARG002
        """Whether it is a checkpoint that is whole, and not published."""
        return False

    def called(self, record: R) -> str:  # noqa: ARG002
        """What a waiting checkpoint is called besides its container; nothing when it is not."""
        return ""

    def made_at(self, record: R) -> int:  # noqa: ARG002
        """When a waiting checkpoint was made, in nanoseconds since the epoch."""
        return 0

    def publish(self, waiting: Journal[R], reference: str, access: Access, progress: Progress) -> Published:
        """Publish a waiting checkpoint; when that fails it goes on waiting."""
        raise NotImplementedError

    def give_up(self, dead: Journal[R], progress: Progress) -> int:
        """End what a dead process left, and what it keeps, the container as it is; bytes freed besides its directory.

        UsageError where that is not how to end it.
        """
        raise NotImplementedError

    def remedy(self, record: R) -> str:
        """What a user does to end what a dead process left at a step where nothing waits."""
        raise NotImplementedError


_REGISTERED: dict[str, Callable[[], Verb[Any]]] = {}
_FIRST: list[Callable[[Progress], None]] = []


def register(name: str, load: Callable[[], Verb[Any]]) -> None:
    """Have operations of the verb `name` looked after by what `load` gives, which is called when there is one."""
    _REGISTERED[name] = load


def register_first(look: Callable[[Progress], None]) -> None:
    """Have `look` called before anything is put right: for what no journal tells of."""
    if look not in _FIRST:
        _FIRST.append(look)


def of(record: Record) -> Verb[Any]:
    """The verb of that record."""
    return _REGISTERED[record.verb]()


def look_first(progress: Progress) -> None:
    """Put right what no journal tells of."""
    for look in _FIRST:
        look(progress)
