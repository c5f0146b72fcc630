"""A step whose effect, written by SQLAlchemy, is committed with its checkpoint."""

import sqlite3
import sys
from typing import Any

import trio
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from runtara_trio import open_runtara


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    cents: Mapped[int]


class Lent:
    """A connection whose transaction is somebody else's: it does not end it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def book(connection: sqlite3.Connection, account: str, cents: int) -> int:
    lent = Lent(connection)
    engine = create_engine("sqlite://", creator=lambda: lent, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Booking(account=account, cents=cents))
        session.flush()
        total = session.scalar(select(func.sum(Booking.cents)).where(Booking.account == account))
        session.commit()  # of SQLAlchemy's own: sdk.transact commits
    return int(total or 0)


async def main(url: str) -> None:
    async with open_runtara(url, instance_id="order-7", tenant_id="shop") as sdk:
        print(await sdk.transact(book, "anna", 1999))
        print(await sdk.transact(book, "anna", 500))


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "sqlite:///shop.db")
