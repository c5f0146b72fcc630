"""What goes wrong between the store and a PostgreSQL server. Real servers, a real network."""

from __future__ import annotations

import signal
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtara_trio import (
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    SdkConfig,
    StoreError,
    open_backend,
    open_runtara,
)
from runtara_trio.messages import Checkpoint, GetStatus, ReadCheckpoints, RecordOutcome, Register
from runtara_trio.quic.transport.tls import make_identity
from runtara_trio.store.postgres import limits
from runtara_trio.store.postgres.connection import Connection

from ...helpers.places import free_port, postgres_place
from ...helpers.statements import watch
from ...helpers.support import block, sql, start
from .test_store import admin, cut, lose_commit, with_option


@pytest.fixture
async def url(postgres_server: str) -> AsyncIterator[str]:
    """A store's URL, in a schema of its own."""
    async with postgres_place(postgres_server) as place:
        yield place.url


SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a client sends first; the server answers S, and TLS begins."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection has little time for an answer."""
    monkeypatch.setattr(limits, "ANSWER", 0.3)


class Proxy:
    """A network between the store and its server: TCP to the server's own socket."""

    def __init__(self, url: str, nursery: trio.Nursery, tls: ssl.SSLContext | None = None) -> None:
        self._target = url
        self._tls = tls
        self._nursery = nursery
        self._silent = trio.Event()
        self.port = 0

    async def open(self) -> str:
        listeners = await self._nursery.start(trio.serve_tcp, self._serve, 0)
        self.port = listeners[0].socket.getsockname()[1]
        parts = urlsplit(self._target)
        query = "&".join(part for part in parts.query.split("&") if not part.startswith("host="))
        return f"postgresql://postgres@127.0.0.1:{self.port}{parts.path}?{query}"

    def silence(self) -> None:
        """What is open carries nothing any more, and nobody is told."""
        self._silent.set()
        self._silent = trio.Event()

    async def _serve(self, near: Any) -> None:
        parts = urlsplit(self._target)
        folder = parse_qs(parts.query).get("host")
        if folder:
            far: Any = await trio.open_unix_socket(f"{folder[0]}/.s.PGSQL.5432")
        else:
            far = await trio.open_tcp_stream(parts.hostname or "", parts.port or 5432)
        if self._tls is not None:
            while await near.receive_some(8) != SSL_REQUEST:
                await near.send_all(b"N")  # it asks for another encryption first
            await near.send_all(b"S")
            near = trio.SSLStream(near, self._tls, server_side=True)
        silent = self._silent
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far, silent, nursery.cancel_scope)
            nursery.start_soon(self._pump, far, near, silent, nursery.cancel_scope)

    @staticmethod
    async def _pump(here: Any, there: Any, silent: trio.Event, scope: trio.CancelScope) -> None:
        try:
            while data := await here.receive_some():
                if not silent.is_set():
                    await there.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if not silent.is_set():
            scope.cancel()
            await here.aclose()


class TestTls:
    """``sslmode=verify-full``, with a network that speaks TLS for the server."""

    def context(self, folder: Path, *names: str) -> ssl.SSLContext:
        """Of a certificate for these names, in a file of the folder."""
        identity = make_identity(*names)
        pem = folder / "server.pem"
        key = identity.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, encryption_algorithm=NoEncryption()
        )
        pem.write_bytes(identity.certificate.public_bytes(Encoding.PEM) + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    async def run(self, url: str, context: ssl.SSLContext | None, options: str) -> Outcome:
        async with trio.open_nursery() as nursery:
            proxied = await Proxy(url, nursery, context).open()
            async with open_runtara(proxied + options, instance_id="i", tenant_id="t") as sdk:
                await sdk.checkpoint("a")
            nursery.cancel_scope.cancel()
        assert sdk.outcome is not None
        return sdk.outcome

    async def test_a_certificate_that_is_right(self, url: str, tmp_path: Path) -> None:
        context = self.context(tmp_path, "127.0.0.1")
        options = f"&sslmode=verify-full&sslrootcert={tmp_path}/server.pem"
        assert await self.run(url, context, options) is Outcome.COMPLETED

    @pytest.mark.parametrize(
        ("name", "root", "text"),
        [
            ("shop.example", "server.pem", "give the host that the certificate names"),
            ("127.0.0.1", "another.pem", "give the CA in sslrootcert="),
            ("127.0.0.1", "none.pem", "give the CA's file in sslrootcert="),
        ],
    )
    async def test_one_that_is_not(
        self, url: str, tmp_path: Path, name: str, root: str, text: str
    ) -> None:
        self.context(tmp_path, "127.0.0.1")
        (tmp_path / "server.pem").rename(tmp_path / "another.pem")
        context = self.context(tmp_path, name)
        options = f"&sslmode=verify-full&sslrootcert={tmp_path}/{root}"
        with pytest.RaisesGroup(
            pytest.RaisesExc(StoreError, match=text), allow_unwrapped=True, flatten_subgroups=True
        ):
            await self.run(url, context, options)

    async def test_a_server_without(self, url: str, tmp_path: Path) -> None:
        """The tests' own server speaks no TLS."""
        with pytest.RaisesGroup(
            pytest.RaisesExc(StoreError, match="turn ssl on there"),
            allow_unwrapped=True,
            flatten_subgroups=True,
        ):
            await self.run(url, None, "&sslmode=require")


class TestASilentNetwork:
    async def test_what_waits_is_sent_on_another_connection(self, url: str, quick: None) -> None:
        async with trio.open_nursery() as nursery:
            proxy = Proxy(url, nursery)
            async with open_backend(await proxy.open()) as backend, block(backend) as sdk:
                await sdk.checkpoint("a")
                proxy.silence()
                async with trio.open_nursery() as calls:
                    for name in ("b", "c"):  # a batch
                        calls.start_soon(sdk.checkpoint, name)
                proxy.silence()
                await sdk.record_retry_attempt("c", 1, "why")
                assert (await sdk.get_status()).status is InstanceStatus.RUNNING
            assert sdk.outcome is Outcome.COMPLETED
            nursery.cancel_scope.cancel()
        async with open_backend(url) as backend:
            page = await Operator(backend).checkpoints("i")
        names = [one.checkpoint_id for one in page.checkpoints]
        assert [name for name in names if "::" not in name] == ["a", "b", "c"]

    async def test_the_first_host_does_not_answer(self, url: str) -> None:
        async with trio.open_nursery() as nursery:
            proxied = await Proxy(url, nursery).open()
            several = proxied.replace("127.0.0.1:", f"127.0.0.1:{free_port()},127.0.0.1:")
            async with open_runtara(several, instance_id="i", tenant_id="t") as sdk:
                await sdk.checkpoint("a")
            assert sdk.outcome is Outcome.COMPLETED
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "option",
    [
        "idle_session_timeout=200",
        r"default_transaction_isolation=repeatable\ read",
        "client_encoding=LATIN1",
        "synchronous_commit=off",
    ],
)
async def test_settings_for_other_programs_do_not_reach_it(url: str, option: str) -> None:
    async with open_backend(with_option(url, option)) as backend:

        async def run(number: int) -> None:
            async with block(backend, f"bestellung-ä-{number}") as sdk:
                await sdk.checkpoint("a")

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(run, number)
        async with block(backend, "later") as sdk:
            await trio.sleep(0.3)  # longer than a session may be idle
            await sdk.checkpoint("a")
            assert await sql(backend, "SHOW synchronous_commit") == [("on",)]
        instances = (await Operator(backend).list()).instances
    assert {one.status for one in instances} == {InstanceStatus.COMPLETED}
    assert len(instances) == 21


async def test_a_database_in_latin1(postgres_server: str) -> None:
    """Leases are found again by ids that it encodes in its own way."""
    admin(postgres_server, "DROP DATABASE IF EXISTS latin WITH (FORCE)")
    admin(
        postgres_server,
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    config = SdkConfig(store=postgres_server.replace("/postgres?", "/latin?"), lease_ms=300)
    async with open_backend(config) as backend, block(backend, "bestellung-ä") as sdk:
        await sdk.checkpoint("größe")
        seen: set[Any] = set()
        with trio.fail_after(20):
            while len(seen) < 3:
                seen.update(await sql(backend, "SELECT renewed_at FROM runtara_trio_owners"))
                await trio.sleep(0.01)
    assert sdk.outcome is Outcome.COMPLETED


async def test_an_owner_that_could_not_start_starts_later(url: str, postgres_server: str) -> None:
    admin(postgres_server, "DROP ROLE IF EXISTS single")
    admin(postgres_server, "CREATE ROLE single LOGIN CONNECTION LIMIT 1")
    try:
        async with open_runtara(url, instance_id="first", tenant_id="t"):
            pass
        schema = url.partition("search_path%3D")[2]
        admin(postgres_server, f"GRANT ALL ON SCHEMA {schema} TO single")
        for kind in ("TABLES", "SEQUENCES"):
            admin(postgres_server, f"GRANT ALL ON ALL {kind} IN SCHEMA {schema} TO single")
        config = SdkConfig(store=url.replace("postgres:@", "single@"), connect_timeout_ms=500)
        async with open_backend(config) as backend:
            message = Register(instance_id="i", tenant_id="t")
            with pytest.raises(StoreError, match="raise max_connections"):
                await backend.request(message)
            admin(postgres_server, "ALTER ROLE single CONNECTION LIMIT 20")
            with trio.fail_after(10):
                assert (await backend.request(message)).lease
    finally:
        admin(postgres_server, "DROP OWNED BY single")
        admin(postgres_server, "DROP ROLE single")


async def test_a_locked_instance_does_not_hold_up_the_others(url: str) -> None:
    async with open_backend(url) as backend:
        leases = {}
        for name in ("a", "b"):
            reply = await backend.request(Register(instance_id=name, tenant_id="t"))
            leases[name] = reply.lease
        saved = []

        async def save(name: str) -> None:
            await backend.request(
                Checkpoint(instance_id=name, lease=leases[name], checkpoint_id="x", state=b"")
            )
            saved.append(name)

        async with trio.open_nursery() as nursery:
            with psycopg.connect(url) as other:
                other.execute("SELECT 1 FROM instances WHERE instance_id = 'a' FOR UPDATE")
                nursery.start_soon(save, "a")
                with trio.fail_after(10):
                    await save("b")
                assert saved == ["b"]
        assert saved == ["b", "a"]


async def test_an_outcome_does_not_overtake_a_checkpoint(url: str) -> None:
    """Also one that nobody waits for any more: its write still happens."""
    async with open_backend(url) as backend:
        async with block(backend, "other") as other, block(backend) as sdk:
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(other.checkpoint, f"large/{number}", b"x" * 2**20)
                await trio.lowlevel.checkpoint()
                with trio.move_on_after(0.001):
                    await sdk.checkpoint("mine")
                await sdk.completed()
        page = await Operator(backend).checkpoints("i")
    assert [one.checkpoint_id for one in page.checkpoints] == ["mine"]


async def test_outcomes_that_wait_for_their_checkpoints_are_all_recorded(url: str) -> None:
    async with open_backend(url) as backend, block(backend, "other") as other:

        async def run(name: str) -> None:
            async with block(backend, name) as sdk:
                began.append(name)
                await ready.wait()
                with trio.move_on_after(0.001):
                    await sdk.checkpoint("mine")
                await sdk.completed()

        began: list[str] = []
        ready = trio.Event()
        with trio.move_on_after(15) as in_time:
            async with trio.open_nursery() as nursery:
                for name in ("a", "b", "c"):
                    nursery.start_soon(run, name)
                while len(began) < 3:
                    await trio.sleep(0.01)
                for number in range(40):
                    nursery.start_soon(other.checkpoint, f"large/{number}", b"x" * 2**20)
                await trio.lowlevel.checkpoint()
                ready.set()
        assert not in_time.cancel_called  # else one has waited until its patience was over


async def test_closing_answers_what_is_on_its_way(url: str) -> None:
    answers: list[object] = []

    async def ask(backend: Any, message: Any) -> None:
        answers.append(await backend.request(message))

    async with trio.open_nursery() as nursery:
        async with open_backend(url) as backend:
            lease = (await backend.request(Register(instance_id="i", tenant_id="t"))).lease
            message = Checkpoint(instance_id="i", lease=lease, checkpoint_id="a", state=b"")
            nursery.start_soon(ask, backend, message)
            nursery.start_soon(ask, backend, GetStatus(instance_id="i"))
            await trio.lowlevel.checkpoint()
    assert len(answers) == 2
    for late in (message, GetStatus(instance_id="i")):
        with pytest.raises(StoreError, match="the store was closed"):
            await backend.request(late)


async def test_the_outcome_of_a_lost_lease_is_never_taken_for_recorded(url: str) -> None:
    """Its connections were cut, and another one completed the instance meanwhile."""
    async with open_backend(url) as mine:
        lease = (await mine.request(Register(instance_id="i", tenant_id="t"))).lease
        await sql(mine, "UPDATE runtara_trio_leases SET owner = ''")
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            await sdk.completed("theirs")
        cut(mine)
        with pytest.raises(LeaseLost):
            await mine.request(
                RecordOutcome(
                    instance_id="i", lease=lease, status=InstanceStatus.COMPLETED, payload=b"mine"
                )
            )


async def test_an_operator_is_told_of_an_unknown_fate(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            await sdk.suspended()
        with monkeypatch.context() as patch:
            lose_commit(patch, 1)
            with pytest.raises(StoreError, match="nobody knows whether it was carried out"):
                await Operator(backend).pause("i")
        with monkeypatch.context() as patch:
            lose_commit(patch, 1)
            answer = await Operator(backend).cancel("i")  # nothing takes it back
    assert answer.status is InstanceStatus.CANCELLED


async def test_a_page_reads_only_the_states_that_it_gives(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all, read = Connection.run_all, []

    async def counts(self: Connection, *statements: Any) -> Any:
        found = await run_all(self, *statements)
        values = [one for rows in found for row in rows for one in row]
        read.append(sum(len(one) for one in values if isinstance(one, bytes)))
        return found

    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            for number in range(20):
                await sdk.checkpoint(f"n/{number:02}", b"x" * 10_000)
        monkeypatch.setattr(Connection, "run_all", counts)
        page = await backend.request(ReadCheckpoints(instance_id="i", limit=20, most_bytes=25_000))
    assert len(page.checkpoints) == 3
    assert page.more
    assert sum(read) == 30_000


async def test_large_states_go_out_in_several_batches(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def count(statement: str, parameters: Any) -> None:
        sent.append(
            sum(
                len(one)
                for part in parameters
                if isinstance(part, list)
                for one in part
                if isinstance(one, bytes)
            )
        )

    monkeypatch.setattr(limits, "MOST_BYTES", 100_000)
    watch(monkeypatch, count)
    async with open_backend(url) as backend, block(backend) as sdk:
        await sdk.checkpoint("a")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(sdk.checkpoint, f"{number}", b"x" * 50_000)
    assert sdk.outcome is Outcome.COMPLETED
    assert max(sent) < 151_000


async def test_a_holder_whose_lease_is_longer_than_patience(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A register waits until it is decided: the server answers all the while."""
    monkeypatch.setattr(limits, "AWAY", 0.3)
    async with start("worker.py", url, "i", "wait", 2000) as program:
        await program.line("running new")
        await program.kill()
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            assert (await sdk.checkpoint("first")).found


async def test_news_that_take_too_long_are_no_doubt_of_the_commit(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts twice is carried out, and told as such; who listens finds it by the poll."""
    send_off, slow = Connection._send_off, []

    def sends(self: Connection, statements: Any) -> Any:
        if statements[0][0].startswith("SELECT pg_notify"):
            slow.append(statements)
            statements = [("SELECT pg_sleep(0.5)", ())]
        return send_off(self, statements)

    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            monkeypatch.setattr(Connection, "_send_off", sends)
            await Operator(backend).pause("i")
            await sdk.sleep(3600, "nap")
        assert sdk.outcome is Outcome.PAUSED
    assert slow


def test_ctrl_c_does_not_land_in_the_store(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, raised = Connection.commit, []

    async def interrupted(self: Connection, *channels: str) -> None:
        if not raised:
            raised.append("COMMIT")
            signal.raise_signal(signal.SIGINT)
        await commit(self, *channels)

    async def main() -> None:
        async with postgres_place(postgres_server) as place:
            with pytest.raises(KeyboardInterrupt):
                async with block(place.backend) as sdk:
                    await sdk.checkpoint("a")
                    monkeypatch.setattr(Connection, "commit", interrupted)
                    await sdk.custom_event("first")
                    await trio.sleep_forever()
            assert raised
            details = await Operator(place.backend).show("i")
        assert details.summary.status is InstanceStatus.SUSPENDED
        assert sdk.outcome is Outcome.STOPPED

    trio.run(main)
