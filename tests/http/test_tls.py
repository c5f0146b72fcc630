"""https:// to a proxy in front of a server: which certificate is trusted, and who gets a token."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtara_trio import ConfigError, SdkConfig, Unreachable, open_backend
from runtara_trio.quic.transport.tls import Identity, make_identity
from runtara_trio.remote.location import show_pin

from ..helpers.places import served_http_place
from ..helpers.support import block


def files(identity: Identity, folder: Path) -> tuple[str, str]:
    """A certificate and its key, PEM."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(certificate), str(key)


@asynccontextmanager
async def proxied(identity: Identity, folder: Path) -> AsyncIterator[int]:
    """A proxy with TLS before our server; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files(identity, folder))
    async with served_http_place() as place, trio.open_nursery() as nursery:
        port = int(place.url.rpartition(":")[2])

        async def forward(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
            try:
                while data := await source.receive_some(65536):
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await trio.aclose_forcefully(target)

        async def serve(client: trio.SocketStream) -> None:
            secure = trio.SSLStream(client, context, server_side=True, https_compatible=True)
            server = await trio.open_tcp_stream("127.0.0.1", port)
            async with trio.open_nursery() as both:
                both.start_soon(forward, secure, server)
                both.start_soon(forward, server, secure)

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def run(url: str, instance: str = "i", **config: str) -> bytes | None:
    """A program; what it has saved."""
    async with (
        open_backend(SdkConfig(store=url, **config)) as backend,  # type: ignore[arg-type]
        block(backend, instance) as sdk,
    ):
        await sdk.checkpoint("a", b"over tls")
        return await sdk.get_checkpoint("a")


async def test_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    identity = make_identity("shop.example", "localhost")
    async with proxied(identity, tmp_path) as port:
        ca = f"ca={tmp_path}/certificate.pem"
        for number, url in enumerate(
            (
                f"https://localhost:{port}",  # on this machine nothing is verified
                f"https://localhost:{port}?{ca}",
                f"https://127.0.0.1:{port}?{ca}&server_name=shop.example",
                f"https://127.0.0.1:{port}?pin={identity.pin}",
            )
        ):
            assert await run(url, f"i{number}") == b"over tls"
        assert await run(f"https://localhost:{port}", token="0123456789abcdef") == b"over tls"


async def test_a_certificate_that_is_not(tmp_path: Path) -> None:
    identity = make_identity("shop.example")
    other = show_pin(bytes(32))
    async with proxied(identity, tmp_path) as port:
        for options, why in (
            ("verify=yes", "nobody that is trusted has issued its certificate .* ca=FILE"),
            (f"ca={tmp_path}/certificate.pem", "has the wrong name .* server_name="),
            (f"pin={other}", f"has the pin {identity.pin}, not {other}"),
        ):
            with pytest.raises(Unreachable, match=why):
                await run(f"https://127.0.0.1:{port}?{options}")


async def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    identity = make_identity("localhost", now=datetime.now(UTC) - timedelta(days=1000))
    async with proxied(identity, tmp_path) as port:
        with pytest.raises(Unreachable, match="has expired, or is not valid yet"):
            await run(f"https://localhost:{port}?ca={tmp_path}/certificate.pem")


async def test_a_server_that_speaks_no_tls() -> None:
    async with served_http_place() as place:
        with pytest.raises(Unreachable, match="the handshake failed"):
            await run(place.url.replace("http://", "https://"))


async def test_a_token_is_sent_where_nobody_can_read_it() -> None:
    with pytest.raises(ConfigError, match="could be read on its way"):
        await run("http://runtara.example:8001", token="0123456789abcdef")
    for bad in ("", "a b", "ä", "a\r\nb"):
        with pytest.raises(ConfigError, match="token"):
            SdkConfig(token=bad)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h:1?ca=x", "such a URL has no parameters"),
        ("https://h?verify=maybe", "verify is yes or no"),
        ("https://h?ca=/nowhere", "there is no file"),
        ("https://h?pin=sha256:00", "is not a pin"),
        ("https://h?verify=no&pin=sha256:00", "verify=no does not go with"),
        ("https://h/path", "names no server"),
        (f"https://h?ca={__file__}", "holds no certificates in PEM"),
    ],
)
async def test_urls_that_are_wrong(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await run(url)
