"""The test of the book fails when it has to.

Usage: test_run.py PATH_OF_GRANTD
"""

import subprocess
import sys
import unittest
from pathlib import Path

from blocks import Wrong, blocks, same

HERE = Path(__file__).resolve().parent
BROKEN = {
    "a command that fails": "```sh\ngrantd no-such-command\n```\n",
    "other output": "```sh\necho one\n```\n\n```output\ntwo\n```\n",
    "an expected failure that does not come": "<!-- book: fails -->\n```sh\ntrue\n```\n",
    "a program that is never used": "```python\n# unused.py\nprint()\n```\n",
    "a key that does not exist": '```toml\nno_such_key = "x"\n```\n',
    "no reason for text": "Text.\n\n```text\ngrantd serve\n```\n",
    "another file": "<!-- book: file examples/gateways/nginx.conf -->\n```nginx\nserver {}\n```\n",
    "a server that does not start": "```sh\ngrantd serve --set server.listen=nowhere\n```\n",
}


class Pages(unittest.TestCase):
    def test_each_broken_page_fails(self):
        page = HERE / "broken.md"
        try:
            for what, text in BROKEN.items():
                page.write_text(text)
                command = [sys.executable, "-B", HERE / "run.py", sys.argv[1], "tests/book/broken.md"]
                done = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual((done.returncode, "1 failed" in done.stdout), (1, True), f"{what}: {done.stdout}{done.stderr}")
        finally:
            page.unlink()


class Blocks(unittest.TestCase):
    def test_a_console_block_is_commands_with_their_output(self):
        found = blocks("```console\n$ echo a \\\n  b\na b\n$ true\n```\n")
        self.assertEqual([(one.text, one.output) for one in found], [("echo a \\\n  b\n", "a b\n"), ("true\n", "")])

    def test_a_directive_counts_for_the_block_right_after_it(self):
        found = blocks("<!-- book: server 9000, beside -->\n```sh\na\n```\n\n```sh\nb\n```\n")
        self.assertEqual([one.directives for one in found], [{"server": "9000", "beside": ""}, {}])

    def test_a_first_comment_names_the_file(self):
        names = [blocks(f"```x\n{line}\n```\n")[0].name for line in ("# a/b.py", "// a.mjs", "# What follows", "a = 1 # b.py")]
        self.assertEqual(names, ["a/b.py", "a.mjs", None, None])

    def test_an_open_block_is_an_error(self):
        self.assertRaises(Wrong, blocks, "```sh\ntrue\n")

    def test_placeholders_stand_for_text_in_a_line_and_for_lines(self):
        for printed, expected, is_same in [
            ("a 1 b\n", "a <number> b\n", True),
            ("a 1 b\nc\n", "a <number> b\n", False),
            ("x\na\ny\nz\n", "…\na\n…\n", True),
            ("a\n", "…\na\n…\n", True),
            ('{"a":"<b>"}\n', '{"a":"…"}\n', True),
            ("a+b\n", "aab\n", False),
        ]:
            self.assertEqual(same(printed, expected), is_same, (printed, expected))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
