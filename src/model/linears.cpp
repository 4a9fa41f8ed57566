#include "model/linears.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>

#include "ops/common/products.h"
#include "ops/common/tensors.h"

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

class LinearsBackward : public autograd::Node {
 public:
  // Of the tensors, the function's inputs and then the layers' weights, the first `inputs` are the former.
  LinearsBackward(Function function, const std::vector<Tensor>& tensors, size_t inputs,
                  const std::vector<Linear>& layers, std::optional<Tensor> order)
      : Node(autograd::collect_next_edges(tensors)),
        function_(std::move(function)),
        inputs_(inputs),
        order_(std::move(order)) {
    for (const Tensor& x : tensors) saved_.emplace_back(x, /*is_output=*/false);
    for (const Linear& layer : layers) rows_.push_back(layer.rows);
  }

  autograd::variable_list apply(autograd::variable_list&& grads) override {
    ops::refuse_double_backward("linears");
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < inputs_; ++i)
      inputs.push_back(saved_[i].unpack().detach().requires_grad_(task_should_compute_output(i)));
    const c10::AutoGradMode with_gradients(true);
    const Tensor again = function_(inputs);
    const c10::AutoGradMode without(false);
    const Tensor x = again.detach();
    autograd::variable_list out(saved_.size());
    Tensor grad_x;
    std::vector<Tensor> apart;  // the gradients of rows, in the layers' order
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (!grads[i].defined()) continue;
      const Tensor weight = saved_[inputs_ + i].unpack().detach();
      if (task_should_compute_output(inputs_ + i)) out[inputs_ + i] = weight_gradient(grads[i], x, i, weight);
      if (!again.requires_grad()) continue;
      if (rows_[i])
        apart.push_back(ops::matrix_product(grads[i], weight.to(x.scalar_type())));
      else
        add_product(grad_x, grads[i], weight.to(x.scalar_type()));
    }
    if (!apart.empty()) add(grad_x, of_rows(apart, grads, x));
    if (grad_x.defined()) backpropagate(again, inputs, grad_x, out);
    return out;
  }

  void release_variables() override {
    for (auto& x : saved_) x.reset_data();
  }
  std::string name() const override { return "LinearsBackward"; }

 private:
  Tensor weight_gradient(const Tensor& grad, const Tensor& x, size_t layer, const Tensor& weight) const {
    return ops::matrix_product(grad.t(), rows_of(x, rows_[layer])).to(weight.scalar_type());
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

  static void backpropagate(const Tensor& again, const std::vector<Tensor>& inputs, const Tensor& grad_x,
                            autograd::variable_list& out) {
    autograd::variable_list wanted;
    for (const Tensor& x : inputs)
      if (x.requires_grad()) wanted.push_back(x);
    const auto gradients = autograd::grad({again}, wanted, {grad_x});
    for (size_t i = 0, next = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) out[i] = gradients[next++];
  }

  Function function_;
  size_t inputs_;  // how many; the weights stand behind them
  std::vector<autograd::SavedVariable> saved_;
  std::vector<std::optional<Tensor>> rows_;
  std::optional<Tensor> order_;
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
        out, std::make_shared<LinearsBackward>(std::move(function), tensors, inputs.size(), layers, order));
  return out;
}

}  // namespace oryx
