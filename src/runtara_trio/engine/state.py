"""What is known of one block's instance; the parts of a block share it."""

from __future__ import annotations

from .. import logs
from ..codec import Codec, Kind, Place, reveal, seal
from ..errors import SdkError
from ..tasks import runs_on_trio
from ..types import InstanceStatus, Outcome
from .signals import Cause, SignalScope


class State:
    """Whose instance it is, and where its run stands."""

    __slots__ = (
        "began_at",
        "codec",
        "ended",
        "has_children",
        "instance_id",
        "lease",
        "lost",
        "manual",
        "parent_id",
        "pause_acknowledged",
        "recording",
        "registered",
        "said",
        "saying",
        "signals",
        "stopped",
        "stopped_by",
        "tenant_id",
        "tried",
        "workflow",
    )

    def __init__(
        self,
        instance_id: str,
        tenant_id: str,
        signals: SignalScope,
        *,
        manual: bool,
        codec: Codec,
    ) -> None:
        self.instance_id = instance_id
        self.tenant_id = tenant_id
        self.signals = signals
        self.codec = codec
        """What seals the texts that are told of it."""
        self.manual = manual
        self.registered = False
        self.lease = 0
        self.lost = False
        """Another owner has the lease, and no outcome was recorded before."""
        self.saying: InstanceStatus | None = None
        """What the body is recording itself."""
        self.said: Outcome | None = None
        """What it has recorded itself."""
        self.recording = False
        """Its outcome is on its way: the lease goes with it, and the answer tells the rest."""
        self.tried: tuple[InstanceStatus, ...] = ()
        """Outcomes that were sent, and may have arrived."""
        self.pause_acknowledged = False
        """The program has acknowledged a pause itself."""
        self.stopped: str | None = None
        """Why this process wants to end, if it does."""
        self.stopped_by: BaseException | None = None
        """What says so, where it is an error."""
        self.ended = False
        """The body has ended."""
        self.parent_id: str | None = None
        self.has_children = False
        """It may have children that have not ended."""
        self.workflow = ""
        """The name of the workflow that it is a run of; empty: it is none of a worker's."""
        self.began_at = 0.0
        """When it was registered, by Trio's clock."""

    def seal(self, kind: Kind, id: str, text: str) -> str:
        """A text as it is stored: a codec that encrypts makes it unreadable."""
        return seal(self.codec, Place(self.instance_id, kind, id), text)

    def revealed(self, kind: Kind, data: bytes | None) -> bytes | None:
        """Stored bytes as people read them."""
        return None if data is None else reveal(self.codec, Place(self.instance_id, kind), data)

    def check_open(self) -> None:
        """Raises SdkError after the block's end, and in code that does not run on Trio."""
        if not runs_on_trio():
            raise SdkError(
                f"the SDK of instance {self.instance_id!r} is called from code that does not run "
                "on Trio; return to the Trio function around it, and call it there"
            )
        if self.ended:
            raise SdkError(
                f"the block of instance {self.instance_id!r} has ended; a task that outlived it "
                "cannot use its SDK"
            )

    @property
    def is_writable(self) -> bool:
        """Registered, and nothing said of its end."""
        return self.registered and not self.ended and self.said is None and self.saying is None

    def check_writable(self) -> None:
        """Raises SdkError where nothing may be written."""
        self.check_open()
        if not self.registered:
            raise SdkError(
                f"instance {self.instance_id!r} is not registered: "
                "call sdk.register(), or open the block with register=True"
            )
        if not self.is_writable:
            raise SdkError(
                f"instance {self.instance_id!r} has ended "
                f"({self.said or self.saying}): nothing more can be written"
            )

    def lease_for_write(self) -> int:
        """The lease, for a message that writes. Raises SdkError where nothing may be written."""
        self.check_writable()
        return self.lease

    def lose(self, lease: int) -> None:
        """Another owner has a lease; unless it went with what the body said itself."""
        perhaps_said = self.saying is not None or self.recording or self.tried
        if lease == self.lease and self.said is None and not perhaps_said:
            self.mark_lost()

    def mark_lost(self) -> None:
        """Another owner has the instance: the body ends."""
        if not self.lost:
            self.lost = True
            self.signals.end(Cause.LOST)
            logs.lease_lost(instance_id=self.instance_id, lease=self.lease)
