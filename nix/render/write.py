"""The parts of scripts/render-module that are not Nix.

    write.py examples DIR    the modules that the documentation shows, as files
    write.py blocks DIR      all Nix that the documentation shows, as files
    write.py files DIR       what all.nix evaluates to, read from stdin, as files
    write.py sources         the sum of all that those files are made from
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Their Nix examples are evaluated; those marked "nix flake" are no modules.
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Made from the module, and so of no use to check it.
DOCUMENTS.remove(ROOT / "docs" / "nixos-options.md")
PREFIX = "services.docker-stack-backup."
HEAD = """# Options of the NixOS module

Made from the module by `scripts/render-module`; [nixos.md](nixos.md) shows how to
use them.
"""


def sources() -> str:
    """The sum of all that the rendered files depend on."""
    files = [ROOT / "nixos-module.nix"]
    files += sorted((ROOT / "nix").rglob("*.nix"))
    files += sorted((ROOT / "nix").rglob("*.py"))
    files += sorted((ROOT / "tests" / "vm").glob("*.nix"))
    files += sorted((ROOT / "tests" / "vm" / "fixtures").rglob("*.yaml"))
    parts = [(str(file.relative_to(ROOT)), file.read_text()) for file in files]
    total = hashlib.sha256()
    for name, content in [*parts, *examples()]:
        total.update(f"{name}\0{content}\0".encode())
    return total.hexdigest() + "\n"


def blocks(info: str) -> Iterator[tuple[str, str]]:
    """File name and content of each code block that begins with `info`, a pattern."""
    for document in DOCUMENTS:
        found = re.findall(rf"^```{info}\n(.*?)^```$", document.read_text(), re.M | re.S)
        for number, block in enumerate(found, 1):
            yield f"{document.stem}-{number}.nix", block


def examples() -> Iterator[tuple[str, str]]:
    """File name and content of each module that the documentation and examples/ show."""
    yield from blocks("nix")
    for file in sorted((ROOT / "examples").glob("*.nix")):
        yield f"example-{file.name}", file.read_text()


def write_scenario(into: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, content in files.items():
        file = into / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if "link" in content:
            file.symlink_to(content["link"])
        elif "json" in content:
            file.write_text(json.dumps(content["json"], indent=2) + "\n")
        else:
            file.write_text(content["text"])


def plain(markdown: str) -> str:
    """Nixpkgs' roles, such as {option}`x`, as plain Markdown."""
    return re.sub(r"\{(option|manpage|command|file)\}(?=`)", "", markdown).strip()


def value(name: str, value: dict[str, str]) -> str:
    """A default or an example: Nix, or words."""
    nix = value["text"]
    if value["_type"] == "literalMD":
        return f"\n{name}: {plain(nix)}\n"
    if "\n" in nix:
        return f"\n{name}:\n\n```nix\n{nix.rstrip()}\n```\n"
    return f"\n{name}: `{nix}`\n"


def reference(options: list[dict[str, Any]]) -> str:
    parts = [HEAD]
    for option in sorted(options, key=lambda option: option["name"]):
        parts.append(f"\n## {option['name'].removeprefix(PREFIX)}\n")
        parts.append(f"\n{plain(option['description'])}\n")
        parts.append(f"\nType: {option['type']}\n")
        for name in ("default", "example"):
            if option[name] is not None:
                parts.append(value(name.capitalize(), option[name]))
    return "".join(parts)


def write_examples(into: Path) -> None:
    for name, content in examples():
        # The module that they import is the one that is there already.
        content = content.replace("./docker-stack-backup/", f"{ROOT}/")
        (into / name).write_text(content)


def write_blocks(into: Path) -> None:
    for name, content in blocks("nix.*?"):
        (into / name).write_text(content)


def write_files(into: Path) -> None:
    rendered = json.load(sys.stdin)
    for kind, must_evaluate in [("accepted", True), ("refused", False)]:
        wrong = [name for name, result in rendered[kind].items() if result["success"] != must_evaluate]
        if wrong:
            sys.exit(f"error: the module must have {kind}: {', '.join(wrong)}")
    golden = into / "tests" / "vm" / "golden"
    for scenario, files in rendered["scenarios"].items():
        write_scenario(golden / scenario, files)
    write_scenario(into / "tests" / "all-options", rendered["allOptions"])
    docs = into / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "nixos-options.md").write_text(reference(rendered["options"]))
    (golden / "sources.sha256").write_text(sources())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", into]:
            write_examples(Path(into))
        case ["blocks", into]:
            write_blocks(Path(into))
        case ["files", into]:
            write_files(Path(into))
        case ["sources"]:
            sys.stdout.write(sources())
        case _:
            sys.exit(__doc__)
