// Programmatic dependent launch: a kernel may start before the one ahead of it in the stream has finished. Both are
// no-ops when the launch did not ask for it.
#pragma once

namespace sdpa::hopper::ptx {

// Returns when every kernel ahead has finished and its writes are visible.
__device__ __forceinline__ void wait_for_prior_grid() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Lets the next kernel's CTAs start as soon as there is room for them.
__device__ __forceinline__ void allow_next_grid() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace sdpa::hopper::ptx
