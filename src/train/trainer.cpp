#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <future>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "model/recompute.h"
#include "train/batch_share.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/process_group.h"
#include "train/resident_memory.h"
#include "train/run_lock.h"
#include "train/sharded_weights.h"
#include "train/step_guard.h"
#include "train/stop_signal.h"
#include "train/training_data.h"
#include "train/validation.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

OptimizerOptions optimizer_options(const Recipe::Train& t) {
  return {t.beta1, t.beta2, t.eps, t.weight_decay, t.optimizer == "muon", t.momentum};
}

constexpr int64_t kMeasuredSteps = 3;  // the optimizer's state is touched in the first

// Twice an interval: should the process be killed while the newest checkpoint is being written, the one before it is
// whole and at most an interval old (the writer is waited for before the next one is taken).
bool checkpoint_due(int64_t step, int64_t every) {
  return every > 0 && (step % every == 0 || step % every == (every + 1) / 2);
}

// Rank 0's are made first: it may have to learn a tokenizer.
TrainingData make_data(Recipe& recipe, const fs::path& run, ProcessGroup& group) {
  if (!group.first()) group.from_first();
  TrainingData data(recipe, run, group.first());
  if (group.first()) group.from_first();
  return data;
}

std::unique_ptr<ShardedWeights> make_shards(const LanguageModel& model, const Recipe::Train& t, ProcessGroup& group) {
  if (group.size() == 1) return nullptr;
  std::vector<bool> whole;
  for (const WeightSpec& spec : weight_specs(model.config()))
    whole.push_back(t.optimizer == "muon" && suits_muon(spec));
  return std::make_unique<ShardedWeights>(model, whole, group);
}

// The batch's sequences, and then the same ones again.
Batch twice(const Batch& batch) {
  Batch out = batch;
  out.tokens.insert(out.tokens.end(), batch.tokens.begin(), batch.tokens.end());
  out.targets.insert(out.targets.end(), batch.targets.begin(), batch.targets.end());
  for (int64_t b = 1; b <= batch.sequences(); ++b)
    out.cu_seqlens.push_back(batch.cu_seqlens.back() + batch.cu_seqlens[b]);
  return out;
}

LanguageModel first_model(const Recipe& recipe, at::Device device) {
  LanguageModel model = LanguageModel::random(recipe.model, static_cast<uint64_t>(recipe.train.seed), device);
  if (recipe.weights.empty()) return model;
  const LanguageModel given = LanguageModel::load(recipe.weights);
  for (const auto& [name, weight] : model.weights()) model.set_weight(name, given.weight(name));
  return model;
}

class Trainer {
 public:
  Trainer(const Recipe& recipe, const TrainOptions& options, const BatchShare& share, ProcessGroup& group)
      : recipe_(recipe),
        options_(options),
        share_(share),
        group_(group),
        data_(make_data(recipe_, options.out, group)),
        model_(first_model(recipe_, options.device)),
        shards_(make_shards(model_, recipe_.train, group)),
        optimizer_(model_, optimizer_options(recipe_.train), shards_.get()),
        mixing_(make_mixing(recipe_.mixing, recipe_.model, recipe_.data.context)),
        passes_(passes(recipe_.mixing, recipe_.model)),
        resolved_(recipe_.to_json()),
        guard_(recipe_.train.nonfinite_limit, recipe_.train.outlier_z),
        checkpoints_(options_.out, recipe_.train.keep) {
    model_.set_compute_type(recipe_.train.precision == "bf16" ? at::kBFloat16 : at::kFloat);
    model_.set_key_gradient(recipe_.mixing.key_gradient);
  }

  TrainResult run() {
    state_.recipe = resolved_;
    load_checkpoint();
    model_.require_gradients(true);
    if (group_.first()) {
      metrics_.emplace(options_.out, state_.step);
      if (options_.started) options_.started(resolved_);
      write_file_atomically(options_.out / "recipe.json", resolved_.dump(2) + "\n");
    }
    const auto& t = recipe_.train;
    const int64_t steps = recipe_.steps();
    const auto begin = Clock::now();
    rate_.restart(state_.tokens);
    Progress progress("train", steps * t.batch_tokens, state_.tokens);
    TrainResult result;
    result.loss = std::nan("");
    reset_peak_resident_memory();
    std::optional<Queued> before;  // the step before, which was not looked at yet
    const auto look_at = [&](const Queued& queued) {
      const Update update = outcome(queued);
      result.loss = update.loss;
      checkpoints_.check();
      if (group_.first()) report(update, update.step == steps, progress);
      require(
          !guard_.must_stop(),
          "stopped at step {}: {} steps in a row had a loss or gradient that is not finite (the loss is {}, the "
          "gradient's norm {}); lower train.lr or raise train.warmup, and train into another --out or --resume from "
          "the last good checkpoint",
          update.step, guard_.in_a_row(), update.loss, update.grad_norm);
    };
    for (int64_t done = 1; state_.step < steps; ++done) {
      Queued queued = step();
      // Evaluations and checkpoints come later and are not what is asked for.
      if (done <= kMeasuredSteps && options_.device.is_cpu()) result.step_peak_bytes = peak_resident_memory();
      const bool last = state_.step == steps;
      const int signal = shards_ ? queued.signal : StopSignal::received();
      const bool evaluates = last || (t.eval_every > 0 && state_.step % t.eval_every == 0);
      const bool saves = checkpoint_due(state_.step, t.checkpoint_every);
      // A GPU has the next step to do while the program looks at what became of this one.
      if (before) look_at(*std::exchange(before, std::nullopt));
      if (queued.ready && signal == 0 && !evaluates && !saves) {
        before = std::move(queued);
        continue;
      }
      look_at(queued);
      const bool best = evaluates && validate() && t.checkpoint_every > 0;
      // Weights that give no finite loss are not worth the place of better ones.
      if (signal != 0 || last || best || (guard_.in_a_row() == 0 && saves)) save_checkpoint();
      if (t.checkpoint_every == 1) checkpoints_.wait();  // nothing lies between two checkpoints
      if (signal != 0 && !last) {
        result.stopped_by = signal;
        break;
      }
    }
    checkpoints_.wait();
    progress.finish(std::isnan(result.loss) ? "" : fmt::format("loss {:.4f}{}", result.loss, validation_note_));
    if (result.stopped_by == 0 && group_.first()) save_model();
    group_.finish();
    result.steps = state_.step, result.tokens = state_.tokens, result.skipped = guard_.skipped();
    result.seconds = seconds_since(begin);
    return result;
  }

 private:
  // A step whose work was given to the device.
  struct Queued {
    int64_t step = 0, tokens = 0;  // done with it
    double lr = 0;
    at::Tensor numbers;               // losses, whose sum is the step's, and the gradients' norm; on the CPU
    std::optional<c10::Event> ready;  // when they are there; none: they are
    int signal = 0;                   // that some rank had received when the gradients were reduced: all stop together
  };
  struct Update {
    int64_t step, tokens;
    double loss, lr, grad_norm;
    StepGuard::Verdict verdict;
  };

  // Tokens per second since the last report, evaluations left out.
  struct Rate {
    Clock::time_point since;
    int64_t tokens = 0;
    void restart(int64_t now) { since = Clock::now(), tokens = now; }
    double of(int64_t now) const { return static_cast<double>(now - tokens) / seconds_since(since); }
  };

  // One step's lines in metrics.jsonl, and the progress line.
  void report(const Update& update, bool last, Progress& progress) {
    const auto& [skip, loss_z, norm_z] = update.verdict;
    if (skip) {
      Progress::say(fmt::format("step {} is skipped: its loss is {}, its gradient's norm {} ({} skipped so far)",
                                update.step, update.loss, update.grad_norm, guard_.skipped()));
      metrics_->write({{"step", update.step}, {"tokens", update.tokens}, {"skipped", guard_.skipped()}});
    }
    if (loss_z || norm_z) {
      Json z;
      if (loss_z) z["loss_z"] = *loss_z;
      if (norm_z) z["grad_norm_z"] = *norm_z;
      Progress::say(
          fmt::format("step {} is an outlier: loss {:.4f}, gradient's norm {:.3g}, deviations above the mean {}",
                      update.step, update.loss, update.grad_norm, z.dump()));
      metrics_->write({{"step", update.step}, {"tokens", update.tokens}, {"outlier", z}});
    }
    if (skip || (update.step % recipe_.train.log_every != 0 && !last)) return;
    const double rate = rate_.of(update.tokens);
    metrics_->write({{"step", update.step},
                     {"tokens", update.tokens},
                     {"loss", update.loss},
                     {"lr", update.lr},
                     {"grad_norm", update.grad_norm},
                     {"tokens_per_s", rate}});
    progress.update(update.tokens,
                    fmt::format("loss {:.4f}, {} tokens/s{}", update.loss, human_count(rate), validation_note_));
    rate_.restart(update.tokens);
  }

  // Rank 0 reads, and the others get it from there.
  void load_checkpoint() {
    const bool found = newest_checkpoint(options_.out).has_value();
    if (group_.from_first(found ? "found" : "").empty()) return;
    if (group_.first()) {
      state_ = *load_newest_checkpoint(options_.out, resolved_, model_, optimizer_);
    } else {
      optimizer_.load_state({});
    }
    state_ = TrainerState::from_json(Json::parse(group_.from_first(state_.to_json().dump())), "rank 0's trainer.json");
    guard_.load_state(state_.guard);
    if (shards_) shards_->broadcast();
  }

  // Whether the mean over the modes is the lowest so far.
  bool validate() {
    const Json losses = validation_losses(model_, data_, recipe_, group_);
    rate_.restart(state_.tokens);
    if (losses.empty()) return false;
    if (metrics_) metrics_->write({{"step", state_.step}, {"tokens", state_.tokens}, {"val_loss", losses}});
    validation_note_ = ", validation";
    double mean = 0;
    for (const auto& [mode, loss] : losses.items()) {
      validation_note_ += fmt::format(" {} {:.4f}", mode, loss.get<double>());
      mean += loss.get<double>() / static_cast<double>(losses.size());
    }
    if (!std::isfinite(mean) || guard_.in_a_row() > 0 || (state_.best_loss && mean >= *state_.best_loss)) return false;
    state_.best_loss = mean, state_.best_step = state_.step;
    return true;
  }

  void save_checkpoint() {
    if (!group_.first()) {
      optimizer_.state();  // to rank 0
      return;
    }
    state_.guard = guard_.state();
    checkpoints_.save(model_, optimizer_, state_, [this](const fs::path& directory) { data_.save_into(directory); });
  }

  // Of this rank in a step; with two passes over a token each batch holds its sequences, and then the same ones again.
  std::vector<Batch> batches_of(int64_t step) const {
    std::vector<Batch> batches = share_.batches(data_.train(), step);
    if (passes_ == 2)
      for (Batch& batch : batches) batch = twice(batch);
    return batches;
  }

  SequenceLayout layout_of(const Batch& batch, int64_t first_sequence, int64_t step) const {
    const double progress = static_cast<double>(step) / static_cast<double>(recipe_.steps());
    const int64_t once = batch.sequences() / passes_;
    return batch_layout(model_, batch, [&](int64_t b, int64_t length) {
      MixerSchedule schedule = mixing_->schedule(static_cast<uint64_t>(recipe_.train.seed), step,
                                                 first_sequence + b % once, length, progress);
      return b < once ? schedule : schedule.exchanged();
    });
  }

  // What a step reads.
  struct StepData {
    std::vector<Batch> batches;
    std::vector<SequenceLayout> layouts;
    double targets = 0;  // of all ranks
  };

  StepData prepare(int64_t step) {
    StepData data;
    data.batches = next_batches_.valid() ? next_batches_.get() : batches_of(step);
    // Texts made for a task are tokenized on the way: the next step's meanwhile.
    if (const int64_t next = step + 1; next < recipe_.steps())
      next_batches_ = std::async(std::launch::async, [this, next] { return batches_of(next); });
    std::vector<double> counts(group_.size() + 1);  // each rank's sequences, all targets
    for (const Batch& batch : data.batches) {
      const int64_t sequences = batch.sequences() / passes_;
      counts[group_.rank()] += static_cast<double>(sequences);
      counts.back() += static_cast<double>(batch.target_count());
    }
    group_.sum(counts);
    data.targets = counts.back();
    auto sequences = static_cast<int64_t>(std::accumulate(counts.begin(), counts.begin() + group_.rank(), 0.0));
    for (const Batch& batch : data.batches) {
      data.layouts.push_back(layout_of(batch, sequences, step));
      sequences += batch.sequences() / passes_;
    }
    return data;
  }

  Queued step() {
    const auto& t = recipe_.train;
    const StepData data = prepare(state_.step);
    const RecomputeGuard recompute(t.recompute);
    Queued out;
    out.lr = learning_rate(t, state_.step, recipe_.steps());
    if (shards_) shards_->begin_step();
    std::vector<at::Tensor> numbers;
    for (size_t i = 0; i < data.batches.size(); ++i) {
      const SequenceLayout& layout = data.layouts[i];
      const at::Tensor loss = loss_sum(model_, data.batches[i], layout, 1 / data.targets);
      if (shards_ && i + 1 == data.batches.size()) shards_->reduce_in_backward(layout);
      loss.backward();
      numbers.push_back(loss.detach().to(at::kFloat));
    }
    if (options_.before_update) options_.before_update(state_.step, model_);
    if (shards_) numbers = {finish_reduction(numbers, out.signal)};
    numbers.push_back(optimizer_.step(out.lr, t.clip, at::stack(numbers).sum()));
    optimizer_.zero_grad();
    state_.step += 1;
    state_.tokens += t.batch_tokens;
    out.step = state_.step, out.tokens = state_.tokens;
    read(at::stack(numbers), out);
    return out;
  }

  // To the CPU, without waiting where one rank trains on a GPU.
  void read(const at::Tensor& numbers, Queued& to) const {
    if (options_.device.is_cpu() || shards_) {
      to.numbers = numbers.cpu();
      return;
    }
    to.numbers = at::empty(numbers.sizes(), numbers.options().device(at::kCPU).pinned_memory(numbers.is_cuda()));
    to.numbers.copy_(numbers, /*non_blocking=*/true);
    const c10::impl::VirtualGuardImpl device(options_.device.type());
    to.ready.emplace(options_.device.type());
    to.ready->record(device.getStream(options_.device));
  }

  Update outcome(const Queued& queued) {
    if (queued.ready) queued.ready->synchronize();
    const auto* const numbers = queued.numbers.const_data_ptr<float>();
    const int64_t losses = queued.numbers.numel() - 1;
    Update update{queued.step, queued.tokens,   std::accumulate(numbers, numbers + losses, 0.0),
                  queued.lr,   numbers[losses], {}};
    for (double* x : {&update.loss, &update.grad_norm})
      if (std::isnan(*x)) *x = std::nan("");  // x86 makes one that reads "-nan"
    update.verdict = guard_.judge(update.loss, update.grad_norm);
    return update;
  }

  // The loss of all ranks, of this one's parts.
  at::Tensor finish_reduction(const std::vector<at::Tensor>& losses, int& stopped_by) {
    const int signal = StopSignal::received();
    std::vector<double> values{at::stack(losses).sum().item<double>(), signal == SIGINT ? 1.0 : 0.0,
                               signal == SIGTERM ? 1.0 : 0.0};
    shards_->finish_reduction(values);
    stopped_by = values[1] > 0 ? SIGINT : values[2] > 0 ? SIGTERM : 0;
    return at::full({}, values[0], losses[0].options());
  }

  void save_model() const {
    StagedDirectory staged(options_.out / "model");
    model_.save(staged.path());
    data_.save_into(staged.path());
    staged.commit();
  }

  Recipe recipe_;
  TrainOptions options_;
  const BatchShare& share_;
  ProcessGroup& group_;
  TrainingData data_;  // sets the recipe's vocabulary, so it stands before the model
  LanguageModel model_;
  std::unique_ptr<ShardedWeights> shards_;  // null: one rank
  Optimizer optimizer_;
  std::unique_ptr<MixingStrategy> mixing_;
  int64_t passes_;  // over a token in a step
  Json resolved_;
  TrainerState state_;
  std::future<std::vector<Batch>> next_batches_;  // of the step after the last that was prepared
  StepGuard guard_;
  CheckpointWriter checkpoints_;
  std::optional<MetricsLog> metrics_;  // of rank 0, opened when it is known where training begins
  Rate rate_;
  std::string validation_note_;  // for the progress line
};

}  // namespace

static TrainResult train_in(ProcessGroup& group, const Recipe& recipe, const TrainOptions& options,
                            const BatchShare& share) {
  const StopSignal stop;  // one that comes while the data are loaded ends training after its first step
  std::unique_ptr<RunLock> lock;
  if (group.first()) {
    std::error_code error;
    fs::create_directories(options.out, error);
    require(!error, "{}: cannot be made: {}", options.out.string(), error.message());
    lock = std::make_unique<RunLock>(options.out);
    remove_unfinished(options.out);
    const bool begun = newest_checkpoint(options.out).has_value() || fs::exists(options.out / "model");
    require(options.resume || !begun,
            "{} already holds a run; pass --resume to go on with it, or train into another --out",
            options.out.string());
  }
  return Trainer(recipe, options, share, group).run();
}

TrainResult train(const Recipe& recipe, const TrainOptions& options) {
  const auto& t = recipe.train;
  const Launch& launch = options.launch;
  const BatchShare share(t.batch_tokens, t.micro_batch_tokens, recipe.data.context, launch.rank, launch.ranks);
  if (!options.device.is_cpu()) c10::impl::VirtualGuardImpl(options.device.type()).setDevice(options.device);
  ProcessGroup group(launch, options.device);
  if (launch.alone()) return train_in(group, recipe, options, share);
  Progress::set_quiet(!group.first());
  Progress::say(fmt::format("{} ranks, started by {}; each takes {} of {} tokens of a batch, {} at once", launch.ranks,
                            launch.launcher, share.count() * share.micro_batch_tokens(), t.batch_tokens,
                            share.micro_batch_tokens()));
  try {
    return train_in(group, recipe, options, share);
  } catch (const std::exception& e) {
    const std::string what = e.what();
    const std::string line = fmt::format("rank {}: {}", group.rank(), what.substr(0, what.find('\n')));
    group.fail(line);
    if (dynamic_cast<const InputError*>(&e) != nullptr) throw InputError(line);
    throw std::runtime_error(line);
  }
}

}  // namespace oryx
