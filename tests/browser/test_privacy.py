"""The pages of people in a real browser: without JavaScript, by keyboard, at every width."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    async_playwright,
    expect,
)

from app.sites.script import WIDGET
from app.subject_requests import decide, pages
from tests.subject_requests.people_stage import BOB, Stage, path_of, stage

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
XSS = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
async def browser(chromium_path: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium_path, args=ARGS)
        yield launched
        await launched.close()


@pytest.fixture
async def service(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """The stage behind a real socket."""
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta())
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, base_url=base) as made:
        config = uvicorn.Config(made.app, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield made
        server.should_exit = True
        with suppress(TimeoutError):
            await asyncio.wait_for(serving, 10)


def base_of(service: Stage) -> str:
    return service.runtime.settings.public_url


def form_of(service: Stage) -> str:
    return f"{base_of(service)}/privacy/{service.site_key}"


Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Open]:
    """Open an address in a fresh browser; no page may ever show a dialog or break its own rules."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def listen(said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            faults.append(said.text)

    async def open_page(url: str, **options: Any) -> Page:
        context = await browser.new_context(locale="en-GB", **options)
        contexts.append(context)
        page = await context.new_page()
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("console", listen)
        await page.goto(url)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert faults == []


async def test_the_whole_story_works_without_javascript(service: Stage, visit: Open) -> None:
    await service.add_archive(BOB)
    page = await visit(form_of(service), java_script_enabled=False)

    await page.get_by_label("Erase my data").check()
    await page.get_by_label("Your e-mail address").fill(BOB)
    await page.get_by_role("button", name="Send request").click()
    await expect(page.get_by_role("heading", name="Now look at your mailbox")).to_be_visible()
    assert BOB not in page.url
    await service.settle()

    await page.goto(service.mails("/confirm/")[0]["links"][0])
    await expect(page.get_by_text("Event archive")).to_be_visible()
    await page.get_by_role("button", name="Yes, erase my data").click()
    await expect(page.get_by_role("heading", name="Confirmed")).to_be_visible()

    await page.get_by_role("button", name="Cancel my request").click()
    await expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    await expect(page.get_by_text("It was cancelled")).to_have_count(1)


async def test_the_form_can_be_sent_by_keyboard_alone(service: Stage, visit: Open) -> None:
    page = await visit(form_of(service))

    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_label("Correct my data")).to_be_checked()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("What should be corrected?")).to_be_focused()
    await page.keyboard.type("Köhler, not Kohler")
    await page.keyboard.press("Tab")
    await page.keyboard.type(BOB)
    await page.keyboard.press("Enter")

    await expect(page.get_by_role("heading", name="Now look at your mailbox")).to_be_visible()
    assert await service.count("subject_request") == 1


async def test_the_correction_is_asked_for_only_where_it_matters(
    service: Stage, visit: Open
) -> None:
    page = await visit(form_of(service))
    note = page.get_by_label("What should be corrected?")

    await expect(note).to_be_hidden()
    await page.get_by_label("Correct my data").check()
    await expect(note).to_be_visible()
    await page.get_by_label("Send me a copy").check()
    await expect(note).to_be_hidden()


async def test_an_error_stands_at_its_field_and_is_read_out(service: Stage, visit: Open) -> None:
    page = await visit(form_of(service))
    await page.get_by_label("Erase my data").check()
    await page.get_by_label("Your e-mail address").fill("bob at example")
    await page.get_by_role("button", name="Send request").click()

    field = page.get_by_label("Your e-mail address")
    await expect(page.get_by_role("alert")).to_contain_text("not sent yet")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("bob at example")
    described = (await field.get_attribute("aria-describedby") or "").split()
    assert "email-error" in described
    assert "one e-mail address" in await page.locator("#email-error").inner_text()
    await expect(page.get_by_label("Erase my data")).to_be_checked()


async def test_what_strangers_type_never_runs(service: Stage, visit: Open) -> None:
    page = await visit(form_of(service))
    await page.get_by_label("Correct my data").check()
    await page.get_by_label("What should be corrected?").fill(XSS)
    await page.get_by_label("Your e-mail address").fill(XSS)
    await page.get_by_role("button", name="Send request").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await page.get_by_label("What should be corrected?").input_value() == XSS

    await page.get_by_label("Your e-mail address").fill(BOB)
    await page.get_by_role("button", name="Send request").click()
    await service.settle()
    await page.goto(service.mails("/confirm/")[0]["links"][0])

    await expect(page.get_by_text(XSS)).to_be_visible()


async def every_page(service: Stage) -> list[str]:
    """Addresses of all kinds of page, with something on each."""
    await service.add_archive(BOB, name="A destination with quite a long name, in the basement")
    await service.add_manual()
    services = service.runtime.services
    note = "W" * 120
    confirm = await service.ask("a@example.com", "rectification", note=note)
    in_progress = await service.confirmed("b@example.com")
    await service.end_cooling_off()
    answered = await service.confirmed("c@example.com", "access")
    async with service.runtime.database.writing() as session:
        request_id = (await service.status(answered))["id"]
        await decide.answer(
            session, services, service.workspace_id, request_id, "usr_alice", note,
            f"{note}.zip", b"data", dt.datetime.now(dt.UTC),
        )  # fmt: skip
    await service.settle()
    cooling = await service.confirmed("d@example.com")
    form = f"/privacy/{service.site_key}"
    return [
        form, f"{form}?lang=de", f"{form}/sent", confirm, f"{confirm}?lang=fr", in_progress,
        f"{in_progress}?lang=de", answered, cooling, "/privacy/nowhere", "/privacy/confirm/no",
    ]  # fmt: skip


async def test_every_page_fits_narrow_and_wide_in_light_and_dark(
    service: Stage, visit: Open
) -> None:
    """Nothing sticks out, everything has a name, and text stands out (WCAG 1.4.3, 1.4.10)."""
    paths = await every_page(service)

    for width in (320, 360, 1440):
        for scheme in ("light", "dark"):
            page = await visit(
                f"{base_of(service)}{paths[0]}",
                viewport={"width": width, "height": 800},
                color_scheme=scheme,
            )
            for path in paths:
                await page.goto(f"{base_of(service)}{path}")
                found = await page.evaluate(_LOOK)
                assert found == {"overflow": 0, "headings": 1, "nameless": [], "faint": []}, (
                    path,
                    width,
                    scheme,
                )


_LOOK = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [];
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
    const seen = ratio(light(parse(getComputedStyle(node).color)), light(ground(node)));
    if (seen < 4.5) faint.push([node.textContent.slice(0, 40), seen.toFixed(2)]);
  }
  const fields = [...document.querySelectorAll("input:not([type=hidden]), textarea")];
  const controls = [...document.querySelectorAll("a, button")];
  return {
    overflow: Math.max(0, document.documentElement.scrollWidth - innerWidth),
    headings: document.querySelectorAll("h1").length,
    nameless: [
      ...fields.filter((each) => !each.labels.length).map((each) => each.name),
      ...controls
        .filter((each) => !(each.textContent.trim() || each.ariaLabel))
        .map((each) => each.outerHTML),
    ],
    faint,
  };
}"""


@asynccontextmanager
async def other_sites(body: str) -> AsyncIterator[int]:
    """A port where every ``*.localhost`` shows this page: sites other than the service."""
    answer = f"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n{body}".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_form_023_a_strange_page_cannot_frame_the_form_and_the_site_can(
    service: Stage, visit: Open
) -> None:
    async with other_sites('<!doctype html><iframe width="600" height="900"></iframe>') as port:
        service.site_key = await service.add_site(f"http://shop.localhost:{port}")
        show = f"document.querySelector('iframe').src = '{form_of(service)}'"

        page = await visit(f"http://shop.localhost:{port}/")
        await page.evaluate(show)
        inside = page.frame_locator("iframe")
        await inside.get_by_label("Erase my data").check()
        await inside.get_by_label("Your e-mail address").fill(BOB)
        await inside.get_by_role("button", name="Send request").click()
        await expect(inside.get_by_role("heading", name="Now look at")).to_be_visible()
        assert await service.count("subject_request") == 1

        strange = await page.context.new_page()
        await strange.goto(f"http://evil.localhost:{port}/")
        async with strange.expect_console_message(lambda said: "frame-ancestors" in said.text):
            await strange.evaluate(show)
        await expect(strange.frame_locator("iframe").get_by_label("Erase my data")).to_have_count(0)


@pytest.mark.skipif(not WIDGET.exists(), reason="the widget is not built")
async def test_on_our_own_origin_choices_can_be_changed_right_here(
    service: Stage, visit: Open
) -> None:
    service.site_key = await service.add_site(base_of(service))
    page = await visit(form_of(service))
    await page.locator("quittance-banner [data-action=reject]").first.click()

    await page.get_by_role("button", name="Change my choices").click()

    await expect(page.locator("quittance-banner dialog")).to_be_visible()


async def test_dev_mail_does_not_squeeze_an_address_on_a_telephone(
    service: Stage, visit: Open
) -> None:
    await service.ask("youssef.haddad@example.net")
    page = await visit(f"{base_of(service)}/dev/mail")
    await page.set_viewport_size({"width": 360, "height": 740})
    address = page.get_by_text("youssef.haddad@example.net", exact=True)

    lines = "it => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight)"
    assert round(await address.evaluate(lines)) == 1


async def test_dev_mail_shows_a_mail_whose_links_open(service: Stage, visit: Open) -> None:
    await service.ask()
    page = await visit(f"{base_of(service)}/dev/mail")

    await page.get_by_role("link", name="Please confirm your request").click()
    inside = page.frame_locator("iframe").get_by_role("link", name="Look at it and confirm")
    async with page.context.expect_page() as opening:
        await inside.click()

    opened = await opening.value
    await expect(opened.get_by_role("heading", name="Erase your data?")).to_be_visible()
    assert path_of(service.mails()[0], "/confirm/") in opened.url
