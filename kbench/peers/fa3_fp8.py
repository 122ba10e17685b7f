"""FlashAttention-3 in FP8 as a peer, through the public forward wheel or a build of its source: the conversation of
`torch_sdpa.py`, whose module this one builds on, with one backend, `fp8`.

Q, K and V are quantised to e4m3 when a case is loaded, with one scale for each batch and head, and laid out as
[B, S, H, D]; no timed call holds that. The output has 16 bits.

Needs Python 3.9, PyTorch 2.3, a Hopper GPU, and the wheel `fa3-fwd` or FlashAttention's `hopper` folder built and installed.
"""

import importlib
import importlib.metadata

from torch_sdpa import Case, Peer, Refusal, one_line, serve

LARGEST = 448.0
# Modules that have it, and the packages that they come in.
MODULES = {"fa3_fwd_interface": "fa3-fwd", "flash_attn_interface": "flash-attn-3"}
REMEDY = "pip install fa3-fwd, or build the hopper folder of github.com/Dao-AILab/flash-attention"


def import_flash():
    """The first module that is there, and its version."""
    for name, package in MODULES.items():
        try:
            module = importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue
            raise Refusal(f"{name} cannot be imported: {one_line(error)}", REMEDY) from None
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = getattr(module, "__version__", "unknown")
        return module, f"{name} {version}"
    raise Refusal(f"neither {' nor '.join(MODULES)} is installed", REMEDY)


class Fp8Case(Case):
    """One loaded case: codes and scales of each input set."""

    BACKENDS = ("fp8",)

    def __init__(self, torch, sets, causal, scale):
        self.flash, _ = import_flash()
        self.packs = [[self.quantised(torch, values) for values in tensors] for tensors in sets]
        super().__init__(torch, sets, causal, scale)

    def examine(self, name):
        try:
            return super().examine(name)
        except Exception as error:
            return {"name": name, "available": False, "reason": f"{type(error).__name__}: {one_line(error)}"}

    def forced(self, name):
        return super().forced("default")

    @staticmethod
    def quantised(torch, values):
        """e4m3 codes as [B, S, H, D], and the factors that turn them back as [B, H]."""
        amax = values.abs().amax(dim=(2, 3)).float()
        amax = torch.where(amax > 0.0, amax, LARGEST)
        codes = (values.float() * (LARGEST / amax)[:, :, None, None]).to(torch.float8_e4m3fn)
        return codes.transpose(1, 2).contiguous(), amax / LARGEST

    def call(self, index):
        (q, of_q), (k, of_k), (v, of_v) = self.packs[index % len(self.packs)]
        out = self.flash.flash_attn_func(
            q,
            k,
            v,
            softmax_scale=self.scale,
            causal=self.causal,
            q_descale=of_q,
            k_descale=of_k,
            v_descale=of_v,
        )
        return out[0] if isinstance(out, tuple) else out

    def output(self, name, index):
        return super().output(name, index).transpose(1, 2).contiguous().to(self.torch.float16)


class Fp8Peer(Peer):
    Case = Fp8Case

    def hello(self, request):
        told = super().hello(request)
        _, version = import_flash()
        return {**told, "peer": "fa3", "flash_attn": version}


if __name__ == "__main__":
    serve(Fp8Peer())
