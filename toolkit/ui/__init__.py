"""The web page: write what you want to see, watch it being made, keep the file.

Owns what a visitor sees and presses. Holds no rules: requests are checked where they are made, jobs live in the studio. form.py reads the
fields, live.py follows a job, cards.py draws, look.py is theme and style, page.py joins them.
"""

from toolkit.ui.look import page_options
from toolkit.ui.page import build_page

__all__ = ["build_page", "page_options"]
