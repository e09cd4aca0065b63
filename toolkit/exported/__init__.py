"""The user's own workflow files: read, their parameters named, changed and written again.

Owns what a file may hold (API format for now) and the names of parameters. Knows no server: what a graph needs is checked by graph.py.
"""

from toolkit.exported.workflow import Parameter, Workflow

__all__ = ["Parameter", "Workflow"]
