"""The project's chores: ``nox -s tests``, ``lint``, ``types``, ``docs``, ``proto``,
``interop``, ``simulate``, ``chaos``, ``bench``."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
CORE_VERSION = "1.4.1"
CORE_OVER_HTTP = "1.6.4"
WIRE = Path("src/runtara_trio/wire")
EXTRAS = ("postgres", "console", "otel", "prometheus", "pydantic-ai", "zstd")
SUPPORTED = ["3.11", "3.12", "3.13"]
RELEASED = [*SUPPORTED, "3.14"]
"""Where a release must work; on the last without what needs asyncio."""
DIST = Path("dist")
TRIED = ["plain", *EXTRAS, "all"]
"""With which extras, each by itself."""
SQLITE_CRATE = "0.12.0"
"""The libsqlite3-sys that carries the source of the SQLite in store/sqlite/file.py's OLDEST."""
SQLITE_FLAGS = (
    "-DSQLITE_ENABLE_DESERIALIZE",  # CPython does not load it without
    "-DHAVE_USLEEP",  # else it waits whole seconds for a lock
    "-DUSE_PREAD64",  # tests/store/sqlite/test_power_cut.py reads these calls
)
IS_OLDEST = """
from sqlite3 import sqlite_version_info as found
from runtara_trio.store.sqlite.file import OLDEST
if found != OLDEST:
    raise SystemExit(f"this Python runs with SQLite {found}, not with {OLDEST}")
"""
ON_FILES = (
    *("tests/store", "tests/engine", "tests/cli/test_cli.py"),
    *("--ignore", "tests/store/postgres", "-k", "not postgres"),
)


def install(session: nox.Session, group: str) -> None:
    """The project, and what one group of pyproject.toml names."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, group))


@nox.session
def tests(session: nox.Session) -> None:
    """The suite on the Python that runs nox."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=SUPPORTED)
def versions(session: nox.Session) -> None:
    """The suite on every supported Python that is installed."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=SUPPORTED[0])
def lowest(session: nox.Session) -> None:
    """The suite on the lowest versions that pyproject.toml allows."""
    named = [
        *PROJECT["project"]["dependencies"],
        *(one for extra in EXTRAS for one in PROJECT["project"]["optional-dependencies"][extra]),
        *nox.project.dependency_groups(PROJECT, "test"),
    ]
    pinned = [re.sub(r">=([^,;]+)[^;]*", r"==\1", name) for name in named]
    session.install("-e", ".", *pinned)
    session.run("pytest", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Thousands of simulated fleets, in all processors: ``nox -s simulate -- 5000``."""
    install(session, "test")
    session.run("python", "-m", "tests.testing.many_seeds", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Real processes killed, stopped and cut off: ``nox -s chaos -- SECONDS SEED``."""
    install(session, "test")
    seconds, seed = (*session.posargs, *("300", "18")[len(session.posargs) :])[:2]
    env = {"CHAOS_SECONDS": seconds, "CHAOS_SEED": seed, "KILLS": "200"}
    places = ("tests/worker/test_chaos.py", "tests/quic/test_chaos.py", "tests/store/test_kills.py")
    session.run("pytest", "-s", "-v", *places, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """A fleet under load and faults for an hour: what must not grow. ``nox -s soak -- SECONDS``."""
    install(session, "test")
    seconds = session.posargs[0] if session.posargs else "3600"
    session.run("pytest", "-s", "-v", "tests/worker/soak.py", env={"SOAK_SECONDS": seconds})


@nox.session
def pooled(session: nox.Session) -> None:
    """The tests of PostgreSQL behind a PgBouncer in transaction mode."""
    install(session, "test")
    places = [f"tests/{name}" for name in ("client", "engine", "sdk", "worker")]
    stores = sorted(str(path) for path in Path("tests/store").glob("test_*.py"))
    chosen = ("--pooled", "-k", "postgres", "-m", "not direct")
    session.run("pytest", *chosen, *stores, *places, *session.posargs)


@nox.session
def malformed(session: nox.Session) -> None:
    """A server under datagrams and frames that are none: ``nox -s malformed -- COUNT RATE``."""
    install(session, "test")
    session.run("python", "-m", "bench.malformed", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in docs/_build/html; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def site(session: nox.Session) -> None:
    """The documentation of each release and of this version, in docs/_build/site: each with a
    search, and a menu of the others."""
    found = session.run("git", "tag", "--list", "v*", external=True, silent=True) or ""
    tags = {tag.removeprefix("v"): tag for tag in found.split()}
    ours: str = PROJECT["project"]["version"]
    names = sorted({ours, *tags}, key=lambda name: [*map(int, name.split("."))], reverse=True)
    place = Path("docs/_build/site").absolute()
    shutil.rmtree(place, ignore_errors=True)
    for name in names:
        source = Path(session.create_tmp()).absolute() / name
        if name in tags:
            command = ("git", "worktree", "add", "--force", "--detach", str(source), tags[name])
            session.run(*command, external=True)
        else:
            source = Path.cwd()
        project = nox.project.load_toml(source / "pyproject.toml")
        session.install(str(source), *nox.project.dependency_groups(project, "docs"))
        session.run(
            *("sphinx-build", "-W", "-b", "html", str(source / "docs"), str(place / name)),
            env={"DOCS_VERSIONS": " ".join(names)},
        )
        if name in tags:
            session.run("git", "worktree", "remove", "--force", str(source), external=True)
    newest = f'<meta http-equiv="refresh" content="0; url={names[0]}/index.html">'
    (place / "index.html").write_text(f"<!doctype html><title>runtara-trio</title>{newest}\n")


@nox.session
def release(session: nox.Session) -> None:
    """An sdist, a wheel and an SBOM in dist, checked; then ``smoke`` on every Python."""
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(DIST))
    made = sorted(str(path) for path in DIST.iterdir())
    session.run("twine", "check", "--strict", *made)
    session.run("python", "-m", "tests.release.contents", str(DIST))
    session.install(f"{built_wheel(session)}[all]")
    session.run(
        *("cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--output-reproducible"),
        *("--validate", "--output-file", str(DIST / "runtara-trio.cdx.json")),
    )
    for python in RELEASED:
        for extra in TRIED:
            session.notify(f"smoke-{python}(extra={extra!r})")


@nox.session(python=RELEASED, reuse_venv=False)
@nox.parametrize("extra", TRIED)
def smoke(session: nox.Session, extra: str) -> None:
    """The wheel in dist with one extra, in an environment of its own, does its work."""
    wheel = built_wheel(session)
    session.install(f"{wheel}[{extra}]" if extra != "plain" else str(wheel))
    session.run("python", "tests/release/smoke.py", extra)


def built_wheel(session: nox.Session) -> Path:
    """The wheel in dist."""
    found = list(DIST.glob("*.whl"))
    if len(found) != 1:
        session.error("there is no wheel in dist: run nox -s release")
    return found[0].absolute()


@nox.session
def proto(session: nox.Session) -> None:
    """The module of the wire's messages; with ``--check`` only whether it is up to date."""
    session.install(*nox.project.dependency_groups(PROJECT, "proto"))
    made = Path(session.create_tmp())
    session.run(
        *("python", "-m", "grpc_tools.protoc", "-Isrc"),
        *(f"--python_out={made}", f"--pyi_out={made}", str(WIRE / "instance.proto")),
    )
    for name in ("instance_pb2.py", "instance_pb2.pyi"):
        fresh = (made / WIRE.relative_to("src") / name).read_text()
        if "--check" not in session.posargs:
            (WIRE / name).write_text(fresh)
        elif (WIRE / name).read_text() != fresh:
            session.error(f"{WIRE / name} is not what instance.proto says: run nox -s proto")


@nox.session
def interop(session: nox.Session) -> None:
    """Against a stock runtara-core and the stock Rust SDK, built from their crates."""
    stock = build_stock(session)
    install(session, "interop")
    on_postgres = ("python", "-m", "tests.interop.postgres", "pytest")
    session.run(*on_postgres, "tests/interop", *session.posargs, env=stock)
    kinds = ["sqlite", "postgres"]
    if "INTEROP_CORE_1_6" in stock:
        kinds += ["http-sqlite", "http-postgres"]
    else:
        session.warn(f"runtara-core {CORE_OVER_HTTP} could not be built: not tried over HTTP")
    cores = ("-m", "core", *(part for kind in kinds for part in ("--core", kind)))
    session.run(*on_postgres, *cores, "tests", *session.posargs, env=stock)


def build_stock(session: nox.Session) -> dict[str, str]:
    """Runtara's parts and our programs on its Rust SDKs, built once outside the repository."""
    if shutil.which("cargo") is None:
        session.skip("cargo is not installed: no stock runtara-core to be run against")
    place = cache("runtara-trio-interop")
    program, over_http = place / "program", place / "program-http"
    shutil.copytree("tests/interop/rust", program, dirs_exist_ok=True)
    shutil.copytree("tests/interop/rust_http", over_http, dirs_exist_ok=True)
    build = {"CARGO_TARGET_DIR": str(place / "target")}
    if shutil.which("protoc") is None:
        session.install(*nox.project.dependency_groups(PROJECT, "proto"))
        protoc = place / "protoc"
        protoc.write_text(f'#!/bin/sh\nexec {session.bin}/python -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
        build["PROTOC"] = str(protoc)
    core = place / "bin" / "runtara-core"
    if not core.exists():
        version = ("--version", CORE_VERSION, "--locked", "--root", str(place))
        session.run("cargo", "install", "runtara-core", *version, env=build, external=True)
    manifest = ("--manifest-path", str(program / "Cargo.toml"))
    session.run("cargo", "build", "--release", *manifest, env=build, external=True)
    found = {
        "INTEROP_CORE": str(core),
        "INTEROP_RUST": str(place / "target" / "release" / "runtara-trio-interop"),
    }
    root = place / CORE_OVER_HTTP
    for name in ("runtara-core", "runtara-environment"):
        made = root / "bin" / name
        if not made.exists():
            version = ("--version", CORE_OVER_HTTP, "--locked", "--root", str(root))
            command = ("cargo", "install", name, *version)
            session.run(*command, env=build, external=True, success_codes=range(256))
        if made.exists():
            found[f"INTEROP_{name.removeprefix('runtara-').upper()}_1_6"] = str(made)
    manifest = ("--manifest-path", str(over_http / "Cargo.toml"))
    command = ("cargo", "build", "--release", *manifest)
    session.run(*command, env=build, external=True, success_codes=range(256))
    newer = place / "target" / "release" / "runtara-trio-interop-http"
    if newer.exists():
        found["INTEROP_RUST_1_6"] = str(newer)
    return found


def cache(name: str) -> Path:
    """A folder outside the repository, for what is built once."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / name


@nox.session
def oldest_sqlite(session: nox.Session) -> None:
    """The tests of stores on files with the oldest SQLite that they open."""
    library = build_sqlite(session)
    install(session, "test")
    old = {"LD_LIBRARY_PATH": str(library.parent)}
    session.run("python", "-c", IS_OLDEST, env=old)
    session.run("pytest", *(session.posargs or ON_FILES), env=old)


def build_sqlite(session: nox.Session) -> Path:
    """That SQLite as a shared library, built once outside the repository."""
    for program in ("cargo", "cc"):
        if shutil.which(program) is None:
            session.skip(f"{program} is not installed: no old SQLite to be run with")
    place = cache("runtara-trio-sqlite") / SQLITE_CRATE
    library = place / "libsqlite3.so.0"
    if not library.exists():
        place.mkdir(parents=True, exist_ok=True)
        manifest = place / "Cargo.toml"
        package = '[package]\nname = "sqlite"\nversion = "0.0.0"\n[lib]\npath = "none.rs"\n'
        manifest.write_text(f'{package}[dependencies]\nlibsqlite3-sys = "={SQLITE_CRATE}"\n')
        crates = place / "crates"
        vendor = ("cargo", "vendor", "--manifest-path", str(manifest), str(crates))
        session.run(*vendor, external=True, silent=True)
        source = crates / "libsqlite3-sys" / "sqlite3" / "sqlite3.c"
        made = place / "libsqlite3.made"
        shared = ("cc", "-O2", "-w", "-fPIC", "-shared", *SQLITE_FLAGS, str(source))
        session.run(*shared, "-o", str(made), "-lpthread", "-ldl", "-lm", external=True)
        made.rename(library)
    return library


@nox.session
def bench(session: nox.Session) -> None:
    """What a checkpoint costs, beside plain sqlite3; writes docs/benchmarks.md."""
    install(session, "bench")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def bench_steps(session: nox.Session) -> None:
    """Durable calls beside DBOS's steps; writes docs/benchmarks-steps.md."""
    install(session, "bench")
    session.run("python", "-m", "bench.steps", *session.posargs)


@nox.session
def bench_postgres(session: nox.Session) -> None:
    """Checkpoints on PostgreSQL; writes docs/benchmarks-postgres.md."""
    install(session, "bench")
    session.run("python", "-m", "bench.postgres", *session.posargs)


@nox.session
def bench_workers(session: nox.Session) -> None:
    """Clients and workers, beside DBOS's queue, and Restate's server where npm is there; writes
    docs/benchmarks-workers.md."""
    install(session, "bench")
    restate: list[str] = []
    if shutil.which("npm"):
        place = Path(session.create_tmp()).resolve() / "restate"
        package = "@restatedev/restate-server"
        session.run("npm", "install", "--no-audit", "--prefix", str(place), package, external=True)
        restate = ["--restate", str(place / "node_modules/.bin/restate-server")]
    session.run("python", "-m", "bench.workers", *restate, *session.posargs)


@nox.session
def bench_scale(session: nox.Session) -> None:
    """A million instances, and servers that are slow or far; writes docs/benchmarks-scale.md."""
    install(session, "bench")
    session.run("python", "-m", "bench.scale", *session.posargs)


@nox.session
def bench_console(session: nox.Session) -> None:
    """The console on a million instances; writes docs/benchmarks-console.md."""
    install(session, "bench")
    session.run("python", "-m", "bench.console", *session.posargs)


@nox.session
def bench_quic(session: nox.Session) -> None:
    """Calls over QUIC, beside the stock Rust SDK; writes docs/benchmarks-quic.md."""
    stock = build_stock(session)
    install(session, "interop")
    on_postgres = ("python", "-m", "tests.interop.postgres", "python", "-m", "bench.quic")
    session.run(*on_postgres, *session.posargs, env=stock)


@nox.session
def bench_http(session: nox.Session) -> None:
    """Calls over HTTP, beside the stock Rust SDK 1.6.4; writes docs/benchmarks-http.md."""
    stock = build_stock(session)
    install(session, "interop")
    on_postgres = ("python", "-m", "tests.interop.postgres", "python", "-m", "bench.http")
    session.run(*on_postgres, *session.posargs, env=stock)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy on the sources, mypy and pyright on the API as users write it."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")
