"""Classifies the sequences of a FASTA file. Needs a server: `make serve` in another terminal."""

from pathlib import Path

import dnaio

from ssp_client import Client

path = Path(__file__).with_name("promoters.fasta")
with dnaio.open(path) as records, Client() as client:
    names, sequences = zip(*((record.name, record.sequence) for record in records), strict=True)
    for name, prediction in zip(names, client.classify(sequences, model="arabidopsis-promoters"), strict=True):
        print(f"{max(prediction.probabilities):.3f}  {prediction.label:13} {name}")
