"""Writes what a URL holds to standard output, by httpx."""

import sys

import httpx

response = httpx.get(sys.argv[1], timeout=30)
response.raise_for_status()
sys.stdout.buffer.write(response.content)
