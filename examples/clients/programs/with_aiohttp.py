"""Writes what a URL holds to standard output, by aiohttp, which asks the environment for a proxy if it is told to."""

import asyncio
import sys

import aiohttp


async def main():
    async with (
        aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session,
        session.get(sys.argv[1]) as response,
    ):
        sys.stdout.buffer.write(await response.read())


asyncio.run(main())
