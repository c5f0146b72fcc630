"""What a message is."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

import msgspec

ReplyT = TypeVar("ReplyT")


class Request(msgspec.Struct, Generic[ReplyT], frozen=True, kw_only=True):
    """A message whose answer is a ``ReplyT``."""

    verb: ClassVar[str]
    """What the SDK or the command line calls it."""
    writes: ClassVar[bool] = True
    """Whether answering it changes the store."""
    makes: ClassVar[bool] = False
    """Whether it makes the tables of a store that has none."""
    takes: ClassVar[bool] = False
    """Whether it takes leases: the one who asks must be an owner."""
    listens: ClassVar[bool] = False
    """Whether the one who asks wants to hear of changes to runs from then on."""
    saves: ClassVar[bool] = False
    """Whether its answer is what a replay will find: a task that is cancelled meanwhile waits for
    it for a moment (``tasks.GRACE``)."""

    durable: ClassVar[bool] = True
    """Whether what it writes must be on the disk before it is answered."""

    @property
    def asked(self) -> str:
        """What was asked, as an error names it."""
        return self.verb

    @property
    def counts_twice(self) -> bool:
        """Whether a second sending is told from the first by nothing."""
        return False


class Action(Request[ReplyT], frozen=True, kw_only=True):
    """What people do to instances, and programs."""

    who: str | None = None
    """Who asks for it: then it leaves a row in the audit. None: a program."""


class Done(msgspec.Struct, frozen=True):
    """The answer to a message that only has to be carried out."""
