#include "ops/common/products.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/common/isa.h"
#include "ops/common/tensors.h"

namespace oryx::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_widened(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && current_isa() == Isa::avx2;
}

// A row or a few with a transposed matrix: LibTorch's dot products read bfloat16 at the memory's rate.
constexpr int64_t kFew = 4;

at::Tensor widened_linear(const at::Tensor& x, const at::Tensor& weight) {
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = weight.size(0);
  const at::Tensor rows = x.reshape({-1, weight.size(1)});
  if (rows.size(0) <= kFew) return at::linear(x, weight);
  return matrix_product(rows, weight.t()).view(shape);
}

// Keeps bfloat16 for the backward pass.
struct WidenedLinear : torch::autograd::Function<WidenedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    at::AutoDispatchBelowADInplaceOrView guard;
    return widened_linear(x, weight);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("linear");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor grad = grads[0].reshape({-1, weight.size(0)});
    at::Tensor grad_x, grad_weight;
    if (ctx->needs_input_grad(0)) grad_x = matrix_product(grad, weight).view(x.sizes());
    if (ctx->needs_input_grad(1)) grad_weight = matrix_product(grad.t(), x.reshape({-1, weight.size(1)}));
    return {grad_x, grad_weight};
  }
};

// out = a b, or out += a b, of factors that are widened a part at a time, for the memory.
at::Tensor& widened_product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add = false) {
  constexpr int64_t kRows = 256, kNumbers = int64_t{1} << 22;  // of a; of b
  const int64_t columns = std::max<int64_t>(64, kNumbers / std::max<int64_t>(1, b.size(0)));
  for (int64_t first = 0; first < b.size(1); first += columns) {
    const at::Tensor wide = b.slice(1, first, first + columns).to(at::kFloat);
    for (int64_t begin = 0; begin < a.size(0); begin += kRows) {
      const at::Tensor rows = a.slice(0, begin, begin + kRows).to(at::kFloat);
      const at::Tensor to = out.slice(0, begin, begin + kRows).slice(1, first, first + columns);
      if (add)
        to.addmm_(rows, wide);
      else
        to.copy_(at::mm(rows, wide));
    }
  }
  return out;
}

}  // namespace

at::Tensor& product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  return is_widened(a) ? widened_product_out(out, a, b) : at::mm_out(out, a, b);
}

at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  return product_out(out, a, b);
}

void add_matrix_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (is_widened(a))
    sum.add_(matrix_product(a, b));
  else
    sum.addmm_(a, b);
}

bool has_wide_products(const at::Tensor& factor) {
  return factor.scalar_type() != at::kBFloat16 || factor.is_cuda() || is_widened(factor);
}

at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != at::kBFloat16) return at::mm(a, b);
  if (a.is_cuda()) return at::mm(a, b, at::kFloat);
  if (!is_widened(a)) return at::mm(a, b).to(at::kFloat);
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options().dtype(at::kFloat));
  return widened_product_out(out, a, b);
}

void add_wide_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = sum;
  if (a.scalar_type() != at::kBFloat16)
    out.addmm_(a, b);
  else if (a.is_cuda())
    at::addmm_out(out, out, a, b, at::kFloat);
  else
    widened_product_out(out, a, b, /*add=*/true);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  if (!is_widened(x)) return at::linear(x, weight);
  return wants_graph(x, weight) ? WidenedLinear::apply(x, weight) : widened_linear(x, weight);
}

}  // namespace oryx::ops
