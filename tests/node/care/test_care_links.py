"""Referral, results and consultation between two meshes, over real sockets."""

from __future__ import annotations

from decimal import Decimal

from p2pmed.medical import Demographics, Observation, PatientName, Quantity
from p2pmed.testing.homes import local_network, until


async def test_a_patient_is_referred_from_one_mesh_to_another_and_back() -> None:
    """A village mesh of two and a county with its own ledger: sent, accepted, returned, final."""
    async with local_network() as network:
        clinic = await network.open(network.home("clinic", place="shan/mu"))
        post = await network.open(network.home("clinic", place="shan/mu"))
        hospital = await network.open(network.home("hospital", place="shan/county"))
        await network.in_sight()
        village = await network.found_mesh(clinic, post, name="mu")
        county = await hospital.found_mesh(name="county")
        assert village != county
        person = Demographics(
            patient=clinic.patients.new_pseudonym(), names=(PatientName(family="Wang"),)
        )
        patient, _ = await clinic.patients.register(person)
        record = Observation(
            patient=patient,
            code="4548-4",
            value=Quantity(value=Decimal("7.1"), unit="%"),
            effective="2026-11-18",
            category="laboratory",
        )
        added = await clinic.patients.add(record)
        sent = await clinic.referrals.send(
            patient, "shan/county", reason="E11", records=[added.id], orders=["718-7"]
        )
        await (sent.receipt).final(timeout=15)
        await until(
            lambda: len(hospital.referrals.all(place="shan/county")) == 1, "the referral's arrival"
        )
        referral = sent.receipt.id
        (carried,) = await hospital.referrals.records(referral)
        assert b"7.1" in carried.resource
        await (await hospital.referrals.accept(referral)).final(timeout=15)
        result = Observation(
            patient=patient,
            code="718-7",
            value=Quantity(value=Decimal("13.2"), unit="g/dL"),
            effective="2026-11-20",
            category="laboratory",
        )
        await hospital.referrals.return_result(referral, result)
        await until(
            lambda: bool(clinic.referrals.all(patient=patient)[0].results), "the result's return"
        )
        (returned,) = await clinic.referrals.results(patient)
        assert b"13.2" in returned.resource
        asked = await clinic.consultations.ask(patient, hospital.keys.box_public, "and now?")
        await until(
            lambda: len(hospital.consultations.all(mine=True)) == 1, "the question's arrival"
        )
        await hospital.consultations.reply(asked.id, "iron")
        await until(
            lambda: bool(clinic.consultations.all(patient=patient)[0].replies), "the answer"
        )
        (answer,) = await clinic.consultations.answers(asked.id)
        assert answer.reply.words == "iron"
