"""The language of --where: what is true of a run or a line."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foundry_fastlog.analysis.where import ABSENT, WhereError, compile_where, find_in

VALUES: dict[str, Any] = {
    "name": "exp-7",
    "state": "killed",
    "step": 300,
    "tags": ["base", "long"],
    "flag": True,
    "nothing": None,
    "config": {"lr": 1e-3, "optim": {"betas": [0.9, 0.99]}, "a.b": 5, "odd key": 1, "größe": 2},
    "last": {"loss": 1.5, "val/loss": 2.5, "nan": math.nan, "x`": 1},
}


def look(name: str) -> Any:
    return VALUES.get(name, ABSENT)


def holds(text: str) -> bool:
    return compile_where(text)(look)


@pytest.mark.parametrize(
    "text",
    [
        'config.lr >= 1e-3 and last.loss < 2 and state == "killed"',
        "1 < last.loss < 2 < step",
        'last["val/loss"] == 2.5 and last.`val/loss` == 2.5 and config.`odd key` == 1',
        "config['optim']['betas'][0] == 0.9 and config.optim.betas[-1] == .99",
        "config.`optim.betas`[0] == 0.9 and config.a.b == 5 and config['a.b'] == 5",
        "config.`größe` == 2 and config.größe == 2",
        '"base" in tags and "short" not in tags and state in ["killed", "failed"]',
        "config.optim.betas == [0.9, 0.99] and config.optim.betas == (0.9, 0.99)",
        "match(name, '^exp') and match(name, '[0-9]$') and not match(step, '3')",
        "flag == true and flag == True and nothing == null and nothing == None",
        "nothing == null and has(nothing) and not has(absent) and not has(config.absent)",
        "isnan(last.nan) and not isnan(last.loss) and last.nan != last.nan",
        "abs(0 - step) == 300 and len(tags) == 2 and len(name) == 5",
        "step % 7 == 6 and step // 7 == 42 and step ** 2 == 90000 and -step + +step == 0",
        "2 ** -1 == 0.5 and step / 2 - 50 * 2 == 50",
        "flag and not nothing and (config.absent or 3) == 3",
        "step ==\n  300\n  and flag",
        'name == "exp-7"  # with a comment',
        '"`" in "a`b" and last["x`"] == 1',
        # What is absent, or cannot be compared, makes comparisons false.
        "not config.absent < 1 and not config.absent >= 1 and not absent == null",
        "not name < 3 and not tags < 3 and not (3 in 5) and not ([] in {})".replace("{}", "name"),
        "not absent + 1 > 0 and not name * 3 == name and not -name == 1 and not (1 / 0 == 1)",
        "not 9 ** 9 ** 9 ** 9 > 0 and not 1e308 ** 2 > 0 and not (-8) ** 0.5 == 1",
        "not step.x == 1 and not tags[5] == 1 and not tags.x == 1 and not len(step) == 1",
    ],
)
def test_what_is_true(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("lats.loss < 2", "^" * 9, "the name lats.loss is unknown, at character 1"),
        ("step > 1 and stat == 'x'", " " * 13 + "^^^^", "Did you mean state?"),
        ("größe", "^^^^^", "Known are: state, step, last"),
        ("'ü' == `a b`.c", " " * 7 + "^" * 7, "the name `a b`.c is unknown"),
        ("step = 3", " " * 5 + "^", "= is not understood: write =="),
        ("step && last", None, "&& is not understood: write and"),
        ("step < ", None, "cannot be understood"),
        ("step <\n  ) 3", "    ^", "cannot be understood"),
        ("!step", "^", "write not"),
        ("step < 3 (", None, "cannot be understood"),
        ("__import__('os').system('x')", "^", "only these can be called: match, has"),
        ("exit()", "^^^^^^", "only these can be called"),
        ("match(step)", "^" * 11, "match(name, 'pattern')"),
        ("has(step, x=1)", "^", "has(name)"),
        ("match(step, last)", " " * 12 + "^^^^", "a text in quotes"),
        ("match(step, '(')", " " * 12 + "^^^", "no regular expression: unclosed group"),
        ("match(step, '%s')" % ("a" * 1001), " " * 12 + "^" * 88, "at most 1,000 characters"),
        ("match(step, 'a{1000}{1000}{1000}')", " " * 12, "exceeds size limit"),
        ("step is null", "^", "instead of is"),
        ("~step", "^", "write match"),
        ("step & 3", "^", "write and"),
        ("step << 3", "^", "use + -"),
        ("step[1:2] == 3", "^", "brackets take"),
        ("step[-'x'] == 3", "^", "brackets take"),
        ("(1).real", " ^", "only names have parts"),
        ("[x for x in step]", "^", "ListComp is not part"),
        ("lambda: step", "^", "Lambda is not part"),
        ("f'{step}' == 1", "^", "JoinedStr is not part"),
        ("step == 1j", " " * 8 + "^^", "type complex"),
        ("step == 1, last == 2", "^", "this is a list"),
        ("step == ``", " " * 8 + "^^", "in backquotes is empty"),
        ("", None, "is empty"),
        ("step\0", None, ""),
        ("step\ud800", None, "the expression cannot be read"),
        ("step + " * 300, None, "at most 2,000"),
        ("step" + ".x" * 900 + " + name.y", None, "name.y is unknown"),
        ("(" * 900 + ")" * 900, None, ""),
        ("not " * 100 + "step", None, "nested more than 60 deep"),
        ("1+" * 900 + "name", None, "nested more than 60 deep"),
    ],
)
def test_what_is_wrong_is_shown_with_its_place(text: str, place: str | None, says: str) -> None:
    with pytest.raises(WhereError) as caught:
        compile_where(text, ("state", "step", "last"))
    said = str(caught.value)
    assert says in said
    if place is not None:
        assert said.split("\n")[2].startswith("  " + place), said


def test_names_that_nothing_has_are_told_with_the_nearest() -> None:
    """After everything was looked at; a name that something has is no fault."""
    where = compile_where("config.lrr > 1 or last.loss > 1")
    assert where(look)
    assert where.roots == {"config", "last"}
    assert where.paths("config") == {"lrr"}
    assert where.paths("none") == set()
    known = ["config.lr", "config.seed", *map(str, range(20))]
    ((path, told),) = where.missing(lambda: known)
    assert path == ("config", "lrr")
    assert told.startswith("nothing here has config.lrr, at character 1:\n  config.lrr > 1")
    assert (
        "\n  ^^^^^^^^^^\nDid you mean config.lr or config.seed?\nKnown are: config.lr, config.seed"
        in told
    )
    assert told.endswith("and 8 more")


def test_patterns_take_linear_time_and_expressions_little() -> None:
    """One that backtracks takes minutes for this, a tower of powers never ends."""
    begun = time.monotonic()
    look_up = {"x": "a" * 40 + "b"}.__getitem__
    assert not compile_where("match(x, '^(a+)+$')")(look_up)
    many = " and ".join(f"`n {n}` == {n}" for n in range(100))
    assert compile_where(many)(lambda name: int(name[2:]))
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("path", "found"), [((), VALUES), (("config", "a", "b"), 5), (("tags", "x"), ABSENT)]
)
def test_paths_in_json(path: tuple[str, ...], found: object) -> None:
    assert find_in(VALUES, path) is found or find_in(VALUES, path) == found
    assert repr(ABSENT) == "ABSENT"


_leaves = st.one_of(
    st.sampled_from(["a", "b", "c", "s", "t"]),
    st.integers(-20, 20).map(str),
    st.floats(-100, 100, allow_nan=False).map(repr),
    st.sampled_from(["'x'", "'yx'", "True", "None"]),
)


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
    compare = st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, compare, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, compare, inner, compare, inner).map(lambda p: f"({' '.join(p)})"),
        two.map(lambda p: f"({p[0]} and {p[1]})"),
        two.map(lambda p: f"({p[0]} or {p[1]})"),
        inner.map(lambda one: f"(not {one})"),
        inner.map(lambda one: f"(-{one})"),
    )


@given(
    st.recursive(_leaves, _deeper, max_leaves=12),
    st.fixed_dictionaries(
        {
            **{name: st.integers(-9, 9) | st.floats(-9, 9) | st.booleans() for name in "abc"},
            **{name: st.text("xyz", max_size=3) for name in "st"},
        }
    ),
)
@example("(a < b <= c)", {"a": 1, "b": 2, "c": 2, "s": "", "t": ""})
def test_it_means_what_python_means(text: str, values: dict[str, Any]) -> None:
    """Where Python's own eval gives a value without strings in arithmetic, ours is the same."""
    found = compile_where(text).value(values.__getitem__)
    if not any(part in text for part in ("**", "'", "s", "t")):  # these have bounds, see above
        try:
            wanted = eval(text, {"__builtins__": {}}, dict(values))
        except (TypeError, ArithmeticError):  # here nothing is raised
            return
        assert found == wanted or (found != found and wanted != wanted)
        assert type(found) is type(wanted)
