"""The wire: what each message is in bytes, and what becomes of bytes that are none."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara_trio.wire import calls, frames, mapping
from runtara_trio.wire.frames import FrameError, FrameReader

WIRE = Path(mapping.__file__).parent

CALLS: list[tuple[calls.Call, str]] = [
    (calls.RegisterInstance("i", "t"), "0a060a016912 0174"),
    (calls.RegisterInstance("i", "t", "c"), "0a090a01691201741a0163"),
    (calls.RegisterInstance("i", "t", ""), "0a080a01691201741a00"),
    (calls.Sleep("i", 300, "c", b"s"), "220c0a016910ac021a0163220173"),
    (
        calls.InstanceEvent("i", calls.InstanceEventType.CUSTOM, "c", b"p", 1700, "note"),
        "2a140a016910051a016322017028a40d32046e6f7465",
    ),
    (calls.InstanceEvent("i", calls.InstanceEventType.HEARTBEAT, timestamp_ms=1), "2a050a01692801"),
    (
        calls.InstanceEventBatch(
            (calls.InstanceEvent("i"), calls.InstanceEvent("j", calls.InstanceEventType.FAILED))
        ),
        "320c0a030a01690a050a016a1003",
    ),
    (calls.GetInstanceStatus("i"), "3a030a0169"),
    (calls.Checkpoint("i", "c", b"state"), "420d0a01691201631a057374617465"),
    (calls.GetCheckpoint("i", "c"), "4a060a0169120163"),
    (calls.PollSignals("i"), "52030a0169"),
    (calls.PollSignals("i", "c"), "52060a0169120163"),
    (calls.SignalAck("i", calls.SignalType.CANCEL, True), "5a050a01691801"),
    (calls.SignalAck("i", calls.SignalType.RESUME, False), "5a050a01691002"),
    (calls.RetryAttempt("i", "c", 2, 1700, "bad"), "62100a0169120163180220a40d2a03626164"),
]

ANSWERS: list[tuple[calls.Answer, str]] = [
    (calls.RegisterInstanceAnswer(True), "0a020801"),
    (calls.RegisterInstanceAnswer(False, "no"), "0a0412026e6f"),
    (calls.SleepAnswer(), "2200"),
    (calls.InstanceEventAnswer(True), "2a020801"),
    (calls.InstanceEventAnswer(False, "no"), "2a0412026e6f"),
    (
        calls.GetInstanceStatusAnswer("i", calls.InstanceStatus.RUNNING, "c", 1700),
        "3a0b0a016910021a016320a40d",
    ),
    (
        calls.GetInstanceStatusAnswer("i", calls.InstanceStatus.FAILED, None, 1, 2, b"out", "err"),
        "3a130a016910052001280232036f75743a03657272",
    ),
    (calls.CheckpointAnswer(), "4200"),
    (calls.CheckpointAnswer(True, b"s"), "42050801120173"),
    (
        calls.CheckpointAnswer(
            False,
            b"",
            calls.Signal("i", calls.SignalType.PAUSE, b"p"),
            calls.CustomSignal("c", b"q"),
        ),
        "42121a080a016910011a017022060a0163120171",
    ),
    (calls.GetCheckpointAnswer(True, b"s"), "4a050801120173"),
    (calls.GetCheckpointAnswer(), "4a00"),
    (calls.PollSignalsAnswer(), "5200"),
    (calls.PollSignalsAnswer(calls.Signal("i"), None), "52050a030a0169"),
    (calls.PollSignalsAnswer(None, calls.CustomSignal("c", b"")), "520512030a0163"),
    (calls.RpcError("CODE", "text"), "7a0c0a04434f444512047465 7874"),
]


@pytest.mark.parametrize(("call", "golden"), CALLS, ids=repr)
def test_calls_in_bytes(call: calls.Call, golden: str) -> None:
    assert mapping.encode_call(call).hex() == golden.replace(" ", "")
    assert mapping.decode_call(bytes.fromhex(golden)) == call


@pytest.mark.parametrize(("answer", "golden"), ANSWERS, ids=repr)
def test_answers_in_bytes(answer: calls.Answer, golden: str) -> None:
    assert mapping.encode_answer(answer).hex() == golden.replace(" ", "")
    assert mapping.decode_answer(bytes.fromhex(golden)) == answer


def test_every_message_has_its_bytes_here() -> None:
    assert {type(call) for call, _ in CALLS} == {struct for struct, _ in mapping.CALLS.values()}
    assert {type(one) for one, _ in ANSWERS} == {struct for struct, _ in mapping.ANSWERS.values()}


# ---- whatever is in them


def _field(hint: Any) -> st.SearchStrategy[Any]:
    options = [part for part in get_args(hint) if part is not type(None)]
    if type(None) in get_args(hint):
        return st.none() | _field(options[0])
    if options:
        return st.lists(_field(options[0]), max_size=3).map(tuple)
    if hint is int:
        return st.integers(0, 6)  # within every enum, and every width
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(),
        bytes: st.binary(max_size=300),
        bool: st.booleans(),
    }
    return simple[hint] if hint in simple else _struct(hint)


def _struct(struct: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(struct)
    return st.builds(struct, *(_field(hints[name]) for name in struct.__struct_fields__))


@given(st.one_of([_struct(struct) for struct, _ in mapping.CALLS.values()]))
def test_calls_come_back(call: calls.Call) -> None:
    assert mapping.decode_call(mapping.encode_call(call)) == call


@given(st.one_of([_struct(struct) for struct, _ in mapping.ANSWERS.values()]))
def test_answers_come_back(answer: calls.Answer) -> None:
    assert mapping.decode_answer(mapping.encode_answer(answer)) == answer


@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_an_error(data: bytes) -> None:
    for decode in (mapping.decode_call, mapping.decode_answer):
        with contextlib.suppress(mapping.WireError):
            decode(data)


@given(st.sampled_from(CALLS), st.data())
def test_a_call_cut_short_is_another_or_an_error(
    example: tuple[calls.Call, str], data: st.DataObject
) -> None:
    whole = mapping.encode_call(example[0])
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(mapping.WireError):
        assert mapping.decode_call(cut) != example[0]


def test_messages_that_say_nothing() -> None:
    assert mapping.decode_call(b"") is None
    with pytest.raises(mapping.WireError, match="says nothing"):
        mapping.decode_answer(b"")


# ---- frames


@given(st.binary(max_size=300), st.sampled_from(sorted(frames.TYPES)), st.data())
def test_a_frame_comes_in_any_pieces(payload: bytes, kind: int, data: st.DataObject) -> None:
    rest = frames.encode(kind, payload) + data.draw(st.binary(max_size=5))
    reader = FrameReader()
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        whole = reader.feed(rest[:size])
        rest = rest[size:]
        assert whole == (reader.size >= len(payload) + frames.HEAD_SIZE)
    assert (reader.kind, reader.payload()) == (kind, payload)


def test_a_frame_in_bytes() -> None:
    assert frames.encode(frames.REQUEST, b"ab") == bytes.fromhex("00000002 0001") + b"ab"


@pytest.mark.parametrize("kept", range(8))
def test_a_frame_cut_short(kept: int) -> None:
    reader = FrameReader()
    assert not reader.feed(frames.encode(frames.REQUEST, b"ab")[:kept])
    with pytest.raises(FrameError, match=f"ended after {kept} bytes"):
        reader.payload()


def test_an_empty_stream_has_no_frame() -> None:
    reader = FrameReader()
    assert reader.size == 0
    with pytest.raises(FrameError):
        reader.payload()


@pytest.mark.parametrize("kind", [0, 7, 65535])
def test_an_unknown_type(kind: int) -> None:
    with pytest.raises(FrameError, match=f"type {kind}"):
        FrameReader().feed(frames.encode(kind, b""))


def test_too_long_a_frame_is_refused_by_its_head() -> None:
    head = (frames.MAX_PAYLOAD + 1).to_bytes(4, "big") + b"\0\1"
    with pytest.raises(FrameError, match=str(frames.MAX_PAYLOAD + 1)):
        FrameReader().feed(head)
    longest = FrameReader()
    assert not longest.feed(frames.MAX_PAYLOAD.to_bytes(4, "big") + b"\0\1")


# ---- what it may know


def test_the_wire_knows_neither_trio_nor_sockets_nor_clocks() -> None:
    for path in WIRE.glob("*.py"):
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not names & {"trio", "socket", "time", "datetime", "aioquic"}, path.name


def test_the_generated_module_is_known_to_one_file() -> None:
    root = WIRE.parent
    knowing = {path.name for path in root.rglob("*.py") if "instance_pb2" in path.read_text()}
    assert knowing - {"instance_pb2.py"} == {"mapping.py", "__init__.py"}  # which names it
