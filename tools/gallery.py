"""Draw the pictures of the docs from the demo's report: ``make gallery``.

Runs from the root of the repository, after ``make demo``. Screenshots of the page need Chromium and selenium.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools import rank_list
from tools.report import __main__ as report
from tools.search import __main__ as search
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError
from utils.run.folder import RESULTS

RUNS, IMAGES_OF_DEMO, DOCS = Path("demo/runs/sysu"), Path("demo/SYSU-synthetic"), Path("docs")
GALLERY = DOCS / "gallery"
LINES = ("curve_test", "cmc_all_1-shot", "distances_infrared_visible", "tsne", "by_identity")  # figures of lines: PNG
IMAGES = ("attention_mean", "looks_worst_query", "rank_lists_mended_by_mser")  # figures of images: JPEG
SEARCHED, QUERIES = "cam1", ("cam6/0186/0001.jpg", "cam6/0267/0001.jpg")  # gallery and queries of the search
WIDTH = 1000  # of a picture, in pixels
SCREENS = {"page-light": (1280, 900, "light"), "page-dark": (390, 844, "dark")}  # width, height, theme


def main(argv: list[str] | None = None) -> int:
    Parser(prog="python -m tools.gallery", description=__doc__.splitlines()[0]).parse_args(argv)
    runs = sorted(path.parent for path in RUNS.glob(f"*/{RESULTS}"))
    if not runs:
        raise UserError(f"{RUNS}: holds no complete run; run `make demo` first")
    GALLERY.mkdir(exist_ok=True)
    rank_list.main([str(runs[-1]), "--out", str(DOCS / "rank_list.jpg")])
    with tempfile.TemporaryDirectory() as folder:
        page, figures = Path(folder) / "report.html", Path(folder) / "figures"
        report.main([str(runs[-1]), "--out", str(page), "--figures", str(figures)])
        for name in (*LINES, *IMAGES):
            shrink(figures / f"{name}.png", GALLERY / f"{name}{'.png' if name in LINES else '.jpg'}")
        screenshots(page)
        draw_search(runs[-1], Path(folder))
    total = sum(path.stat().st_size for path in [*GALLERY.iterdir(), DOCS / "rank_list.jpg"])
    print(f"{GALLERY}: {len(list(GALLERY.iterdir()))} pictures, {total / 1e6:.2f} MB with {DOCS / 'rank_list.jpg'}")
    return 0


def draw_search(run: Path, folder: Path) -> None:
    """The images of one camera, ranked for two infrared queries."""
    out = folder / "search.png"
    queries = [str(IMAGES_OF_DEMO / path) for path in QUERIES]
    words = ["--checkpoint", str(run / "best.pth"), "--gallery", str(IMAGES_OF_DEMO / SEARCHED), "--out", str(out)]
    search.main([*words, "--cache", str(folder / "cache"), "--query", *queries])
    shrink(out, GALLERY / "search.jpg")


def shrink(source: Path, target: Path) -> None:
    """Save a picture at most ``WIDTH`` pixels wide, with few colours (PNG) or as JPEG."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
        picture.thumbnail((WIDTH, 4 * WIDTH))
        if target.suffix == ".png":
            picture.quantize(64).save(target, optimize=True)
        else:
            picture.save(target, quality=80, optimize=True)


def screenshots(page: Path) -> None:
    """The top of the page on a desk and on a phone."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        print("no chromium and chromedriver: the screenshots are not made again")
        return
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        for name, (width, height, theme) in SCREENS.items():
            media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.as_uri())
            picture = page.with_name(f"{name}.png")
            browser.save_screenshot(str(picture))
            shrink(picture, GALLERY / f"{name}.png")


if __name__ == "__main__":
    sys.exit(run_program(main))
