"""How much a server holds for its clients."""

from __future__ import annotations


class Memory:
    """Bytes that are held for clients, of all and of one."""

    def __init__(self, limit: int, whole: Memory | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._whole = whole

    def take(self, size: int) -> bool:
        """Hold more, or fewer where ``size`` is negative. Whether that is within the limits."""
        self.used += size
        whole = self._whole is None or self._whole.take(size)
        return self.used <= self.limit and whole
