"""How the page looks: theme, style sheet, and what the mount must be told.

System fonts only and no external address: the page works without the internet and tells nobody that it was opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from toolkit.settings import Settings

STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
UPLOAD_LIMIT = "32mb"  # a workflow, or a picture or clip that carries one
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Hiragino Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "Noto Sans Mono", "monospace")
MULBERRY = gr.themes.Color(
    "#fcf4f7", "#f9e8ef", "#f2cfde", "#e6a9c2", "#d67ba0", "#bf5582", "#a33d69", "#873056", "#702a49", "#5e273f", "#371222", name="mulberry"
)
INK = gr.themes.Color("#faf9fb", "#f3f1f5", "#e6e2ea", "#d0cad7", "#a59cb1", "#786e86", "#5c5369", "#463e52", "#2c2636", "#1d1825", "#14101a", name="ink")
# the address bar of a phone takes the page's colour
HEAD = """
<meta name="theme-color" content="#faf9fb" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#14101a" media="(prefers-color-scheme: dark)">
<meta name="referrer" content="same-origin">
"""


def theme() -> gr.themes.Base:
    """Calm ink and paper with one colour for what one presses."""
    return gr.themes.Base(primary_hue=MULBERRY, secondary_hue=MULBERRY, neutral_hue=INK, font=FONTS, font_mono=MONO, radius_size="lg").set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_padding="0px",
        block_label_text_weight="600",
        block_title_text_weight="600",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
    )


def page_options(home: Path | None = None) -> dict[str, Any]:
    """What `gr.mount_gradio_app` needs besides the page.

    Args:
        home: the studio's home, whose projects folder is the only one served; None: the home that the environment names.
    """
    projects = (home or Settings.read().home) / "projects"
    return {
        "theme": theme(),
        "css_paths": [STYLE],
        "head": f"{HEAD}<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        "allowed_paths": [str(projects)],
        "footer_links": [],
        "run_history": False,  # gradio would keep every call in the browser
        "show_error": False,  # errors worth showing are sentences on the page; others belong into the log
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "max_file_size": UPLOAD_LIMIT,
    }
