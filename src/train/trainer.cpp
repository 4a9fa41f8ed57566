#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/stop_signal.h"
#include "train/training_data.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Trainer {
 public:
  Trainer(const Recipe& recipe, const TrainOptions& options)
      : recipe_(recipe),
        options_(options),
        data_(recipe_, options.out),
        model_(LanguageModel::random(recipe_.model, static_cast<uint64_t>(recipe_.train.seed), options.device)),
        optimizer_(model_, {recipe_.train.beta1, recipe_.train.beta2, recipe_.train.eps, recipe_.train.weight_decay}),
        mixing_(make_mixing(recipe_.mixing, recipe_.model, recipe_.data.context)),
        resolved_(recipe_.to_json()) {
    model_.set_compute_type(recipe_.train.precision == "bf16" ? at::kBFloat16 : at::kFloat);
  }

  TrainResult run() {
    resume();
    model_.require_gradients(true);
    write_file_atomically(options_.out / "recipe.json", resolved_.dump(2) + "\n");
    MetricsLog metrics(options_.out / "metrics.jsonl", state_.step);
    const StopSignal stop;
    const auto& t = recipe_.train;
    const int64_t steps = recipe_.steps();
    const auto begin = Clock::now();
    auto logged_at = begin;
    int64_t logged_tokens = state_.tokens;
    Progress progress("train", steps * t.batch_tokens, state_.tokens);
    TrainResult result;
    result.loss = std::nan("");
    while (state_.step < steps) {
      const Update update = step();
      result.loss = update.loss;
      require(std::isfinite(update.loss), "the loss became {} at step {}: lower train.lr, or raise train.warmup",
              update.loss, state_.step);
      const bool last = state_.step == steps;
      if (state_.step % t.log_every == 0 || last) {
        const double rate = static_cast<double>(state_.tokens - logged_tokens) / seconds_since(logged_at);
        metrics.write({{"step", state_.step},
                       {"tokens", state_.tokens},
                       {"loss", update.loss},
                       {"lr", update.lr},
                       {"grad_norm", update.grad_norm},
                       {"tokens_per_s", rate}});
        progress.update(state_.tokens, fmt::format("loss {:.4f}, {} tokens/s", update.loss, human_count(rate)));
        logged_at = Clock::now(), logged_tokens = state_.tokens;
      }
      if (last || (t.eval_every > 0 && state_.step % t.eval_every == 0)) {
        const Json losses = validate();
        if (!losses.empty()) metrics.write({{"step", state_.step}, {"tokens", state_.tokens}, {"val_loss", losses}});
        logged_at = Clock::now(), logged_tokens = state_.tokens;
      }
      const int signal = StopSignal::received();
      if (signal != 0 || last || (t.checkpoint_every > 0 && state_.step % t.checkpoint_every == 0))
        save_checkpoint(options_.out, model_, optimizer_, state_, t.keep);
      if (signal != 0 && !last) {
        result.stopped_by = signal;
        break;
      }
    }
    progress.finish(std::isnan(result.loss) ? "" : fmt::format("loss {:.4f}", result.loss));
    if (result.stopped_by == 0) save_model();
    result.steps = state_.step, result.tokens = state_.tokens, result.seconds = seconds_since(begin);
    return result;
  }

 private:
  struct Update {
    double loss, lr, grad_norm;
  };

  void resume() {
    state_.recipe = resolved_;
    const auto checkpoint = newest_checkpoint(options_.out);
    if (!checkpoint) return;
    state_ = load_checkpoint(*checkpoint, model_, optimizer_);
    check_same_recipe(state_.recipe, resolved_, *checkpoint);
  }

  SequenceLayout layout_of(const Batch& batch, int64_t first_sequence) const {
    std::vector<SequenceSpec> sequences;
    const double progress = static_cast<double>(state_.step) / static_cast<double>(recipe_.steps());
    for (int64_t b = 0; b < batch.sequences(); ++b)
      sequences.push_back({mixing_->schedule(static_cast<uint64_t>(recipe_.train.seed), state_.step, first_sequence + b,
                                             batch.cu_seqlens[b + 1] - batch.cu_seqlens[b], progress)});
    return {std::move(sequences), recipe_.model.num_hidden_layers, options_.device};
  }

  at::Tensor loss_sum(const Batch& batch, const SequenceLayout& layout) const {
    const auto longs = [&](const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(options_.device); };
    return model_.losses(model_.hidden(longs(batch.tokens), layout), longs(batch.targets)).sum();
  }

  Update step() {
    const auto& t = recipe_.train;
    const int64_t parts = t.batch_tokens / t.micro_batch_tokens;
    std::vector<Batch> batches;
    int64_t targets = 0, sequences = 0;
    for (int64_t i = 0; i < parts; ++i) {
      batches.push_back(data_.train().batch(state_.step * parts + i));
      targets += batches.back().target_count();
    }
    Update update{0, learning_rate(t, state_.step, recipe_.steps()), 0};
    for (const Batch& batch : batches) {
      const at::Tensor loss = loss_sum(batch, layout_of(batch, sequences)) / static_cast<double>(targets);
      loss.backward();
      update.loss += loss.item<double>();
      sequences += batch.sequences();
    }
    update.grad_norm = optimizer_.clip_gradients(t.clip);
    optimizer_.step(update.lr);
    optimizer_.zero_grad();
    state_.step += 1;
    state_.tokens += t.batch_tokens;
    return update;
  }

  // Nats per token on the validation data in every mode of the model.
  Json validate() const {
    Json out = Json::object();
    if (data_.valid_batches() == 0) return out;
    c10::NoGradGuard no_grad;
    const ModelConfig& config = recipe_.model;
    std::vector<std::pair<std::string, std::string>> modes;
    if (config.has(Mode::attention)) modes.emplace_back("attention", "attention");
    if (config.has(Mode::recurrent)) modes.emplace_back("recurrent", "recurrent");
    if (modes.size() == 2) {
      modes.emplace_back("mixed", fmt::format("alternate:{}", std::max<int64_t>(1, recipe_.data.context / 16)));
      modes.emplace_back("tail", "tail:0.1");
    }
    for (const auto& [name, text] : modes) {
      const ScheduleSpec spec = ScheduleSpec::parse(text);
      double sum = 0;
      int64_t targets = 0;
      for (int64_t i = 0; i < data_.valid_batches(); ++i) {
        const Batch batch = data_.valid_batch(i);
        std::vector<SequenceSpec> sequences;
        for (int64_t b = 0; b < batch.sequences(); ++b)
          sequences.push_back({spec.resolve(batch.cu_seqlens[b + 1] - batch.cu_seqlens[b], config)});
        sum += loss_sum(batch, {std::move(sequences), config.num_hidden_layers, options_.device}).item<double>();
        targets += batch.target_count();
      }
      out[name] = sum / static_cast<double>(std::max<int64_t>(targets, 1));
    }
    return out;
  }

  void save_model() const {
    StagedDirectory staged(options_.out / "model");
    model_.save(staged.path());
    data_.save_into(staged.path());
    staged.commit();
  }

  Recipe recipe_;
  TrainOptions options_;
  TrainingData data_;  // sets the recipe's vocabulary, so it stands before the model
  LanguageModel model_;
  AdamW optimizer_;
  std::unique_ptr<MixingStrategy> mixing_;
  Json resolved_;
  TrainerState state_;
};

}  // namespace

TrainResult train(const Recipe& recipe, const TrainOptions& options) {
  std::error_code error;
  fs::create_directories(options.out, error);
  require(!error, "{}: cannot be made: {}", options.out.string(), error.message());
  const bool begun = newest_checkpoint(options.out).has_value() || fs::exists(options.out / "model");
  require(options.resume || !begun,
          "{} already holds a run; pass --resume to go on with it, or train into another --out", options.out.string());
  return Trainer(recipe, options).run();
}

}  // namespace oryx
