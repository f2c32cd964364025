"""Writes `promoters.fasta`: made-up sequences of 251 letters to try the promoter classifier on.

    python examples/make_fasta.py > examples/promoters.fasta

Half are random letters in the proportions of plant genes. The other half have those of plant promoters, fewer G before
the transcription start (letter 201) and more C around it, and carry what a promoter of the TATA kind has: a TATA box
(TATAAATA) 32 letters before the start and an initiator (TCA) at it. None is a real gene's; a name says what it is.
"""

import random

LENGTH, START = 251, 200
LETTERS = "ACGT"
GENE = (0.29, 0.18, 0.21, 0.32)
UPSTREAM, AROUND_START = (0.36, 0.17, 0.15, 0.32), (0.31, 0.24, 0.15, 0.30)
TATA_BOX, INITIATOR = "TATAAATA", "TCA"


def background(generator: random.Random) -> str:
    return "".join(generator.choices(LETTERS, GENE, k=LENGTH))


def promoter(generator: random.Random) -> str:
    upstream = "".join(generator.choices(LETTERS, UPSTREAM, k=START - 22))
    around_start = "".join(generator.choices(LETTERS, AROUND_START, k=LENGTH - START + 22))
    sequence = planted(upstream + around_start, TATA_BOX, START - 32 + generator.randint(-1, 1))
    return planted(sequence, INITIATOR, START - 2)


def planted(sequence: str, motif: str, at: int) -> str:
    return sequence[:at] + motif + sequence[at + len(motif) :]


def main() -> None:
    generator = random.Random(2026)
    for number in range(1, 7):
        print(f">promoter_{number} made up, with TATA box and initiator\n{promoter(generator)}")
        print(f">background_{number} made up\n{background(generator)}")


if __name__ == "__main__":
    main()
