"""The fixtures for pytest, in suites of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["runtara_trio.testing.plugin"]\n'
TESTS = """
import pytest
from runtara_trio import InstanceStatus, Operator, RuntaraSdk, open_runtara, workflow

{more}

@workflow
async def order(sdk: RuntaraSdk, cents: int) -> int:
    await sdk.sleep(0.01, "nap")
    return cents + len(await sdk.wait_for_signal("approval"))

{mark}
async def test_an_order(runtara_worker, runtara_client):
    await runtara_worker(order, slots=1)
    one = await runtara_client.start(order, 5)
    await one.signal("approval", "yes")
    assert await one.result() == 8

{mark}
async def test_a_block(runtara_store):
    async with open_runtara(runtara_store, instance_id="one", tenant_id="test") as sdk:
        await sdk.checkpoint("a")
    assert (await Operator(runtara_store).show("one")).summary.status is InstanceStatus.COMPLETED

{mark}
async def test_each_has_a_store_of_its_own(runtara_client, runtara_worker):
    await runtara_worker(order)  # which is stopped while a run waits
    await runtara_client.start(order, 7)
    assert await runtara_client.count() == 1
"""
WEEK = """
@pytest.mark.trio
async def test_a_week(runtara_client, runtara_worker, autojump_clock):
    @workflow
    async def long(sdk: RuntaraSdk) -> str:
        await sdk.sleep(7 * 24 * 3600, "a week")
        return "awake"

    await runtara_worker(long)
    assert await (await runtara_client.start(long)).result() == "awake"
"""
ON_TRIO = """
@pytest.fixture
def anyio_backend():
    return "trio"
"""
ON_A_FILE = """
@pytest.fixture
def runtara_url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"
"""
ENCRYPTED = """
from runtara_trio.codec import JSON, Encrypted

@pytest.fixture
def runtara_codec():
    return Encrypted(JSON, {"a": b"k" * 32})

@pytest.mark.trio
async def test_it_is_encrypted(runtara_store, runtara_client):
    await runtara_client.start(order, 5, id="one")
    assert (await Operator(runtara_store).show("one")).input.startswith(b"\\xff")
"""


@pytest.mark.parametrize("more", ["", ON_A_FILE], ids=["memory", "file"])
@pytest.mark.parametrize("plugin", ["trio", "anyio"])
def test_a_suite(pytester: pytest.Pytester, plugin: str, more: str) -> None:
    on = ON_TRIO if plugin == "anyio" else ""
    week = WEEK if plugin == "trio" and not more else ""
    text = TESTS.format(more=on + more, mark=f"@pytest.mark.{plugin}") + week
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(text)
    result = pytester.runpytest_subprocess("-q", timeout=60)
    result.assert_outcomes(passed=4 if week else 3)


def test_a_suite_of_programs_that_encrypt(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS.format(more=ENCRYPTED, mark="@pytest.mark.trio"))
    pytester.runpytest_subprocess("-q", timeout=60).assert_outcomes(passed=4)


def test_not_on_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    on_asyncio = ON_TRIO.replace("trio", "asyncio")
    pytester.makepyfile(TESTS.format(more=on_asyncio, mark="@pytest.mark.anyio"))
    result = pytester.runpytest_subprocess("-q", timeout=60)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*runtara-trio runs on Trio*"])
