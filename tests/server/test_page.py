"""The page at `/`, in headless Chromium: every task answers, texts stay texts, and it fits a phone."""

from collections.abc import Iterator
from typing import Any

import pytest

from browser import MISSING, Browser, browser
from serving import Finder, ask, serving

WORDS = {"Zoé 🧀": "PER", "Lyon": "LOC"}
HOSTILE = "<img src=x onerror=\"document.title='gone'\"> 🧀🧀 Zoé 🧀 va à Lyon & revient"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if MISSING:
        pytest.skip(MISSING)
    with browser(tmp_path_factory.mktemp("profile"), language="fr", width=1000, height=900) as found:
        yield found


@pytest.fixture(scope="module")
def everything(predictors: dict[str, Any]) -> Iterator[int]:
    made = {"entities": Finder("token", WORDS), "answers": Finder("span", {"Zoé 🧀": "PER"})}
    with serving(
        {**{name: predictors[name] for name in ("sentiment", "topics", "nli", "mlm", "vectors")}, **made}
    ) as port:
        yield port


def try_it(page: Browser, task: str, **texts: str) -> str:
    """What the page shows for these texts."""
    page.click(f"[data-task={task}]")
    for name, text in texts.items():
        page.write(f"#{name}", text)
    page.run("document.querySelector('#result').replaceChildren()")
    page.click("#run")
    page.wait_for("document.querySelector('#result').childNodes.length && !document.querySelector('#run').disabled")
    return str(page.run("return document.querySelector('#result').innerText"))


def opened(page: Browser, port: int) -> None:
    page.open(f"http://127.0.0.1:{port}/")
    page.wait_for("document.querySelectorAll('#tasks button').length")


def test_every_task_is_there_and_answers(page: Browser, everything: int) -> None:
    opened(page, everything)
    tasks = page.run("return [...document.querySelectorAll('#tasks button')].map(one => one.dataset.task)")
    assert tasks == ["predict", "ner", "qa", "zero-shot", "fill-mask", "embed"]
    assert "positive" in try_it(page, "predict")
    assert "transport" in try_it(page, "zero-shot")
    assert len(page.run("return document.querySelectorAll('#result .bar')")) == 3
    assert "douze mois." in try_it(page, "fill-mask")
    assert "similarité (cosinus)" in try_it(page, "embed")
    assert "exactly one <mask>" in try_it(page, "fill-mask", text="rien")
    assert page.run("return document.querySelector('#result .error') !== null")
    assert [m for m in page.console() if "422" not in m] == []


def test_entities_and_answers_are_marked_where_they_stand_and_texts_are_never_html(
    page: Browser, everything: int
) -> None:
    """Offsets count characters; a cheese is one of them and two of JavaScript's."""
    opened(page, everything)
    try_it(page, "ner", text=HOSTILE)
    marks = "return [...document.querySelectorAll('#result mark')].map(one => one.firstChild.data)"
    assert page.run(marks) == ["Zoé 🧀", "Lyon"]
    kinds = page.run("return [...document.querySelectorAll('#result mark small')].map(one => one.innerText)")
    assert kinds == ["PER", "LOC"]
    colors = page.run(
        "return [...document.querySelectorAll('#result mark')].map(m => getComputedStyle(m).backgroundColor)"
    )
    assert len(set(colors)) == 2
    whole = page.run("return document.querySelector('#result .text').textContent")
    assert whole == HOSTILE.replace("Zoé 🧀", "Zoé 🧀PER").replace("Lyon", "LyonLOC")
    try_it(page, "qa", question="<b>Qui ?</b>", context=HOSTILE)
    assert page.run(marks) == ["Zoé 🧀"]
    assert page.run("return document.querySelector('.answer').textContent") == "Zoé 🧀"
    assert page.run("return document.querySelectorAll('#result img, #result b, #result script').length") == 0
    assert page.run("return document.title") == "affinage"
    assert page.console() == []


def test_the_model_can_be_chosen_and_the_words_are_french_or_english(page: Browser, everything: int) -> None:
    opened(page, everything)
    assert page.run("return document.documentElement.lang") == "fr"
    assert page.run("return document.querySelector('#run').innerText") == "Essayer"
    assert page.run("return [...document.querySelector('#model').options].map(one => one.value)") == [
        "sentiment",
        "topics",
        "nli",
    ]
    page.run("const m = document.querySelector('#model'); m.value = 'topics'; m.onchange()")
    assert "three" in try_it_again(page)
    page.run("const m = document.querySelector('#model'); m.value = 'nli'; m.onchange()")
    assert "entailment" in try_it_again(page)  # a pair: two fields
    page.write("#text", "Mon propre texte")
    page.click("[data-language=en]")
    assert page.run("return document.documentElement.lang") == "en"
    assert page.run("return document.querySelector('#run').innerText") == "Try it"
    assert page.run("return document.querySelector('#text').value") == "Mon propre texte"
    assert page.run("return document.querySelector('#second').value") == "The ground is dry."


def try_it_again(page: Browser) -> str:
    page.click("#run")
    page.wait_for("document.querySelector('#result').childNodes.length && !document.querySelector('#run').disabled")
    return str(page.run("return document.querySelector('#result').innerText"))


def test_it_fits_a_phone(page: Browser, everything: int) -> None:
    page.phone(390, 844)
    try:
        opened(page, everything)
        for task in ("predict", "ner", "qa", "zero-shot", "fill-mask", "embed"):
            try_it(page, task, **({"text": "z" * 300 + " Lyon"} if task == "ner" else {}))
            assert page.run("return document.documentElement.scrollWidth") == 390
        heights = "return [...document.querySelectorAll('#tasks button, #run')].map(one => one.offsetHeight)"
        assert min(page.run(heights)) >= 40  # room for a finger
    finally:
        page.desktop()


def test_the_token_is_asked_for(page: Browser, everything: int, predictors: dict[str, Any]) -> None:
    with serving({"sentiment": predictors["sentiment"]}, token="un-jeton-secret") as port:
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for("!document.querySelector('#key').hidden")
        page.write("#token", "faux")
        page.click("#key button")
        assert page.wait_for("document.querySelector('#result').innerText") == "Jeton refusé."
        page.write("#token", "un-jeton-secret")
        page.click("#key button")
        page.wait_for("!document.querySelector('#ask').hidden")
        assert "positive" in try_it_again(page)


def test_nothing_comes_from_elsewhere(port: int) -> None:
    """Without a browser: no address in the files, no HTML made of strings, and a policy that would stop both."""
    for file in ("/", "/page.css", "/page.js"):
        found = ask(port, file)
        assert found.status == 200
        assert found.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "//" not in found.content.replace("// ", "").replace("data:,", "")
        assert not any(
            way in found.content for way in ("innerHTML", "insertAdjacent", "document.write", "eval(", "style=")
        )
