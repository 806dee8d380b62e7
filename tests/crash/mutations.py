"""The mutation check: breaks one step of the protocol at a time and shows which test notices.

    python tests/crash/mutations.py [WORDS OF A NAME...]    # all: a quarter of an hour

Each of mutations.txt is a patch of one place; its test must pass on the sources as they are
and fail on the broken ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mutants  # noqa: E402 - the path comes first
from mutants import ROOT, Mutation  # noqa: E402

# A case of tests/cpp, by a pattern of its name; other tests are those of this directory.
CPP = "cpp:"
CPP_TESTS = (
    "test_batch_writer_streams.cpp test_ticket_stack.cpp test_device_pool.cpp "
    "test_device_faults.cpp test_device_reader.cpp test_ring_image.cpp test_recorder_device.cpp "
    "test_shadow_files.cpp"
)
MUTATIONS = mutants.read(HERE / "mutations.txt")


class Workshop(mutants.Workshop):
    def __init__(self, folder: Path) -> None:
        self.csrc = folder / "csrc"
        self.build_folder = folder / "build"
        self.report = folder / "report.xml"
        shutil.copytree(ROOT / "csrc", self.csrc)
        # Many small builds: what the optimizer would make of them is not asked here.
        self.env = {
            **os.environ,
            "CXXFLAGS": "-O0",
            "WERROR": "",
            "UNITY": "no",
            "FASTLOG_CRASH_CSRC": str(self.csrc),
            "FASTLOG_CRASH_BUILD": str(self.build_folder),
        }

    def ready(self, mutations: Sequence[Mutation]) -> None:
        for mutation in {mutation.test: mutation for mutation in mutations}.values():
            if (answer := self.ask(mutation)[1]) != f"{mutation.test} passed":
                raise SystemExit(f"the sources as they are: {answer}")

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        if mutation.test.startswith(CPP):
            answer = self.ask_cpp(mutation.test.removeprefix(CPP))
        else:
            self.make(HERE, mutation.variant, f"VARIANT={mutation.variant}")
            answer = self.ask_python(mutation.test)
        return answer == "failed", f"{mutation.test} {answer}"

    def make(self, folder: Path, name: str, *arguments: str) -> None:
        command = ["make", "--no-print-directory", "-C", folder, f"-j{os.cpu_count() or 2}"]
        command += [f"BUILD={self.build_folder / name}", f"CSRC={self.csrc}", *arguments]
        mutants.build(command, env=self.env)

    def ask_python(self, test: str) -> str:
        """Run a test of this directory; return passed, failed or what else happened to it."""
        self.report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += [f"--junitxml={self.report}", f"tests/crash/{test}"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )
        if not self.report.exists():
            return f"no report (status {done.returncode}):\n{done.stdout[-2000:]}"
        suite = ET.parse(self.report).getroot().find("testsuite")
        counts = {
            key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
        }
        if counts["errors"] or counts["skipped"] or not counts["tests"]:
            return f"error:\n{done.stdout[-2000:]}"
        return "failed" if counts["failures"] else "passed"

    def ask_cpp(self, pattern: str) -> str:
        """Run cases of tests/cpp; one that hangs or ends the program has noticed as well."""
        cxxflags = f"CXXFLAGS={self.env['CXXFLAGS']} -Wno-error"
        tests = f"TESTS={CPP_TESTS}"
        self.make(ROOT / "tests" / "cpp", "cpp", "build", "VARIANT=plain", tests, cxxflags)
        runner = self.build_folder / "cpp" / "run_tests"
        try:
            done = subprocess.run(
                [runner, f"--test-case={pattern}"],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "failed"
        if done.returncode == 0 and not re.search(r"test cases: +1 \|", done.stdout):
            return f"error: not one case {pattern}"
        return "failed" if done.returncode else "passed"


if __name__ == "__main__":
    # Those of ThreadSanitizer come last: they touch a header that all the other builds include.
    ordered = sorted(MUTATIONS, key=lambda mutation: mutation.variant == "tsan")
    sys.exit(mutants.main(__doc__, ordered, Workshop))
