#!/usr/bin/env python3
"""Judges a pull request: each variant of a gate file that is other code than at the revision that it is to be merged into,
beside itself as it was there, by the gate file and the reference as they were there.

    python3 ci/judge.py --gate kernels/softmax/gate.toml --base origin/main [--out kernel-gate-out] [-- --peers none]

Leaves in --out what a service needs and nothing else: comment.md (one comment), junit.xml and report.html (where several
variants changed, one of each with its name), and the runs under runs/ (one artefact). Prints annotations of a workflow on
standard output, and appends `status` and `comment` to the file that GITHUB_OUTPUT names. Exit status, as kernel-gate's:
0 MERGE, or the same code; 1 FIX; 2 wrong usage or environment; 3 something was not measured (no GPU), or the request comes
from a fork; 4 VALID NEGATIVE. Where several hold: 2, 1, 3, 4, 0. Needs git and Python 3.10, and no package.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

MERGE, FIX, ENVIRONMENT, DEFER, VALID_NEGATIVE = 0, 1, 2, 3, 4
WORDS = {MERGE: "MERGE", FIX: "FIX", ENVIRONMENT: "not judged", DEFER: "DEFER", VALID_NEGATIVE: "VALID NEGATIVE"}
# A comment on GitHub has at most 65536 characters.
MOST_CHARACTERS = 60000
MOST_DIFFERENCES = 40
# A gate file that says what is computed; the suites of attention leave that to the program.
DECLARES = re.compile(r"^\s*\[?\s*operator\b(?!\s*=\s*.attention)", re.MULTILINE)


class Refused(Exception):
    """Wrong usage or environment, in one line."""


def git(*arguments):
    ran = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise Refused(f"git {' '.join(arguments)}: {ran.stderr.strip().splitlines()[-1]}")
    return ran.stdout.strip()


def is_from_fork():
    """Whether the event that started this job is a pull request from another repository."""
    path = os.environ.get("GITHUB_EVENT_PATH")
    if not path or not pathlib.Path(path).is_file():
        return False
    request = json.loads(pathlib.Path(path).read_text()).get("pull_request")
    if not request:
        return False
    head = (request["head"].get("repo") or {}).get("full_name")
    return head != request["base"]["repo"]["full_name"]


class Judge:
    """The program, and where what it leaves goes."""

    def __init__(self, options):
        self.program, self.out = options.program, options.out
        self.more = ["--device", options.device] + (["--gpu", options.gpu] if options.gpu else []) + options.more

    def validate(self, gate, base):
        """Exit status, and what it answers, which is None where nothing was judged."""
        against = ["--against", base] if base else []
        command = [self.program, "validate", gate, *against, "--json", "--out", str(self.out / "runs"), *self.more]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        try:
            return ran.returncode, json.loads(ran.stdout)
        except ValueError:
            return ran.returncode or ENVIRONMENT, None

    def report(self, run, form):
        """The report of a run in a form."""
        command = [self.program, "report", run, "--format", form]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout


def revision_of(options):
    """The revision that the gate file is judged against, or None and why there is none."""
    try:
        base = git("rev-parse", "--verify", "--quiet", f"{options.base}^{{commit}}")
    except (Refused, IndexError):
        raise Refused(f"the revision `{options.base}` is not in this clone: check out with fetch-depth: 0") from None
    gate = pathlib.PurePosixPath(os.path.normpath(options.gate))
    if subprocess.run(["git", "cat-file", "-e", f"{base}:{gate}"], capture_output=True).returncode:
        return None, "The gate file is new: there is nothing at the base to compare with.\n\n"
    if not DECLARES.search(pathlib.Path(options.gate).read_text()):
        return None, "The variants of this suite come with the program: they are judged as they are.\n\n"
    return base, ""


def cut(text, most, what):
    """At most so many characters, and what was left out."""
    return text if len(text) <= most else text[:most].rsplit("\n", 1)[0] + f"\n\n({what})\n"


def comment(gate, word, text):
    head = f"<!-- kernel-gate: {gate} -->\n## kernel-gate: {word} (`{gate}`)\n\n"
    return cut(head + text, MOST_CHARACTERS, "cut here; the artefact has the whole report")


def changed(differences):
    """What the request changes of the gate file and of what lies beside it."""
    lines = [line.replace("`", "'") for line in differences[:MOST_DIFFERENCES]]
    if len(differences) > MOST_DIFFERENCES:
        lines.append(f"and {len(differences) - MOST_DIFFERENCES} more")
    said = "\n".join(f"- `{line}`" for line in lines)
    return f"Changed since the base, by whose gate file and reference this is judged:\n\n{said}\n\n" if lines else ""


def whole(options):
    """Everything; returns the exit status and the comment."""
    judge = Judge(options)
    if is_from_fork() and not options.forks:
        text = "This request comes from a fork, whose code is not run here unless a maintainer allows it (`forks`).\n"
        return DEFER, comment(options.gate, WORDS[DEFER], text)
    if not pathlib.Path(options.gate).is_file():
        raise Refused(f"there is no gate file `{options.gate}`")
    base, said = revision_of(options)
    status, answer = judge.validate(options.gate, base)
    if answer is None:
        text = "The gate file was not judged; the job's log says why.\n"
        return ENVIRONMENT, comment(options.gate, WORDS[ENVIRONMENT], text)
    runs = [(run["variant"], run["run"]) for run in answer["runs"]] if base else [("", answer["run"])]
    said += changed(answer.get("differences", []))
    if not runs:
        said += "Every variant is the code that it was at the base.\n"
    for variant, run in runs:
        print(judge.report(run, "github"), end="")
        mark = f"-{variant}" if len(runs) > 1 else ""
        (options.out / f"junit{mark}.xml").write_text(judge.report(run, "junit"))
        shutil.copyfile(pathlib.Path(run) / "report.html", options.out / f"report{mark}.html")
        said += (pathlib.Path(run) / "REPORT.md").read_text() + "\n"
    return status, comment(options.gate, WORDS[status] if runs else "nothing to judge", said)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gate", required=True, help="the gate file, from the root of the repository")
    parser.add_argument("--base", required=True, help="the revision to merge into")
    parser.add_argument("--program", default="kernel-gate", help="how the judge is called")
    parser.add_argument("--out", default="kernel-gate-out", type=pathlib.Path, help="the folder to fill; must not be there")
    parser.add_argument("--device", default="auto", choices=["auto", "gpu", "emulator"], help="where cases run")
    parser.add_argument("--gpu", default="", help="the GPU to use: its number or UUID")
    parser.add_argument("--forks", action="store_true", help="also run the code of pull requests from forks")
    parser.add_argument("more", nargs="*", help="after --: further options of validate, such as --peers none")
    options = parser.parse_args()
    options.out = options.out.absolute()
    try:
        if options.out.exists():
            raise Refused(f"`{options.out}` is there already")
        if shutil.which(options.program) is None:
            raise Refused(f"there is no program `{options.program}`: install the wheel, or name it with --program")
        options.out.mkdir(parents=True)
        status, text = whole(options)
    except Refused as why:
        print(f"error: {why}", file=sys.stderr)
        return ENVIRONMENT
    (options.out / "comment.md").write_text(text)
    if os.environ.get("GITHUB_OUTPUT"):
        with open(os.environ["GITHUB_OUTPUT"], "a") as outputs:
            outputs.write(f"status={status}\ncomment={options.out / 'comment.md'}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
