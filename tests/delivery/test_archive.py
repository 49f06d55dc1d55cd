"""The archive: what is written of expired deliveries, what crashes do to it, and the way back."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from app.core.clock import utc_now
from app.core.failpoints import VARIABLE
from app.core.migrate import _config, _engine
from app.core.settings import Settings
from app.core.storage import Storage
from app.delivery import archive
from app.delivery import service as deliveries
from app.subject_requests import decide, forget
from connectors.contract import done, retry
from tests.running import BOB, CAROL, Service, running

pytestmark = pytest.mark.slow

WRITE_ONCE = """
import asyncio, datetime, sys
from app.compose import Runtime
from app.core.settings import Settings
now = datetime.datetime.fromisoformat(sys.argv[1])
asyncio.run(Runtime(Settings()).archive.write_due(now))
"""


async def expire(service: Service, *people: str, name: str = "crm") -> list[str]:
    """Ask for each of them at a destination that is down until their time is over; their request
    ids.
    """
    if name not in service.destinations:
        (await service.destination(name)).default = retry("down")
    made = [
        (await service.ask(each, destinations=[service.destinations[name]]))["id"]
        for each in people
    ]
    await service.work()
    service.later(days=31)
    await service.step("sweep")
    return made


def files(service: Service) -> list[Path]:
    return sorted((service.settings.data_dir / "archive").glob("*"))


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(each) for file in files(service) for each in file.read_text().splitlines()]


def environment(service: Service) -> dict[str, str]:
    """What a process needs that works on the same databases."""
    settings = service.settings
    return os.environ | {
        "QUITTANCE_DATA_DIR": str(settings.data_dir),
        "QUITTANCE_DATABASE_URL": settings.database_url,
        "QUITTANCE_KEYSTORE_URL": settings.keystore_url,
    }


async def states(service: Service, request_id: str) -> list[str]:
    return [each["state"] for each in (await service.delivery(request_id))["transitions"]]


async def archived(service: Service) -> int:
    return int((await service.rows("SELECT count(*) FROM archived"))[0][0])


async def replay(service: Service, **which: Any) -> dict[str, int]:
    answer: dict[str, int] = await service.post("/v1/deliveries/replay", which)
    return answer


# --- what is written


async def test_a_line_says_all_of_a_delivery_but_whom_it_is_about(service: Service) -> None:
    (made,) = await expire(service, BOB)
    assert (await states(service, made))[-1] == "archiving"

    await service.work()

    assert (await states(service, made))[-2:] == ["archiving", "archived"]
    (file,) = files(service)
    assert file.stat().st_mode & 0o077 == 0
    assert BOB not in file.read_text()
    assert BOB.partition("@")[0] not in file.read_text()
    (line,) = lines(service)
    delivery = await service.delivery(made)
    assert line["delivery_id"] == delivery["id"]
    assert line["request_id"] == made
    assert line["destination_id"] == service.destinations["crm"]
    assert line["workspace_id"] == service.workspaces["alice"]
    assert (line["operation"], line["reason"]) == ("erase", delivery["transitions"][-2]["reason"])
    assert line["expires_at"] == delivery["expires_at"]
    assert line["attempt"] == delivery["transitions"][-2]["attempt"] > 0
    ((sealed, holder),) = await service.rows("SELECT sealed, holder_id FROM personal_value")
    (identifier,) = line["identifiers"]
    assert (identifier["holder_id"], holder) == (made, made)
    assert base64.b64decode(identifier["sealed"]) == sealed


async def test_many_deliveries_share_a_file_up_to_its_size(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LINES", 2)
    await expire(service, *(f"p{each}@example.com" for each in range(5)))

    await service.work()

    assert [len(file.read_text().splitlines()) for file in files(service)] == [2, 2, 1]


async def test_two_workers_write_every_delivery_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LINES", 3)
    made = await expire(service, *(f"p{each}@example.com" for each in range(7)))
    other = await service.add_worker()

    for _ in range(7):
        now = utc_now()
        await asyncio.gather(service.runtime.archive.write_due(now), other.archive.write_due(now))

    assert sorted(line["request_id"] for line in lines(service)) == sorted(made)
    for each in made:
        assert (await states(service, each)).count("archived") == 1


async def test_the_archive_may_lie_in_another_kind_of_storage(
    database_url: str, keystore_url: str, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}"
    async with running(tmp_path, database_url, keystore_url, archive_url=url) as service:
        (made,) = await expire(service, BOB)
        await service.work()
        ((name,),) = await service.rows("SELECT name FROM archive_file")
        assert json.loads(Storage(url).read(name))["request_id"] == made
        assert files(service) == []

        service.doubles["crm"].default = done()
        await replay(service)
        await service.work()
        await service.maintain()

        with pytest.raises(FileNotFoundError):
            Storage(url).read(name)


def test_a_storage_whose_package_is_missing_is_named_at_the_start(tmp_path: Path) -> None:
    (problem,) = Settings(data_dir=tmp_path, archive_url="nowhere://bucket/x").problems()

    assert problem.startswith("QUITTANCE_ARCHIVE_URL cannot be used: ")
    assert Settings(data_dir=tmp_path, archive_url="memory://x").problems() == []


# --- faults


@pytest.mark.parametrize("place", ["archive.before_write", "archive.after_write"])
async def test_a_crash_while_writing_loses_nothing(service: Service, place: str) -> None:
    (made,) = await expire(service, BOB)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", WRITE_ONCE, utc_now().isoformat()],
        env=environment(service) | {VARIABLE: place},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(files(service)) == (1 if place == "archive.after_write" else 0)

    await service.work()
    assert (await states(service, made))[-1] == "archiving", "the dead one's lease still runs"
    service.later(minutes=2)
    await service.work()

    assert (await states(service, made)).count("archived") == 1
    assert [line["request_id"] for line in lines(service)] == [made]


def block(service: Service) -> None:
    """Put a file where the archive's directory should be."""
    (service.settings.data_dir / "archive").write_text("")


def unblock(service: Service) -> None:
    """Take it away, and wait until the storage is asked again."""
    (service.settings.data_dir / "archive").unlink()
    service.later(minutes=2)


async def test_a_storage_that_fails_holds_up_nothing_and_is_asked_again(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    block(service)
    made = await expire(service, BOB)
    await service.work()
    assert "archive_not_written" in caplog.text
    service.later(minutes=2)
    made += await expire(service, CAROL)
    shop = await service.destination("shop")
    await service.ask("dave@example.com", destinations=[service.destinations["shop"]])

    await service.work()
    assert len(shop.asked) == 1
    assert {(await states(service, each))[-1] for each in made} == {"archiving"}

    unblock(service)
    await service.work()
    assert {(await states(service, each))[-1] for each in made} == {"archived"}
    assert len(files(service)) == 1


async def test_what_could_not_be_written_can_be_replayed_all_the_same(
    service: Service,
) -> None:
    block(service)
    made = await expire(service, BOB)
    await service.work()

    service.doubles["crm"].default = done()
    assert (await replay(service))["replayed"] == 1
    await service.work()
    unblock(service)
    await service.work()
    await service.maintain()

    assert (await states(service, made[0]))[-1] == "succeeded"
    assert await service.rows("SELECT * FROM archive_file") == []
    assert files(service) == []


async def test_a_delivery_replayed_while_its_file_is_written_is_not_archived(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = await expire(service, BOB)
    delivery_id = (await service.delivery(made))["id"]
    loop = asyncio.get_running_loop()
    write = Storage.write

    def slow(self: Storage, name: str, content: bytes) -> None:
        path = f"/v1/deliveries/{delivery_id}/replay"
        asyncio.run_coroutine_threadsafe(service.post(path), loop).result()
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", slow)
    await service.step("archive")

    assert (await states(service, made))[-2:] == ["archiving", "awaiting_scheduling"]


async def test_who_wakes_up_after_another_wrote_the_file_changes_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = await expire(service, BOB)
    other = await service.add_worker()
    loop = asyncio.get_running_loop()
    late = utc_now() + dt.timedelta(minutes=2)
    write = Storage.write

    def frozen(self: Storage, name: str, content: bytes) -> None:
        monkeypatch.setattr(Storage, "write", write)
        asyncio.run_coroutine_threadsafe(other.archive.write_due(late), loop).result()
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", frozen)
    await service.step("archive")

    assert (await states(service, made)).count("archived") == 1
    assert len(lines(service)) == 1


# --- the way back


async def test_a_queue_is_replayed_and_the_others_stay(service: Service) -> None:
    ours = await expire(service, BOB, CAROL)
    theirs = await expire(service, BOB, name="shop")
    await service.work()
    service.doubles["crm"].default = done()

    answer = await replay(service, destination_id=service.destinations["crm"])
    await service.work()

    assert answer == {"replayed": 2, "forgotten": 0, "remaining": 0}
    assert [(await service.request(each))["status"] for each in ours] == ["completed"] * 2
    assert (await states(service, theirs[0]))[-1] == "archived"
    assert await archived(service) == 1


async def test_a_time_begins_with_its_first_moment_and_ends_before_its_last(
    service: Service,
) -> None:
    made = [(await expire(service, each))[0] for each in (BOB, CAROL, "dave@example.com")]
    since, until = [
        step["at"]
        for each in made[1:]
        for step in (await service.delivery(each))["transitions"]
        if step["state"] == "archiving"
    ]
    window = {"since": since, "until": until}
    await service.change_queue("crm", "pause")

    assert (await replay(service, **window))["replayed"] == 1
    assert (await replay(service, **window)) == {"replayed": 0, "forgotten": 0, "remaining": 0}

    assert (await states(service, made[1]))[-1] == "awaiting_scheduling"
    assert [(await states(service, each))[-1] for each in made[::2]] == ["archived", "archiving"]
    assert (await replay(service, since=until))["replayed"] == 1
    assert (await replay(service, until=since))["replayed"] == 1
    assert await archived(service) == 0


async def test_many_are_replayed_in_bites_each_with_a_fresh_expiry(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "REPLAY_BITE", 2)
    await expire(service, *(f"p{each}@example.com" for each in range(5)))
    await service.change_queue("crm", "pause")

    left = [(await replay(service))["remaining"] for _ in range(4)]

    assert left == [3, 1, 0, 0]
    rows = await service.rows("SELECT rank, attempt FROM ready")
    assert rows == [(0, 0)] * 5
    service.later(days=29)
    await service.work()
    assert await archived(service) == 0
    service.later(days=2)
    await service.work()
    assert await archived(service) == 5


async def test_another_workspace_is_never_touched(service: Service) -> None:
    await expire(service, BOB)

    answer = await service.post("/v1/deliveries/replay", {}, who="eve")

    assert answer == {"replayed": 0, "forgotten": 0, "remaining": 0}
    assert await archived(service) == 1


async def test_a_forgotten_person_is_counted_and_stays_forgotten(service: Service) -> None:
    forgotten, kept = await expire(service, BOB, CAROL)
    await service.work()
    await forget.forget(service.runtime.services, [forgotten], utc_now())
    delivery = await service.delivery(forgotten)
    await service.change_queue("crm", "pause")

    one = await service.call("POST", f"/v1/deliveries/{delivery['id']}/replay")
    many = await replay(service)

    assert one.status_code == 410
    assert many == {"replayed": 1, "forgotten": 1, "remaining": 0}
    assert (await states(service, kept))[-1] == "awaiting_scheduling"
    assert (
        await service.rows("SELECT * FROM personal_value WHERE holder_id = :id", id=forgotten) == []
    )


async def test_what_the_database_has_lost_comes_back_from_the_file(service: Service) -> None:
    (made,) = await expire(service, BOB)
    await service.work()
    delivery = await service.delivery(made)
    lost = ("personal_value", "delivery_transition", "delivery")
    before = {each: await service.rows(f"SELECT * FROM {each}") for each in lost}
    for each in lost:
        await service.run(f"DELETE FROM {each}")
    service.later(hours=25)
    await service.maintain()  # which keeps the data key, though nothing else names its holder
    crm = service.doubles["crm"]
    crm.asked.clear()
    crm.default = done()

    await service.post(f"/v1/deliveries/{delivery['id']}/replay")
    for each in ("personal_value", "delivery"):
        assert await service.rows(f"SELECT * FROM {each}") == before[each]
    await service.work()

    assert [each.value for each in crm.asked[0].people[0].identifiers] == [BOB]
    assert (await service.request(made))["status"] == "completed"


async def test_a_lost_delivery_of_a_forgotten_person_does_not_come_back(service: Service) -> None:
    (made,) = await expire(service, BOB)
    await service.work()
    await service.runtime.keys.forget([made])
    await service.run("DELETE FROM personal_value")

    assert await replay(service) == {"replayed": 0, "forgotten": 1, "remaining": 0}
    assert await service.rows("SELECT * FROM personal_value") == []


async def test_waived_and_cancelled_deliveries_leave_the_archive(service: Service) -> None:
    waived, cancelled = await expire(service, BOB, CAROL)
    await service.work()
    delivery = await service.delivery(waived)
    async with service.runtime.database.writing() as session:
        await decide.waive(
            session, service.runtime.services, service.workspaces["alice"], delivery["id"],
            "admin:alice", "closed down", utc_now(),
        )  # fmt: skip
    assert await archived(service) == 1
    await service.post(f"/v1/requests/{cancelled}/cancel")

    assert await archived(service) == 0
    answer = await service.call("POST", f"/v1/deliveries/{delivery['id']}/replay")
    assert answer.status_code == 409


# --- keeping house


async def test_a_file_goes_with_the_last_of_its_deliveries(service: Service) -> None:
    made = await expire(service, BOB, CAROL)
    await service.work()
    await service.change_queue("crm", "pause")
    first, second = [(await service.delivery(each))["id"] for each in made]

    await service.post(f"/v1/deliveries/{first}/replay")
    await service.maintain()
    assert len(files(service)) == 1
    await service.post(f"/v1/deliveries/{second}/replay")
    await service.maintain()

    assert files(service) == []
    assert await service.rows("SELECT * FROM archive_file") == []


async def test_the_check_names_deliveries_whose_line_is_gone(service: Service) -> None:
    made = await expire(service, BOB, CAROL)
    await service.work()
    assert await service.runtime.archive.missing() == (2, [])
    (file,) = files(service)
    kept = file.read_text().splitlines()
    file.write_text(kept[0] + "\n")

    gone = json.loads(kept[1])["delivery_id"]
    assert await service.runtime.archive.missing() == (2, [gone])
    file.unlink()
    assert len((await service.runtime.archive.missing())[1]) == len(made)


async def test_deliveries_archived_before_there_were_files_get_a_row_and_then_a_line(
    service: Service,
) -> None:
    replayed, left = await expire(service, BOB, CAROL)
    await service.work()
    service.doubles["crm"].default = done()
    await service.post(f"/v1/deliveries/{(await service.delivery(replayed))['id']}/replay")
    await service.work()
    for table in ("archived", "archive_file"):
        await service.run(f"DROP TABLE {table}")

    await asyncio.to_thread(migrate_again, service.settings.database_url, "20261125_1530")
    assert await service.rows("SELECT request_id, file FROM archived") == [(left, None)]
    await service.work()

    assert [line["request_id"] for line in lines(service)][-1] == left
    assert (await states(service, left)).count("archived") == 1


def migrate_again(url: str, revision: str) -> None:
    """Run one revision on a database that has it behind it."""
    engine = _engine(url)
    with engine.connect() as connection:
        config = _config("main", connection)
        found = ScriptDirectory.from_config(config).get_revision(revision)
        assert found is not None
        connection.execute(
            sa.text("UPDATE alembic_version SET version_num = :before"),
            {"before": found.down_revision},
        )
        connection.commit()
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


# --- the command line


async def quittance(service: Service, *arguments: str) -> tuple[int, Any]:
    """Exit code and answer of a command that runs beside the service."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app.cli", *arguments, "--json"],
        env=environment(service),
        capture_output=True,
        check=False,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


async def test_the_command_line_lists_checks_and_replays(
    embedded: Service,
) -> None:
    service = embedded
    (made,) = await expire(service, BOB)
    await service.work()
    delivery = await service.delivery(made)
    ours = ("--workspace", service.workspaces["alice"])
    at = delivery["transitions"][-2]["at"]

    assert await quittance(service, "delivery", "list-archived", *ours) == (
        0,
        [
            {
                "id": delivery["id"],
                "request_id": made,
                "destination_id": service.destinations["crm"],
                "archived_at": at,
            }
        ],
    )
    files(service)[0].unlink()
    assert await quittance(service, "delivery", "check-archive") == (
        1,
        {"in_files": 0, "missing": [delivery["id"]]},
    )
    day = at.partition("T")[0]
    answer = await quittance(service, "delivery", "replay", "--since", day, *ours)
    assert answer == (0, {"replayed": 1, "forgotten": 0})
    assert (await states(service, made))[-1] == "awaiting_scheduling"
