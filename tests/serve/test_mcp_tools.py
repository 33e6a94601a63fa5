"""The tools as an assistant sees them: the package's own client, and a process of the command."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index

mcp = pytest.importorskip("mcp")
COUNT = 8


@pytest.fixture
def photos(tmp_path: Path, clip: ClipRuntime) -> Path:
    """A folder of pictures of the built-in world, indexed in photos.db beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(render(sample_scene("serve", 0, number))).save(folder / f"{number}.png", compress_level=1)
    with Index.open(tmp_path / "photos.db", clip) as index:
        index.add(folder, workers=0)
    return folder


def talk(server: Any, conversation: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with mcp.Client(server) as client:
            await conversation(client)

    anyio.run(main)


def value(result: Any) -> Any:
    assert not result.is_error, result.content
    return json.loads(result.content[0].text)


def test_an_assistant_finds_and_looks_at_pictures(photos: Path, clip: ClipRuntime):
    from edgeclip.serve.mcp_tools import make_server

    async def conversation(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search_images", "similar_images", "get_image", "index_status"}
        for tool in tools.values():
            assert tool.annotations.read_only_hint
            assert tool.input_schema["properties"]
        found = value(
            await client.call_tool("search_images", {"query": describe(sample_scene("serve", 0, 3))[0], "limit": 3})
        )
        assert str(photos / "3.png") in [row["path"] for row in found["results"]]
        path = found["results"][0]["path"]
        alike = value(await client.call_tool("similar_images", {"path": path, "limit": 2}))["results"]
        assert len(alike) == 2
        assert path not in [row["path"] for row in alike]
        (image,) = (await client.call_tool("get_image", {"path": path, "max_px": 64})).content
        assert image.mime_type == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(image.data))) as picture:
            assert max(picture.size) == 64
        assert value(await client.call_tool("index_status", {}))["photos"] == COUNT

    with Index.open(photos.parent / "photos.db", clip) as index:
        talk(make_server(index), conversation)


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("get_image", {"path": "/etc/passwd"}),
        ("get_image", {"path": "photos/../secret.png"}),
        ("get_image", {"path": "\0"}),
        ("similar_images", {"path": "elsewhere.jpg"}),
        ("search_images", {"query": ""}),
        ("search_images", {"query": "a", "after": "soon"}),
        ("search_images", {"query": "a", "limit": 0}),
    ],
)
def test_mistakes_are_told(photos: Path, clip: ClipRuntime, tool: str, given: dict[str, Any]):
    from edgeclip.serve.mcp_tools import make_server

    async def conversation(client: Any) -> None:
        result = await client.call_tool(tool, given)
        assert result.is_error
        assert "Traceback" not in result.content[0].text

    with Index.open(photos.parent / "photos.db", clip) as index:
        talk(make_server(index), conversation)


@pytest.mark.slow
def test_the_command_speaks_on_its_streams(photos: Path):
    from mcp.client.stdio import StdioServerParameters, stdio_client

    arguments = ["-m", "edgeclip", "mcp", "--db", str(photos.parent / "photos.db")]

    async def conversation(client: Any) -> None:
        assert value(await client.call_tool("search_images", {"query": "a ball", "limit": 1}))["results"]

    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    talk(stdio_client(server), conversation)
