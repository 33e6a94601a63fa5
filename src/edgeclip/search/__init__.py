"""Search pictures by words and by pictures: an index in one SQLite file, over the torch-free runtime.

with Index.open("photos.db", "builtin:tabletop") as index:
    index.add("Pictures")
    index.search("a dog on a sofa").results
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeclip.search.collection import Collection
    from edgeclip.search.filters import Filters
    from edgeclip.search.index import Index
    from edgeclip.search.rows import Added, Answer, Duplicates, Photo, Pruned, Result, Status

__all__ = ["Added", "Answer", "Collection", "Duplicates", "Filters", "Index", "Photo", "Pruned", "Result", "Status"]


def __getattr__(name: str) -> Any:
    """Import what was asked for, so that the command line starts without the runtime."""
    if name in __all__:
        module = {"Collection": "collection", "Filters": "filters", "Index": "index"}.get(name, "rows")
        return getattr(import_module(f"edgeclip.search.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
