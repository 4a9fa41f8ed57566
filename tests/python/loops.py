"""The operations written as plain loops over tokens, from their definitions; slow, and in the dtype they are given."""

import torch
import torch.nn.functional as F


def sequences(cu_seqlens):
    bounds = cu_seqlens.tolist()
    return list(zip(bounds[:-1], bounds[1:]))


def readers(read_index, num_tokens):
    """Packed token -> its row of queries."""
    tokens = range(num_tokens) if read_index is None else read_index.tolist()
    return {token: row for row, token in enumerate(tokens)}


def attention(q, k, v, cu_seqlens, read_index=None, scale=1.0):
    group = q.shape[1] // k.shape[1]
    rows = readers(read_index, k.shape[0])
    out = [None] * q.shape[0]
    for begin, end in sequences(cu_seqlens):
        for token in range(begin, end):
            if token not in rows:
                continue
            heads = []
            for head in range(q.shape[1]):
                past_k, past_v = k[begin : token + 1, head // group], v[begin : token + 1, head // group]
                weights = torch.softmax(scale * (past_k @ q[rows[token], head]), dim=0)
                heads.append(weights @ past_v)
            out[rows[token]] = torch.stack(heads)
    return torch.stack(out)


def _recurrence(q, k, v, cu_seqlens, initial_state, read_index, update):
    """update(state, token, head) -> the state after reading the token."""
    kv_heads, group = k.shape[1], q.shape[1] // k.shape[1]
    rows = readers(read_index, k.shape[0])
    out = [[None] * q.shape[1] for _ in range(q.shape[0])]
    final = []
    for index, (begin, end) in enumerate(sequences(cu_seqlens)):
        states = []
        for head in range(kv_heads):
            state = k.new_zeros(k.shape[2], v.shape[2]) if initial_state is None else initial_state[index, head]
            for token in range(begin, end):
                state = update(state, token, head)
                if token in rows:
                    for reader in range(head * group, (head + 1) * group):
                        out[rows[token]][reader] = q[rows[token], reader] @ state
            states.append(state)
        final.append(torch.stack(states))
    return torch.stack([torch.stack(heads) for heads in out]), torch.stack(final)


def gated_delta_rule(q, k, v, g, beta, cu_seqlens, initial_state=None, read_index=None):
    def update(state, token, head):
        state = torch.exp(g[token, head]) * state
        error = v[token, head] - k[token, head] @ state
        return state + torch.outer(k[token, head], beta[token, head] * error)

    return _recurrence(q, k, v, cu_seqlens, initial_state, read_index, update)


def ssd(q, k, v, g, dt, cu_seqlens, initial_state=None, read_index=None):
    def update(state, token, head):
        return torch.exp(g[token, head]) * state + dt[token, head] * torch.outer(k[token, head], v[token, head])

    return _recurrence(q, k, v, cu_seqlens, initial_state, read_index, update)


def short_conv(x, weight, cu_seqlens, initial_state=None, activation="none"):
    width = weight.shape[1]
    outputs, final = [], []
    for index, (begin, end) in enumerate(sequences(cu_seqlens)):
        past = x.new_zeros(width - 1, x.shape[1]) if initial_state is None else initial_state[index].T
        padded = torch.cat([past, x[begin:end]])
        outputs += [(padded[i : i + width] * weight.T).sum(0) for i in range(end - begin)]
        final.append(padded[padded.shape[0] - (width - 1) :].T)
    y = torch.stack(outputs)
    return (F.silu(y) if activation == "silu" else y), torch.stack(final)


def rope(x, positions, base):
    half = x.shape[2] // 2
    angles = torch.stack([positions.double() * base ** (-2 * j / x.shape[2]) for j in range(half)], dim=1)
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def gated_rms_norm(x, gate, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight * (gate * torch.sigmoid(gate))


def linear_cross_entropy(h, weight, targets, ignore_index=-100):
    losses = []
    for token, target in enumerate(targets.tolist()):
        logits = weight @ h[token]
        loss = torch.logsumexp(logits, 0) - logits[target] if target != ignore_index else 0 * logits.sum()
        losses.append(loss)
    return torch.stack(losses)
