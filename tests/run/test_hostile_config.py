"""Configurations that are broken or hostile: each is read as it is meant, or refused in one line."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import get_config
from configs.checks import CHOICES, RULES
from configs.default import dataset_cfg, strategy_cfg
from configs.yaml_file import MOST_BYTES, decode
from tests.helpers.limits import within
from tests.helpers.runs import refused
from utils.run.errors import UserError
from utils.run.messages import shown, shown_name

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FAST, MANY = 300, 20_000  # fuzzed files
DEFAULTS = {**strategy_cfg, **dataset_cfg["sysu"]}

LAUGHS = "x0: &x0 [ha, ha]\n" + "".join(f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 4)}]\n" for n in range(30))
DEEP = 40_000

# what it is -> (the file, what the line says)
REFUSED = {
    "UTF-16": ("lr: 1".encode("utf-16"), "cannot be read as text (invalid start byte at byte 0); save it as UTF-8"),
    "Latin-1": ("prefix: Büro".encode("latin-1"), "save it as UTF-8"),
    "binary": (bytes(range(256)), "save it as UTF-8"),
    "a NUL byte": (b"lr\0: 1", "special characters are not allowed"),
    "an escaped NUL": (b'data_root: "a\\0b"', "text without control characters"),
    "half a character": (b'output_dir: "\\ud800"', "text without control characters"),
    "a line break in a name": (b'output_dir: "a\\nb"', "text without control characters"),
    "a list": (b"- lr\n- 1", "expected lines of 'key: value', found a list"),
    "text": (b"lr", "expected lines of 'key: value', found 'lr'"),
    "a tab": (b"lr: 1\n\twd: 0.1", "x.yml:2:1: not valid YAML"),
    "two documents": (b"lr: 1\n---\nlr: 2", "another document"),
    "a key twice": (b"lr: 1\nlr: 1", "key 'lr' is given twice"),
    "a key that is no name": (b"on: 1", "key on is not a name"),
    "a key that is a list": (b"? [lr]\n: 1", "is not a name"),
    "a key that is unknown": (b"num_epochs: 1", "did you mean 'num_epoch'?"),
    "a key of two lines": (b'"a\\nb": 1', r"'a\nb'"),
    "a call": (b"lr: !!python/object/apply:os.mkdir [made]", "python/object/apply:os.mkdir"),
    "a call as a key": (b"!!python/object/apply:os.mkdir [made]: 1", "is not a name"),
    "a call as the file": (b"!!python/object/apply:os.mkdir [made]", "expected lines of 'key: value'"),
    "a function": (b"lr: !!python/name:os.mkdir", "python/name:os.mkdir"),
    "a mapping": (b"lr: {a: 1}", "a value is a number, true or false, text, or a list of numbers"),
    "a merge": (b"x: &x {lr: 1}\n<<: *x", "<< is not a name"),
    "a loop": (b"lr: &a [*a]", "a value is a number"),
    "billion laughs": (LAUGHS.encode(), "a value is a number"),
    "deep lists": (b"[" * DEEP, "nested too deeply"),
    "deep mappings": (b"{" * DEEP, "nested too deeply"),
    "deep items": (b"- " * DEEP, "nested too deeply"),
    "deep keys": (b"? " * DEEP, "nested too deeply"),
    "a large file": (b"lr: 1\n" + b"#" * MOST_BYTES, f"larger than {MOST_BYTES} bytes"),
    "a long value": (b"lr: " + b"x" * 90_000, "should be a number"),
    "a long list": (b"lr_step: [" + b"1," * 10_000 + b"]", "ascending"),
    "a date": (b"prefix: 2024-01-31", "text (quote it)"),
    "no date": (b"prefix: 2024-13-31", "cannot be read as timestamp"),
    "a boolean tag": (b"fp16: !!bool maybe", "'maybe' cannot be read as bool"),
    "a number tag": (b"p_size: !!int ''", "'' cannot be read as int"),
    "octal": (b"p_size: 010", "'010' is octal"),
    "octal text": (b"p_size: '010'", "should be a whole number"),
    "base 60": (b"p_size: 1:30", "base 60"),
    "base 60 with a fraction": (b"lr: 1:30.5", "base 60"),
    "a number for a boolean": (b"fp16: 1", "true or false"),
    "a boolean for a number": (b"p_size: true", "a whole number"),
    "a boolean for a name": (b"prefix: no", "text (quote it)"),
    "nothing": (b"lr:", "a number"),
    "NaN": (b"lr: .nan", "a finite number above 0"),
    "infinite": (b"wd: .inf", "a finite number, at least 0"),
    "overflow": (b"lr: 1e999", "a finite number above 0"),
    "a negative rate": (b"lr: -0.1", "above 0"),
    "a whole number beyond floats": (b"lr: 1" + b"0" * 400, "a finite number"),
    "thousands of digits": (b"lr: " + b"1" * 5000, "cannot be read as int"),
    "thousands of hexadecimal digits": (b"p_size: 0x" + b"f" * 5000, "a number of thousands of digits"),
    "too many processes": (b"num_workers: 1000000", "at most 1024"),
    "too large images": (b"image_size: [100000, 100000]", "at most 4096"),
    "too many maps": (b"mda_m: 1000000000", "at most 4096"),
    "too many classes": (b"num_id: 1000000000000", "at most 1000000"),
    "an odd k_size": (b"k_size: 3\nsample_method: identity_cross_modality", "must be even"),
    "a folder for a prefix": (b"prefix: /tmp/x", "a plain file name"),
    "a folder above for a prefix": (b"prefix: ..", "a plain file name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = REFUSED[case]
    Path("x.yml").write_bytes(content)
    with within(20):
        error = refused(capsys, tmp_path, "--cfg", "x.yml")
    assert message in error
    assert "x.yml" in error
    assert error.rstrip("\n").isprintable()
    assert len(error) < 500
    assert [path.name for path in Path().iterdir()] == ["x.yml"]  # no call was made, no folder is left


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("", "lr", 0.00035),
        ("# nothing\n", "lr", 0.00035),
        ("\ufefflr: 1", "lr", 1.0),
        ("lr: 1\r\nwd: 2\r\n", "wd", 2.0),
        ("lr: 1e-3", "lr", 1e-3),
        ("lr: '1e-3'", "lr", 1e-3),
        ("lr: 1_000", "lr", 1000.0),
        ("p_size: '4'", "p_size", 4),
        ("p_size: 0x10", "p_size", 16),
        ("fp16: off", "fp16", False),
        ("fp16: 'no'", "fp16", False),
        ("p_size: &p 4\nk_size: *p", "k_size", 4),
        ("image_size: &s [64, 32]", "image_size", (64, 32)),
        ("data_root: 'Büro/データ\u3000セット'", "data_root", "Büro/データ\u3000セット"),
        ("data_root: C:/a b", "data_root", "C:/a b"),
        ("prefix: '010'", "prefix", "010"),
    ],
)
def test_read_as_it_is_meant(text, key, value, tmp_path):
    (tmp_path / "x.yml").write_text(text, encoding="utf-8", newline="")
    found = get_config(tmp_path / "x.yml")[key]
    assert (found, type(found)) == (value, type(value))


def test_what_is_no_file(tmp_path, monkeypatch):
    (tmp_path / "folder.yml").mkdir()
    os.mkfifo(tmp_path / "pipe.yml")
    for name in ("folder.yml", "pipe.yml"):
        with within(5), pytest.raises(UserError, match=f"{name}: not a file"):
            get_config(tmp_path / name)
    with pytest.raises(UserError, match="File name too long"):
        get_config(tmp_path / f"{'x' * 300}.yml")
    (tmp_path / "closed.yml").write_text("")
    # whoever runs the tests may be allowed to read anything
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match="closed.yml: cannot be read .Permission denied."):
        get_config(tmp_path / "closed.yml")


def test_every_number_has_bounds(tmp_path):
    """So that no slip of the keyboard asks for more than a machine has."""
    (tmp_path / "x.yml").write_text("")
    for key, default in DEFAULTS.items():
        if type(default) in (int, float):
            for value in (-1, 10**12 if type(default) is int else "1e999"):
                with pytest.raises(UserError, match=f"^{key}: "):
                    get_config(tmp_path / "x.yml", [key, str(value)])
    numbers = {key for key, default in DEFAULTS.items() if type(default) in (int, float)}
    assert numbers <= RULES.keys()


def attempt(path: Path, overrides: list[str]) -> bool:
    """Whether it is read; if not, the message is one printable, short line."""
    with within(20):
        try:
            cfg = get_config(path, overrides)
        except UserError as error:
            assert str(error).isprintable(), error
            assert len(str(error)) < 800
            return False
    # what is read can be written and read again
    again = path.with_name("again.yml")
    again.write_text(cfg.dump())
    assert get_config(again) == cfg
    return True


VALUES = st.one_of(
    st.text(max_size=30),
    st.integers(-3, 400).map(str),
    st.floats().map(repr),
    st.lists(st.integers(-1, 500), max_size=3).map(repr),
    st.sampled_from(["true", "no", "~", "[", "{}", "!!int x", "0x1f", "010", "1:30", "1e-3", "&a", "*a", "'"]),
    st.just("9" * 5000),
    st.sampled_from([choice for choices in CHOICES.values() for choice in choices]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from(sorted(DEFAULTS)) | st.text(max_size=10), VALUES), max_size=3))
def test_any_overrides(pairs, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "overrides.yml"
    path.write_text("")
    attempt(path, [word for pair in pairs for word in pair])


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60) | st.tuples(st.sampled_from(sorted(DEFAULTS)), VALUES).map(": ".join))
def test_any_text(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "text.yml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    attempt(path, [])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=150, deadline=None)
@given(content=st.dictionaries(st.sampled_from(sorted(DEFAULTS)), PLAIN, max_size=3))
def test_any_values(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "values.yml"
    path.write_text(yaml.safe_dump(content))
    attempt(path, [])


@given(value=PLAIN)
@settings(max_examples=100, deadline=None)
def test_messages_show_anything_on_one_short_line(value):
    assert shown(value).isprintable()
    assert len(shown(value)) < 700
    assert shown_name(value).isprintable()


def test_literals_are_only_read():
    assert decode("__import__('os').getcwd()") == "__import__('os').getcwd()"
    assert decode("[x for x in (1, 2)]") != [1, 2]
    assert decode("(" * 900) == "(" * 900
    assert decode("-" * 900 + "1") in ("-" * 900 + "1", 1)


WORDS = (
    b": ", b"- ", b"\t", b"? ", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: *a", b"|\n",
    b'"', b"'", b"#", b"%YAML 1.2\n", b"---\n", b"...\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\xe2\x80\xa8", b"@",
    b"1e999", b"0x", b"~", b"\\", b"!!int ", b"!<tag:yaml.org,2002:python/object:os.system> ", b".nan", b"2024-02-30",
)  # fmt: skip


def _changed(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """``count`` damaged versions of ``data``: cut, flipped, spliced, doubled, or with pieces of syntax put in."""
    draw = random.Random(seed)
    for number in range(count):
        changed = bytearray(data)
        a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        kind = number % 5
        if kind == 0:
            del changed[a:]
        elif kind == 1:
            for _ in range(draw.randint(1, 8)):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del changed[a : min(b, a + draw.randint(1, 30))]
        elif kind == 3:
            changed[a:a] = data[a:b]
        else:
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(changed))
                changed[place : place + draw.randint(0, 3)] = draw.choice(WORDS)
        yield bytes(changed)


def fuzz(count: int, tmp_path: Path, tally) -> None:
    files = [path.read_bytes() for path in sorted(CONFIGS.glob("*.yml"))]
    files.append(get_config(CONFIGS / "RegDB_MCJA.yml").dump().encode())
    path, tried, read = tmp_path / "fuzzed.yml", 0, 0
    for seed, data in enumerate(files):
        for content in _changed(data, seed, count // len(files)):
            path.write_bytes(content)
            read += attempt(path, [])
            tried += 1
    tally(tried, f"damaged configurations: {read} read, {tried - read} refused")
    assert tried >= 150
    assert 0 < read < tried


def test_fuzzed(tmp_path, tally):
    fuzz(FAST, tmp_path, tally)


@pytest.mark.faults
def test_fuzzed_at_length(tmp_path, tally):
    fuzz(MANY, tmp_path, tally)
