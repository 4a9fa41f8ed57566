#include "bench/accuracy.h"

#include <ATen/Context.h>

#include "base/error.h"
#include "base/progress.h"
#include "bench/accuracy_cases.h"
#include "bench/inputs.h"
#include "ops/common/isa.h"

namespace oryx::bench {
namespace {

std::vector<Subject> subjects(const std::string& op, bool quick) {
  if (op == "attention") return attention_subjects(quick);
  if (op == "linear_cross_entropy") return loss_subjects(quick);
  if (op == "gated_delta_rule" || op == "ssd") return recurrence_subjects(op, quick);
  return pointwise_subjects(op, quick);
}

void judge(const Subject& subject, const std::string& dtype, Json& rows) {
  const at::ScalarType type = scalar_type(dtype);
  const Trial trial = try_out(subject.fast, subject.reference, subject.inputs, type);
  const auto add = [&](const std::string& what, const char* kind, const at::Tensor& fast, const at::Tensor& naive,
                       const at::Tensor& exact) {
    const Errors e = errors(fast, naive, exact);
    const double allowed = e.allowed(rounding_floor(type)), unit = e.largest + 1e-3;
    rows.push_back({{"op", subject.op},
                    {"case", subject.name},
                    {"dtype", dtype},
                    {"what", what},
                    {"kind", kind},
                    {"largest", e.largest},
                    {"fast", e.fast / unit},
                    {"naive", e.naive / unit},
                    {"allowed", allowed / unit},
                    {"holds", e.fast <= allowed}});
  };
  for (size_t i = 0; i < trial.exact.outputs.size(); ++i) {
    const std::string& name = subject.output_names[i];
    add(name, name == "final_state" ? "state" : "output", trial.fast.outputs[i], trial.naive.outputs[i],
        trial.exact.outputs[i]);
  }
  size_t next = 0;
  for (size_t i = 0; i < subject.inputs.size() && next < trial.exact.gradients.size(); ++i) {
    if (!subject.inputs[i].grad) continue;
    add(subject.input_names[i], "gradient", trial.fast.gradients[next], trial.naive.gradients[next],
        trial.exact.gradients[next]);
    ++next;
  }
}

}  // namespace

Json bench_accuracy(const AccuracyOptions& options) {
  Json rows = Json::array();
  Progress progress("accuracy", static_cast<int64_t>(options.ops.size()));
  int64_t done = 0;
  for (const std::string& op : options.ops) {
    progress.update(done++, op);
    at::manual_seed(0);
    for (const Subject& subject : subjects(op, options.quick))
      for (const std::string& dtype : options.dtypes) judge(subject, dtype, rows);
  }
  progress.update(done);
  progress.finish();
  int64_t failed = 0;
  for (const Json& row : rows) failed += row["holds"] == false;
  return {{"isa", ops::isa_name(ops::current_isa())}, {"rows", rows}, {"failed", failed}};
}

}  // namespace oryx::bench
