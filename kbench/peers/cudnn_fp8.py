"""cuDNN's FP8 scaled dot product attention as a peer, through nvidia-cudnn-frontend: the conversation of `torch_sdpa.py`,
whose module this one builds on, with one backend, `fp8`.

Q, K and V are quantised to e4m3 when a case is loaded, with one scale a tensor, its largest magnitude at 448; no timed
call holds that. The output is e4m3 too, as Hopper's kernels demand, scaled by the largest magnitude of PyTorch's output on
the same inputs; `output` dequantises it to FP16. Probabilities are scaled by 256.

Needs Python 3.9, PyTorch 2.3 and nvidia-cudnn-frontend 1.13 or newer, and a GPU of compute capability 9.0 or higher.
"""

from torch_sdpa import Case, Peer, Refusal, one_line, serve

LARGEST = 448.0
PROBABILITY_SCALE = 256.0
SCALARS = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")


def import_cudnn():
    """The frontend; the backend that it loads is the one that PyTorch has loaded."""
    try:
        import cudnn
    except ModuleNotFoundError as error:
        if error.name == "cudnn":
            raise Refusal("nvidia-cudnn-frontend is not installed", "pip install nvidia-cudnn-frontend") from None
        raise Refusal(f"cudnn cannot be imported: {one_line(error)}", REINSTALL) from None
    except Exception as error:
        raise Refusal(f"cudnn cannot be imported: {one_line(error)}", REINSTALL) from None
    return cudnn


REINSTALL = "pip install --force-reinstall nvidia-cudnn-frontend"


def quantised(torch, values):
    """e4m3 codes and the factor that turns them back."""
    amax = float(values.abs().amax())
    factor = LARGEST / amax if amax > 0.0 else 1.0
    return (values.float() * factor).to(torch.float8_e4m3fn), 1.0 / factor


class Fp8Case(Case):
    """One loaded case: a plan for its sizes, and for each input set what the plan reads and writes."""

    BACKENDS = ("fp8",)

    def __init__(self, torch, sets, causal, scale):
        self.cudnn = import_cudnn()
        self.plan = None
        self.packs = []
        self.stream = None
        super().__init__(torch, sets, causal, scale)

    def examine(self, name):
        try:
            if self.sets[0][0].shape != self.sets[0][1].shape and self.causal:
                raise Refusal("the mask of unlike lengths is aligned to the upper left corner")
            self.build()
        except Exception as error:
            return {"name": name, "available": False, "reason": f"{type(error).__name__}: {one_line(error)}"}
        return super().examine(name)

    def forced(self, name):
        return super().forced("default")

    def build(self):
        cudnn, torch = self.cudnn, self.torch
        fp8, fp32 = cudnn.data_type.FP8_E4M3, cudnn.data_type.FLOAT
        self.handle = cudnn.create_handle()
        plan = cudnn.pygraph(
            io_data_type=fp8, intermediate_data_type=fp32, compute_data_type=fp32, handle=self.handle
        )

        def described(name, like, data_type):
            return plan.tensor(name=name, dim=list(like.shape), stride=list(like.stride()), data_type=data_type)

        operands = [described(name, like, fp8) for name, like in zip("qkv", self.sets[0])]
        one = torch.ones((1, 1, 1, 1), dtype=torch.float32, device="cuda")
        scalars = [described(name, one, fp32) for name in SCALARS]
        out, _, amax_s, amax_o = plan.sdpa_fp8(
            *operands,
            *scalars,
            attn_scale=self.scale,
            use_causal_mask=self.causal,
            generate_stats=False,
            name="sdpa",
        )
        q = self.sets[0][0]
        out.set_output(True).set_dim(list(q.shape)).set_stride(list(q.stride())).set_data_type(fp8)
        for amax in (amax_s, amax_o):
            amax.set_output(False).set_dim([1, 1, 1, 1]).set_stride([1, 1, 1, 1]).set_data_type(fp32)
        plan.validate()
        plan.build_operation_graph()
        plan.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        plan.check_support()
        plan.build_plans()
        self.workspace = torch.empty(max(1, plan.get_workspace_size()), dtype=torch.uint8, device="cuda")
        self.packs = [self.pack(operands, scalars, out, one, tensors) for tensors in self.sets]
        self.plan = plan

    def pack(self, operands, scalars, out, one, tensors):
        """What the plan reads and writes for one input set, and the factor that its output is dequantised with."""
        torch = self.torch
        codes, factors = zip(*(quantised(torch, values) for values in tensors))
        exact = torch.nn.functional.scaled_dot_product_attention(
            *tensors, attn_mask=None, dropout_p=0.0, is_causal=self.causal, scale=self.scale
        )
        amax = float(exact.abs().amax())
        out_factor = amax / LARGEST if amax > 0.0 else 1.0
        values = [*factors, 1.0 / PROBABILITY_SCALE, PROBABILITY_SCALE, 1.0 / out_factor]
        pack = dict(zip(operands, codes))
        pack.update((scalar, one * value) for scalar, value in zip(scalars, values))
        pack[out] = torch.empty_like(codes[0])
        return pack, pack[out], out_factor

    def call(self, index):
        pack, out, _ = self.packs[index % len(self.packs)]
        stream = self.torch.cuda.current_stream().cuda_stream
        if stream != self.stream:
            self.cudnn.set_stream(handle=self.handle, stream=stream)
            self.stream = stream
        self.plan.execute(pack, self.workspace, handle=self.handle)
        return out

    def output(self, name, index):
        out = super().output(name, index)
        return (out.float() * self.packs[index % len(self.packs)][2]).to(self.torch.float16)


class Fp8Peer(Peer):
    Case = Fp8Case

    def hello(self, request):
        told = super().hello(request)
        cudnn = import_cudnn()
        return {**told, "peer": "cudnn", "cudnn_frontend": str(cudnn.__version__)}


if __name__ == "__main__":
    serve(Fp8Peer())
