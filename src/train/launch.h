#pragma once

#include <string>

namespace oryx {

// This process's place among those ("ranks") that train one model together, as a launcher's environment tells it.
struct Launch {
  int rank = 0, ranks = 1;
  int local_rank = 0, local_ranks = 1;  // on this machine
  std::string launcher;                 // "torchrun", "mpirun", "Slurm"; empty: started by hand, alone
  std::string address;                  // where the ranks meet; empty when there is one
  int port = 0;
  bool agent_store = false;  // torchrun itself listens there, not rank 0

  // torchrun's variables come first, then Open MPI's (PMIx), then Slurm's. InputError naming the variable that is
  // missing or is no such number.
  static Launch from_environment();
  bool alone() const { return ranks == 1; }
};

}  // namespace oryx
