"""Every operation on CUDA tensors, through ATen, against the CPU kernels in float64: outputs and gradients in float64,
float32 and bfloat16, ragged sequences, sparse reads, states in and out. Skipped where torch sees no GPU."""

import sys
import unittest

import optional

optional.require("torch")
import torch  # noqa: E402

if not torch.cuda.is_available():
    print("skipped: torch sees no CUDA device")
    sys.exit(optional.SKIPPED)
torch.ops.load_library(sys.argv.pop(1))
ops = torch.ops.oryx

LENGTHS = [65, 0, 130, 3]
N = sum(LENGTHS)
CU = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
READ = torch.arange(3, N, 7)
FLOOR = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def unit(x):
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Cuda(unittest.TestCase):
    def compare(self, call, inputs, accumulate=()):
        """call(*inputs) gives a tensor or a tuple; `accumulate` names the inputs that are float32 beside bfloat16."""
        for dtype in FLOOR:
            def run(device, compute):
                torch.manual_seed(1)
                leaves = []
                for i, x in enumerate(inputs):
                    kept = torch.float32 if i in accumulate and dtype == torch.bfloat16 else dtype
                    leaves.append(x.to(kept).to(compute or kept).to(device).requires_grad_())
                out = call(*leaves)
                out = out if isinstance(out, tuple) else (out,)
                weights = [normal(*o.shape).to(o.dtype).to(device) for o in out]
                grads = torch.autograd.grad(sum((o * w).sum() for o, w in zip(out, weights)), leaves)
                return [x.detach().double().cpu() for x in (*out, *grads)]

            for i, (got, want) in enumerate(zip(run("cuda", None), run("cpu", torch.float64))):
                with self.subTest(dtype=dtype, result=i):
                    self.assertTrue(torch.isfinite(got).all())
                    scale = want.abs().max().item() + 1e-3
                    self.assertLessEqual((got - want).abs().max().item() / scale, FLOOR[dtype])

    def recurrence(self, op):
        for read in (None, READ):
            rows = N if read is None else len(read)
            torch.manual_seed(0)
            inputs = [unit(normal(rows, 4, 16)), unit(normal(N, 2, 16)), normal(N, 2, 24), -torch.rand(N, 2).double() * 2,
                      torch.rand(N, 2).double(), normal(len(LENGTHS), 2, 16, 24)]
            place = lambda x, like: None if x is None else x.to(like.device)
            self.compare(lambda q, k, v, g, w, s: op(q, k, v, g, w, CU.to(q.device), s, place(read, q)), inputs, (3, 4, 5))

    def test_gated_delta_rule(self):
        self.recurrence(ops.gated_delta_rule)

    def test_ssd(self):
        self.recurrence(ops.ssd)

    def test_attention(self):
        for read in (None, READ):
            rows = N if read is None else len(read)
            torch.manual_seed(0)
            inputs = [normal(rows, 4, 16), normal(N, 2, 16), normal(N, 2, 24)]
            self.compare(lambda q, k, v: ops.attention(q, k, v, CU.to(q.device), None if read is None else read.to(q.device), 0.3),
                         inputs)

    def test_short_conv(self):
        for activation in ("none", "silu"):
            torch.manual_seed(0)
            inputs = [normal(N, 24), normal(24, 4), normal(len(LENGTHS), 24, 3)]
            self.compare(lambda x, w, s: ops.short_conv(x, w, CU.to(x.device), s, activation), inputs)

    def test_rope(self):
        torch.manual_seed(0)
        positions = torch.arange(N) * 37
        self.compare(lambda x: ops.rope(x, positions.to(x.device), 10000.0), [normal(N, 4, 16)])

    def test_norms(self):
        torch.manual_seed(0)
        self.compare(lambda x, g, w: ops.gated_rms_norm(x, g, w, 1e-5), [normal(N, 4, 24), normal(N, 4, 24), normal(24)])
        self.compare(lambda x, w: ops.rms_norm(x, w, 1e-5), [normal(N, 40), normal(40)])
        self.compare(lambda x: ops.unit_norm(x, 1e-6, 0.5, "silu"), [normal(N, 4, 24)])
        self.compare(ops.swiglu, [normal(N, 40), normal(N, 40)])

    def test_linear_cross_entropy(self):
        torch.manual_seed(0)
        targets = torch.randint(0, 300, (N,))
        targets[::5] = -100
        self.compare(lambda h, w: ops.linear_cross_entropy(h, w, targets.to(h.device)), [normal(N, 32), normal(300, 32)])

    def test_wrong_device(self):
        q = normal(N, 4, 16).cuda()
        with self.assertRaisesRegex(RuntimeError, "k must be on"):
            ops.attention(q, normal(N, 2, 16), normal(N, 2, 24).cuda(), CU.cuda(), None, 1.0)


if __name__ == "__main__":
    unittest.main()
