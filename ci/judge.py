#!/usr/bin/env python3
"""Judges a pull request: the gate file of the working tree, and the same file at the revision that it is to be merged into.

    python3 ci/judge.py --gate kernels/softmax/gate.toml --base origin/main [--out kernel-gate-out] [-- --peers none]

Leaves in --out what a service needs and nothing else: comment.md (one comment), junit.xml, report.html, and the two runs under
head/ and base/ (one artefact). Prints annotations of a workflow on standard output, and appends `status` and `comment` to the
file that GITHUB_OUTPUT names. Exit status, as kernel-gate's: 0 MERGE; 1 FIX, or a gate that passed at the base fails now;
2 wrong usage or environment; 3 something was not measured (no GPU), or the request comes from a fork; 4 VALID NEGATIVE.
Where several hold: 2, 1, 3, 4, 0. Needs git and Python 3.10, and no package.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MERGE, FIX, ENVIRONMENT, DEFER, VALID_NEGATIVE = 0, 1, 2, 3, 4
PRECEDENCE = [ENVIRONMENT, FIX, DEFER, VALID_NEGATIVE, MERGE]
WORDS = {MERGE: "MERGE", FIX: "FIX", ENVIRONMENT: "not judged", DEFER: "DEFER", VALID_NEGATIVE: "VALID NEGATIVE"}
# A comment on GitHub has at most 65536 characters.
MOST_CHARACTERS = 60000
MOST_COMPARED_LINES = 40


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

    def validate(self, gate, folder):
        """Judges a gate file; its exit status and its run, which is None where there is none."""
        command = [self.program, "validate", str(gate), "--json", "--out", str(self.out / folder), *self.more]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        try:
            return ran.returncode, json.loads(ran.stdout)["run"]
        except (ValueError, KeyError):
            return ran.returncode or ENVIRONMENT, None

    def told(self, *arguments):
        """Exit status and standard output of a command that only reads."""
        ran = subprocess.run([self.program, *arguments], stdout=subprocess.PIPE, text=True)
        return ran.returncode, ran.stdout


def judged_base(judge, gate, base):
    """The run at the base, or why there is none, and what that means for the exit status."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kernel-gate-base-"))
    tree = folder / "tree"
    try:
        git("worktree", "add", "--detach", "--quiet", str(tree), base)
        if not (tree / gate).is_file():
            return None, "The gate file is new: there is nothing at the base to compare with.", MERGE
        _, run = judge.validate(tree / gate, "base")
        if run is None:
            return None, "The base could not be judged, so whether a gate became worse is not known.", DEFER
        return run, None, MERGE
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def cut(text, most, what):
    """At most so many lines or characters, and what was left out."""
    return text if len(text) <= most else text[:most].rsplit("\n", 1)[0] + f"\n\n({what})\n"


def comment(gate, status, report, comparison):
    head = f"<!-- kernel-gate: {gate} -->\n## kernel-gate: {WORDS[status]} (`{gate}`)\n\n"
    return cut(head + comparison + report, MOST_CHARACTERS, "cut here; the artefact has the whole report")


def compared(judge, base, head):
    """The section on what became of the gates since the base, and the exit status of that."""
    status, text = judge.told("compare", base, head, "--fail-on-regression")
    lines = text.strip().splitlines()
    more = len(lines) - MOST_COMPARED_LINES
    lines = lines[:MOST_COMPARED_LINES] + ([f"... and {more} lines more"] if more > 0 else [])
    words = {FIX: "A gate that passes at the base fails.", DEFER: "A gate that passes at the base is open or missing."}
    said = words.get(status, "No gate that passes at the base fails.")
    body = "\n".join(lines)
    return status, f"{said}\n\n<details><summary>Base and head</summary>\n\n```\n{body}\n```\n\n</details>\n\n"


def whole(options):
    """Everything; returns the exit status and the comment."""
    judge = Judge(options)
    if is_from_fork() and not options.forks:
        text = "This request comes from a fork, whose code is not run here unless a maintainer allows it (`forks`).\n"
        return DEFER, comment(options.gate, DEFER, text, "")
    if not pathlib.Path(options.gate).is_file():
        raise Refused(f"there is no gate file `{options.gate}`")
    try:
        base = git("rev-parse", "--verify", "--quiet", f"{options.base}^{{commit}}")
    except (Refused, IndexError):
        raise Refused(f"the revision `{options.base}` is not in this clone: check out with fetch-depth: 0") from None
    before, why, missing = judged_base(judge, options.gate, base)
    status, run = judge.validate(options.gate, "head")
    if run is None:
        text = "The gate file was not judged; the job's log says why.\n"
        return ENVIRONMENT, comment(options.gate, ENVIRONMENT, text, "")
    statuses = [status, missing]
    comparison = f"{why}\n\n"
    if before is not None:
        worse, comparison = compared(judge, before, run)
        statuses.append(worse)
    status = min(statuses, key=PRECEDENCE.index)
    print(judge.told("report", run, "--format", "github")[1], end="")
    (options.out / "junit.xml").write_text(judge.told("report", run, "--format", "junit")[1])
    shutil.copyfile(pathlib.Path(run) / "report.html", options.out / "report.html")
    return status, comment(options.gate, status, (pathlib.Path(run) / "REPORT.md").read_text(), comparison)


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
