"""The command line: what it refuses, in one sentence and with exit code 1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app import bootstrap, cli
from app.crypto import keyring
from app.sites.models import NoticeVersion


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Quittance = Callable[..., Ended]


@pytest.fixture
def data_dir(sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path) -> Path:
    """An installation that was started once."""
    keyring.create(tmp_path / "keys" / "master.json")
    return tmp_path


@pytest.fixture
def quittance(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Quittance:
    """Runs a command to its end; keyword arguments are settings."""

    def run(*arguments: str, **settings: str) -> Ended:
        with monkeypatch.context() as patch:
            for name in [each for each in os.environ if each.startswith("QUITTANCE_")]:
                patch.delenv(name)
            for name, value in {"data_dir": str(data_dir), **settings}.items():
                patch.setenv(f"QUITTANCE_{name.upper()}", value)
            patch.setattr("sys.argv", ["quittance", *arguments])
            patch.setattr(cli, "configure", lambda *_, **__: None)  # the log of all tests
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        written = capsys.readouterr()
        return Ended(int(ended.value.code or 0), written.out, written.err)

    return run


def is_one_sentence(text: str) -> bool:
    return "Traceback" not in text and len(text.strip().splitlines()) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Workspaces


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--name", "T", "--timezone", "Mars/Phobos"), "no such time zone"),
        (("--name", "T", "--timezone", "Europe"), "no such time zone"),
        (("--name", "T", "--timezone", ""), "no such time zone"),
        (("--name", ""), "Give the workspace a name"),
    ],
)
def test_a_workspace_has_a_name_and_a_zone_that_exists(
    quittance: Quittance, given: tuple[str, ...], told: str
) -> None:
    refused = quittance("workspace", "create", *given)
    assert refused.code == 1
    assert told in refused.err
    assert is_one_sentence(refused.err)
    assert quittance("workspace", "list", "--json").rows == []


def test_the_doctor_finds_a_zone_that_does_not_exist_and_says_how_to_mend_it(
    quittance: Quittance, database_url: str, keystore_url: str
) -> None:
    databases = {"database_url": database_url, "keystore_url": keystore_url}
    made = quittance("workspace", "create", "--name", "T", "--json", **databases).rows
    engine = sa.create_engine(database_url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workspace SET timezone = 'Mars/Phobos'"))
    engine.dispose()
    ask = ("request", "create", "--kind", "erasure", "--identifier", "email:bob@shop.example")

    found = quittance("doctor", **databases)
    assert found.code == 1
    repair = f"quittance workspace update {made['id']} --timezone Europe/Berlin"
    assert f"FAIL  workspaces: a time zone is unknown here; give another: `{repair}`" in found.out

    mended = quittance(*repair.split()[1:], "--json", **databases)
    assert mended.rows["timezone"] == "Europe/Berlin"
    assert quittance("doctor", **databases).code == 0
    assert quittance(*ask, **databases).code == 0


def test_a_database_without_tables_is_a_sentence(
    quittance: Quittance, empty_database_url: str, keystore_url: str
) -> None:
    refused = quittance(
        "workspace", "list", database_url=empty_database_url, keystore_url=keystore_url,
        broker_url="redis://127.0.0.1:1/0",
    )  # fmt: skip
    assert refused.code == 1
    if empty_database_url.startswith("sqlite"):
        assert "the distributed form needs PostgreSQL" in refused.err
    else:
        assert "run `quittance migrate`" in refused.err
    assert is_one_sentence(refused.err)


def test_an_update_of_a_workspace_changes_what_it_names(quittance: Quittance) -> None:
    made = quittance("workspace", "create", "--name", "T", "--json").rows
    update = ("workspace", "update", made["id"])

    changed = quittance(*update, "--name", "Shop Ltd", "--json")
    assert changed.rows == made | {"name": "Shop Ltd"}
    for wrong in ((), ("--timezone", "Mars/Phobos"), ("--name", " ")):
        refused = quittance(*update, *wrong)
        assert refused.code == 1
        assert is_one_sentence(refused.err)
    assert quittance("workspace", "list", "--json").rows == [changed.rows]


# Sites


def test_a_new_site_is_answered_with_the_line_to_paste(quittance: Quittance) -> None:
    quittance("workspace", "create", "--name", "T")
    given = ("site", "create", "--name", "Shop", "--origin", "https://shop.example")
    settings = {"base_url": "https://privacy.shop.example"}

    printed, (*_, named) = quittance(*given, **settings), quittance("site", "list", "--json").rows
    made = quittance(*given, "--json", **settings).rows

    src = "https://privacy.shop.example/b/{}.js"
    tag = f'<script src="{src}" async></script>'
    assert printed.out.splitlines()[-1] == tag.format(named["site_key"])
    assert made["tag"] == tag.format(made["site_key"])


def test_a_new_site_says_whose_it_is(quittance: Quittance) -> None:
    quittance("workspace", "create", "--name", "Fernweh Coffee")
    other = quittance("workspace", "create", "--name", "Shop Ltd", "--json").rows["id"]
    given = ("site", "create", "--name", "Shop", "--origin", "https://shop.example")

    first, *hint = quittance(*given).out.splitlines()
    assert first == "Added to the workspace Fernweh Coffee."
    assert "--workspace" in hint[0]
    named = quittance(*given, "--workspace", other).out
    assert named.startswith("Added to the workspace Shop Ltd.\n")
    assert "--workspace" not in named


def test_of_several_origins_the_wrong_one_is_named(quittance: Quittance) -> None:
    quittance("workspace", "create", "--name", "T")
    good, wrong = "https://shop.example", "http://www.shop.example"
    refused = quittance("site", "create", "--name", "S", "--origin", good, "--origin", wrong)

    assert refused.code == 1
    assert "origins.1: Use https" in refused.err


def test_who_is_responsible_for_a_new_site_stands_in_its_notice(
    quittance: Quittance, data_dir: Path
) -> None:
    quittance("workspace", "create", "--name", "T")
    given = ("site", "create", "--name", "Shop", "--origin", "https://shop.example", "--json")
    said = ("--controller-contact", "privacy@shop.example", "--policy-url", "/privacy")

    named = quittance(*given, *said, "--controller-name", "Shop Ltd")
    assert named.err == ""
    unnamed = quittance(*given, "--controller-name", " ", base_url="https://privacy.shop.example")
    page = f"https://privacy.shop.example/dashboard/sites/{unnamed.rows['id']}"
    assert page == unnamed.rows["page"]
    assert unnamed.err.splitlines() == [
        "Not said yet:",
        "  Controller: visitors read the site's name in its place",
        "  Contact: how the controller is reached",
        "  Privacy policy: where visitors read more",
        f"Fill it in on {page}, and publish.",
    ]

    notices = published(data_dir)
    told = notices[named.rows["id"]]
    assert told["controller"] == {"name": "Shop Ltd", "contact": "privacy@shop.example"}
    assert told["policy_url"] == "/privacy"
    assert notices[unnamed.rows["id"]]["controller"] == {"name": "Shop", "contact": ""}


def test_every_wrong_member_of_a_new_banner_is_named_and_no_site_is_made(
    quittance: Quittance,
) -> None:
    quittance("workspace", "create", "--name", "T")
    refused = quittance(
        "site", "create", "--name", "Shop", "--origin", "https://shop.example",
        "--controller-name", "x" * 121, "--controller-contact", "a\nb",
        "--policy-url", "http://shop.example/privacy", "--first-party", "ftp://shop.example",
    )  # fmt: skip

    assert refused.code == 1
    told = dict(line.split(": ", 1) for line in refused.err.splitlines()[1:])
    assert "120 characters" in told["controller.name"]
    assert told["controller.contact"] == "text holds control characters"
    assert told["policy_url"] == "give an https: address or a path such as /privacy"
    assert "first_party" in told
    assert quittance("site", "list", "--json").rows == []


def published(data_dir: Path) -> dict[str, Any]:
    """What visitors are shown, by site."""
    engine = sa.create_engine(f"sqlite:///{data_dir}/quittance.sqlite", poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(col(NoticeVersion.site_id), col(NoticeVersion.content)))
        return {each.site_id: each.content for each in rows}


# People


def test_which_of_several_identifiers_is_wrong_is_said_once(quittance: Quittance) -> None:
    quittance("workspace", "create", "--name", "T")
    refused = quittance(
        "request", "create", "--kind", "erasure",
        "--identifier", "user_id:u1", "--identifier", "email:no address",
    )  # fmt: skip

    assert refused.code == 1
    assert refused.err.splitlines() == [
        "An identifier is not valid.",
        "identifiers.1: Give exactly one e-mail address, such as name@example.com.",
    ]


def test_a_file_with_one_wrong_person_is_refused_whole(
    quittance: Quittance, data_dir: Path
) -> None:
    quittance("workspace", "create", "--name", "T")
    file = data_dir / "people.csv"
    file.write_text("email,phone\nbob@shop.example,\ncarol@shop.example,030 1\n")
    refused = quittance("request", "import", str(file), "--yes")

    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        "An identifier is not valid. Person 2: Give the telephone number in international form, "
        "such as +49 30 1234567."
    )


# Settings


@pytest.mark.parametrize("command", ["workspace list", "doctor", "serve", "worker", "migrate"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "foo"),
        ("base_url", "http://"),
        ("trusted_proxies", "abc"),
        ("region_resolver", "nope"),
        ("forget_grace_days", "-1"),
        ("database_url", "mysql://x/y"),
        ("keystore_url", "postgresql+asyncpg://x/y"),
        ("broker_url", "foo"),
        ("smtp_url", "foo"),
        ("smtp_url", "http://x"),
        ("mail_from", "zzz"),
        ("alert_mail", "zzz"),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_setting_is_a_sentence(
    quittance: Quittance, command: str, name: str, value: str
) -> None:
    refused = quittance(*command.split(), **{name: value})
    assert refused.code == 1
    (said,) = (refused.out if command == "doctor" else refused.err).splitlines()
    assert f"QUITTANCE_{name.upper()} is not valid: " in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "https://privacy.shop.example/consent"),
        ("trusted_proxies", "10.0.0.0/8, ::1/128"),
        ("smtp_url", "smtps://us%40er:p%2Fw@mail.shop.example"),
        ("mail_from", "privacy@shop.example"),
        ("mail_from", '"Shop, the good one" <privacy@shop.example>'),
        ("alert_mail", "ann@shop.example, bob@shop.example"),
        ("log_level", "warning"),
        ("broker_url", "memory://"),
        ("security_contact", "mailto:security@shop.example"),
    ],
)
def test_a_right_setting_is_taken(quittance: Quittance, name: str, value: str) -> None:
    found = quittance("doctor", **{name: value})
    assert found.code == 0, found.out


def test_a_wrong_network_is_met_with_an_example(quittance: Quittance) -> None:
    refused = quittance("workspace", "list", trusted_proxies="abc, 10.0.0.1/8")
    assert "write networks such as 10.0.0.0/8 or fd00::/8" in refused.err
    assert is_one_sentence(refused.err)


def test_the_doctor_lists_all_that_is_wrong_with_settings(quittance: Quittance) -> None:
    wrong = {"log_level": "loud", "port": "many", "prot": "8000"}
    found = quittance("doctor", "--json", **wrong)
    assert found.code == 1
    assert {each["name"] for each in found.rows} == {"settings"}
    assert not any(each["ok"] for each in found.rows)
    said = [each["detail"].split()[0] for each in found.rows]
    assert sorted(said) == ["QUITTANCE_LOG_LEVEL", "QUITTANCE_PORT", "QUITTANCE_PROT"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("security_contact", "foo", "QUITTANCE_SECURITY_CONTACT is no address"),
        ("connectors_dir", "/nope", "QUITTANCE_CONNECTORS_DIR is no directory"),
        ("allowed_paths", "/nope", "QUITTANCE_ALLOWED_PATHS names what is no directory"),
        ("prot", "8000", "QUITTANCE_PROT is no setting: did you mean QUITTANCE_PORT?"),
    ],
)
def test_the_doctor_finds_settings_that_do_nothing(
    quittance: Quittance, name: str, value: str, told: str
) -> None:
    found = quittance("doctor", **{name: value})
    assert found.code == 1
    assert f"FAIL  settings: {told}" in found.out


def test_a_receipt_cannot_be_checked_under_wrong_settings(
    quittance: Quittance, tmp_path: Path
) -> None:
    file = tmp_path / "receipt.jws"
    file.write_text("eyJhbGciOiJFZERTQSJ9.e30.AA")
    found = quittance("receipt", "verify", str(file), log_level="loud")
    assert found.code == 2
    assert "QUITTANCE_LOG_LEVEL is not valid" in found.err


# Databases and the key file


@pytest.mark.parametrize("command", ["workspace list", "serve"])
def test_a_database_that_does_not_answer_is_a_sentence(quittance: Quittance, command: str) -> None:
    refused = quittance(
        *command.split(), database_url="postgresql://127.0.0.1:1/x",
        keystore_url="postgresql://127.0.0.1:1/y", broker_url="redis://127.0.0.1:1/0",
        port=str(free_port()),
    )  # fmt: skip
    assert refused.code == 1
    assert "The database does not answer" in refused.err.splitlines()[-1]
    assert "Traceback" not in refused.err


@pytest.mark.parametrize("command", ["serve", "up --no-demo"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist. A new installation gets one from `quittance migrate`"),
        ("[]", "is not what `quittance migrate` writes"),
        ('{"master": {"current": [], "keys": []}, "peppers": []}', "is not what"),
        ("a directory", "cannot be read (Is a directory)"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_a_sentence(
    quittance: Quittance, data_dir: Path, command: str, content: str | None, told: str
) -> None:
    file = data_dir / "elsewhere.json"
    if content == "a directory":
        file.mkdir()
    elif content is not None:
        file.write_text(content)
    port = {"port": str(free_port())}
    refused = quittance(*command.split(), master_key_file=str(file), **port)
    assert refused.code == 1
    assert told in refused.err
    assert is_one_sentence(refused.err)


def test_a_worker_says_that_its_key_file_is_missing(quittance: Quittance, data_dir: Path) -> None:
    refused = quittance(
        "worker", database_url="postgresql://127.0.0.1:1/x",
        keystore_url="postgresql://127.0.0.1:1/y", broker_url="redis://127.0.0.1:1/0",
        master_key_file=str(data_dir / "elsewhere.json"),
    )  # fmt: skip
    assert refused.code == 1
    assert "elsewhere.json does not exist. A new installation gets one" in refused.err
    assert is_one_sentence(refused.err)


def test_a_directory_that_cannot_be_made_is_a_sentence(
    quittance: Quittance, data_dir: Path
) -> None:
    (data_dir / "file").touch()
    refused = quittance("workspace", "list", allowed_paths=str(data_dir / "file" / "shared"))
    assert refused.code == 1
    assert "shared cannot be made (Not a directory)" in refused.err
    assert is_one_sentence(refused.err)


@pytest.mark.parametrize("command", ["serve", "up --no-demo", "request list"])
def test_the_key_file_of_another_installation_is_a_sentence(
    quittance: Quittance, data_dir: Path, command: str
) -> None:
    made = quittance("workspace", "create", "--name", "T")
    assert made.code == 0
    file = data_dir / "keys" / "master.json"
    file.unlink()
    keyring.create(file)
    given = command.split()
    if command == "request list":
        given = ["request", "create", "--kind", "erasure", "--identifier", "email:b@shop.example"]
    refused = quittance(*given, port=str(free_port()))
    assert refused.code == 1
    assert "it belongs to another one" in refused.err
    assert is_one_sentence(refused.err)


def test_the_first_start_of_a_web_process_names_migrate(
    quittance: Quittance, tmp_path: Path
) -> None:
    fresh = {"data_dir": str(tmp_path / "fresh"), "port": str(free_port())}
    refused = quittance("serve", **fresh)
    assert refused.code == 1
    assert "`quittance migrate`" in refused.err
    assert is_one_sentence(refused.err)
    (tmp_path / "fresh" / "keys").mkdir()
    keyring.create(tmp_path / "fresh" / "keys" / "master.json")
    refused = quittance("serve", **fresh)
    assert refused.err == "The database has no tables, or old ones: run `quittance migrate`.\n"


def test_migrate_does_not_speak_of_a_key_file_that_is_not_there(
    quittance: Quittance, data_dir: Path
) -> None:
    assert "back it up" in quittance("migrate").out
    told = quittance("migrate", master_key_file=str(data_dir / "elsewhere.json")).out
    assert "elsewhere.json is not there yet" in told


# Starting


@pytest.mark.parametrize("command", ["serve", "up --no-demo"])
def test_one_process_at_a_time_works_on_a_data_directory(
    quittance: Quittance, data_dir: Path, command: str
) -> None:
    with bootstrap.lock(data_dir, "http://127.0.0.1:8321"):
        refused = quittance(*command.split(), port=str(free_port()))
    assert refused.code == 1
    assert "is already in use by process" in refused.err
    assert is_one_sentence(refused.err)


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_nobody_waits_for_hints_from_a_broker_in_another_process(
    quittance: Quittance, command: str
) -> None:
    refused = quittance(command)
    assert refused.code == 1
    assert "QUITTANCE_BROKER_URL is memory://" in refused.err
    assert is_one_sentence(refused.err)


def test_a_web_process_alone_says_so_and_holds_its_data_directory(
    quittance: Quittance, data_dir: Path
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("QUITTANCE_")
    }
    environment |= {"QUITTANCE_DATA_DIR": str(data_dir), "QUITTANCE_PORT": str(free_port())}
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve"],
        env=environment, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        assert serving.stderr is not None
        said = next((line for line in serving.stderr if "memory://" in line), "")
        beside = quittance("up", port=str(free_port()))
        serving.terminate()
        rest = serving.stderr.read()
    assert "this process does all background work itself" in said
    assert beside.code == 1
    assert f"is already in use by process {serving.pid}" in beside.err
    assert "Traceback" not in rest


# Destinations


def test_a_refused_destination_lists_what_to_correct(quittance: Quittance) -> None:
    quittance("workspace", "create", "--name", "T")
    create = ("destination", "create", "--name", "db", "--connector", "sql", "--settings")
    refused = quittance(*create, "{}")
    assert refused.code == 1
    assert "url: Field required" in refused.err
    refused = quittance(*create, "[]")
    assert refused.code == 1
    assert "settings: " in refused.err
    for wrong, told in {
        "@/nofile": "The file of --settings cannot be read (No such file or directory).",
        "{": "--settings is not valid JSON.",
    }.items():
        refused = quittance(*create, wrong)
        assert refused.code == 1
        assert refused.err.endswith(f"{told}\n")
        assert is_one_sentence(refused.err)
