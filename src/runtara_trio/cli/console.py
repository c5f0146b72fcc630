"""``console``: what instances do and wait for, in a browser."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..engine.outcome import contains, leaves_of
from ..errors import ConfigError
from ..opening import open_backend
from .options import codec, is_loopback, run_on_trio, settings, store_option

if TYPE_CHECKING:
    from ..console.people import Authorize, Tokens


@click.command("console")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--base-path", default="", metavar="PATH", help="Where a proxy has it, as /console.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Who may look and act: lines of role (viewer or operator), name and token.",
)
@click.option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    metavar="CIDR",
    help="Believe a proxy of this network who the user is. May be given more than once.",
)
@click.option("--user-header", default="X-Forwarded-User", show_default=True)
@click.option("--role-header", default="X-Forwarded-Role", show_default=True)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers ask for it. Addresses and localhost are known.",
)
@click.option(
    "--https",
    is_flag=True,
    help="Browsers reach it over https, through a proxy: so go its cookies.",
)
@click.option("--read-only", is_flag=True, help="Nobody acts.")
@click.option("--hide-payloads", is_flag=True, help="Nobody sees arguments, states and results.")
@click.pass_context
def console_command(context: click.Context, /, **options: Any) -> None:
    """Serve the console: instances, their timelines, workers, queues, schedules."""
    try:
        from ..console import app
        from ..console.serving import serve
    except ImportError as exc:
        raise click.ClickException(
            f"the console needs {exc.name}: pip install 'runtara-trio[console]'"
        ) from exc
    try:
        tokens, authorize = _who(options)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc

    coded = codec()

    async def run() -> None:
        async with open_backend(settings(options["store"])) as backend:
            application = app(
                backend,
                codec=coded,
                authorize=authorize,
                tokens=tokens,
                allowed_hosts=options["hosts"],
                read_only=options["read_only"],
                hide_payloads=options["hide_payloads"],
                https=options["https"],
            )
            base = f"/{options['base_path'].strip('/')}".rstrip("/")
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await serve(
                    application,
                    host=options["host"],
                    port=options["port"],
                    base_path=base,
                    stop=lambda: anext(signals),
                    started=lambda url: click.echo(f"console on {url}", err=True),
                )

    try:
        run_on_trio(run)
    except BaseException as exc:
        for error in leaves_of(exc):
            if isinstance(error, OSError):
                where = f"{options['host']}:{options['port']}"
                raise click.ClickException(f"cannot listen on {where}: {error}") from exc
        if contains(exc, KeyboardInterrupt):
            context.exit(128 + signal.SIGINT)
        raise


def _who(options: dict[str, Any]) -> tuple[Tokens | None, Authorize | None]:
    """Who may look. Raises ConfigError, UsageError: it would be anybody from anywhere."""
    from ..console.people import Tokens, TrustedProxy, everybody, first_of

    file, proxies = options["token_file"], options["proxies"]
    tokens = None if file is None else Tokens.read(file)
    if not proxies:
        if tokens is None and not is_loopback(options["host"]):
            raise click.UsageError(
                f"on {options['host']} everybody who reaches it could act: give --token-file or"
                " --trusted-proxy, or listen on 127.0.0.1"
            )
        return tokens, everybody if tokens is None else None
    proxy = TrustedProxy(proxies, options["user_header"], options["role_header"])
    ways = [proxy.authorize, *([] if tokens is None else [tokens.authorize])]
    return tokens, first_of(*ways)
