"""The mutation check: breaks one step of the protocol at a time and shows which test notices.

    python tests/crash/mutations.py [WORDS OF A NAME...]    # all: a quarter of an hour

Each mutation is a patch of one place; a test named beforehand must pass on the sources as they are
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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mutants  # noqa: E402 - the path comes first
from mutants import ROOT, Patch  # noqa: E402

PROTOCOL = "test_protocol.py::"
KILL_POINTS = "test_kill_points.py::"
POWER_LOSS = "test_power_loss.py::"
WAITING = "test_waiting_streams.py::"
# A case of tests/cpp, by a pattern of its name.
CPP = "cpp:"
CPP_TESTS = (
    "test_batch_writer_streams.cpp test_ticket_stack.cpp test_device_pool.cpp "
    "test_device_faults.cpp test_device_reader.cpp test_ring_image.cpp test_recorder_device.cpp "
    "test_shadow_files.cpp"
)
REUSED = PROTOCOL + "test_bytes_are_not_reused_before_it_is_committed_that_they_are_written"
ORDERS = PROTOCOL + "test_orders_that_threads_rely_on"


@dataclass(frozen=True)
class Mutation:
    """A broken step.

    Attributes:
        name: What is broken.
        file: In csrc/core, or with its folder in csrc.
        old: The text there, which must occur exactly once.
        new: What takes its place.
        test: Who must notice: a file and test below tests/crash, or "cpp:" and a case of tests/cpp.
        variant: The build that the test uses.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    variant: str = "plain"

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The one patch."""
        return (Patch(self.file if "/" in self.file else f"core/{self.file}", self.old, self.new),)


MUTATIONS = (
    Mutation(
        "head moves before the commit slot is published",
        "live_ring.cpp",
        "    if (memory_.mapped()) {\n        const std::uint64_t epoch =",
        "    ring_.release_to(slot.position);\n"
        "    if (memory_.mapped()) {\n        const std::uint64_t epoch =",
        REUSED + "[slot_begun-5]",
    ),
    Mutation(
        "commit before write",
        "batch_writer.cpp",
        "    if (!dirty_ && !write()) return Step::refused;",
        "    if (!dirty_ && (!commit() || !write())) return Step::refused;",
        KILL_POINTS + "test_writer_killed_at[stream_written-2]",
    ),
    Mutation(
        "stamp published before the payload is written",
        "recorder.hpp",
        "        write(MpscRing::payload_of(claim));\n        ring_.commit(claim);",
        "        ring_.commit(claim);\n        write(MpscRing::payload_of(claim));",
        PROTOCOL + "test_an_unfinished_record_is_never_read[20]",
    ),
    Mutation(
        "stamp without release",
        "mpsc_ring.hpp",
        "stamp_at(claim.at)->store(stamp_for(claim.position), std::memory_order_release)",
        "stamp_at(claim.at)->store(stamp_for(claim.position), std::memory_order_relaxed)",
        ORDERS,
        variant="tsan",
    ),
    Mutation(
        "stamp read without acquire",
        "mpsc_ring.hpp",
        "if (stamp_at(place)->load(std::memory_order_acquire)",
        "if (stamp_at(place)->load(std::memory_order_relaxed)",
        ORDERS,
        variant="tsan",
    ),
    Mutation(
        "head stored without release",
        "mpsc_ring.hpp",
        "control_->head.store(position, std::memory_order_seq_cst)",
        "control_->head.store(position, std::memory_order_relaxed)",
        ORDERS,
        variant="tsan",
    ),
    Mutation(
        "head read without acquire",
        "mpsc_ring.hpp",
        "        const std::uint64_t head = control_->head.load(std::memory_order_acquire);\n"
        "                control_",
        "        const std::uint64_t head = control_->head.load(std::memory_order_relaxed);\n"
        "                control_",
        ORDERS,
        variant="tsan",
    ),
    Mutation(
        "copy of the head read without acquire",
        "mpsc_ring.hpp",
        "control_->head_cache.load(std::memory_order_acquire)",
        "control_->head_cache.load(std::memory_order_relaxed)",
        ORDERS,
        variant="tsan",
    ),
    Mutation(
        "record's checksum not checked",
        "ring_image.cpp",
        "if (record->crc == record_crc(*record, payload, position)) return record;",
        "return record;",
        PROTOCOL + "test_a_damaged_record_is_not_written[payload's last byte]",
    ),
    Mutation(
        "recovery stops at a hole",
        "ring_image.cpp",
        "            at += kRecordAlign;\n            hole += kRecordAlign;\n            continue;",
        "            break;",
        PROTOCOL + "test_records_behind_an_unfinished_one_are_recovered",
    ),
    Mutation(
        "commit slot's checksum not checked",
        "ring_image.cpp",
        "if (slot.crc != slot_crc(slot) || !plausible(slot, header_.ring_bytes)) continue;",
        "if (!plausible(slot, header_.ring_bytes)) continue;",
        PROTOCOL + "test_a_torn_commit_slot_is_not_used[3-40]",
    ),
    Mutation(
        "older commit slot preferred",
        "ring_image.cpp",
        "if (found && slot.epoch <= slot_.epoch) continue;",
        "if (found && slot.epoch >= slot_.epoch) continue;",
        REUSED + "[committed-5]",
    ),
    Mutation(
        "pad taken for a record by recovery",
        "ring_image.cpp",
        "if (record->kind != RecordKind::pad) {",
        "if (record != nullptr) {",
        PROTOCOL + "test_a_pad_is_no_record",
    ),
    Mutation(
        "pad taken for a record by the flush thread",
        "live_ring.cpp",
        "if (record == nullptr || record->kind != RecordKind::pad) return record;",
        "return record;",
        PROTOCOL + "test_a_pad_is_no_record",
    ),
    Mutation(
        "recovery does not cut torn lines",
        "line_inventory.cpp",
        "                found.size += rest.size();\n                break;",
        "                found.end = found.size += rest.size();\n                break;",
        PROTOCOL + "test_what_is_torn_behind_the_commit_is_cut",
    ),
    Mutation(
        "recovery does not know the segments that were begun",
        "ring_image.cpp",
        "if (note.used == 1) segments.push_back(note.segment);",
        "",
        PROTOCOL + "test_segments_that_were_begun_and_not_committed_are_gone_on_with",
    ),
    Mutation(
        "recovery keeps lines twice that were being moved",
        "line_inventory.cpp",
        "if (head.numbered && head.seq < noted.seq && noted.exists != 0) {",
        "if (head.numbered && head.seq + 1 < 1) {",
        KILL_POINTS + "test_writer_killed_after_a_failed_fsync[interval-unsynced_moved:1-2]",
    ),
    Mutation(
        "lines moved after a failed fsync stay where they were, too",
        "stream_files_writing.cpp",
        "    if (!f.has_trim) return {};\n",
        "    f.has_trim = false;\n    return {};\n",
        KILL_POINTS + "test_writer_killed_after_a_failed_fsync",
    ),
    Mutation(
        "recovery forgets that drops have their markers",
        "dead_ring.cpp",
        "flags_ |= CommitSlot::kDropsWritten;",
        "",
        KILL_POINTS + "test_recovery_killed_at_each_pass_of[committed-True]",
    ),
    Mutation(
        "recovery does not ask for the lock",
        "recovery.cpp",
        "bool lock_dead(RunFiles& files, int fd) {\n",
        "bool lock_dead(RunFiles& files, int fd) {\n    if (fd >= 0) return true;\n",
        KILL_POINTS + "test_second_recoverer_leaves_the_first_alone",
    ),
    Mutation(
        "after a power loss all is written again",
        "dead_ring.cpp",
        "present_[s].contains(seq) || (",
        "(",
        PROTOCOL + "test_lines_that_are_there_are_not_written_again_after_a_power_loss",
    ),
    Mutation(
        "after a power loss numbers are trusted behind a hole",
        "dead_ring.cpp",
        "if (report_.holes + report_.damaged != 0) flags_ |= CommitSlot::kRecordsLost;",
        "",
        POWER_LOSS + "test_behind_a_hole_no_line_is_written_twice",
    ),
    Mutation(
        "key set's checksum not checked",
        "key_table.cpp",
        " || get_u32(at + kCrcOffset) != entry_crc(at)",
        "",
        POWER_LOSS + "test_key_sets_on_a_lost_page_are_not_guessed",
    ),
    Mutation(
        "bounds of a string not checked",
        "line_renderer.cpp",
        "if ((bits >> 32) > strings || size > strings - (bits >> 32)) return false;",
        "if (size > (std::uint64_t{1} << 40) + strings) return false;",
        "test_fuzz.py::test_no_ring_file_breaks_who_reads_it",
        variant="asan",
    ),
    Mutation(
        "commit slot does not say which streams are ahead",
        "batch_writer.cpp",
        "static_cast<std::uint32_t>((cursors_[s] - slot.position) / kRecordAlign);",
        "0;",
        CPP + "*should state in the commit slot how far each stream is ahead*",
    ),
    Mutation(
        "recovery writes again what streams ahead have written",
        "batch_writer.cpp",
        "committed_[s] = start.stream_position(static_cast<Stream>(s));",
        "committed_[s] = start.position;",
        WAITING + "test_a_stream_that_is_ahead_is_not_written_twice",
    ),
    Mutation(
        "a view of the files forgets a cut",
        "shadow_file.cpp",
        "    cut_kept(new_size);\n",
        "",
        CPP + "*should show a file that is cut and written on*",
    ),
    Mutation(
        "a view of the files locks a ring alone",
        "shadow_files.cpp",
        "(operation & LOCK_UN) != 0 ? operation : LOCK_SH | LOCK_NB",
        "operation",
        CPP + "*should share its lock with other readers*",
    ),
    Mutation(
        "recovery checks and counts what is written already",
        "dead_ring.cpp",
        "is_written(*record, position) || ",
        "",
        CPP + "*should neither check nor count what lies before*",
    ),
    Mutation(
        "stream ahead of more than the ring believed",
        "ring_image.cpp",
        "s.ahead <= ring_bytes / kRecordAlign;",
        "ring_bytes != 0;",
        CPP + "*should believe a stream ahead by no more*",
    ),
    Mutation(
        "head moves beyond a record that waits",
        "live_ring.cpp",
        "ring_.release_to(slot.position);",
        "ring_.release_to(slot.stream_position(Stream::errors));",
        CPP + "*should flush a stream although another waits*",
    ),
    Mutation(
        "records overtake one of their stream that waits",
        "batch_writer.cpp",
        "if (position < cursors_[s] || waiting[s]) {",
        "if (position < cursors_[s]) {",
        CPP + "*should write the other streams while one waits*",
    ),
    Mutation(
        "ticket released before its value is read",
        "batch_writer.cpp",
        "            renderer_.render(*record, seq_[s], line_, device);\n",
        "            if (device != nullptr && record->flags != 0) {\n"
        "                device->release(ticket_of(*record));\n            }\n"
        "            renderer_.render(*record, seq_[s], line_, device);\n",
        WAITING + "test_all_is_there_after_a_close_with_values_under_way[0]",
    ),
    Mutation(
        "ticket not released",
        "batch_writer.cpp",
        "if (device != nullptr && record->flags != 0) device->release(ticket_of(*record));",
        "",
        CPP + "*should write the other streams while one waits*",
    ),
    Mutation(
        "device asked for only when a round begins",
        "batch_writer.cpp",
        "if (device == nullptr && record->flags != 0) {",
        "if (device == nullptr && record == nullptr) {",
        CPP + "*should wait for the first record with tickets*",
    ),
    Mutation(
        "value read before its copy has ended",
        "device/device_reader.cpp",
        "if (code == DriverApi::kSuccess) {\n        ticket.settled",
        "if (code == DriverApi::kSuccess || code == DriverApi::kNotReady) {\n"
        "        ticket.settled",
        CPP + "*should ask a busy stream once a round*",
    ),
    Mutation(
        "slot used again before a late copy has ended",
        "device/device_reader.cpp",
        "if (ticket.late && !ticket.times) {",
        "if (ticket.late && ticket.times) {",
        CPP + "*should use a slot again only when the late copy*",
    ),
    Mutation(
        "slot of a refused record used again at once",
        "device/device_pool.cpp",
        "if (tickets_[number].times) {",
        "if (number != kNoTicket) {",
        CPP + "*should use a slot again only when the late copy*",
    ),
    Mutation(
        "late copies stand before records that wait",
        "device/device_reader.cpp",
        "    }\n    busy_.clear();\n}",
        "    }\n}",
        CPP + "*should see an old record's value*",
    ),
    Mutation(
        "ticket used again whose event was not recorded",
        "device/device_pool.cpp",
        "    if (ticket.lost) return;\n",
        "",
        CPP + "*whose event was not recorded*",
    ),
    Mutation(
        "ticket that came back is taken for the same",
        "device/ticket.hpp",
        "((head & ~kNumber) + kOnePush) | number",
        "(head & ~kNumber) | number",
        CPP + "*should not take a ticket that came back*",
    ),
    Mutation(
        "forked child asks about late copies",
        "device/device_reader.cpp",
        "    if (DevicePool::in_forked_child()) return;  // what is late is the parent's\n",
        "",
        CPP + "*should touch neither driver nor slots in a forked child*",
    ),
)


class Workshop(mutants.Workshop):
    """A copy of csrc, its build, and a way to ask a test about it."""

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
        """Ask all tests."""
        for mutation in {mutation.test: mutation for mutation in mutations}.values():
            if (answer := self.ask(mutation)[1]) != f"{mutation.test} passed":
                raise SystemExit(f"the sources as they are: {answer}")

    def ask(self, mutation: Mutation) -> tuple[bool, str]:
        """Run a test."""
        if mutation.test.startswith(CPP):
            answer = self.ask_cpp(mutation.test.removeprefix(CPP))
        else:
            self.make(HERE, mutation.variant, f"VARIANT={mutation.variant}")
            answer = self.ask_python(mutation.test)
        return answer == "failed", f"{mutation.test} {answer}"

    def make(self, folder: Path, name: str, *arguments: str) -> None:
        """Build what changed."""
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
