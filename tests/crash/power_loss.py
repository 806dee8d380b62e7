"""What recovery may make of files of which a power loss took pages."""

from __future__ import annotations

from pathlib import Path

from crash.acked import Life, Verdict, check_line, origin_of, parse

Files = dict[str, bytes]
STREAMS = ("metrics", "performance", "errors", "log", "system")


def read_files(run: Path) -> Files:
    return {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }


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


def check_image(image: Files, result: Files, life: Life) -> Verdict:
    """Compare what recovery made of an image with the image and with what was recorded."""
    verdict = Verdict()
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
    return verdict
