"""Before a node runs: networks, homes and enrolment, without internet.

The authority makes a network (``create_network``) and answers requests (``answer_request``). A
device makes its home (``init_home``), carries out a request (a file or QR text) and takes in the
answer (``enrol``). All of it is files; nothing here opens a socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from p2pmed.aio.clock import SystemClock, SystemEntropy
from p2pmed.errors import ConfigError, DecodeError
from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Credential, Validity
from p2pmed.identity.enrolment import (
    Answer,
    answer_from_text,
    answer_to_text,
    check_answer,
    make_request,
    request_from_text,
    request_to_text,
)
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.keystore import open_keystore, seal_keystore
from p2pmed.identity.manifest import open_manifest
from p2pmed.identity.stretching import CHEAP, USUAL
from p2pmed.node.config import Config, write_config
from p2pmed.node.staff_files import create_staff
from p2pmed.storage.files import make_folder, read_file, replace_file
from p2pmed.storage.home import HomeFile, create_home, read_home, write_home
from p2pmed.wire import codec

__all__ = [
    "answer_request",
    "create_network",
    "enrol",
    "init_home",
    "load_keys",
    "read_chain",
    "request_text",
    "self_enrol",
]

AUTHORITY_FILE: Final = "authority"
MANIFEST_FILE: Final = "manifest"
DAY_MS: Final = 86_400_000
PASSPHRASE_CHARS_MIN: Final = 8
CHAIN_BYTES_MAX: Final = 64 * 1024

Chain = tuple[bytes, ...]


def _check_passphrase(passphrase: str) -> None:
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(
            f"a passphrase of fewer than {PASSPHRASE_CHARS_MIN} characters",
            hint="six random words are easy to remember and hard to guess",
        )


def create_network(
    folder: Path, name: str, passphrase: str, *, cheap: bool = False, spares: int = 0
) -> bytes:
    """Make an authority's folder with its sealed keys and the manifest; the network id.

    ``spares`` (0 to 2) more root keys are folders beside it, ``...-spare-1`` and ``-2``, each an
    authority of its own under the same passphrase: to be taken elsewhere, against loss.
    ``cheap`` seals with the least cost that is still sound: for demonstrations and tests.
    Raises ``ConfigError`` if a folder is there already or the passphrase too short, and
    ``LocalProtocolError`` for more spares.
    """
    _check_passphrase(passphrase)
    issuer = Issuer.create_network(
        name, created_ms=SystemClock().wall_ms(), entropy=SystemEntropy(), roots=1 + spares
    )
    for number, desk in enumerate(issuer.split()):
        place = folder.with_name(f"{folder.name}-spare-{number}") if number else folder
        make_folder(place)
        replace_file(place / AUTHORITY_FILE, _seal(desk.to_secret_bytes(), passphrase, cheap))
        replace_file(place / MANIFEST_FILE, issuer.manifest_raw)
    return issuer.network_id


def init_home(
    folder: Path,
    *,
    name: str,
    roles: Iterable[str],
    place: str,
    passphrase: str,
    config: Config | None = None,
    cheap: bool = False,
) -> str:
    """Make a node's home with new device keys; the request to carry to the authority, as text.

    Raises ``ConfigError`` if the folder is there already, or a wish cannot be spelled.
    """
    _check_passphrase(passphrase)
    keys = DeviceKeys.generate(SystemEntropy())
    request = make_request(keys, name=name, roles=roles, place=place)
    files = {
        HomeFile.CONFIG: write_config(config or Config()).encode(),
        HomeFile.KEYSTORE: _seal(keys.apart().to_secret_bytes(), passphrase, cheap),
    }
    create_home(folder, files, incarnation=SystemEntropy().token(16))
    create_staff(
        folder,
        passphrase,
        box_secret=keys.box_secret,
        device=keys.node_id,
        created_ms=SystemClock().wall_ms(),
        entropy=SystemEntropy(),
        cost=CHEAP if cheap else USUAL,
    )
    replace_file(folder / "request.txt", request_to_text(request).encode())
    return request_to_text(request)


def request_text(folder: Path) -> str:
    """The request that ``init_home`` left in the home."""
    raw = read_file(folder / "request.txt")
    if raw is None:
        raise ConfigError(f"no request in {folder}", hint="make a home with `p2pmed init` first")
    return raw.decode("utf-8", "replace")


def answer_request(
    authority: Path,
    request: str,
    passphrase: str,
    *,
    roles: Iterable[str] | None = None,
    place: str | None = None,
    delegate: Iterable[str] = (),
    days: int = 1_095,
) -> str:
    """The authority's answer to a request, as text for a file or a QR code.

    ``authority`` is an authority's folder, or the home of a device that may delegate.
    """
    issuer = load_issuer(authority, passphrase)
    now = SystemClock().wall_ms()
    answer = issuer.issue(
        request_from_text(request),
        validity=Validity(now - DAY_MS, now + days * DAY_MS),
        entropy=SystemEntropy(),
        roles=roles,
        place=place,
        delegate=delegate,
    )
    return answer_to_text(answer)


def load_issuer(folder: Path, passphrase: str) -> Issuer:
    """Who may issue: an authority's folder, or a home whose credential allows it."""
    raw = read_file(folder / AUTHORITY_FILE)
    if raw is not None:
        return Issuer.from_secret_bytes(open_keystore(raw, passphrase))
    keys = load_keys(folder, passphrase)
    manifest, chain = read_home(folder, HomeFile.MANIFEST), read_chain(folder)
    return Issuer.delegated(keys, Answer(version=1, manifest=manifest, chain=chain))


def load_keys(folder: Path, passphrase: str) -> DeviceKeys:
    """The device's keys. Raises ``Locked`` if the passphrase does not open them."""
    raw = open_keystore(read_home(folder, HomeFile.KEYSTORE), passphrase)
    return DeviceKeys.from_secret_bytes(raw)


def enrol(folder: Path, answer: str, passphrase: str) -> Credential:
    """Take in an answer: from here on the home can run.

    Raises ``CredentialError`` if it is for another device, or does not hold.
    """
    keys = load_keys(folder, passphrase)
    opened = answer_from_text(answer)
    enrolled = check_answer(
        opened, keys, network_id=_enrolled_in(folder), at_ms=SystemClock().wall_ms()
    )
    write_home(folder, HomeFile.MANIFEST, opened.manifest)
    write_home(folder, HomeFile.CHAIN, codec.encode(list(opened.chain)))
    return enrolled.credential


def _enrolled_in(folder: Path) -> bytes | None:
    """The network this home is enrolled in already."""
    raw = read_file(folder / HomeFile.MANIFEST)
    return open_manifest(raw)[1] if raw is not None else None


def self_enrol(
    authority: Path,
    authority_passphrase: str,
    home: Path,
    passphrase: str,
    *,
    delegate: Sequence[str] = (),
) -> Credential:
    """Request, answer and enrolment in one go, where one person holds both."""
    text = answer_request(authority, request_text(home), authority_passphrase, delegate=delegate)
    return enrol(home, text, passphrase)


def read_chain(folder: Path) -> Chain:
    """The credential chain of an enrolled home. Raises ``ConfigError`` if there is none."""
    raw = read_home(folder, HomeFile.CHAIN)
    try:
        return codec.decode(raw, Chain, limit=CHAIN_BYTES_MAX)
    except DecodeError:
        raise ConfigError(f"the credential chain in {folder} is damaged") from None


def _seal(secret: bytes, passphrase: str, cheap: bool) -> bytes:
    if cheap:
        return seal_keystore(
            secret,
            passphrase,
            entropy=SystemEntropy(),
            opslimit=2,
            memlimit_bytes=19 * 1024 * 1024,
        )
    return seal_keystore(secret, passphrase, entropy=SystemEntropy())
