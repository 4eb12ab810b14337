"""The report: what it holds, that it needs nothing else, and that a real browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import World
from transmiter_cli import api
from transmiter_cli.embedding.sources import ImageSet
from transmiter_cli.embedding.sources.images import ImageFile
from transmiter_cli.errors import TransmiterError
from transmiter_cli.evaluation.candidates import candidates
from transmiter_cli.evaluation.result import EvalResult, Evidence
from transmiter_cli.evaluation.rows import measure
from transmiter_cli.evaluation.unlabelled import describe
from transmiter_cli.report.gallery import in_turn
from transmiter_cli.report.html import render, subject, write_report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NAMES = ["cat", "dog & bone", "eel <i>", "fox", "a class of a very long name", "owl"]
PROBE = """<script>
const images = [...document.images];
document.documentElement.dataset.images = images.length;
document.documentElement.dataset.shown = images.filter(i => i.complete && i.naturalWidth > 0 && i.alt).length;
document.documentElement.dataset.fits = document.documentElement.scrollWidth <= window.innerWidth;
document.documentElement.dataset.figures = [...document.querySelectorAll('svg[role=img]')].filter(
  s => s.getAttribute('aria-label') && s.getBoundingClientRect().height > 50).length;
</script>"""


@pytest.fixture(scope="module")
def evidence(world: World, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for i, label in enumerate(world.labels.tolist()):
        path = folder / f"{i}.png"
        Image.new("RGB", (60, 40 + label), (40 * label, i % 256, 90)).save(path)
        files.append(ImageFile(path.parent, path.name, NAMES[label]))
    fitted = api.fit(world.weak, world.finetuned_logits, epochs=3)
    moved = api.transfer(fitted, world.weak, world.strong)
    parts = {"weak": world.weak, "strong": world.strong, "finetuned_logits": world.finetuned_logits}
    models = candidates(**parts, fitted=fitted, transferred={"transferred": moved})
    return Evidence(models, world.labels, ImageSet(tuple(files), tuple(NAMES), None).files, NAMES)


@pytest.fixture(scope="module")
def result(evidence: Evidence) -> EvalResult:
    rows = measure(evidence.models, evidence.labels, base=[0, 1, 2])
    about = {"data": "pets", "split": "test", "images": 400, "classes": 6, "weak": "ViT-B/32", "strong": "ViT-L/14"}
    return EvalResult(rows, **about, notes=("OVERLAP & more",), evidence=evidence)


@pytest.fixture(scope="module")
def unlabelled(result: EvalResult, evidence: Evidence) -> EvalResult:
    return replace(result, rows=describe(evidence.models), evidence=replace(evidence, labels=None))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_needs_nothing_from_elsewhere(result: EvalResult):
    text = render(result, ["transmiter fit --weak 'ViT-B/32'"])
    page = Page(text)
    assert not page.all("script")
    assert all(str(link["href"]).startswith("data:") for link in page.all("link"))
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not re.search(r"(?<!xmlns=\")(?<!xlink=\")https?://", text)
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)


def test_pictures_and_figures_have_words_for_those_who_do_not_see_them(result: EvalResult):
    page = Page(render(result, []))
    figures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(figures) == 5
    assert all(svg["aria-label"] for svg in figures)
    assert all("before" in str(image["alt"]) for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"


def test_names_of_classes_are_text_not_markup(result: EvalResult):
    text = render(result, ["transmiter fit --data '<b>'"])
    assert "eel <i>" not in text
    assert "eel &lt;i&gt;" in text
    assert "'&lt;b&gt;'" in text or "&#39;&lt;b&gt;&#39;" in text
    assert "OVERLAP &amp; more" in text


def test_names_of_classes_are_no_patterns_and_no_mathematics(evidence: Evidence, result: EvalResult):
    names = [r"a\d", "$5 % $10", r"$\foo$", "fox", "eel", "owl"]
    text = render(replace(result, evidence=replace(evidence, class_names=names)), [])
    assert r"a\d" in text
    assert "$5 % $10" in text
    assert r"$\foo$" in text


def test_it_compares_with_the_row_that_the_table_is_compared_with(evidence: Evidence, result: EvalResult):
    rows = measure(evidence.models, evidence.labels, base=[0, 1, 2], against="weak_finetuned")
    text = render(replace(result, rows=rows, against="weak_finetuned"), [])
    row = rows["transferred"]
    assert f"{100 * rows['weak_finetuned'].top1:.1f}<small>" in text
    assert f"Fixed: {row.fixed} image" in text
    assert f"Broken: {row.broken} image" in text
    assert "against <b>weak, fine-tuned</b>" in text
    assert "Below each image: the answer of weak, fine-tuned, then the new one" in text
    assert "before, weak, fine-tuned, the calibration error" in text
    assert "Change in accuracy against weak, fine-tuned, in points." in text
    with pytest.raises(TransmiterError, match="compares that with itself"):
        render(replace(result, against="transferred"), [])


def test_it_tells_the_numbers_of_the_table(result: EvalResult):
    text = render(result, [])
    row = result.rows["transferred"]
    assert f"{100 * row.top1:.1f}<small>" in text
    assert f"Fixed: {row.fixed} images" in text
    assert f"Broken: {row.broken} image" in text
    assert text.count("<li><img") == min(12, row.fixed) + min(12, row.broken)


def test_the_best_row_has_a_star_only_if_it_is_better_than_the_strong_model(result: EvalResult):
    assert render(result, []).count("★") == 2
    level = {name: replace(row, top1=0.5) for name, row in result.rows.items()}
    text = render(replace(result, rows=level), [])
    assert "★" not in text
    assert "No row that runs one strong model is better than the strong" in text


def test_the_strength_of_the_first_of_several_is_in_table_and_figures(result: EvalResult):
    text = render(replace(result, reg=0.1), [])
    assert "<td>transferred reg=0.1" in text
    assert re.search(r'aria-label="Bars of top-1[^"]*transferred reg=0.1 ', text)


def test_the_same_evaluation_gives_the_same_report(result: EvalResult):
    assert render(result, []) == render(result, [])


def test_no_colour_of_a_figure_is_fixed(result: EvalResult):
    figures = re.findall(r"<svg.*?</svg>", render(result, []), re.DOTALL)
    assert not [colour for svg in figures for colour in re.findall(r"(?:fill|stroke): (#\w+)", svg)]


def test_without_labels_it_says_so(unlabelled: EvalResult):
    text = render(replace(unlabelled, notes=("Without labels nothing here says which model is right.",)), [])
    assert "Nothing here says which model is right" in text
    assert "Answered otherwise" in text
    assert "✓" not in text
    assert len([svg for svg in Page(text).all("svg") if svg.get("role") == "img"]) == 2


def test_the_row_it_is_about_is_not_chosen_by_test_labels(result: EvalResult):
    assert subject(result.rows, "strong") == "transferred"
    assert subject([*result.rows, "refined", "lasso"], "strong") == "refined"


def test_nothing_to_report_on_is_an_error(result: EvalResult, tmp_path: Path):
    with pytest.raises(TransmiterError, match="no adapted strong model"):
        render(replace(result, rows={"strong": result.rows["strong"]}), [])
    with pytest.raises(TransmiterError, match="cannot be written"):
        write_report(result, Path("/dev/null/report.html"))


def test_an_image_that_has_gone_is_left_out(result: EvalResult, evidence: Evidence, tmp_path: Path):
    files = tuple(ImageFile(tmp_path / "gone", file.id, file.label) for file in evidence.files)
    assert "<img" not in render(replace(result, evidence=replace(evidence, files=files)), [])


def test_the_gallery_takes_classes_in_turn():
    sure, groups = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([0, 0, 0, 1, 2])
    assert in_turn(range(5), sure, groups) == [0, 3, 4, 1, 2]


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"]
    return subprocess.run([CHROMIUM, *flags, *offline, *arguments], capture_output=True, text=True, timeout=120)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@needs_chromium
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize("kind", ["result", "unlabelled"])
def test_a_browser_shows_all_pictures_without_an_error(kind: str, width: int, tmp_path: Path, request):
    text = render(request.getfixturevalue(kind), ["transmiter fit " + "--very-long-flag " * 30])
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = chromium("--dump-dom", f"--window-size={width},2000", f"--user-data-dir={tmp_path / 'user'}", page.as_uri())
    found = dict(re.findall(r'data-(\w+)="(\w+)"', done.stdout[: done.stdout.index("<head")]))
    assert int(found["images"]) > 0, done.stderr
    assert found["shown"] == found["images"]
    assert found["fits"] == "true"
    assert found["figures"] == ("5" if kind == "result" else "2")
    assert "CONSOLE" not in done.stderr


@needs_chromium
def test_a_screenshot_has_the_colours_of_light_and_of_dark(result: EvalResult, tmp_path: Path):
    write_report(result, tmp_path / "report.html")
    shades = {}
    for scheme, flag in (("light", "1"), ("dark", "0")):
        shot = tmp_path / f"{scheme}.png"
        setting = f"--blink-settings=preferredColorScheme={flag}"
        chromium(f"--screenshot={shot}", "--window-size=900,900", setting, (tmp_path / "report.html").as_uri())
        with Image.open(shot) as image:
            shades[scheme] = image.convert("L").getpixel((2, 2))
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
    assert shades["light"] > 200
    assert shades["dark"] < 60
