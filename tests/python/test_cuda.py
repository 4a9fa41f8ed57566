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
READ = torch.arange(3, N, 7)
FLOOR = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def cu(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def unit(x):
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


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
                    self.assertEqual(got.shape, want.shape)
                    if want.numel() == 0:
                        continue
                    self.assertTrue(torch.isfinite(got).all())
                    scale = want.abs().max().item() + 1e-3
                    self.assertLessEqual((got - want).abs().max().item() / scale, FLOOR[dtype])

    def recurrence(self, op):
        # Ragged and of one length, whole chunks and not, chunks of every size (they follow dims and lengths).
        cases = [(LENGTHS, None, 16, 24), (LENGTHS, READ, 16, 24), ([150, 150], None, 16, 24), ([128, 128], None, 96, 72),
                 ([300, 1], torch.arange(2, 300, 50), 128, 128), ([1, 1, 1], None, 64, 64), ([0, 0], None, 16, 16),
                 ([200, 0, 130], None, 32, 40), ([64, 192], READ, 128, 20),
                 # In bfloat16 these take the kernels of recurrence_tiles.h.
                 (LENGTHS, READ, 64, 64), ([190, 190], None, 64, 64), (LENGTHS, None, 128, 128)]
        for lengths, read, kd, vd in cases:
            n = sum(lengths)
            rows = n if read is None else len(read)
            torch.manual_seed(0)
            inputs = [unit(normal(rows, 4, kd)), unit(normal(n, 2, kd)), normal(n, 2, vd), -torch.rand(n, 2).double() * 2,
                      torch.rand(n, 2).double(), normal(len(lengths), 2, kd, vd)]
            for where in ("inputs", "cpu"):  # cu_seqlens and read_index may lie on either
                place = lambda x, like: x if x is None or where == "cpu" else x.to(like.device)
                self.compare(lambda q, k, v, g, w, s: op(q, k, v, g, w, place(cu(lengths), q), s, place(read, q)), inputs,
                             (3, 4, 5))

    def test_gated_delta_rule(self):
        self.recurrence(ops.gated_delta_rule)

    def test_ssd(self):
        self.recurrence(ops.ssd)

    def test_attention(self):
        late = torch.cat([torch.arange(500, 640), torch.tensor([1239])])  # ends of both sequences; one row of the second
        cases = [(LENGTHS, None, 16, 24), (LENGTHS, READ, 16, 24), (LENGTHS, torch.arange(65, 70), 16, 16),
                 ([1024], None, 64, 64), ([640, 600], None, 128, 128), ([640, 600], late, 128, 128),
                 ([600, 600], torch.arange(0, 1200, 3), 64, 64), ([700, 0, 20], None, 64, 64), ([50], None, 200, 200)]
        for lengths, read, kd, vd in cases:
            n = sum(lengths)
            rows = n if read is None else len(read)
            torch.manual_seed(0)
            inputs = [normal(rows, 4, kd), normal(n, 2, kd), normal(n, 2, vd)]
            for where in ("inputs", "cpu"):
                place = lambda x, like: x if x is None or where == "cpu" else x.to(like.device)
                for scale in (kd**-0.5, -0.1) if n < 500 else (kd**-0.5,):
                    self.compare(lambda q, k, v: ops.attention(q, k, v, place(cu(lengths), q), place(read, q), scale), inputs)

    def test_no_memory_of_squares(self):
        q, k, v = (torch.randn(16384, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        for read in (None, torch.arange(1, 16384, 2)):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            ops.attention(q if read is None else q[: len(read)], k, v, cu([16384]), read, 0.1)
            self.assertLess(torch.cuda.max_memory_allocated() - before, 64 * q.nbytes)  # logits: 256 of them

    def test_indices_that_change(self):
        """What is remembered of index tensors on the GPU does not outlive a write to them."""
        torch.manual_seed(0)
        q, k, v = (torch.randn(20, 2, 16, device="cuda") for _ in range(3))
        lengths = cu([8, 12]).cuda()
        first = ops.attention(q, k, v, lengths, None, 0.3)
        torch.testing.assert_close(ops.attention(q, k, v, lengths, None, 0.3), first)
        lengths[1] = 4
        torch.testing.assert_close(ops.attention(q, k, v, lengths, None, 0.3), ops.attention(q, k, v, cu([4, 16]), None, 0.3))
        lengths[1] = 30
        with self.assertRaisesRegex(RuntimeError, "cu_seqlens must not decrease"):
            ops.attention(q, k, v, lengths, None, 0.3)

    def test_nothing_waits_for_the_device(self):
        q, k, v = (torch.randn(768, 2, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        g, w = (torch.rand(768, 2, device="cuda", requires_grad=True) for _ in range(2))
        for lengths in ([768], [700, 68]):
            for read in (None, torch.arange(1, 768, 2)):
                rows = q if read is None else q[: len(read)]
                run = lambda: [ops.attention(rows, k, v, cu(lengths), read, 0.1),
                               ops.gated_delta_rule(rows, k, v, -g, w, cu(lengths), None, read)[0],
                               ops.ssd(rows, k, v, -g, w, cu(lengths), None, read)[0]]
                torch.autograd.grad([o.sum() for o in run()], (q, k, v, g, w))
                torch.cuda.set_sync_debug_mode("error")
                try:
                    torch.autograd.grad([o.sum() for o in run()], (q, k, v, g, w))
                finally:
                    torch.cuda.set_sync_debug_mode("default")

    def test_short_conv(self):
        for activation in ("none", "silu"):
            for channels, width in ((24, 4), (131, 4), (24, 1), (24, 11)):
                torch.manual_seed(0)
                inputs = [normal(N, channels), normal(channels, width), normal(len(LENGTHS), channels, width - 1)]
                self.compare(lambda x, w, s: ops.short_conv(x, w, cu(LENGTHS).to(x.device), s, activation), inputs)
                self.compare(lambda x, w: ops.short_conv(x, w, cu(LENGTHS), None, activation)[0], inputs[:2])

    def test_rope(self):
        torch.manual_seed(0)
        positions = torch.arange(N) * 37
        self.compare(lambda x: ops.rope(x, positions.to(x.device), 10000.0), [normal(N, 4, 16)])

    def test_norms(self):
        torch.manual_seed(0)
        # Rows that lie in registers in one piece to sixteen, and longer ones; then more rows than blocks take at once.
        for width, tokens in ((24, N), (23, N), (1, N), (64, N), (320, N), (600, N), (2048, 7), (4200, 7), (64, 10001)):
            heads = [normal(tokens, 4, width), normal(tokens, 4, width), normal(width)]
            self.compare(lambda x, g, w: ops.gated_rms_norm(x, g, w, 1e-5), heads)
            self.compare(lambda x, w: ops.rms_norm(x, w, 1e-5, 0.5), [heads[0], heads[2]])
            self.compare(lambda x, w: ops.rms_norm(x, w, 1e-5, 0.5), [heads[0], normal(4, 1)])
            self.compare(lambda x: ops.rms_norm(x, None, 1e-5, 1.0, torch.float64 if x.dtype == torch.float64 else torch.float32),
                         heads[:1])
            self.compare(lambda x, y, w: ops.add_rms_norm(x, y, w, 1e-5), heads)
            self.compare(lambda x, y, w: ops.add_rms_norm(x, y, w, 1e-5)[1], heads)
            for activation in ("none", "silu"):
                self.compare(lambda x: ops.unit_norm(x, 1e-6, 0.5, activation), heads[:1])
            self.compare(ops.swiglu, heads[:2])
            self.compare(lambda x, y: ops.swiglu(x[1:, 1], y[1:, 1]), heads[:2])  # not contiguous

    def test_linear_cross_entropy(self):
        torch.manual_seed(0)
        for words in (300, 40003):
            targets = torch.randint(0, words, (N,))
            targets[::5] = -100
            for device in ("cuda", "cpu"):  # of the targets
                place = lambda h: targets.to(device) if h.is_cuda else targets
                # Of numbers that bfloat16 has, so that a float32 weight is what its bfloat16 is.
                inputs = [normal(N, 32), normal(words, 32).bfloat16().double()]
                self.compare(lambda h, w: ops.linear_cross_entropy(h, w, place(h)), inputs)
                for wide in ((), (1,)):
                    self.compare(lambda h, w: ops.linear_cross_entropy_sum(h, w, place(h), -100, 0.1), inputs, wide)
        h, w = normal(N, 32).cuda(), normal(300, 32).cuda()
        wrong = torch.where(torch.arange(N) == 3, 300, 1)
        self.assertTrue(ops.linear_cross_entropy_sum(h.requires_grad_(), w, wrong.cuda()).isnan())
        self.assertEqual(ops.linear_cross_entropy(h, w, wrong.cuda()).isnan().nonzero().flatten().tolist(), [3])
        with self.assertRaisesRegex(RuntimeError, "targets must lie in"):
            ops.linear_cross_entropy(h, w, wrong)

    def test_wrong_device(self):
        q = normal(N, 4, 16).cuda()
        with self.assertRaisesRegex(RuntimeError, "k must be on"):
            ops.attention(q, normal(N, 2, 16), normal(N, 2, 24).cuda(), cu(LENGTHS).cuda(), None, 1.0)


if __name__ == "__main__":
    unittest.main()
