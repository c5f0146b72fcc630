"""Certificates: what a failed verification says, and how it can be mended.

On real sockets, since they are what hosts and names belong to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from runtara_trio import ConfigError, SdkConfig, Unreachable, open_backend
from runtara_trio.clock import default_clock
from runtara_trio.messages import GetStatus
from runtara_trio.quic.client.backend import open_quic
from runtara_trio.quic.location import server_of_config, server_of_url
from runtara_trio.quic.server.server import bind, open_server
from runtara_trio.quic.transport.tls import Identity, load_identity, make_identity
from runtara_trio.serving.leases import open_leases

from ..helpers.network import Network
from ..helpers.quic import IDENTITY, scripted


class Authority:
    """Who issues certificates for these tests."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.certificate = self._sign(self.name, self.key.public_key(), [], ca=True)

    def issue(self, *names: str, days: int = 30) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        return Identity(self._sign(subject, key.public_key(), names, days=days), [], key)

    def _sign(self, subject, public, names, *, ca=False, days=30):  # type: ignore[no-untyped-def]
        end = datetime.now(UTC) + timedelta(days=days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - timedelta(days=60))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            alternatives = [x509.DNSName(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        return builder.sign(self.key, SHA256())

    def write(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path


AUTHORITY = Authority()


@asynccontextmanager
async def serving(identity: Identity) -> AsyncIterator[str]:
    """A server with this certificate: its URL."""
    link = bind("127.0.0.1", 0)
    async with (
        open_backend(":memory:", create=True) as store,
        open_leases(store) as leases,
        open_server(store, link, identity, leases),
    ):
        yield f"quic://127.0.0.1:{link.address[1]}"


async def asks(url: str) -> None:
    with trio.fail_after(20):
        async with open_backend(url) as backend:
            await backend.request(GetStatus(instance_id="i"))


async def test_loopback_hosts_are_not_verified_unless_asked() -> None:
    async with serving(IDENTITY) as url:
        await asks(url)
        with pytest.raises(Unreachable, match="nobody that is trusted has issued"):
            await asks(f"{url}?verify=yes&server_name=localhost")


async def test_an_issuer_that_is_trusted(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path)
    async with serving(AUTHORITY.issue("shop.example", "other.example")) as url:
        await asks(f"{url}?ca={ca}&server_name=shop.example")


async def test_a_wrong_name(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path)
    identity = AUTHORITY.issue("shop.example")
    async with serving(identity) as url:
        with pytest.raises(Unreachable) as refused:
            await asks(f"{url}?ca={ca}&server_name=bank.example")
        text = str(refused.value)
        assert "wrong name" in text
        assert "'bank.example'" in text
        assert "shop.example" in text
        assert f"pin={identity.pin}" in text
        with pytest.raises(Unreachable, match="wrong name"):
            await asks(f"{url}?ca={ca}")  # the host is the name where none is given


async def test_an_expired_certificate(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path)
    async with serving(AUTHORITY.issue("shop.example", days=-1)) as url:
        with pytest.raises(Unreachable, match=r"has expired, .*: renew it"):
            await asks(f"{url}?ca={ca}&server_name=shop.example")


async def test_an_unknown_issuer(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path)
    identity = Authority().issue("shop.example")
    async with serving(identity) as url:
        with pytest.raises(Unreachable) as refused:
            await asks(f"{url}?ca={ca}&server_name=shop.example")
        assert "nobody that is trusted has issued" in str(refused.value)
        assert "ca=FILE" in str(refused.value)
        await asks(f"{url}?pin={identity.pin}")  # as the error said


async def test_a_pin_trusts_one_certificate_and_no_other() -> None:
    identity = make_identity("whatever.example")
    async with serving(identity) as url:
        await asks(f"{url}?pin={identity.pin}")
        colons = ":".join(f"{byte:02X}" for byte in bytes.fromhex(identity.pin[7:]))
        await asks(f"{url}?pin=sha256:{colons}")
        with pytest.raises(Unreachable) as refused:
            await asks(f"{url}?pin={IDENTITY.pin}")
        assert f"has the pin {identity.pin}, not {IDENTITY.pin}" in str(refused.value)


async def test_a_failed_verification_is_told_at_once(autojump_clock: object) -> None:
    """Nobody waits for a connect timeout where trying again cannot help."""
    network = Network()
    place = server_of_url("quic://127.0.0.1:8001?verify=yes")
    async with (
        scripted(network, lambda call: None),
        open_quic(
            place, config=SdkConfig(), clock=default_clock(), open_link=network.connect
        ) as client,
    ):
        start = trio.current_time()
        with pytest.raises(Unreachable):
            await client.request(GetStatus(instance_id="i"))
        assert trio.current_time() - start < 1


# ---- what is verified where


@pytest.mark.parametrize(
    ("url", "verify", "name"),
    [
        ("quic://127.0.0.1:8001", False, "127.0.0.1"),
        ("quic://localhost", False, "localhost"),
        ("quic://[::1]:9", False, "::1"),
        ("quic://127.0.0.1?verify=yes", True, "127.0.0.1"),
        ("quic://db.example", True, "db.example"),
        ("quic://db.example?verify=no", False, "db.example"),
        ("quic://10.0.0.1:8001?server_name=core", True, "core"),
        ("quic://localhost?pin=sha256:" + "ab" * 32, True, "localhost"),
    ],
)
def test_urls(url: str, verify: bool, name: str) -> None:
    server = server_of_url(url)
    assert (server.verify, server.server_name) == (verify, name)


def test_configurations() -> None:
    assert not server_of_config(SdkConfig()).verify
    assert server_of_config(SdkConfig()).name == "quic://127.0.0.1:8001"
    away = server_of_config(SdkConfig(server_addr="db.example:7"))
    assert (away.verify, away.server_name, away.port) == (True, "localhost", 7)
    assert not server_of_config(
        SdkConfig(server_addr="db.example", skip_cert_verification=True)
    ).verify
    assert server_of_config(SdkConfig(skip_cert_verification=False)).verify
    assert not server_of_config(SdkConfig.localhost("i", "t")).verify
    with pytest.raises(ConfigError, match="server_addr is host:port"):
        server_of_config(SdkConfig(server_addr="db.example?verify=no"))


def test_a_certificate_from_files(tmp_path: Path) -> None:
    identity = AUTHORITY.issue("shop.example")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert load_identity(certificate, key).pin == identity.pin
    other = tmp_path / "other.pem"
    other.write_bytes(
        AUTHORITY.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(ConfigError, match="is not the one of"):
        load_identity(certificate, other)
    with pytest.raises(ConfigError, match=r"key\.pem' is not a certificate in PEM"):
        load_identity(key, key)
    with pytest.raises(ConfigError, match=r"nowhere' is not a certificate"):
        load_identity(tmp_path / "nowhere", key)
