"""What a print becomes: the message, the level and the fields, or the reason why it stays."""

from __future__ import annotations

import textwrap

import pytest

from foundry_fastlog.migrate import Finding, Options, migrate_source


def finding(code: str, **options: object) -> Finding:
    report = migrate_source(textwrap.dedent(code), Options(**options))  # type: ignore[arg-type]
    assert report.error is None
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def becomes(code: str, **options: object) -> str:
    found = finding(code, **options)
    assert found.status == "convert", found
    assert found.new is not None
    return found.new


def stays(code: str, **options: object) -> str:
    found = finding(code, **options)
    assert found.status == "left", found
    assert found.new is None
    assert found.reason is not None
    return found.reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # The plan's patterns
        ('print(f"Loaded {len(ds)} examples")',
         'logger.info("Loaded examples", num_examples=len(ds))'),
        ('print(f"  ✓ Loaded {len(dataset)} examples")',
         'logger.info("Loaded examples", num_examples=len(dataset))'),
        ('print(f"  ✓ Training dataset loaded successfully")',
         'logger.info("Training dataset loaded successfully")'),
        ('print(f"    - Training size: {len(train_dataset):,} examples")',
         'logger.info("Training size", num_examples=len(train_dataset))'),
        # Text alone
        ('print("Done.")', 'logger.info("Done")'),
        ("print('Starting training...')", 'logger.info("Starting training")'),
        ('print("=== Summary ===")', 'logger.info("Summary")'),
        ('print("\\n" + "=" * 60 + "\\nSummary")', 'logger.info("Summary")'),
        ('print("== Table " + "=" * 9 + "\\n" + "/" * 9 + "\\n")', 'logger.info("Table")'),
        ('print(f"Rows:\\n-----\\n{rows}")', 'logger.info("Rows", rows=rows)'),
        ('print("--flag is missing")', 'logger.info("--flag is missing")'),
        ('print("a" "b" f"c")', 'logger.info("abc")'),
        ('print("say \\"hi\\"")', "logger.info('say \"hi\"')"),
        ('print("100% sure")', 'logger.info("100% sure")'),
        ('print("\\033[31mred\\033[0m alert")', 'logger.info("red alert")'),
        ('print("naïve", "日本語")', 'logger.info("naïve 日本語")'),
        # Labels
        ('print(f"Epoch {epoch}/{total}: loss={loss:.4f}, lr={lr:.2e}")',
         'logger.info("Epoch", epoch=epoch, total=total, loss=loss, lr=lr)'),
        ('print("Loss:", loss, "Acc:", acc)', 'logger.info("Loss", loss=loss, acc=acc)'),
        ('print("loss", loss)', 'logger.info("loss", loss=loss)'),
        ('print(f"Accuracy: {a:.1%}")', 'logger.info("Accuracy", accuracy=a)'),
        ('print("Step %d/%d | Loss %.3f | LR %g" % (step, total_steps, x, y))',
         'logger.info("Step", step=step, total_steps=total_steps, loss=x, lr=y)'),
        ('print(f"Stopped at {epoch + 1} (best val loss: {b:.4f})")',
         'logger.info("Stopped", epoch=epoch + 1, best_val_loss=b)'),
        ("print(f\"File: '{a.b}', mode='{m}'\")", 'logger.info("File", file=a.b, mode=m)'),
        ('print(f"Loss: {l}\\nAcc: {c}")', 'logger.info("Loss", loss=l, acc=c)'),
        ('print("one two three four five: %s" % fn())',
         'logger.info("one two three four five", fn=fn())'),
        ('print(f"read 3, to {path}")', 'logger.info("read 3", path=path)'),
        # Units
        ('print(f"Memory: {m:.1f} MB, peak: {p:.1f} GB")',
         'logger.info("Memory", memory_mb=m, peak_gb=p)'),
        ('print(f"Speed: {a / b:.1f} tokens/s")', 'logger.info("Speed", speed_tokens_per_s=a / b)'),
        ('print(f"Took {time.time() - t0:.2f}s")', 'logger.info("Took", took_s=time.time() - t0)'),
        ('print(f"Saved to {path} in {t:.1f}s")', 'logger.info("Saved", path=path, elapsed_s=t)'),
        ('print(f"Waited {all_seconds} s")', 'logger.info("Waited", all_seconds=all_seconds)'),
        ('print(f"Waited {wait_s} s")', 'logger.info("Waited", wait_s=wait_s)'),
        # Counted things
        ('print("Saved %d files" % n)', 'logger.info("Saved files", num_files=n)'),
        ('print(f"Found {len(x)} training examples")',
         'logger.info("Found training examples", num_training_examples=len(x))'),
        ('print(f"Got {count} errors")', 'logger.info("Got errors", num_errors=count)'),
        ('print(f"There {n} is")', 'logger.info("There is", there=n)'),
        ('print(f"seeing {n} less")', 'logger.info("seeing less", n=n)'),
        # Words around values
        ('print("Processing {} of {}...".format(i, total))',
         'logger.info("Processing", i=i, total=total)'),
        ('print(f"Downloading {url} -> {out}")', 'logger.info("Downloading", url=url, out=out)'),
        ('print(f"{name} is ready")', 'logger.info("is ready", name=name)'),
        ('print(f"Saved ({path})")', 'logger.info("Saved", path=path)'),
        ('print(f"Chunk #{i}")', 'logger.info("Chunk", chunk=i)'),
        # Specs that only round, pad or group leave the value; others are kept.
        ('print(f"at {x:.2f} km")', 'logger.info("at km", x=x)'),
        ('print(f"loss {x:>10.3e}")', 'logger.info("loss", loss=x)'),
        ('print(f"mask {flags:#x}")', 'logger.info("mask", flags=format(flags, "#x"))'),
        ('print(f"at {now:%Y-%m-%d}")', 'logger.info("now", now=format(now, "%Y-%m-%d"))'),
        ('print(f"bits {a + b:b}")', 'logger.info("bits", bits=format(a + b, "b"))'),
        ('print(f"loss {loss:{width}.{digits}f}")', 'logger.info("loss", loss=loss)'),
        ('print(f"loss {loss!r:>{width}}")', 'logger.info("loss", loss=loss)'),
        # Conversions and the = specifier
        ('print(f"name {name!r} {kind!s}")', 'logger.info("name", name=name, kind=kind)'),
        ('print(f"{loss=} {lr = :.3f}")', 'logger.info("loss, lr", loss=loss, lr=lr)'),
        ('print(f"{a.b=!s}")', 'logger.info("a_b", a_b=a.b)'),
        # f-strings inside f-strings
        ('print(f"see {f\'{path}\'} now")', 'logger.info("see now", path=path)'),
        ('print(f"see {f\'run {n} of {m}\'} now")', 'logger.info("see run now", run=n, m=m)'),
        ('print(f"see {f\'{x}\':>9} now")', 'logger.info("see now", see=x)'),
        # Escapes and prefixes
        ('print(f"{{a}} \\N{BULLET} {b}")', 'logger.info("{a}", b=b)'),
        ('print(rf"\\d {b}")', 'logger.info("\\\\d", b=b)'),
        ('print(F"""x "{y_}" z""")', 'logger.info("x z", y=y_)'),
        # %-formats
        ('print("a%% of %s" % name)', 'logger.info("a%", name=name)'),
        ('print("see %(x)d: %(y)s" % {"x": one, "y": two})',
         'logger.info("see", one=one, two=two)'),
        ('print("see %08x" % addr)', 'logger.info("see", addr=format(addr, "08x"))'),
        ('print("see %#X" % addr)', 'logger.info("see", addr=format(addr, "#X"))'),
        ('print("a" "b %s" % (x1,))', 'logger.info("ab", x1=x1)'),
        # str.format
        ('print("see {1} now {0}".format(aa, bb))', 'logger.info("see now", aa=aa, bb=bb)'),
        ('print("see {0} {0}".format(fn()))', 'logger.info("see", fn=fn())'),
        ('print("see {x:.2f} {y!r}".format(x=one, y=two))', 'logger.info("see", one=one, two=two)'),
        ('print("see {:%H:%M}".format(now))', 'logger.info("see", now=format(now, "%H:%M"))'),
        # Additions, and str() around a value
        ('print("Loaded " + str(rows) + " now")', 'logger.info("Loaded now", rows=rows)'),
        ('print("a" + b + f"c {d1}")', 'logger.info("a c", b=b, d1=d1)'),
        ('print("sum", one + two)', 'logger.info("sum", sum=one + two)'),
        ('print("-" * width, "begin")', 'logger.info("begin")'),
        ('print(40 * "-" + "begin")', 'logger.info("begin")'),
        # Separators, ends, flushing and the standard streams are no hindrance.
        ('print("see", x1, sep="")', 'logger.info("see", x1=x1)'),
        ('print("a", "b", sep="/")', 'logger.info("a/b")'),
        ('print("a", "b", sep=None, end=None, file=None)', 'logger.info("a b")'),
        ('print("a", flush=x.y, end="\\n\\n")', 'logger.info("a")'),
        ('print("a", end="\\n\\n", flush=True)', 'logger.info("a")'),
        ('import sys\nprint("a", file=sys.stdout)', 'logger.info("a")'),
        ('import sys\nprint("a", file=sys.stderr)', 'logger.warning("a")'),
        ('from sys import stderr as e\nprint("Error: a", file=e)', 'logger.error("a")'),
        ('from colorama import Fore\nprint(Fore.RED + "a" + Fore.RESET)', 'logger.info("a")'),
        # No field is lost to a reserved or repeated name, nothing is evaluated twice or earlier.
        ('print(f"see {self}")', 'logger.info("see", self_value=self)'),
        ('print(f"see {level} {message}")',
         'logger.info("see", level_value=level, message_value=message)'),
        ('print(f"see {exc_info} {x.stacklevel}")',
         'logger.info("see", exc_info_value=exc_info, stacklevel_value=x.stacklevel)'),
        ('print(f"class: {x}")', 'logger.info("class", class_value=x)'),
        ('print(f"see {b1} {b1}")', 'logger.info("see", b1=b1)'),
        ('print(f"see {x.loss} {y.loss}")', 'logger.info("see", loss=x.loss, loss_2=y.loss)'),
        ('print(f"see {next(it)} {next(it)}")',
         'logger.info("see", next=next(it), next_2=next(it))'),
        ('print(f"see {(n1 := f())} {n1}")', 'logger.info("see", n1=(n1 := f()), n1_2=n1)'),
        ('async def f(): print(f"see {await get_it()}")', 'logger.info("see", it=await get_it())'),
        ('print(f"see {b1, c1}")', 'logger.info("see", see=(b1, c1))'),
        ('print("see", (i for i in b))', 'logger.info("see", see=(i for i in b))'),
        ('print("see {1} {0}".format(f(), g()))', 'logger.info("see", f=f(), see=g())'),
        # Nothing names the value; a mark for another rule; a call with nothing to wrap
        ('print(f"{a + b} of all")', 'logger.info("of all", value=a + b)'),
        ('print("a")  # noqa: E501', 'logger.info("a")'),
        (f'print("{"word " * 40}")', f'logger.info("{("word " * 40).strip()}")'),
    ],
)  # fmt: skip
def test_a_print_becomes_a_structured_call(old: str, new: str) -> None:
    """Text becomes the message, values become fields that are named for what they are."""
    assert becomes(old) == new


LEFT = {
    "empty line": ["print()"],
    "empty line or decoration": ['print("=" * 60)', 'print("-----")'],
    "a value without words": [
        "print(loss)", 'print("x" * count)', 'print(f"{a} {b}")', 'print(f"{a:.2f}ms {b:.2f}ms")',
        'print(b"bytes")',
    ],
    "from a sequence": ["print(*rows)", 'print("a", **options)', 'print("{}".format(*rows))'],
    "no argument color": ['print("a", color=1)'],
    "sep= is not a literal": ['print("a", sep=s)'],
    "continues": ['print("a", end="")', 'print("a", end="\\r")', 'print("a", end=".\\n")'],
    "another file (out)": ['print("a", file=out)'],
    "another file": ['print("a", file=sys.stderr)'],
    "computes flush": ['print("a", flush=f())'],
    "computes its format spec": ['print(f"a {b:{f()}}")', 'print(f"a {b:{w}x}")'],
    "not understood": ['print("a %y" % b)'],
    "takes a width": ['print("a %*d" % (w, b))', 'print("a {:{}}".format(b, c))'],
    "no equivalent": ['print("a %c" % b)'],
    "match its values": [
        'print("a %s %s" % b)', 'print("a %s" % (b, c))', 'print("a %s %s" % (*b, c))',
        'print("a %(b)s %s" % {"b": 1})',
    ],
    "from a mapping": ['print("a %(b)s" % c)', 'print("a %(b)s" % {**c})'],
    "not valid": ['print("a {".format(b))'],
    "parts of its arguments": ['print("a {.b}".format(c))'],
    "match its arguments": ['print("a {}".format(b, c))'],
    "null character": ['print("a\\0b")'],
    "the program's usage": ['print(f"Usage: {argv[0]} FILE")'],
    "several lines": ['print("""Usage:\n  one\n  two""")'],
    "its value is used": [
        'print("a")  or 1', "x = [print('a') for i in y]", "f = lambda: print('a')",
        "print('a') if b else None", "exec('x'); [a for a in b if print('c')]",
    ],
    "passed around": ["map(print, rows)", "show = print"],
    "contains a comment": ["print('a',  # why\n  b)"],
    "contains a yield": ["def f():\n    print(f'a {(yield)}')"],
    "not the builtin here (line 1)": [
        "def print(*a): ...\nprint('a')", "from rich import print\nprint('a')",
        "def f[print]():\n    print('a')",
    ],
    "star import": ["from rich import *\nprint('a')"],
    "not the builtin here": [
        "import builtins\nbuiltins.print = f\nprint('a')", "def f(print):\n    print('a')",
    ],
    "a pattern binds logger": ["match x:\n    case {**logger}:\n        print('a')"],
    "needs format()": ["def f(x, format):\n    print(f'at {x:%H}')"],
    "needs str()": ["def f(str):\n    try: ...\n    except E as e: print('a', e)"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "reason"), [(old, reason) for reason, olds in LEFT.items() for old in olds]
)
def test_what_is_not_understood_stays(old: str, reason: str) -> None:
    assert reason in stays(old)


@pytest.mark.parametrize(
    "code",
    [
        "console.print('a')",
        "f(print=1)",
        "class A:\n    def print(self): ...",
        "import a.print",
        "from a import print",
        "def f():\n    global print\n    print = 1",
        "x = 'print(1)'  # print(2)",
        "fingerprint(1)",
        "print: int",
    ],
)
def test_other_things_of_that_name_are_none(code: str) -> None:
    report = migrate_source(code)
    assert report.findings == []
    assert report.error is None
    assert report.result == code


@pytest.mark.parametrize("pattern", ["print", "[1, *print]", "{'a': 1, **print}", "int() as print"])
def test_a_pattern_may_bind_the_name(pattern: str) -> None:
    """Captures of a match statement are seen, wherever they are."""
    report = migrate_source(
        f"match x:\n    case {pattern}:\n        print('a b')\n    case _: ...\n"
    )
    assert report.findings[-1].reason == "print is not the builtin here"
    assert report.count("convert") == 0


@pytest.mark.parametrize("mark", ["# noqa: T201", "# noqa", "# noqa: E501, T201", "# NOQA:T20"])
def test_a_marked_line_is_kept(mark: str) -> None:
    """A line whose author told the linter that the print is meant stays, and is no failure."""
    found = finding(f'print("a")  {mark}')
    assert (found.status, found.reason) == ("kept", "marked with noqa")


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("Error: no such file", "error", "no such file"),
        ("ERROR - no such file", "error", "no such file"),
        ("Error loading x", "error", "Error loading x"),
        ("Error rate is fine", "info", "Error rate is fine"),
        ("Failed to save", "error", "Failed to save"),
        ("Saving failed!", "error", "Saving failed!"),
        ("3 passed, 0 failed", "info", "3 passed, 0 failed"),
        ("Could not open it", "error", "Could not open it"), ("❌ Broken", "error", "Broken"),
        ("Warning: low disk", "warning", "low disk"), ("[WARN] low disk", "warning", "low disk"),
        ("⚠️ low disk", "warning", "low disk"), ("Warnings are on", "info", "Warnings are on"),
        ("Skipping file", "warning", "Skipping file"),
        ("CUDA unavailable", "warning", "CUDA unavailable"), ("DEBUG: here", "debug", "here"),
        ("[DEBUG] here", "debug", "here"), ("debug here", "debug", "debug here"),
        ("INFO: failed over", "info", "failed over"), ("FATAL: over", "critical", "over"),
        ("CUDA out of memory", "critical", "CUDA out of memory"), ("Error:", "error", "Error"),
        ("All good", "info", "All good"),
    ],
)  # fmt: skip
def test_the_level_follows_the_words(text: str, level: str, message: str) -> None:
    """Words for errors, warnings and debugging set the level; a bare level word is cut off."""
    assert becomes(f'print("{text}")') == f'logger.{level}("{message}")'
    # --level takes the place of the words.
    assert becomes(f'print("{text}")', level="debug") == f'logger.debug("{message}")'


@pytest.mark.parametrize(
    ("body", "new"),
    [
        ('print(f"Error: {e}")', 'logger.error("Error", error=str(e), exc_info=True)'),
        ('print(f"Load of {p1}: {e!r}")',
         'logger.error("Load", p1=p1, error=repr(e), exc_info=True)'),
        ('print("skipping", e)', 'logger.warning("skipping", error=str(e))'),
        ('print("code", e.code)', 'logger.error("code", code=e.code, exc_info=True)'),
        ('print("bad", str(e))', 'logger.error("bad", error=str(e), exc_info=True)'),
        ('print("bad", type(e).__name__)',
         'logger.error("bad", e_type=type(e).__name__, exc_info=True)'),
        ('print("bad luck")', 'logger.info("bad luck")'),
        ('def f(): print("bad", e)', 'logger.info("bad", bad=e)'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("star", ["", "*"])
def test_a_caught_exception_is_logged_with_its_traceback(body: str, new: str, star: str) -> None:
    assert becomes(f"try:\n    go()\nexcept{star} OSError as e:\n    {body}\n") == new


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("BATCH_SIZE", "batch_size"), ("_hidden", "hidden"), ("self.step", "step"),
        ('metrics["val loss"]', "val_loss"), ("losses[-1]", "losses"), ("loss.item()", "loss"),
        ("loss.detach().cpu().numpy()", "loss"), ("loss.mean()", "loss_mean"),
        ("np.mean(losses)", "mean"), ("max(losses)", "max_losses"), ("round(loss, 2)", "loss"),
        ("-loss", "loss"), ("100 * loss", "loss"), ("loss / 1e9", "loss"), ("x.shape", "x_shape"),
        ("self.name", "name"), ("model.name", "model_name"), ("type(x1).__name__", "x1_type"),
        ("model.__class__.__name__", "model_type"), ("func.__name__", "func_name"),
        ("type(x1)", "x1_type"), ("len(x1)", "num_x1"), ('", ".join(names)', "names"),
        ('options.get("lr", 1)', "lr"), ("torch.cuda.get_device_name(0)", "device_name"),
        ("get_device()", "device"), ("os.getpid()", "getpid"), ("not done", "saw"),
        ("a + b", "saw"), ("len([1])", "saw"), ("options.get(key)", "saw"),
        ("template.format(1)", "template"), ("str(a, b)", "saw"), ("f()()", "saw"),
        ("1 if a else b", "saw"), ("x[0][0]", "saw"),
    ],
)  # fmt: skip
def test_a_field_is_named_for_its_expression(expression: str, name: str) -> None:
    """Names, attributes, keys and calls name a field; else the word before it does."""
    assert becomes(f"print('saw', {expression})") == f'logger.info("saw", {name}={expression})'


def test_a_long_call_takes_a_line_for_each_argument() -> None:
    """Beyond the line length the arguments stand below each other, indented as the file is."""
    code = """
    def f():
      if x:
        print(f"Loaded {first_thing} and {second_thing} and {third_thing} now")
    """
    assert becomes(code, line_length=60) == (
        'logger.info(\n      "Loaded now",\n      first_thing=first_thing,\n'
        "      second_thing=second_thing,\n      third_thing=third_thing,\n    )"
    )


@pytest.mark.parametrize(
    "options", [{"logger": "a.b"}, {"logger": "class"}, {"level": "loud"}, {"line_length": 0}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Options(**options)  # type: ignore[arg-type]
