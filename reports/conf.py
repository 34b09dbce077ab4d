"""Sphinx settings of the site: the executed notebooks, behind a first page with the verdicts."""

import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here))  # pages.py

project = "FER2013: two reports, re-run"
author = "the fer_lib authors"
extensions = ["myst_nb", "pages"]
include_patterns = ["*.md", "paper/index.md", "notebooks/*.ipynb"]
exclude_patterns = ["card.md", "paper.md", "summary.md"]  # templates
html_theme = "furo"
html_title = project
html_static_path = ["site.css", "site.js", "try.js", *map(str, here.glob("browser/network.js"))]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
nb_execution_mode = "off"  # papermill has executed them
nb_render_markdown_format = "myst"  # tables in what a cell shows as Markdown
nb_output_stderr = "remove"  # progress bars
nb_code_prompt_show = nb_code_prompt_hide = "Code"
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline", "dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]
