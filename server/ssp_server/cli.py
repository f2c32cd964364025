"""`ssp-server`: serve models."""

import asyncio
import sys

import tyro

from ssp_runtime.errors import SSPError
from ssp_server import logs
from ssp_server.config import ConfigError, ServerConfig


def serve(config: ServerConfig) -> None:
    from ssp_server.server import Server

    async def run() -> None:
        async with Server(config) as server:
            await server.wait()

    logs.configure(config.log_format, config.log_level)
    asyncio.run(run())


def main() -> None:
    config = tyro.extras.subcommand_cli_from_dict(
        {"serve": ServerConfig}, prog="ssp-server", config=(tyro.conf.OmitArgPrefixes,)
    )
    try:
        serve(config)
    except (ConfigError, SSPError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
