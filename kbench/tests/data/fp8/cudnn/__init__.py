"""Stands in for nvidia-cudnn-frontend beside the stand-in for PyTorch: attention copies q and takes as many milliseconds as
q's first byte says. A head dimension above 128 is refused, in cuDNN's way. A plan that is executed before it is built, on
another stream than the current one, or without one of its tensors, fails an assertion.
"""

import enum
import types

import torch

__version__ = "1.20.0+fake"
data_type = enum.Enum("data_type", "FP8_E4M3 FLOAT")
heur_mode = enum.Enum("heur_mode", "A FALLBACK")
current = None


class cudnnGraphNotSupportedError(Exception):
    pass


def create_handle():
    return "handle"


def set_stream(handle, stream):
    global current
    assert handle == "handle"
    current = stream


class Described:
    def __init__(self, name):
        self.name, self.is_output = name, False

    def set_output(self, is_output):
        self.is_output = is_output
        return self

    def set_dim(self, dim):
        return self

    def set_stride(self, stride):
        return self

    def set_data_type(self, kind):
        self.data_type = kind
        return self


class pygraph:
    def __init__(self, io_data_type, intermediate_data_type, compute_data_type, handle):
        assert io_data_type == data_type.FP8_E4M3 and compute_data_type == data_type.FLOAT
        self.inputs, self.steps = [], []

    def tensor(self, name, dim, stride, data_type):
        if name == "q" and dim[3] > 128:
            raise cudnnGraphNotSupportedError("[cudnn_frontend] ERROR: head_dim should be at most 128\n\n for fp8")
        self.inputs.append(Described(name))
        return self.inputs[-1]

    def sdpa_fp8(self, *inputs, attn_scale, use_causal_mask, generate_stats, name):
        assert [i.name for i in inputs] == [
            "q", "k", "v", "descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o"
        ]
        assert isinstance(attn_scale, float) and not generate_stats
        self.out, amax_s, amax_o = Described("out"), Described("amax_s"), Described("amax_o")
        return self.out, None, amax_s, amax_o

    def validate(self):
        self.steps.append("validate")

    def build_operation_graph(self):
        self.steps.append("build_operation_graph")

    def create_execution_plans(self, modes):
        assert modes == [heur_mode.A, heur_mode.FALLBACK]

    def check_support(self):
        pass

    def build_plans(self):
        self.steps.append("build_plans")

    def get_workspace_size(self):
        return 0

    def execute(self, pack, workspace, handle):
        assert self.steps == ["validate", "build_operation_graph", "build_plans"] and self.out.is_output
        assert current == torch.cuda.current_stream().cuda_stream
        assert set(pack) == {*self.inputs, self.out}
        q = pack[self.inputs[0]]
        torch.spend(q.data[0])
        pack[self.out].data = q.data
