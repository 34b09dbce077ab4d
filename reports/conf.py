"""Sphinx settings of the site: the executed notebooks, and the README as their front page."""

import json
from pathlib import Path

HERE = Path(__file__).parent

project = "FER2013: two reports, re-run"
author = "the fer_lib authors"
extensions = ["myst_nb"]
include_patterns = ["index.md", "paper/index.md", "model_card.md", "notebooks/*.ipynb"]
html_theme = "furo"
html_title = project
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
nb_execution_mode = "off"  # papermill has executed them
nb_render_markdown_format = "myst"  # tables in what a cell shows as Markdown
nb_output_stderr = "remove"  # progress bars
nb_remove_code_source = False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]


def _shows_drawn_faces() -> bool:
    texts = (path.read_text(encoding="utf-8") for path in (HERE / "notebooks").glob("*.ipynb"))
    return any(
        "data: drawn" in line
        for text in texts
        for cell in json.loads(text)["cells"]
        for output in cell.get("outputs", [])
        for line in output.get("text", [])
    )


html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
if _shows_drawn_faces():
    html_theme_options["announcement"] = (
        "Made from <strong>drawn faces, not FER2013</strong>: it shows that everything runs, and nothing about people."
    )
