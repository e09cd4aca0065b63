"""The log one asks with SQL: `stats.duckdb`, made from the ledger and never written by anybody but its publisher.

Owns the tables (tables.py), how jobs become rows (rows.py), the private working file (workfile.py), the border to DuckDB
(connections.py), exports (exports.py), the logs of several homes in one (merging.py) and the door to all of it (log.py). Must not know who
runs jobs. DuckDB is loaded with the first question, not by importing this package.
"""

from toolkit.stats.log import Stats, merge_logs

__all__ = ["Stats", "merge_logs"]
