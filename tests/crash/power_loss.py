"""Images of a disk after a power loss: pages of a run's files from different moments.

What the kernel had not forced to the disk reached it page by page, in any order, or not at all. A
writer is stopped a few times while it records; each file of the image then takes each of its 4 KiB
pages from one of those moments, at or behind the last that is known to be on the disk.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from crash.acked import Life, Verdict, check_line, origin_of, parse
from crash.driving import Process, Scene, Settings
from crash.ring_file import HEADER_BYTES, PAGE, RingFile, crc32c

Files = dict[str, bytes]
STREAMS = ("metrics", "performance", "errors", "log")


@dataclass
class Film:
    """A writer's files at a few moments, the last one being its death."""

    life: Life
    moments: list[Files] = field(default_factory=list)


def read_files(run: Path) -> Files:
    """All files of a run, by their path in it."""
    return {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }


def stop(process: Process) -> None:
    """Stop all threads of a writer."""
    process.signal(signal.SIGSTOP)
    process.wait_stopped()


def film(scene: Scene, settings: Settings, rng: random.Random) -> Film:
    """Let a writer record, and take its files at a few random moments and after its death."""
    process = scene.start(settings)
    taken = Film(process.life)
    wanted = rng.randint(1, 40)
    for _ in range(rng.randint(2, 5)):
        process.wait_acked(wanted)
        time.sleep(rng.uniform(0, 0.004))
        stop(process)
        taken.moments.append(read_files(scene.run))
        process.signal(signal.SIGCONT)
        wanted = sum(process.acks.counts(settings.threads)) + rng.choice((1, 30, 300))
    process.kill()
    taken.moments.append(read_files(scene.run))
    return taken


def _compose_file(versions: list[bytes], rng: random.Random) -> bytes:
    """Take each page from a random version; the size from one, or from between two."""
    style = rng.random()
    if style < 0.25:
        return versions[0]
    if style < 0.5:
        return versions[-1]
    length = len(rng.choice(versions))
    if rng.random() < 0.2 and length > PAGE:
        length = rng.randint(length // PAGE, max(len(v) for v in versions) // PAGE) * PAGE
    image = bytearray(length)
    for begin in range(0, length, PAGE):
        page = rng.choice(versions)[begin : min(begin + PAGE, length)]
        image[begin : begin + len(page)] = page  # what it lacks was never written: zeros
    return bytes(image)


def compose(taken: Film, rng: random.Random) -> Files:
    """Draw an image."""
    durable = rng.randrange(len(taken.moments))
    moments = taken.moments[durable:]
    image: Files = {}
    for name in sorted(moments[-1]):
        versions = [moment[name] for moment in moments if name in moment]
        if name not in moments[0]:
            if rng.random() < 0.3:
                continue  # its name was not on the disk
            versions.insert(0, b"")
        image[name] = _compose_file(versions, rng)
    return image


def write_image(run: Path, image: Files) -> None:
    """Lay an image out, its rings as those of another boot."""
    (run / ".fastlog").mkdir(exist_ok=True)
    for name, content in image.items():
        (run / name).write_bytes(content)
    for path in (run / ".fastlog").glob("*.ring"):
        header = path.read_bytes()[:HEADER_BYTES]
        if crc32c(header[:-4]) == int.from_bytes(header[-4:], "little"):
            ring = RingFile(path)
            ring.set_other_boot()
            ring.move_in(run)
            ring.save()


def whole_lines(files: Files, stream: str, life: Life) -> list[bytes]:
    """The lines of a stream that are whole and right, in order."""
    found = []
    for name in sorted(files, key=lambda name: (len(name), name)):
        if name.startswith(stream) and name.endswith(".jsonl"):
            *lines, _ = files[name].split(b"\n")
            found += [line for line in lines if not _why_not_right(stream, line, life)]
    return found


def _why_not_right(stream: str, raw: bytes, life: Life) -> str:
    try:
        return check_line(stream, stream, parse(raw), {life.number: life})
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        return f"{stream}: {type(error).__name__}: {raw[:100]!r}"


def check_untouched(image: Files, result: Files) -> Verdict:
    """Without a ring that can be trusted nobody changes the files."""
    verdict = Verdict()
    for name, content in image.items():
        if name.endswith(".jsonl") and result.get(name) != content:
            verdict.fail(f"{name} was changed")
    return verdict


def check_image(image: Files, result: Files, taken: Film) -> Verdict:
    """Compare what recovery made of an image with the image and with what was recorded."""
    verdict = Verdict()
    life = taken.life
    for stream in STREAMS:
        seqs: set[int] = set()
        origins: set[tuple[int, int, int]] = set()
        present: set[bytes] = set()
        for name, content in result.items():
            if not (name.startswith(stream) and name.endswith(".jsonl")):
                continue
            *lines, rest = content.split(b"\n")
            if rest:
                verdict.fail(f"{name}: torn last line {rest[:60]!r}")
            for raw in lines:
                verdict.lines += 1
                if wrong := _why_not_right(stream, raw, life):
                    verdict.fail(f"{name}: {wrong}")
                    continue
                line = parse(raw)
                origin = origin_of(stream, line)
                if line["seq"] in seqs:
                    verdict.fail(f"{name}: seq {line['seq']} twice")
                if origin is None or origin[2] > life.acked[origin[1]]:
                    verdict.fail(f"{name}: nobody recorded {line}")
                elif origin in origins:
                    verdict.fail(f"{name}: {origin} twice")
                seqs.add(line["seq"])
                origins.add(origin or (0, 0, 0))
                present.add(raw)
        if lost := set(whole_lines(image, stream, life)) - present:
            verdict.fail(f"{stream}: {len(lost)} whole lines are gone: {min(lost)[:100]!r}")
        check_pending(image, taken, stream, seqs, verdict)
    return verdict


def check_pending(image: Files, taken: Film, stream: str, seqs: set[int], verdict: Verdict) -> None:
    """Where the whole ring is that of the death, all that was in it is in the files."""
    last = taken.moments[-1]
    [name] = [name for name in last if name.endswith(".ring")]
    if image.get(name) != last[name]:
        return
    verdict.extra += 1
    _, _, first = RingFile(Path(name), last[name]).slot().streams[STREAMS.index(stream)]
    count = sum(
        life_stream == stream
        for thread, acked in enumerate(taken.life.acked)
        for life_stream in (taken.life.stream_of(thread, n) for n in range(acked))
    )
    if missing := set(range(first, count)) - seqs:
        verdict.fail(f"{stream}: seq {min(missing)} and others were in the ring and are lost")
