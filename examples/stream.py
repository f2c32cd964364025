"""Streams a completion, then goes on in a session. Needs a server: `make serve` in another terminal."""

from ssp_client import Client

with Client() as client:
    for chunk in client.generate(
        "import json\n\ndef load(", model="python-bytes", max_tokens=60, temperature=0.6, seed=1
    ):
        print(chunk.text, end="", flush=True)
    print()

    with client.open_session("python-bytes") as session:
        session.append("class Queue:\n")
        print(session.generate_text("    def __init__(self", max_tokens=40, temperature=0))
        print(f"the session stands at token {session.position}")
