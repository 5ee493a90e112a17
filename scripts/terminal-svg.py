"""Draws what a terminal showed as an SVG: the recording on stdin, the picture on
stdout. Lines that begin with "# " are those that were typed."""

import re
import sys
from html import escape

FONT_SIZE = 13
CHAR_WIDTH = 7.83
LINE_HEIGHT = 18
MARGIN = 16
TITLE_HEIGHT = 30


def shown(recorded: str) -> list[str]:
    """What is left on the screen: a progress line is drawn over and erased."""
    lines = []
    for line in recorded.replace("\r\n", "\n").split("\n"):
        rest = line.rsplit("\r", 1)[-1]
        lines.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", rest).rstrip())
    return "\n".join(lines).strip("\n").split("\n")


def style(line: str) -> str:
    if line.startswith("# "):
        return "typed"
    if line.startswith(("SUCCESS", "ok ")):
        return "good"
    if re.match(r"[A-Z ]{5,}\b", line):
        return "title"
    return "text"


def svg(lines: list[str]) -> str:
    width = round(max(map(len, lines)) * CHAR_WIDTH + 2 * MARGIN)
    height = TITLE_HEIGHT + len(lines) * LINE_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img">',
        "<title>A run of docker-stack-backup in a terminal</title>",
        "<style>",
        f"text {{ font: {FONT_SIZE}px ui-monospace, Menlo, Consolas, monospace;"
        " white-space: pre; }",
        ".typed { fill: #ffffff; font-weight: bold; } .good { fill: #7ee787; }",
        ".title { fill: #79c0ff; } .text { fill: #c9d1d9; }",
        "</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    for number, color in enumerate(["#ff5f56", "#ffbd2e", "#27c93f"]):
        parts.append(f'<circle cx="{20 + 20 * number}" cy="18" r="6" fill="{color}"/>')
    for number, line in enumerate(lines):
        if not line:
            continue
        y = TITLE_HEIGHT + MARGIN + number * LINE_HEIGHT + FONT_SIZE
        # The length keeps columns in line, whatever font the reader has.
        parts.append(
            f'<text class="{style(line)}" x="{MARGIN}" y="{y}" xml:space="preserve"'
            f' textLength="{len(line) * CHAR_WIDTH:.1f}">{escape(line)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


sys.stdout.write(svg(shown(sys.stdin.read())))
