"""`mcp`: what runs found, for assistants."""

from __future__ import annotations

from importlib.util import find_spec

from datapruner.commands import options as given
from datapruner.errors import UsageError


def mcp(url: given.Url = None) -> None:
    """Let an assistant look at runs: a server of the Model Context Protocol on standard input and output.

    Its tools list and describe datasets and runs, show rows by their scores, explain a row, answer SQL, and
    say what methods do; none changes anything. The settings of an assistant start it, see docs/mcp.md. With
    --url, they look at that service, with the token of DATAPRUNER_TOKEN.
    """
    if find_spec("mcp") is None:
        raise UsageError("mcp is not installed", remedy="pip install 'datapruner[mcp]'")
    import anyio

    from datapruner.assistants import relay, tools
    from datapruner.assistants.home import HomeSource
    from datapruner.client._address import find_token, find_url
    from datapruner.home import home_folder

    if url is None:
        source = HomeSource(home_folder())
        anyio.run(tools.server(lambda _: source, source.sql_tables).run_stdio_async)
    else:
        address = find_url(url)
        token = find_token(None, address)
        if token is None:
            raise UsageError("there is no token for the service", remedy="set DATAPRUNER_TOKEN")
        anyio.run(relay.over_stdio, str(address).rstrip("/"), token)
