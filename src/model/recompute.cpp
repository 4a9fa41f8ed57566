#include "model/recompute.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "model/block.h"

namespace oryx {
namespace {

namespace autograd = torch::autograd;

thread_local bool g_recompute = false;

class LayerAgain : public autograd::Node {
 public:
  LayerAgain(std::shared_ptr<const RecomputedRun> run, int64_t layer, const at::Tensor& x)
      : Node(autograd::collect_next_edges(x)), run_(std::move(run)), layer_(layer), x_(x, /*is_output=*/false) {}

  autograd::variable_list apply(autograd::variable_list&& gradients) override {
    at::Tensor x = x_.unpack().detach();
    x.requires_grad_(true);
    const c10::AutoGradMode with_gradients(true);
    const at::Tensor y = Block(run_->model, layer_).forward({x, {}}, run_->layout, {}).sum();
    autograd::backward({y}, {gradients[0]});  // adds to the gradients of the layer's weights
    return {x.grad()};
  }
  void release_variables() override { x_.reset_data(); }
  std::string name() const override { return "LayerAgain"; }

 private:
  std::shared_ptr<const RecomputedRun> run_;
  int64_t layer_;
  autograd::SavedVariable x_;
};

}  // namespace

RecomputeGuard::RecomputeGuard(bool on) : before_(g_recompute) {
  g_recompute = on;
}

RecomputeGuard::~RecomputeGuard() {
  g_recompute = before_;
}

bool RecomputeGuard::on() {
  return g_recompute;
}

at::Tensor recomputed_layer(std::shared_ptr<const RecomputedRun> run, int64_t layer, const at::Tensor& x) {
  // With gradients, though they are dropped: without, some operations go another way, which rounds otherwise.
  const at::Tensor y =
      Block(run->model, layer).forward({x.detach().requires_grad_(true), {}}, run->layout, {}).sum().detach();
  autograd::set_history(y, std::make_shared<LayerAgain>(std::move(run), layer, x));
  return y;
}

}  // namespace oryx
