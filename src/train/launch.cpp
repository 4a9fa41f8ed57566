#include "train/launch.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace oryx {
namespace {

struct Variables {
  const char *launcher, *rank, *ranks, *local_rank, *local_ranks;
};
constexpr Variables kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
};

const char* get(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

int number(const char* name, int low, int high) {
  const char* text = get(name);
  require(text != nullptr, "{} is not set, which tells a rank its place; start the ranks with torchrun, mpirun or srun",
          name);
  int value = 0;
  const char* end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, value);
  require(result.ec == std::errc() && result.ptr == end && value >= low && value <= high,
          "{} must be a whole number from {} to {}, but is '{}'", name, low, high, text);
  return value;
}

// Slurm's is a list, "8(x2),4": the first number. Unset: perhaps all of them.
int read_local_ranks(const char* name, int ranks) {
  const char* text = get(name);
  int value = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), value);
  return value >= 1 && value <= ranks ? value : ranks;
}

}  // namespace

Launch Launch::from_environment() {
  constexpr int kMost = 1 << 20;
  for (const Variables& names : kLaunchers) {
    if (get(names.rank) == nullptr && get(names.ranks) == nullptr) continue;
    Launch launch;
    launch.launcher = names.launcher;
    launch.ranks = number(names.ranks, 1, kMost);
    launch.rank = number(names.rank, 0, launch.ranks - 1);
    launch.local_ranks = read_local_ranks(names.local_ranks, launch.ranks);
    launch.local_rank = number(names.local_rank, 0, launch.ranks - 1);
    if (launch.alone()) return launch;
    const char* address = get("MASTER_ADDR");
    require(address != nullptr && get("MASTER_PORT") != nullptr,
            "{}={} says that {} processes train together, but {} is not set; set MASTER_ADDR to the name of rank 0's "
            "machine and MASTER_PORT to a port that is free there, or unset {} to train with one process",
            names.ranks, launch.ranks, launch.ranks, address == nullptr ? "MASTER_ADDR" : "MASTER_PORT", names.ranks);
    launch.address = address;
    launch.port = number("MASTER_PORT", 1, 65535);
    const char* agent = get("TORCHELASTIC_USE_AGENT_STORE");
    launch.agent_store = agent != nullptr && std::strcmp(agent, "True") == 0;
    return launch;
  }
  return {};
}

}  // namespace oryx
