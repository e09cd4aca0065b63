"""The user's own workflow files, as ComfyUI's page saves them or exports them: read, converted, their parameters named, changed and written.

Owns what a file may hold and the names of parameters. Knows no server: a catalog is handed in, and what a graph needs is checked by graph.py.
One way through: sources.py reads, canvas.py makes frozen values of what the page drew, subgraphs.py unfolds it, widgets.py names its values,
convert.py follows its links, workflow.py is what others see.
"""

from toolkit.exported.convert import Converted, to_api
from toolkit.exported.workflow import Parameter, Workflow

__all__ = ["Converted", "Parameter", "Workflow", "to_api"]
