"""The page against a service of the test's own: every view, at its extremes, by keyboard, read aloud, and with nothing on the console."""

from __future__ import annotations

import re
import time

import pytest

from tests.browser import pictures
from tests.browser.stub import SEEN, serving

VIEWS = {
    "overview": ("#/overview", "Overview"),
    "slos": ("#/slos", "Objectives"),
    "slo": ("#/slos/api_availability", "api_availability"),
    "guard": ("#/guards/llm.invoke", "llm.invoke"),
    "chaos": ("#/chaos", "Chaos"),
    "canary": ("#/canary", "Canary"),
    "events": ("#/events", "Events"),
}
DASH = "\u2013"
SOON = 1.0
"""Seconds within which something that happened is on the screen."""


def patient_expect():
    """Give what waits for the page: for long, since a build machine may be busy; how soon something is seen is measured, not waited for."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `nox -s browser`")
    api.expect.set_options(timeout=20_000)
    return api.expect


@pytest.fixture
def expect():
    return patient_expect()


def findings(page, **options):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed: run `nox -s browser`"
    )
    return [
        (found["id"], found["impact"], [node["html"][:160] for node in found["nodes"]][:3])
        for found in axe.Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
        if found["impact"] in {"serious", "critical"}
    ]


def settled(page, expect, title):
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator("main")).not_to_contain_text("Asking …")


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_shuts_anybody_out(view, stub, visit, expect):
    """Axe finds nothing serious or critical: contrast in both themes, names, roles, order of headings."""
    where, title = VIEWS[view]
    page = visit(stub.page + where, bypass_csp=True)
    settled(page, expect, title)
    for summary in page.locator("main summary").all()[:3]:
        summary.click()
    assert findings(page) == []
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert findings(page, runOnly=["color-contrast"]) == []


@pytest.mark.parametrize("make", ["picture", "nothing", "unknown", "hostile"])
def test_every_view_fits_a_narrow_screen_and_shows_what_there_is(make, stub, visit, expect):
    """The page itself never scrolls sideways at 320 pixels, and no picture of the contract makes a view fail."""
    stub.make = getattr(pictures, make)
    page = visit(stub.page, width=320, height=700, expected=["404"])
    for where in [*(where for where, _ in VIEWS.values()), "#/guards/idle", "#/slos/idle_up"]:
        page.goto(stub.page + where)
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator(".link")).to_contain_text("live")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where
        text = page.locator("body").inner_text()
        assert not re.search(r"NaN|undefined|\[object|Infinity|\bnull\b", text), where


def test_hostile_names_are_text(stub, visit, expect):
    """Markup in a name is read, not run; marks that turn the text around are spelled out; and a link to a name leads to it."""
    stub.make = pictures.hostile
    stub.events = [pictures.event(1, text=pictures.HOSTILE, about=pictures.HOSTILE)]
    page = visit(stub.page)
    for where, _ in VIEWS.values():
        page.goto(stub.page + where)
        expect(page.locator("header")).to_contain_text(pictures.HOSTILE)
        assert page.locator("img, script:not([src]), iframe").count() == 0
    page.goto(stub.page + "#/overview")
    expect(page.locator("main")).to_contain_text("safe\\u202egnp.exe\\u2066\\u200b")
    for name in (pictures.HOSTILE, "../../api/stop?x=#&y", "__proto__", "%E0%A4%A"):
        page.goto(stub.page + "#/overview")
        page.get_by_role("link", name=name, exact=True).first.click()
        expect(page.locator("h1")).to_have_text(name)
        expect(page.get_by_role("heading", name="Latency")).to_be_visible()
    assert stub.posts == []
    assert not page.locator("a[href^='javascript']").count()


def test_a_breaker_that_opens_is_on_the_screen_within_a_second_and_is_said_once(stub, visit, expect):
    stub.tick = 0.05
    state = "closed"
    stub.make = lambda: pictures.picture(guards=[pictures.guard("a"), pictures.guard("llm.invoke", state=state)], experiments=[])
    page = visit(stub.page)
    row = page.locator("tbody tr", has_text="llm.invoke")
    expect(row).to_contain_text("closed")
    expect(page.locator("[data-said]")).to_be_empty()
    page.evaluate(SEEN, "llm.invoke")
    state = "open"
    opened = time.time()
    expect(row).to_contain_text("open")
    assert float(page.locator("body").get_attribute("data-opened")) - opened < SOON
    expect(page.locator("tbody tr").first).to_contain_text("llm.invoke")
    expect(page.locator("[data-said]")).to_have_text("llm.invoke is open")
    expect(page).to_have_title(re.compile(r"^1 open"))


def test_a_thousand_guards_stay_usable(stub, visit, expect):
    """They come a page at a time, the filter finds one of them at once, and the order holds while figures move."""
    stub.make = pictures.many
    stub.tick = 1.0
    page = visit(stub.page)
    rows = page.get_by_role("region", name="Guards", exact=True).locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("open")
    page.get_by_role("button", name="Next").first.click()
    expect(page.locator(".pager").first).to_contain_text(re.compile(r"51\D100 of 1,000"))
    page.get_by_label("Filter guards").fill("guard.0777")
    expect(rows).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="of 1,000 guards")).to_have_text("1 of 1,000 guards")


def test_a_table_is_sorted_by_its_headings(stub, visit, expect):
    page = visit(stub.page)
    table = page.get_by_role("region", name="Guards", exact=True)
    table.get_by_role("button", name="Traffic").click()
    expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    expect(table.locator("tbody tr").first).to_contain_text("session.load")
    table.get_by_role("button", name="Traffic").press("Enter")
    expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", "ascending")
    expect(table.locator("tbody tr").first).to_contain_text("mail.send")


def test_lines_keep_their_places_while_figures_move(stub, visit, expect):
    """For some seconds, and as long as somebody points at one; then they are put in order again."""
    rates = {"a": 5.0, "b": 9.0}
    stub.make = lambda: pictures.picture(guards=[pictures.guard(name, rate=rate) for name, rate in rates.items()], routes=[])
    page = visit(stub.page)
    page.clock.install()
    table = page.get_by_role("region", name="Guards", exact=True)
    table.get_by_role("button", name="Traffic").click()
    names = table.locator("tbody th")
    expect(names).to_have_text(["b", "a"])
    table.locator("tbody tr").first.hover()
    rates["a"] = 20.0
    page.clock.fast_forward(20_000)
    expect(table).to_contain_text("20.0/s")
    expect(names).to_have_text(["b", "a"])
    page.mouse.move(0, 0)
    page.clock.fast_forward(6_000)
    expect(names).to_have_text(["a", "b"])


def test_old_news_is_said_to_be_old(stub, visit, expect):
    """Without news the page says since when, and takes it back when the news comes again."""
    page = visit(stub.page)
    expect(page.locator(".link")).to_contain_text("live")
    page.clock.install()
    stub.silent = True
    page.clock.fast_forward(12_000)
    expect(page.get_by_role("alert")).to_contain_text("No news for a while")
    expect(page.locator(".link")).to_contain_text(re.compile(r"no news for 1[1-4] s"))
    stub.silent = False
    page.clock.run_for(2000)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_stream_that_is_refused_is_asked_for_again(stub, visit, expect):
    """The page shows what it can ask for meanwhile, and goes live when it may."""
    stub.closed = True
    page = visit(stub.page, expected=["503"])
    expect(page.locator("main")).to_contain_text("llm.invoke")
    expect(page.locator("header .link")).not_to_contain_text("connecting again", timeout=1)
    stub.closed = False
    stub.make = lambda: pictures.picture(service="later")
    expect(page.locator("header")).to_contain_text("later", timeout=15_000)


def may_stop(page, expect):
    """Wait until the page knows who looks: before that nobody may do anything."""
    expect(page.get_by_role("button", name="Stop chaos")).to_be_visible()


def test_the_kill_switch_is_one_key_and_one_more(stub, visit, expect):
    """From any view `k` asks, Enter stops, Escape does not, and the focus returns where it was."""
    page = visit(stub.page + "#/slos")
    may_stop(page, expect)
    link = page.get_by_role("link", name="Events")
    link.focus()
    page.keyboard.press("k")
    dialog = page.get_by_role("alertdialog")
    expect(dialog).to_contain_text("1 experiment will end")
    expect(dialog.get_by_role("button", name="Stop everything")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(link).to_be_focused()
    assert stub.posts == []
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text("Stop all chaos: done in 1 process.")
    (path, body, headers), *rest = stub.posts
    assert (path, body, rest) == ("api/stop", {}, [])
    assert headers["x-somaresil-csrf"] == "token"
    assert headers["content-type"] == "application/json"


def test_an_approved_plan_is_started_and_says_where_it_was_not(stub, visit, expect):
    stub.answer = (
        200,
        {
            "done": True,
            "sources": [
                {"name": "gateway-4711", "done": True, "problem": ""},
                {"name": "gateway-4714", "done": False, "problem": "no answer within 2 s"},
            ],
        },
    )
    page = visit(stub.page + "#/chaos")
    page.get_by_role("button", name="Start slow model").click()
    page.get_by_role("button", name="Start it").click()
    expect(page.locator(".notice")).to_contain_text("Start slow model: done in 1 process. Not reached:")
    expect(page.locator(".notice li")).to_have_text("gateway-4714: no answer within 2 s")
    assert stub.posts[0][:2] == ("api/experiments", {"plan": "slow model"})


@pytest.mark.parametrize(
    ("view", "button", "confirm", "path"),
    [
        ("chaos", "Stop e1", "Stop it", "api/experiments/e1/stop"),
        ("guard", "Force open", "Force open", "api/breakers/llm.invoke/force_open"),
        ("guard", "Reset", "Reset", "api/breakers/llm.invoke/reset"),
        ("canary", "Roll back", "Roll back", "api/canaries/llm/rollback"),
        ("canary", "Pause", "Pause", "api/canaries/llm/pause"),
    ],
)
def test_what_changes_something_is_asked_and_then_done(view, button, confirm, path, stub, visit, expect):
    page = visit(stub.page + VIEWS[view][0])
    page.get_by_role("main").get_by_role("button", name=button, exact=True).click()
    assert stub.posts == []
    page.get_by_role("alertdialog").get_by_role("button", name=confirm).click()
    expect(page.locator(".notice")).to_contain_text("done")
    assert [post[0] for post in stub.posts] == [path]


def test_a_release_shows_each_claim_about_each_objective(stub, visit, expect):
    """One objective has several: that the new version is worse, and that it is not much worse; each is enough at its own figure."""
    page = visit(stub.page + "#/canary")
    rows = page.get_by_role("region", name="Evidence by objective").locator("tbody tr")
    expect(rows).to_have_text(
        [re.compile("availability.*worse3.00100"), re.compile("not much worse0.4020"), re.compile("latency.*missing its")]
    )
    expect(page.locator(".legend")).to_contain_text("enough at 20")
    expect(page.locator(".plot canvas")).to_be_visible()


def test_stopping_can_be_made_to_last(stub, visit, expect):
    page = visit(stub.page + "#/chaos")
    page.get_by_role("button", name="Stop chaos").click()
    page.get_by_label("If it is to stay stopped: why?").fill("a bad night")
    page.get_by_role("button", name="Stop and keep it stopped").click()
    expect(page.locator(".notice")).to_contain_text("Engage the kill switch: done")
    assert stub.posts[0][:2] == ("api/engage", {"reason": "a bad night"})


def test_a_refusal_is_shown_with_its_reason(stub, visit, expect):
    stub.answer = (409, {"title": "Conflict", "detail": "the budget of api_availability is spent"})
    page = visit(stub.page + "#/chaos", expected=["409"])
    page.get_by_role("button", name="Start slow model").click()
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_have_text(re.compile("Start slow model: not done. the budget of api_availability is spent"))


def test_who_may_only_read_sees_no_controls(stub, visit, expect):
    stub.may = []
    page = visit(stub.page)
    expect(page.locator("footer")).to_contain_text("Read only")
    for where, title in VIEWS.values():
        page.goto(stub.page + where)
        settled(page, expect, title)
        expect(page.get_by_role("button", name=re.compile("Stop|Start|Trip|Force|Reset|Disable|Promote|Roll back|Release"))).to_have_count(
            0
        )
    page.keyboard.press("k")
    expect(page.get_by_role("alertdialog")).to_have_count(0)


def test_events_come_live_and_can_be_held_still_and_filtered(stub, visit, expect):
    page = visit(stub.page + "#/events")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(30)
    stub.more.append(pictures.event(31, text="the first news"))
    expect(rows.first).to_contain_text("the first news")
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    stub.more.append(pictures.event(32, text="news for later"))
    expect(page.locator(".filters")).to_contain_text("Held still; 1 new event")
    expect(rows).to_have_count(31)
    page.keyboard.press("p")
    expect(rows.first).to_contain_text("news for later")
    page.keyboard.press("/")
    page.keyboard.type("burns")
    expect(rows).to_have_count(6)
    page.get_by_label("Kind").select_option("ExperimentStarted")
    expect(page.locator(".empty")).to_contain_text("nothing is like that")
    page.goto(stub.page + "#/events?about=llm.invoke")
    expect(page.locator("main")).to_contain_text("Only about llm.invoke")
    expect(rows).to_have_count(6)


def test_the_page_can_be_walked_by_keyboard_alone(stub, visit, expect):
    """The first stop leads past the menu, every stop can be seen, and following a link takes the reader to the new heading."""
    page = visit(stub.page)
    expect(page.get_by_role("link", name="llm.invoke")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    seen = []
    for _ in range(60):
        named, outlined = page.evaluate("""() => {
          const at = document.activeElement, look = getComputedStyle(at);
          const named = at.textContent.trim() || at.getAttribute('aria-label') || at.tagName;
          return [named, look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 2];
        }""")
        seen.append(named)
        assert outlined, seen[-1]
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    assert seen[1:6] == ["Overview", "SLOs", "Chaos", "Canary", "Events"]
    assert "llm.invoke" in seen
    page.keyboard.press("3")
    expect(page.locator("h1")).to_have_text("Chaos")
    expect(page.locator("h1")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Stop all chaos")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_single_keys_can_be_switched_off(stub, visit, expect):
    """Who dictates or has a hand that trembles would trigger them by accident."""
    page = visit(stub.page)
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Single keys do this").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    expect(page.locator("h1")).to_have_text("Overview")
    page.reload()
    expect(page.locator("h1")).to_have_text("Overview")
    page.keyboard.press("3")
    expect(page.locator("h1")).to_have_text("Overview")


def test_the_chosen_theme_is_kept(stub, visit, expect):
    page = visit(stub.page)
    page.get_by_role("button", name="Theme: light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_a_view_or_a_guard_that_is_not_there_is_said_to_be_missing(stub, visit, expect):
    page = visit(stub.page + "#/nowhere", expected=["404"])
    expect(page.locator("h1")).to_have_text("There is no such view")
    page.goto(stub.page + "#/constructor/x")
    expect(page.locator("h1")).to_have_text("There is no such view")
    page.goto(stub.page + "#/guards/nobody")
    expect(page.locator("main")).to_contain_text("Not found: it is not here")
    page.goto(stub.page + "#/slos/nothing")
    expect(page.locator("main")).to_contain_text("Not found: it is not here")


def test_a_view_that_fails_takes_nothing_else_with_it(stub, visit, expect):
    """Not the other views, not the kill switch, and not itself once what made it fail is gone."""
    stub.make = lambda: pictures.picture(routes=[None])
    page = visit(stub.page, expected=["Cannot read properties of null"])
    expect(page.locator("main")).to_contain_text("This view has failed: Cannot read properties of null")
    may_stop(page, expect)
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text("Stop all chaos: done")
    page.get_by_role("link", name="SLOs").click()
    expect(page.locator("main")).to_contain_text("api_availability")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("main")).to_contain_text("This view has failed")
    # A picture that came after the change is known by its title.
    stub.make = lambda: pictures.picture(service="mended")
    expect(page.locator("header")).to_contain_text("mended")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("main")).to_contain_text("llm.invoke")


def test_without_scripts_there_is_the_plain_table(stub, visit, expect):
    page = visit(stub.page, java_script_enabled=False)
    expect(page.locator("h1")).to_have_text("Status")
    assert page.url.endswith("/plain")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("span(0)", "0 s"),
        ("span(59.6)", "1 min"),
        ("span(61)", "1 min 1 s"),
        ("span(5100000)", "59 d"),
        ("span(90061)", "1 d 1 h"),
        ("span(-3)", "0 s"),
        ("span(null)", DASH),
        ("seconds(0.0042)", "4.2 ms"),
        ("seconds(0.12)", "120 ms"),
        ("seconds(0.9996)", "1.00 s"),
        ("seconds(31.5)", "31.5 s"),
        ("seconds(150)", "2 min 30 s"),
        ("seconds(NaN)", DASH),
        ("share(0.0005)", "0.05 %"),
        ("share(0.99995)", "99.99 %"),
        ("share(0.000001)", "0.01 %"),
        ("share(1)", "100.0 %"),
        ("share(0.9994)", "99.94 %"),
        ("share(-0.08)", "-8.0 %"),
        ("share(-0)", "0.0 %"),
        ("share(undefined)", DASH),
        ("target(0.999)", "99.9 %"),
        ("target(0.95)", "95 %"),
        ("rate(1234)", "1,234/s"),
        ("count(0)", "0"),
        ("count('7')", DASH),
        ("plain('a\\u202eb\\nc')", "a\\u202eb\\u000ac"),
        ("plain(null)", DASH),
    ],
)
def test_figures_are_written_as_people_read_them(call, said, words):
    """What is not known is a dash; a share that is not whole is never rounded to a whole one; marks in names are spelled out."""
    assert words.evaluate(f"words => words.{call}") == said


@pytest.fixture(scope="module")
def words(browser):
    """Give the page's own module of words, in a page of its own."""
    with serving() as stub:
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(stub.page)
        yield page.evaluate_handle("import(new URL('static/words.js', document.baseURI))")
        context.close()
