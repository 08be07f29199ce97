"""An existing aiohttp application carries a node: one process, one port, one event loop.

Shown: the application keeps its own routes, and peers connect on the same port; a visit posted
to the application's REST route reaches another clinic, which dialled that port.
"""

from __future__ import annotations

from aiohttp import ClientSession, web

from p2pmed import Node, open_node
from p2pmed.medical import Demographics, Encounter, PatientName
from p2pmed.testing import PASSPHRASE, local_network, run, until

NODE = web.AppKey("node", Node)
routes = web.RouteTableDef()


@routes.post("/patients/{patient}/visits")
async def add_visit(request: web.Request) -> web.Response:
    visit = Encounter(
        patient=bytes.fromhex(request.match_info["patient"]),
        period_start=(await request.json())["start"],
    )
    receipt = await request.app[NODE].submit(visit)  # returns when it is on this disk
    return web.json_response({"id": receipt.id.hex(), "level": receipt.level}, status=201)


async def main() -> None:
    app = web.Application()  # yours, with its own routes, middlewares and lifetime
    app.add_routes(routes)
    async with (
        local_network("clinic") as network,
        open_node(network.home("clinic"), passphrase=PASSPHRASE, app=app) as node,
    ):
        app[NODE] = node
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            (neighbour,) = network.nodes
            neighbour.dial(f"127.0.0.1:{port}")

            who = node.patients.new_pseudonym()
            person = Demographics(patient=who, names=(PatientName(text="Wang"),))
            patient, _ = await node.patients.register(person)
            url = f"http://127.0.0.1:{port}/patients/{patient.hex()}/visits"
            visit = {"start": "2027-03-01T09:30:00+08:00"}
            async with ClientSession() as session, session.post(url, json=visit) as answer:
                print(answer.status, posted := await answer.json())
            await until(lambda: neighbour.find(bytes.fromhex(posted["id"])), "the visit next door")
            print("the neighbour has it:", neighbour.receipt(bytes.fromhex(posted["id"])).level)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    run(main())
