"""DNA letters as tokens."""

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer
from ssp_runtime.tokenizers.pieces import PieceDetokenizer

_ALPHABET = "ACGTN"
_FOREIGN = 255


def _ids(first: int, otherwise: int) -> bytes:
    """The id of each ASCII code: the letters in either case, counted from `first`, and one id for all else."""
    found = (_ALPHABET.find(chr(code).upper()) for code in range(256))
    return bytes(otherwise if at < 0 else first + at for at in found)


class DNATokenizer(Tokenizer):
    """A, C, G, T and N, in either case, as 0 to 4."""

    kind = "dna"

    _IDS = _ids(0, _FOREIGN)

    @property
    def vocab_size(self) -> int:
        return len(_ALPHABET)

    def encode(self, text: str) -> list[int]:
        ids = text.encode("ascii", errors="replace").translate(self._IDS)
        if (at := ids.find(_FOREIGN)) >= 0:
            raise InvalidRequest(f"letter {text[at]!r} at position {at} is not one of {', '.join(_ALPHABET)}")
        return list(ids)

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(lambda token, _: _letter(token))


class HyenaDNATokenizer(Tokenizer):
    """The vocabulary of HyenaDNA, which Caduceus and the thesis' DNA models took over: [CLS], [SEP], [BOS], [MASK],
    [PAD], [RESERVED], [UNK] as 0 to 6, then A, C, G, T, N in either case. A text may hold [MASK]; any other letter is
    [UNK]."""

    kind = "hyenadna"

    _SEP, _MASK, _UNK, _FIRST = 1, 3, 6, 7
    _IDS = _ids(_FIRST, _UNK)

    @property
    def vocab_size(self) -> int:
        return self._FIRST + len(_ALPHABET)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (self._SEP,)

    @property
    def mask_id(self) -> int | None:
        return self._MASK

    def encode(self, text: str) -> list[int]:
        parts = [part.encode("ascii", errors="replace").translate(self._IDS) for part in text.split("[MASK]")]
        return list(bytes((self._MASK,)).join(parts))

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(lambda token, _: _letter(token - self._FIRST))


def _letter(at: int) -> bytes | None:
    return _ALPHABET[at].encode() if 0 <= at < len(_ALPHABET) else None
