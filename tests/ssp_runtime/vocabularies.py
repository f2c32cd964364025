"""Tiny vocabularies in other programs' files."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = ["the quick brown fox", " jumps  over the lazy dog", "naïve café — 東京 🙂", "the the the quick quick"]
BOS, EOS = "<s>", "</s>"


@cache
def byte_level() -> bytes:
    """As GPT-NeoX' and its kin's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[EOS], initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    made.add_tokens([AddedToken("plain added é", normalized=False)])
    made.enable_truncation(3)
    return made.to_str().encode()


@cache
def sentencepiece(*, metaspace: bool = False) -> bytes:
    """As Llama's and its kin's: spaces are letters, unknown characters are bytes, and a text begins with a space that
    is not shown."""
    pieces = ["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "▁"), ("q", "u")]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "first")])
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        made.decoder = decoders.Sequence(steps)
    made.add_special_tokens([BOS, EOS])
    made.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 1), (EOS, 2)])
    return made.to_str().encode()


def world(*tokens: bytes | str) -> bytes:
    """Numbered from 1. Python's literals of them, as in the published file."""
    sizes = (len(token if isinstance(token, bytes) else token.encode()) for token in tokens)
    lines = (f"{n} {token!r} {size}\n" for n, (token, size) in enumerate(zip(tokens, sizes, strict=True), 1))
    return "".join(lines).encode()
