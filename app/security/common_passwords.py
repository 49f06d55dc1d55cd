"""Passwords that are tried first, offline: common words behind breached passwords, and a rule that
sees through tails.

The lists of breached passwords are mostly the same few hundred words with digits, repeats and
swapped letters. So a password is reduced (lower case, swapped letters undone, digits and marks cut
from both ends) and its core compared.
"""

from __future__ import annotations

import re

_TEXT = """
password passwort passwords motdepasse contrasena senha parola wachtwoord losenord kennwort
passphrase passcode secret secrets topsecret default changeme changeit letmein letmeinnow welcome
welcomeback hello hellothere helloworld admin administrator adminadmin root rootroot toor
superuser sysadmin webmaster master masterkey manager operator owner viewer guest user username
login signin logon access accessdenied account service system server database oracle postgres
mysql redis rabbitmq docker ubuntu debian linux windows microsoft google facebook amazon apple
internet computer security secure private privacy quittance consent gdpr company office business
customer support testing testtest tester test temp temporary demo example sample foobar staging
production development developer qwerty qwertz azerty qwertyuiop qwertzuiop azertyuiop asdfgh
asdfghjkl zxcvbn zxcvbnm qwertyuiopasdfghjklzxcvbnm qwertyuiopasdfghjkl asdfghjklzxcvbnm qazwsx
qazwsxedc qazwsxedcrfv qazwsxedcrfvtgb zaqxsw zaqwsx wsxedc poiuytrewq mnbvcxz lkjhgfdsa asdf qwer
zxcv qweasd qweasdzxc onetwothree onetwothreefour abcdef abcdefgh abcdefghijkl abcdefghijklm
abcdefghijklmnop abcdefghijklmnopqrstuvwxyz abcabc aaabbbccc iloveyou iloveyouforever
iloveyousomuch loveyou loveme lovely lover loveyouforever iloveme iloveu ihateyou fuckyou fuckoff
fuckme asshole bitch bullshit biteme whatever nothing forever together babygirl babyboy sweetheart
princess prince angel angels heaven jesus jesuschrist jesuslovesme christ godisgood blessed church
bible faith trustno sunshine sunflower summer summertime winter autumn spring september october
november december january february monday tuesday wednesday thursday friday saturday sunday
rainbow butterfly flower flowers chocolate cookie cookies banana strawberry pineapple cheese
coffee pizza hamburger spaghetti freedom peace happy happiness smile friends friendship family
mother father brother sister daughter children daddy mommy mummy grandma michael jennifer jessica
ashley daniel andrew joshua matthew anthony william christopher christian elizabeth alexander
alexandra alexandre nicholas nicole samantha stephanie veronica victoria sebastian gabriel
francisco michelle charlie thomas robert george jordan hannah amanda andrea patricia richard
charles hunter harley superman batman spiderman ironman starwars startrek pokemon nintendo
playstation minecraft fortnite warcraft worldofwarcraft counterstrike callofduty dragon dragonball
dragonballz monster mustang corvette ferrari porsche mercedes lamborghini motorcycle football
baseball basketball volleyball softball hockey soccer liverpool liverpoolfc manchester
manchesterunited chelsea arsenal barcelona realmadrid juventus yankees dallascowboys steelers
lakers cowboys eagles tigers shadow ninja killer hacker matrix phantom phoenix diamond silver
golden thunder lightning snowball blizzard tinkerbell cinderella snoopy garfield scooby
mickeymouse hellokitty spongebob america australia california canada england germany france
newyork newyorkcity london unitedstates argentina colombia brasil mexico philippines singapore
indonesia deutschland abcd abcde idontknow idontcare idontremember whatsmyname nopassword
mypassword thisisapassword thisismypassword passwordpassword yourpassword newpassword oldpassword
strongpassword securepassword longpassword hardpassword correcthorsebatterystaple correcthorse
batterystaple horsebatterystaple openthedoor opensesame abracadabra
supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis
allyourbasearebelongtous maytheforcebewithyou tobeornottobe thequickbrownfox
thequickbrownfoxjumpsoverthelazydog loremipsum loremipsumdolorsitamet helpmeplease doesnotmatter
justdoit gotohell dontforget rememberme letsgo
"""
_WORDS = frozenset(_TEXT.split())
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "q1w2e3r4t5y6u7i8o9p0",
    "1q2w3e4r5t6y7u8i9o0p",
    "zaq12wsxcde34rfvbgt56yhn",
    "qazwsxedcrfvtgbyhnujmikolp",
    "a1b2c3d4e5f6g7h8i9j0",
    "123qweasdzxc",
    "1234qwerasdfzxcv",
    "147258369",
)
_SWAPPED = str.maketrans("@4301!|5$7+8", "aaeoiiissttb")
_REPEATED = re.compile(r"(.{1,6}?)\1+", re.DOTALL)


def is_common(password: str) -> bool:
    """Whether the password is a common word, row or repeat, perhaps with digits and marks around
    it.
    """
    lowered = "".join(password.casefold().split())
    plain = _core(lowered)
    swapped = _core(re.sub(r"[^a-z]+$", "", lowered).translate(_SWAPPED))
    return (
        len(set(lowered)) < 5
        or _is_repeat(lowered)
        or any(_is_word(core) for core in (plain, swapped, *_halves(plain)))
        or any(_on_row(each) for each in (lowered, lowered[::-1]))
    )


def _core(text: str) -> str:
    """Letters and what lies between them: ``!!password2026`` is ``password``."""
    return re.sub(r"^[^a-z]+|[^a-z]+$|[\s._-]", "", text)


def _is_word(core: str) -> bool:
    repeat = _REPEATED.fullmatch(core)
    return core in _WORDS or bool(repeat and repeat.group(1) in _WORDS)


def _halves(core: str) -> list[str]:
    """The word of a doubled one: ``sunshinesunshine``."""
    half, odd = divmod(len(core), 2)
    return [core[:half]] if half and not odd and core[:half] == core[half:] else []


def _is_repeat(text: str) -> bool:
    """A short unit over and over: ``abc1abc1abc1``."""
    return bool(_REPEATED.fullmatch(text))


def _on_row(text: str) -> bool:
    """Keys in the order of a keyboard row, the alphabet or the digits, perhaps with a
    short tail.
    """
    core = text.rstrip("!?.*#")
    start = core[: max(9, len(core) - 4)]
    return len(core) >= 6 and any(start in row + row for row in _ROWS)
