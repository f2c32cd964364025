"""Writes `promoters.fasta`: made-up sequences of 251 letters to try the promoter classifier on.

    python examples/make_fasta.py > examples/promoters.fasta

Half are random letters in the proportions of plant DNA. The other half besides carry what a plant promoter of the TATA
kind has: a TATA box (TATAAATA) 32 letters before the transcription start, which is letter 201, and an initiator (TCA)
around the start. None is a real gene's; a name says what was planted.
"""

import random

LENGTH, START = 251, 200
PROPORTIONS = {"A": 0.32, "C": 0.18, "G": 0.17, "T": 0.33}
TATA_BOX, INITIATOR = "TATAAATA", "TCA"


def background(generator: random.Random) -> str:
    return "".join(generator.choices(list(PROPORTIONS), list(PROPORTIONS.values()), k=LENGTH))


def planted(sequence: str, motif: str, at: int) -> str:
    return sequence[:at] + motif + sequence[at + len(motif) :]


def promoter_like(generator: random.Random) -> str:
    sequence = planted(background(generator), TATA_BOX, START - 32 + generator.randint(-1, 1))
    return planted(sequence, INITIATOR, START - 1)


def main() -> None:
    generator = random.Random(2026)
    for number in range(1, 7):
        print(f">planted_{number} TATA box and initiator\n{promoter_like(generator)}")
        print(f">background_{number} nothing planted\n{background(generator)}")


if __name__ == "__main__":
    main()
