"""The write-up: reports/paper.md, filled in from the records, as a page of the site and as reports/report.pdf; and
the model card, reports/card.md, filled in likewise.

    python -m fer_lib.report.paper

It reads reports/ alone, so it gives the same with FER2013 at hand and without.
"""

import re
import shutil
from argparse import ArgumentParser
from pathlib import Path

from fer_lib.claims import REPORTS
from fer_lib.report.template import fill_in


def make_pdf(text: str, folder: Path, target: Path) -> None:
    """Typeset Markdown whose figures are in the folder; the same text gives the same file."""
    import pypandoc
    import typst

    source = folder / "paper.typ"
    text = re.sub(r"(?<=[\w+])'(?=s\b)", "’", text)  # after a plus sign typst takes it for an opening quote
    text = re.sub(r"\n\n(?=Table \d+\. )", "\n\n: ", text)  # a caption in pandoc's Markdown, which the site's lacks
    whole = (
        "```{=typst}\n#show figure: set figure(placement: none)\n```\n\n"  # the end is tables, each under its heading
    )
    text = text.replace("## Reproducibility checklist", f"{whole}## Reproducibility checklist", 1)
    fresh = "```{=typst}\n#pagebreak(weak: true)\n```\n\n"
    text = text.replace("## Appendix: every experiment", f"{fresh}## Appendix: every experiment", 1)
    options = [f"--template={REPORTS / 'paper.typ'}", "--shift-heading-level-by=-1", "--columns=110"]
    pypandoc.convert_text(text, "typst-smart", "markdown-citations", extra_args=options, outputfile=str(source))
    # With tags, where a page ends can be an "internal error" (github.com/typst/typst/issues/8487); the site has them.
    options = {"ignore_system_fonts": True, "timestamp": 0, "pdf_tags": False}
    typst.compile(str(source), output=str(target), root=str(folder), **options)


def main() -> None:
    folder = REPORTS / "paper"
    folder.mkdir(exist_ok=True)
    text = fill_in((REPORTS / "paper.md").read_text(encoding="utf-8"), folder)
    (folder / "index.md").write_text(text, encoding="utf-8")
    card = fill_in((REPORTS / "card.md").read_text(encoding="utf-8"), folder)
    (REPORTS / "model_card.md").write_text(card, encoding="utf-8")
    make_pdf(text, folder, REPORTS / "report.pdf")
    shutil.copy(folder / "ladder.svg", REPORTS)  # README shows it
    print(f"report.pdf, model_card.md and {folder.name}/ in {REPORTS.name}/ are made from the records")


if __name__ == "__main__":
    ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    main()
