#include "ops/swiglu/cpu.h"

#include "ops/common/groups.h"

namespace oryx::ops::ORYX_ISA {

// Elements of one piece of work.
static constexpr int64_t kPiece = 4096;

// work(i, size) for each group of the arrays, on all threads.
template <typename T, typename Work>
static void for_pieces(int64_t size, Work&& work) {
  parallel_for((size + kPiece - 1) / kPiece, 4, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPiece, last = end * kPiece < size ? end * kPiece : size;
    for_groups<T>(last - first, [&](int64_t i, auto part) { work(first + i, part); });
  });
}

template <typename T>
void swiglu_forward(const SwigluArgs<T>& args) {
  for_pieces<T>(args.size, [&](int64_t i, auto part) {
    prefetch(args.gate + i), prefetch(args.up + i);
    const Group<T> gate = read(args.gate + i, part);
    write(args.y + i, gate * sigmoid(gate) * read(args.up + i, part), part);
  });
}

template <typename T>
void swiglu_backward(const SwigluArgs<T>& args) {
  for_pieces<T>(args.size, [&](int64_t i, auto part) {
    prefetch(args.gate + i), prefetch(args.up + i), prefetch(args.grad_y + i);
    const Group<T> gate = read(args.gate + i, part), grad_y = read(args.grad_y + i, part);
    const Group<T> s = sigmoid(gate);
    if (args.grad_gate) write(args.grad_gate + i, grad_y * read(args.up + i, part) * silu_slope(gate, s), part);
    if (args.grad_up) write(args.grad_up + i, grad_y * gate * s, part);
  });
}

#define ORYX_INSTANTIATE(T)                              \
  template void swiglu_forward<T>(const SwigluArgs<T>&); \
  template void swiglu_backward<T>(const SwigluArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
