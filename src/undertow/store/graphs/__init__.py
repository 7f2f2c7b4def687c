"""A dependency map as files, and back: a folder of Parquet, one JSON file, or GraphML.

All three hold the same: nodes with their kind and what is known of them, typed edges with quantity,
value, how they are known and which table said so, the instant, and a hash of it all. What was
written here comes back as the same map, to the bit; a file whose hash does not fit is refused. A
JSON or GraphML file from elsewhere needs no more than the kind of every node, and the ends, the
kind and the value of every edge.
"""

from __future__ import annotations

from undertow.store.graphs.form import FORMAT
from undertow.store.graphs.keeping import FORMS, form_of, read_map, require_room, write_map

__all__ = ["FORMAT", "FORMS", "form_of", "read_map", "require_room", "write_map"]
