"""How jobs, batches and the queue look in Jupyter: live cards while something is open, plain HTML afterwards. The only importer of ipywidgets.

Owns layout, words and colours. Holds no rules: it renders `Job` and `Progress`; what a button does is the handle's own.
"""

from toolkit.widgets.batch import BatchCard, GalleryCard
from toolkit.widgets.board import QueueBoard
from toolkit.widgets.card import ProgressCard
from toolkit.widgets.pictures import show_file, show_files

__all__ = ["BatchCard", "GalleryCard", "ProgressCard", "QueueBoard", "show_file", "show_files"]
