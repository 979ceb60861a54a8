"""Search plugins for ra in Python.

A plugin is a class with a method ``search``; ``serve`` runs it:

    from ra_plugin import Plugin, Search, serve

    class Flat(Plugin):
        name, version, features = "flat", "1.0.0", ["keys"]

        def search(self, call: Search) -> None:
            ...

    serve(Flat())

Keys and values are numpy arrays over memory that the host shares, read-only
and not copied. The contract with the host is sdk/process/v1/README.md.
"""

from .plugin import Build, Parameter, Plugin, Search
from .server import serve
from .store import Rows, Sequence, widen

__all__ = ["Build", "Parameter", "Plugin", "Rows", "Search", "Sequence", "serve", "widen"]
