"""Cards and consent as people meet them: made, scanned, lost, made again; asked and answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pmed.cli import main
from p2pmed.cli.card import write_code
from p2pmed.errors import ConfigError, Denied, P2pmedError

LAB = (
    '{"resourceType":"Observation","category":[{"coding":[{"code":"laboratory"}]}],'
    '"code":{"text":"Hb"}}'
)


async def _people(ask: Any, node: Any, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    found = []
    for name in ("nurse", "doctor"):
        path = folder / f"{name}.keys"
        await ask(node, "card.person", file=str(path), person_passphrase=name * 3)
        found.append({"person_file": str(path), "person_passphrase": name * 3})
    return found[0], found[1]


async def test_a_lost_card_is_made_again_by_two(
    opened: Any, ask: Any, carry: Any, tmp_path: Path
) -> None:
    """Request, two releases on two nodes, each on a person's word, re-issue: the old card is
    refused, the new one is good, and one custodian, or one person twice, was not enough.
    """
    clinic, county = await opened("Mu clinic"), await opened("County hospital", "hospital")
    await carry(clinic, county)
    made = await ask(clinic, "card.enrol", family="Wang", given=["Mei"])
    patient, old = made["patient"], made["printed"]
    nurse, doctor = await _people(ask, clinic, tmp_path)
    assert len(old["text"]) < 300
    assert (await ask(clinic, "card.scan", card=old["text"]))["good"]
    request = (await ask(clinic, "card.request", patient=patient))["request"]
    await carry(clinic, county)
    (asked,) = (await ask(county, "card.requests"))["requests"]
    assert asked == {"patient": patient, "request": request}
    await ask(clinic, "card.release", request=request[:10], **nurse)
    with pytest.raises(Denied, match="1 of 2 shares"):
        await ask(clinic, "card.reissue", request=request[:10])
    await ask(county, "card.release", request=request[:10], **nurse)
    await carry(clinic, county)
    with pytest.raises(Denied, match="two different people"):
        await ask(clinic, "card.reissue", request=request[:10])
    assert (await ask(clinic, "card.scan", card=old["text"]))["good"]
    again = (await ask(clinic, "card.request", patient=patient))["request"]
    await carry(clinic, county)
    await ask(clinic, "card.release", request=again, **nurse)
    await ask(county, "card.release", request=again, **doctor)
    await carry(clinic, county)
    card = await ask(clinic, "card.reissue", request=again)
    await carry(clinic, county)
    assert (await ask(county, "card.scan", card=card["text"]))["good"]
    assert not (await ask(county, "card.scan", card=old["text"]))["good"]


async def test_a_family_card_and_the_clinic_make_it_again(
    opened: Any, ask: Any, tmp_path: Path
) -> None:
    """Where no county is known, the clinic's share and the family's card do."""
    clinic = await opened("Mu clinic")
    made = await ask(clinic, "card.enrol", family="Wang", given=["Mei"], pin="2468")
    patient, old, family = made["patient"], made["printed"], made["family"]
    nurse, doctor = await _people(ask, clinic, tmp_path)
    request = (await ask(clinic, "card.request", patient=patient))["request"]
    await ask(clinic, "card.release", request=request, **nurse)
    await ask(clinic, "card.release", request=request, card=family["text"], **doctor)
    card = await ask(clinic, "card.reissue", request=request, pin="1357")
    scanned = await ask(clinic, "card.scan", card=old["text"])
    assert (scanned["good"], scanned["revoked"]) == (False, True)
    assert (await ask(clinic, "card.scan", card=card["text"]))["good"]
    with pytest.raises(Denied, match="reported lost"):
        await ask(clinic, "card.issue", card=old["text"], card_pin="2468")
    with pytest.raises(Denied, match="does not open this record"):
        await ask(clinic, "card.issue", card=card["text"], card_pin="0000")
    second = await ask(clinic, "card.issue", card=card["text"], card_pin="1357")
    listed = (await ask(clinic, "card.list", patient=patient))["cards"]
    assert sorted((row["family"], row["revoked"]) for row in listed) == [
        (False, False),
        (False, False),
        (False, True),
        (True, False),
    ]
    (row,) = (await ask(clinic, "card.fallback", number=second["number"]))["cards"]
    assert (row["patient"], row["card"]) == (patient, second["card"])
    with pytest.raises(P2pmedError, match="7 digits"):
        await ask(clinic, "card.fallback", number="12345")
    await ask(clinic, "card.revoke", patient=patient, id=second["card"][:8], reason="worn")
    assert not (await ask(clinic, "card.scan", card=second["text"]))["good"]


async def test_who_was_registered_without_a_card_gets_one_later(opened: Any, ask: Any) -> None:
    """Registration throws no key away: the first card is made from the device's own custody,
    which ends with it.
    """
    clinic = await opened("Mu clinic")
    patient = (await ask(clinic, "patient.register", family="Li", given=["A"]))["patient"]
    await ask(clinic, "patient.add", patient=patient, fhir=LAB)
    card = await ask(clinic, "card.issue", patient=patient)
    hand = await clinic.cards.open(card["text"])
    assert (hand.patient.hex(), hand.secrets.generation) == (patient, 1)
    assert not (await ask(clinic, "patient.timeline", patient=patient))["closed"]


async def test_leave_is_asked_for_granted_with_the_card_and_shown(
    opened: Any, ask: Any, carry: Any
) -> None:
    """A request is told to the patient and the registering clinic only; a grant that answers it
    carries the patient's signature; who can read a category is answered with the grant.
    """
    clinic, county = await opened("Mu clinic"), await opened("County hospital", "hospital")
    third = await opened("Third", "clinic")
    await carry(clinic, county, third)
    made = await ask(clinic, "card.enrol", family="Wang", given=["Mei"])
    patient, text = made["patient"], made["printed"]["text"]
    await ask(clinic, "patient.add", patient=patient, fhir=LAB)
    await carry(clinic, county, third)
    asked = await ask(
        county, "patient.request", patient=patient, categories=["laboratory"], words="operation"
    )
    await carry(clinic, county, third)
    shown = (await ask(clinic, "patient.readers", patient=patient))["requests"]
    assert [(row["categories"], row["words"]) for row in shown] == [(["laboratory"], "operation")]
    sealed = (await ask(third, "patient.readers", patient=patient))["requests"]
    assert [(row["categories"], row["words"]) for row in sealed] == [(None, "")]
    granted = await ask(
        clinic,
        "patient.grant",
        patient=patient,
        request=asked["request"],
        categories=["laboratory"],
        card=text,
    )
    assert granted["verdict"] == "applied"
    await carry(clinic, county, third)
    answer = await ask(clinic, "patient.readers", patient=patient, category="laboratory")
    assert not answer["requests"]
    rows = {row["grant"]: row for row in answer["readers"]}
    assert (rows[granted["grant"]]["categories"], rows[granted["grant"]]["by"]) == (
        ["laboratory"],
        "patient",
    )
    hidden = await ask(clinic, "patient.readers", patient=patient, category="hiv_sti")
    assert granted["grant"] not in [row["grant"] for row in hidden["readers"]]
    unsaid = (await ask(third, "patient.readers", patient=patient))["readers"]
    assert {row["categories"] is None for row in unsaid} == {True}
    assert (await ask(county, "patient.timeline", patient=patient))["closed"] == 1
    with_card = await ask(third, "patient.readers", patient=patient, card=text)
    assert None not in [row["categories"] for row in with_card["readers"]]


async def test_a_policy_says_what_a_registration_hands_out(opened: Any, ask: Any) -> None:
    """The default hides what people hide, but for an emergency, which two people open and all
    see; a facility's own table takes its place."""
    clinic, county = await opened("Mu clinic"), await opened("County hospital", "hospital")
    before = (await ask(clinic, "patient.policy"))["policy"]
    assert before["hiv_sti"] == ["device", "emergency"]
    assert before["general"] == ["device", "facility", "readers", "emergency"]
    await ask(clinic, "patient.policy", category="general", audiences=["facility"])
    after = (await ask(clinic, "patient.policy"))["policy"]
    assert after == {**before, "general": ["device", "facility"]}
    assert (await ask(clinic, "patient.facility"))["verdict"] == "applied"
    with pytest.raises(ConfigError, match="one of demographics"):
        await ask(clinic, "patient.policy", category="secrets")
    assert county.key != clinic.key


async def test_an_emergency_set_is_read_without_any_key(opened: Any, ask: Any) -> None:
    """Blood group, allergies and drugs, signed; one letter changed and it is refused."""
    clinic = await opened("Mu clinic")
    made = await ask(
        clinic, "card.emergency", blood="0+", allergies=["penicillin"], drugs=["insulin"]
    )
    read = await ask(clinic, "card.scan", card=made["text"])
    assert (read["blood"], read["allergies"], read["drugs"]) == ("0+", ["penicillin"], ["insulin"])
    assert read["issuer"]["name"] == "Mu clinic"
    other = made["text"][:60] + ("A" if made["text"][60] != "A" else "B") + made["text"][61:]
    with pytest.raises(P2pmedError):
        await ask(clinic, "card.scan", card=other)


def test_the_command_line_prints_and_reads_cards(
    make_home: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """A code as SVG and as text; the text scans, opens with the PIN, and is asked for by file."""
    home = make_home()
    (tmp_path / "pass").write_text("for these tests only")
    common = ["--home", str(home), "--passphrase-file", str(tmp_path / "pass")]
    monkeypatch.setenv("P2PMED_PIN", "2468")
    out, spare = tmp_path / "card.txt", tmp_path / "family.svg"
    register = ["patient", "register", "--family", "Wang", "--card", str(out), "--pin"]
    assert main([*register, "--family-card", str(spare), *common]) == 0
    assert "card number" in capsys.readouterr().out
    assert spare.read_bytes().startswith(b"<?xml")
    assert oct(out.stat().st_mode & 0o777) == "0o600"
    assert main(["card", "scan", str(out), *common]) == 0
    assert "good" in capsys.readouterr().out
    another = ["card", "issue", "--card", str(out), "--card-pin", "--out", str(tmp_path / "b.png")]
    assert main([*another, *common]) == 0
    assert main([*another, *common]) == 1  # the file is there already, and no card was made
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.delenv("P2PMED_PIN")
    assert main([*another[:-1], str(tmp_path / "c.svg"), *common]) == 1
    assert "a PIN is needed" in capsys.readouterr().err
    write_code(Path("-"), "P2PC1:TEST")
    assert "█" in capsys.readouterr().out
