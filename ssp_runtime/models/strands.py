"""The two strands of DNA: a sequence, and its reverse complement, read with the same weights (Schiff et al., 2024,
"Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling")."""

import torch
from torch import Tensor, nn

from ssp_kernels.padding import masked
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.mixers.base import reversed_in_length


class OtherStrand(nn.Module):
    """Reverse complements, where `complement` has the complement of each token."""

    def __init__(self, complement: tuple[int, ...], vocab_size: int) -> None:
        super().__init__()
        if len(complement) != vocab_size or any(complement[i : i + 1] != (j,) for j, i in enumerate(complement)):
            raise InvalidRequest(f"complement must pair {vocab_size} tokens, each with the one that is paired with it")
        self.register_buffer("complement", torch.tensor(complement), persistent=False)

    def of_tokens(self, ids_BL: Tensor, lengths_B: Tensor | None) -> Tensor:
        complements_BL = self.get_buffer("complement")[masked(ids_BL, lengths_B)]
        return reversed_in_length(complements_BL[..., None], lengths_B).squeeze(-1)

    def of_logits(self, logits_BLV: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Those that the first strand's would be."""
        return reversed_in_length(logits_BLV, lengths_B)[..., self.get_buffer("complement")]
