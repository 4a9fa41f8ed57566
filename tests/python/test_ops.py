"""oryx's operations from Python: usage: test_ops.py path/to/liboryx_ops.so"""

import sys
import unittest

from optional import require

require("torch", "numpy")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import loops  # noqa: E402

OPS = torch.ops.oryx

# One token, lengths around the chunk sizes 16 and 64, and an odd one.
LENGTHS = [1, 17, 64, 65, 30]
HEADS, KV_HEADS, KEY_DIM, VALUE_DIM = 4, 2, 8, 12


def packed(lengths):
    return torch.tensor([0] + lengths).cumsum(0).to(torch.int32)


def random_inputs(lengths=LENGTHS, seed=0, dtype=torch.float64):
    """What the mixers read: unit keys, log decays from almost none to strong, with gradients."""
    torch.manual_seed(seed)
    tokens, batch = sum(lengths), len(lengths)
    decay = torch.rand(tokens, KV_HEADS, dtype=torch.float64) ** 4
    tensors = {
        "q": torch.randn(tokens, HEADS, KEY_DIM, dtype=torch.float64),
        "k": F.normalize(torch.randn(tokens, KV_HEADS, KEY_DIM, dtype=torch.float64), dim=-1),
        "v": torch.randn(tokens, KV_HEADS, VALUE_DIM, dtype=torch.float64),
        "g": -8 * decay,
        "beta": torch.rand(tokens, KV_HEADS, dtype=torch.float64),
        "initial_state": torch.randn(batch, KV_HEADS, KEY_DIM, VALUE_DIM, dtype=torch.float64),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in tensors.items()}


def read_some(tokens, seed=1):
    """Every third token or so, the first and the last among them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, generator=generator) < 0.35
    chosen[0] = chosen[-1] = True
    return chosen.nonzero().flatten()


class AgainstLoops(unittest.TestCase):
    """Values and gradients against the loops of loops.py, which know nothing of chunks."""

    def assert_near(self, got, want, tolerance, what):
        self.assertEqual(got.shape, want.shape, what)
        self.assertEqual(got.dtype, want.dtype, what)
        scale = want.abs().max().item() + 1e-30
        error = (got - want).abs().max().item()
        self.assertLessEqual(error, tolerance * scale, f"{what}: off by {error:.3g} where values reach {scale:.3g}")

    def compare(self, op, loop, inputs, *rest, tolerance=1e-10, **options):
        """`inputs` are differentiated; `rest` and `options` follow them in both signatures."""
        got, want = op(*inputs, *rest, **options), loop(*inputs, *rest, **options)
        got = got if isinstance(got, tuple) else (got,)
        want = want if isinstance(want, tuple) else (want,)
        self.assertEqual(len(got), len(want))
        generator = torch.Generator().manual_seed(2)
        wanted = list(inputs) + [x for x in options.values() if isinstance(x, torch.Tensor) and x.requires_grad]
        cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in want]
        for i, (a, b) in enumerate(zip(got, want)):
            self.assert_near(a, b, tolerance, f"output {i}")
        gradients = torch.autograd.grad(got, wanted, cotangents)
        expected = torch.autograd.grad(want, wanted, cotangents)
        for i, (a, b) in enumerate(zip(gradients, expected)):
            self.assertGreater(b.abs().max().item(), 0)
            self.assert_near(a, b, tolerance, f"gradient {i}")

    def each_reading(self, run):
        for read_index in (None, read_some(sum(LENGTHS))):
            with self.subTest(read_index="all" if read_index is None else "some"):
                x = random_inputs()
                if read_index is not None:
                    x["q"] = x["q"].detach()[read_index].clone().requires_grad_()
                run(x, read_index)

    def test_attention(self):
        def run(x, read_index):
            self.compare(OPS.attention, loops.attention, (x["q"], x["k"], x["v"]), packed(LENGTHS),
                         read_index=read_index, scale=0.7)

        self.each_reading(run)

    def recurrence(self, op, loop):
        def run(x, read_index):
            inputs = (x["q"], x["k"], x["v"], x["g"], x["beta"])
            self.compare(op, loop, inputs, packed(LENGTHS), read_index=read_index)
            self.compare(op, loop, inputs, packed(LENGTHS), initial_state=x["initial_state"], read_index=read_index)

        self.each_reading(run)

    def test_gated_delta_rule(self):
        self.recurrence(OPS.gated_delta_rule, loops.gated_delta_rule)

    def test_ssd(self):
        self.recurrence(OPS.ssd, loops.ssd)

    def test_single_precision_keeps_its_state_in_fp32(self):
        exact = random_inputs()
        for op, loop in ((OPS.gated_delta_rule, loops.gated_delta_rule), (OPS.ssd, loops.ssd)):
            for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 3e-2)):
                with self.subTest(op=str(op), dtype=str(dtype)):
                    x = {name: value.detach().to(dtype) for name, value in exact.items()}
                    # What is rounded on the way in is the same for both.
                    y = {name: value.double() for name, value in x.items()}
                    names = ("q", "k", "v", "g", "beta")
                    out, state = op(*(x[n] for n in names), packed(LENGTHS))
                    want, want_state = loop(*(y[n] for n in names), packed(LENGTHS))
                    self.assertEqual(out.dtype, dtype)
                    self.assertEqual(state.dtype, torch.float32)
                    self.assert_near(out.double(), want, tolerance, "output")
                    self.assert_near(state.double(), want_state, tolerance, "state")

    def test_state_carries_over(self):
        """Two calls that hand the state on give what one call gives."""
        lengths = [50]
        x = {name: value.detach() for name, value in random_inputs(lengths).items()}
        names = ("q", "k", "v", "g", "beta")
        for op in (OPS.gated_delta_rule, OPS.ssd):
            whole, last = op(*(x[n] for n in names), packed(lengths), initial_state=x["initial_state"])
            head, state = op(*(x[n][:19] for n in names), packed([19]), initial_state=x["initial_state"])
            tail, state = op(*(x[n][19:] for n in names), packed([31]), initial_state=state)
            self.assert_near(torch.cat([head, tail]), whole, 1e-10, "outputs")
            self.assert_near(state, last, 1e-10, "final state")

    def test_short_conv(self):
        torch.manual_seed(3)
        x = torch.randn(sum(LENGTHS), 10, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
        state = torch.randn(len(LENGTHS), 10, 3, dtype=torch.float64, requires_grad=True)
        for activation in ("none", "silu"):
            with self.subTest(activation=activation):
                self.compare(OPS.short_conv, loops.short_conv, (x, weight), packed(LENGTHS), activation=activation)
                self.compare(OPS.short_conv, loops.short_conv, (x, weight), packed(LENGTHS), initial_state=state,
                             activation=activation)

    def test_rope(self):
        torch.manual_seed(4)
        x = torch.randn(20, HEADS, KEY_DIM, dtype=torch.float64, requires_grad=True)
        self.compare(OPS.rope, loops.rope, (x,), torch.arange(100, 120), 10000.0)

    def test_gated_rms_norm(self):
        torch.manual_seed(5)
        x = torch.randn(9, HEADS, VALUE_DIM, dtype=torch.float64, requires_grad=True)
        gate = torch.randn_like(x, requires_grad=True)
        weight = torch.rand(VALUE_DIM, dtype=torch.float64, requires_grad=True)
        self.compare(OPS.gated_rms_norm, loops.gated_rms_norm, (x, gate, weight), 1e-5)

    def test_linear_cross_entropy(self):
        torch.manual_seed(6)
        h = torch.randn(23, 16, requires_grad=True)
        weight = torch.randn(40, 16, requires_grad=True)
        targets = torch.randint(0, 40, (23,))
        targets[::5] = -100
        self.compare(OPS.linear_cross_entropy, loops.linear_cross_entropy, (h, weight), targets, tolerance=1e-5)
        self.assertEqual(OPS.linear_cross_entropy(h, weight, targets)[::5].abs().max().item(), 0)


class WrongInputs(unittest.TestCase):
    """Each error names the argument at fault."""

    def refused(self, name, op, *inputs, **options):
        with self.assertRaisesRegex(RuntimeError, rf"\b{name}\b"):
            op(*inputs, **options)

    def test_recurrences_and_attention(self):
        x = {name: value.detach() for name, value in random_inputs([5, 6]).items()}
        cu = packed([5, 6])
        for op, rate in ((OPS.gated_delta_rule, "beta"), (OPS.ssd, "dt")):
            good = [x["q"], x["k"], x["v"], x["g"], x["beta"], cu]
            op(*good)
            for position, name in enumerate(("q", "k", "v", "g", rate)):
                with self.subTest(op=str(op), argument=name):
                    bad = list(good)
                    bad[position] = bad[position][:-1]
                    # k says how many tokens there are, so that a short k shows in what is compared with it.
                    self.refused(name if name != "k" else r"(k|v|q|g|cu_seqlens)", op, *bad)
            self.refused("cu_seqlens", op, *good[:5], packed([5, 5]))
            self.refused("cu_seqlens", op, *good[:5], cu.long())
            self.refused("initial_state", op, *good, initial_state=x["initial_state"][:, :, :-1])
            self.refused("read_index", op, *good, read_index=torch.arange(1, 12))
            self.refused("v", op, x["q"], x["k"], x["v"].float(), *good[3:])
        self.refused("q", OPS.attention, x["q"][..., :-1], x["k"], x["v"], cu)
        self.refused("v", OPS.attention, x["q"], x["k"], x["v"][:-1], cu)
        self.refused("read_index", OPS.attention, x["q"][:2], x["k"], x["v"], cu, torch.tensor([3, 11]))

    def test_the_small_ones(self):
        x = torch.randn(11, 6)
        self.refused("weight", OPS.short_conv, x, torch.randn(5, 4), packed([5, 6]))
        self.refused("activation", OPS.short_conv, x, torch.randn(6, 4), packed([5, 6]), activation="tanh")
        self.refused("positions", OPS.rope, torch.randn(11, 2, 6), torch.arange(10), 1e4)
        self.refused("gate", OPS.gated_rms_norm, torch.randn(3, 2, 6), torch.randn(3, 2, 5), torch.ones(6), 1e-5)
        self.refused("weight", OPS.gated_rms_norm, torch.randn(3, 2, 6), torch.randn(3, 2, 6), torch.ones(5), 1e-5)
        self.refused("targets", OPS.linear_cross_entropy, x, torch.randn(9, 6), torch.full((10,), 1))
        self.refused("targets", OPS.linear_cross_entropy, x, torch.randn(9, 6), torch.full((11,), 9))


class Layer(torch.nn.Module):
    """One mixer layer of DESIGN section 2, with the head and its loss; some tokens attend and the others recur."""

    def __init__(self, recurrence, vocab=29, width=32):
        super().__init__()
        self.recurrence = recurrence

        def weight(*shape):
            return torch.nn.Parameter(0.2 * torch.randn(*shape))

        self.embedding = weight(vocab, width)
        self.k, self.k_conv = weight(KV_HEADS * KEY_DIM, width), weight(KV_HEADS * KEY_DIM, 4)
        self.v, self.v_conv = weight(KV_HEADS * VALUE_DIM, width), weight(KV_HEADS * VALUE_DIM, 4)
        self.q_attention, self.q_recurrent = weight(HEADS * KEY_DIM, width), weight(HEADS * KEY_DIM, width)
        self.a, self.b = weight(KV_HEADS, width), weight(KV_HEADS, width)
        self.gate, self.norm = weight(HEADS * VALUE_DIM, width), torch.nn.Parameter(torch.ones(VALUE_DIM))
        self.out = weight(width, HEADS * VALUE_DIM)

    def forward(self, tokens, cu_seqlens, attends):
        h = F.embedding(tokens, self.embedding)
        count = tokens.shape[0]
        positions = torch.cat([torch.arange(end - begin) for begin, end in loops.sequences(cu_seqlens)])
        k, _ = OPS.short_conv(h @ self.k.T, self.k_conv, cu_seqlens, activation="silu")
        v, _ = OPS.short_conv(h @ self.v.T, self.v_conv, cu_seqlens, activation="silu")
        k = F.normalize(k.view(count, KV_HEADS, KEY_DIM), dim=-1)
        v = v.view(count, KV_HEADS, VALUE_DIM)
        readers = [(~attends).nonzero().flatten(), attends.nonzero().flatten()]
        q = [h[index] @ w.T for index, w in zip(readers, (self.q_recurrent, self.q_attention))]
        q = [x.view(-1, HEADS, KEY_DIM) for x in q]
        g, rate = -F.softplus(h @ self.a.T), torch.sigmoid(h @ self.b.T)
        recurred, _ = self.recurrence(q[0], k, v, g, rate, cu_seqlens, read_index=readers[0])
        attended = OPS.attention(OPS.rope(q[1], positions[readers[1]], 1e4), OPS.rope(k, positions, 1e4), v, cu_seqlens,
                                 read_index=readers[1])
        mixed = torch.zeros(count, HEADS, VALUE_DIM).index_copy(0, readers[0], recurred)
        mixed = mixed.index_copy(0, readers[1], attended)
        y = OPS.gated_rms_norm(mixed, (h @ self.gate.T).view_as(mixed), self.norm, 1e-5)
        return h + y.reshape(count, -1) @ self.out.T


class Training(unittest.TestCase):
    def test_two_steps(self):
        for recurrence in (OPS.gated_delta_rule, OPS.ssd):
            with self.subTest(recurrence=str(recurrence)):
                torch.manual_seed(7)
                layer = Layer(recurrence)
                optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
                cu = packed(LENGTHS)
                tokens = torch.randint(0, 29, (sum(LENGTHS),))
                attends = torch.rand(sum(LENGTHS)) < 0.5
                losses = []
                for _ in range(3):
                    h = layer(tokens, cu, attends)
                    loss = OPS.linear_cross_entropy(h, layer.embedding, tokens.roll(-1)).mean()
                    losses.append(loss.item())
                    optimizer.zero_grad()
                    loss.backward()
                    for name, parameter in layer.named_parameters():
                        self.assertTrue(torch.isfinite(parameter.grad).all(), f"gradient of {name} is not finite")
                        self.assertGreater(parameter.grad.abs().max().item(), 0, f"gradient of {name} is zero")
                    optimizer.step()
                self.assertLess(losses[1], losses[0])
                self.assertLess(losses[2], losses[1])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.ops.load_library(sys.argv.pop(1))
    unittest.main(verbosity=2)
