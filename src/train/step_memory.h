#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "train/recipe.h"

namespace oryx {

// Bytes that a training step of a recipe takes, on the device that trains.
struct StepMemory {
  int64_t weights = 0, gradients = 0, optimizer = 0;
  int64_t activations = 0;      // kept from the forward pass for the backward pass
  int64_t program = 0;          // on the CPU: the process beside its tensors, libraries and their buffers
  int64_t peak = 0;             // of all together, checkpoints left out
  int64_t checkpoint_copy = 0;  // in main memory, while a checkpoint is being written
};

// Predicts without running the model: a few passes of the same one with one and with two layers and at most 4096 tokens
// are measured; activations grow linearly with layers and tokens. What the operations keep is thereby always up to
// date. The recipe's vocabulary must be known (Recipe::vocab_given, or recall). Of several ranks, what each takes (a
// checkpoint's copy is rank 0's alone).
StepMemory predict_step_memory(Recipe recipe, at::Device device, int ranks = 1);

}  // namespace oryx
