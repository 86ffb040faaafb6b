"""The fenced blocks of a page, and the comparison of what a command prints with what the page prints.

A comment `<!-- book: DIRECTIVE, … -->` directly before a block says how it is run; readers do not see it:
  server PORT   the block runs until the page ends; what follows waits until something listens on the port of 127.0.0.1
  beside        the servers that run already are not stopped first
  fails         the block has to fail
  file PATH     the block is this file of the repository, which other tests run
  psql URL      the database that a block of SQL is for; sqlite FILE likewise
"""

import dataclasses
import re

RUN = {"sh", "console", "python", "js", "go", "java", "sql", "toml"}
DIRECTIVE = re.compile(r"\s*<!-- book: (.*?) -->\s*$")
# `# api.py`, `// client.mjs`, `-- seed.sql`: the reader saves the block under this name.
NAMED = re.compile(r"(?:#|//|--|<!--) ([\w./-]+\.[a-z]+)(?: -->)?$")


class Wrong(Exception):
    """A page that does not do what it says."""


@dataclasses.dataclass
class Block:
    language: str
    text: str
    line: int
    directives: dict
    before: str
    output: str | None = None

    @property
    def name(self):
        """The file as which the reader saves this block."""
        named = NAMED.match(self.text.split("\n", 1)[0].strip())
        return named and named[1]


def blocks(page):
    """The blocks of a page in their order, each with the block of `output` that follows it."""
    found, fence, directives, before = [], None, {}, ""
    for number, line in enumerate(page.split("\n"), 1):
        if fence:
            if line.strip() == fence[1]:
                add(found, Block(fence[0], "\n".join(text) + "\n", start, directives, before))
                fence, directives = None, {}
            else:
                text.append(line.removeprefix(indent))
        elif opened := re.match(r"(\s*)(```+)(\w*)\s*$", line):
            indent, text, start = opened[1], [], number
            fence = opened[3], opened[2]
        elif named := DIRECTIVE.match(line):
            parts = (part.strip().partition(" ") for part in named[1].split(","))
            directives = {name: value for name, _, value in parts}
        elif line.strip():
            directives, before = {}, line.strip()
    if fence:
        raise Wrong(f"{start}: the block is not closed")
    return found


def add(found, block):
    if block.language == "output":
        if not found or found[-1].output is not None:
            raise Wrong(f"{block.line}: an output of no command")
        found[-1].output = block.text
    elif block.language == "console":
        # A command after each `$ `, and what it prints.
        for command in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            lines = command.split("\n")
            end = next((at for at, line in enumerate(lines) if not line.endswith("\\")), 0) + 1
            output = "\n".join(lines[end:])
            found.append(Block("console", "\n".join(lines[:end]) + "\n", block.line, block.directives, block.before, output))
    else:
        found.append(block)


def same(printed, expected):
    """Whether this was printed. `<name>` and `…` stand for any text in a line, a line `…` for any lines."""
    pattern = ""
    for line in expected.strip().split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
            continue
        parts = re.split(r"<[a-z][a-z0-9_ -]*>|…", line.rstrip())
        pattern += ".*?".join(re.escape(part) for part in parts) + r"[ \t]*\n"
    return re.fullmatch(pattern, printed.strip() + "\n") is not None
