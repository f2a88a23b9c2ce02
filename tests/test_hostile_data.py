"""Data that is broken, or made to do harm: it is read as it is meant, or refused in one line."""

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from fuzzing import mutations
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from test_main import arguments, refused, run

from data.base import ReIDDataset
from data.files import inside_root, is_file, parse_identities, read_lines
from data.images import MOST_PIXELS, read_image
from data.matlab import LARGEST_FILE, read_variable
from data.permutations import read_permutation_file
from data.regdb import RegDB
from data.synthetic.sysu import read_permutation
from data.sysu import SYSU
from data.unreadable import find_unreadable, leave_out
from main import main
from tools.make_synthetic import main as make_synthetic_main
from utils.cli import run_program
from utils.errors import UnreadableImage, UserError, UserErrors
from utils.run_folder import discarded_without_model

ROOT = Path(__file__).parent.parent
SIZE = (48, 24)
CAMERAS = SYSU.cameras
SECONDS = 5  # that a case may take; a hundred times what any needs
FEW = {"images": 30, "matlab": 90}  # cases per form of file
MANY = {"images": 3000, "matlab": 5000}


@pytest.fixture
def sysu(sysu_root, tmp_path) -> Path:
    """A copy of the data set to damage."""
    return Path(shutil.copytree(sysu_root, tmp_path / "sysu"))


@pytest.fixture
def regdb(regdb_root, tmp_path) -> Path:
    return Path(shutil.copytree(regdb_root, tmp_path / "regdb"))


def why(call: Callable, *values, **options) -> str:
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as error:
        call(*values, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    def stop(*_):
        raise AssertionError(f"took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(call: Callable[[], object]) -> str:
    """``read`` or ``refused``; every other exception, more than one line, or a hang is a failure."""
    with time_limit():
        try:
            call()
        except UserError as error:
            assert "\n" not in str(error)
            return "refused"
    return "read"


# --- images: damaged ------------------------------------------------------------------------------------------------


def picture(mode: str = "RGB", size: tuple[int, int] = (24, 48)) -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


SECOND = {"save_all": True, "append_images": [picture("L").convert("RGB")]}
FORMS = {
    "jpeg": encoded("JPEG"),
    "jpeg-progressive": encoded("JPEG", progressive=True, optimize=True),
    "jpeg-cmyk": encoded("JPEG", picture("CMYK")),
    "mpo": encoded("MPO", **SECOND),
    "png": encoded("PNG"),
    "png-palette": encoded("PNG", picture("P")),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF", picture("P")),
    "webp": encoded("WEBP"),
}


def fuzz_images(tmp_path: Path, form: str, seed: int, count: int) -> Counter:
    path = tmp_path / "x.jpg"
    found = Counter()
    for damaged in mutations(FORMS[form], seed, count):
        path.write_bytes(damaged)
        found[outcome(lambda: read_image(path, SIZE))] += 1
    return found


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("form", FORMS)
def test_damaged_images(form, tmp_path, tally):
    (tmp_path / "x.jpg").write_bytes(FORMS[form])
    assert read_image(tmp_path / "x.jpg", SIZE).shape == (3, *SIZE)
    found = fuzz_images(tmp_path, form, seed=1, count=FEW["images"])
    report(tally, form, found)
    assert found["refused"] > 0


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("form", FORMS)
def test_many_damaged_images(form, tmp_path, tally):
    report(tally, form, fuzz_images(tmp_path, form, seed=2, count=MANY["images"]))


def report(tally, form: str, found: Counter) -> None:
    tally(sum(found.values()), f"damaged {form} files: {found['read']} read, {found['refused']} refused")


# --- images: whole, but not what belongs there ----------------------------------------------------------------------


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GREY_16 = Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32))
NOT_READ = {
    "empty": (b"", "is none of JPEG"),
    "text": (b"no image at all", "is none of JPEG"),
    "16-bit grey": (encoded("PNG", GREY_16), "is of mode I"),
    "animated gif": (encoded("GIF", **SECOND), "is animated"),
    "animated png": (encoded("PNG", **SECOND), "is animated"),
    "animated webp": (encoded("WEBP", **SECOND), "is animated"),
    "tiff": (encoded("TIFF"), "is none of JPEG"),
    "postscript": (encoded("EPS"), "is none of JPEG"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_cannot_be_read_faithfully_is_refused(kind, tmp_path):
    content, words = NOT_READ[kind]
    path = tmp_path / "0001.jpg"
    path.write_bytes(content)
    message = why(read_image, path, SIZE)
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize("form", FORMS)
def test_the_rest_is_read_as_it_is_meant(form, tmp_path):
    """Whatever the format and its modes: the first picture, in its own colours."""
    path = tmp_path / "0001.jpg"
    path.write_bytes(FORMS[form])
    smooth = {"jpeg", "jpeg-progressive", "jpeg-cmyk", "mpo", "webp"}  # lossy: noise does not survive it
    found = read_image(path, (48, 24)).astype(int)
    expected = np.asarray(picture()).transpose(2, 0, 1).astype(int)
    limit = 60 if form in smooth else 45 if form in ("png-palette", "gif") else 0
    assert np.abs(found - expected).mean() <= limit


def test_cmyk_is_not_inverted(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded("JPEG", Image.new("RGB", (32, 32), (220, 30, 30)).convert("CMYK"), quality=95))
    red, green, blue = read_image(path, SIZE).reshape(3, -1).mean(axis=1)
    assert (red, green, blue) == pytest.approx((220, 30, 30), abs=6)


def test_16_bit_colour_keeps_its_upper_half(tmp_path):
    """What Pillow reads of it is right, unlike grey of 16 bits."""
    values = np.asarray(picture(size=(24, 48))).astype(np.uint16)
    rows = b"".join(b"\0" + (row * 257).astype(">u2").tobytes() for row in values)
    path = tmp_path / "x.png"
    path.write_bytes(png_of(24, 48, 16, 2, rows))
    np.testing.assert_array_equal(read_image(path, (48, 24)), values.transpose(2, 0, 1))


# Pillow is silent up to 89 million pixels, warns up to 179 million, and refuses above
@pytest.mark.parametrize("side", [6000, 10000, 20000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side, tmp_path, recwarn):
    assert side**2 > MOST_PIXELS
    path = tmp_path / "0001.jpg"
    path.write_bytes(png_of(side, side, 8, 2, bytes(10**6)))
    tracemalloc.start()
    try:
        message = why(read_image, path, SIZE)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert "pixels" in message
    assert message.startswith(f"{path}: ")


def test_pillow_does_not_warn_beside_our_refusal(tmp_path):
    """In a fresh process, because pytest has warning filters of its own."""
    path = tmp_path / "0001.jpg"
    path.write_bytes(png_of(10000, 10000, 8, 2, bytes(10**6)))
    program = f"""
from pathlib import Path
from data.images import read_image
from utils.cli import run_program
run_program(lambda: read_image(Path({str(path)!r}), (48, 24)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {path}: has 10000 x 10000 pixels")


# --- MATLAB files ---------------------------------------------------------------------------------------------------


def cells(*entries: object) -> np.ndarray:
    cell = np.empty((len(entries), 1), dtype=object)
    cell[:, 0] = entries
    return cell


def rows(images: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.permuted(np.tile(np.arange(1, images + 1), (10, 1)), axis=1).astype(np.uint8)


def matlab(content: object, **options) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"rand_perm_cam": content}, **options)
    return file.getvalue()


PERMUTATIONS = cells(*[cells(rows(4, camera), np.zeros((10, 0)), rows(3, camera + 9)) for camera in CAMERAS])
MATLAB_FORMS = {"plain": matlab(PERMUTATIONS), "compressed": matlab(PERMUTATIONS, do_compression=True)}


def fuzz_matlab(tmp_path: Path, form: str, seed: int, count: int) -> Counter:
    path = tmp_path / "rand_perm_cam.mat"
    found = Counter()
    for damaged in mutations(MATLAB_FORMS[form], seed, count):
        path.write_bytes(damaged)
        found[outcome(lambda: read_permutation_file(path, CAMERAS))] += 1
        outcome(lambda: read_variable(path))
    return found


@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_damaged_permutation_files(form, tmp_path, tally):
    found = fuzz_matlab(tmp_path, form, seed=1, count=FEW["matlab"])
    report(tally, f"{form} .mat", found)
    assert found["refused"] > 0


@pytest.mark.faults
@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_many_damaged_permutation_files(form, tmp_path, tally):
    report(tally, f"{form} .mat", fuzz_matlab(tmp_path, form, seed=2, count=MANY["matlab"]))


def read(tmp_path: Path, content: bytes) -> dict:
    path = tmp_path / "rand_perm_cam.mat"
    path.write_bytes(content)
    return read_permutation_file(path, CAMERAS)


@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_matlab_files_are_read_as_scipy_reads_them(form, tmp_path):
    found = read(tmp_path, MATLAB_FORMS[form])
    expected = scipy.io.loadmat(io.BytesIO(MATLAB_FORMS[form]))["rand_perm_cam"]
    for camera, cell in zip(CAMERAS, expected.ravel(), strict=True):
        for identity, entry in enumerate(cell.ravel(), start=1):
            assert ((camera, identity) in found) == bool(entry.size)
            if entry.size:
                np.testing.assert_array_equal(found[camera, identity], entry)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_kind_of_number(kind, compressed, tmp_path):
    path = tmp_path / "x.mat"
    values = np.arange(1, 61).reshape(10, 6).astype(kind)
    scipy.io.savemat(path, {"other": np.ones(3), "x": values}, do_compression=compressed)
    np.testing.assert_array_equal(read_variable(path, "x"), values)
    np.testing.assert_array_equal(np.ravel(read_variable(path)), np.ones(3))
    assert read_variable(path, "absent") is None


def test_the_other_order_of_bytes():
    """As files of old workstations have it: a 1 x 2 matrix of doubles."""
    head = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", 1, 2)), (1, b"x"), (9, struct.pack(">dd", 3, 4))]
    padded = [(kind, len(content), content + bytes(-len(content) % 8)) for kind, content in parts]
    body = b"".join(struct.pack(">II", kind, size) + content for kind, size, content in padded)
    with tempfile.NamedTemporaryFile(suffix=".mat") as file:
        file.write(head + struct.pack(">II", 14, len(body)) + body)
        file.flush()
        np.testing.assert_array_equal(read_variable(Path(file.name), "x"), [[3.0, 4.0]])


def with_class(number: int) -> bytes:
    """The permutations, as if their variable were of another of MATLAB's classes."""
    content = bytearray(MATLAB_FORMS["plain"])
    assert content[144] == 1  # a cell
    content[144] = number
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (matlab({"a": 1}), "holds a struct, where only cells and matrices of numbers belong"),
        (matlab("text"), "holds a text"),
        (matlab(cells(*["text"] * 6)), "holds a text"),
        (matlab(cells(*[cells("text")] * 6)), "holds a text"),
        (matlab(cells(*[cells({"a": 1})] * 6)), "holds a struct"),
        (matlab(cells(*[cells(np.ones((10, 2)) * 1j)] * 6)), "complex"),
        (with_class(3), "holds a object"),
        (with_class(5), "holds a sparse matrix"),
        (with_class(16), "holds no variable"),  # a function
        (with_class(17), "holds no variable"),  # an object of a class of the user
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", "save(file, '-v7')"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "save(file, '-v7')"),
        (b"", "it is none, or older than version 5"),
        (b"text " * 100, "it is none, or older than version 5"),
        (matlab(np.ones(3), format="4"), "older than version 5"),
        (matlab(cells(*[cells(rows(3))] * 5)), "(6, 1) cell"),
        (matlab(cells(*[cells(np.full((10, 2), np.nan))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.full((10, 2), 1e300))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.zeros((10, 0)))] * 6)), "counts no image"),
        (matlab(cells(*[cells(rows(3).T)] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(cells(1.0))] * 6)), "not a cell"),
        (matlab(cells(*[cells(np.ones((10, 2)))] * 6)), "row 1 is no permutation: an instance stands in it twice"),
        (
            matlab(cells(*[cells(np.concatenate([rows(3)[:9], [[1, 2, 4]]]))] * 6)),
            "row 10 holds other instances than row 1",
        ),
    ],
)
def test_what_is_no_permutation_file(content, words, tmp_path):
    message = why(read, tmp_path, content)
    assert message.startswith(f"{tmp_path}/rand_perm_cam.mat: ")
    assert words in message, message


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path):
    packed = zlib.compress(bytes(LARGEST_FILE + 1))
    head = MATLAB_FORMS["plain"][:128]
    assert "unpacked, it is larger" in why(read, tmp_path, head + struct.pack("<II", 15, len(packed)) + packed)


def test_cells_within_cells(tmp_path):
    content: object = np.ones((1, 1))
    for _ in range(60):
        content = cells(content)
    assert "nested too deeply" in why(read, tmp_path, matlab(cells(*[content] * 6)))


def test_synthetic_sets_refuse_the_same_files(tmp_path, capsys):
    path = tmp_path / "x.mat"
    for content in (MATLAB_FORMS["plain"][:700], matlab({"a": 1}), b""):
        path.write_bytes(content)
        words = ["--layout", "sysu", "--root", str(tmp_path / "made"), "--permutation", str(path)]
        assert run_program(lambda words=words: make_synthetic_main(words)) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "made").exists()
    path.write_bytes(MATLAB_FORMS["plain"])
    assert read_permutation(path) == {1: dict.fromkeys(CAMERAS, 4), 3: dict.fromkeys(CAMERAS, 3)}


# --- lists ----------------------------------------------------------------------------------------------------------

AWKWARD = st.one_of(
    st.text(max_size=40),
    st.text("0123456789,.-+ \t\r\n\\/:\0x²٣ ", max_size=60),
    st.sampled_from(["9" * 5000, "a" * 5000 + "/1/x.bmp 1", "." * 300, "./. 5", ". 5", "\ufeff1,2"]),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("scratch")


@given(text=AWKWARD, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
@example(text="9" * 5000, encoding="utf-8")
def test_identity_lists_give_numbers_or_say_why_not(scratch, text, encoding):
    path = scratch / "train_id.txt"
    path.write_bytes(text.encode(encoding, errors="replace"))

    def parse() -> list[int]:
        return parse_identities([word for line in read_lines(path, "x") for word in line.split(",")], path)

    if outcome(parse) == "read":
        found = parse()
        assert len(set(found)) == len(found)
        assert all(0 < identity < 10**9 for identity in found)


@given(identities=st.lists(st.integers(1, 9999), min_size=1, unique=True), data=st.data())
def test_identity_lists_are_read_as_they_are_meant(scratch, identities, data):
    path = scratch / "train_id.txt"
    zeros, ends = st.integers(0, 3), st.sampled_from([",", ", ", " ,", ",\r\n", "\n"])
    text = "".join("0" * data.draw(zeros) + f"{identity}" + data.draw(ends) for identity in identities)
    path.write_bytes(data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\r\n\r\n"])) + text.encode())
    words = [word.strip() for line in read_lines(path, "x") for word in line.split(",")]
    assert parse_identities([word for word in words if word], path) == identities


@given(text=AWKWARD)
@example(text=".")
@example(text="")
@example(text="./")
@example(text="a/../../x")
@example(text="..\\x")
@example(text="\\\\server\\x")
@example(text="c:x")
@example(text="a\0b")
def test_listed_paths_never_leave_the_root(text):
    root = Path("/data/set")
    if outcome(lambda: inside_root(text, Path("list"))) == "read":
        path = root / inside_root(text, Path("list"))
        assert Path(os.path.normpath(path)).is_relative_to(root)
        assert Path(os.path.normpath(path)) != root
        outcome(lambda: is_file(path))  # whatever the name


@pytest.fixture(scope="module")
def spoilt(regdb_root, tmp_path_factory) -> Path:
    """A RegDB whose lists each example writes anew."""
    return Path(shutil.copytree(regdb_root, tmp_path_factory.mktemp("spoilt") / "regdb"))


LINES = st.builds("Visible/{}/{}.bmp {}".format, *[st.text(max_size=9)] * 3)


@given(lines=st.lists(st.one_of(AWKWARD, LINES), max_size=5))
@example(lines=[". 5"])
@example(lines=["Visible/" + "9" * 5000 + "/x.bmp 1"])
@example(lines=["Visible/1/" + "x" * 5000 + " 1"])
@example(lines=["Visible/1/a\0b.bmp 1"])
def test_index_lists_give_samples_or_say_why_not(spoilt, regdb_root, lines):
    whole = (regdb_root / "idx/train_visible_1.txt").read_text()
    index = spoilt / "idx/train_visible_1.txt"
    index.write_bytes((whole + "\n".join(lines)).encode(errors="replace"))
    if outcome(lambda: RegDB(spoilt, "train", SIZE)) == "read":
        for path in RegDB(spoilt, "train", SIZE).paths:
            assert (spoilt / path).is_file()


# --- what the system refuses ----------------------------------------------------------------------------------------


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions do not hold for root: as nobody, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def guarded(sysu_root) -> Iterator[Path]:
    """A data set that every user may look at; permissions are given back in the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(sysu_root, Path(folder) / "sysu"))
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield root
        for path in (root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")):
            path.chmod(0o755)


@pytest.mark.parametrize("what", ["", "exp", "cam4", "cam4/*", "exp/train_id.txt", "exp/rand_perm_cam.mat"])
def test_folders_and_lists_without_permission(what, guarded):
    path = next(path for path in sorted(guarded.glob(what) if what else [guarded]))
    chosen = [path] if "*" not in what else sorted(guarded.glob(what))
    for one in chosen:
        one.chmod(0)
    with ordinary_user():
        message = why(SYSU, guarded, "train", SIZE)
    assert "Permission denied" in message
    assert any(str(one) in message for one in chosen)


def test_images_without_permission(guarded):
    path = guarded / SYSU(guarded, "train", SIZE).paths[0]
    path.chmod(0)
    with ordinary_user():
        assert f"{path}: cannot be decoded as an image (Permission denied)" in why(read_image, path, SIZE)


def put_file_for_folder(root: Path) -> Path:
    shutil.rmtree(root / "cam2")
    (root / "cam2").write_text("")
    return root / "cam2"


def put_folder_for_list(root: Path) -> Path:
    (root / "exp/test_id.txt").unlink()
    (root / "exp/test_id.txt").mkdir()
    return root / "exp/test_id.txt"


def put_pipe_for_image(root: Path) -> Path:
    """Opening it would wait for ever."""
    path = root / SYSU(root, "test", SIZE).paths[0]
    path.unlink()
    os.mkfifo(path)
    return path


def put_broken_link(root: Path) -> Path:
    path = root / SYSU(root, "test", SIZE).paths[0]
    path.unlink()
    path.symlink_to(root / "absent.jpg")
    return path


def put_circle(root: Path) -> Path:
    path = (root / SYSU(root, "test", SIZE).paths[0]).parent
    shutil.rmtree(path)
    path.symlink_to(path)
    return path


def put_second_name(root: Path) -> Path:
    path = root / SYSU(root, "test", SIZE).paths[0]
    shutil.copy(path, path.with_name(f"{int(path.stem)}.jpg"))
    return path.parent


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (put_file_for_folder, "is no folder"),
        (put_folder_for_list, "is no file; it holds"),
        (put_pipe_for_image, "no such image"),
        (put_broken_link, "no such image"),
        (put_circle, "symbolic link"),
        (put_second_name, "are one instance; remove one"),
    ],
)
def test_what_stands_where_something_else_belongs(damage, words, sysu):
    path = damage(sysu)
    with time_limit():
        message = why(SYSU, sysu, "test", SIZE)
    assert str(path) in message
    assert words in message


@pytest.mark.parametrize("dataset", [SYSU, RegDB])
def test_links_are_followed(dataset, sysu, regdb, tmp_path):
    root = {SYSU: sysu, RegDB: regdb}[dataset]
    expected = dataset(root, "train", SIZE).samples
    path = root / expected[0].path
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path.parent, elsewhere)
    path.parent.symlink_to(elsewhere)
    other = root / expected[-1].path
    shutil.move(other, elsewhere / "moved")
    other.symlink_to(elsewhere / "moved")
    assert dataset(root, "train", SIZE).samples == expected


def test_everything_that_is_missing_is_found_at_once(sysu):
    shutil.rmtree(sysu / "cam1")
    shutil.rmtree(sysu / "cam6")
    (sysu / "exp/val_id.txt").unlink()
    (sysu / "exp/rand_perm_cam.mat").unlink()
    with pytest.raises(UserErrors) as error:
        SYSU(sysu, "train", SIZE)
    found = [str(one) for one in error.value.errors]
    assert len(found) == 4
    assert str(error.value) == f"{found[0]} (and 3 more such findings; python -m tools.doctor lists them)"
    for name in ("cam1", "cam6", "exp/val_id.txt", "exp/rand_perm_cam.mat"):
        assert sum(one.startswith(f"{sysu / name}: ") for one in found) == 1


# --- through the main program ---------------------------------------------------------------------------------------


def only_visible(root: Path) -> None:
    """Test identities that no infrared camera has seen."""
    for camera in (3, 6):
        for identity in (root / "exp/test_id.txt").read_text().strip().split(","):
            shutil.rmtree(root / f"cam{camera}/{int(identity):04d}", ignore_errors=True)
    keep_permutations(root, lambda camera, identity: (root / f"cam{camera}/{identity:04d}").is_dir())


def never_indoors(root: Path) -> None:
    tested = {int(word) for word in (root / "exp/test_id.txt").read_text().split(",")}
    keep_permutations(root, lambda camera, identity: camera not in (1, 2) or identity not in tested)


def keep_permutations(root: Path, keep: Callable[[int, int], bool]) -> None:
    path = root / "exp/rand_perm_cam.mat"
    content = scipy.io.loadmat(path)["rand_perm_cam"]
    for camera, cell in zip(CAMERAS, content.ravel(), strict=True):
        for identity in range(1, len(cell) + 1):
            if not keep(camera, identity):
                cell[identity - 1, 0] = np.zeros((10, 0))
    scipy.io.savemat(path, {"rand_perm_cam": content})


def more_instances(root: Path) -> None:
    path = root / "exp/rand_perm_cam.mat"
    content = scipy.io.loadmat(path)["rand_perm_cam"]
    for cell in content.ravel():
        for identity in range(len(cell)):
            images = cell[identity, 0].shape[1]
            cell[identity, 0] = rows(images + 1) if images else cell[identity, 0]
    scipy.io.savemat(path, {"rand_perm_cam": content})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root), "no such folder; set data_root"),
        (put_file_for_folder, "is no folder"),
        (put_folder_for_list, "is no file"),
        (lambda root: (root / "exp/train_id.txt").write_text("1;2"), "is not an identity number"),
        (lambda root: (root / "exp/train_id.txt").write_text("9" * 5000), "is not an identity number"),
        (lambda root: (root / "exp/train_id.txt").write_bytes(b"\xff\xfe1\0"), "cannot be read as text"),
        (lambda root: (root / "exp/rand_perm_cam.mat").write_bytes(MATLAB_FORMS["plain"][:999]), "MATLAB"),
        (lambda root: (root / "exp/rand_perm_cam.mat").write_bytes(b""), "MATLAB"),
        (more_instances, "no such image, though exp/rand_perm_cam.mat lists it"),
        (only_visible, "no query"),
        (never_indoors, "the gallery of indoor/1-shot, trial 1, has no image"),
    ],
)
def test_bad_data_leaves_nothing_behind(damage, words, sysu, tmp_path, capsys):
    command = arguments(tmp_path, "sysu", sysu, cache="disk")
    damage(sysu)
    assert words in refused(capsys, tmp_path, *command)
    assert not (tmp_path / "runs").exists()


def first_of(root: Path, split: str) -> Path:
    return root / RegDB(root, split, SIZE).paths[0]


def fails(*command: str) -> str:
    """What the program says; in a process of its own, which ends its loader processes with itself."""
    done = subprocess.run([sys.executable, "main.py", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(("split", "workers"), [("train", "0"), ("train", "2"), ("test", "2")])
def test_an_unreadable_image_stops_the_run(split, workers, regdb, tmp_path):
    path = first_of(regdb, split)
    path.write_bytes(path.read_bytes()[:200])
    command = arguments(tmp_path, "regdb", regdb, num_workers=workers, mser="false", eval_interval="0")
    assert fails(*command).startswith(f"error: {path}: cannot be decoded as an image")
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("error", "kept", "stays"),
    [
        (UnreadableImage, "log.txt", False),
        (UnreadableImage, "state_00000000.pth", False),
        (UnreadableImage, "state_00000007.pth", True),
        (UnreadableImage, "epoch_001.pth", True),
        (UserError, "log.txt", False),
        (UserError, "state_00000000.pth", True),
    ],
)
def test_only_a_run_without_a_model_is_removed(error, kept, stays, tmp_path):
    """Of a training that diverged, the curves tell why, even in its first epoch."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / kept).write_text("")
    with pytest.raises(error), discarded_without_model(folder):
        raise error("x.jpg: cannot be decoded")
    assert folder.exists() == stays


def test_an_unreadable_image_leaves_no_half_cache(regdb, tmp_path):
    path = first_of(regdb, "train")
    path.write_bytes(b"")
    message = fails(*arguments(tmp_path, "regdb", regdb, num_workers="2", cache="disk"))
    assert message.startswith(f"error: {path}: cannot be decoded")
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


# --- skip_unreadable ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_unreadable_training_images_are_left_out_and_named(cache, regdb, tmp_path):
    whole = RegDB(regdb, "train", SIZE)
    command = arguments(
        tmp_path, "regdb", regdb, num_epoch="1", mser="false", cache=cache, skip_unreadable="true",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    before = run(tmp_path, *command)
    assert "left out" not in (before / "log.txt").read_text()

    broken = [whole.paths[position] for position in (0, 7)]
    (regdb / broken[0]).write_bytes(b"")
    (regdb / broken[1]).write_bytes((regdb / broken[1]).read_bytes()[:100])
    after = run(tmp_path, *command)
    log = (after / "log.txt").read_text()
    assert "left out, because they cannot be read: 2 images" in log
    for path in broken:
        assert f"{regdb / path}: cannot be decoded" in log
    assert f"RegDB train: {whole.num_identities} identities, {len(whole) - 2} images" in log
    states = [torch.load(folder / "last.pth", weights_only=True) for folder in (before, after)]
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_is_left_out_changes_nothing_else(regdb):
    dataset = RegDB(regdb, "train", SIZE)
    samples = dataset.samples
    (regdb / dataset.paths[3]).write_bytes(b"")
    reasons = find_unreadable(dataset, num_workers=0)
    assert list(reasons) == [3]
    assert reasons == find_unreadable(dataset, num_workers=2)
    leave_out(dataset, reasons)
    assert dataset.samples == samples[:3] + samples[4:]
    assert [len(values) for values in (dataset.paths, dataset.labels, dataset.infrared)] == [len(samples) - 1] * 3
    assert dataset.labels.tolist() == [sample.label for sample in dataset.samples]
    for position in (0, 3, len(dataset) - 1):
        expected = read_image(regdb / dataset.samples[position].path, SIZE)
        np.testing.assert_array_equal(dataset[position].images, expected)


@pytest.mark.parametrize("kind", ["", "visible ", "infrared "])
def test_an_identity_must_keep_both_modalities(kind, regdb, tmp_path, capsys):
    dataset: ReIDDataset = RegDB(regdb, "train", SIZE)
    identity = int(dataset.identities[0])
    for sample in dataset.samples:
        if sample.identity == identity and (not kind or (sample.camera == 3) == (kind == "infrared ")):
            (regdb / sample.path).write_bytes(b"")
    command = arguments(tmp_path, "regdb", regdb, skip_unreadable="true")
    message = refused(capsys, tmp_path, *command)
    assert f"skip_unreadable would leave no {kind}image of identity {identity} (" in message


def test_test_images_are_never_left_out(regdb, tmp_path, capsys):
    path = first_of(regdb, "test")
    path.write_bytes(b"")
    command = arguments(tmp_path, "regdb", regdb, skip_unreadable="true", mser="false")
    assert run_program(lambda: main(command)) == 2
    assert f"{path}: cannot be decoded" in capsys.readouterr().err


def test_time_limits_work():
    with pytest.raises(AssertionError, match="took longer"), time_limit(1):
        time.sleep(3)
