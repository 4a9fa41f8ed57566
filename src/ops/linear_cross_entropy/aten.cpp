#include <ATen/ops/any.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "ops/common/packing.h"
#include "ops/common/products.h"
#include "ops/common/tensors.h"
#include "ops/linear_cross_entropy/blocks.h"
#include "ops/linear_cross_entropy/op.h"

namespace oryx::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kOp = "oryx::linear_cross_entropy";

// `wide`: the weight may be in the accumulation type.
void check(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t ignore_index, bool wide = false) {
  check_float(kOp, "h", h);
  check_shape(kOp, "h", h, {-1, -1});
  check_shape(kOp, "weight", weight, {-1, h.size(1)});
  TORCH_CHECK(h.size(1) > 0 && weight.size(0) > 0, kOp, ": weight must have at least one row and column, but has ",
              weight.sizes());
  if (wide)
    check_weight(kOp, "weight", weight, h, {-1, h.size(1)});
  else
    check_like(kOp, "weight", weight, h);
  check_shape(kOp, "targets", targets, {h.size(0)});
  TORCH_CHECK(targets.scalar_type() == at::kLong, kOp, ": targets must be int64, but is ", targets.scalar_type());
  TORCH_CHECK(targets.is_cpu() || targets.device() == h.device(), kOp, ": targets must be on ", h.device(),
              " like h or on the CPU, but is on ", targets.device());
  if (!targets.is_cpu()) return;  // to look at them would be to wait for all that is queued there
  const Tensor outside = targets.lt(0).logical_or_(targets.ge(weight.size(0))).logical_and_(targets.ne(ignore_index));
  if (!at::any(outside).item<bool>()) return;
  const int64_t at = outside.nonzero()[0].item<int64_t>();
  TORCH_CHECK(false, kOp, ": targets must lie in [0, ", weight.size(0), ") or be ", ignore_index,
              " (ignore_index), but ", targets[at].item<int64_t>(), " stands at ", at);
}

// The tokens that count, and how they and the vocabulary are cut.
struct Problem {
  Tensor kept;                // their indices on the device, undefined when all do
  Tensor ignored;             // of targets that lie on a GPU, where none are left out: which do not count
  Tensor h, weight, targets;  // contiguous
  int64_t tokens, words;      // of a block
  at::ScalarType acc;

  Problem(const Tensor& h_in, const Tensor& weight_in, const Tensor& targets_in, int64_t ignore_index,
          bool whole_rows = false)
      : weight(weight_in.contiguous()), acc(accumulate_type(h_in.scalar_type())) {
    const Tensor counts = targets_in.ne(ignore_index);
    if (!targets_in.is_cpu()) {
      ignored = counts.logical_not();
      targets = targets_in.contiguous();
    } else if (counts.all().item<bool>()) {
      targets = index_on(targets_in, h_in.device()).contiguous();
    } else {
      const Tensor indices = counts.nonzero().squeeze(1);
      targets = index_on(targets_in.index_select(0, indices), h_in.device());
      kept = index_on(indices, h_in.device());
    }
    h = take(h_in);
    const int64_t vocabulary = weight.size(0);
    const int64_t all = h.size(0) * vocabulary, small = int64_t{1} << 20, large = int64_t{1} << 24;
    if (whole_rows) {
      tokens = std::clamp<int64_t>(std::max(small, all / 8) / vocabulary, 1, h.is_cpu() ? 256 : 4096);
      words = vocabulary;
    } else {
      // A block stays in cache between the product and what follows it; a GPU's holds larger ones, and wants few.
      const int64_t logits = h.is_cpu() ? small : std::max(small, std::min(large, all / 16));
      tokens = std::max<int64_t>(1, std::min<int64_t>(h.size(0), h.is_cpu() ? 1024 : 4096));
      words = std::min(vocabulary, logits / tokens);
    }
  }

  Tensor take(const Tensor& x) const { return kept.defined() ? x.index_select(0, kept) : x.contiguous(); }
  // The rows that were taken among all of `all`, the others 0.
  Tensor give_back(const Tensor& x, int64_t all) const {
    if (!kept.defined()) return x;
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes[0] = all;
    return at::zeros(sizes, x.options()).index_copy_(0, kept, x);
  }
  int64_t count() const { return h.size(0); }
  Tensor vector(double value) const { return at::full({count()}, value, h.options().dtype(acc)); }
  // A number for each token that counts, with 0 where a target is ignored.
  Tensor masked(const Tensor& x) const { return ignored.defined() ? x.masked_fill(ignored, 0) : x; }

  // work(first, words) for each block of the vocabulary, its rows of the weight from `first` on.
  template <typename Work>
  void for_words(Work&& work) const {
    for (int64_t w = 0; w < weight.size(0); w += words) work(w, weight.slice(0, w, w + words));
  }
  // work(rows) for each block of tokens, where rows(x) is x's part of it.
  template <typename Work>
  void for_tokens(Work&& work) const {
    for (int64_t n = 0; n < count(); n += tokens)
      work([begin = n, end = n + tokens](const Tensor& x) { return x.slice(0, begin, end); });
  }
};

// Memory for one matrix after the other: taken from the allocator each time, they would leave holes of other sizes.
class Scratch {
 public:
  Scratch(int64_t size, const at::TensorOptions& options) : flat_(at::empty({size}, options)) {}
  Tensor matrix(int64_t rows, int64_t columns) const { return flat_.slice(0, 0, rows * columns).view({rows, columns}); }
  // a b
  Tensor product(const Tensor& a, const Tensor& b) const {
    Tensor out = matrix(a.size(0), b.size(1));
    return product_out(out, a, b);
  }

 private:
  Tensor flat_;
};

// x [N, D] in the narrower type of `options`, in the memory that x had: both at once would be the peak of it all. A
// block is copied out first, and what it becomes ends before the next one begins.
Tensor rounded_in_place(const Problem& p, const Tensor& x, const at::TensorOptions& options) {
  const Tensor narrow = at::empty({0}, options).set_(x.storage(), 0, x.sizes(), x.strides());
  p.for_tokens([&](auto&& rows) { rows(narrow).copy_(rows(x).to(narrow.scalar_type())); });
  return narrow;
}

// What each token's logits come to, block by block.
class LogitSums {
 public:
  LogitSums(const LogitKernels& kernels, const Problem& p)
      : kernels_(kernels),
        p_(p),
        // Finite, so that no difference of infinities arises.
        maximum_(p.vector(std::numeric_limits<float>::lowest())),
        sum_(p.vector(0)),
        target_(p.vector(0)) {}

  // The logits of tokens `rows` for the words from `first` on.
  template <typename Rows>
  void take(const Tensor& logits, int64_t first, Rows&& rows) {
    kernels_.reduce(logits, rows(p_.targets), first, rows(maximum_), rows(sum_), rows(target_));
  }
  void take_all() {
    const Scratch space(p_.tokens * p_.words, p_.h.options());
    p_.for_words([&](int64_t first, const Tensor& words) {
      p_.for_tokens([&](auto&& rows) { take(space.product(rows(p_.h), words.t()), first, rows); });
    });
  }

  const Tensor& maximum() const { return maximum_; }
  template <typename Rows>
  Tensor lse(Rows&& rows) const {
    return rows(sum_).log().add_(rows(maximum_));
  }
  Tensor lse() const {
    return lse([](const Tensor& x) { return x; });
  }
  // Targets on a GPU were not checked: a wrong one shows in its loss.
  Tensor target() const {
    if (!p_.ignored.defined()) return target_;
    const Tensor wrong = p_.targets.lt(0).logical_or_(p_.targets.ge(p_.weight.size(0)));
    return target_.masked_fill(wrong, std::numeric_limits<double>::quiet_NaN());
  }

 private:
  const LogitKernels& kernels_;
  const Problem& p_;
  const Tensor maximum_, sum_, target_;
};

// Sums of products in the accumulation type.
class ProductSums {
 public:
  ProductSums(const LogitKernels& kernels, const Problem& p)
      : kernels_(kernels),
        exact_(p.h.scalar_type() == p.acc),
        wide_(has_wide_products(p.h)),
        space_(wide_ ? 0 : kRows * p.h.size(1), p.h.options()) {}

  // sum += a b
  void add(const Tensor& sum, const Tensor& a, const Tensor& b) const {
    if (wide_) return add_wide_product(sum, a, b);
    for (int64_t r = 0; r < a.size(0); r += kRows)
      kernels_.add(sum.slice(0, r, r + kRows), space_.product(a.slice(0, r, r + kRows), b));
  }
  bool exact() const { return exact_; }  // sums are in the inputs' type

 private:
  static constexpr int64_t kRows = 4096;  // of a product that is rounded and then added
  const LogitKernels& kernels_;
  const bool exact_, wide_;
  const Scratch space_;
};

const LogitKernels& kernels_at(int64_t address) {
  return *reinterpret_cast<const LogitKernels*>(address);
}

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const Tensor& weight, const Tensor& targets,
                        int64_t ignore_index, int64_t kernels_address) {
    const Problem p(h, weight, targets, ignore_index);
    LogitSums sums(kernels_at(kernels_address), p);
    sums.take_all();
    const Tensor lse = sums.lse();
    ctx->saved_data["ignore_index"] = ignore_index;
    ctx->saved_data["kernels"] = kernels_address;
    ctx->save_for_backward({h, weight, targets, lse});
    return p.give_back(p.masked(lse.sub(sums.target())), h.size(0));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward(kOp);
    const auto saved = ctx->get_saved_variables();
    const Tensor &h = saved[0], &weight = saved[1], &lse = saved[3];
    const auto& kernels = kernels_at(ctx->saved_data["kernels"].toInt());
    const Problem p(h, weight, saved[2], ctx->saved_data["ignore_index"].toInt());
    const Tensor upstream = p.masked(p.take(grads[0]));
    const int64_t width = h.size(1);
    const ProductSums products(kernels, p);
    Tensor grad_h, grad_weight;
    if (ctx->needs_input_grad(0)) grad_h = at::zeros(p.h.sizes(), p.h.options().dtype(p.acc));
    if (ctx->needs_input_grad(1)) grad_weight = at::zeros(weight.sizes(), weight.options());
    const Scratch space(p.tokens * p.words, h.options());
    const Scratch words_space(products.exact() ? 0 : p.words * width, lse.options());
    p.for_words([&](int64_t first, const Tensor& words) {
      Tensor grad_words;
      if (grad_weight.defined()) {
        grad_words = grad_weight.slice(0, first, first + p.words);
        if (!products.exact()) grad_words = words_space.matrix(words.size(0), width).zero_();
      }
      p.for_tokens([&](auto&& rows) {
        const Tensor logits = space.product(rows(p.h), words.t());
        kernels.gradient(logits, rows(p.targets), first, rows(lse), rows(upstream));
        if (grad_h.defined()) products.add(rows(grad_h), logits, words);
        if (grad_words.defined()) products.add(grad_words, logits.t(), rows(p.h));
      });
      if (grad_words.defined() && !products.exact()) grad_weight.slice(0, first, first + p.words).copy_(grad_words);
    });
    if (grad_h.defined()) {
      if (!products.exact()) grad_h = rounded_in_place(p, grad_h, h.options());
      grad_h = p.give_back(grad_h, h.size(0));
    }
    return {grad_h, grad_weight, Tensor(), Tensor(), Tensor()};
  }
};

// The sum's gradients are those of each token's loss times one number: all but that number, which in training is 1, is
// known in the forward pass, while the logits are there.
struct CrossEntropySumFunction : torch::autograd::Function<CrossEntropySumFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const Tensor& weight, const Tensor& targets,
                        int64_t ignore_index, double scale, int64_t kernels_address) {
    const auto& kernels = kernels_at(kernels_address);
    const Problem p(h, weight.to(h.scalar_type()), targets, ignore_index, /*whole_rows=*/true);
    const ProductSums products(kernels, p);
    LogitSums sums(kernels, p);
    const Tensor each = p.masked(p.vector(scale)), lse = p.vector(0);
    Tensor grad_h, grad_weight;
    if (h.requires_grad()) grad_h = at::empty(p.h.sizes(), p.h.options());
    if (weight.requires_grad()) grad_weight = at::zeros(weight.sizes(), weight.options().dtype(p.acc));
    {
      const Scratch space(p.tokens * p.words, h.options());
      p.for_tokens([&](auto&& rows) {
        const Tensor logits = space.product(rows(p.h), p.weight.t());
        sums.take(logits, 0, rows);
        rows(lse).copy_(sums.lse(rows));
        kernels.gradient(logits, rows(p.targets), 0, rows(lse), rows(each));
        if (Tensor part; grad_h.defined()) product_out(part = rows(grad_h), logits, p.weight);
        if (grad_weight.defined()) products.add(grad_weight, logits.t(), rows(p.h));
      });
    }
    if (grad_h.defined()) grad_h = p.give_back(grad_h, h.size(0));
    if (grad_weight.defined()) grad_weight = grad_weight.to(weight.scalar_type());
    ctx->save_for_backward({grad_h, grad_weight});
    return p.masked(lse.sub(sums.target())).sum().mul_(scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward(kOp);
    const auto saved = ctx->get_saved_variables();
    const bool as_they_are = grads[0].is_cpu() && grads[0].item<double>() == 1;  // a GPU would have to be waited for
    const auto times = [&](const Tensor& x) { return x.defined() && !as_they_are ? x.mul(grads[0]) : x; };
    return {times(saved[0]), times(saved[1]), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// Each target's column in the block, clamped to it, and whether it is there.
struct Column {
  Tensor index, here;
  Column(const Tensor& logits, const Tensor& targets, int64_t first) {
    const Tensor word = targets.sub(first);
    here = word.ge(0).logical_and_(word.lt(logits.size(1)));
    index = word.clamp(0, logits.size(1) - 1).unsqueeze(1);
  }
};

void reduce_aten(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& maximum, const Tensor& sum,
                 const Tensor& target) {
  const Tensor x = logits.to(maximum.scalar_type()), top = maximum.maximum(x.amax(1));
  const Column column(logits, targets, first);
  target.copy_(at::where(column.here, x.gather(1, column.index).squeeze(1), target));
  sum.mul_(maximum.sub(top).exp_()).add_(x.sub(top.unsqueeze(1)).exp_().sum(1));
  maximum.copy_(top);
}

void gradient_aten(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse, const Tensor& grad) {
  const Column column(logits, targets, first);
  const Tensor p = logits.to(lse.scalar_type()).sub(lse.unsqueeze(1)).exp_();
  p.scatter_add_(1, column.index, column.here.to(p.scalar_type()).neg_().unsqueeze(1));
  logits.copy_(p.mul_(grad.unsqueeze(1)));
}

void add_aten(const Tensor& to, const Tensor& product) {
  to.add_(product);
}

constexpr LogitKernels kAtenLogitKernels{reduce_aten, gradient_aten, add_aten};

}  // namespace

Tensor blocked_linear_cross_entropy(const LogitKernels& kernels, const Tensor& h, const Tensor& weight,
                                    const Tensor& targets, int64_t ignore_index) {
  check(h, weight, targets, ignore_index);
  const c10::DeviceGuard guard(h.device());
  return CrossEntropyFunction::apply(h, weight, targets, ignore_index, reinterpret_cast<int64_t>(&kernels));
}

Tensor blocked_linear_cross_entropy_sum(const LogitKernels& kernels, const Tensor& h, const Tensor& weight,
                                        const Tensor& targets, int64_t ignore_index, double scale) {
  check(h, weight, targets, ignore_index, /*wide=*/true);
  const c10::DeviceGuard guard(h.device());
  if (!wants_graph(h, weight))
    return CrossEntropyFunction::apply(h, weight.to(h.scalar_type()), targets, ignore_index,
                                       reinterpret_cast<int64_t>(&kernels))
        .sum()
        .mul_(scale);
  return CrossEntropySumFunction::apply(h, weight, targets, ignore_index, scale, reinterpret_cast<int64_t>(&kernels));
}

std::tuple<Tensor, Tensor> blocked_linear_log_probs(const LogitKernels& kernels, const Tensor& h, const Tensor& weight,
                                                    const Tensor& targets) {
  constexpr int64_t kNone = -1;  // no target may be ignored
  check(h, weight, targets, kNone);
  TORCH_CHECK(!targets.is_cpu() || !at::any(targets.eq(kNone)).item<bool>(),
              "oryx::linear_log_probs: targets must lie in [0, ", weight.size(0), ")");
  const c10::DeviceGuard guard(h.device());
  c10::NoGradGuard no_grad;
  const Problem p(h, weight, targets, kNone);
  LogitSums sums(kernels, p);
  sums.take_all();
  const Tensor lse = sums.lse();
  return {sums.target().sub(lse), sums.maximum().sub(lse)};
}

std::tuple<Tensor, Tensor> linear_log_probs_aten(const Tensor& h, const Tensor& weight, const Tensor& targets) {
  return blocked_linear_log_probs(kAtenLogitKernels, h, weight, targets);
}

Tensor linear_cross_entropy_aten(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t ignore_index) {
  return blocked_linear_cross_entropy(kAtenLogitKernels, h, weight, targets, ignore_index);
}

Tensor linear_cross_entropy_sum_aten(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t ignore_index,
                                     double scale) {
  return blocked_linear_cross_entropy_sum(kAtenLogitKernels, h, weight, targets, ignore_index, scale);
}

}  // namespace oryx::ops
