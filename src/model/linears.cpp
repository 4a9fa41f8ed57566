#include "model/linears.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>

#include "ops/common/products.h"
#include "ops/common/recomputed.h"
#include "ops/common/tensors.h"
#include "ops/rms_norm/op.h"

namespace oryx {
namespace {

namespace autograd = torch::autograd;
using at::Tensor;
using Function = std::function<Tensor(const std::vector<Tensor>&)>;

Tensor rows_of(const Tensor& x, const std::optional<Tensor>& rows) {
  return rows ? x.index_select(0, *rows) : x;
}

std::vector<Tensor> products(const Tensor& x, const std::vector<Linear>& layers) {
  std::vector<Tensor> out;
  out.reserve(layers.size());
  for (const Linear& layer : layers)
    out.push_back(ops::linear(rows_of(x, layer.rows), layer.weight.to(x.scalar_type())));
  return out;
}

// What layers read, in the backward pass.
struct Reading {
  Tensor x;
  bool differentiable;  // whether x's gradient is wanted
  // The gradients of the inputs from x's, which may be undefined.
  std::function<autograd::variable_list(const Tensor& grad_x)> gradients;
};

class LinearsBackward : public autograd::Node {
 public:
  // Of the tensors, the first `inputs` are those that x is computed from, and the others the layers' weights; `kept`
  // are what computes x again.
  LinearsBackward(const std::vector<Tensor>& tensors, size_t inputs, const std::vector<Tensor>& kept,
                  const std::vector<Linear>& layers, std::optional<Tensor> order)
      : Node(autograd::collect_next_edges(tensors)), inputs_(inputs), order_(std::move(order)) {
    for (const Tensor& x : kept) kept_.emplace_back(x, /*is_output=*/false);
    for (const Linear& layer : layers) {
      weights_.emplace_back(layer.weight, /*is_output=*/false);
      rows_.push_back(layer.rows);
    }
  }

  autograd::variable_list apply(autograd::variable_list&& all_grads) override {
    ops::refuse_double_backward("linears");
    // Behind what comes out beside the layers' products.
    const std::vector<Tensor> grads(all_grads.end() - static_cast<ptrdiff_t>(rows_.size()), all_grads.end());
    const Reading reading = read(all_grads);
    const Tensor& x = reading.x;
    autograd::variable_list out(inputs_ + rows_.size());
    Tensor grad_x;
    std::vector<Tensor> apart;  // the gradients of rows, in the layers' order
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (!grads[i].defined()) continue;
      const Tensor weight = weights_[i].unpack().detach();
      if (task_should_compute_output(inputs_ + i)) out[inputs_ + i] = weight_gradient(grads[i], x, i, weight);
      if (!reading.differentiable) continue;
      if (rows_[i])
        apart.push_back(ops::matrix_product(grads[i], weight.to(x.scalar_type())));
      else
        add_product(grad_x, grads[i], weight.to(x.scalar_type()));
    }
    if (!apart.empty()) add(grad_x, of_rows(apart, grads, x));
    std::ranges::copy(reading.gradients(grad_x), out.begin());
    return out;
  }

  void release_variables() override {
    for (auto* saved : {&kept_, &weights_})
      for (auto& x : *saved) x.reset_data();
  }
  std::string name() const override { return "LinearsBackward"; }

 protected:
  virtual Reading read(const autograd::variable_list& grads) = 0;
  Tensor kept(size_t i) { return kept_[i].unpack().detach(); }
  const std::vector<autograd::SavedVariable>& kept() const { return kept_; }

 private:
  Tensor weight_gradient(const Tensor& grad, const Tensor& x, size_t layer, const Tensor& weight) const {
    return ops::wide_product(grad.t(), rows_of(x, rows_[layer])).to(weight.scalar_type());
  }

  static void add(Tensor& sum, const Tensor& x) {
    if (sum.defined())
      sum.add_(x);
    else
      sum = x;
  }
  static void add_product(Tensor& sum, const Tensor& a, const Tensor& b) {
    if (sum.defined())
      ops::add_matrix_product(sum, a, b);
    else
      sum = ops::matrix_product(a, b);
  }

  // The gradient of x that comes from the layers that read some of its rows.
  Tensor of_rows(const std::vector<Tensor>& apart, const autograd::variable_list& grads, const Tensor& x) const {
    const auto with_rows = std::ranges::count_if(rows_, [](const auto& rows) { return rows.has_value(); });
    if (order_ && static_cast<ptrdiff_t>(apart.size()) == with_rows) return at::cat(apart).index_select(0, *order_);
    Tensor sum;
    size_t next = 0;
    for (size_t i = 0; i < rows_.size(); ++i)
      if (rows_[i] && grads[i].defined())
        add(sum, at::zeros(x.sizes(), x.options()).index_copy_(0, *rows_[i], apart[next++]));
    return sum;
  }

  size_t inputs_;
  std::vector<autograd::SavedVariable> kept_, weights_;
  std::vector<std::optional<Tensor>> rows_;
  std::optional<Tensor> order_;
};

// Of x = function(inputs).
class FunctionLinearsBackward : public LinearsBackward {
 public:
  FunctionLinearsBackward(Function function, const std::vector<Tensor>& tensors, const std::vector<Tensor>& inputs,
                          const std::vector<Linear>& layers, std::optional<Tensor> order)
      : LinearsBackward(tensors, inputs.size(), inputs, layers, std::move(order)), function_(std::move(function)) {}

 protected:
  Reading read(const autograd::variable_list&) override {
    const ops::Recomputed again([this](const auto& in) { return std::vector{function_(in)}; }, *this, kept());
    const Tensor& x = again.outputs()[0];
    return {x.detach(), x.requires_grad(), [again](const Tensor& grad_x) { return again.gradients({grad_x}); }};
  }

 private:
  Function function_;
};

// Of x = add_rms_norm(stream, delta, norm_weight), where the sum is kept.
class NormedLinearsBackward : public LinearsBackward {
 public:
  NormedLinearsBackward(const std::vector<Tensor>& tensors, const Tensor& sum, const Tensor& norm_weight, double eps,
                        at::ScalarType type, const std::vector<Linear>& layers, std::optional<Tensor> order)
      : LinearsBackward(tensors, 3, {sum, norm_weight}, layers, std::move(order)), eps_(eps), type_(type) {}

 protected:
  Reading read(const autograd::variable_list& grads) override {
    const Tensor sum = kept(0), weight = kept(1);
    return {ops::rms_norm(sum, weight, eps_, 1.0, type_), true,
            [=, eps = eps_, type = type_, grad_sum = grads[0]](const Tensor& grad_x) -> autograd::variable_list {
              auto out = ops::add_rms_norm_backward(sum, weight, eps, grad_sum, grad_x, type);
              return {out.x, out.y, out.weight};
            }};
  }

 private:
  double eps_;
  at::ScalarType type_;
};

}  // namespace

std::vector<Tensor> linears(Function function, const std::vector<Tensor>& inputs, const std::vector<Linear>& layers,
                            const std::optional<Tensor>& order) {
  std::vector<Tensor> tensors = inputs, out;
  for (const Linear& layer : layers) tensors.push_back(layer.weight);
  {
    const c10::NoGradGuard no_grad;
    out = products(function(inputs), layers);
  }
  if (autograd::compute_requires_grad(at::TensorList(tensors)))
    autograd::set_history(
        out, std::make_shared<FunctionLinearsBackward>(std::move(function), tensors, inputs, layers, order));
  return out;
}

std::tuple<Tensor, std::vector<Tensor>> normed_linears(const Tensor& stream, const Tensor& delta,
                                                       const Tensor& norm_weight, double eps,
                                                       const std::vector<Linear>& layers,
                                                       const std::optional<Tensor>& order) {
  std::vector<Tensor> tensors{stream, delta, norm_weight}, out;
  for (const Linear& layer : layers) tensors.push_back(layer.weight);
  {
    const c10::NoGradGuard no_grad;
    const auto [sum, x] = ops::add_rms_norm(stream, delta, norm_weight, eps);
    out = products(x, layers);
    out.insert(out.begin(), sum);
  }
  // The node keeps the sum without its history, which is the node.
  if (autograd::compute_requires_grad(at::TensorList(tensors)))
    autograd::set_history(out, std::make_shared<NormedLinearsBackward>(tensors, out[0].detach(), norm_weight, eps,
                                                                       delta.scalar_type(), layers, order));
  return {out[0], std::vector<Tensor>(out.begin() + 1, out.end())};
}

}  // namespace oryx
